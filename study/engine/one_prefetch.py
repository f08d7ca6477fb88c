"""One prefetch of a real run: what every port did from the gate that predicts an expert to the gate that finds it."""

from dataclasses import dataclass

import numpy as np

from catalog.config import StrictModel
from catalog.errors import ForestageError
from catalog.progress import Progress
from cocotb_tests.prefetch_engine.learned_memory import learned_memory
from cocotb_tests.prefetch_engine.run import EngineRun, Run, run_in_turn
from cocotb_tests.prefetch_engine.trace_replay import ReplayConfig, replay_limits
from cocotb_tests.replay import first_tokens
from predictor.engine.environment import LayerTimes
from predictor.engine.events import EventKind, trace_events
from predictor.engine.notices import NoticeKind
from predictor.engine.settings import LinkSettings, Mode, PrefetchEngineSettings
from predictor.row_network.predictor import RowNetworkPredictor
from rtl.prefetch.stager.layouts import ActionKind, Command
from staging.stager.limits import StagerSettings
from staging.transfer.timing import MemoryTiming
from traces import RoutingTrace, split

_COMMANDS = {kind.name: int(kind.value) for kind in Command}  # type: ignore[attr-defined]
_ACTIONS = {kind.name: int(kind.value) for kind in ActionKind}  # type: ignore[attr-defined]
_EVENTS = {kind.name: int(kind.value) for kind in EventKind}
_NOTICES = {kind.name: int(kind.value) for kind in NoticeKind}

EXPERT_BYTES = 10 * 1024
CHUNK_BYTES = 4096
LATENCY = 100
LAYER_TIMES = LayerTimes(before_gate_cycles=600, expert_cycles=20)
THRESHOLD = 20_000
"""Chance of 65,535: few experts are predicted, so that one transfer can be told from the next."""
PREFETCHED = 4
BEFORE, AFTER = 12, 45
"""Cycles that are shown before the first gate and after the last notice."""


class OnePrefetch(StrictModel):
    """What happened, in cycles from the acceptance of the gate that the prediction is made of.

    Attributes:
        layer, expert, place: that was fetched, and to where.
        chance: that it was told with, of 65,535.
        events: cycle, kind, layer.
        scores: cycles of each head's scores, first and last of each run of them.
        prediction: the cycle in which PREFETCH was told.
        commands: first and last cycle, kind.
        reads: of each burst: its address, its first and last beat.
        writes: of each burst: its address, its first and last beat, its answer.
        notices: cycle, kind, layer, expert.
        queued, moving, resident, used: cycles from which on it was so; ``used``: its gate found it.
        end: the last cycle shown.
    """

    layer: int
    expert: int
    place: int
    chance: int
    events: tuple[tuple[int, str, int], ...]
    scores: dict[str, tuple[tuple[int, int], ...]]
    prediction: int
    commands: tuple[tuple[int, int, str], ...]
    reads: tuple[tuple[int, int, int], ...]
    writes: tuple[tuple[int, int, int, int], ...]
    notices: tuple[tuple[int, str, int, int], ...]
    queued: int
    moving: int
    resident: int
    used: int
    end: int


