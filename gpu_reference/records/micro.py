"""Micro-measurements: one piece of work each, by kind and settings; the system model's constants come from these.

*clock* says how a time was taken. ``device``: by events of the device around work that was queued before it began, so
that launching it is not in the time. ``host``: by the host's clock, from the first launch until the device is done.
``seconds`` is always that of one of the ``queued`` pieces that were launched after each other; with ``queued`` 1 and
the clock ``host`` it is what a program waits that launches a piece and needs its result.
"""

from enum import Enum
from typing import Self

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr, model_validator

from catalog.config import StrictModel
from gpu_reference.records.summary import Summary

Setting = StrictStr | StrictBool | StrictInt | StrictFloat


class MicroKind(Enum):
    """What was measured; `SETTINGS` has the settings of each."""

    COPY_TO_DEVICE = "copy_to_device"
    """``streams`` copies of ``copy_bytes`` each at once, from ``pinned`` or ``pageable`` host memory. On a CPU: copies
    within memory by one thread."""
    COPY_FROM_DEVICE = "copy_from_device"
    """The same in the other direction."""
    COPY_WITHIN_DEVICE = "copy_within_device"
    """A copy in the device's memory, which reads and writes each of ``copy_bytes``."""
    EXPERT = "expert"
    """One expert on ``tokens`` tokens, each piece another expert; ``launched``: ``eager``, or all pieces as one CUDA
    ``graph``."""
    GROUPED_EXPERTS = "grouped_experts"
    """``experts`` experts on ``tokens`` tokens each, as one product of many matrices."""
    FIXED_PART = "fixed_part"
    """What a layer does beside its routed experts, for one token each of ``batch`` sequences of ``context`` tokens.
    ``part`` is ``to_gate`` (from the sum of the experts of the layer before to the choice of this one: dense layers
    between, attention, norms, router), ``shared`` (shared experts) or ``logits`` (the last norm and the output matrix).
    ``layers``: those that are alike in it, of the model's layers with experts from 0, joined by commas."""
    COMBINE = "combine"
    """The outputs of ``experts`` experts a token, weighted and added up in gate order, for ``tokens`` tokens."""
    LAUNCH = "launch"
    """A kernel that does next to nothing."""
    GRAPH_REPLAY = "graph_replay"
    """A CUDA graph of ``kernels`` such kernels."""
    GATE_ROUND_TRIP = "gate_round_trip"
    """``ids`` expert ids from the device into host memory, and the host waits for them."""
    DECISION = "decision"
    """The stager's commands for one layer of one step (look-up, demand, expiry, transfers until nothing is left to
    move, release; with values and predictions where ``policy`` has them), for a cache of ``places`` of all experts."""
    LAYER_OVERHEAD = "layer_overhead"
    """All that the ``runtime`` does of the host for the experts of a layer, where they and their copies take no time:
    the ids' way to the host, the stager's decision (nothing told ahead), marks, waiting, and the sum of the outputs.
    ``tokens`` tokens that choose ``top_k`` experts each, ``needed`` in all, of which ``missing`` are not on the device.
    ``offloaded``, or ``resident``: every expert is on the device, and there is no stager."""
    PREDICTION_HOST = "prediction_host"
    """The network's streaming form for one (token, layer), one thread; ``trained``: given, or of random integers."""
    PREDICTION_DEVICE = "prediction_device"
    """The network for all layers of ``batch`` tokens at once: rows summed up, ReLU, matrix in ``arithmetic``."""
    OVERLAP = "overlap"
    """Copies to the device (``copy``), experts on the device (``compute``), or ``both`` at once: ``copy_bytes`` in all,
    and ``experts`` experts on one token; sized so that the two take about as long."""
    HOST_EXPERT = "host_expert"
    """One expert on ``tokens`` tokens by ``threads`` threads of the host's processor, each piece another expert."""
    HOST_EXPERT_WHILE_COPYING = "host_expert_while_copying"
    """``what`` is ``expert``: as `HOST_EXPERT` while copies to the device go on without a pause; ``copy``: one such
    copy of ``copy_bytes`` while the processor computes experts without a pause."""
    HOST_MEMORY_READ = "host_memory_read"
    """``read_bytes`` of host memory read once by ``threads`` threads; ``while_copying``: while copies to the device
    go on without a pause."""


