"""One part of a trace on one configuration: policies are simulated on it one after the other."""

import numpy as np
from numpy.typing import NDArray

from catalog.catalogue import Catalog
from perfmodel.compiled.simulation import simulate
from perfmodel.config import Scope, SimulationConfig
from perfmodel.durations import durations
from perfmodel.outcome import Outcome, sequence_ps
from perfmodel.parts import Part
from perfmodel.plan import Missing, Run
from perfmodel.policy import Policy, plan_of
from perfmodel.simulate import resolve_costs
from perfmodel.workload import Durations, Workload
from perfmodel.workload_of import check_times, workload
from staging.static import hottest


class Simulator:
    """One part of a trace on one configuration."""

    def __init__(
        self,
        part: Part,
        config: SimulationConfig,
        uses: NDArray[np.int64],
        *,
        host: bool,
        catalog: Catalog | None = None,
    ) -> None:
        costs, layers = resolve_costs(part.trace, config, catalog)
        self.part = part
        self.config = config
        engine_ps = round(config.engine_cycles * 1e3 / costs.machine.engine_clock_ghz)
        asked = np.full((len(part.steps), part.trace.layers), engine_ps, np.int64)
        self.workload: Workload = workload(part.trace, part.steps, part.needed, costs, layers, asked)
        self.durations: Durations = durations(
            costs,
            config,
            most_tokens=part.most_tokens,
            largest_step=part.largest_step,
            missing=Missing.HOST if host else Missing.FETCH,
            catalog=catalog,
        )
        check_times(self.workload, self.durations)
        self.places = config.capacity(
            layers=part.trace.layers, experts=part.trace.experts, expert_bytes=costs.expert_bytes
        )
        self.link_gb_per_s = costs.link_bytes_per_s / 1e9
        self._scope: Scope = config.scope
        self.share = self.places // part.trace.layers if self._scope == "layer" else self.places
        self._hottest = hottest(uses, self.share, self._scope)

    def run(self, policy: Policy) -> Run:
        """Simulate ``policy``."""
        part = self.part
        return simulate(
            self.workload,
            self.durations,
            plan_of(
                policy,
                layers=part.trace.layers,
                experts=part.trace.experts,
                most_needed=part.most_needed,
                places=self.places,
                scope=self._scope,
                hottest=self._hottest,
                values=part.values,
                predictions=part.predictions,
            ),
        )

    def outcome(self, policy: Policy, run: Run) -> Outcome:
        """What ``run`` gave."""
        return Outcome.of(policy.name, run, self.workload, self.durations)

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
