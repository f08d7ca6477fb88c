"""What becomes of accumulators that are read back: y of every row, and h of every pair of gate and up rows."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out

from pim_model.numerics.activation import Activation
from pim_model.numerics.expert import LIMIT
from pim_model.numerics.floats import bf16_from_float, float_bits
from pim_model.unit.parameters import OCTET
from pim_model.unit.program import ExpertKind, WeightFormat
from rtl.checks import always, always_within, implies
from rtl.pim.arithmetic.adder import Fp32Adder
from rtl.pim.arithmetic.conversions import Int32ToFp32, bf16_to_fp32, fp32_to_bf16, scaled
from rtl.pim.arithmetic.formats import BF16, FP32, GREATEST, is_nan
from rtl.pim.arithmetic.multiplier import Fp32Multiplier
from rtl.pim.base_die.activation import FUNCTIONS, ActivationUnit
from rtl.pim.block.layouts import COLUMN_BITS
from rtl.pipeline import delayed, stages

PAIRS = OCTET // 2
"""Clocks that a readback takes."""

POWER_BITS = 9
"""Of the exponent of a token's INT8 codes, signed."""

_LIMIT = int(bf16_from_float(LIMIT))
_ONE = int(float_bits(1))


class Contents(enum.Enum, shape=2):  # type: ignore[call-arg]
    """What a readback brings."""

    ACCUMULATORS = 0
    SCALES = 1
    BIASES = 2


def readback_layout(tag_bits: int) -> data.StructLayout:
    """A readback as it arrives from a block.

    Members:
        valid: Whether one does.
        contents: Accumulators, row scales, or biases; the latter two count for the accumulators that come after.
        data: 8 × 32 bits, the first row's lowest.
        weight_format: Of the accumulators' weights: INT8 ones are integers and have row scales.
        bias: Whether biases are added.
        power: Exponent of the token's INT8 codes.
        kind: SwiGLU or gpt-oss of gate and up rows, which become h; none of rows whose y are wanted.
        valid_rows: How many of the eight are rows of the matrix.
        tag: Comes out with every pair.
    """
    return data.StructLayout(
        {
            "valid": 1,
            "contents": Contents,
            "data": COLUMN_BITS,
            "weight_format": WeightFormat,
            "bias": 1,
            "power": signed(POWER_BITS),
            "kind": ExpertKind,
            "valid_rows": range(OCTET + 1),
            "tag": tag_bits,
        }
    )


def output_layout(tag_bits: int) -> data.StructLayout:
    """y of two neighbouring rows.

    Members: ``valid``; ``both``: the second is a row, too; ``even``, ``odd``: FP32; ``pair``: which of the readback's
    four; ``tag``.
    """
    return data.StructLayout({"valid": 1, "both": 1, "even": FP32, "odd": FP32, "pair": range(PAIRS), "tag": tag_bits})


def hidden_layout(tag_bits: int) -> data.StructLayout:
    """h of a gate row and the up row after it.

    Members: ``valid``; ``value``; ``pair``: which of the readback's four; ``tag``.
    """
    return data.StructLayout({"valid": 1, "value": BF16, "pair": range(PAIRS), "tag": tag_bits})


