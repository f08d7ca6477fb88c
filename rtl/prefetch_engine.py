"""The prefetch engine: routing events in, prefetch requests out; its specification is ``predictor.st_moe_tables``."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.st_moe_events import EngineCounter, EventError
from predictor.st_moe_parameters import EngineParameters
from rtl.axi_lite import AxiLiteSignature, AxiLiteSlave
from rtl.counters import Counters
from rtl.history import History
from rtl.issuer import RequestIssuer
from rtl.layouts import RowWriteSignature, event_layout, request_layout
from rtl.register_file import RegisterFile
from rtl.registers import AGGREGATIONS, Window
from rtl.scorer import Scorer
from rtl.tables import TableMemory
from rtl.updater import Updater

_POLICY = ("threshold", "ht_confidence", "aggregation", "replacement", "replacement_confidence", "issue_limit")


class PrefetchEngine(wiring.Component):
    """One event at a time, in four steps: accept, check, read rows, finish.

    The rows that predict are read first, a row a cycle, so that requests leave as early as they can; the rows to verify
    are read behind them, and are updated while the tournament tree sorts and requests are issued.

    ``table_writes`` shows every row that an update writes, for lock-step comparison. Rows written over the bus do not
    appear there.
    """

    def __init__(self, limits: EngineParameters) -> None:
        self.limits = limits
        super().__init__(
            {
                "events": In(stream.Signature(event_layout(limits))),
                "requests": Out(stream.Signature(request_layout(limits))),
                "control": In(AxiLiteSignature(Window.of(limits).address_bits)),
                "table_writes": Out(RowWriteSignature(limits)),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        limits = self.limits
        m.submodules.slave = slave = AxiLiteSlave(Window.of(limits).address_bits)
        m.submodules.registers = registers = RegisterFile(limits)
        m.submodules.tables = tables = TableMemory(limits)
        m.submodules.history = history = History(limits)
        m.submodules.scorer = scorer = Scorer(limits)
        m.submodules.issuer = issuer = RequestIssuer(limits)
        m.submodules.updater = updater = Updater(limits)
        wiring.connect(m, wiring.flipped(self.control), slave.bus)
        wiring.connect(m, slave.registers, registers.registers)
        wiring.connect(m, registers.window, tables.window)
        settings = registers.settings
        event = Signal(event_layout(limits))
        # What may be written at any time is kept for the length of an event.
        policy = {name: Signal.like(getattr(settings, name), name=name) for name in _POLICY}

        # Accept.
        idle, accept = Signal(), Signal()
        m.d.comb += [
            self.events.ready.eq(idle),
            registers.busy.eq(~idle),
            accept.eq(idle & self.events.valid & registers.enable),
            history.start_token.eq(accept & self.events.payload.starts_token),
            history.start_sequence.eq((accept & self.events.payload.starts_sequence) | (idle & ~registers.enable)),
        ]
        with m.If(accept):
            m.d.sync += event.eq(self.events.payload)
            m.d.sync += [kept.eq(getattr(settings, name)) for name, kept in policy.items()]

        # Check.
        check = Signal()
        errors = self._errors(event, settings)
        predicts_now = history.target_layer < settings.layers
        verifies_now = history.source_in_token
        predicts, verifies = Signal(), Signal()
        m.d.comb += [
            history.layer.eq(event.layer),
            history.lookahead.eq(settings.lookahead),
            history.experts.eq(event.experts),
            history.read.eq(check),
            history.write.eq(check & ~errors.any()),
            registers.event_errors.eq(Mux(check, errors, 0)),
            scorer.clear.eq(check),
        ]
        with m.If(check):
            m.d.sync += [predicts.eq(predicts_now), verifies.eq(verifies_now)]

        # Read rows.
        reading_predict, reading_verify = Signal(), Signal()
        index = Signal(range(max(2, limits.top_k_max)))
        last = index == settings.top_k - 1
        source = Signal.like(history.source_layer)
        with m.If(check):
            m.d.sync += source.eq(history.source_layer)
        m.d.comb += tables.read.eq(reading_predict | reading_verify)
        m.d.comb += tables.read_address.eq(
            Mux(
                reading_predict,
                Cat(event.experts[index], event.layer),
                Cat(history.source[index], source),
            )
        )
        with m.If(check | (tables.read & last)):
            m.d.sync += index.eq(0)
        with m.Elif(tables.read):
            m.d.sync += index.eq(index + 1)

        # Predict: row, contribution, sum; then the tree is loaded.
        scored = Signal(3)
        m.d.sync += [scorer.row_valid.eq(reading_predict), scored.eq(Cat(reading_predict & last, scored))]
        first_reading = Signal()
        m.d.sync += first_reading.eq(check)
        m.d.comb += [
            scorer.slots.eq(tables.row.slots),
            scorer.slots_used.eq(settings.slots_used),
            scorer.add.eq(policy["aggregation"] == AGGREGATIONS["sum"]),
            scorer.history_load.eq(first_reading),
            scorer.history_valid.eq(history.target_in_sequence),
            scorer.history.eq(history.target),
            scorer.history_used.eq(settings.event_used),
            scorer.ht_confidence.eq(policy["ht_confidence"]),
            scorer.threshold.eq(policy["threshold"]),
            scorer.experts_used.eq(settings.experts_used),
            issuer.load.eq(scored[-1]),
            issuer.scores.eq(scorer.scores),
            issuer.eligible.eq(scorer.eligible),
            issuer.limit.eq(policy["issue_limit"]),
            self.requests.valid.eq(issuer.best.valid),
            issuer.best.ready.eq(self.requests.ready),
            self.requests.payload.layer.eq(history.target_layer),
            self.requests.payload.expert.eq(issuer.best.payload.expert),
            self.requests.payload.score.eq(issuer.best.payload.score),
            self.requests.payload.last.eq(issuer.best.payload.last),
        ]

        # Verify: row, match, write.
        verified = Signal(3)
        m.d.sync += [
            updater.valid.eq(reading_verify),
            updater.address.eq(tables.read_address),
            verified.eq(Cat(reading_verify & last, verified)),
        ]
        m.d.comb += [
            updater.row.eq(tables.row),
            updater.slots_used.eq(settings.slots_used),
            updater.needed.eq(event.experts),
            updater.needed_used.eq(settings.event_used),
            updater.replacement.eq(policy["replacement"]),
            updater.replacement_confidence.eq(policy["replacement_confidence"]),
        ]
        wiring.connect(m, updater.write, tables.write)
        m.d.comb += [
            self.table_writes.valid.eq(updater.write.valid),
            self.table_writes.address.eq(updater.write.address),
            self.table_writes.row.eq(updater.write.row),
        ]

        # Finish.
        predicted, was_verified = Signal(), Signal()
        predict_done = ~predicts | predicted | issuer.finishing
        verify_done = ~verifies | was_verified | verified[-1]
        m.d.sync += [
            predicted.eq(~check & (predicted | issuer.finishing)),
            was_verified.eq(~check & (was_verified | verified[-1])),
        ]

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += idle.eq(1)
                with m.If(accept):
                    m.next = "CHECK"
            with m.State("CHECK"):
                m.d.comb += check.eq(1)
                with m.If(errors.any() | ~(predicts_now | verifies_now)):
                    m.next = "IDLE"
                with m.Elif(predicts_now):
                    m.next = "READ TO PREDICT"
                with m.Else():
                    m.next = "READ TO VERIFY"
            with m.State("READ TO PREDICT"):
                m.d.comb += reading_predict.eq(1)
                with m.If(last):
                    m.next = "FINISH"
                    with m.If(verifies):
                        m.next = "READ TO VERIFY"
            with m.State("READ TO VERIFY"):
                m.d.comb += reading_verify.eq(1)
                with m.If(last):
                    m.next = "FINISH"
            with m.State("FINISH"), m.If(predict_done & verify_done):
                m.next = "IDLE"

        m.submodules.counters = counters = Counters(
            {
                EngineCounter.CANDIDATE_HITS: len(updater.hits),
                EngineCounter.CANDIDATE_MISSES: len(updater.misses),
                EngineCounter.REPLACEMENTS: len(updater.replacements),
            }
        )
        written = updater.write.valid
        increments = {
            EngineCounter.EVENTS: accept,
            EngineCounter.REJECTED: check & errors.any(),
            EngineCounter.DISCARDED: idle & self.events.valid & ~registers.enable,
            EngineCounter.PREDICTIONS: check & predicts_now & ~errors.any(),
            EngineCounter.REQUESTS: self.requests.valid & self.requests.ready,
            EngineCounter.CANDIDATE_HITS: Mux(written, updater.hits, 0),
            EngineCounter.CANDIDATE_MISSES: Mux(written, updater.misses, 0),
            EngineCounter.UPDATES: written,
            EngineCounter.REPLACEMENTS: Mux(written, updater.replacements, 0),
            EngineCounter.BUSY_CYCLES: ~idle,
            EngineCounter.STALL_CYCLES: self.requests.valid & ~self.requests.ready,
        }
        m.d.comb += [
            counters.clear.eq(registers.clear_counters),
            registers.counters.eq(counters.values),
            *(counters.increments[counter.name.lower()].eq(value) for counter, value in increments.items()),
        ]
        return m

    def _errors(self, event: data.View, settings: wiring.PureInterface) -> Value:
        """The bits of ``EventError`` that hold of ``event``."""
        used = range(self.limits.top_k_max)
        too_large = [settings.event_used[nth] & (event.experts[nth] >= settings.experts) for nth in used]
        twice = [
            settings.event_used[later] & (event.experts[earlier] == event.experts[later])
            for later in used
            for earlier in range(later)
        ]
        bits = {
            EventError.LAYER: event.layer >= settings.layers,
            EventError.EXPERT: Cat(too_large).any(),
            EventError.DUPLICATE: Cat(twice).any(),
        }
        return Cat(bits[error] for error in EventError)
