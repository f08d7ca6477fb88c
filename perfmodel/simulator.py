"""One part of a trace on one machine: runs policies on it, and knows the bounds beside them."""

from typing import Self

import numpy as np
from numpy.typing import NDArray

from catalog.catalogue import Catalog
from catalog.errors import ForestageError
from catalog.progress import Progress
from perfmodel import engine
from perfmodel.compiled import simulation as compiled
from perfmodel.config import Scope, SimulationConfig
from perfmodel.outcome import Outcome, sequence_ps
from perfmodel.run import Run
from perfmodel.times import Times, catalogue_times
from perfmodel.units import PS_PER_S
from perfmodel.workload import Durations, Workload
from predictor.policies.parts import Part
from predictor.policies.plan import Plan
from predictor.policies.policy import Policy, plan_of
from staging.simulate import simulate as simulate_cache
from staging.static import hottest


class Simulator:
    """See the module's description.

    Args:
        part: what is simulated, with what is known ahead of it.
        times: of its steps, on the machine.
        uses: i64 ``[layers, experts]``, of the training sequences: the device holds the most used at the start.
        places: experts that the device holds, in all; of scope ``layer`` a multiple of the layers.
        scope: whether each layer has an equal share of the places, or all share them.

    Attributes:
        workload: what the engines take, with the durations of `durations_of`.
        durations: where experts lie in the host's memory.
        in_memory: where they lie in a memory that computes; ``None``: there is none.
        places: experts held, in all.
        model: whose sizes are used.
        link_gb_per_s: of the host link.
    """

    def __init__(self, part: Part, times: Times, uses: NDArray[np.int64], *, places: int, scope: Scope) -> None:
        groups = part.trace.layers if scope == "layer" else 1
        if places % groups:
            raise ValueError(f"places: {places}, not the same for each of {groups} layers")
        self.part = part
        self.workload: Workload = times.workload
        self.durations: Durations = times.durations
        self.in_memory: Durations | None = times.in_memory
        self.places = places
        self.model = times.model
        self.link_gb_per_s = times.link_gb_per_s
        self._scope: Scope = scope
        self._share = places // groups
        self._hottest = hottest(uses, self._share, scope)

    @classmethod
    def of(
        cls,
        part: Part,
        config: SimulationConfig,
        uses: NDArray[np.int64],
        *,
        host: bool,
        catalog: Catalog | None = None,
    ) -> Self:
        """A simulator of a machine of the catalogue.

        Args:
            part, uses: as of the class.
            config: machine, link, host and share of experts; with a share for each layer, all have the same.
            host: whether the host may compute; then it must be known.
            catalog: the shipped one by default.

        Raises:
            ForestageError: where configuration, trace and catalogue do not fit each other.
        """
        times = catalogue_times(part, config, host=host, catalog=catalog)
        trace = part.trace
        capacity = config.capacity(
            layers=trace.layers, experts=trace.experts, expert_bytes=times.durations.expert_bytes
        )
        groups = trace.layers if config.scope == "layer" else 1
        return cls(part, times, uses, places=capacity // groups * groups, scope=config.scope)

    def plan(self, policy: Policy) -> Plan:
        """``policy`` for this part.

        Raises:
            ForestageError: where it needs what is not known ahead of the part.
        """
        part = self.part
        return plan_of(
            policy,
            layers=part.trace.layers,
            experts=part.trace.experts,
            most_needed=part.most_needed,
            places=self.places,
            scope=self._scope,
            hottest=self._hottest,
            values=part.values,
            predictions=part.predictions,
        )

    def durations_of(self, policy: Policy) -> Durations:
        """Those where the policy's experts lie.

        Raises:
            ForestageError: if it lets the memory compute and none is given.
        """
        if not policy.missing.in_memory:
            return self.durations
        if self.in_memory is None:
            raise ForestageError(
                f"policy {policy.name}: in_memory: no memory that computes is given; give its settings"
            )
        return self.in_memory

    def run(self, policy: Policy, *, first: int = 0) -> Run:
        """Simulate ``policy``, compiled; the steps before ``first`` run as they do, and are not counted."""
        plan, takes = self.plan(policy), self.durations_of(policy)
        run = compiled.simulate(self.workload, takes, plan)
        return run.less(compiled.simulate(self.workload.head(first), takes, plan)) if first else run

    def run_reference(self, policy: Policy, progress: Progress | None = None) -> Run:
        """Simulate ``policy`` by the reference engine, which finds the same and takes hundreds of times as long.

        ``progress``: called with (steps done, steps).
        """
        return engine.simulate(self.workload, self.durations_of(policy), self.plan(policy), progress=progress)

    def outcome(self, policy: Policy, run: Run) -> Outcome:
        """What ``run`` gave."""
        return Outcome.of(policy.name, run, self.workload, self.durations_of(policy))

    def by_sequence(self, run: Run) -> NDArray[np.int64]:
        """Time of each sequence's steps, ps."""
        return sequence_ps(run, self.workload, self.part.sequence_of_step, self.part.trace.sequences)

    @property
    def all_resident_ps(self) -> int:
        """All timed steps' time with every expert on the device."""
        timed = self.workload.timed
        uses = np.repeat(np.repeat(timed, self.workload.layers), np.diff(self.workload.offsets))
        kernels = self.durations.expert_ps[self.workload.tokens_of[uses]].sum()
        shared = self.workload.shared_ps[timed].sum() * self.workload.layers
        return int(self.workload.before_gate_ps[timed].sum() + shared + kernels)

    @property
    def all_resident_s(self) -> float:
        """The mean step with every expert on the device: nothing that computes there alone is faster."""
        return self.all_resident_ps / self._steps / PS_PER_S

    @property
    def link_roofline_s(self) -> float | None:
        """The least that the mean step of a policy that fetches could take.

        The loads of Belady's rule, less the experts there at the start, over the link, or everything resident,
        whichever is more. ``None`` where it is not known: where a step has several tokens, prompts warm the cache in no
        time, or the device holds nothing.
        """
        part = self.part
        if part.largest_step > 1 or not part.steps.timed.all() or self._share == 0:
            return None
        of_belady = simulate_cache(part.trace, capacity=self._share, policy="belady", scope=self._scope, count="all")
        least_ps = max(0, of_belady.loads - self.places) * int(self.durations.chunk_ps[-1])
        return max(least_ps, self.all_resident_ps) / self._steps / PS_PER_S

    @property
    def _steps(self) -> int:
        return int(self.part.steps.timed.sum())
