"""Record routing by forward hooks on a model's routers and on the experts called with their choice."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from catalog.errors import ForestageError
from gpu_reference.routers.adapter import LayerRouting, RouterOutput
from gpu_reference.routers.architectures import TRANSFORMERS
from gpu_reference.routers.check import check_routing
from gpu_reference.routers.find import FoundRouter, find_routers
from gpu_reference.routers.inferred import InferredRule

if TYPE_CHECKING:
    from types import TracebackType

    from gpu_reference.routers.early_gate import EarlyGates
    from traces import GateWeightKind


class RoutingRecorder:
    """Records every router call of a model while it is used as a context manager.

        with RoutingRecorder(model) as recorder:
            model(input_ids=...)
            step = recorder.take()

    Routers run in the order of the layers; ``layer_map`` holds the model's layer index of each. Every choice is checked
    twice: against one computed from the router's logits, and against the arguments of the layer's experts.

    Args:
        model: a PyTorch module.
        trust: record the choice that an unknown router's experts are called with, even if no rule explains it.
        early: the gates to run early; ``None``: none.

    Raises:
        ForestageError: if the model has no readable router, or its routers do not fit one trace.
    """

    def __init__(self, model: Any, *, trust: bool = False, early: EarlyGates | None = None) -> None:
        self._found = find_routers(model, trust=trust)
        self._early = early
        self.layer_map = tuple(_layer_index(one.name) for one in self._found)
        self._known_kind = self._kind_of(one for one in self._found if not isinstance(one.adapter, InferredRule))
        self._calls: list[list[LayerRouting]] = [[] for _ in self._found]
        self._waiting: list[tuple[tuple[Any, ...], Any] | None] = [None] * len(self._found)
        self._experts: list[int] = [0] * len(self._found)
        self._told = [False] * len(self._found)
        self._early_running = False
        self._handles: list[Any] = []
        _check_order(self.layer_map)
        if early is not None:
            self._check_early(early)

    @property
    def gate_weight_kind(self) -> GateWeightKind:
        """The kind of the weights; for an inferred rule it is known once the routers have run.

        Raises:
            ForestageError: if the layers' weights are of different kinds.
        """
        kind = self._kind_of(self._found)
        return "unknown" if kind is None else kind

    @property
    def experts(self) -> int:
        """Experts per layer, known once the routers have run.

        Raises:
            ForestageError: if the layers have different numbers of experts.
        """
        if len(set(self._experts)) > 1:
            raise ForestageError(f"layers with different numbers of experts ({self._experts}): no trace holds them")
        return self._experts[0]

    @property
    def seen_by_experts(self) -> tuple[bool, ...]:
        """For each layer, whether the last pass compared its choice with the arguments of its experts."""
        return tuple(self._told)

    @property
    def notes(self) -> list[str]:
        """Remarks for readers of the trace: routers that no built-in rule reads, and how they were read."""
        notes = {}
        for one in self._found:
            if isinstance(one.adapter, InferredRule):
                how = "trusted without a rule" if one.adapter.trust else "its choice explained by a known rule"
                notes[type(one.router).__name__] = f"{type(one.router).__name__} read from its experts' calls, {how}"
            elif one.adapter is not TRANSFORMERS.get(type(one.router).__name__):
                kind = type(one.adapter)
                notes[type(one.router).__name__] = (
                    f"{type(one.router).__name__} read by an adapter of its own ({kind.__module__}.{kind.__qualname__})"
                )
        return sorted(notes.values())

    def __enter__(self) -> RoutingRecorder:
        for index, one in enumerate(self._found):

            def ran(router: Any, args: Any, kwargs: Any, output: Any, index: int = index) -> None:
                if not self._early_running:
                    self._router_ran(index, (*args, *kwargs.values()), output)

            def called(experts: Any, args: Any, kwargs: Any, index: int = index) -> None:
                self._experts_called(index, (*args, *kwargs.values()))

            self._handles.append(one.router.register_forward_hook(ran, with_kwargs=True))
            if one.experts is not None:
                self._handles.append(one.experts.register_forward_pre_hook(called, with_kwargs=True))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def take(self) -> LayerRouting:
        """Return and forget the routing of one forward pass: ``ids`` and ``weights`` of ``[tokens, layers, top_k]``.

        Raises:
            RuntimeError: if not every router ran exactly once since the last call, and its experts after it.
            ForestageError: if the layers choose different numbers of experts.
        """
        counts = [len(calls) for calls in self._calls]
        if set(counts) != {1}:
            raise RuntimeError(f"routers ran {counts} times since the last take(), expected once each")
        widths = [calls[0].ids.shape[1] for calls in self._calls]
        if len(set(widths)) > 1:
            raise ForestageError(f"layers that choose different numbers of experts ({widths}): no trace holds them")
        ids = np.stack([calls[0].ids for calls in self._calls], axis=1)
        weights = np.stack([calls[0].weights for calls in self._calls], axis=1)
        for calls in self._calls:
            calls.clear()
        return LayerRouting(ids, weights, {} if self._early is None else self._early.take())

    def _check_early(self, early: EarlyGates) -> None:
        """Raise if a lookahead reaches no layer, or a layer's rule is not known."""
        if max(early.lookaheads) >= len(self._found):
            raise ForestageError(
                f"early gate: lookahead {max(early.lookaheads)} reaches no layer of {len(self._found)} with "
                "routers; give less"
            )
        if any(isinstance(one.adapter, InferredRule) and one.adapter.trust for one in self._found):
            raise ForestageError("early gate: a trusted router's rule is not known; write an adapter for it")

    def _router_ran(self, index: int, inputs: tuple[Any, ...], output: Any) -> None:
        if self._found[index].experts is None:
            self._record(index, inputs, output, None)
        else:
            self._waiting[index] = (inputs, output)

    def _experts_called(self, index: int, received: tuple[Any, ...]) -> None:
        waiting, self._waiting[index] = self._waiting[index], None
        if waiting is None:
            raise ForestageError(
                f"{self._found[index].name}: its experts ran twice, or before it; no adapter reads that"
            )
        self._record(index, *waiting, received)

    def _record(self, index: int, inputs: tuple[Any, ...], output: Any, received: tuple[Any, ...] | None) -> None:
        """Check one router call in both ways, and keep it."""
        one = self._found[index]
        if isinstance(one.adapter, InferredRule):
            call = one.adapter.witness(one.router, inputs, output, received or ())
            routing = one.adapter.check(one.router, call, one.name)
        else:
            call = one.adapter.read(one.router, inputs, output)
            routing = check_routing(one.adapter, one.router, call, one.name)
        agrees = None if received is None else one.adapter.agrees(call, received)
        if agrees is False:
            raise ForestageError(f"{one.name}: its experts are called with another choice than it returned")
        self._told[index] = agrees is True
        self._experts[index] = call.logits.shape[-1]
        self._calls[index].append(routing)
        if self._early is not None:
            self._run_early(one, call)

    def _run_early(self, one: FoundRouter, call: RouterOutput) -> None:
        assert self._early is not None
        self._early_running = True
        try:
            self._early.layer(one.router, one.adapter, call, call.ids.shape[1])
        finally:
            self._early_running = False

    @staticmethod
    def _kind_of(found: Any) -> GateWeightKind | None:
        kinds = {one.adapter.gate_weight_kind(one.router) for one in found}
        if len(kinds) > 1:
            raise ForestageError(
                f"routers with different gate weights ({', '.join(sorted(kinds))}): no trace holds them"
            )
        return kinds.pop() if kinds else None


def _layer_index(name: str) -> int:
    """Return the number in a module's name, ``model.layers.7.mlp.gate`` → 7."""
    numbers = [int(part) for part in name.split(".") if part.isdigit()]
    if len(numbers) != 1:
        raise ForestageError(f"{name}: a router's name must hold exactly one layer number")
    return numbers[0]


def _check_order(layer_map: tuple[int, ...]) -> None:
    """Raise unless every layer has one router."""
    if any(later <= earlier for earlier, later in pairwise(layer_map)):
        raise ForestageError(f"routers of layers {list(layer_map)}: a layer has several, no trace holds them")
