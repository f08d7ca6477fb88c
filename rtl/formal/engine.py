"""Proofs of what stands around the stager: events in, one command at a time, registers."""

from amaranth.hdl import Assume, Cat, Module, Signal

from predictor.engine.limits import PrefetchEngineLimits
from rtl.checks import always, always_kept, always_within, at_most_one, implies
from rtl.formal.environment import offers
from rtl.formal.task import Task
from rtl.prefetch.arbiter import Arbiter
from rtl.prefetch.front_end import FrontEnd
from rtl.prefetch.register_file import RegisterFile
from rtl.prefetch.stager.layouts import Command

SMALL = PrefetchEngineLimits(
    slots_max=2, layers_max=2, experts_max=4, top_k_max=2, candidates_max=2, places=4, spare=2, queue_depth=4,
    stager_lanes=2,
)  # fmt: skip


def _events(m: Module, front_end: FrontEnd) -> None:
    """Events stay until they are taken; settings are in range and still; nothing is forgotten in the middle."""
    offers(m, "events", front_end.events)
    settings = [front_end.layers, front_end.experts, front_end.top_k, front_end.rows, front_end.domains]
    always_kept(m, "settings", Cat(settings), where=front_end.busy, claim=Assume)
    always_within(m, front_end.layers, 1, SMALL.layers_max, "layers", claim=Assume)


def _event_streams(m: Module, front_end: FrontEnd) -> None:
    """What is offered stays; nothing follows a bad event, and what follows a good one is entered once."""
    for name in ("urgent", "known"):
        # Its payload is that of Amaranth's SyncFIFO, whose memory this proof does not look into.
        stream, waits = getattr(front_end, name), Signal(name=f"{name}_waits")
        m.d.sync += waits.eq(stream.valid & ~stream.ready)
        always(m, implies(waits, stream.valid), f"front end: {name} is withdrawn")
    took = front_end.took
    always(m, at_most_one([took.token, took.gate, front_end.errors.any()]), "front end: one event is taken as two")
    always(m, implies(took.step, took.token), "front end: a step without a token")
    accepted = Signal()
    m.d.sync += accepted.eq(front_end.accepted)
    told = took.token | took.gate | front_end.errors.any()
    always(m, implies(told, accepted), "front end: an event is told that was not accepted")


def _sources(m: Module, arbiter: Arbiter) -> None:
    """All who want something of the stager keep to it; values are read while their command runs."""
    for name in ("link", "urgent", "predictions", "values", "host"):
        offers(m, name, getattr(arbiter, name))
    # The stager: SET_VALUES that was taken is done later, while it is not ready, and values wait until then.
    reads, done = Signal(), arbiter.done
    taken = arbiter.commands.valid & arbiter.commands.ready
    ends = done.valid & (done.kind == Command.SET_VALUES)
    with m.If(taken & (arbiter.commands.payload.kind == Command.SET_VALUES)):
        m.d.sync += reads.eq(1)
    with m.Elif(ends):
        m.d.sync += reads.eq(0)
    always(m, implies(ends, reads), "values that are not read", claim=Assume)
    always(m, implies(reads, ~arbiter.commands.ready), "two commands", claim=Assume)
    always(m, implies(reads, arbiter.values.valid), "arbiter: values are withdrawn while they are read")


def _one_command(m: Module, arbiter: Arbiter) -> None:
    """A command is offered only where it is taken, is of one source, and of the first that wants one."""
    commands = arbiter.commands
    predicted = arbiter.predictions.payload.count != 0
    predicts = arbiter.predictions.valid & predicted
    values = commands.valid & (commands.payload.kind == Command.SET_VALUES)
    told = {
        "link": arbiter.link.ready,
        "urgent": arbiter.urgent.ready,
        "predictions": arbiter.predictions.ready & predicts,
        "host": arbiter.host.ready,
        "values": values,
    }
    always(m, at_most_one(list(told.values())), "arbiter: a command of two sources")
    always(m, commands.valid == Cat(told.values()).any(), "arbiter: a command of no source, or one is lost")
    always(m, implies(commands.valid, commands.ready & arbiter.open), "arbiter: a command is offered to a busy stager")
    for name in ("link", "urgent", "host"):
        valid = getattr(arbiter, name).valid
        always(m, implies(told[name], valid), f"arbiter: {name} is taken, and offers nothing")
    wants = Cat(arbiter.link.valid, arbiter.urgent.valid, predicts, arbiter.values.valid, arbiter.host.valid).any()
    always(m, implies(wants & commands.ready & arbiter.open, commands.valid), "arbiter: who wants something waits")
    always(
        m,
        implies(arbiter.urgent.valid, ~told["predictions"] & ~values & ~told["host"]),
        "arbiter: what is urgent waits",
    )
    always(m, implies(arbiter.values.valid | predicts, ~told["host"]), "arbiter: the host comes before a prediction")


def _bus(m: Module, registers: RegisterFile) -> None:
    """The bus as the AXI4-Lite slave drives it: one access until it is done; the host's answers as the stager's."""
    bus = registers.registers
    always(m, ~(bus.read & bus.write), "both", claim=Assume)
    waits = Signal()
    asked = Cat(bus.read, bus.write, bus.address, bus.write_data)
    m.d.sync += waits.eq((bus.read | bus.write) & ~bus.done)
    always_kept(m, "access", asked, where=(bus.read | bus.write) & ~bus.done, claim=Assume)
    # The loader answers once what was asked of it.
    loading = Signal()
    with m.If(registers.load):
        m.d.sync += loading.eq(1)
    with m.Elif(registers.load_done):
        m.d.sync += loading.eq(0)
    always(m, implies(registers.load_done, loading), "loaded unasked", claim=Assume)
    always(m, loading == registers._loading, "registers: it is not known that an image is loaded")


TASKS = (
    Task(
        name="engine-events",
        what="the engine's front end: what is urgent is never lost, streams stay, a bad event asks for nothing",
        make=lambda: FrontEnd(SMALL),
        assumptions=_events,
        claims=_event_streams,
        given=(
            "front end: top-k beyond what an event carries",
            "front end: forgets while an event is in work",
        ),
        depth=6,
    ),
    Task(
        name="engine-arbiter",
        what="the engine's arbiter: one command at a time, of one source, in the order of rank; none is lost",
        make=lambda: Arbiter(SMALL),
        assumptions=_sources,
        claims=_one_command,
        depth=4,
    ),
    Task(
        name="engine-registers",
        what="the whole engine's registers: settings in range, still while the engine runs; one answer an access",
        make=lambda: RegisterFile(SMALL),
        assumptions=_bus,
        depth=3,
        quick=False,
    ),
)