class Epilogue(wiring.Component):
    """Scales, bias, activation: two rows a clock.

    ::

        readback ──▶ held ──▶ FP32 ──▶ · scale ──▶ · 2^e ──▶ + bias ──▶ y ──▶ outputs
                                                                        │
              hidden ◀── BF16 ◀── · ◀────────── A ◀── BF16, clamp ◀─────┘
                                  └── u or u + 1 ◀────────┘

    Another readback may arrive four clocks after one, no sooner. Its pairs come out in the ``OUTPUT_LATENCY``-th clock
    after it and the three clocks after that, or as h from the ``HIDDEN_LATENCY``-th on. Pairs beyond ``valid_rows``
    do not come out.

    Members:
        readback: What arrives in this clock.
        outputs: y of rows whose kind is none.
        hidden: h of gate and up rows.
        nonfinite: A y or an h in this clock is infinite or NaN.
    """

    # From a pair's turn to y, and from there to h.
    _Y_LATENCY = Int32ToFp32.LATENCY + Fp32Multiplier.LATENCY + 1 + Fp32Adder.LATENCY + 1
    _H_LATENCY = 1 + ActivationUnit.LATENCY + Fp32Multiplier.LATENCY + 1
    OUTPUT_LATENCY = 1 + _Y_LATENCY
    HIDDEN_LATENCY = OUTPUT_LATENCY + _H_LATENCY

    def __init__(self, tag_bits: int) -> None:
        self._tag_bits = tag_bits
        super().__init__(
            {
                "readback": In(readback_layout(tag_bits)),
                "outputs": Out(output_layout(tag_bits)),
                "hidden": Out(hidden_layout(tag_bits)),
                "nonfinite": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Pair by pair, then two lanes for y and one for h."""
        m = Module()
        pair, control = self._pairs(m)
        controls = stages(m, "control", control, self._Y_LATENCY + self._H_LATENCY, reset_less=False)
        even, odd = (
            self._row(m, name, controls, *(word.word_select(number, 32) for word in pair))
            for number, name in enumerate(("even", "odd"))
        )
        of_y, of_h = controls[self._Y_LATENCY], controls[-1]
        value = self._gated(m, controls[self._Y_LATENCY :], even, odd)
        m.d.comb += [
            self.outputs.valid.eq(of_y.valid & (of_y.kind == ExpertKind.NONE)),
            self.outputs.both.eq(of_y.both),
            self.outputs.even.eq(even),
            self.outputs.odd.eq(odd),
            self.outputs.pair.eq(of_y.pair),
            self.outputs.tag.eq(of_y.tag),
            self.hidden.valid.eq(of_h.valid & (of_h.kind != ExpertKind.NONE)),
            self.hidden.value.eq(value),
            self.hidden.pair.eq(of_h.pair),
            self.hidden.tag.eq(of_h.tag),
            self.nonfinite.eq(
                (of_y.valid & ((even.exponent == GREATEST) | (of_y.both & (odd.exponent == GREATEST))))
                | (self.hidden.valid & (value.exponent == GREATEST))
            ),
        ]
        return m

    def _pairs(self, m: Module) -> tuple[tuple[Value, Value, Value], data.View]:
        """Accumulators, scales and biases of a pair, and what else is to be known of it, in the clock of its turn."""
        arrives = self.readback.valid
        held = Signal(self.readback.shape(), name="held")
        scales, biases = Signal(COLUMN_BITS, reset_less=True), Signal(COLUMN_BITS, reset_less=True)
        pair = Signal(range(PAIRS))
        with m.If(held.valid):
            m.d.sync += pair.eq(pair + 1)
            with m.If(pair == PAIRS - 1):
                m.d.sync += held.valid.eq(0)
        with m.If(arrives), m.Switch(self.readback.contents):
            with m.Case(Contents.ACCUMULATORS):
                m.d.sync += held.eq(self.readback)
            with m.Case(Contents.SCALES):
                m.d.sync += scales.eq(self.readback.data)
            with m.Case(Contents.BIASES):
                m.d.sync += biases.eq(self.readback.data)
        self._check(m, held, pair)

        control = Signal(self._control_layout())
        m.d.comb += [
            control.valid.eq(held.valid & (2 * pair < held.valid_rows)),
            control.both.eq(2 * pair + 1 < held.valid_rows),
            control.integer.eq(held.weight_format == WeightFormat.INT8),
            control.bias.eq(held.bias),
            control.power.eq(held.power),
            control.kind.eq(held.kind),
            control.pair.eq(pair),
            control.tag.eq(held.tag),
        ]
        accumulators, scale, bias = (word.word_select(pair, 64) for word in (held.data, scales, biases))
        return (accumulators, scale, bias), control

    def _control_layout(self) -> data.StructLayout:
        """What goes with a pair."""
        return data.StructLayout(
            {
                "valid": 1,
                "both": 1,
                "integer": 1,
                "bias": 1,
                "power": signed(POWER_BITS),
                "kind": ExpertKind,
                "pair": range(PAIRS),
                "tag": self._tag_bits,
            }
        )

    def _row(
        self, m: Module, name: str, controls: list[data.View], pattern: Value, scale: Value, bias: Value
    ) -> data.View:
        """y of one row; ``controls`` are those of the pair in this clock, one clock ago, and so on."""
        accumulator, row_scale, row_bias = (Signal(FP32, name=f"{name}_{what}") for what in ("sum", "scale", "bias"))
        m.d.comb += [accumulator.eq(pattern), row_scale.eq(scale), row_bias.eq(bias)]

        m.submodules[f"{name}_to_fp32"] = to_fp32 = Int32ToFp32()
        m.submodules[f"{name}_times_scale"] = times_scale = Fp32Multiplier()
        clock = Int32ToFp32.LATENCY
        m.d.comb += [
            to_fp32.integer.eq(pattern.as_signed()),
            times_scale.a.eq(to_fp32.result),
            times_scale.b.eq(delayed(m, f"{name}_scale", row_scale, clock)),
        ]
        clock += Fp32Multiplier.LATENCY
        unscaled = delayed(m, f"{name}_sum", accumulator, clock)
        value = Signal(FP32, name=f"{name}_scaled", reset_less=True)
        control = controls[clock]
        m.d.sync += value.eq(Mux(control.integer, scaled(times_scale.result, control.power), unscaled.as_value()))
        clock += 1

        m.submodules[f"{name}_plus_bias"] = plus_bias = Fp32Adder()
        m.d.comb += [plus_bias.a.eq(value), plus_bias.b.eq(delayed(m, f"{name}_bias", row_bias, clock))]
        clock += Fp32Adder.LATENCY
        # −0 + 0 is +0: without a bias nothing is added.
        without_bias = delayed(m, f"{name}_scaled", value, Fp32Adder.LATENCY)
        y = Signal(FP32, name=f"{name}_y", reset_less=True)
        m.d.sync += y.eq(Mux(controls[clock].bias, plus_bias.result.as_value(), without_bias.as_value()))
        return y

    def _gated(self, m: Module, controls: list[data.View], even: data.View, odd: data.View) -> data.View:
        """h of the pair whose y and control are given."""
        gate, up = Signal(BF16), Signal(BF16)
        argument, factor = Signal(BF16, reset_less=True), Signal(FP32, reset_less=True)
        gpt_oss = controls[0].kind == ExpertKind.GPT_OSS
        m.d.comb += [gate.eq(fp32_to_bf16(even)), up.eq(fp32_to_bf16(odd))]
        m.d.sync += [
            argument.eq(Mux(gpt_oss & ~gate.sign, _at_most_limit(gate), gate.as_value())),
            factor.eq(bf16_to_fp32(Mux(gpt_oss, _at_most_limit(up), up.as_value()))),
        ]
        m.submodules.activation = activation = ActivationUnit()
        m.submodules.up_plus_one = up_plus_one = Fp32Adder()
        m.submodules.product = product = Fp32Multiplier()
        wait = ActivationUnit.LATENCY
        plus_one = delayed(m, "up_plus_one", up_plus_one.result, wait - Fp32Adder.LATENCY)
        as_it_is = delayed(m, "up", factor, wait)
        value = Signal(BF16, reset_less=True)
        m.d.comb += [
            activation.g.eq(argument),
            activation.function.eq(
                Mux(
                    controls[1].kind == ExpertKind.GPT_OSS,
                    FUNCTIONS.index(Activation.GPT_OSS),
                    FUNCTIONS.index(Activation.SWIGLU),
                )
            ),
            up_plus_one.a.eq(factor),
            up_plus_one.b.eq(_ONE),
            product.a.eq(activation.result),
            product.b.eq(Mux(controls[1 + wait].kind == ExpertKind.GPT_OSS, plus_one.as_value(), as_it_is.as_value())),
        ]
        m.d.sync += value.eq(fp32_to_bf16(product.result))
        return value

    def _check(self, m: Module, held: data.View, pair: Signal) -> None:
        """Check that a readback comes when the last one is done with, and that it is one that there can be."""
        given = self.readback
        always(
            m,
            implies(given.valid & held.valid, pair == PAIRS - 1),
            "epilogue: a readback comes within four clocks of the one before",
        )
        contents = given.contents.as_value()
        always_within(m, contents, 0, len(Contents) - 1, "epilogue: contents given", where=given.valid)
        always_within(m, given.valid_rows, 0, OCTET, "epilogue: valid rows given", where=given.valid)
        always(
            m,
            implies(given.valid & (given.kind != ExpertKind.NONE), ~given.valid_rows[0]),
            "epilogue: a gate row without its up row",
        )


def _at_most_limit(number: data.View) -> Value:
    """The pattern of a BF16 with its magnitude limited to gpt-oss's ``LIMIT``; NaN stays."""
    magnitude = number.as_value()[:15]
    return Mux((magnitude > _LIMIT) & ~is_nan(number), Cat(Const(_LIMIT, 15), number.sign), number.as_value())
