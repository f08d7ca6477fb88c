"""The biases that the next-layer head learns in every sequence, and their walk over a layer's experts."""

from amaranth.hdl import Array, Module, Mux, Signal, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.row_network.integers import ADAPTED_LIMIT, CERTAIN
from predictor.row_network.score_cycles import ADAPT_CLOCKS
from rtl.checks import always, always_within, implies
from rtl.pipeline import stages
from rtl.prefetch.net.scores.merge import CHANCE_BITS
from rtl.prefetch.net.scores.score import ADAPTED_BITS
from rtl.ram import Ram


class Adaptation(wiring.Component):
    """``a = clip(a + 65535 · [chosen] − chance)`` for every expert of a layer: `kernels.adapt`, an expert a clock.

    A slot and layer have a *row* of biases and one of chances. A row is 0 until it is adapted once after ``forget``.
    One read port of the biases serves both the walk and the scores: while a walk is on, the scores do not read.

    Args:
        rows: of all slots and layers.
        rows_of_slot: so many in a row belong to one slot.
        experts: the most of a layer.

    Members:
        start: a walk over ``row`` begins, where ``busy`` is low; ``chosen`` has a bit for each expert.
        forget: the rows of ``slot`` become 0; not during a walk.
        experts: of a layer.
        busy: a walk is on; it ends in the ``score_cycles.adapt_interval`` −1st clock after ``start``.
        read, read_row, read_expert: the scores read a bias; ``adapted`` is it ``READ_CLOCKS`` clocks later.
        keep, keep_row, keep_expert, chance: a chance that the scores gave, which the next walk over its row subtracts.
    """

    READ_CLOCKS = 2

    def __init__(self, *, rows: int, rows_of_slot: int, experts: int) -> None:
        self._rows, self._rows_of_slot, self._experts = rows, rows_of_slot, experts
        expert_bits = (experts - 1).bit_length()
        row, expert = range(max(2, rows)), unsigned(expert_bits)
        super().__init__(
            {
                "start": In(1),
                "row": In(row),
                "chosen": In(experts),
                "forget": In(1),
                "slot": In(range(max(2, rows // rows_of_slot))),
                "experts": In(range(experts + 1)),
                "busy": Out(1),
                "read": In(1),
                "read_row": In(row),
                "read_expert": In(expert),
                "adapted": Out(signed(ADAPTED_BITS)),
                "keep": In(1),
                "keep_row": In(row),
                "keep_expert": In(expert),
                "chance": In(CHANCE_BITS),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        expert_bits = (self._experts - 1).bit_length()
        depth = self._rows << expert_bits
        # No chance is kept during a walk, and a walk writes the bias of an expert behind the one that it reads.
        m.submodules.biases = biases = Ram(ADAPTED_BITS, max(2, depth), collisions=False)
        m.submodules.chances = chances = Ram(CHANCE_BITS, max(2, depth), collisions=False)
        bias = biases.read_data.as_signed()
        begun = Array(Signal(name=f"row{n}_begun") for n in range(self._rows))

        row = Signal.like(self.row)
        is_zero = Signal()  # the row is not begun
        chosen = Signal(self._experts)  # that of the next expert lowest
        expert = Signal(expert_bits)
        walking = Signal()
        last = Signal()
        m.d.comb += last.eq(expert == (self.experts - 1)[:expert_bits])
        with m.If(walking):
            m.d.sync += [chosen.eq(chosen >> 1), expert.eq(expert + 1)]
            with m.If(last):
                m.d.sync += walking.eq(0)
        # Whoever tells the adaptation finds out late in a clock whether it is told: a slot is forgotten a clock later,
        # and whether a row is begun is seen in the first clock of its walk.
        forgets, forgotten = Signal(), Signal.like(self.slot)
        m.d.sync += [forgets.eq(self.forget), forgotten.eq(self.slot)]
        with m.If(~self.busy):  # what is told counts where it starts
            m.d.sync += [
                row.eq(self.row),
                chosen.eq(self.chosen),
                expert.eq(0),
            ]
        with m.If(self.start):
            m.d.sync += walking.eq(1)

        # Read; the difference of what was and what was said; the sum; clipped and written.
        steps = stages(m, "walking", walking, ADAPT_CLOCKS - 1, reset_less=False)
        experts = stages(m, "expert", expert, ADAPT_CLOCKS - 1, reset_less=False)
        was_chosen = stages(m, "was_chosen", chosen[0], 1, reset_less=False)[-1]
        wrong = Signal(signed(CHANCE_BITS + 1))
        before = Signal(signed(ADAPTED_BITS))
        moved = Signal(signed(ADAPTED_BITS + 1))
        m.d.sync += [
            wrong.eq(Mux(was_chosen, CERTAIN, 0) - chances.read_data),
            before.eq(Mux(is_zero, 0, bias)),
            moved.eq(before + wrong),
        ]
        m.d.sync += self.busy.eq(self.start | walking | steps[1] | steps[2])
        m.d.comb += [
            chances.read.eq(walking),
            chances.read_address.eq((row << expert_bits) | expert),
            chances.write.eq(self.keep),
            chances.write_address.eq((self.keep_row << expert_bits) | self.keep_expert),
            chances.write_data.eq(self.chance),
            biases.read.eq(self.read | walking),
            biases.read_address.eq(
                Mux(walking, (row << expert_bits) | expert, (self.read_row << expert_bits) | self.read_expert)
            ),
            biases.write.eq(steps[-1]),
            biases.write_address.eq((row << expert_bits) | experts[-1]),
            biases.write_data.eq(
                Mux(moved > ADAPTED_LIMIT, ADAPTED_LIMIT, Mux(moved < -ADAPTED_LIMIT, -ADAPTED_LIMIT, moved))
            ),
        ]
        with m.If(~steps[1]):
            m.d.sync += is_zero.eq(~begun[row])
        with m.If(steps[-1]):
            m.d.sync += begun[row].eq(1)
        with m.If(forgets):
            for n, bit in enumerate(begun):
                with m.If(forgotten == n // self._rows_of_slot):
                    m.d.sync += bit.eq(0)

        read_begun = Signal()
        m.d.sync += [read_begun.eq(begun[self.read_row]), self.adapted.eq(Mux(read_begun, bias, 0))]

        always(m, implies(self.start | self.forget, ~self.busy), "adaptation: told to begin during a walk")
        always(m, ~(self.start & self.forget), "adaptation: told two things at once")
        always(m, implies(self.read, ~self.busy), "adaptation: biases are read during a walk")
        always_within(m, self.experts, 1, self._experts, "adaptation: too many experts", where=self.start)
        always_within(m, self.row, 0, self._rows - 1, "adaptation: a row that does not exist", where=self.start)
        return m
