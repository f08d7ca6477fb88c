"""A trace through the whole engine under Verilator, in lock-step with its twin."""

import hashlib
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from catalog.config import StrictModel
from cocotb_tests.models.files import Fault
from cocotb_tests.prefetch_engine import coverage
from cocotb_tests.prefetch_engine.comparison import (
    Comparison,
    add_table_counters,
    compare_counters,
    compare_errors,
    compare_run,
    compare_scores,
    compare_tables,
    follow,
)
from cocotb_tests.prefetch_engine.learned_memory import LearnedMemory, learned_memory
from cocotb_tests.prefetch_engine.logs import Log, growing_log, log_path
from cocotb_tests.prefetch_engine.run import SCRIPT, EngineRun, Run, build_bench, log_layouts, run_in_turn
from cocotb_tests.prefetch_engine.staging_buffer import compare_staging
from predictor.engine.commands import Done
from predictor.engine.environment import Environment, LayerTimes
from predictor.engine.events import EVENT_ERRORS, EventArrays, Gate, Token
from predictor.engine.following import EngineFollower
from predictor.engine.heads import Heads
from predictor.engine.limits import PrefetchEngineLimits
from predictor.engine.net_timing import NetTiming
from predictor.engine.predictors import EnginePredictor, LearnedPredictor, Predicted, TablesPredictor
from predictor.engine.settings import Mode, PrefetchEngineSettings
from predictor.engine.timing import DmaLink
from predictor.engine.twin import EngineTwin
from predictor.row_network.cycles import NetSchedule
from predictor.row_network.program import head_program
from predictor.row_network.twin import RowNetwork
from predictor.st_moe.tables import StMoeTables
from rtl.prefetch.limits import text_limits
from staging.transfer.timing import MemoryTiming

_Result = TypeVar("_Result")


class ComparedRun(StrictModel):
    """What ran, and how it compares with the twin.

    Attributes:
        mode: who predicted.
        events, commands: that the engine was told; that its stager was.
        start_cycles: of commands: ``compared`` with the twin's, or taken ``from hardware``, with their order, as the
            twin does not know when channels that wait at random, or a text that is added up, let them come.
        compared: values of each kind that were compared.
        mismatches, first_mismatch: of these, how many differ; the first in words.
        breaches: of AXI4 on any port.
        cycles: of the hardware.
        running_s: seconds that events ran in the simulation, configuration aside.
        checked_s: of that, and of what the comparison took after the simulation.
    """

    mode: str
    events: int
    commands: int
    start_cycles: Literal["compared", "from hardware"]
    compared: dict[str, int]
    mismatches: int
    first_mismatch: str
    breaches: int
    cycles: int
    running_s: float
    checked_s: float


class EngineReplayResult(ComparedRun):
    """A replay and its comparison.

    Attributes:
        cycles_per_s: simulated.
        counters: the hardware's.
        errors: its sticky ones, bits of ``EngineError``.
        waits, seed: of the random waits.
    """

    cycles_per_s: float
    counters: dict[str, int]
    errors: int
    waits: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Replay:
    """What is replayed.

    Attributes:
        limits, settings: of the engine.
        events, times: what it is told, and when.
        memory: far memory, staging buffer and memory of the text.
        networks: of the learned predictor, by head.
        tables: of ST-MoE; not changed.
        preloaded: (layer, expert, fixed), resident from the start.
        bad: bool ``[events]``, those that the engine must refuse.
        faults: what memories do wrong, by name.
        waits, seed: as of ``run_in_turn``.
        script: as of ``run_in_turn``.
        spoil: puts more into the memory of images and texts.
        heard: what the twin is told instead of ``events``, where a fault makes the engine take them so.
    """

    limits: PrefetchEngineLimits
    settings: PrefetchEngineSettings
    events: EventArrays
    times: LayerTimes
    memory: MemoryTiming
    networks: dict[str, RowNetwork] | None = None
    tables: StMoeTables | None = None
    preloaded: tuple[tuple[int, int, bool], ...] = ()
    bad: NDArray[np.bool_] | None = None
    faults: dict[str, Sequence[Fault]] | None = None
    waits: int = 0
    seed: int = 0
    script: str = SCRIPT
    spoil: Callable[[LearnedMemory], LearnedMemory] | None = None
    heard: EventArrays | None = None

    @property
    def identity(self) -> str:
        """What tells it from others: limits, settings, events, waits, faults, script."""
        events = hashlib.sha256(b"".join(np.ascontiguousarray(column).tobytes() for column in self.events)).hexdigest()
        told = (
            self.limits.model_dump_json(),
            self.settings.model_dump_json(),
            events,
            self.waits,
            self.seed,
            self.faults,
            self.script,
        )
        return repr(told)

    @property
    def follows(self) -> bool:
        """Whether the order of the stager's commands is the hardware's, and when they begin is not compared.

        The twin does not know how channels wait or fail, nor when a text is added up.
        """
        reads_text = any(network.config.reads_text for network in (self.networks or {}).values())
        return reads_text or self.waits > 0 or bool(self.faults)


