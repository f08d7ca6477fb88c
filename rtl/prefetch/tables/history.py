"""The history: what each layer of each running sequence chose last, in this token and before."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.st_moe.parameters import DOMAIN_BITS, EngineLimits
from rtl.checks import always, always_within
from rtl.prefetch.tables.layouts import experts_layout


class History(wiring.Component):
    """One memory is both the history table and the memory of this token, of every slot.

    Layers ascend within a token, so the entry of a layer above the event's is the previous token's (the history
    table), and that of a layer below is this token's (whose rows are to be verified). Two bits a slot and layer say
    whether an entry is of this sequence and of this token.

    In the cycle of ``read``, the entries of ``layer + lookahead`` (``target``) and ``layer − lookahead`` (``source``)
    of ``slot`` are looked up; they and ``target_in_sequence`` hold from the next cycle on. ``source_in_token`` and the
    slot's ``domain`` answer in the same cycle. In the cycle of ``write``, ``experts`` become the entry of ``layer``.
    ``start_token`` and ``start_sequence`` clear the bits of ``start_slot`` for the next cycle, and the latter sets its
    domain to ``start_domain``; of a slot that there is not they do nothing. ``forget`` clears all of it.
    """

    def __init__(self, limits: EngineLimits) -> None:
        self.limits = limits
        layer = range(limits.layers_max)
        super().__init__(
            {
                "start_token": In(1),
                "start_sequence": In(1),
                "start_slot": In(limits.slot_bits),
                "start_domain": In(DOMAIN_BITS),
                "forget": In(1),
                "slot": In(limits.slot_bits),
                "layer": In(layer),
                "lookahead": In(layer),
                "read": In(1),
                "write": In(1),
                "experts": In(experts_layout(limits)),
                "domain": Out(DOMAIN_BITS),
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
        layers, slots = self.limits.layers_max, self.limits.slots_max
        # An address: the layer above the slot, which takes no bits where there is only one.
        slot_bits = (slots - 1).bit_length()
        slot = self.slot[:slot_bits]
        m.submodules.memory = memory = Memory(shape=experts_layout(self.limits), depth=layers << slot_bits, init=[])
        write, target, source = memory.write_port(), memory.read_port(), memory.read_port()
        in_sequence = Array(Signal(layers, name=f"in_sequence{nth}") for nth in range(slots))
        in_token = Array(Signal(layers, name=f"in_token{nth}") for nth in range(slots))
        domains = Array(Signal(DOMAIN_BITS, name=f"domain{nth}") for nth in range(slots))
        has_source = Signal()
        known, known_now = Signal(layers), Signal(layers)

        m.d.comb += [
            known.eq(in_sequence[self.slot]),
            known_now.eq(in_token[self.slot]),
            self.domain.eq(domains[self.slot]),
            self.target_layer.eq(self.layer + self.lookahead),
            has_source.eq(self.layer >= self.lookahead),
            self.source_layer.eq(Mux(has_source, self.layer - self.lookahead, 0)),
            self.source_in_token.eq(has_source & known_now.bit_select(self.source_layer, 1)),
            target.addr.eq(Cat(slot, self.target_layer)),
            target.en.eq(self.read),
            source.addr.eq(Cat(slot, self.source_layer)),
            source.en.eq(self.read),
            self.target.eq(target.data),
            self.source.eq(source.data),
            write.addr.eq(Cat(slot, self.layer)),
            write.data.eq(self.experts),
            write.en.eq(self.write),
        ]
        with m.If(self.read):
            m.d.sync += self.target_in_sequence.eq(known.bit_select(self.target_layer, 1))
        for nth in range(slots):
            with m.If(self.write & (self.slot == nth)):
                m.d.sync += [
                    in_sequence[nth].bit_select(self.layer, 1).eq(1),
                    in_token[nth].bit_select(self.layer, 1).eq(1),
                ]
            starts = self.start_slot == nth
            with m.If(((self.start_token | self.start_sequence) & starts) | self.forget):
                m.d.sync += in_token[nth].eq(0)
            with m.If((self.start_sequence & starts) | self.forget):
                m.d.sync += [in_sequence[nth].eq(0), domains[nth].eq(Mux(self.forget, 0, self.start_domain))]
            always(
                m,
                (in_token[nth] & ~in_sequence[nth]) == 0,
                f"history: a layer of slot {nth} is of this token and not of its sequence",
            )
        always_within(m, self.layer, 0, layers - 1, "history: a layer is written that does not exist", where=self.write)
        always_within(m, self.slot, 0, slots - 1, "history: a slot is written that does not exist", where=self.write)
        return m