def run_prefetches(
    trace: RoutingTrace,
    tokens: int,
    next_layer: RowNetworkPredictor,
    next_use: RowNetworkPredictor | None,
    *,
    progress: Progress | None = None,
) -> EngineRun:
    """The first test tokens through the engine, with experts of some bursts.

    Raises:
        ForestageError: the trace has too few test tokens, or hardware runs are not possible here.
        SimulationError: the simulation failed.
    """
    config = ReplayConfig(mode=Mode.LEARNED, before_gate_cycles=LAYER_TIMES.before_gate_cycles)
    limits = replay_limits(trace, config)
    stimulus = first_tokens(trace, split(trace)[1], tokens)
    network = next_layer.network
    rows, identity_rows = None, 0
    if network.config.identities and stimulus.token_hash is not None:
        rows = network.identity_index(np.asarray(stimulus.token_hash).astype(np.int64))
        identity_rows = len(network.tables.identity_rows)
    events = trace_events(stimulus, rows=rows)
    settings = PrefetchEngineSettings(
        mode=Mode.LEARNED,
        layers=trace.layers,
        experts=trace.experts,
        top_k=trace.top_k,
        identity_rows=identity_rows,
        next_use=next_use is not None,
        prefetched=PREFETCHED,
        threshold=THRESHOLD,
        stager=StagerSettings(shares=(config.places_per_layer,) * trace.layers),
        link=LinkSettings(
            expert_bytes=EXPERT_BYTES,
            expert_stride=EXPERT_BYTES,
            staging_stride=EXPERT_BYTES,
            chunk_bytes=CHUNK_BYTES,
        ),
    )
    networks = {"next-layer": network} | ({} if next_use is None else {"next-use": next_use.network})
    learned = learned_memory(limits, settings, networks)
    (done,) = run_in_turn(
        limits,
        [Run(settings=settings, events=events, times=LAYER_TIMES, learned=learned)],
        memory=MemoryTiming(latency=LATENCY),
        progress=None if progress is None else lambda done: progress(done, len(events.kind)),
        bursts=True,
    )
    return done


@dataclass(frozen=True)
class _Transfer:
    """A transfer that began for a prediction, and arrived: cycles of its commands' beginnings and ends."""

    key: tuple[int, int]
    granted: int
    arrived: int
    place: int


def find_prefetch(run: EngineRun) -> OnePrefetch:
    """The quickest whole story in ``run``: predicted, moved at once and alone, there before its gate, and found by it.

    Raises:
        ForestageError: if there is none.
    """
    stories = [story for transfer in _transfers(run) if (story := _story(run, transfer)) is not None]
    if not stories:
        raise ForestageError("no prefetch of this run was moved at once and found by its gate; give more --tokens")
    return min(stories, key=lambda story: (story.end, story.layer, story.expert))


def _transfers(run: EngineRun) -> list[_Transfer]:
    done, commands = run.logs["done"], run.logs["commands"]
    fields = done.fields()
    starts = commands.cycle[np.isin(commands.fields()["kind"], [_COMMANDS["ARRIVE"]])].tolist()
    found = []
    for nth in np.flatnonzero((fields["kind"] == _COMMANDS["GRANT"]) & (fields["transfer.valid"] == 1)):
        if fields["transfer.demanded"][nth]:
            continue
        cycle = int(done.cycle[nth])
        arrived = next((start for start in starts if start > cycle), None)
        if arrived is not None:
            key = (int(fields["transfer.key.layer"][nth]), int(fields["transfer.key.expert"][nth]))
            found.append(_Transfer(key, cycle, arrived, int(fields["transfer.place"][nth])))
    return found


def _story(run: EngineRun, transfer: _Transfer) -> OnePrefetch | None:
    """The whole story of a transfer; ``None``: it was interrupted, or its gate did not want it."""
    actions, events, commands = run.logs["actions"], run.logs["events"], run.logs["commands"]
    layer, expert = transfer.key
    acted = actions.fields()
    mine = (acted["key.layer"] == layer) & (acted["key.expert"] == expert)
    queued = _last(actions.cycle[mine & (acted["kind"] == _ACTIONS["QUEUE"])], transfer.granted)
    after = [
        (int(actions.cycle[nth]), int(acted["kind"][nth]))
        for nth in np.flatnonzero(mine & (actions.cycle > (queued or 0)))
    ]
    if queued is None or not after or after[0][1] != _ACTIONS["HIT"] or after[0][0] <= transfer.arrived:
        return None
    used = after[0][0]
    told = events.fields()
    gates = told["kind"] == EventKind.GATE.value
    origin = _last(events.cycle[gates & (told["layer"] == layer - 1)], queued)
    asked = commands.fields()
    prediction = _last(commands.cycle[asked["kind"] == _COMMANDS["PREFETCH"]], queued)
    if origin is None or prediction is None or prediction < origin or used - origin > 2 * _LONGEST:
        return None
    if any(
        prediction < int(cycle) < transfer.granted - 40
        for cycle in commands.cycle[asked["kind"] == _COMMANDS["ARRIVE"]]
    ):
        return None  # the link was busy with another
    gate_of_use = _last(events.cycle[gates & (told["layer"] == layer)], used)
    if gate_of_use is None or gate_of_use < transfer.arrived:
        return None
    return _shown(run, transfer, origin, prediction, queued, used)


