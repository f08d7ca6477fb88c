"""The updater: a table row is verified against what was needed."""

from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.st_moe.parameters import CONFIDENCE_BITS, CONFIDENCE_MAX, REPLACEMENT_CODES, EngineLimits
from rtl.checks import always, at_most_one, implies
from rtl.prefetch.tables.layouts import RowWriteSignature, address_bits, experts_layout, row_layout


class Updater(wiring.Component):
    """One row a cycle; it is written two cycles after ``valid``.

    First stage: every entry is compared with every needed expert. Second stage: confidences move; the n-th entry that
    is given up takes the n-th needed expert that the row does not list, both counted by prefix sums, so all entries are
    decided at once. ``hits``, ``misses`` and ``replacements`` count entries and accompany ``write.valid``.

    ``needed`` and everything that configures must hold still until the last row is written.
    """

    def __init__(self, limits: EngineLimits) -> None:
        self.limits = limits
        entry_count = range(limits.candidates_max + 1)
        super().__init__(
            {
                "valid": In(1),
                "address": In(address_bits(limits)),
                "row": In(row_layout(limits)),
                "entries_used": In(limits.candidates_max),
                "needed": In(experts_layout(limits)),
                "needed_used": In(limits.top_k_max),
                "replacement": In(range(max(REPLACEMENT_CODES.values()) + 1)),
                "replacement_confidence": In(CONFIDENCE_BITS),
                "write": Out(RowWriteSignature(limits)),
                "hits": Out(entry_count),
                "misses": Out(entry_count),
                "replacements": Out(entry_count),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        entries, needed = range(self.limits.candidates_max), range(self.limits.top_k_max)

        matched = Signal()
        address = Signal.like(self.address)
        row = Signal(row_layout(self.limits))
        hit = Signal(len(entries))
        given_up = Signal(len(entries))
        unlisted = Signal(len(needed))
        matches = [
            [
                self.entries_used[entry] & self.needed_used[nth] & (self.row.entries[entry].expert == self.needed[nth])
                for nth in needed
            ]
            for entry in entries
        ]
        m.d.sync += [matched.eq(self.valid), address.eq(self.address), row.eq(self.row)]
        for entry in entries:
            is_hit = Cat(matches[entry]).any()
            spent = self.row.entries[entry].confidence == 0
            m.d.sync += [hit[entry].eq(is_hit), given_up[entry].eq(self.entries_used[entry] & ~is_hit & spent)]
        for nth in needed:
            listed = Cat(matches[entry][nth] for entry in entries).any()
            m.d.sync += unlisted[nth].eq(self.needed_used[nth] & ~listed)

        forward, backward = _ranks(unlisted), _ranks(unlisted[::-1])[::-1]
        replaced = Signal(len(entries))
        takes = []
        m.d.sync += [self.write.valid.eq(matched), self.write.address.eq(address)]
        m.d.sync += self.write.row.eq(row)
        for entry, rank in zip(entries, _ranks(given_up), strict=True):
            taken = Signal(len(needed), name=f"taken{entry}")
            for nth in needed:
                order = Mux(self.replacement == REPLACEMENT_CODES["reversed"], backward[nth], forward[nth])
                m.d.comb += taken[nth].eq(unlisted[nth] & (order == rank))
            m.d.comb += replaced[entry].eq(
                given_up[entry] & taken.any() & (self.replacement != REPLACEMENT_CODES["none"])
            )
            takes.append(taken)
            old, new = row.entries[entry], self.write.row.entries[entry]
            with m.If(replaced[entry]):
                substitute = 0
                for nth in needed:
                    substitute = substitute | Mux(taken[nth], self.needed[nth], 0)
                m.d.sync += [new.expert.eq(substitute), new.confidence.eq(self.replacement_confidence)]
            with m.Else():
                with m.If(hit[entry] & (old.confidence != CONFIDENCE_MAX)):
                    m.d.sync += new.confidence.eq(old.confidence + 1)
                with m.If(self.entries_used[entry] & ~hit[entry] & (old.confidence != 0)):
                    m.d.sync += new.confidence.eq(old.confidence - 1)
        for nth in needed:
            entries_taking = [taken[nth] & gives for taken, gives in zip(takes, replaced, strict=True)]
            always(
                m, implies(matched, at_most_one(entries_taking)), f"updater: two entries take the event's expert {nth}"
            )
        always(
            m,
            implies(matched, Cat(*(at_most_one(taken) for taken in takes)).all()),
            "updater: an entry takes two experts",
        )
        used = _count(self.entries_used)
        always(
            m, implies(self.write.valid, self.hits + self.misses == used), "updater: an entry neither hits nor misses"
        )
        m.d.sync += [
            self.hits.eq(_count(hit)),
            self.misses.eq(_count(self.entries_used & ~hit)),
            self.replacements.eq(_count(replaced)),
        ]
        return m


def _count(bits: Value) -> Value:
    """How many bits are set."""
    return sum((bits[nth] for nth in range(1, len(bits))), start=bits[0])


def _ranks(bits: Value) -> Sequence[Value]:
    """For each bit, how many before it are set."""
    return [_count(bits[:nth]) if nth else Const(0, 1) for nth in range(len(bits))]
