"""The prefetch engine's hardware beside the system model: the same policy, run under Verilator."""

from collections.abc import Mapping

import numpy as np

from catalog.errors import ForestageError
from catalog.progress import Progress
from cocotb_tests.prefetch_engine.replay import EngineReplayResult, Replay, replay_engine
from cocotb_tests.prefetch_engine.run import EngineRun
from predictor.engine.counters import EngineCounter
from predictor.engine.events import EventKind
from predictor.engine.limits import HeadsLimits
from predictor.engine.settings import LinkSettings
from predictor.policies.parts import Part, Predictors
from predictor.policies.plan import Plan
from predictor.policies.policy import Policy
from staging.transfer.timing import MemoryTiming
from study.engine.system_model import EngineTimes, engine_setup


class RtlRunner:
    """A ``study.engine.system_model.EngineRunner``: the hardware, compared with its twin as it runs.

    Args:
        link: of transfers.
        memory: far memory and staging buffer.
        progress: called with (events accepted, events).
        net: that the engine is generated with, as of ``engine_setup``.

    Attributes:
        result: the comparison with the twin, of the latest run.

    Raises:
        ForestageError: hardware and twin differ, or hardware runs are not possible here.
        SimulationError: the simulation failed.
    """

    def __init__(
        self,
        link: LinkSettings,
        memory: MemoryTiming,
        progress: Progress | None = None,
        net: HeadsLimits | None = None,
    ) -> None:
        self._link, self._memory, self._progress, self._net = link, memory, progress, net
        self.result: EngineReplayResult | None = None

    def __call__(
        self, part: Part, plan: Plan, policy: Policy, predictors: Predictors, times: EngineTimes
    ) -> tuple[Mapping[EngineCounter, int], list[int]]:
        """See the class."""
        of = engine_setup(part, plan, policy, predictors, self._link, self._net)
        heads = {"next-layer": of.next_layer, "next-use": of.next_use}
        networks = {name: network for name, network in heads.items() if network is not None}
        runs: list[EngineRun] = []
        progress, total = self._progress, len(of.events.kind)
        self.result = replay_engine(
            Replay(
                limits=of.limits,
                settings=of.settings,
                events=of.events,
                times=times.layers,
                memory=self._memory,
                networks=networks or None,
                preloaded=tuple((*divmod(key, part.trace.experts), False) for key in plan.resident.tolist()),
            ),
            progress=None if progress is None else lambda done: progress(done, total),
            observe=runs.append,
        )
        if self.result.mismatches:
            raise ForestageError(
                f"policy {policy.name}: hardware and twin differ in {self.result.mismatches} values; the first: "
                f"{self.result.first_mismatch}"
            )
        events = runs[0].logs["events"]
        fields = events.fields()
        starts = (fields["kind"] == EventKind.TOKEN.value) & (fields["first"] == 1)
        return runs[0].counters, events.cycle[np.flatnonzero(starts)].tolist()
