"""A block's accumulators: passes' sums are scaled and added, eight rows of a token are shown at once."""

from amaranth.hdl import Array, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from pim_model.numerics.floats import NAN
from pim_model.unit.parameters import ACCUMULATORS, OCTET
from rtl.checks import always, implies
from rtl.pim.arithmetic.adder import Fp32Adder
from rtl.pim.arithmetic.conversions import scaled
from rtl.pim.arithmetic.formats import BIAS, FP32
from rtl.pim.block.dot_product import INTEGER_SUM_BITS
from rtl.pim.block.layouts import COLUMN_BITS
from rtl.pipeline import delayed, stages

BANKS = 2
LINES = BANKS * ACCUMULATORS // OCTET
"""Groups of eight accumulators that are shown together."""

SCALE_ONE, SCALE_NAN = BIAS, 255
"""The E8M0 codes of 1 and of NaN."""


PASS_DESTINATION = data.StructLayout(
    {"valid": 1, "line": range(LINES), "row": range(OCTET), "first": 1, "integer": 1, "scale": 8}
)
"""Where a pass's sum goes.

Members:
    valid: Whether there is one.
    line: Which eight accumulators.
    row: Which of them.
    first: It is the first that goes there: the accumulator's contents do not count.
    integer: The sum is an integer.
    scale: What a sum that is none is multiplied by, as E8M0: 2 to the ``scale`` − 127; 255 is NaN.
"""


class Accumulators(wiring.Component):
    """Two banks of 32 accumulators of 32 bits.

    ``LATENCY`` clocks after a sum is given, its accumulator shows it. Another sum for the same accumulator may come
    then, no sooner.

    Members:
        destination: Of the sum that is given in this clock.
        fp32, integer: The sum.
        line: Accumulators to show.
        looked_at: Whether they are needed (only a check reads this).
        shown: Eight accumulators in this clock, that of the first row lowest.
    """

    LATENCY = 1 + Fp32Adder.LATENCY  # scaled and fetched; added and stored

    def __init__(self) -> None:
        super().__init__(
            {
                "destination": In(PASS_DESTINATION),
                "fp32": In(FP32),
                "integer": In(signed(INTEGER_SUM_BITS)),
                "line": In(range(LINES)),
                "looked_at": In(1),
                "shown": Out(COLUMN_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Scale the sum and fetch the accumulator; add; store in the adder's last stage."""
        m = Module()
        given = self.destination
        memories = [Memory(shape=32, depth=LINES, init=[]) for _ in range(OCTET)]
        fetched, writes = Array(Signal(32, name=f"fetched{row}") for row in range(OCTET)), []
        for row, memory in enumerate(memories):
            m.submodules[f"row{row}"] = memory
            fetch, show, write = memory.read_port(domain="comb"), memory.read_port(domain="comb"), memory.write_port()
            m.d.comb += [
                fetch.addr.eq(given.line),
                fetched[row].eq(fetch.data),
                show.addr.eq(self.line),
                self.shown.word_select(row, 32).eq(show.data),
            ]
            writes.append(write)

        addend, augend = Signal(32, reset_less=True), Signal(32, reset_less=True)
        m.d.sync += [
            augend.eq(Mux(given.first, 0, fetched[given.row])),
            addend.eq(Mux(given.integer, self.integer, self._scaled())),
        ]
        m.submodules.adder = adder = Fp32Adder()
        m.d.comb += [adder.a.eq(augend), adder.b.eq(addend)]
        exact = augend.as_signed() + addend.as_signed()
        integer_sum = Signal(32)
        m.d.comb += integer_sum.eq(exact)
        # In the clock of FP32's ``next_result``.
        stored_integer = delayed(m, "integer_sum", integer_sum, Fp32Adder.LATENCY - 1)
        destinations = stages(m, "destination", given, self.LATENCY - 1, reset_less=False)
        stored = destinations[-1]
        for row, write in enumerate(writes):
            m.d.comb += [
                write.addr.eq(stored.line),
                write.data.eq(Mux(stored.integer, stored_integer, adder.next_result.as_value())),
                write.en.eq(stored.valid & (stored.row == row)),
            ]
        self._check(m, destinations)
        always(
            m,
            implies(destinations[1].valid & destinations[1].integer, exact == integer_sum.as_signed()),
            "accumulators: an integer sum overflows",
        )
        return m

    def _scaled(self) -> Value:
        """The FP32 sum times its scale."""
        scale = self.destination.scale
        return Mux(scale == SCALE_NAN, Const(NAN, 32), scaled(self.fp32, scale - BIAS))

    def _check(self, m: Module, destinations: list[data.View]) -> None:
        """Check that none meets an accumulator, of a sum or a reader, that a sum has yet to reach."""
        given = self.destination
        for destination in destinations[1:]:
            same = (destination.line == given.line) & (destination.row == given.row)
            always(
                m,
                implies(given.valid & destination.valid, ~same),
                "accumulators: a sum comes before the last one is in its accumulator",
            )
        for destination in destinations:
            always(
                m,
                implies(self.looked_at & destination.valid, destination.line != self.line),
                "accumulators: read while a sum is on its way to them",
            )
