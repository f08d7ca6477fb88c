"""Durations and bytes of a decode step, from a catalogue model on a catalogue machine.

A kernel's time is the roofline: the larger of its operations at ``compute_tflops · compute_utilisation`` and its bytes
from HBM at ``memory_gb_per_s · memory_utilisation``. A transfer moves at the host link's peak.

Assumptions, the same for every policy:

* Attention and gate weights are BF16 (the catalogue gives a format only for experts), and so is the key-value cache;
  a state of fixed size (linear attention) is FP32, read and written once a token. A layer attends to what its kind
  sees: the whole context, a window, a chunk, or what an indexer picks. An encoder's output, where a decoder looks at
  one, is as long as the context.
* Activations, norms, the embedding and the vocabulary's output matrix are not counted. Kernel launches take no time.
* Shared experts and the feed-forward part of a dense layer are stored like routed experts. Where the catalogue does not
  give that part's width, it is taken to be as wide as all experts together that a token uses in a routed layer (exact
  for DeepSeek-V3: 18432 = 9 · 2048).
* Expert weights that arrive over the host link are written to HBM without slowing the kernels (1.6 % of an A100's
  bandwidth under PCIe 4).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from catalog.attention import LayerAttention
from catalog.errors import ForestageError
from catalog.machines import MachineRecord
from catalog.models import ModelRecord
from perfmodel.units import PS_PER_S

BF16_BYTES = 2


@dataclass(frozen=True, slots=True)
class Kernel:
    """Work on the device.

    Attributes:
        flops: operations, two per multiply-add.
        hbm_bytes: read from HBM.
        compute_ps, hbm_ps: the time that the operations, and the bytes, would take alone.
    """

    flops: int
    hbm_bytes: int
    compute_ps: int
    hbm_ps: int

    @property
    def duration_ps(self) -> int:
        """The larger of the two times (the roofline)."""
        return max(self.compute_ps, self.hbm_ps)


@dataclass(frozen=True)
class CostModel:
    """Costs of one model on one machine.

    Args:
        model: whose sizes are used; its attention must be known.
        machine: where it runs; it must have a host link.
        link_gb_per_s: bandwidth to use in place of the machine's host link.

    Raises:
        ForestageError: if the catalogue does not know the model's attention or the machine's host link.
    """

    model: ModelRecord
    machine: MachineRecord
    link_gb_per_s: float | None = None

    def __post_init__(self) -> None:
        if self.model.attention is None:
            raise ForestageError(
                f"model {self.model.name}: attention: not in the catalogue; take the sizes of another model"
            )
        if self.link_gb_per_s is None and self.machine.host_link_gb_per_s is None:
            raise ForestageError(
                f"machine {self.machine.name}: host_link_gb_per_s: not in the catalogue; give link_gb_per_s"
            )

    @property
    def link_bytes_per_s(self) -> int:
        """Bandwidth of the host link, per direction."""
        gb_per_s = self.machine.host_link_gb_per_s if self.link_gb_per_s is None else self.link_gb_per_s
        assert gb_per_s is not None
        return round(gb_per_s * 1e9)

    @property
    def expert_bytes(self) -> int:
        """Bytes that fetching one routed expert moves."""
        return self.model.expert_bytes

    @property
    def expert_transfer_ps(self) -> int:
        """Time to fetch one expert over an idle host link."""
        return -(-self.expert_bytes * PS_PER_S // self.link_bytes_per_s)

    def kernel(self, flops: int, hbm_bytes: int) -> Kernel:
        """A kernel of ``flops`` operations and ``hbm_bytes`` on this machine."""
        flops_per_s = self.machine.compute_tflops * 1e12 * self.machine.compute_utilisation
        bytes_per_s = self.machine.memory_gb_per_s * 1e9 * self.machine.memory_utilisation
        compute_ps = math.ceil(flops / flops_per_s * PS_PER_S)
        return Kernel(flops, hbm_bytes, compute_ps, math.ceil(hbm_bytes / bytes_per_s * PS_PER_S))

    def attention(self, context_tokens: int, layer: int = 0) -> Kernel:
        """The attention of the model's layer ``layer`` for one token, the last of ``context_tokens``."""
        attention = self.attention_kind(layer)
        cache_elements, multiply_adds = (
            attention.cache_elements(context_tokens),
            attention.multiply_adds(context_tokens),
        )
        return self.attention_of_tokens(layer, 1, cache_elements=cache_elements, multiply_adds=multiply_adds)

    def attention_of_tokens(self, layer: int, tokens: int, *, cache_elements: int, multiply_adds: int) -> Kernel:
        """As ``attention``, for several tokens: the projections are read once.

        ``cache_elements`` of the key-value cache are read, and ``multiply_adds`` done on them, for all tokens together.
        """
        weights = self.attention_kind(layer).parameters(self.model.hidden)
        return self.kernel(2 * (tokens * weights + multiply_adds), (weights + cache_elements) * BF16_BYTES)

    def attention_kind(self, layer: int) -> LayerAttention:
        """The kind of attention of the model's layer ``layer``; layers of one kind share the object."""
        attention = self.model.attention_of(layer)
        assert attention is not None
        return attention

    def gate(self, tokens: int = 1) -> Kernel:
        """The router of one layer for ``tokens`` tokens: its weights are read once."""
        weights = self.model.hidden * self.model.experts
        return self.kernel(tokens * 2 * weights, weights * BF16_BYTES)

    def expert(self, tokens: int = 1) -> Kernel:
        """One routed expert on ``tokens`` tokens: its weights are read once."""
        return self.kernel(tokens * self.model.expert_flops, self.model.expert_bytes)

    def shared_experts(self, tokens: int = 1) -> Kernel | None:
        """A layer's shared experts for ``tokens`` tokens: read once; ``None`` where the model has none."""
        weights = self.model.shared_weights
        return self._like_experts(weights, tokens) if weights else None

    def dense_layer(self, context_tokens: int, layer: int = 0) -> Kernel:
        """The model's layer ``layer``, which has no experts, for one token."""
        return self.dense_of_tokens(self.attention(context_tokens, layer), 1)

    def dense_of_tokens(self, attention: Kernel, tokens: int) -> Kernel:
        """A layer without experts for ``tokens`` tokens whose attention is ``attention``; the two are one kernel."""
        rest = self._like_experts(self.model.dense_weights, tokens)
        return self.kernel(attention.flops + rest.flops, attention.hbm_bytes + rest.hbm_bytes)

    def _like_experts(self, weights: int, tokens: int) -> Kernel:
        """All ``tokens`` use ``weights`` weights (biases included) that are stored like those of routed experts."""
        model = self.model
        return self.kernel(tokens * 2 * weights, -(-weights * model.expert_bytes // model.expert_weights))


@dataclass(frozen=True)
class SimulatedLayers:
    """Which of the model's layers a simulation runs.

    Attributes:
        routed: for each layer of the trace, the model's layer.
        dense: the model's layers without experts; they run before the others.
    """

    routed: tuple[int, ...]
    dense: tuple[int, ...]

    @classmethod
    def of(cls, model: ModelRecord, layer_map: Sequence[int], *, own: bool) -> "SimulatedLayers":
        """Layers of ``model`` for a trace whose layers are ``layer_map``; ``own``: the trace is of that very model.

        A trace with as many layers as the model has layers with experts runs all of these and the dense ones. Any other
        trace runs the layers it names or, if of another model, as many from the first on (starting over at the end).
        """
        if len(layer_map) == model.moe_layers:
            return cls(model.layer_map, model.dense_layers)
        if own and max(layer_map) < model.layers:
            return cls(tuple(layer_map), ())
        return cls(tuple(model.layer_map[n % model.moe_layers] for n in range(len(layer_map))), ())
