"""What a policy is: it decides where each needed or predicted expert comes from."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from perfmodel.config import SimulationConfig
from perfmodel.costs import CostModel
from perfmodel.event_loop import EventLoop
from perfmodel.transfers import Fetch, Key, LinkBytes
from perfmodel.units import PS_PER_S


@dataclass(frozen=True)
class System:
    """What a policy acts on.

    Attributes:
        event_loop: has the resources ``gpu_compute``, ``hbm``, ``host_link`` and ``prefetch_engine``.
        costs: durations and bytes.
        config: the configuration of the simulation.
        layers, experts, top_k: of the trace.
        issue_sets: i16 ``[tokens, layers, limit]``, −1 where nothing is issued; ``None`` without a predictor.
        engine_cycles: i64 ``[tokens, layers]``, the prefetch engine's cycles for each routing event.
    """

    event_loop: EventLoop
    costs: CostModel
    config: SimulationConfig
    layers: int
    experts: int
    top_k: int
    issue_sets: NDArray[np.int16] | None
    engine_cycles: NDArray[np.int64] | None

    @property
    def capacity(self) -> int:
        """Experts that the device's cache holds, over all layers."""
        return self.config.capacity(layers=self.layers, experts=self.experts, expert_bytes=self.costs.expert_bytes)

    @property
    def transfer_latency_ps(self) -> int:
        """Time from asking for an expert until its transfer may start."""
        return round(self.config.transfer_latency_us * 1e-6 * PS_PER_S)

    def engine_ps(self, token: int, layer: int) -> int:
        """How long the prefetch engine works on the routing event of (token, layer)."""
        cycles = self.config.engine_cycles if self.engine_cycles is None else int(self.engine_cycles[token, layer])
        return round(cycles * 1e3 / self.costs.machine.engine_clock_ghz)


@dataclass
class PolicyCounts:
    """What a policy did over the decode tokens, in experts.

    Attributes:
        lookups: needed experts, ``top_k`` for each (token, layer).
        hits: lookups whose expert was on the device when the gate asked.
        predicted: members of the issue sets that the prefetch engine finished in time.
        overdue: predictions that the prefetch engine finished only after their (token, layer)'s gate had asked.
        issued: prefetches sent to the link: experts predicted and neither on the device nor on their way.
        used_at_target: issued, and needed by the (token, layer) for which they were last predicted, in time or late.
        useful: arrived before the first gate that used them (their target's gate or a later one).
        late: asked for by a gate before they had arrived.
        wasted: evicted or left over unused.
        dropped: cancelled before they arrived: their gate asked for others, the sequence ended, or ``refused``.
        refused: dropped when they would have started, because no resident expert could be evicted for them.
        polluted: misses on experts that the same cache without prefetching would have held.
    """

    lookups: int = 0
    hits: int = 0
    predicted: int = 0
    overdue: int = 0
    issued: int = 0
    used_at_target: int = 0
    useful: int = 0
    late: int = 0
    wasted: int = 0
    dropped: int = 0
    refused: int = 0
    polluted: int = 0


class Policy(ABC):
    """Decides, per layer and step, where each needed or predicted expert comes from.

    For a decode token the simulation calls ``begin_token``, then for each layer ``gate`` when its routing is known and
    ``end_layer`` when its experts have run.

    Attributes:
        name: in the registry and in reports.
        has_cache: whether the configuration must give a capacity.
        uses_issue_sets: whether the caller must give a predictor's issue sets.
    """

    name: ClassVar[str]
    has_cache: ClassVar[bool] = False
    uses_issue_sets: ClassVar[bool] = False

    def __init__(self, system: System) -> None:
        self.system = system
        self.counts = PolicyCounts()

    @property
    @abstractmethod
    def link_bytes(self) -> LinkBytes:
        """What the host link moved, by kind."""

    @abstractmethod
    def gate(self, token: int, layer: int, needed: Sequence[Key]) -> list[Fetch | None]:
        """The gate of ``layer`` chose ``needed``, in rank order: the fetch to wait for, or ``None``, for each."""

    def begin_sequence(self) -> None:
        """A sequence begins: cancel fetches still on their way for the last one; keep what is on the device."""
        return

    def warm(self, layer: int, experts: Sequence[int]) -> None:
        """A prompt's pass through ``layer`` chose ``experts``: update the cache, in zero time and zero bytes."""
        return

    def begin_token(self, token: int) -> None:
        """A decode step begins."""
        return

    def end_layer(self, token: int, layer: int) -> None:
        """The experts of ``layer`` have run."""
        return

    def finish(self) -> None:
        """The trace has ended: count what is left over."""
        return
