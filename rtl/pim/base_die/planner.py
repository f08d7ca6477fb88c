"""From a descriptor to a plan: tiles, chunks and row sets of its matrices, or why it is refused."""

from amaranth.hdl import Array, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from pim_model.unit.events import Refusal
from pim_model.unit.parameters import ACCUMULATORS, LANES, MAX_ROWS, OCTET, UnitParameters
from pim_model.unit.program import ExpertKind, WeightFormat
from rtl.pim.base_die.layouts import INPUTS_BITS, plan_layout, row_bits
from rtl.pim.base_die.serial import SerialDivider, SerialMultiplier

ROWS_BITS = MAX_ROWS.bit_length()
WORD = ROWS_BITS + 1
"""Of a number of rows, rounded up."""

PRODUCT = 32
"""Of a number of columns."""

REFUSAL_BITS = 4

STEPS = 6
"""Divisions and multiplications of a matrix."""

STEP_CK = WORD + 2
"""Clocks of each."""


def planning_ck(phases: int) -> int:
    """Clocks from ``start`` to ``ready``, or to ``refused`` for want of room."""
    return 2 + phases * STEPS * STEP_CK


def descriptor_layout(parameters: UnitParameters) -> data.StructLayout:
    """What software says of a program.

    Members:
        format, kind: Codes of ``WeightFormat`` and ``ExpertKind``.
        tokens: Input vectors.
        inputs: Hidden size; of a GEMV, its inputs.
        rows: Intermediate size; of a GEMV, its rows.
        first_bias, second_bias: Whether the rows of each phase have biases.
        base_row: Row of the banks in which its first two row sets lie.
    """
    return data.StructLayout(
        {
            "format": 2,
            "kind": 2,
            "tokens": 3,
            "inputs": 16,
            "rows": 16,
            "first_bias": 1,
            "second_bias": 1,
            "base_row": row_bits(parameters),
        }
    )