_CLOCK: dict[str, type] = {"clock": str, "queued": int}
_COPY: dict[str, type] = {"memory": str, "copy_bytes": int, "streams": int, **_CLOCK}
_EXPERT: dict[str, type] = {"tokens": int, "format": str, "kernel": str, "launched": str, **_CLOCK}
_HOST: dict[str, type] = {"tokens": int, "format": str, "kernel": str, "threads": int, **_CLOCK}

SETTINGS: dict[MicroKind, dict[str, type]] = {
    MicroKind.COPY_TO_DEVICE: _COPY,
    MicroKind.COPY_FROM_DEVICE: _COPY,
    MicroKind.COPY_WITHIN_DEVICE: {"copy_bytes": int, **_CLOCK},
    MicroKind.EXPERT: _EXPERT,
    MicroKind.GROUPED_EXPERTS: {"experts": int, **_EXPERT},
    MicroKind.FIXED_PART: {"part": str, "layers": str, "context": int, "batch": int, "launched": str, **_CLOCK},
    MicroKind.COMBINE: {"experts": int, "tokens": int, "launched": str, **_CLOCK},
    MicroKind.LAUNCH: _CLOCK,
    MicroKind.GRAPH_REPLAY: {"kernels": int, **_CLOCK},
    MicroKind.GATE_ROUND_TRIP: {"ids": int, **_CLOCK},
    MicroKind.DECISION: {"policy": str, "layers": int, "experts": int, "top_k": int, "places": int, **_CLOCK},
    MicroKind.LAYER_OVERHEAD: {
        "runtime": str, "tokens": int, "top_k": int, "needed": int, "missing": int, **_CLOCK,
    },
    MicroKind.PREDICTION_HOST: {"network": str, "hidden": int, "trained": bool, **_CLOCK},
    MicroKind.PREDICTION_DEVICE: {
        "network": str, "hidden": int, "trained": bool, "layers": int, "batch": int, "arithmetic": str,
        "launched": str, **_CLOCK,
    },
    MicroKind.OVERLAP: {"what": str, "copy_bytes": int, "experts": int, "format": str, "kernel": str, **_CLOCK},
    MicroKind.HOST_EXPERT: _HOST,
    MicroKind.HOST_EXPERT_WHILE_COPYING: {"what": str, "copy_bytes": int, **_HOST},
    MicroKind.HOST_MEMORY_READ: {"read_bytes": int, "threads": int, "while_copying": bool, **_CLOCK},
}  # fmt: skip
"""The settings of each kind: exactly these, of these types."""

CHOICES: dict[str, tuple[str, ...]] = {
    "clock": ("device", "host"),
    "launched": ("eager", "graph"),
    "memory": ("pinned", "pageable"),
    "runtime": ("resident", "offloaded"),
}
"""Values of settings that have the same few in every kind."""


class Micro(StrictModel):
    """One micro-measurement.

    Attributes:
        kind, settings: what was measured.
        seconds: of one piece.
        bytes: that one piece moves or reads; ``None`` where it is not about bytes.
        relative_error: of the result against the same in float64 (Frobenius norm of the difference over that of the
            result), checked before the time was taken; ``None`` where nothing is computed. Copies are compared bit by
            bit and have 0.
    """

    kind: MicroKind
    settings: dict[str, Setting]
    seconds: Summary
    bytes: int | None = Field(default=None, gt=0)
    relative_error: float | None = Field(default=None, ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _settings_of_kind(self) -> Self:
        wanted = SETTINGS[self.kind]
        if set(self.settings) != set(wanted):
            wrong = sorted(set(self.settings) ^ set(wanted))
            raise ValueError(f"settings of {self.kind.value}: {', '.join(wrong)}: missing or unknown; measure again")
        for name, value in self.settings.items():
            if type(value) is not wanted[name]:
                raise ValueError(f"settings: {name}: {value!r} is no {wanted[name].__name__}; measure again")
            if value not in CHOICES.get(name, (value,)):
                raise ValueError(f"settings: {name}: {value!r} is none of {', '.join(CHOICES[name])}; measure again")
        return self
