"""The engine without its registers: events in, notices out, and the experts that move between."""

from collections.abc import Mapping
from typing import Any

from amaranth.hdl import Cat, Const, Module, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from typing_extensions import override

from predictor.engine.counters import EngineCounter
from predictor.engine.events import EVENT_ERRORS, EngineError
from predictor.engine.limits import BEAT_BYTES, PrefetchEngineLimits
from predictor.engine.settings import Missing, Mode
from rtl.bus.axi4 import Axi4ReadSignature, Axi4Signature, Axi4WriteSignature
from rtl.prefetch.arbiter import Arbiter
from rtl.prefetch.dma.link import Link
from rtl.prefetch.front_end import FrontEnd
from rtl.prefetch.learned import ERRORS as LEARNED_ERRORS
from rtl.prefetch.learned import LearnedPredictor
from rtl.prefetch.limits import table_limits, text_limits
from rtl.prefetch.net.scores.layouts import scored_layout
from rtl.prefetch.notices import Notices
from rtl.prefetch.payloads import (
    event_layout,
    host_request_layout,
    notice_layout,
    prediction_layout,
    stager_shape,
)
from rtl.prefetch.register_file import SettingsSignature
from rtl.prefetch.setting_registers import TABLE_NAMES, table_signal
from rtl.prefetch.stager.layouts import Command, ShareWriteSignature, action_layout, command_layout, done_layout
from rtl.prefetch.stager.stager import Stager
from rtl.prefetch.table_port import TablePort
from rtl.prefetch.tables.layouts import RowWriteSignature
from rtl.prefetch.tables.memory import WindowSignature
from rtl.prefetch.tables.predictor import TablePredictor
from rtl.prefetch.tallies import STAGER_TALLIES, StagerTallies, increment_bits
from staging.transfer.limits import CHUNK_BITS

BUS_BITS = 8 * BEAT_BYTES
"""Of the memory ports."""
ERROR_BITS = len(EngineError)


_LINK_ERRORS = (EngineError.DESCRIPTOR, EngineError.READ, EngineError.LAST, EngineError.WRITE)
_LINK_NAMES = (
    "expert_bytes",
    "expert_base",
    "expert_stride",
    "staging_base",
    "staging_stride",
    "chunk_log2",
    "outstanding",
    "share",
    "silence",
)


class Observed(wiring.Signature):
    """A payload for whoever observes the engine, where ``valid``."""

    def __init__(self, layout: Any) -> None:
        super().__init__({"valid": Out(1), "payload": Out(layout)})


class ObservedSignature(wiring.Signature):
    """What the parts tell each other, for lock-step comparison."""

    def __init__(self, limits: PrefetchEngineLimits) -> None:
        shape = stager_shape(limits)
        super().__init__(
            {
                "commands": Out(Observed(command_layout(shape))),
                "actions": Out(Observed(action_layout(shape))),
                "done": Out(Observed(done_layout(shape))),
                "predictions": Out(Observed(prediction_layout(limits))),
                "errors": Out(Observed(ERROR_BITS)),
                "stops": Out(Observed(CHUNK_BITS + 1)),
                "scores": Out(scored_layout(limits.network)),
                "table_writes": Out(RowWriteSignature(table_limits(limits))),
            }
        )


def increments_layout(limits: PrefetchEngineLimits) -> data.StructLayout:
    """By how much every ``EngineCounter`` grows in a cycle."""
    bits = increment_bits(limits)
    return data.StructLayout({counter.name.lower(): bits.get(counter, 1) for counter in EngineCounter})


