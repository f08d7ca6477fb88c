"""Read a router of an unknown class from the arguments with which the experts are called.

The indices and weights that a layer's experts receive *are* the model's choice. They are recorded if the router's
logits explain them: one of the usual rules must give this choice and these weights at every token of every pass.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from catalog.errors import ForestageError
from gpu_reference.routers.adapter import LayerRouting, RouterOutput, chosen_by_experts
from gpu_reference.routers.check import check_routing, in_rank_order
from gpu_reference.routers.rule import TopKRule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from traces import GateWeightKind


class InferredRule:
    """One router's rule, found among the usual ones; it is that router's adapter.

    Args:
        block: the module with the router and the experts; it is searched for biases and scales.
        name: the router's name in the model, for messages.
        trust: record the experts' arguments without requiring a rule; the weights are then of an unknown kind.
    """

    def __init__(self, block: Any, name: str, *, trust: bool) -> None:
        self.trust = trust
        self._name = name
        self._block = block
        self._candidates: list[tuple[TopKRule, Any]] | None = None

    def gate_weight_kind(self, router: Any) -> GateWeightKind:
        """The rule's kind; ``unknown`` before the first call and without a rule."""
        if not self._candidates:
            return "unknown"
        kinds = {rule.gate_weight_kind(values) for rule, values in self._candidates}
        return kinds.pop() if len(kinds) == 1 else "unknown"

    def read(self, router: Any, inputs: tuple[Any, ...], output: Any) -> RouterOutput:
        """The logits of a call whose choice is not used (an early gate); its ids are empty."""
        import torch

        tokens = inputs[0].numel() // inputs[0].shape[-1]
        logits = _logits(self._name, output, tokens, self._experts(0, output))
        empty = torch.zeros((tokens, 0), dtype=torch.long)
        return RouterOutput(logits, empty, empty.float(), inputs)

    def witness(self, router: Any, inputs: tuple[Any, ...], output: Any, received: tuple[Any, ...]) -> RouterOutput:
        """The choice in ``received``, with which the experts were called, and the router's logits.

        Raises:
            ForestageError: if either cannot be found, or no rule explains the choice.
        """
        where = f"{self._name} ({type(router).__name__})"
        told = chosen_by_experts(received)
        if told is None:
            raise ForestageError(f"{where}: its experts are not called with ids and weights; write an adapter for it")
        ids, weights = told
        call = RouterOutput(
            _logits(self._name, output, len(ids), self._experts(ids.shape[-1], output)), ids, weights, inputs
        )
        returned = [value for value in _tensors(output) if value.shape == ids.shape and not value.is_floating_point()]
        if any(not (value == ids).all() for value in returned):
            raise ForestageError(f"{where}: its experts are called with other ids than it returned; write an adapter")
        if not self.trust:
            self._fit(router, call)
        return call

    def check(self, router: Any, call: RouterOutput, where: str) -> LayerRouting:
        """The routing, checked by a rule that explains it, or (if trusted) as the experts received it."""
        if self._candidates:
            rule, values = self._candidates[0]
            return check_routing(rule, values, call, where)
        return in_rank_order(call.ids.cpu().numpy().astype(np.int64), call.weights.float().cpu().numpy())

    def select(self, router: Any, call: RouterOutput, chosen: np.ndarray) -> np.ndarray:
        """The rule's scores."""
        rule, values = self._only(router)
        return rule.select(values, call, chosen)

    def margin(self, router: Any, call: RouterOutput) -> np.ndarray:
        """The rule's margin."""
        rule, values = self._only(router)
        return rule.margin(values, call)

    def weigh(self, router: Any, call: RouterOutput, ids: np.ndarray) -> np.ndarray:
        """The rule's weights."""
        rule, values = self._only(router)
        return rule.weigh(values, call, ids)

    def scale(self, router: Any) -> float:
        """The rule's scale."""
        rule, values = self._only(router)
        return rule.scale(values)

    def agrees(self, call: RouterOutput, received: tuple[Any, ...]) -> bool | None:
        """True: the choice was read from ``received``."""
        return True

    def _only(self, router: Any) -> tuple[TopKRule, Any]:
        if not self._candidates:
            raise ForestageError(
                f"{self._name} ({type(router).__name__}): no known rule explains its choice; write an adapter for it"
            )
        return self._candidates[0]

    def _fit(self, router: Any, call: RouterOutput) -> None:
        """Keep the rules that explain ``call``.

        Raises:
            ForestageError: if no rule is left.
        """
        before = list(_usual_rules(router, self._block, call)) if self._candidates is None else self._candidates
        self._candidates = [(rule, values) for rule, values in before if _explains(rule, values, call)]
        if not self._candidates:
            raise ForestageError(
                f"{self._name} ({type(router).__name__}): no known rule explains its choice from its logits; write an "
                "adapter (--adapter module:Name), or give --trust-router to record what its experts are called with"
            )

    def _experts(self, top_k: int, output: Any) -> int:
        """Number of experts: from their weights or attributes, else the width of the only other matrix of the output.

        Raises:
            ForestageError: if it cannot be determined.
        """
        held = {value.shape[0] for value in self._block.experts.parameters() if value.dim() == 3}
        if len(held) == 1:
            return held.pop()
        for module in (self._block.experts, self._block):
            for name in ("num_experts", "n_routed_experts", "num_local_experts"):
                value = getattr(module, name, None)
                if isinstance(value, int) and not isinstance(value, bool):
                    return value
        widths = {value.shape[-1] for value in _tensors(output) if value.is_floating_point()} - {top_k}
        if len(widths) != 1:
            raise ForestageError(f"{self._name}: how many experts there are is not to be told; write an adapter for it")
        return widths.pop()


