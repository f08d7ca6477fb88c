"""What one layer's experts compute for some tokens, in pieces that may be launched in any order.

The result has the same bits whatever the order and wherever the blocks lie: each expert computes all of its tokens'
rows at once, in the order of the tokens, whatever it is launched with, and the outputs are put into one order, of
tokens and of their choices, before they are weighted and added up, in float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gpu_reference.experts.group import Group
from gpu_reference.experts.piece import Piece
from gpu_reference.offload.queues import ComputeQueue, bring


class LayerWork:
    """One layer's. All tensors are the device's; nothing of them is read here before the queue has run.

    Args:
        queue: where work is launched.
        group: what computes experts.
        x: ``[n, hidden]``, what the experts read.
        ids: i64 ``[n, k]``, of each token's experts, distinct.
        weights: f32 ``[n, k]``.
        chosen: the same as ``ids``, on the host, token by token.

    Attributes:
        tokens_of: how many tokens chose each expert, in the order of first choice.
    """

    def __init__(
        self,
        queue: ComputeQueue,
        group: Group,
        x: torch.Tensor,
        ids: torch.Tensor,
        weights: torch.Tensor,
        chosen: Sequence[int],
    ) -> None:
        self._queue = queue
        self._group = group
        self._weights = weights
        self._moe = torch.empty_like(x)
        self._choices = ids.shape[1]
        self._chosen = chosen
        self._rows = x
        self._order: torch.Tensor | None = None
        self.tokens_of: dict[int, int] = {}
        for expert in chosen:
            self.tokens_of[expert] = self.tokens_of.get(expert, 0) + 1
        if len(x) == 1:  # nothing to sort: each choice is a row
            self._spans = {expert: (0, 1, at) for at, expert in enumerate(chosen)}
        else:
            self._spans, begin = {}, 0
            for expert in sorted(self.tokens_of):
                self._spans[expert] = (begin, self.tokens_of[expert], begin)
                begin += self.tokens_of[expert]
            queue.launch(lambda: self._gather(x, ids))
        self._outputs = x.new_empty((len(chosen), x.shape[1]))
        self._left = set(self._spans)

    def _gather(self, x: torch.Tensor, ids: torch.Tensor) -> None:
        """Rows of one expert lie together, in the order of the tokens."""
        self._order = torch.argsort(ids.reshape(-1), stable=True)
        self._rows = x.index_select(0, torch.div(self._order, self._choices, rounding_mode="floor"))

    def launch(self, experts: Sequence[int], blocks: Sequence[torch.Tensor]) -> None:
        """Compute ``experts``, whose bytes are in ``blocks``, together."""
        pieces = [Piece(block, *self._spans[expert]) for expert, block in zip(experts, blocks, strict=True)]
        self._left.difference_update(experts)
        self._queue.launch(lambda: self._group(pieces, self._rows, self._outputs))

    def launch_result(self, expert: int, output: torch.Tensor) -> None:
        """Take the ``output`` of ``expert``, in host memory, of rows ``rows_of(expert)``."""
        _, rows, at = self._spans[expert]
        self._left.remove(expert)
        self._queue.launch(lambda: bring(self._outputs[at : at + rows], output))

    def rows_of(self, expert: int) -> list[int]:
        """Tokens that chose ``expert``, in order."""
        return [at // self._choices for at, chosen in enumerate(self._chosen) if chosen == expert]

    def combine(self) -> torch.Tensor:
        """The weighted sum of each token's experts, ``[n, hidden]``, once everything above is launched."""
        assert not self._left, "an expert was not computed"
        self._queue.launch(self._combine)
        return self._moe

    def _combine(self) -> None:
        add_up(self._outputs, self._order, self._weights, self._moe)


def add_up(uses: torch.Tensor, order: torch.Tensor | None, weights: torch.Tensor, total: torch.Tensor) -> None:
    """Write the weighted sum of each token's experts, in float32, into ``total [n, hidden]``.

    Args:
        uses: outputs of experts, ``[n · k, hidden]``.
        order: i64 ``[n · k]``, of which choice each row is, tokens' choices counted one after the other; ``None``: in
            that order already.
        weights: f32 ``[n, k]``.
        total: written.
    """
    if order is not None:
        uses = torch.empty_like(uses).index_copy_(0, order, uses)
    weighted = uses.view(*weights.shape, -1).float() * weights[..., None]
    total.copy_(weighted.sum(1))
