"""The table predictor: routing events in, prefetch requests out; its specification is ``predictor.st_moe.tables``."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.st_moe.events import EngineCounter, EventError
from predictor.st_moe.parameters import AGGREGATION_CODES, EngineLimits, TablePolicy
from rtl.checks import always, always_stable, implies
from rtl.prefetch.tables.history import History
from rtl.prefetch.tables.issuer import RequestIssuer
from rtl.prefetch.tables.layouts import (
    RowWriteSignature,
    SettingsSignature,
    event_layout,
    increments_layout,
    request_layout,
)
from rtl.prefetch.tables.memory import TableMemory, WindowSignature
from rtl.prefetch.tables.scorer import Scorer
from rtl.prefetch.tables.sequencer import Sequencer
from rtl.prefetch.tables.updater import Updater

# Settings that may be written at any time: they are kept for the length of an event.
_POLICY = (*TablePolicy.model_fields, "issue_limit")


class TablePredictor(wiring.Component):
    """One event at a time, in four steps: accept, check, read rows, finish.

    The rows that predict are read first, a row a cycle, so that requests leave as early as they can; the rows to verify
    are read behind them, and are updated while the tournament tree sorts and requests are issued.

    Members:
        events, requests: The streams.
        settings: What the registers hold. Those that are locked hold still while ``enable`` or ``busy``, and from two
            cycles before the first event.
        enable: 0: events are discarded, a cycle each, and what is known of running sequences is forgotten.
        busy: An event is in work.
        window: Single words of the table memory; the predictor goes first.
        table_writes: Every row that an update writes, for lock-step comparison; rows written through the window do not
            appear there.
        event_errors: For one cycle: why an event is rejected, bits of ``EventError``.
        increments: By how much each ``EngineCounter`` grows.
    """

    def __init__(self, limits: EngineLimits) -> None:
        self.limits = limits
        super().__init__(
            {
                "events": In(stream.Signature(event_layout(limits))),
                "requests": Out(stream.Signature(request_layout(limits))),
                "settings": In(SettingsSignature(limits)),
                "enable": In(1),
                "busy": Out(1),
                "window": In(WindowSignature(limits)),
                "table_writes": Out(RowWriteSignature(limits)),
                "event_errors": Out(len(EventError)),
                "increments": Out(increments_layout(limits)),
            }
        )
        self._tables = TableMemory(limits)
        self._history = History(limits)
        self._sequencer = Sequencer(limits)
        self._scorer = Scorer(limits)
        self._issuer = RequestIssuer(limits)
        self._updater = Updater(limits)
        # What the settings put to use, a cycle after they are set.
        self._experts_used = Signal(limits.experts_max)
        self._event_used = Signal(limits.top_k_max)
        self._entries_used = Signal(limits.candidates_max)

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.tables = self._tables
        m.submodules.history = self._history
        m.submodules.sequencer = self._sequencer
        m.submodules.scorer = self._scorer
        m.submodules.issuer = self._issuer
        m.submodules.updater = self._updater
        wiring.connect(m, wiring.flipped(self.window), self._tables.window)
        m.d.sync += [
            self._experts_used.eq((1 << self.settings.experts) - 1),
            self._event_used.eq((1 << self.settings.top_k) - 1),
            self._entries_used.eq((1 << self.settings.candidates) - 1),
        ]

        event = Signal(event_layout(self.limits))
        policy = {name: Signal.like(getattr(self.settings, name), name=name) for name in _POLICY}
        accept = self._accept(m, event, policy)
        errors = self._check(m, event)
        self._read_rows(m, event)
        self._predict(m, policy)
        self._verify(m, event, policy)
        self._count(m, accept, errors.any())
        self._check_requests(m)
        return m

    def _accept(self, m: Module, event: data.View, policy: dict[str, Signal]) -> Signal:
        """Take the next event; returns whether one is taken for processing in this cycle."""
        history, sequencer = self._history, self._sequencer
        payload = self.events.payload
        accept = Signal()
        m.d.comb += [
            self.events.ready.eq(sequencer.idle),
            self.busy.eq(~sequencer.idle),
            accept.eq(sequencer.idle & self.events.valid & self.enable),
            sequencer.accept.eq(accept),
            history.start_token.eq(accept & payload.starts_token),
            history.start_sequence.eq(accept & payload.starts_sequence),
            history.start_slot.eq(payload.slot),
            history.start_domain.eq(payload.domain),
            history.forget.eq(sequencer.idle & ~self.enable),
        ]
        with m.If(accept):
            m.d.sync += event.eq(payload)
            m.d.sync += [kept.eq(getattr(self.settings, name)) for name, kept in policy.items()]
        return accept

    def _check(self, m: Module, event: data.View) -> Signal:
        """Look the event up in the history and decide what to do about it; returns the bits of ``EventError``."""
        settings, history, sequencer = self.settings, self._history, self._sequencer
        used = range(self.limits.top_k_max)
        too_large = [self._event_used[nth] & (event.experts[nth] >= settings.experts) for nth in used]
        twice = [
            self._event_used[later] & (event.experts[earlier] == event.experts[later])
            for later in used
            for earlier in range(later)
        ]
        slots = self.limits.slots_max
        no_slot = event.slot >= slots if slots < 1 << self.limits.slot_bits else Const(0)
        bits = {
            EventError.LAYER: event.layer >= settings.layers,
            EventError.EXPERT: Cat(too_large).any(),
            EventError.DUPLICATE: Cat(twice).any(),
            EventError.SLOT: no_slot,
            # Of a slot that there is not, nothing is known.
            EventError.DOMAIN: ~no_slot & (history.domain >= settings.domains),
        }
        errors = Signal(len(EventError))
        m.d.comb += [
            errors.eq(Cat(bits[error] for error in EventError)),
            self.event_errors.eq(Mux(sequencer.check, errors, 0)),
            history.slot.eq(event.slot),
            history.layer.eq(event.layer),
            history.lookahead.eq(settings.lookahead),
            history.experts.eq(event.experts),
            history.read.eq(sequencer.check),
            history.write.eq(sequencer.check & ~errors.any()),
            sequencer.top_k.eq(settings.top_k),
            sequencer.rejected.eq(errors.any()),
            sequencer.predicts.eq(history.target_layer < settings.layers),
            sequencer.verifies.eq(history.source_in_token),
        ]
        return errors

    def _read_rows(self, m: Module, event: data.View) -> None:
        """Rows of the event's experts to predict, then rows of those that the source layer chose to verify."""
        history, sequencer = self._history, self._sequencer
        bank = history.domain[: self.limits.bank_bits]
        to_predict = Cat(event.experts[sequencer.index], bank, event.layer)
        to_verify = Cat(history.source[sequencer.index], bank, history.source_layer)
        m.d.comb += [
            self._tables.read.eq(sequencer.reading_to_predict | sequencer.reading_to_verify),
            self._tables.read_address.eq(Mux(sequencer.reading_to_predict, to_predict, to_verify)),
        ]

    def _predict(self, m: Module, policy: dict[str, Signal]) -> None:
        """Score the rows and issue requests."""
        history, sequencer = self._history, self._sequencer
        scorer, issuer = self._scorer, self._issuer
        # From the last row's address: row, contribution, sum; then the tree is loaded.
        scored = Signal(3)
        m.d.sync += [
            scored.eq(Cat(sequencer.reading_to_predict & sequencer.last, scored)),
            scorer.row_valid.eq(sequencer.reading_to_predict),
            scorer.history_load.eq(sequencer.check),
        ]
        m.d.comb += [
            scorer.clear.eq(sequencer.check),
            scorer.entries.eq(self._tables.row.entries),
            scorer.entries_used.eq(self._entries_used),
            scorer.add.eq(policy["aggregation"] == AGGREGATION_CODES["sum"]),
            scorer.history_valid.eq(history.target_in_sequence),
            scorer.history.eq(history.target),
            scorer.history_used.eq(self._event_used),
            scorer.ht_confidence.eq(policy["ht_confidence"]),
            scorer.threshold.eq(policy["threshold"]),
            scorer.experts_used.eq(self._experts_used),
            issuer.load.eq(scored[-1]),
            issuer.scores.eq(scorer.scores),
            issuer.eligible.eq(scorer.eligible),
            issuer.limit.eq(policy["issue_limit"]),
            issuer.best.ready.eq(self.requests.ready),
            sequencer.predict_finishing.eq(issuer.finishing),
            self.requests.valid.eq(issuer.best.valid),
            self.requests.payload.layer.eq(history.target_layer),
            self.requests.payload.expert.eq(issuer.best.payload.expert),
            self.requests.payload.score.eq(issuer.best.payload.score),
            self.requests.payload.last.eq(issuer.best.payload.last),
        ]

    def _check_requests(self, m: Module) -> None:
        """A request stays until it is taken, and is of an expert and a layer that the model has."""
        settings, requests = self.settings, self.requests
        payload = requests.payload
        always_stable(m, "requests", valid=requests.valid, ready=requests.ready, payload=payload.as_value())
        exists = (self._history.target_layer < settings.layers) & (payload.expert < settings.experts)
        always(m, implies(requests.valid, exists), "requests: an expert or a layer that the model has not")

    def _verify(self, m: Module, event: data.View, policy: dict[str, Signal]) -> None:
        """Update the rows and write them back."""
        sequencer, updater = self._sequencer, self._updater
        # From the last row's address: row, match, write.
        verified = Signal(3)
        m.d.sync += [
            verified.eq(Cat(sequencer.reading_to_verify & sequencer.last, verified)),
            updater.valid.eq(sequencer.reading_to_verify),
            updater.address.eq(self._tables.read_address),
        ]
        m.d.comb += [
            updater.row.eq(self._tables.row),
            updater.entries_used.eq(self._entries_used),
            updater.needed.eq(event.experts),
            updater.needed_used.eq(self._event_used),
            updater.replacement.eq(policy["replacement"]),
            updater.replacement_confidence.eq(policy["replacement_confidence"]),
            sequencer.verify_finishing.eq(verified[-1]),
            self.table_writes.valid.eq(updater.write.valid),
            self.table_writes.address.eq(updater.write.address),
            self.table_writes.row.eq(updater.write.row),
        ]
        wiring.connect(m, updater.write, self._tables.write)

    def _count(self, m: Module, accept: Value, rejected: Value) -> None:
        """Feed the performance counters."""
        sequencer, updater = self._sequencer, self._updater
        written = updater.write.valid
        increments = {
            EngineCounter.EVENTS: accept,
            EngineCounter.REJECTED: sequencer.check & rejected,
            EngineCounter.DISCARDED: sequencer.idle & self.events.valid & ~self.enable,
            EngineCounter.PREDICTIONS: sequencer.check & sequencer.predicts & ~rejected,
            EngineCounter.REQUESTS: self.requests.valid & self.requests.ready,
            EngineCounter.CANDIDATE_HITS: Mux(written, updater.hits, 0),
            EngineCounter.CANDIDATE_MISSES: Mux(written, updater.misses, 0),
            EngineCounter.UPDATES: written,
            EngineCounter.REPLACEMENTS: Mux(written, updater.replacements, 0),
            EngineCounter.BUSY_CYCLES: ~sequencer.idle,
            EngineCounter.STALL_CYCLES: self.requests.valid & ~self.requests.ready,
        }
        m.d.comb += [self.increments[counter.name.lower()].eq(value) for counter, value in increments.items()]
