"""What a policy is: it decides where each needed or predicted expert comes from."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from perfmodel.config import SimulationConfig
from perfmodel.costs import CostModel
from perfmodel.engine import Engine
from perfmodel.tasks import PS_PER_S
from perfmodel.transfers import Fetch, Key, LinkBytes


@dataclass(frozen=True)
class System:
    """What a policy acts on.

    Attributes:
        engine: with the resources ``gpu_compute``, ``hbm``, ``host_link`` and ``prefetch_engine``.
        costs: durations and bytes.
        config: the whole configuration.
        layers, experts, top_k: of the trace.
        issue_sets: i16 ``[tokens, layers, limit]``, −1 where nothing is issued; ``None`` where nobody predicts.
        engine_cycles: i64 ``[tokens, layers]``, the prefetch engine's cycles for each routing event.
    """

    engine: Engine
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
        """From asking for an expert until its transfer may start."""
        return round(self.config.transfer_latency_us * 1e-6 * PS_PER_S)

    def engine_ps(self, token: int, layer: int) -> int:
        """How long the prefetch engine works on the routing event of (token, layer)."""
        cycles = self.config.engine_cycles if self.engine_cycles is None else int(self.engine_cycles[token, layer])
        return round(cycles * 1e3 / self.costs.machine.engine_clock_ghz)


@dataclass
class PolicyCounts:
    """What a policy did over the decode tokens, in experts.

    Attributes:
        lookups: needed experts, ``top_k`` a (token, layer).
        hits: those that were on the device when the gate asked, before anything was fetched for it.
        predicted: members of the issue sets that the prefetch engine finished in time.
        overdue: (token, layer) whose gate asked before the prefetch engine had finished its prediction.
        issued: prefetches asked of the link: predicted, neither on the device nor on their way.
        used_at_target: issued, and needed by the (token, layer) they were last predicted for, in time or late.
        useful: arrived before the first gate that used them (their target's or a later one's).
        late: asked for by a gate before they had arrived.
        wasted: evicted or left over unused.
        dropped: given up before they arrived: their gate asked for others, the sequence ended, or ``refused``.
        refused: dropped when they would have started, because nothing might be evicted for them.
        polluted: misses that the same cache without prefetching would have had.
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
        has_cache: the configuration must give a capacity.
        uses_issue_sets: a predictor's issue sets must be given.
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
        """The gate of ``layer`` chose ``needed``, in rank order: for each, what to wait for, ``None`` for nothing."""

    def begin_sequence(self) -> None:
        """A sequence begins; what was on its way for the last one is given up, what is on the device stays."""
        return

    def warm(self, layer: int, experts: Sequence[int]) -> None:
        """A prompt's pass through ``layer`` chose ``experts``: a cache sees them, at no time and no bytes."""
        return

    def begin_token(self, token: int) -> None:
        """A decode step begins."""
        return

    def end_layer(self, token: int, layer: int) -> None:
        """The experts of ``layer`` have run."""
        return

    def finish(self) -> None:
        """The trace has ended: settle what is left over."""
        return
