"""Proofs of the prefetch engine's parts, at small sizes."""

from amaranth.hdl import Assume, Cat, Module, Signal

from predictor.st_moe.parameters import EngineLimits
from rtl.checks import always, always_kept, always_stable, always_within, implies
from rtl.formal.proof import Method
from rtl.formal.task import Task
from rtl.prefetch.tables.history import History
from rtl.prefetch.tables.issuer import RequestIssuer
from rtl.prefetch.tables.register_file import RegisterFile
from rtl.prefetch.tables.sequencer import Sequencer
from rtl.prefetch.tables.updater import Updater

SMALL = EngineLimits(experts_max=4, layers_max=3, top_k_max=2, candidates_max=2, slots_max=3)


def _sequencer_inputs(m: Module, sequencer: Sequencer) -> None:
    """The engine accepts while the sequencer is idle; an event has its experts as long as it lasts."""
    always(m, implies(sequencer.accept, sequencer.idle), "accepts while busy", claim=Assume)
    always_within(m, sequencer.top_k, 1, SMALL.top_k_max, "top_k", claim=Assume)
    always_kept(m, "top_k", sequencer.top_k, where=~sequencer.idle, claim=Assume)


def _issuer_inputs(m: Module, issuer: RequestIssuer) -> None:
    """A limit of at most all experts; no new load while requests of the last one are left."""
    always_within(m, issuer.limit, 0, SMALL.experts_max, "limit", claim=Assume)
    busy = Signal()
    m.d.sync += busy.eq(issuer.load | (busy & ~issuer.finishing))
    always(m, implies(issuer.load, ~busy), "loads while busy", claim=Assume)
    always(m, implies(issuer.best.valid | issuer.finishing, busy), "busy")


def _issuer_requests(m: Module, issuer: RequestIssuer) -> None:
    best = issuer.best
    always_stable(m, "best", valid=best.valid, ready=best.ready, payload=best.payload.as_value())


def _settings_stay(m: Module, updater: Updater) -> None:
    """Nothing that configures the updater moves while a row is in it."""
    held = [updater.entries_used, updater.needed.as_value(), updater.needed_used, updater.replacement]
    coming = Signal(2)
    m.d.sync += coming.eq(Cat(updater.valid, coming))
    always_kept(m, "settings", Cat(held), where=updater.valid | coming.any(), claim=Assume)


TASKS = (
    Task(
        name="engine-sequencer",
        what="prefetch engine's sequencer: one state; rows are read within the event",
        make=lambda: Sequencer(SMALL),
        assumptions=_sequencer_inputs,
        given=(
            "sequencer: a prediction ends that did not begin",
            "sequencer: a verification ends that did not begin",
        ),
    ),
    Task(
        name="request-issuer",
        what="prefetch engine's request issuer: the stream of requests, best first",
        make=lambda: RequestIssuer(SMALL),
        assumptions=_issuer_inputs,
        claims=_issuer_requests,
        depth=9,  # a load of four experts is over after six cycles, if nobody waits
        method=Method.REACHABILITY,
        quick=False,
    ),
    Task(
        name="updater",
        what="prefetch engine's updater: no entry takes two experts, no expert two entries; hits and misses add up",
        make=lambda: Updater(SMALL),
        assumptions=_settings_stay,
        depth=6,
    ),
    Task(
        name="history",
        what="prefetch engine's history: what is of this token is of this sequence",
        make=lambda: History(SMALL),
        given=(
            "history: a layer is written that does not exist",
            "history: a slot is written that does not exist",
        ),
        depth=6,
    ),
    Task(
        name="register-file",
        what="prefetch engine's registers: settings in range, still while the engine runs; no stray answer",
        make=lambda: RegisterFile(SMALL),
        depth=4,
    ),
)
