"""What the engine did against what its twin says: command by command, action by action, notice by notice."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cocotb_tests.prefetch_engine.logs import Log
from predictor.engine.commands import CommandKind, Done
from predictor.engine.counters import CYCLE_COUNTERS, EngineCounter
from predictor.engine.events import EngineError
from predictor.engine.following import EngineFollower
from predictor.engine.settings import PrefetchEngineSettings
from predictor.st_moe.events import EngineCounter as TableCounter
from predictor.st_moe.tables import StMoeTables
from rtl.prefetch.stager.layouts import ActionKind, ActionWhy, Command

_TWIN_KIND = {kind: CommandKind[name] for name, kind in Command.__members__.items() if kind is not Command.CLEAR}


class Comparison:
    """Counts every difference and describes the first.

    Attributes:
        compared: by what, how many values were looked at.
        mismatches: differences.
        first: of them, in words; empty where there is none.
    """

    def __init__(self) -> None:
        self.compared: dict[str, int] = {}
        self.mismatches = 0
        self.first = ""

    def equal(self, what: str, twin: Any, hardware: Any) -> None:
        """One value of each."""
        self.compared[what] = self.compared.get(what, 0) + 1
        if twin != hardware:
            self._differs(f"{what}: twin {twin}, hardware {hardware}")

    def equal_lists(self, what: str, twin: Sequence[Any], hardware: Sequence[Any]) -> None:
        """Values in order; those that only one of both has differ too."""
        self.compared[what] = self.compared.get(what, 0) + max(len(twin), len(hardware))
        if list(twin) == list(hardware):
            return
        for nth in range(max(len(twin), len(hardware))):
            expected = twin[nth] if nth < len(twin) else None
            found = hardware[nth] if nth < len(hardware) else None
            if expected != found:
                self._differs(f"{what} {nth}: twin {expected}, hardware {found}")

    def _differs(self, what: str) -> None:
        self.mismatches += 1
        self.first = self.first or what


def follow(follower: EngineFollower, commands: Iterable[Log], stops: Iterable[Log]) -> list[Done]:
    """What the twin does where the stager's commands come in the hardware's order, which random waits decide.

    Args:
        follower: the twin, at its start.
        commands, stops: the hardware's, as they come; a stop is asked for only where a command says PREEMPT.

    Raises:
        OutOfOrder: if no engine could have made it.
    """
    chunks = (chunk for log in stops for chunk in log.fields()["chunk"].tolist())
    done = []
    for log in commands:
        for code in log.fields()["kind"].tolist():
            kind = _TWIN_KIND[Command(code)]
            # One that is missing is no chunk of any transfer, which the twin refuses.
            done.append(follower.follow(kind, chunk=next(chunks, -1) if kind is CommandKind.PREEMPT else 0))
    follower.finish()
    return done


def compare_run(
    comparison: Comparison,
    settings: PrefetchEngineSettings,
    twin: Sequence[Done],
    logs: dict[str, Log],
    *,
    with_cycles: bool,
) -> None:
    """Commands (and when they begin), their cycles, actions, transfers and notices."""
    comparison.equal_lists(
        "command (cycle, kind, layer, experts, chances, deadline, option)",
        [_twin_command(done, with_cycles) for done in twin],
        _hardware_commands(logs["commands"], with_cycles),
    )
    starts = logs["commands"].cycle.tolist()
    comparison.equal_lists(
        "last cycle of a command",
        [start + done.cycles - 1 for start, done in zip(starts, twin, strict=False)],
        logs["done"].cycle.tolist(),
    )
    comparison.equal_lists(
        "action (kind, key, why)",
        [(kind.name, key, why.name if why else "NONE") for done in twin for kind, key, why in done.actions],
        _hardware_actions(logs["actions"], settings.experts),
    )
    comparison.equal_lists(
        "transfer (key, place, victim, demanded)",
        [
            (done.transfer.key, done.transfer.victim, done.transfer.demanded)
            for done in twin
            if done.transfer is not None
        ],
        _hardware_transfers(logs["done"], settings.experts),
    )
    answers = [(d.layer, d.experts, d.chances, d.deadline) for d in twin if d.kind is CommandKind.PREFETCH]
    comparison.equal_lists("prediction (layer, experts, chances, deadline)", answers, _predictions(logs["predictions"]))
    comparison.equal_lists(
        "notice (kind, slot, layer, expert, place)",
        [(told.kind.value, told.slot, told.layer, told.expert, told.place) for done in twin for told in done.notices],
        _columns(logs["notices"], "kind", "slot", "layer", "expert", "place"),
    )


def compare_counters(comparison: Comparison, twin: Any, hardware: Mapping[EngineCounter, int]) -> None:
    """All that do not count cycles; ``twin`` is i64 by ``EngineCounter``."""
    for counter in EngineCounter:
        if counter not in CYCLE_COUNTERS and counter is not EngineCounter.TEXT_LATE:
            comparison.equal(f"counter {counter.name}", int(twin[counter]), hardware[counter])


def compare_errors(comparison: Comparison, twin: EngineError, hardware: EngineError) -> None:
    """The sticky errors."""
    comparison.equal("errors", twin, hardware)


def _columns(log: Log, *names: str) -> list[tuple[int, ...]]:
    """Some fields of every payload."""
    fields = log.fields()
    return list(zip(*(fields[name].tolist() for name in names), strict=True))


def _predictions(log: Log) -> list[tuple[Any, ...]]:
    """Those that name an expert: another is dropped without a command."""
    fields, experts, chances = log.fields(), log.array("experts").tolist(), log.array("chances").tolist()
    columns = (fields["layer"].tolist(), fields["count"].tolist(), fields["deadline"].tolist())
    return [
        (layer, tuple(experts[nth][:count]), tuple(chances[nth][:count]), deadline)
        for nth, (layer, count, deadline) in enumerate(zip(*columns, strict=True))
        if count
    ]


def _twin_command(done: Done, with_cycles: bool) -> tuple[Any, ...]:
    named = done.experts if done.kind not in (CommandKind.GRANT, CommandKind.PREEMPT) else ()
    return (done.start if with_cycles else 0, done.kind.name, done.layer, named, done.chances, done.deadline)


def _hardware_commands(log: Log, with_cycles: bool) -> list[tuple[Any, ...]]:
    """As ``_twin_command``; what a kind does not use is left out."""
    fields = log.fields()
    experts, chances = log.array("experts").tolist(), log.array("chances").tolist()
    columns = (log.cycle, fields["kind"], fields["layer"], fields["count"], fields["deadline"])
    found: list[tuple[Any, ...]] = []
    for nth, (cycle, code, layer, count, deadline) in enumerate(zip(*(c.tolist() for c in columns), strict=True)):
        kind = Command(code)
        names = kind in (Command.DEMAND, Command.RELEASE, Command.PREFETCH)
        has_layer = names or kind is Command.SET_VALUES
        has_deadline = kind in (Command.PREFETCH, Command.EXPIRE)
        found.append(
            (
                cycle if with_cycles else 0,
                kind.name,
                layer if has_layer else 0,
                tuple(experts[nth][:count]) if names else (),
                tuple(chances[nth][:count]) if kind is Command.PREFETCH else (),
                deadline if has_deadline else 0,
            )
        )
    return found


def _hardware_actions(log: Log, experts: int) -> list[tuple[str, int, str]]:
    columns = _columns(log, "kind", "key.layer", "key.expert", "why")
    return [
        (ActionKind(kind).name, layer * experts + expert, ActionWhy(why).name) for kind, layer, expert, why in columns
    ]


def _hardware_transfers(log: Log, experts: int) -> list[tuple[int, int, bool]]:
    names = ("key.layer", "key.expert", "evicts", "victim.layer", "victim.expert", "demanded")
    columns = _columns(log, "transfer.valid", *(f"transfer.{name}" for name in names))
    return [
        (layer * experts + expert, victim_layer * experts + victim if evicts else -1, bool(demanded))
        for valid, layer, expert, evicts, victim_layer, victim, demanded in columns
        if valid
    ]


def compare_scores(comparison: Comparison, twin: Sequence[tuple[int, int, int, NDArray[np.int32]]], log: Log) -> None:
    """Every score of every target that was asked, in order."""
    fields = log.fields()
    answers = [np.arange(len(scores)) for _, _, _, scores in twin]
    sizes = [len(scores) for _, _, _, scores in twin]
    expected = {
        "head": np.repeat([head for head, _, _, _ in twin], sizes),
        "slot": np.repeat([slot for _, slot, _, _ in twin], sizes),
        "target": np.repeat([target for _, _, target, _ in twin], sizes),
        "answer": np.concatenate(answers) if answers else np.zeros(0, np.int64),
        "score": np.concatenate([scores for *_, scores in twin]) if twin else np.zeros(0, np.int64),
    }
    comparison.equal("number of scores", sum(sizes), log.count)
    count = min(sum(sizes), log.count)
    for name, column in expected.items():
        differ = np.flatnonzero(column[:count] != fields[name][:count])
        where = f"score {int(differ[0])}, its {name}" if len(differ) else f"scores, their {name}"
        comparison.equal(where, 0, len(differ))
    comparison.compared["scores"] = comparison.compared.get("scores", 0) + count


def compare_tables(comparison: Comparison, updates: Sequence[Any], log: Log) -> None:
    """Every row that the table predictor wrote, in order."""
    comparison.equal_lists("table row (address, row)", [(of.address, of.row) for of in updates], _rows(log))


def add_table_counters(counters: Any, tables: StMoeTables) -> None:
    """What the table predictor's twin counts, into i64 by ``EngineCounter``."""
    for name in ("CANDIDATE_HITS", "CANDIDATE_MISSES", "UPDATES", "REPLACEMENTS"):
        counters[EngineCounter[name]] = tables.counters[TableCounter[name]]


def _rows(log: Log) -> list[tuple[int, ...]]:
    """Rows may be wider than a number of NumPy."""
    field = dict(log.layout)
    found = []
    for payload in log.payload:
        word = int.from_bytes(payload.tobytes(), "little")
        found.append(tuple(word >> field[name].offset & (1 << field[name].width) - 1 for name in ("address", "row")))
    return found