_LONGEST = LAYER_TIMES.before_gate_cycles + 600


def _last(cycles: np.ndarray, until: int) -> int | None:
    """The last of ``cycles`` that is not after ``until``."""
    before = cycles[cycles <= until]
    return int(before[-1]) if len(before) else None


def _shown(run: EngineRun, transfer: _Transfer, origin: int, prediction: int, queued: int, used: int) -> OnePrefetch:
    """What is within the window, counted from ``origin``."""
    layer, expert = transfer.key
    begin = origin - BEFORE
    notices = run.logs["notices"]
    told = notices.fields()
    mine = (told["layer"] == layer) & (told["expert"] == expert)
    here = notices.cycle[mine & (told["kind"] == NoticeKind.HERE.value) & (notices.cycle >= used)]
    end = int(here[0]) + AFTER

    def window(cycles: np.ndarray) -> list[int]:
        return np.flatnonzero((cycles >= begin) & (cycles <= end)).tolist()

    events, commands, done = run.logs["events"], run.logs["commands"], run.logs["done"]
    of_event, of_command = events.fields(), commands.fields()
    ends = done.cycle.tolist()
    scores = run.logs["scores"]
    head = scores.fields()["head"]
    predicted = commands.cycle.tolist().index(prediction)
    named = commands.array("experts")[predicted].tolist().index(expert)
    return OnePrefetch(
        layer=layer,
        expert=expert,
        place=transfer.place,
        chance=int(commands.array("chances")[predicted][named]),
        events=tuple(
            (int(events.cycle[n]) - origin, _name(_EVENTS, of_event["kind"][n]), int(of_event["layer"][n]))
            for n in window(events.cycle)
        ),
        scores={
            name: _runs(scores.cycle[(head == number) & (scores.cycle >= begin) & (scores.cycle <= end)] - origin)
            for number, name in enumerate(("next-layer", "next-use"))
        },
        prediction=prediction - origin,
        commands=tuple(
            (int(commands.cycle[n]) - origin, int(ends[n]) - origin, _name(_COMMANDS, of_command["kind"][n]))
            for n in window(commands.cycle)
        ),
        reads=tuple(
            (int(asked) - origin, int(first) - origin, int(last) - origin)
            for _, _, asked, first, last in run.bursts["reads"]
            if begin <= asked and first <= end
        ),
        writes=tuple(
            (int(asked) - origin, int(first) - origin, int(last) - origin, int(answered) - origin)
            for _, _, asked, first, last, answered in run.bursts["writes"]
            if begin <= asked <= end
        ),
        notices=tuple(
            (int(notices.cycle[n]) - origin, _name(_NOTICES, told["kind"][n]), int(told["layer"][n]),
             int(told["expert"][n]))
            for n in window(notices.cycle)
        ),
        queued=queued - origin,
        moving=transfer.granted - origin,
        resident=transfer.arrived - origin,
        used=used - origin,
        end=end - origin,
    )  # fmt: skip


def _name(codes: dict[str, int], code: np.int64) -> str:
    """Of a kind, by its code."""
    return next(name for name, value in codes.items() if value == code)


def _runs(cycles: np.ndarray) -> tuple[tuple[int, int], ...]:
    """First and last of each run of cycles without a gap."""
    if not len(cycles):
        return ()
    parts = np.split(cycles, np.flatnonzero(np.diff(cycles) > 1) + 1)
    return tuple((int(part[0]), int(part[-1])) for part in parts)