def replay_engine(
    replay: Replay,
    *,
    progress: Callable[[int], None] | None = None,
    waves: Path | None = None,
    observe: Callable[[EngineRun], None] | None = None,
    activity: Path | None = None,
) -> EngineReplayResult:
    """Run it in hardware and in the twin, side by side, and compare everything: ``replay_in_turn`` of a lone one."""
    return replay_in_turn([replay], progress=progress, waves=waves, observe=observe, activity=activity)[0]


def replay_in_turn(
    replays: Sequence[Replay],
    *,
    progress: Callable[[int], None] | None = None,
    waves: Path | None = None,
    observe: Callable[[EngineRun], None] | None = None,
    activity: Path | None = None,
) -> list[EngineReplayResult]:
    """Run them one after the other in hardware, which is configured anew for each and never reset; compare everything.

    Args:
        replays: what, at least one; of all alike are limits, memory, waits, seed and script, the first's count.
        progress: called with the number of events accepted, of all.
        waves: where to write the waves.
        observe: given all that the hardware did, run by run.
        activity: as of ``run_in_turn``.

    Raises:
        SimulationError: the simulation failed.
        ForestageError: hardware runs are not possible here, or what is given does not fit the engine.
    """
    first = replays[0]
    build_bench(first.limits, waves=waves, activity=activity is not None)
    sides = [_Side(replay) for replay in replays]
    with tempfile.TemporaryDirectory(prefix="forestage-replay-", ignore_cleanup_errors=True) as name:
        folder = Path(name)

        def simulate() -> list[EngineRun]:
            return run_in_turn(
                first.limits,
                [side.run for side in sides],
                memory=first.memory,
                waits=first.waits,
                seed=first.seed,
                progress=progress,
                waves=waves,
                activity=activity,
                script=first.script,
                folder=folder,
            )

        with _InBackground(simulate) as simulation:
            for nth, side in enumerate(sides):
                side.run_twin(GrowingLogs(folder, nth, first.limits, simulation.is_over))
            runs = simulation.result()
    results = [side.compare(run) for side, run in zip(sides, runs, strict=True)]
    if observe is not None:
        for run in runs:
            observe(run)
    return results


