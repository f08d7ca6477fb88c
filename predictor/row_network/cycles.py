"""Cycles of the net in hardware (``rtl/prefetch/net``): when an event's answers come, and when the next is taken.

An event's cycles depend on nothing but itself: the next one is taken when everything of it is done, and its answers are
taken. The sums are scheduled pass by pass (`sum_cycles`), the scores by formula (`score_cycles`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from predictor.row_network.program import HeadProgram
from predictor.row_network.score_cycles import (
    adapt_cycle,
    adapt_interval,
    prefetch_cycle,
    values_cycle,
)
from predictor.row_network.sum_cycles import FETCH_CLOCKS, Issue, Pass, run_all

PIPELINE_CLOCKS = 13
"""From a slot of the sums to the first cycle in which its pipeline is empty."""
RECORD_CLOCKS = 3
"""From the cycle in which a record is told to that in which its first pass is offered."""
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
    """What the memory of the text offers: ``record``: a record's index, −1: an identity's word; of ``layer``."""

    record: int
    layer: int
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

    Whether a gate's choice is *held* (recorded before in its sequence) the caller says; so the schedule has no state.
    """

    def __init__(self, next_layer: HeadProgram | None, next_use: HeadProgram | None, *, lanes: int) -> None:
        self._heads = (next_layer, next_use)
        self._lanes = lanes

    def gate(
        self,
        layer: int,
        *,
        known: bool,
        held: bool,
        closes: bool = True,
        text: Sequence[tuple[int, Item]] | None = None,
    ) -> NetCycles:
        """Of a GATE.

        Args:
            layer: whose.
            known: it was recorded.
            held: it was recorded now or before in its sequence.
            closes: it is the last of the slots that run together.
            text: where layer 0 waits for the text: what comes when, as of ``token``.
        """
        run = _Run()
        now = 1
        if text is not None:
            now = self._text(run, text, now)
        prefetches: tuple[int, ...] = ()
        values = 0
        first, second = self._heads
        if first is not None:
            settings = first.settings
            wanted = now + 1
            if layer + settings.distance < settings.layers:
                now = self._ask(run, self._gate_passes(0, first, layer, first.gates[layer][:1], known, held), 0, now)
                wanted = now + 2
                shown = run.issue.shown[-1]
                if closes:
                    prefetches = (shown + prefetch_cycle(settings.experts, settings.words, lanes=self._lanes),)
                kept = shown + adapt_cycle(settings.experts, settings.words, lanes=self._lanes)
            else:
                kept = 0
                now, wanted = now, now + 2
            now = run.command(self._gate_passes(0, first, layer, first.gates[layer][1:], known, held), now + 1)
            if known and first.layers[layer].adaptation:
                adapted = max(wanted, kept)
                run.idle = max(run.idle, adapted + adapt_interval(settings.experts))
            now += 1
        else:
            now += 1
        if second is not None:
            settings = second.settings
            now = self._ask(run, self._gate_passes(1, second, layer, second.gates[layer][:1], known, held), 1, now)
            if closes:
                values = run.issue.shown[-1] + values_cycle(
                    settings.experts, settings.questions, settings.words, lanes=self._lanes
                )
            now = run.command(self._gate_passes(1, second, layer, second.gates[layer][1:], known, held), now + 1) + 1
        elif first is None:
            now += 1
        return self._done(run, prefetches, values, now)

    def token(
        self, *, starts: bool, closes: bool = True, text: Sequence[tuple[int, Item]] = (), end: int = 0
    ) -> NetCycles:
        """Of a TOKEN.

        Args:
            starts: it starts a sequence.
            closes: it is the last of the slots that run together.
            text: items, each with the first cycle in which it is offered, if the ones before were taken.
            end: the cycle of the END, likewise.
        """
        raise NotImplementedError
