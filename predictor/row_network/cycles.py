"""Cycles of the net in hardware (``rtl/prefetch/net``): when an event's answers come, and when the next is taken.

An event's cycles depend on nothing but itself: the next one is taken when everything of it is done, and its answers are
taken. The sums are scheduled pass by pass (`sum_cycles`), the scores by formula (`score_cycles`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from predictor.row_network.program import HeadProgram, Operation
from predictor.row_network.score_cycles import (
    MERGE_CLOCKS,
    VALUE_CLOCKS,
    adapt_cycle,
    adapt_interval,
    chance_clocks,
    command_interval,
    prefetch_cycle,
    values_cycle,
)
from predictor.row_network.sum_cycles import FETCH_CLOCKS, Issue, Pass, run_all

RECORD_CLOCKS = 3
"""From the cycle in which a record is told to that in which its first pass is offered."""
LOOKED_UP_CLOCKS = 3
"""From the cycle in which next-layer's sum is asked for (or would be) to that which tells of the adaptation."""
UNREAD_CLOCKS = 2
"""From the cycle in which a record is told that no source reads to that in which the next command can be."""


class NetCycles(NamedTuple):
    """Cycles of the net for one event, from the one in which it takes it.

    Attributes:
        prefetches: until each PREFETCH is offered: at a TOKEN of targets 0, 1, … (each further one where the one before
            is taken as soon as it is offered), at a GATE of one or none.
        values: until VALUES is offered; 0: never.
        summed: until every sum is written.
        next: until it takes the next event, if no answer has to wait.
    """

    prefetches: tuple[int, ...]
    values: int
    summed: int
    next: int


class Item(NamedTuple):
    """What the memory of the text offers.

    Attributes:
        offered: the first cycle in which it is offered, if everything before it was taken by then.
        record: index of a record's layer; ``None``: a word of an identity.
        layer: whose; ``None``: the END.
        word: of an identity.
    """

    offered: int = 0
    record: int | None = None
    layer: int | None = None
    word: int = 0


@dataclass
class _Run:
    """What an event has begun.

    Attributes:
        issue: the adder of the sums.
        ready: from when on the sums take a command.
        scores_ready: from when on the scores do.
        idle: from when on the scores and the adaptation are idle.
    """

    issue: Issue = field(default_factory=Issue)
    ready: int = 0
    scores_ready: int = 0
    idle: int = 0

    def command(self, passes: Iterable[Pass], now: int) -> int:
        """The sums are told in ``now`` or later; the cycle in which they are."""
        told = max(now, self.ready)
        self.ready = run_all(self.issue, passes, told + FETCH_CLOCKS)
        return told

    def record(self, passes: Sequence[Pass], now: int) -> int:
        """As ``command``, of a record."""
        told = max(now, self.ready)
        if passes:
            self.ready = run_all(self.issue, passes, told + RECORD_CLOCKS, spacing=2)
        else:
            self.ready = told + UNREAD_CLOCKS
        return told