class _Side:
    """The twin's side of a replay, and the comparison of both."""

    def __init__(self, replay: Replay) -> None:
        self.replay = replay
        self._learned: LearnedMemory | None = None
        if replay.settings.mode is Mode.LEARNED:
            learned = learned_memory(replay.limits, replay.settings, replay.networks or {})
            self._learned = learned if replay.spoil is None else replay.spoil(learned)
        self._updates: list[Any] = []
        self._predictor = _predictor(replay, self._learned, self._updates.extend)
        self._twin: EngineFollower | EngineTwin
        self._done: list[Done]

    @property
    def run(self) -> Run:
        """What the hardware is told."""
        replay, tables = self.replay, self.replay.tables
        return Run(
            settings=replay.settings,
            events=replay.events,
            times=replay.times,
            tables=None if tables is None else tables.configuration,
            table_image=None if tables is None else tables.to_memory_image(),
            learned=self._learned,
            bad=replay.bad,
            preloaded=replay.preloaded,
            faults=replay.faults,
        )

    def run_twin(self, logs: "GrowingLogs") -> None:
        """Run the twin beside the hardware: by itself or, where it follows, in the order of commands in ``logs``."""
        replay = self.replay
        if replay.follows:
            self._follow(logs)
            return
        free = EngineTwin(
            replay.limits,
            replay.settings,
            replay.events,
            Environment(replay.events, replay.times),
            predictor=self._predictor,
            link_timing=DmaLink(replay.limits, replay.settings, replay.memory),
        )
        for layer, expert, fixed in replay.preloaded:
            experts = replay.settings.experts
            free.preload(np.array([layer * experts + expert]), experts, fixed=fixed)
        self._twin, self._done = free, list(free.run(to_rest=True))

    def _follow(self, logs: "GrowingLogs") -> None:
        replay = self.replay
        events = replay.events if replay.heard is None else replay.heard
        follower = EngineFollower(replay.limits, replay.settings, events, predictor=self._predictor)
        for layer, expert, fixed in replay.preloaded:
            follower.preload(layer, expert)
            if fixed:
                follower.fix(layer, expert, fixed=True)
        self._twin, self._done = follower, follow(follower, logs.of("commands"), logs.of("stops"))

    def compare(self, run: EngineRun) -> EngineReplayResult:
        """What the hardware did with what the twin does."""
        replay = self.replay
        comparison = Comparison()
        _compare(comparison, replay, self._twin, self._done, run, self._predictor, self._updates)
        result = EngineReplayResult(
            mode=replay.settings.mode.name.lower(),
            events=len(replay.events.kind),
            commands=len(self._done),
            start_cycles="from hardware" if replay.follows else "compared",
            compared=comparison.compared,
            mismatches=comparison.mismatches,
            first_mismatch=comparison.first,
            breaches=run.breaches,
            cycles=run.cycles,
            cycles_per_s=run.cycles / run.running_s,
            running_s=run.running_s,
            checked_s=run.running_s + time.perf_counter() - run.ended,
            counters={counter.name.lower(): value for counter, value in run.counters.items()},
            errors=int(run.errors),
            waits=replay.waits,
            seed=replay.seed,
        )
        if not result.mismatches:
            coverage.leave(
                coverage.seen(
                    replay.settings.mode,
                    replay.settings.experts,
                    counters=result.counters,
                    errors=int(run.errors | run.cleared),
                    waits=replay.waits,
                    run=replay.identity,
                )
            )
        return result


def _predictor(
    replay: Replay, learned: LearnedMemory | None, observe: Callable[[tuple[object, ...]], None]
) -> EnginePredictor | None:
    """The twin's, with the times of the hardware."""
    settings, limits = replay.settings, replay.limits
    if settings.mode is Mode.OFF:
        return None
    if settings.mode is Mode.TABLES:
        assert replay.tables is not None, "mode tables, and none are given"
        return TablesPredictor(deepcopy(replay.tables), observe)
    assert learned is not None
    networks = replay.networks or {}
    next_layer, next_use = networks.get("next-layer"), networks.get("next-use")
    programs = [
        None
        if network is None
        else head_program(
            network.tables,
            network.config,
            top_k=network.top_k,
            ranked=network.ranked,
            distance=distance,
            lanes=limits.net.lanes,
            origin="replay",
        )
        for network, distance in ((next_layer, settings.distance), (next_use, 0))
    ]
    timing = NetTiming(
        NetSchedule(*programs, lanes=limits.net.lanes),
        slots=limits.slots_max,
        layers=settings.layers,
        limits=text_limits(limits),
        settings=learned.text,
        latency=replay.memory.latency,
        identity_rows=None if next_layer is None else next_layer.tables.identity_rows,
    )
    return ScoreKeeper(Heads(settings, limits.slots_max, next_layer, next_use), timing, settings)