class Planner(wiring.Component):
    """Does ``pim_model.unit.program``'s arithmetic, a bit a clock: ``planning_ck`` clocks.

    Members:
        start: Plan ``descriptor`` as it is in this clock.
        ready: The plan is made; for one clock.
        refused, refusal: It is not; for one clock, and why.
        plan: Holds from ``ready`` on.
    """

    def __init__(self, parameters: UnitParameters) -> None:
        self._parameters = parameters
        super().__init__(
            {
                "start": In(1),
                "descriptor": In(descriptor_layout(parameters)),
                "ready": Out(1),
                "refused": Out(1),
                "refusal": Out(REFUSAL_BITS),
                "plan": Out(plan_layout(parameters)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Check the descriptor; then, matrix by matrix, three divisions and three multiplications."""
        m = Module()
        plan = self.plan
        number, step, clock = Signal(), Signal(range(STEPS)), Signal(range(STEP_CK))
        row_sets, first_refusal = Signal(PRODUCT), Signal(REFUSAL_BITS)
        begins, takes = Signal(), Signal()
        room = plan.base_row + ((row_sets + 1) >> 1)
        m.d.comb += plan.row_sets.eq(row_sets)
        with m.FSM():
            with m.State("IDLE"), m.If(self.start):
                self._begin(m)
                m.d.sync += [number.eq(0), row_sets.eq(0), first_refusal.eq(self._first_refusal())]
                m.next = "CHECK"
            with m.State("CHECK"):
                m.d.comb += self.refusal.eq(first_refusal)
                m.d.comb += self.refused.eq(first_refusal != Refusal.NONE)
                m.next = "WORK"
                with m.If(self.refused):
                    m.next = "IDLE"
            with m.State("WORK"):
                m.d.comb += [begins.eq(clock == 0), takes.eq(clock == STEP_CK - 1)]
                m.d.sync += clock.eq(clock + 1)
                with m.If(takes):
                    m.d.sync += [clock.eq(0), step.eq(step + 1)]
                    with m.If(step == STEPS - 1):
                        m.d.sync += [step.eq(0), number.eq(1)]
                        with m.If(number == plan.two_phases):
                            m.next = "ROOM"
            with m.State("ROOM"):
                m.next = "IDLE"
                with m.If(room > self._parameters.bank_rows):
                    m.d.comb += [self.refused.eq(1), self.refusal.eq(Refusal.ROOM)]
                with m.Else():
                    m.d.comb += self.ready.eq(1)
        self._work(m, number, step, begins, takes, row_sets)
        return m

    def _first_refusal(self) -> Value:
        """What is wrong with the descriptor's fields, apart from how much room the weights take."""
        given, most = self.descriptor, self._parameters.max_inputs
        is_expert = given.kind != ExpertKind.NONE
        most_tokens = Array(Const(WeightFormat(code).most_tokens if code in _FORMATS else 0, 3) for code in range(4))
        causes = (
            (Refusal.FORMAT, given.format > max(WeightFormat)),
            (Refusal.KIND, given.kind > max(ExpertKind)),
            (Refusal.TOKENS, (given.tokens == 0) | (given.tokens > most_tokens[given.format])),
            (Refusal.INPUTS, (given.inputs == 0) | (given.inputs > most)),
            (Refusal.ROWS, (given.rows == 0) | (is_expert & (given.rows > most))),
        )
        refusal: Value = Const(Refusal.NONE, REFUSAL_BITS)
        for code, holds in reversed(causes):
            refusal = Mux(holds, int(code), refusal)
        return refusal

    def _begin(self, m: Module) -> None:
        """What the plan takes from the descriptor as it is."""
        given, plan = self.descriptor, self.plan
        is_expert = given.kind != ExpertKind.NONE
        log2_slots = Mux(given.tokens > 2, 2, Mux(given.tokens > 1, 1, 0))
        m.d.sync += [
            plan.format.eq(given.format),
            plan.kind.eq(given.kind),
            plan.last_token.eq(given.tokens - 1),
            plan.log2_slots.eq(log2_slots),
            plan.base_row.eq(given.base_row),
            plan.two_phases.eq(is_expert),
        ]
        rows = (Mux(is_expert, given.rows << 1, given.rows), given.inputs)
        for phase, of_rows, inputs, bias in zip(
            (plan.phases[0], plan.phases[1]),
            rows,
            (given.inputs, given.rows),
            (given.first_bias, given.second_bias),
            strict=True,
        ):
            last = (inputs - 1)[: INPUTS_BITS - 1] >> exact_log2(LANES)
            m.d.sync += [
                phase.rows.eq(of_rows),
                phase.inputs.eq(inputs),
                phase.bias.eq(bias),
                phase.last_chunk.eq(last | (given.format == WeightFormat.MXFP4)),
            ]

    def _work(self, m: Module, number: Signal, step: Signal, begins: Signal, takes: Signal, row_sets: Signal) -> None:
        """The steps of a matrix: operands, and where the result goes."""
        m.submodules.divider = divider = SerialDivider(WORD)
        m.submodules.multiplier = multiplier = SerialMultiplier(WORD, PRODUCT)
        plan = self.plan
        is_int8, is_mxfp4 = plan.format == WeightFormat.INT8, plan.format == WeightFormat.MXFP4
        phase = plan.phases[number]
        blocks, log2_most = self._parameters.blocks.blocks, exact_log2(ACCUMULATORS)
        rows_of_block, tile_count, of_tile = Signal(WORD), Signal(WORD), Signal(PRODUCT)
        before_last, chunks = Signal(PRODUCT), Signal(INPUTS_BITS)

        def whole(rows: Value) -> Value:
            """Rows, rounded up to whole columns, and to gate and up together."""
            return Mux(is_mxfp4, (rows + 3) & ~3, (rows + 1) & ~1)[:WORD]

        def groups(rows: Value) -> Value:
            return rows >> Mux(is_mxfp4, 2, is_int8)

        def others(rows: Value) -> Value:
            """Columns of a tile that are no MACs."""
            octets = (rows + (OCTET - 1)) >> exact_log2(OCTET)
            return Mux(is_mxfp4, chunks >> 1, 0) + Mux(is_int8, octets, 0) + Mux(phase.bias, octets, 0)

        most_less_one = ((ACCUMULATORS >> plan.log2_slots) - 1)[:log2_most]
        m.d.comb += [
            chunks.eq(phase.last_chunk + 1),
            tile_count.eq((rows_of_block + most_less_one) >> (log2_most - plan.log2_slots)[:3]),
            divider.start.eq(begins),
            multiplier.start.eq(begins),
        ]
        with m.Switch(step):
            with m.Case(0):
                m.d.comb += [divider.dividend.eq(phase.rows + (blocks - 1)), divider.divisor.eq(blocks)]
                with m.If(takes):
                    m.d.sync += rows_of_block.eq(whole(divider.quotient))
            with m.Case(1):
                m.d.comb += [divider.dividend.eq(rows_of_block + tile_count - 1), divider.divisor.eq(tile_count)]
                with m.If(takes):
                    m.d.sync += phase.tile_rows.eq(whole(divider.quotient))
            with m.Case(2):
                m.d.comb += [divider.dividend.eq(rows_of_block), divider.divisor.eq(phase.tile_rows)]
                with m.If(takes):
                    even = divider.remainder == 0
                    m.d.sync += [
                        phase.last_tile.eq(divider.quotient - even),
                        phase.last_tile_rows.eq(Mux(even, phase.tile_rows, divider.remainder)),
                    ]
            with m.Case(3):
                m.d.comb += [multiplier.a.eq(chunks), multiplier.b.eq(groups(phase.tile_rows))]
                with m.If(takes):
                    m.d.sync += of_tile.eq(multiplier.product + others(phase.tile_rows))
            with m.Case(4):
                m.d.comb += [multiplier.a.eq(of_tile), multiplier.b.eq(phase.last_tile)]
                with m.If(takes):
                    m.d.sync += before_last.eq(multiplier.product)
            with m.Case(5):
                m.d.comb += [multiplier.a.eq(chunks), multiplier.b.eq(groups(phase.last_tile_rows))]
                log2_row = exact_log2(self._parameters.device.row_bursts)
                columns = before_last + multiplier.product + others(phase.last_tile_rows)
                with m.If(takes):
                    m.d.sync += row_sets.eq(row_sets + ((columns + ((1 << log2_row) - 1)) >> log2_row))


_FORMATS = tuple(WeightFormat)
