"""The net: events in, answers of both heads out."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import enum, stream, wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.row_network.integers import CHANCE_BINS
from predictor.row_network.limits import NetLimits
from rtl.checks import always, always_stable, implies
from rtl.prefetch.net.choices import LastChoices
from rtl.prefetch.net.layouts import (
    ItemKind,
    NetEventKind,
    SumsKind,
    item_layout,
    net_event_layout,
)
from rtl.prefetch.net.loaded import LoadedHead
from rtl.prefetch.net.scores import layouts
from rtl.prefetch.net.scores.layouts import HEADS, NEXT_LAYER, NEXT_USE, AdaptKind
from rtl.prefetch.net.scores.scores import ScoresUnit
from rtl.prefetch.net.sums.sums import Sums


class _State(enum.Enum, shape=4):  # type: ignore[call-arg]
    IDLE = 0
    ASK_NEXT_LAYER = 1
    REST_NEXT_LAYER = 2
    ASK_NEXT_USE = 3
    REST_NEXT_USE = 4
    CLEAR_NEXT_LAYER = 5
    CLEAR_NEXT_USE = 6
    TEXT = 7
    """Items of the text are added, each to both heads."""
    TEXT_NEXT_USE = 8
    """The item is added to the sums of next use."""
    SHOW = 9
    """A target of the token's is asked for."""