class ScoreKeeper(LearnedPredictor):
    """The row networks, and every score that they gave, in the order of the hardware.

    Attributes:
        scores: (head, slot, target, scores i32 ``[answers]``) of each target that was asked.
    """

    def __init__(self, heads: Heads, timing: NetTiming, settings: PrefetchEngineSettings) -> None:
        super().__init__(heads, timing)
        self._settings = settings
        self.scores: list[tuple[int, int, int, NDArray[np.int32]]] = []

    @override
    def token(self, event: Token, base: int, now: int = 0, offered: int = 0) -> Predicted:
        predicted = super().token(event, base, now, offered)
        if self._settings.next_layer:
            for target in range(self._settings.distance):
                self._keep(event.slot, 0, target)
        return predicted

    @override
    def gate(self, event: Gate, base: int, now: int = 0, offered: int = 0) -> Predicted:
        predicted = super().gate(event, base, now, offered)
        target = event.layer + self._settings.distance
        if self._settings.next_layer and target < self._settings.layers:
            self._keep(event.slot, 0, target)
        if self._settings.next_use:
            self._keep(event.slot, 1, event.layer)
        return predicted

    def _keep(self, slot: int, head: int, target: int) -> None:
        scores = self.heads.scores(slot, next_use=head == 1, target=target)
        self.scores.append((head, slot, target, scores.ravel()))


def _compare(
    comparison: Comparison,
    replay: Replay,
    twin: EngineFollower | EngineTwin,
    done: Sequence[Done],
    run: EngineRun,
    predictor: EnginePredictor | None,
    updates: Sequence[Any],
) -> None:
    """Everything that both did."""
    compare_run(comparison, replay.settings, done, run.logs, with_cycles=not replay.follows)
    counters = twin.counters.copy()
    if isinstance(predictor, TablesPredictor):
        compare_tables(comparison, updates, run.logs["table_writes"])
        add_table_counters(counters, predictor.tables)
    if isinstance(predictor, ScoreKeeper):
        compare_scores(comparison, predictor.scores, run.logs["scores"])
    compare_counters(comparison, counters, run.counters)
    # Of what memories do wrong the twin knows nothing.
    compare_errors(comparison, twin.errors, run.errors & EVENT_ERRORS if replay.faults else run.errors)
    stops = run.logs["stops"].fields()["chunk"].tolist()
    compare_staging(comparison, replay.settings.link, done, stops, run.staging)
    comparison.equal("protocol breaches on the memory ports", 0, run.breaches)
    comparison.equal("protocol breaches on the control port", [], run.violations)


class GrowingLogs:
    """What a run logs, while the simulation still runs.

    Args:
        folder: the simulator's.
        nth: which run it is.
        limits: of the engine.
        is_over: whether the simulation has ended; raises what it failed by.
    """

    def __init__(self, folder: Path, nth: int, limits: PrefetchEngineLimits, is_over: Callable[[], bool]) -> None:
        self._folder, self._nth = folder, nth
        self._layouts = log_layouts(limits)
        self._simulation_is_over = is_over

    def of(self, name: str) -> Iterator[Log]:
        """All payloads of a log, as they come."""
        return growing_log(log_path(self._folder, self._nth, name), self._layouts[name], lambda: self._is_over(name))

    def _is_over(self, name: str) -> bool:
        # A run's logs are begun when those of the run before are complete.
        return log_path(self._folder, self._nth + 1, name).exists() or self._simulation_is_over()


class _InBackground(Generic[_Result]):
    """Work of another process that a thread waits for while this one goes on; at the end of ``with`` it is over.

    What the work fails by counts for more than an error within ``with``, which may follow from it.
    """

    def __init__(self, work: Callable[[], _Result]) -> None:
        self._work = work
        self._found: list[_Result] = []
        self._failed: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or issubclass(kind, Exception):  # not where somebody interrupts
            self.result()

    def _run(self) -> None:
        try:
            self._found.append(self._work())
        except BaseException as error:
            self._failed.append(error)

    def is_over(self) -> bool:
        """Whether it is; raises what it failed by."""
        if self._thread.is_alive():
            return False
        self.result()
        return True

    def result(self) -> _Result:
        """What it came to, or what it raised."""
        self._thread.join()
        if self._failed:
            raise self._failed[0]
        return self._found[0]
