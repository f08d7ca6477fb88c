"""Forward hooks on a model's routers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from catalog.errors import ForestageError
from gpu_reference.routers.adapter import LayerRouting, RouterAdapter
from gpu_reference.routers.architectures import DeepseekV2Adapter, DeepseekV3Adapter, GptOssAdapter, SoftmaxTopKAdapter
from gpu_reference.routers.check import check_routing

if TYPE_CHECKING:
    from types import TracebackType

    from traces import GateWeightKind

_ADAPTERS: dict[str, RouterAdapter] = {
    "DeepseekV2TopkRouter": DeepseekV2Adapter(),
    "DeepseekV3TopkRouter": DeepseekV3Adapter(),
    "GptOssTopKRouter": GptOssAdapter(),
    "MixtralTopKRouter": SoftmaxTopKAdapter(normalised=True),
    "OlmoeTopKRouter": SoftmaxTopKAdapter(),
    "Qwen3MoeTopKRouter": SoftmaxTopKAdapter(),
}


def register_router(class_name: str, adapter: RouterAdapter) -> None:
    """Make `RoutingRecorder` know routers whose class is called ``class_name``."""
    _ADAPTERS[class_name] = adapter


def known_routers() -> list[str]:
    """Class names of the routers that can be recorded."""
    return sorted(_ADAPTERS)


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
            raise ForestageError(
                f"{type(model).__name__}: no router of a known class ({', '.join(known_routers())}); "
                "register an adapter"
            )
        kinds = {adapter.gate_weight_kind(router) for _, router, adapter in self._routers}
        if len(kinds) > 1:
            raise ForestageError(
                f"{type(model).__name__}: routers with different gate weights ({', '.join(sorted(kinds))})"
            )
        self.gate_weight_kind: GateWeightKind = kinds.pop()
        self.layer_map = tuple(_layer_index(name) for name, _, _ in self._routers)
        self._calls: list[list[LayerRouting]] = [[] for _ in self._routers]
        self._experts: list[int] = [0] * len(self._routers)
        self._handles: list[Any] = []

    @property
    def experts(self) -> int:
        """Experts a layer, known once the routers have run.

        Raises:
            ForestageError: if the layers have different numbers of experts.
        """
        if len(set(self._experts)) > 1:
            raise ForestageError(f"layers with different numbers of experts ({self._experts}): no trace holds them")
        return self._experts[0]

    def __enter__(self) -> RoutingRecorder:
        for index, (name, module, adapter) in enumerate(self._routers):

            def hook(
                router: Any, _: Any, output: Any, index: int = index, name: str = name, adapter: RouterAdapter = adapter
            ) -> None:
                read = adapter.read(router, output)
                self._experts[index] = read.logits.shape[-1]
                self._calls[index].append(check_routing(adapter, router, read, name))

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
