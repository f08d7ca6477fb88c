"""The memory of the text in hardware: every burst, item and cycle as its twin says, over real and random tokens."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from predictor.row_network.limits import NetLimits
from predictor.row_network.text_cycles import cycles
from predictor.row_network.text_traffic import NO_ROW, Kind, TextLimits, TextSettings, TextTraffic, Work, WorkKind
from rtl.prefetch.text.text_memory import TextMemory
from rtl.prefetch.text.unit import TextUnit
from tests.conftest import SHIPPED
from tests.rtl.prefetch.text.text_bench import Bench, Memory, identity_memory, small_limits
from tests.rtl.simulate import simulate
from traces import RoutingTrace

SMALL = TextSettings(
    layers=5, experts=64, top_k=3, lengths=(1, 2, 3), entries=4, log_tokens=8, at_match=True, window=(0, 4),
    identities=2, row_beats=1, word_beats=1, text_base=0x10FC0, text_stride=0x400,
    identity_base=0x80CC0, identity_stride=64 * 11,
)  # fmt: skip
"""Few entries and a short log, so that keys collide and the log comes round; rows that are not side by side."""

Tokens = Iterator[tuple[str, tuple[Any, ...]]]


@dataclass(frozen=True)
class Token:
    """Of a random sequence."""

    starts: bool
    identity: int | None
    row: int
    gates: list[Any]


def random_tokens(
    settings: TextSettings, count: int, seed: int, *, unknown: float = 0.1, starts: float = 0.05
) -> list[Token]:
    """Tokens of few identities, so that much repeats; some identities and gates are not recorded."""
    generator = np.random.default_rng(seed)
    tokens = []
    for number in range(count):
        kind = int(generator.integers(0, 3))
        pattern = np.random.default_rng(kind)
        gates = []
        for _ in range(settings.layers):
            ids = pattern.permutation(settings.experts)[: settings.top_k]
            gates.append(None if generator.random() < unknown else ids)
        known = generator.random() >= unknown
        row = int(generator.integers(0, 4)) if known else NO_ROW
        begins = number == 0 or generator.random() < starts
        tokens.append(Token(begins, 0xFFFF_FFF0 + kind if known else None, row, gates))
    return tokens


def some_rows(settings: TextSettings, count: int = 4) -> np.ndarray:
    width = settings.row_beats * 64 - 20
    shape = (count, max(1, settings.identities), settings.layers, width)
    return np.random.default_rng(1).integers(-128, 128, shape, np.int8)


@dataclass
class Outcome:
    """What a run came to."""

    works: list[Work]
    bench: Bench
    timed: int = 0


def run(
    limits: TextLimits, settings: TextSettings, events: list[tuple[Any, ...]], memory: Memory, *, waits: float = 0.0,
    timed: bool = False, rows: np.ndarray | None = None, faults: Any = None,
    unit: Any = None,
) -> Outcome:  # fmt: skip
    """Give ``events`` to a unit and to its twin, and compare everything.

    ``timed``: each piece of work alone, its cycles being compared; ``faults``: called with (memory, twin, number)
    before each event, which then waits until all is at rest.
    """
    twin = TextTraffic(limits, settings, rows)
    unit = TextUnit(limits) if unit is None else unit
    works: list[Work] = []
    outcome = Outcome(works, None)  # type: ignore[arg-type]
    if rows is not None:
        identity_memory(memory, settings, rows)

    async def testbench(ctx: Any) -> None:
        bench = outcome.bench = Bench(ctx, unit, memory, settings, waits=waits)
        for _ in range(4):
            await bench.step()
        for number, (kind, *details) in enumerate(events):
            if faults is not None or timed:
                await bench.settle()
            if faults is not None:
                faults(memory, twin, number)
            if kind == "forget":
                twin.forget()
                await bench.settle()
                ctx.set(unit.forget, 1)
                await bench.step()
                ctx.set(unit.forget, 0)
                continue
            if kind == "token":
                slot, token = details
                done = [twin.token(slot, starts=token.starts, identity=token.identity, row=token.row)]
                accepted = await bench.token(slot, starts=token.starts, identity=token.identity, row=token.row)
            else:
                slot, layer, ids = details
                done = twin.gate(slot, layer, ids)
                accepted = await bench.gate(slot, layer, ids)
            works.extend(done)
            if timed:
                await bench.settle()
                outcome.timed += _compare_cycles(bench, done, accepted, memory, limits, settings)
        await bench.settle()

    simulate(unit, testbench)
    bench = outcome.bench
    assert bench.items == [item for work in works for item in work.items]
    assert memory.read == [burst for work in works for transfer in work.reads for burst in transfer.bursts]
    assert memory.written == [written for work in works for written in work.writes]
    return outcome


def _compare_cycles(
    bench: Bench, done: list[Work], accepted: int, memory: Memory, limits: TextLimits, settings: TextSettings
) -> int:
    """How many were compared: the cycle in which END is offered, or a record's last beat."""
    if len(done) > 1:
        done = done[:1]  # a model of one layer: the record waits until the entries' writes are answered
    for work in done:
        expected = accepted + 1 + cycles(work, limits, settings, memory.latency)
        if work.kind == WorkKind.RECORD:
            if work.writes:
                assert memory.last_write == expected, work
        else:
            assert bench.ended[-1] == expected, work
    return len(done)


