"""The learned predictor: the net and the memory of the text behind the engine's events."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from typing_extensions import override

from predictor.engine.events import EngineError, EventKind
from predictor.engine.limits import BEAT_BYTES, PrefetchEngineLimits
from rtl.bus.axi4 import Axi4Signature
from rtl.prefetch.fork import Fork
from rtl.prefetch.limits import text_limits
from rtl.prefetch.net.layouts import ItemKind, NetEventKind
from rtl.prefetch.net.net import Net
from rtl.prefetch.net.scores.layouts import HEADS, NEXT_LAYER, NEXT_USE, scored_layout
from rtl.prefetch.payloads import known_event_layout, prediction_layout, stager_shape, values_layout
from rtl.prefetch.register_file import SettingsSignature
from rtl.prefetch.stager.layouts import ValuesSignature
from rtl.prefetch.text.layouts import TextEventKind
from rtl.prefetch.text.loader import LoadError
from rtl.prefetch.text.text_memory import TextMemory

_IMAGE_ERRORS = {
    EngineError.IMAGE_CHECKSUM: (LoadError.CHECKSUM,),
    EngineError.IMAGE_READ: (LoadError.BUS,),
}
"""Which error bit says which load errors; IMAGE_SHAPE all others."""
ERRORS = (EngineError.TEXT, EngineError.IMAGE_SHAPE, EngineError.IMAGE_CHECKSUM, EngineError.IMAGE_READ)


class LearnedPredictor(wiring.Component):
    """Tokens and gates in; predictions and values out.

    The net and the text each take every event, the net when it has done with the one before. ``values`` waits until the
    stager has read the row through ``row``.

    Members:
        known, predictions, values: The streams.
        row: Where the stager reads values.
        settings: What the registers hold.
        forget: Every slot's next token starts a sequence.
        load: The image at IMAGE_BASE is loaded, while not ``busy``; ``load_done`` ends it, ``load_failed`` with it.
        stale: A register is written that what is loaded holds for; each head's image must be loaded again.
        loaded: Every head that is asked has its image.
        memory: Where texts and images lie.
        errors: TEXT and the image's, for one cycle each, by name.
        late: A gate of layer 0 was known before the text of its token.
        scored: Every score, for whoever observes.
        busy: Something is in work, or waits.
    """

    def __init__(self, limits: PrefetchEngineLimits) -> None:
        self.limits = limits
        self._texts = text_limits(limits)
        self._net = Net(
            limits.network,
            prefetched=limits.net.prefetched_max,
            value_lanes=limits.stager_lanes,
            deadline_bits=limits.deadline_bits,
        )
        self._text = TextMemory(self._texts, limits.network)
        super().__init__(
            {
                "known": In(stream.Signature(known_event_layout(limits))),
                "predictions": Out(stream.Signature(prediction_layout(limits))),
                "values": Out(stream.Signature(values_layout(limits))),
                "row": In(ValuesSignature(stager_shape(limits))),
                "settings": In(SettingsSignature(limits)),
                "forget": In(1),
                "load": In(1),
                "load_done": Out(1),
                "load_failed": Out(1),
                "stale": In(1),
                "loaded": Out(1),
                "memory": Out(Axi4Signature(8 * BEAT_BYTES, self._texts.address_bits)),
                "errors": Out(data.StructLayout({str(error.name).lower(): 1 for error in ERRORS})),
                "late": Out(1),
                "scored": Out(scored_layout(limits.network)),
                "busy": Out(1),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        net, text = self._net, self._text
        m.submodules.net = net
        m.submodules.text = text
        m.submodules.fork = fork = Fork(known_event_layout(self.limits), 2)
        connect(m, flipped(self.known), fork.input)
        connect(m, text.memory, flipped(self.memory))
        self._give_events(m, fork)
        self._give_items(m)
        self._answer(m)
        self._configure(m)
        # A load is of one head; of which, its words say.
        head, stale = Signal(range(HEADS)), Signal(HEADS)
        with m.If(text.load.valid):
            m.d.sync += head.eq(text.load.head)
        with m.If(self.stale):
            m.d.sync += stale.eq((1 << HEADS) - 1)
        with m.Elif(text.load_done & ~self.load_failed):
            m.d.sync += stale.bit_select(head, 1).eq(0)
        has = text.loaded & ~stale
        m.d.comb += [
            self.loaded.eq((has[NEXT_LAYER] | ~self.settings.next_layer) & (has[NEXT_USE] | ~self.settings.next_use)),
            self.scored.eq(net.scored),
            self.busy.eq(net.busy | text.busy | text.loading | self.known.valid | text.items.valid),
            self.load_done.eq(text.load_done),
            self.load_failed.eq(text.load_done & (text.load_error != LoadError.NONE)),
            self.late.eq(text.late),
        ]
        by_code = {
            str(error.name).lower(): Cat(text.load_error == code for code in of).any()
            for error, of in _IMAGE_ERRORS.items()
        }
        others = ~Cat(*by_code.values()).any()
        m.d.comb += [
            self.errors.text.eq(text.read_failed | text.write_failed),
            *(self.errors[name].eq(self.load_failed & says) for name, says in by_code.items()),
            self.errors.image_shape.eq(self.load_failed & others),
        ]
        return m

    def _give_events(self, m: Module, fork: Fork) -> None:
        """Each event to the net and to the text, in the words of each."""
        net, text = self._net, self._text
        for output, taker in ((fork.outputs[0], net.events), (fork.outputs[1], text.events)):
            event, told = output.payload.event, taker.payload
            m.d.comb += [taker.valid.eq(output.valid & ~text.loading), output.ready.eq(taker.ready & ~text.loading)]
            names = set(told.shape().members) & set(event.shape().members) - {"kind"}
            m.d.comb += [told[name].eq(event[name]) for name in sorted(names)]
        is_gate = fork.outputs[0].payload.event.kind == EventKind.GATE.value
        m.d.comb += [
            net.events.payload.kind.eq(is_gate),
            net.events.payload.step.eq(fork.outputs[0].payload.step),
            text.events.payload.kind.eq(is_gate),
        ]
        assert (NetEventKind.GATE.value, TextEventKind.GATE.value) == (1, 1)

    def _give_items(self, m: Module) -> None:
        """What the text has read to the net."""
        net, text = self._net.items, self._text.items
        m.d.comb += [net.valid.eq(text.valid), text.ready.eq(net.ready)]
        m.d.comb += [net.payload[name].eq(text.payload[name]) for name in net.payload.shape().members if name != "kind"]
        m.d.comb += net.payload.kind.eq(text.payload.kind)
        assert [kind.name for kind in ItemKind] == ["IDENTITY", "RECORD", "END"]

    def _answer(self, m: Module) -> None:
        """Predictions and values to the stager."""
        net, row, told = self._net, self.row, self.predictions.payload
        m.d.comb += [
            self.predictions.valid.eq(net.prefetch.valid),
            net.prefetch.ready.eq(self.predictions.ready),
            told.layer.eq(net.prefetch.payload.layer),
            told.count.eq(net.prefetch.payload.count),
            told.deadline.eq(net.deadline),
            self.values.valid.eq(net.values.valid),
            net.values.ready.eq(self.values.ready),
            self.values.payload.layer.eq(net.values.payload.layer),
            net.read_values.eq(row.read),
            net.values_group.eq(row.word),
        ]
        for nth in range(self.limits.net.prefetched_max):
            m.d.comb += [
                told.experts[nth].eq(net.prefetch.payload.experts[nth]),
                told.chances[nth].eq(net.prefetch.payload.chances[nth]),
            ]
        lanes = self.limits.stager_lanes
        bits = len(net.values_row) // lanes
        m.d.comb += [row.values[lane].eq(net.values_row.word_select(lane, bits)) for lane in range(lanes)]

    def _configure(self, m: Module) -> None:
        """What the registers hold, in the words of each part."""
        net, text, settings = self._net, self._text, self.settings
        own = text.settings
        m.d.comb += [
            net.next_layer.eq(settings.next_layer),
            net.next_use.eq(settings.next_use),
            net.by_routing.eq(settings.text_by_routing & (settings.text_tables != 0)),
            net.wanted.eq(settings.prefetched),
            net.threshold.eq(settings.threshold),
            net.load.eq(text.load),
            text.forget.eq(self.forget),
            text.load_start.eq(self.load),
            text.load_address.eq(settings.image_base),
        ]
        m.d.comb += [
            text.shape[name].eq(getattr(settings, name)) for name in ("layers", "experts", "top_k", "distance")
        ]
        for name in own.shape().members:
            if name in ("layers", "top_k"):
                m.d.comb += own[name].eq(getattr(settings, name))
            elif name == "lengths":
                for nth in range(self._texts.tables_max):
                    m.d.comb += own.lengths[nth].eq(getattr(settings, f"text_length{nth}"))
            else:
                signal = name if name.startswith("text_") else f"text_{name}"
                m.d.comb += own[name].eq(getattr(settings, signal))