class NetSchedule:
    """Of a net of so many ``lanes`` that has loaded these programs; ``None``: a head that is not asked.

    Whether a gate's choice is *held* (recorded now or before in its sequence) the caller says; there is no state here.
    """

    def __init__(self, next_layer: HeadProgram | None, next_use: HeadProgram | None, *, lanes: int) -> None:
        self._heads = (next_layer, next_use)
        self._lanes = lanes

    def gate(
        self, layer: int, *, known: bool, held: bool, closes: bool = True, text: Sequence[Item] | None = None
    ) -> NetCycles:
        """Of a GATE.

        Args:
            layer: whose.
            known: it was recorded.
            held: it was recorded now or before in its sequence.
            closes: it is the last of the slots that run together.
            text: where the gate waits for the text: what that offers, its END last.
        """
        run, now = _Run(), 1
        if text is not None:
            now = self._text(run, text, now)
        prefetches: tuple[int, ...] = ()
        values = 0
        first, second = self._heads
        if first is not None:
            settings = first.settings
            kept = 0
            if layer + settings.distance < settings.layers:
                passes = _gate_passes(0, first, first.gates[layer][:1], known=known, held=held, asks=True)
                now, shown = self._ask(run, 0, passes, now)
                kept = shown + adapt_cycle(settings.experts, settings.words, lanes=self._lanes)
                if closes:
                    prefetches = (shown + prefetch_cycle(settings.experts, settings.words, lanes=self._lanes),)
            if known and first.layers[layer].adaptation:
                run.idle = max(run.idle, max(now + LOOKED_UP_CLOCKS, kept) + adapt_interval(settings.experts))
            passes = _gate_passes(0, first, first.gates[layer][1:], known=known, held=held)
            now = run.command(passes, now + 1)
        now += 1
        if second is not None:
            settings = second.settings
            passes = _gate_passes(1, second, second.gates[layer][:1], known=known, held=held, asks=True)
            now, shown = self._ask(run, 1, passes, now)
            if closes:
                values = shown + values_cycle(settings.experts, settings.questions, settings.words, lanes=self._lanes)
            passes = _gate_passes(1, second, second.gates[layer][1:], known=known, held=held)
            now = run.command(passes, now + 1) + 1
        elif first is None:
            now += 1
        return self._done(run, prefetches, values, now)

    def token(self, *, starts: bool, closes: bool = True, text: Sequence[Item]) -> NetCycles:
        """Of a TOKEN.

        Args:
            starts: it starts a sequence.
            closes: it is the last of the slots that run together.
            text: what the memory of the text offers, its END last.
        """
        run, now = _Run(), 1
        first, _ = self._heads
        if starts:
            for head, program in enumerate(self._heads):
                if program is not None:
                    layers = range(program.settings.layers)
                    now = run.command([_pass(head, program, layer) for layer in layers], now)
                now += 1
        now = self._text(run, text, now)
        prefetches = []
        if first is not None:
            settings = first.settings
            for target in range(min(settings.distance, settings.layers)):
                told, shown = self._ask(run, 0, [_pass(0, first, target, asks=True)], now)
                now = told + 1
                if closes:
                    prefetches.append(shown + prefetch_cycle(settings.experts, settings.words, lanes=self._lanes))
                    run.scores_ready = max(run.scores_ready, prefetches[-1] + 1)
        return self._done(run, tuple(prefetches), 0, now)

    def _ask(self, run: _Run, head: int, passes: Sequence[Pass], now: int) -> tuple[int, int]:
        """A sum is asked for in ``now`` or later: the cycle in which it is, and that which shows its last word."""
        told = run.command(passes, max(now, run.scores_ready))
        shown = run.issue.shown[-1]
        settings = self._of(head).settings
        final = command_interval(settings.answers, settings.words) - 1
        run.scores_ready = shown + final + 1
        stages = chance_clocks(self._lanes) + MERGE_CLOCKS + VALUE_CLOCKS
        run.idle = max(run.idle, shown + final + stages + 1)
        return told, shown

    def _text(self, run: _Run, items: Sequence[Item], now: int) -> int:
        """What the text offers is added from ``now`` on; the cycle after its END."""
        free = 0
        for item in items:
            now = max(now, item.offered, free)
            if item.record is None and item.layer is None:
                return now + 1
            assert item.layer is not None
            for head, program in enumerate(self._heads):
                if program is None:
                    now += head == 0 and item.record is not None and self._heads[1] is not None
                elif item.record is not None:
                    mask = program.records[item.record] if item.record < len(program.records) else 0
                    one = _pass(head, program, item.layer, rows=program.settings.top_k)
                    now = run.record([one] * mask.bit_count(), now) + 1
                elif head == 0:
                    now = run.command([_pass(0, program, item.layer, word=item.word)], now) + 1
            if self._heads[0] is None and (item.record is None or self._heads[1] is None):
                now += 1
            free = now
        raise ValueError("the text has no END")

    def _done(self, run: _Run, prefetches: tuple[int, ...], values: int, now: int) -> NetCycles:
        """Everything was told before ``now``."""
        summed = run.issue.written
        return NetCycles(prefetches, values, summed, max(now, summed, run.idle))

    def _of(self, head: int) -> HeadProgram:
        program = self._heads[head]
        assert program is not None
        return program


def _pass(head: int, program: HeadProgram, target: int, *, word: int | None = None, **fields: Any) -> Pass:
    """A pass over this token's sum of ``target``."""
    words = range(program.settings.words) if word is None else (word,)
    return Pass(sum_key=(head, 0, 0, target), words=tuple(words), **fields)


def _gate_passes(
    head: int, program: HeadProgram, operations: Iterable[Operation], *, known: bool, held: bool, asks: bool = False
) -> list[Pass]:
    """The passes of some places of a gate's program."""
    settings = program.settings
    return [
        Pass(
            sum_key=(head, operation.fresh, operation.index, operation.target),
            words=tuple(range(settings.words)),
            rows=settings.top_k
            if operation.rows and (known or (held and (operation.fresh or operation.index > 0)))
            else 0,
            asks=asks,
            finishes=operation.finishes,
        )
        for operation in operations
    ]