class Net(wiring.Component):
    """Works on one event at a time, and takes the next when everything of it is done and its answers are taken.

    A GATE: what next-layer asks for, the rest of its sums, what next-use asks for, the rest of its sums; beside them
    the scores, and then the adaptation. A TOKEN: what the text shows, then next-layer's targets 0 … distance − 1, each
    when the answer before was taken. `predictor.row_network.cycles` says when.

    Args:
        limits: of the net.
        prefetched, value_lanes: as of `ScoresUnit`.
        deadline_bits: of a deadline.

    Members:
        events: TOKENs and GATEs.
        items: what the memory of the text read for an event, in the order of the events, with an END for each TOKEN,
            and for each GATE of layer 0 where ``by_routing``.
        load: words of the memories, while not ``busy``.
        next_layer, next_use, by_routing, wanted, threshold: what registers say; they hold still while ``busy``.
        prefetch, values, read_values, values_group, values_row: the answers, as of `ScoresUnit`; with ``deadline``.
        scored: every score.
        late: in this clock a GATE waits for the text.
        busy: an event is in work, or its answers.
    """

    def __init__(
        self, limits: NetLimits, *, prefetched: int = 8, value_lanes: int = 16, deadline_bits: int = 32
    ) -> None:
        self.limits, self._deadline_bits = limits, deadline_bits
        self._scores = ScoresUnit(limits, prefetched=prefetched, value_lanes=value_lanes)
        self._sums = Sums(limits)
        scores = self._scores.signature.members
        same = ("wanted", "threshold", "load", "values", "read_values", "values_group", "values_row", "scored")
        prefetch = layouts.prefetch_layout(limits, prefetched)
        super().__init__(
            {
                "events": In(stream.Signature(net_event_layout(limits, deadline_bits))),
                "items": In(stream.Signature(item_layout(limits))),
                "next_layer": In(1),
                "next_use": In(1),
                "by_routing": In(1),
                "prefetch": Out(stream.Signature(prefetch)),
                "deadline": Out(deadline_bits),
                "late": Out(1),
                "busy": Out(1),
                **{name: scores[name] for name in same},
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        limits, sums, scores = self.limits, self._sums, self._scores
        m.submodules.sums, m.submodules.scores = sums, scores
        m.submodules.choices = choices = LastChoices(limits)
        heads = [LoadedHead(limits, head) for head in range(HEADS)]
        m.submodules.next_layer, m.submodules.next_use = heads
        settings = [head.settings for head in heads]
        for head, loaded in enumerate(heads):
            m.d.comb += [loaded.load.eq(self.load), sums.settings[head].eq(loaded.settings)]
        m.d.comb += [
            sums.load.eq(self.load),
            scores.load.eq(self.load),
            scores.wanted.eq(self.wanted),
            scores.threshold.eq(self.threshold),
            scores.experts.eq(Mux(self.next_layer, settings[NEXT_LAYER].experts, settings[NEXT_USE].experts)),
            scores.sums_valid.eq(sums.now.valid),
            scores.sums.eq(sums.now.sums),
            scores.read_values.eq(self.read_values),
            scores.values_group.eq(self.values_group),
            self.values_row.eq(scores.values_row),
            self.scored.eq(scores.scored),
        ]
        wiring.connect(m, wiring.flipped(self.prefetch), scores.prefetch)
        wiring.connect(m, wiring.flipped(self.values), scores.values)

        state, event = Signal(_State), Signal(net_event_layout(limits, self._deadline_bits))
        told = self.events.payload
        target, asks, told_asks = Signal(range(2 * limits.layers)), Signal(), Signal()
        shown = Signal.like(event.layer)  # of a TOKEN: the target that is asked for next
        ends_text = Signal()
        idle = ~(sums.busy | scores.busy | scores.prefetch.valid | scores.values.valid | scores.adapt.valid)
        # Whether an event is accepted is known late: what it needs is looked up while it might be.
        accepts, looks_up = Signal(), Signal()
        m.d.comb += [
            self.events.ready.eq((state == _State.IDLE) & idle),
            accepts.eq(self.events.valid & self.events.ready),
            self.busy.eq((state != _State.IDLE) | ~idle),
            target.eq(event.layer + settings[NEXT_LAYER].distance),
            looks_up.eq((state == _State.IDLE) & self.events.valid),
            choices.looks.eq(looks_up),
            choices.slot.eq(told.slot),
            choices.layer.eq(told.layer),
            choices.known.eq(told.known),
            choices.experts.eq(told.experts),
            choices.gate.eq(accepts & (told.kind == NetEventKind.GATE)),
            choices.clear.eq(accepts & (told.kind == NetEventKind.TOKEN) & told.starts_sequence),
        ]

        # The table of layers: next-layer's of the target, then of the event's own layer, where it may adapt.
        looks, looked = Signal(), Signal()  # at the event's own layer
        shows = Signal()  # at the target that is asked for next
        told_target = Signal.like(target)
        m.d.comb += [
            told_target.eq(told.layer + settings[NEXT_LAYER].distance),
            told_asks.eq(told_target < settings[NEXT_LAYER].layers),
        ]
        m.d.comb += [heads[NEXT_USE].layer.eq(told.layer), heads[NEXT_USE].read.eq(looks_up)]
        with m.Switch(state):
            with m.Case(_State.IDLE):
                m.d.comb += heads[NEXT_LAYER].layer.eq(Mux(told.kind == NetEventKind.TOKEN, 0, told_target))
            with m.Case(_State.SHOW):
                m.d.comb += heads[NEXT_LAYER].layer.eq(shown)
            with m.Default():
                m.d.comb += heads[NEXT_LAYER].layer.eq(event.layer)
        with m.If(looks_up):
            m.d.comb += heads[NEXT_LAYER].read.eq((told.kind == NetEventKind.TOKEN) | told_asks)
        with m.If(looks | shows):
            m.d.comb += heads[NEXT_LAYER].read.eq(1)
        m.d.sync += [looks.eq(0), shows.eq(0), looked.eq(looks)]

        # What the sums and the scores are told.
        command, score = sums.commands.payload, scores.commands.payload
        chosen = [(heads[head].found, settings[head]) for head in range(HEADS)]
        asking, both = Signal(), Signal()  # a sum is asked for in the same clock as its score
        wanted = Signal()  # the adaptation is to be told
        score_head, score_target = Signal(), Signal.like(score.target)
        sums_told = sums.commands.valid & sums.commands.ready
        item = self.items.payload
        texts = Signal()
        m.d.comb += [
            command.slot.eq(event.slot),
            command.layer.eq(event.layer),
            command.experts.eq(choices.last),
            command.recorded.eq(event.known),
            command.held.eq(choices.held),
            asking.eq(
                ((state == _State.ASK_NEXT_LAYER) & self.next_layer & asks)
                | ((state == _State.ASK_NEXT_USE) & self.next_use)
                # Where a sequence began, the adapted biases are forgotten first.
                | ((state == _State.SHOW) & ~wanted)
            ),
            scores.commands.valid.eq(asking & sums.commands.ready),
            both.eq(scores.commands.valid & scores.commands.ready),
            score.slot.eq(event.slot),
            score_target.eq(Mux(state == _State.SHOW, shown, Mux(state == _State.ASK_NEXT_USE, event.layer, target))),
            score.target.eq(score_target),
            score_head.eq(Mux(state == _State.ASK_NEXT_USE, NEXT_USE, NEXT_LAYER)),
            score.head.eq(score_head),
            score.first.eq(event.first),
            score.last.eq(event.last),
        ]
        for head, (found, loaded) in enumerate(chosen):
            with m.If(score_head == head):
                m.d.comb += [
                    score.passes.eq(loaded.words),
                    score.questions.eq(loaded.questions),
                    score.hidden_shift.eq(found.hidden_shift),
                    score.score_shift.eq(found.score_shift),
                    score.adaptation.eq(found.adaptation),
                    score.bias.eq(found.bias),
                    score.output.eq(found.output),
                    score.answers.eq(found.answers),
                    score.chances.eq(found.chances >> (CHANCE_BINS - 1).bit_length()),
                ]
        with m.If(asking & scores.commands.ready & (score_head == NEXT_LAYER)):
            m.d.sync += self.deadline.eq(event.step + score_target)

        with m.Switch(state):
            with m.Case(_State.IDLE), m.If(accepts):
                m.d.sync += [event.eq(told), asks.eq(told_asks), shown.eq(0)]
                with m.If(told.kind == NetEventKind.TOKEN):
                    m.d.sync += state.eq(Mux(told.starts_sequence, _State.CLEAR_NEXT_LAYER, _State.TEXT))
                with m.Elif(self.by_routing & (told.layer == 0)):
                    m.d.sync += state.eq(_State.TEXT)
                with m.Else():
                    m.d.sync += state.eq(_State.ASK_NEXT_LAYER)
            with m.Case(_State.ASK_NEXT_LAYER):
                m.d.comb += [command.kind.eq(SumsKind.ASK), sums.commands.valid.eq(both)]
                with m.If(~self.next_layer):
                    m.d.sync += state.eq(_State.ASK_NEXT_USE)
                with m.Elif(both | ~asks):
                    m.d.sync += [looks.eq(1), state.eq(_State.REST_NEXT_LAYER)]
            with m.Case(_State.REST_NEXT_LAYER):
                m.d.comb += [command.kind.eq(SumsKind.REST), sums.commands.valid.eq(1)]
                with m.If(sums_told):
                    m.d.sync += state.eq(Mux(self.next_use, _State.ASK_NEXT_USE, _State.IDLE))
            with m.Case(_State.ASK_NEXT_USE):
                m.d.comb += [
                    command.kind.eq(SumsKind.ASK),
                    command.head.eq(NEXT_USE),
                    sums.commands.valid.eq(both),
                ]
                with m.If(~self.next_use):
                    m.d.sync += state.eq(_State.IDLE)
                with m.Elif(both):
                    m.d.sync += state.eq(_State.REST_NEXT_USE)
            with m.Case(_State.REST_NEXT_USE):
                m.d.comb += [
                    command.kind.eq(SumsKind.REST),
                    command.head.eq(NEXT_USE),
                    sums.commands.valid.eq(1),
                ]
                with m.If(sums_told):
                    m.d.sync += state.eq(_State.IDLE)
            with m.Case(_State.CLEAR_NEXT_LAYER):
                m.d.comb += [command.kind.eq(SumsKind.CLEAR), sums.commands.valid.eq(self.next_layer)]
                with m.If(sums_told | ~self.next_layer):
                    m.d.sync += state.eq(_State.CLEAR_NEXT_USE)
            with m.Case(_State.CLEAR_NEXT_USE):
                m.d.comb += [
                    command.kind.eq(SumsKind.CLEAR),
                    command.head.eq(NEXT_USE),
                    sums.commands.valid.eq(self.next_use),
                ]
                with m.If(sums_told | ~self.next_use):
                    m.d.sync += state.eq(_State.TEXT)
            with m.Case(_State.TEXT):
                m.d.comb += [
                    texts.eq(1),
                    ends_text.eq(self.items.valid & (item.kind == ItemKind.END)),
                    sums.commands.valid.eq(self.items.valid & ~ends_text & self.next_layer),
                    self.late.eq((event.kind == NetEventKind.GATE) & ~self.items.valid),
                ]
                with m.If(ends_text):
                    m.d.comb += self.items.ready.eq(1)
                    with m.If(event.kind == NetEventKind.GATE):
                        m.d.sync += state.eq(_State.ASK_NEXT_LAYER)
                    with m.Else():
                        m.d.sync += state.eq(
                            Mux(
                                self.next_layer & (settings[NEXT_LAYER].distance != 0),
                                _State.SHOW,
                                _State.IDLE,
                            )
                        )
                with m.Elif(self.items.valid & (sums.commands.ready | ~self.next_layer)):
                    with m.If(self.next_use & (item.kind == ItemKind.RECORD)):
                        m.d.sync += state.eq(_State.TEXT_NEXT_USE)
                    with m.Else():
                        m.d.comb += self.items.ready.eq(1)
            with m.Case(_State.TEXT_NEXT_USE):
                m.d.comb += [
                    texts.eq(1),
                    command.head.eq(NEXT_USE),
                    sums.commands.valid.eq(1),
                    self.items.ready.eq(sums.commands.ready),
                ]
                with m.If(sums_told):
                    m.d.sync += state.eq(_State.TEXT)
            with m.Case(_State.SHOW):
                m.d.comb += [
                    command.kind.eq(SumsKind.SHOW),
                    command.layer.eq(shown),
                    sums.commands.valid.eq(both),
                ]
                with m.If(both):
                    following = shown + 1
                    m.d.sync += [shown.eq(following), shows.eq(1)]
                    with m.If(
                        (following == settings[NEXT_LAYER].distance) | (following == settings[NEXT_LAYER].layers)
                    ):
                        m.d.sync += [shows.eq(0), state.eq(_State.IDLE)]
        with m.If(texts):
            m.d.comb += [
                command.kind.eq(Mux(item.kind == ItemKind.IDENTITY, SumsKind.IDENTITY, SumsKind.RECORD)),
                command.layer.eq(item.layer),
                command.index.eq(item.index),
                command.experts.eq(item.experts),
                command.word.eq(item.word),
                command.data.eq(item.data),
            ]

        # The adaptation.
        adapt = scores.adapt.payload
        with m.If(scores.adapt.valid & scores.adapt.ready):
            m.d.sync += wanted.eq(0)
        with m.If(accepts):
            m.d.sync += wanted.eq(self.next_layer & (told.kind == NetEventKind.TOKEN) & told.starts_sequence)
        with m.If(looked):
            m.d.sync += wanted.eq(event.known & (heads[NEXT_LAYER].found.adaptation != 0))
        m.d.comb += [
            scores.adapt.valid.eq(wanted),
            adapt.slot.eq(event.slot),
            adapt.layer.eq(event.layer),
            adapt.experts.eq(event.experts),
            adapt.count.eq(settings[NEXT_LAYER].top_k),
            adapt.kind.eq(Mux(event.kind == NetEventKind.TOKEN, AdaptKind.CLEAR, AdaptKind.ADAPT)),
        ]
        always_stable(m, "items", valid=self.items.valid, ready=self.items.ready, payload=self.items.payload.as_value())
        always(m, implies(self.load.valid, ~self.busy), "net: it is loaded while it works")
        always(m, implies(accepts & self.next_use, settings[NEXT_USE].distance == 0), "net: next-use is asked ahead")
        return m
