"""A row network on the device, all layers of a token at once: what `predictor.row_network.twin` does, in PyTorch.

What the memory of the text and the identity of tokens add to the sums is looked up by the host, which tells it
(`predictor.row_network.kernels.begin_token`); everything else stays on the device. The network is asked at its nearest
lookahead, where the whole routing of a token may be told at once: rows of later layers do not feed earlier ones.

The matrix is applied in one of three ways (`ARITHMETIC`). Sums, shifts and ReLU are integers in all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from catalog.errors import ForestageError
from predictor.row_network.integers import (
    ADAPTED_LIMIT,
    CERTAIN,
    CHANCE_SHIFT,
    FRACTION_BITS,
    HIDDEN_MAX,
    SCORE_MAX,
    SCORE_MIN,
    SCORE_ZERO,
)
from predictor.row_network.kernels import distance_of
from predictor.row_network.sources import DECAYED, MATCHED, SAME_TOKEN, feeding_layers, rank_shifts, sources
from predictor.row_network.twin import RowNetwork

ARITHMETIC = {
    "int8": "one product of all layers: hidden − 128 in a block-diagonal matrix, int8 by int8, sums in int32; exact",
    "fp16": "a batched product in float16, a matrix a layer; rounded to 11 bits",
    "fp32": "a batched product in float32, a matrix a layer; exact, as every sum is an integer below 2^24",
}

INT8_ROWS = 32
"""Rows that the int8 product has at least: `torch._int_mm` wants more than 16 on a GPU."""
INT8_COLUMNS = 8
"""Its columns are a multiple of these."""


class DeviceNetwork:
    """A network's state and tables on a device, for ``batch`` sequences.

    Args:
        network: whose integers.
        device: where.
        arithmetic: of the matrix (`ARITHMETIC`).
        batch: sequences.

    Raises:
        ForestageError: if the network is not asked at its nearest lookahead, or its sums are too large for ``fp32``.
    """

    def __init__(self, network: RowNetwork, device: str | torch.device, *, arithmetic: str, batch: int = 1) -> None:
        config, tables = network.config, network.tables
        if network.lookahead != config.nearest:
            raise ForestageError(
                f"network: asked at lookahead {network.lookahead}; on the device it is asked at its nearest, "
                f"{config.nearest}"
            )
        self.arithmetic, self.batch = arithmetic, batch
        self.layers, self.hidden, self.answers = tables.layers, tables.hidden, tables.output.shape[2]
        self.experts, self.adapts = network.experts, bool(network.lookahead and tables.adaptations.any())
        every = sources(config)
        kept = [index for index, source in enumerate(every) if source.age != MATCHED]
        groups = []
        for index in kept:
            source = every[index]
            if source.age == SAME_TOKEN:
                groups.append(0)
            else:
                groups.append(source.age if source.age != DECAYED else 1 + len(config.previous) + source.index)
        feeding = feeding_layers(config, layers=self.layers)[:, kept]  # [L, S]
        count = len(kept)

        def there(array: NDArray[Any], dtype: torch.dtype = torch.int32) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device, dtype)

        rows = tables.rows[:, kept].reshape(-1, self.hidden)
        self._rows = there(np.concatenate([rows, np.zeros((1, self.hidden), np.int8)]), torch.int8)
        first = (np.arange(self.layers)[:, None] * count + np.arange(count)) * self.experts
        self._first = there(first, torch.int64)[:, :, None]
        self._feeding = there(np.maximum(feeding, 0), torch.int64)
        self._missing = there(feeding < 0, torch.bool)[:, :, None]
        shifts = np.array(rank_shifts(network.top_k, network.ranked))
        weights = 1 << (shifts + tables.source_shifts[:, kept].astype(np.int64)[:, :, None])
        self._weights = there(weights)[..., None]
        self._groups = there(np.array(groups, np.int64), torch.int64)
        self._decays = config.decays
        at = [distance_of(layer, network.lookahead, config.nearest) for layer in range(self.layers)]
        where = np.arange(self.layers), np.array(at)
        hidden_shifts = tables.hidden_shifts.astype(np.int64)[:, None]
        self._bias = there(tables.bias[where] + (1 << hidden_shifts >> 1))
        self._hidden_shifts = there(hidden_shifts)
        score_shifts = tables.score_shifts.astype(np.int64)[:, None]
        self._score_shifts = there(score_shifts)
        self._output_bias = there(tables.output_bias + (1 << score_shifts >> 1))
        self._adaptations = there(tables.adaptations.astype(np.int64)[:, None])
        self._chances = there(tables.chances[where][:, 0].astype(np.int64)) if self.adapts else None
        self._set_matrix(tables.output, there)
        groups_count = 1 + len(config.previous) + len(config.decays)
        self._fed = torch.zeros((groups_count, batch, self.layers, self.hidden), dtype=torch.int32, device=device)
        self._later = torch.zeros(
            (len(config.previous), batch, self.layers, self.hidden), dtype=torch.int32, device=device
        )
        self._decayed = torch.zeros((len(self._decays), *self._fed.shape[1:]), dtype=torch.int32, device=device)
        self._now = torch.zeros(self._fed.shape[1:], dtype=torch.int32, device=device)
        self._adapted = torch.zeros((batch, self.layers, self.answers), dtype=torch.int32, device=device)

    def _set_matrix(self, output: NDArray[np.int8], there: Callable[[NDArray[Any], torch.dtype], torch.Tensor]) -> None:
        if self.arithmetic == "int8":
            columns = -self.answers % INT8_COLUMNS
            stacked = np.pad(output.reshape(-1, self.answers), ((0, 0), (0, columns)))
            # Column by column in memory, as the GPU's product of int8 reads it.
            self._matrix = there(stacked.T, torch.int8).t()
            self._offset = there(128 * output.astype(np.int64).sum(axis=1), torch.int32)
            size = max(INT8_ROWS, self.batch * self.layers), self.layers * self.hidden
            self._blocks = torch.zeros(size, dtype=torch.int8, device=self._matrix.device)
            own = self._blocks[: self.batch * self.layers].view(self.batch, self.layers, self.layers, self.hidden)
            self._diagonal = own.diagonal(dim1=1, dim2=2).movedim(-1, 1)  # a view [batch, L, H]
        elif self.arithmetic == "fp16":
            self._matrix = there(output, torch.float16)
        elif self.arithmetic == "fp32":
            most = int(np.abs(output.astype(np.int64)).sum(axis=1).max()) * HIDDEN_MAX
            if most >= 1 << 24:
                raise ForestageError(f"network: its sums reach {most}, beyond what float32 holds exactly; take int8")
            self._matrix = there(output, torch.float32)
        else:
            raise ForestageError(f"arithmetic: {self.arithmetic!r} is none of {', '.join(ARITHMETIC)}")

    def start(self) -> None:
        """New sequences begin."""
        for tensor in (self._later, self._decayed, self._now, self._adapted):
            tensor.zero_()

    def token(self, ids: torch.Tensor, told: torch.Tensor | None = None) -> torch.Tensor:
        """Scores i32 ``[batch, layers, answers]`` of one token of each sequence.

        Args:
            ids: i64 ``[batch, layers, top_k]``: what its gates chose, in rank order.
            told: i32 ``[batch, layers, hidden]``: what text and identity add to the sums; ``None``: nothing.
        """
        chosen = ids[:, self._feeding]  # [batch, L, S, k]
        index = torch.where(self._missing, len(self._rows) - 1, self._first + chosen)
        sums = (self._rows[index] * self._weights).sum(3, dtype=torch.int32)  # [batch, L, S, H]
        self._fed.zero_().index_add_(0, self._groups, sums.movedim(2, 0))
        total = self._now + self._fed[0]
        if told is not None:
            total += told
        scores = self._scores(total)
        if self._chances is not None:
            self._adapt(scores, ids)
        self._end()
        return scores

    def _scores(self, total: torch.Tensor) -> torch.Tensor:
        hidden = ((total + self._bias) >> self._hidden_shifts).clamp_(0, HIDDEN_MAX)
        if self.arithmetic == "int8":
            self._diagonal.copy_(hidden - 128)
            product = torch._int_mm(self._blocks, self._matrix)[: self.batch * self.layers, : self.answers]
            raw = product.view(self.batch, self.layers, self.answers) + self._offset
        else:
            scale = 256 if self.arithmetic == "fp16" else 1  # sums in float16 stay below its largest number
            floats = (hidden.to(self._matrix.dtype) / scale).transpose(0, 1)
            raw = (torch.bmm(floats, self._matrix).to(torch.float32) * scale).round_().to(torch.int32).transpose(0, 1)
        score = ((raw + self._output_bias) >> self._score_shifts) + SCORE_ZERO
        if self._chances is not None:
            adapted = self._adapted >> self._adaptations
            score = score + torch.where(self._adaptations > 0, adapted, 0)
        return score.clamp_(SCORE_MIN, SCORE_MAX)

    def _adapt(self, scores: torch.Tensor, ids: torch.Tensor) -> None:
        assert self._chances is not None
        chances = self._chances.expand(self.batch, -1, -1).gather(2, (scores >> CHANCE_SHIFT).to(torch.int64))
        chosen = torch.zeros_like(scores).scatter_(2, ids, CERTAIN)
        moved = (self._adapted + chosen - chances).clamp_(-ADAPTED_LIMIT, ADAPTED_LIMIT)
        self._adapted.copy_(torch.where(self._adaptations > 0, moved, self._adapted))

    def _end(self) -> None:
        previous = len(self._later)
        if previous:
            self._later += self._fed[1 : 1 + previous]
            self._now.copy_(self._later[0])
            self._later[:-1] = self._later[1:].clone()
            self._later[-1] = 0
        else:
            self._now.zero_()
        for index, (decay, _) in enumerate(self._decays):
            right = FRACTION_BITS - decay // 2
            value = self._decayed[index]
            value += ((self._fed[1 + previous + index] << FRACTION_BITS) - value + (1 << (decay - 1))) >> decay
            self._now += (value + (1 << right >> 1)) >> right