class EngineCore(wiring.Component):
    """See ``predictor.engine.twin``.

    Members:
        events, notices: The streams.
        far, staging: Where experts are read, and written.
        settings: What the registers hold.
        window: Single words of the table memory.
        shares: A place share of the stager's is written, before CLEAR.
        host: Commands of the host for the stager; CLEAR forgets everything else too, and comes while not ``busy``.
        text: Where texts and images lie.
        load, load_done, load_failed, stale, loaded: As of ``LearnedPredictor``.
        hold: No event is accepted.
        forget: Every slot's next token must start a sequence; while not ``busy``.
        errors: For one cycle each: bits of ``EngineError``.
        increments: By how much each counter grows.
        busy: Something is in work, waits, moves or is queued.
        observed: What the parts tell each other, for lock-step comparison.
    """

    def __init__(self, limits: PrefetchEngineLimits) -> None:
        self.limits = limits
        shape, tables = stager_shape(limits), table_limits(limits)
        address_bits = limits.link.address_bits
        super().__init__(
            {
                "events": In(stream.Signature(event_layout(limits))),
                "notices": Out(stream.Signature(notice_layout(limits))),
                "far": Out(Axi4ReadSignature(BUS_BITS, address_bits)),
                "staging": Out(Axi4WriteSignature(BUS_BITS, address_bits)),
                "settings": In(SettingsSignature(limits)),
                "window": In(WindowSignature(tables)),
                "shares": In(ShareWriteSignature(shape)),
                "host": In(stream.Signature(host_request_layout(limits))),
                "text": Out(Axi4Signature(BUS_BITS, text_limits(limits).address_bits)),
                "load": In(1),
                "load_done": Out(1),
                "load_failed": Out(1),
                "stale": In(1),
                "loaded": Out(1),
                "hold": In(1),
                "forget": In(1),
                "errors": Out(ERROR_BITS),
                "increments": Out(increments_layout(limits)),
                "busy": Out(1),
                "observed": Out(ObservedSignature(limits)),
            }
        )
        self._front_end = FrontEnd(limits)
        self._arbiter = Arbiter(limits)
        self._notices = Notices(limits)
        self._stager = Stager(shape)
        self._link = Link(limits.link, shape)
        self._table_port = TablePort(limits)
        self._tables = TablePredictor(tables)
        self._learned = LearnedPredictor(limits) if limits.learned else None
        self._tallies = StagerTallies(limits)

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.front_end = self._front_end
        m.submodules.arbiter = self._arbiter
        m.submodules.notices = self._notices
        m.submodules.stager = self._stager
        m.submodules.link = self._link
        m.submodules.table_port = self._table_port
        m.submodules.tables = self._tables
        if self._learned is not None:
            m.submodules.learned = self._learned
        m.submodules.tallies = self._tallies
        self._connect_events(m)
        self._connect_stager(m)
        self._connect_link(m)
        self._connect_predictors(m)
        self._report(m)
        return m

    def _connect_events(self, m: Module) -> None:
        front_end, settings = self._front_end, self.settings
        connect(m, flipped(self.events), front_end.events)
        m.d.comb += [
            *(
                getattr(front_end, name).eq(getattr(settings, name))
                for name in ("layers", "experts", "top_k", "domains")
            ),
            front_end.rows.eq(settings.identity_rows),
            front_end.predicts.eq(settings.mode != Mode.OFF),
            front_end.forget.eq(self.forget),
            front_end.hold.eq(self.hold | self._tallies.clearing | self._clears),
        ]

    @property
    def _taken(self) -> Value:
        """Whether the stager takes a command."""
        return self._stager.commands.valid & self._stager.commands.ready

    @property
    def _clears(self) -> Value:
        """Whether everything is forgotten from this cycle on."""
        return self._taken & (self._stager.commands.payload.kind == Command.CLEAR)

    def _connect_stager(self, m: Module) -> None:
        arbiter, notices, stager, front_end = self._arbiter, self._notices, self._stager, self._front_end
        connect(m, front_end.urgent, arbiter.urgent)
        connect(m, flipped(self.host), arbiter.host)
        connect(m, arbiter.commands, stager.commands)
        connect(m, notices.notices, flipped(self.notices))
        connect(m, flipped(self.shares), stager.shares)
        clears = Signal()
        m.d.comb += [
            clears.eq(self._clears),
            arbiter.open.eq(notices.open & ~self._tallies.clearing),
            arbiter.elsewhere.eq(self.settings.missing == Missing.ELSEWHERE),
            arbiter.done.eq(stager.done),
            arbiter.release_count.eq(notices.demanded_count),
            arbiter.release_experts.eq(notices.demanded),
            notices.taken.eq(stager.commands.valid & stager.commands.ready),
            notices.idle.eq(stager.commands.ready),
            notices.kind.eq(stager.commands.payload.kind),
            notices.slot.eq(arbiter.slot),
            notices.layer.eq(stager.commands.payload.layer),
            notices.actions.eq(stager.actions),
            notices.clear.eq(clears),
            front_end.clear.eq(clears),
            *(stager.settings[name].eq(value) for name, value in self._stager_settings().items()),
        ]

    def _stager_settings(self) -> dict[str, Value]:
        """By the stager's names."""
        names = ("by_layer", "spare", "value_scale", "chance_scale", "price", "horizon", "by_recency", "background")
        own = {name: getattr(self.settings, f"stager_{name}") for name in (*names, "retries")}
        return {"layers": self.settings.layers, "experts": self.settings.experts, **own}

    def _connect_link(self, m: Module) -> None:
        link, stager = self._link, self._stager
        connect(m, link.far, flipped(self.far))
        connect(m, link.staging, flipped(self.staging))
        connect(m, link.requests, self._arbiter.link)
        m.d.comb += [
            *(link.settings[name].eq(getattr(self.settings, f"link_{name}")) for name in _LINK_NAMES),
            link.settings.experts.eq(self.settings.experts),
            link.told.eq(self._taken & (stager.commands.payload.kind != Command.GRANT)),
            link.clear.eq(self._clears),
            link.done.eq(stager.done),
            link.actions.eq(stager.actions),
            link.demand_waits.eq(stager.demand_waits),
            link.moving_demanded.eq(stager.moving_demanded),
            self._notices.moving.eq(link.moving),
        ]

    def _connect_predictors(self, m: Module) -> None:
        """Events go to who predicts; nobody gets any in mode OFF."""
        port, tables, arbiter = self._table_port, self._tables, self._arbiter
        known, by_tables = self._front_end.known, self.settings.mode == Mode.TABLES
        m.d.comb += [
            port.known.valid.eq(known.valid & by_tables),
            port.known.payload.eq(known.payload),
            port.predictions.ready.eq(arbiter.predictions.ready & by_tables),
            port.forget.eq(self.forget | self._clears),
            *(getattr(tables.settings, name).eq(getattr(self.settings, table_signal(name))) for name in TABLE_NAMES),
            tables.enable.eq(by_tables & ~self.forget),
        ]
        connect(m, port.events, tables.events)
        connect(m, tables.requests, port.requests)
        connect(m, flipped(self.window), tables.window)
        with m.If(by_tables):
            m.d.comb += [
                known.ready.eq(port.known.ready),
                arbiter.predictions.valid.eq(port.predictions.valid),
                arbiter.predictions.payload.eq(port.predictions.payload),
            ]
        if self._learned is None:
            # Whoever asks for a load is told that there is nothing to load into.
            m.d.sync += self.load_done.eq(self.load)
            m.d.comb += self.load_failed.eq(self.load_done)
        else:
            self._connect_learned(m, self._learned, by_tables)

    def _connect_learned(self, m: Module, learned: LearnedPredictor, by_tables: Value) -> None:
        known, arbiter = self._front_end.known, self._arbiter
        m.d.comb += [
            learned.known.valid.eq(known.valid & ~by_tables),
            learned.known.payload.eq(known.payload),
            learned.predictions.ready.eq(arbiter.predictions.ready & ~by_tables),
            *(
                getattr(learned.settings, name).eq(getattr(self.settings, name))
                for name in learned.settings.signature.members
            ),
            learned.forget.eq(self.forget | self._clears),
            learned.load.eq(self.load),
            learned.stale.eq(self.stale),
            self.load_done.eq(learned.load_done),
            self.load_failed.eq(learned.load_failed),
            self.loaded.eq(learned.loaded),
            self.observed.scores.eq(learned.scored),
        ]
        with m.If(~by_tables):
            m.d.comb += [
                known.ready.eq(learned.known.ready),
                arbiter.predictions.valid.eq(learned.predictions.valid),
                arbiter.predictions.payload.eq(learned.predictions.payload),
            ]
        connect(m, learned.values, arbiter.values)
        connect(m, self._stager.values, learned.row)
        connect(m, learned.memory, flipped(self.text))

    def _report(self, m: Module) -> None:
        """Errors, counters, and what is observed."""
        front_end, stager, link, tallies = self._front_end, self._stager, self._link, self._tallies
        arbiter, tables, told = self._arbiter, self._tables, self.observed
        taken = Signal()
        m.d.comb += [
            taken.eq(self._taken),
            tallies.command.valid.eq(taken),
            tallies.command.payload.eq(stager.commands.payload),
            tallies.actions.eq(stager.actions),
            tallies.done.eq(stager.done),
            tallies.moving_demanded.eq(stager.moving_demanded),
            tallies.busy.eq(~stager.commands.ready),
            tallies.clear.eq(self._clears),
        ]
        gave_up, useful, wasted = (self._grown(m, name) for name in ("lost", "useful", "wasted"))
        self._connect_errors(
            m,
            {
                EngineError.GAVE_UP: gave_up,
                EngineError.HOST_COMMAND: stager.done.valid & stager.done.rejected,
                **self._learned_errors(),
                **{error: link.errors[str(error.name).lower()] for error in _LINK_ERRORS},
            },
        )
        prediction_waits = arbiter.predictions.valid & ~arbiter.predictions.ready
        values_wait = arbiter.values.valid & stager.commands.ready & ~taken
        waits = self.events.valid & ~self.events.ready
        grown: dict[EngineCounter, Value] = {
            **{counter: tallies.increments[counter.name.lower()] for counter in STAGER_TALLIES},
            EngineCounter.EVENTS: front_end.accepted,
            EngineCounter.REJECTED: front_end.errors.any(),
            EngineCounter.STEPS: front_end.took.step,
            EngineCounter.TOKENS: front_end.took.token,
            EngineCounter.GATES: front_end.took.gate,
            EngineCounter.USEFUL: useful,
            EngineCounter.USELESS: wasted,
            EngineCounter.BYTES: link.written,
            EngineCounter.TEXT_LATE: Const(0, 1) if self._learned is None else self._learned.late,
            EngineCounter.STALL_CYCLES: self._notices.waits,
            EngineCounter.READ_BUSY_CYCLES: link.moved,
            EngineCounter.READ_IDLE_CYCLES: link.waited,
            EngineCounter.EVENT_WAIT_CYCLES: waits,
            EngineCounter.ANSWER_WAIT_CYCLES: prediction_waits | values_wait,
            EngineCounter.CANDIDATE_HITS: tables.increments.candidate_hits,
            EngineCounter.CANDIDATE_MISSES: tables.increments.candidate_misses,
            EngineCounter.UPDATES: tables.increments.updates,
            EngineCounter.REPLACEMENTS: tables.increments.replacements,
        }
        m.d.comb += [self.increments[counter.name.lower()].eq(value) for counter, value in grown.items()]
        m.d.comb += [
            self.busy.eq(
                front_end.busy
                | self._notices.busy
                | ~stager.commands.ready
                | ~stager.queue_empty
                | stager.moving
                | link.busy
                | self._table_port.busy
                | tables.busy
                | (Const(0, 1) if self._learned is None else self._learned.busy)
                | tallies.clearing
                | arbiter.host.valid
            ),
            told.commands.valid.eq(taken),
            told.commands.payload.eq(stager.commands.payload),
            told.actions.valid.eq(stager.actions.valid),
            told.actions.payload.eq(stager.actions),
            told.done.valid.eq(stager.done.valid),
            told.done.payload.eq(stager.done),
            told.predictions.valid.eq(arbiter.predictions.valid & arbiter.predictions.ready),
            told.predictions.payload.eq(arbiter.predictions.payload),
            told.stops.valid.eq(taken & (stager.commands.payload.kind == Command.PREEMPT)),
            told.stops.payload.eq(link.chunk),
            told.errors.valid.eq(self.errors.any()),
            told.errors.payload.eq(self.errors),
        ]
        connect(m, tables.table_writes, flipped(told.table_writes))

    def _learned_errors(self) -> dict[EngineError, Value]:
        """Of images and of the memory of the text."""
        if self._learned is None:
            return {EngineError.IMAGE_SHAPE: self.load_failed}
        return {error: self._learned.errors[str(error.name).lower()] for error in LEARNED_ERRORS}

    def _connect_errors(self, m: Module, others: Mapping[EngineError, Value]) -> None:
        """The front end's are the lowest bits."""
        bits = [others.get(error, 0) for error in EngineError if error not in EVENT_ERRORS]
        m.d.comb += self.errors.eq(Cat(self._front_end.errors, bits))

    def _grown(self, m: Module, name: str) -> Signal:
        """Whether a counter of the stager's has just grown; CLEAR makes it 0."""
        value = self._stager.counters[name]
        before, grown = Signal.like(value, name=f"{name}_before"), Signal(name=f"{name}_grown")
        m.d.sync += before.eq(value)
        m.d.comb += grown.eq((value != before) & value.any())
        return grown