def sequence(slot: int, tokens: list[Token]) -> list[tuple[Any, ...]]:
    """Events of one slot."""
    events: list[tuple[Any, ...]] = []
    for token in tokens:
        events.append(("token", slot, token))
        events += [("gate", slot, layer, ids) for layer, ids in enumerate(token.gates)]
    return events


def together(settings: TextSettings, sequences: list[list[Token]], seed: int) -> list[tuple[Any, ...]]:
    """Events of several slots, interleaved at random."""
    generator = np.random.default_rng(seed)
    left = [sequence(slot, tokens) for slot, tokens in enumerate(sequences)]
    events = []
    while any(left):
        slot = int(generator.integers(0, len(left)))
        if left[slot]:
            events.append(left[slot].pop(0))
    return events


def shape(**changes: Any) -> TextSettings:
    """``SMALL`` otherwise; its rows of identity one beat apart."""
    own = SMALL.model_copy(update=changes)
    return own.model_copy(update={"identity_stride": 64 * (own.identities * own.age_beats + 1)})


SHAPES = {
    "identity": shape(),
    "routing": shape(by_routing=True, identities=0),
    "routing and rows": shape(by_routing=True, row_beats=3, word_beats=2),
    "no text": shape(lengths=()),
    "nothing": shape(lengths=(), identities=0),
    "matches alone": shape(window=(0, -1), lengths=(2,)),
    "windows alone": shape(at_match=False, window=(1, 6), log_tokens=2),
    "two bytes": shape(experts=300, layers=7, top_k=6, text_base=0x1600, text_stride=0x800),
    "one layer": shape(by_routing=True, layers=1),
    "one entry": shape(entries=1, log_tokens=1),
}


def limits_of(settings: TextSettings) -> TextLimits:
    return small_limits(experts_max=512, top_k_max=8) if settings.experts > 255 else small_limits()


@pytest.mark.parametrize("name", SHAPES)
def test_every_burst_item_and_cycle_is_the_twins(name: str) -> None:
    settings = SHAPES[name]
    events = sequence(1, random_tokens(settings, 16, seed=3, unknown=0.2))
    outcome = run(
        limits_of(settings), settings, events, Memory(latency=7), timed=True, rows=some_rows(settings)
    )  # fmt: skip
    if settings.identities and name != "one layer":
        assert any(len(transfer.bursts) > 1 for work in outcome.works for transfer in work.reads)
    if name == "two bytes":
        assert any(len(work.writes) > 1 for work in outcome.works if work.kind == WorkKind.RECORD)
    assert outcome.timed == len(outcome.works) or settings.layers == 1
    read = {transfer.kind for work in outcome.works for transfer in work.reads}
    text = {Kind.ENTRY, Kind.RECORD} if settings.lengths and settings.log_tokens > 1 else set()
    assert read >= (text | ({Kind.IDENTITY} if settings.identities else set()))


@pytest.mark.parametrize(
    ("name", "waits"), [("identity", 0.0), ("identity", 0.4), ("routing and rows", 0.4), ("one layer", 0.4)]
)
def test_slots_interleave(name: str, waits: float) -> None:
    settings = SHAPES[name]
    sequences = [random_tokens(settings, 6, seed=slot) for slot in range(3)]
    events = together(settings, sequences, seed=5)
    memory = Memory(latency=9, waits=waits, seed=2)
    outcome = run(limits_of(settings), settings, events, memory, waits=waits, rows=some_rows(settings))
    assert sum(item.kind == Kind.END for item in outcome.bench.items) >= 18


def test_tokens_of_the_shipped_trace() -> None:
    """Real identities and routing, both ways of naming a token."""
    trace = RoutingTrace.load(SHIPPED / "trace.safetensors")
    assert trace.token_hash is not None
    own = {"lengths": (1, 2, 3), "entries": 256, "log_tokens": 64, "at_match": True, "text_base": 0x4000}
    for by_routing, window, count in ((False, (1, 2), 24), (True, (0, -1), 12)):
        settings = TextSettings(
            layers=trace.layers, experts=trace.experts, top_k=trace.top_k, by_routing=by_routing, window=window, **own
        )
        tokens = [
            Token(number == 0, int(trace.token_hash[number]), NO_ROW, list(trace.expert_ids[number]))
            for number in range(count)
        ]
        outcome = run(small_limits(), settings, sequence(2, tokens), Memory(latency=3))
        records = sum(item.kind == Kind.RECORD for item in outcome.bench.items)
        assert records >= 8 or by_routing


