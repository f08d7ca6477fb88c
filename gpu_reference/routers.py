"""Reading what a router chose: forward hooks on a model's routers, one adapter an architecture, every id checked.

To capture from another architecture, register an adapter under the class name of its router:

    register_router("OtherTopKRouter", OtherAdapter())
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from catalog.errors import ForestageError

if TYPE_CHECKING:
    from types import TracebackType

    import torch

_RELATIVE_TIE = 1e-5
"""Two probabilities closer than this (relative) are a tie: single-precision softmaxes may order them either way."""
_WEIGHT_TOLERANCE = 1e-4


@dataclass(frozen=True)
class RouterOutput:
    """One call of one router: ``logits [tokens, experts]``; ``ids`` and ``weights [tokens, top_k]`` in its order."""

    logits: torch.Tensor
    ids: torch.Tensor
    weights: torch.Tensor


@dataclass(frozen=True)
class LayerRouting:
    """Checked routing of one layer: ``ids`` i64 and ``weights`` f32, both ``[tokens, top_k]``, best expert first."""

    ids: np.ndarray
    weights: np.ndarray


class RouterAdapter(Protocol):
    """What has to be known of an architecture's router."""

    gate_weight_kind: str
    """What its weights are, in the words of `traces.TraceMetadata`."""

    def read(self, router: Any, output: Any) -> RouterOutput:
        """Return what a forward call of ``router`` chose, from its ``output``."""

    def recompute(self, router: Any, logits: np.ndarray) -> np.ndarray:
        """Return the selection scores ``[tokens, experts]`` (f64), computed from the logits alone; larger is chosen."""

    def weigh(self, router: Any, scores: np.ndarray) -> np.ndarray:
        """Return the gate weights ``[tokens, top_k]`` of the chosen experts' ``scores [tokens, top_k]``."""


class SoftmaxTopKAdapter:
    """Softmax over all experts, then the best ``top_k``, renormalised if the router says so (Qwen3-MoE)."""

    gate_weight_kind = "normalised"

    def read(self, router: Any, output: Any) -> RouterOutput:
        """Return the three tensors that `transformers` routers of this kind return."""
        if not isinstance(output, tuple) or len(output) != 3:
            raise ForestageError(
                f"{type(router).__name__}: returned no (logits, weights, ids); register another adapter"
            )
        logits, weights, ids = output
        return RouterOutput(logits, ids, weights)

    def recompute(self, router: Any, logits: np.ndarray) -> np.ndarray:
        """Return the softmax probabilities."""
        shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
        return shifted / shifted.sum(axis=-1, keepdims=True)

    def weigh(self, router: Any, scores: np.ndarray) -> np.ndarray:
        """Return the probabilities, divided by their sum where ``norm_topk_prob`` is set."""
        return scores / scores.sum(axis=-1, keepdims=True) if router.norm_topk_prob else scores


_ADAPTERS: dict[str, RouterAdapter] = {"Qwen3MoeTopKRouter": SoftmaxTopKAdapter()}


def register_router(class_name: str, adapter: RouterAdapter) -> None:
    """Make `RoutingRecorder` know routers whose class is called ``class_name``."""
    _ADAPTERS[class_name] = adapter


def check_routing(adapter: RouterAdapter, router: Any, output: RouterOutput, where: str) -> LayerRouting:
    """Compare a router's choice with one computed independently from its logits, and return it in rank order.

    The independent choice is made in double precision by a stable sort. Ids may differ only where the scores tie.

    Raises:
        ForestageError: if an id or a weight differs; the message names ``where``, the row and both values.
    """
    logits = output.logits.detach().float().cpu().numpy()
    ids = output.ids.detach().cpu().numpy().astype(np.int64)
    weights = output.weights.detach().float().cpu().numpy()
    scores = adapter.recompute(router, logits)
    top_k = ids.shape[1]
    expected = np.argsort(-scores, axis=-1, kind="stable")[:, :top_k]
    expected_scores = np.take_along_axis(scores, expected, axis=-1)

    order = np.argsort(-weights, axis=-1, kind="stable")
    ids, weights = np.take_along_axis(ids, order, axis=-1), np.take_along_axis(weights, order, axis=-1)
    found_scores = np.take_along_axis(scores, ids, axis=-1)
    tied = np.abs(found_scores - expected_scores) <= _RELATIVE_TIE * expected_scores
    repeated = (np.diff(np.sort(ids, axis=-1), axis=-1) == 0).any(axis=-1)
    wrong = ((ids != expected) & ~tied).any(axis=-1) | repeated
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ForestageError(
            f"{where}, row {row}: the router chose {ids[row].tolist()}, its logits say {expected[row].tolist()}; "
            "the adapter does not fit this router"
        )
    difference = np.abs(adapter.weigh(router, found_scores) - weights).max(initial=0.0)
    if difference > _WEIGHT_TOLERANCE:
        raise ForestageError(
            f"{where}: gate weights differ by {difference:.2g} from those computed from the logits; "
            "the adapter does not fit this router"
        )
    return LayerRouting(ids, weights)


class RoutingRecorder:
    """Records every router call of a model while it is used as a context manager.

        with RoutingRecorder(model) as recorder:
            model(input_ids=...)
            step = recorder.take()

    Routers run in the order of the layers; ``layer_map`` holds the model's own layer index of each.

    Raises:
        ForestageError: if the model has no router of a registered class.
    """

    def __init__(self, model: Any) -> None:
        self._routers: list[tuple[str, Any, RouterAdapter]] = []
        for name, module in model.named_modules():
            adapter = _ADAPTERS.get(type(module).__name__)
            if adapter is not None:
                self._routers.append((name, module, adapter))
        if not self._routers:
            known = ", ".join(sorted(_ADAPTERS))
            raise ForestageError(f"{type(model).__name__}: no router of a known class ({known}); register an adapter")
        kinds = {adapter.gate_weight_kind for _, _, adapter in self._routers}
        if len(kinds) > 1:
            raise ForestageError(
                f"{type(model).__name__}: routers with different gate weights ({', '.join(sorted(kinds))})"
            )
        self.gate_weight_kind: str = kinds.pop()
        self.layer_map = tuple(_layer_index(name) for name, _, _ in self._routers)
        self._calls: list[list[LayerRouting]] = [[] for _ in self._routers]
        self._handles: list[Any] = []

    def __enter__(self) -> RoutingRecorder:
        for index, (name, module, adapter) in enumerate(self._routers):

            def hook(
                router: Any, _: Any, output: Any, index: int = index, name: str = name, adapter: RouterAdapter = adapter
            ) -> None:
                self._calls[index].append(check_routing(adapter, router, adapter.read(router, output), name))

            self._handles.append(module.register_forward_hook(hook))
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
            RuntimeError: unless every router ran exactly once since the last call.
        """
        counts = [len(calls) for calls in self._calls]
        if set(counts) != {1}:
            raise RuntimeError(f"routers ran {counts} times since the last take(), expected once each")
        ids = np.stack([calls[0].ids for calls in self._calls], axis=1)
        weights = np.stack([calls[0].weights for calls in self._calls], axis=1)
        for calls in self._calls:
            calls.clear()
        return LayerRouting(ids, weights)


def _layer_index(name: str) -> int:
    """Return the number in a module's name, ``model.layers.7.mlp.gate`` → 7."""
    numbers = [int(part) for part in name.split(".") if part.isdigit()]
    if len(numbers) != 1:
        raise ForestageError(f"{name}: a router's name must hold exactly one layer number")
    return numbers[0]
