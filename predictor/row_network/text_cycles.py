"""Cycles of the memory of the text, where nothing waits: ports and net always ready, a memory of ``latency`` cycles.

A burst that is asked for in cycle t is answered from t + latency on, a beat a cycle, in order. ``cycles`` counts from
the cycle in which the unit takes up a piece of work (the one after its event was accepted, where the unit has nothing
else to do and the slot no write that is not answered) to that in which it could take up the next; in that cycle END is
offered to the net, and of a record the last beat to the memory.
"""

from dataclasses import dataclass, field

from predictor.row_network.integers import BEAT_BYTES, id_bytes
from predictor.row_network.program import unpack
from predictor.row_network.sections import BLOCK
from predictor.row_network.text_traffic import NO_ROW, Kind, TextLimits, TextSettings, Transfer, Work, WorkKind


@dataclass
class _Reads:
    """When transfers are asked for and their beats are used up."""

    limits: TextLimits
    settings: TextSettings
    latency: int
    maker_free: int = 0
    taken: int = -1
    ids_free: int = 0
    last_entry: int = -1
    over: list[int] = field(default_factory=list)

    def ask(self, cycle: int, transfer: Transfer) -> int:
        """Hand over ``transfer`` in ``cycle`` or as soon as the one before has gone; returns when."""
        accepted = asked = max(cycle, self.maker_free)
        ids_left = self.settings.layers * self.settings.top_k
        ids_of_beat = BEAT_BYTES // id_bytes(self.settings.experts)
        for _, beats in transfer.bursts:
            asked += 1
            if len(self.over) >= self.limits.reads:
                asked = max(asked, self.over[-self.limits.reads] + 1)
            for beat in range(beats):
                self.taken = max(self.taken + 1, asked + self.latency + beat)
                if transfer.kind == Kind.RECORD:
                    self.taken = max(self.taken, self.ids_free)
                    self.ids_free = self.taken + 1 + min(ids_left, ids_of_beat)
                    ids_left -= ids_of_beat
            self.over.append(self.taken)
        self.maker_free = asked
        if transfer.kind == Kind.ENTRY:
            self.last_entry = self.taken
        return accepted


def cycles(work: Work, limits: TextLimits, settings: TextSettings, latency: int) -> int:
    """Cycles of a piece of work, as this module says."""
    if work.kind == WorkKind.RECORD:
        return _record_cycles(work, settings)
    reads = _Reads(limits, settings, latency)
    transfers = list(work.reads)
    now = 2
    if work.kind == WorkKind.CHOICE:
        now = 4 + sum(2 + (expert + 1).bit_length() for expert in work.choice)
    looks_up = bool(work.keys)
    if looks_up:
        now += 2 + max(limits.ngram_max, work.slot.bit_length())
        for known in work.keys:
            if known:
                reads.ask(now + 1, transfers.pop(0))
            now += 2
    if work.kind == WorkKind.BEGIN:
        for row in work.rows:
            if row == NO_ROW:
                now += 2
            else:
                now = reads.ask(now + 2 + row.bit_length(), transfers.pop(0)) + 1
        now += 1
    if not looks_up:
        now += 1
    else:
        if reads.last_entry >= 0:
            now = max(now, reads.last_entry + 2)
        now += 1 + len(work.keys) + 1
        for there in work.records:
            now += 3
            if there:
                now = reads.ask(now + settings.record_beats.bit_length(), transfers.pop(0)) + 1
    if reads.over:
        now = max(now, reads.over[-1] + 1, reads.ids_free)
    return now + 1


def _record_cycles(work: Work, settings: TextSettings) -> int:
    """An id a cycle, two to read a layer's, one a beat."""
    if not work.writes:
        return 3
    scaled = work.slot.bit_length() + settings.record_beats.bit_length()
    return 3 + scaled + 2 + settings.layers * (2 + settings.top_k) + settings.record_beats


def load_cycles(section: bytes, latency: int) -> int:
    """Cycles of a load without a fault, from ``start`` to ``done``: 16 a beat to sum it up, and a word a cycle.

    The memory answers a beat before the one before it is worked through, but for the header's and the first after it.
    """
    beats = len(section) // BEAT_BYTES
    words = 0
    at = BEAT_BYTES
    while at < len(section):
        block = unpack(BLOCK, int.from_bytes(section[at : at + BEAT_BYTES], "little"))
        words += 1 + block["words"] * block["parts"]
        at += (1 + block["beats"]) * BEAT_BYTES
    header = 2 + latency + 1 + 16 + 3
    first = 2 + latency - 1
    return header + first + (beats - 1) * (1 + 16 + 1) + words + 2
