"""Passes become slots of the adder's pipeline: a row a clock, none before the sum that it adds to is there."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.row_network.limits import NetLimits
from predictor.row_network.program import DECAYS_MAX, Begins
from predictor.row_network.sum_cycles import FINISHING_SLOTS, SETTLED_CLOCKS, WRITTEN_CLOCKS
from rtl.checks import always, always_within
from rtl.prefetch.net.layouts import ROW_BITS, SHIFT_BITS, pass_layout, row_address_bits, settings_layout
from rtl.prefetch.net.scores.layouts import HEADS, counting
from rtl.product import product


def banks(limits: NetLimits, head: int) -> int:
    """Sums that a slot has for every layer: the ring, and what is added to each decayed sum."""
    own = limits.heads[head]
    return own.previous + 1 + own.decays


def slot_layout(limits: NetLimits) -> data.StructLayout:
    """A slot of the pipeline: what is added to a word of a sum.

    Members:
        bank: of the sum, counted over the slots of the batch.
        place: of the word in a bank.
        batch_slot: the sequence's.
        row, shift: word of the memory of rows, and its left shift; adds nothing where neither ``adds`` nor ``identity``
            nor ``trail``.
        trail: the trail is added, and the sum shown: ``word``, ``last`` of them.
        first: the sum is read, or begins, or is the one of the slot before (``chains``).
        writes: the sum is written.
        finishes, starts, decay: `program.Operation`; ``first_token`` of its sequence.
    """
    heads = range(HEADS)
    words = max(limits.words(head) for head in heads)
    return data.StructLayout(
        {
            "valid": 1,
            "head": 1,
            "bank": range(max(banks(limits, head) for head in heads) * limits.slots),
            "place": counting(limits.layers * words),
            "batch_slot": counting(limits.slots),
            "row": row_address_bits(limits),
            "shift": SHIFT_BITS,
            "adds": 1,
            "identity": 1,
            "trail": 1,
            "word": counting(words),
            "last": 1,
            "first": 1,
            "begins": 1,
            "chains": 1,
            "writes": 1,
            "finishes": 1,
            "starts": 1,
            "decay": range(DECAYS_MAX),
            "first_token": 1,
        }
    )


class Issuer(wiring.Component):
    """Takes a pass in the clock of the last slot of the one before; its first slot is in the next clock.

    A pass over ``words`` words has for each as many slots as it has rows, or one; one that finishes has
    ``FINISHING_SLOTS`` at least; one that asks has one more. A word waits until ``WRITTEN_CLOCKS`` after the last slot
    of another pass over it, unless that was the very last one, whose sum is still in the adder; one that asks waits
    ``SETTLED_CLOCKS`` after one that finished.

    Whether the next slot waits, closes a word or a pass is in registers: the handshake goes through the whole net.

    After the end of its token, a head's slot has no pass for ``WRITTEN_CLOCKS``: sums that are not written yet have
    their names of the turn before.

    Members:
        slot: in this clock; its ``valid`` says whether there is one.
        identity: the row that ``slot`` adds, if it adds one.
        idle: there is no pass.
    """

    def __init__(self, limits: NetLimits) -> None:
        self.limits = limits
        super().__init__(
            {
                "passes": In(stream.Signature(pass_layout(limits))),
                "settings": In(settings_layout()).array(HEADS),
                "slot": Out(slot_layout(limits)),
                "identity": Out(ROW_BITS * limits.lanes),
                "idle": Out(1),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        limits, slot = self.limits, self.slot
        told, current = self.passes.payload, Signal(pass_layout(limits))
        there, settings = Signal(), Signal(settings_layout())
        m.d.comb += settings.eq(Mux(current.head, self.settings[1], self.settings[0]))

        # Of each head and slot of the batch: where this token's sums lie in the ring, and whether it is the first one.
        turns = [Signal(3, name=f"turn{head}_{n}") for head in range(HEADS) for n in range(limits.slots)]
        firsts = [Signal(name=f"first{head}_{n}") for head in range(HEADS) for n in range(limits.slots)]
        which = Signal(range(max(2, HEADS * limits.slots)))
        m.d.comb += which.eq(current.head * limits.slots + current.slot)
        first_token = _at(m, firsts, which, "first_token")

        # The word that is added to. Where a pass begins is known when it is taken: what follows from it in that clock
        # would make the slots late.
        word, number = Signal.like(slot.word), Signal(range(limits.top_k + FINISHING_SLOTS + 1))
        bank, place = Signal.like(slot.bank), Signal.like(slot.place)
        told_which, told_turn, turned = Signal.like(which), Signal(3), Signal(4)
        next_turn = Signal(3)  # of the pass in work; its own token alone turns the ring, at its end
        told_bank, told_settings = Signal.like(bank), Signal(settings_layout())
        m.d.comb += [
            told_settings.eq(Mux(told.head, self.settings[1], self.settings[0])),
            told_which.eq(told.head * limits.slots + told.slot),
            told_turn.eq(_at(m, turns, told_which, "told_turn")),
            turned.eq(told_turn + told.index),
            told_bank.eq(
                Mux(
                    told.fresh,
                    product(
                        Mux(told.head, limits.next_use.previous, limits.next_layer.previous) + 1 + told.index,
                        limits.slots,
                    ),
                    product(Mux(turned >= told_settings.ring, turned - told_settings.ring, turned), limits.slots),
                )
                + told.slot
            ),
        ]

        # Slots of a word.
        told_rows, told_wanted, wanted = (Signal.like(number, name=name) for name in ("rows", "told_wanted", "wanted"))
        opens, closes, last_word = Signal(), Signal(), Signal()  # of a word its first slot, its last; of a pass
        waits, closing, ends = Signal(), Signal(), Signal()
        m.d.comb += [
            told_rows.eq(Mux(told.rows, told_settings.top_k, 1)),
            told_wanted.eq(Mux(told.finishes & (told_rows < FINISHING_SLOTS), FINISHING_SLOTS, told_rows) + told.asks),
            slot.valid.eq(there & ~waits),
            closing.eq(slot.valid & closes),
            ends.eq(closing & last_word),
        ]
        with m.If(self.passes.ready):
            m.d.sync += [
                opens.eq(1),
                closes.eq(told_wanted == 1),
                last_word.eq(told.identity | (told.word + 1 == told_settings.words)),
            ]
        with m.Elif(closing):
            m.d.sync += [opens.eq(1), closes.eq(wanted == 1), last_word.eq(word + 2 == settings.words)]
        with m.Elif(slot.valid):
            m.d.sync += [opens.eq(0), closes.eq(number + 2 == wanted)]

        # Sums that are not written yet, each by its name in the program, which is another one in the next token.
        def named(one: data.View) -> Value:
            return Cat(one.head, one.slot, one.fresh, one.index, one.target)

        ages = WRITTEN_CLOCKS - 2  # beside the one that closes in this clock
        closed = [Signal(name=f"closed{age}") for age in range(ages)]
        sums = [Signal(len(named(told)), name=f"sum{age}") for age in range(ages)]
        words = [Signal.like(word, name=f"word{age}") for age in range(ages)]
        latest, latest_word, kept = Signal.like(sums[0]), Signal.like(word), Signal()
        settling = Signal(range(SETTLED_CLOCKS))
        m.d.sync += [
            Cat(closed).eq(Cat(closing, closed)),
            Cat(sums).eq(Cat(named(current), sums)),
            Cat(words).eq(Cat(word, words)),
        ]
        with m.If(closing):
            m.d.sync += [latest.eq(named(current)), latest_word.eq(word), kept.eq(~current.asks & ~current.ends)]
        with m.If(closing & current.finishes):
            m.d.sync += settling.eq(SETTLED_CLOCKS - 1)
        with m.Elif(settling != 0):
            m.d.sync += settling.eq(settling - 1)

        # Whether the slot of the next clock waits: the first one of the pass that is told, of the next word, or again
        # the one of this clock.
        def unwritten(one: data.View, of_word: Value) -> Value:
            return Cat(
                is_closed & (name == named(one)) & (at == of_word)
                for is_closed, name, at in zip(closed, sums, words, strict=True)
            ).any()

        chains, told_chains = Signal(), Signal()  # a word's first slot adds to the sum of the slot before
        same = Signal()
        settles = settling > 1
        m.d.comb += [
            same.eq((named(told) == named(current)) & (told.word == word)),
            told_chains.eq(
                Mux(
                    there,
                    same & ~current.asks & ~current.ends,
                    kept & (latest == named(told)) & (latest_word == told.word),
                )
                & ~told.finishes
            ),
        ]
        with m.If(self.passes.ready):
            m.d.sync += [
                chains.eq(told_chains),
                waits.eq(
                    (((there & same) | unwritten(told, told.word)) & ~told_chains)
                    | (told.asks & (settles | (there & current.finishes)))
                ),
            ]
        with m.Elif(closing):
            m.d.sync += [
                chains.eq(0),
                waits.eq(unwritten(current, word + 1) | (current.asks & (settles | current.finishes))),
            ]
        with m.Elif(waits):
            m.d.sync += waits.eq((unwritten(current, word) & ~chains) | (current.asks & settles))

        # The row of the next slot is known in this one: the memory of rows is large, and its wires are long.
        row_base, next_base, row = (Signal.like(current.base, name=name) for name in ("row_base", "next_base", "row"))
        adds = Signal()
        ranks = [settings[f"rank_shift{rank}"] for rank in range(limits.top_k)]
        m.d.comb += [
            slot.head.eq(current.head),
            slot.bank.eq(bank),
            slot.place.eq(place),
            slot.batch_slot.eq(current.slot),
            slot.row.eq(row),
            slot.shift.eq(current.shift + Mux(current.rows, _at(m, ranks, number, "rank_shift"), 0)),
            slot.adds.eq(adds),
            slot.identity.eq(current.identity),
            slot.trail.eq(current.asks & closes),
            slot.word.eq(word),
            slot.last.eq(last_word),
            slot.first.eq(opens),
            slot.begins.eq(
                (current.begins == Begins.EVERY_TOKEN) | ((current.begins == Begins.FIRST_TOKEN) & first_token)
            ),
            slot.chains.eq(chains),
            slot.writes.eq(~current.finishes & (number + 1 + current.asks == wanted)),
            slot.finishes.eq(current.finishes & closes),
            slot.starts.eq(current.starts),
            slot.decay.eq(current.index),
            slot.first_token.eq(first_token),
            self.identity.eq(current.data),
            self.passes.ready.eq(~there | ends),
            self.idle.eq(~there),
        ]
        m.d.comb += next_base.eq(row_base + settings.experts)
        with m.If(slot.valid):
            m.d.sync += [
                number.eq(number + 1),
                row.eq(row_base + _at(m, list(current.experts), number + 1, "expert")),
                adds.eq(current.rows & (number + 1 < settings.top_k)),
            ]
            with m.If(closes):
                m.d.sync += [number.eq(0), word.eq(word + 1), place.eq(place + 1)]
                m.d.sync += [row_base.eq(next_base), row.eq(next_base + current.experts[0]), adds.eq(current.rows)]
        with m.If(ends):
            m.d.sync += there.eq(0)
            for n, (turns_to, first) in enumerate(zip(turns, firsts, strict=True)):
                with m.If(which == n):
                    with m.If(current.clears):
                        m.d.sync += first.eq(1)
                    with m.If(current.ends):
                        m.d.sync += [first.eq(0), turns_to.eq(next_turn)]
        with m.If(self.passes.ready):
            m.d.sync += [
                there.eq(self.passes.valid),
                current.eq(told),
                word.eq(told.word),
                row_base.eq(told.base),
                row.eq(told.base + told.experts[0]),
                adds.eq(told.rows),
                bank.eq(told_bank),
                next_turn.eq(Mux(told_turn + 1 == told_settings.ring, 0, told_turn + 1)),
                place.eq(
                    Mux(told.head, product(told.target, limits.words(1)), product(told.target, limits.words(0)))
                    + told.word
                ),
                wanted.eq(told_wanted),
            ]
        ended, ended_which = Signal(range(WRITTEN_CLOCKS)), Signal.like(which)
        with m.If(ends & current.ends):
            m.d.sync += [ended.eq(WRITTEN_CLOCKS - 1), ended_which.eq(which)]
        with m.Elif(ended != 0):
            m.d.sync += ended.eq(ended - 1)
        taken = self.passes.valid & self.passes.ready
        early = ((told_which == which) & there & current.ends) | ((told_which == ended_which) & (ended != 0))
        always(m, ~(taken & early), "net: a pass follows too soon upon the end of its slot's token")
        always_within(m, told_turn, 0, max(head.previous for head in limits.heads), "net: a ring turns beyond its sums")
        return m


def _at(m: Module, values: list, index: Signal, name: str) -> Signal:
    """``values[index]``; 0 where there is none."""
    found = Signal(max(len(value) for value in values), name=f"{name}_at")
    with m.Switch(index):
        for n, value in enumerate(values):
            with m.Case(n):
                m.d.comb += found.eq(value)
    return found
