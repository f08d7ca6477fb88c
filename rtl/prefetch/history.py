"""The history: what each layer chose last, in this token and before."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.st_moe.parameters import EngineLimits
from rtl.checks import always, always_within
from rtl.prefetch.layouts import experts_layout


class History(wiring.Component):
    """One memory is both the history table and the memory of this token.

    Layers ascend within a token, so the entry of a layer above the event's is the previous token's (the history
    table), and that of a layer below is this token's (whose rows are to be verified). Two bits a layer say whether an
    entry is of this sequence and of this token.

    In the cycle of ``read``, the entries of ``layer + lookahead`` (``target``) and ``layer − lookahead`` (``source``)
    are looked up; they and ``target_in_sequence`` hold from the next cycle on. ``source_in_token`` answers in the same
    cycle. In the cycle of ``write``, ``experts`` become the entry of ``layer``. ``start_token`` and ``start_sequence``
    clear the bits for the next cycle.
    """

    def __init__(self, limits: EngineLimits) -> None:
        self.limits = limits
        layer = range(limits.layers_max)
        super().__init__(
            {
                "start_token": In(1),
                "start_sequence": In(1),
                "layer": In(layer),
                "lookahead": In(layer),
                "read": In(1),
                "write": In(1),
                "experts": In(experts_layout(limits)),
                "target_layer": Out(range(2 * limits.layers_max)),
                "target_in_sequence": Out(1),
                "target": Out(experts_layout(limits)),
                "source_layer": Out(layer),
                "source_in_token": Out(1),
                "source": Out(experts_layout(limits)),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        layers = self.limits.layers_max
        m.submodules.memory = memory = Memory(shape=experts_layout(self.limits), depth=layers, init=[])
        write, target, source = memory.write_port(), memory.read_port(), memory.read_port()
        in_sequence, in_token = Signal(layers), Signal(layers)
        has_source = Signal()

        m.d.comb += [
            self.target_layer.eq(self.layer + self.lookahead),
            has_source.eq(self.layer >= self.lookahead),
            self.source_layer.eq(Mux(has_source, self.layer - self.lookahead, 0)),
            self.source_in_token.eq(has_source & in_token.bit_select(self.source_layer, 1)),
            target.addr.eq(self.target_layer),
            target.en.eq(self.read),
            source.addr.eq(self.source_layer),
            source.en.eq(self.read),
            self.target.eq(target.data),
            self.source.eq(source.data),
            write.addr.eq(self.layer),
            write.data.eq(self.experts),
            write.en.eq(self.write),
        ]
        with m.If(self.read):
            m.d.sync += self.target_in_sequence.eq(in_sequence.bit_select(self.target_layer, 1))
        with m.If(self.write):
            m.d.sync += [in_sequence.bit_select(self.layer, 1).eq(1), in_token.bit_select(self.layer, 1).eq(1)]
        with m.If(self.start_token | self.start_sequence):
            m.d.sync += in_token.eq(0)
        with m.If(self.start_sequence):
            m.d.sync += in_sequence.eq(0)
        always(m, (in_token & ~in_sequence) == 0, "history: a layer is of this token and not of its sequence")
        always_within(m, self.layer, 0, layers - 1, "history: a layer is written that does not exist", where=self.write)
        return m