@pytest.mark.parametrize("name", ["identity", "routing and rows", "two bytes"])
def test_what_fails_is_as_if_it_were_not_there(name: str) -> None:
    """Beats that cannot be read, and bursts that cannot be written, other ones at every event."""
    settings = SHAPES[name]

    def faults(memory: Memory, twin: TextTraffic, number: int) -> None:
        for side in (memory, twin):
            side.read_fails = lambda address: (address // 64 * 7 + number) % 5 == 0
            side.write_fails = lambda address: number % 47 == 17 and address // 64 % 2 == 0

    tokens = random_tokens(settings, 24, seed=8, unknown=0.05, starts=0.2)
    memory = Memory(latency=4)
    outcome = run(
        limits_of(settings), settings, sequence(0, tokens), memory, rows=some_rows(settings), faults=faults
    )  # fmt: skip
    bench = outcome.bench
    assert bench.read_failed
    assert bench.write_failed
    assert any(item.failed for item in bench.items)
    assert any(item.kind == Kind.RECORD for item in bench.items)


def test_a_missing_last_beat_is_a_failed_one() -> None:
    settings = SHAPES["matches alone"]
    memory = Memory(latency=4, drop_last=True)

    def faults(memory: Memory, twin: TextTraffic, number: int) -> None:
        twin.read_fails = lambda address: True  # every burst here is of one beat

    settings = settings.model_copy(update={"identities": 0})
    outcome = run(
        limits_of(settings), settings, sequence(0, random_tokens(settings, 6, seed=1, unknown=0)), memory,
        faults=faults,
    )  # fmt: skip
    assert outcome.bench.read_failed >= 5
    assert all(item.kind == Kind.END for item in outcome.bench.items)


def test_a_new_sequence_and_a_forgotten_one_see_nothing_of_the_earlier() -> None:
    """The same tokens again find the entries of the earlier sequence under their very keys."""
    settings = SHAPES["identity"]
    token = Token(False, 77, NO_ROW, [[1, 2, 3]] * 5)
    first = [Token(True, 77, NO_ROW, [[1, 2, 3]] * 5), token]
    events = [*sequence(0, first), *sequence(0, first), ("forget",), *sequence(0, [token, token])]
    outcome = run(limits_of(settings), settings, events, Memory(latency=2))
    ends = [work for work in outcome.works if work.kind == WorkKind.BEGIN]
    assert [any(item.kind == Kind.RECORD for item in work.items) for work in ends] == [False, True] * 3


def test_a_gate_before_its_text_is_late() -> None:
    settings = SHAPES["identity"]
    tokens, rows = random_tokens(settings, 3, seed=1), some_rows(settings)
    at_once = run(limits_of(settings), settings, sequence(0, tokens), Memory(latency=30), rows=rows)
    assert at_once.bench.late == 3
    after = run(limits_of(settings), settings, sequence(0, tokens), Memory(latency=30), timed=True, rows=rows)
    assert after.bench.late == 0


def test_the_unit_works_beside_the_loader() -> None:
    """Through the port that they share."""
    settings = SHAPES["identity"]
    tokens = random_tokens(settings, 4, seed=2)
    unit = TextMemory(small_limits(), NetLimits(layers=2, experts=4, top_k=2))
    run(small_limits(), settings, sequence(0, tokens), Memory(latency=3), rows=some_rows(settings), unit=unit)


def test_reads_wait_for_the_answers_of_writes_that_they_depend_on() -> None:
    """Each token reads the record of the one before, whose write is answered long after the token began."""
    settings = SHAPES["identity"]
    tokens = [Token(number == 0, 77, NO_ROW, [[number, 20, 30]] * 5) for number in range(4)]
    outcome = run(limits_of(settings), settings, sequence(0, tokens), Memory(latency=2, write_latency=90))
    assert any(item.ids == (2, 20, 30) for item in outcome.bench.items)


def test_an_entry_that_cannot_be_read_names_nothing() -> None:
    settings = SHAPES["identity"]
    tokens = [Token(number == 0, 77, NO_ROW, [[number, 20, 30]] * 5) for number in range(4)]
    log = settings.text_base + settings.log_offset

    def faults(memory: Memory, twin: TextTraffic, number: int) -> None:
        for side in (memory, twin):
            side.read_fails = lambda address: number == 12 and address < log

    outcome = run(limits_of(settings), settings, sequence(0, tokens), Memory(latency=2), faults=faults)
    begun = [work for work in outcome.works if work.kind == WorkKind.BEGIN]
    assert [any(item.kind == Kind.RECORD for item in work.items) for work in begun] == [False, True, False, True]