class _Values:
    """A router's constants under the names that a `TopKRule` reads."""

    def __init__(self, bias: Any = None, scale: float = 1.0) -> None:
        self.bias, self.constant = bias, scale


def _tensors(output: Any) -> list[Any]:
    """The tensors in a router's output."""
    import torch

    values = output.values() if isinstance(output, dict) else output if isinstance(output, (tuple, list)) else [output]
    return [value for value in values if isinstance(value, torch.Tensor)]


def _logits(name: str, output: Any, tokens: int, experts: int) -> Any:
    """The one matrix of ``[tokens, experts]`` in a router's output.

    Raises:
        ForestageError: if there is none, or several.
    """
    floats = [value for value in _tensors(output) if value.is_floating_point() and value.numel() == tokens * experts]
    alike = [value.reshape(tokens, experts) for value in floats if value.shape[-1] == experts]
    if len(alike) != 1:
        raise ForestageError(
            f"{name}: returned {len(alike)} matrices [tokens, {experts}], expected one (its logits); "
            "write an adapter for it (--adapter module:Name)"
        )
    return alike[0]


def _usual_rules(router: Any, block: Any, call: RouterOutput) -> Iterator[tuple[TopKRule, Any]]:
    """Every possible combination of score, bias, weights and scale, the simplest first."""
    experts = call.logits.shape[-1]
    own = [*router.named_parameters(), *router.named_buffers()]
    beside = [
        (name, value)
        for name, value in [*block.named_parameters(), *block.named_buffers()]
        if not name.startswith("experts.")
    ]
    biases = {id(value): value for name, value in [*own, *beside] if value.numel() == experts and "bias" in name}
    scales = {1.0}
    for module in (router, block):
        scales |= {
            float(value)
            for name, value in vars(module).items()
            if "scal" in name and isinstance(value, (int, float)) and not isinstance(value, bool)
        }
    plain = [
        TopKRule("logits", over_chosen=True),
        TopKRule(normalised=True),
        TopKRule(),
        TopKRule("sigmoid", normalised=True),
        TopKRule("sigmoid"),
        TopKRule("logits", normalised=True),  # the router returned scores, not logits
        TopKRule("logits"),
    ]
    for scale in sorted(scales, key=lambda value: value != 1.0):
        for bias in [None, *biases.values()]:
            for rule in plain:
                named = rule if bias is None else replace(rule, bias="bias")
                yield replace(named, scale_by="constant"), _Values(bias, scale)


def _explains(rule: TopKRule, values: Any, call: RouterOutput) -> bool:
    try:
        check_routing(rule, values, call, "")
    except ForestageError:
        return False
    return True
