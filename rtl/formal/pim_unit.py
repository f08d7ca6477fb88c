"""Proofs of the PIM unit's control: the banks' states, refresh in time, streams. Two blocks; distances of HBM2-PIM."""

from functools import cache

from amaranth.hdl import Assume, Module, Signal

from catalog import load_catalog
from pim_model.unit.parameters import UnitParameters
from rtl.checks import always, always_stable, implies
from rtl.formal.task import Task
from rtl.pim.base_die import row_engine
from rtl.pim.base_die.input_buffer import InputReceiver
from rtl.pim.base_die.output_queue import FIFO, UNRESERVED, OutputQueue
from rtl.pim.base_die.program_control import ProgramControl
from rtl.pim.base_die.refresh import Refresh
from rtl.pim.base_die.row_engine import RowEngine


@cache
def small() -> UnitParameters:
    """Two blocks at four banks of 64 rows."""
    device = load_catalog().dram.find("HBM2-PIM")
    assert device.pim is not None, "it computes at its banks"
    tiny = {"bank_groups": 2, "banks_per_group": 2, "pim": device.pim.model_copy(update={"blocks": 2})}
    return UnitParameters(device=device.model_copy(update=tiny), max_inputs=64, output_beats=16, bank_rows=64)


def _rows(m: Module, rows: RowEngine) -> None:
    """A refresh that is due stays due until it is issued; every clock is the unit's own."""
    always(m, rows.slot, "a clock that is another's", claim=Assume)
    waits = Signal()
    m.d.sync += waits.eq(rows.due & ~rows.issue_refresh)
    always(m, implies(waits, rows.due), "a refresh that is due is withdrawn", claim=Assume)


def _refresh(m: Module, refresh: Refresh) -> None:
    always(m, implies(refresh.issue, refresh.due & ~refresh.refreshing), "a REFAB that is not due", claim=Assume)


def _pending(m: Module, refresh: Refresh) -> None:
    """Intervals that are over less REFABs, as far as it counts."""
    over, most = Signal(), 9
    m.d.sync += over.eq(refresh.left == 0)
    always(m, refresh.pending <= most, "more pending than it counts")
    always(m, implies(over & (refresh.pending == 0), ~refresh.due), "due without being pending")


def _stream(m: Module, receiver: InputReceiver) -> None:
    stream = receiver.stream
    always_stable(m, "x", valid=stream.tvalid, ready=stream.tready, payload=stream.tlast, claim=Assume)


def _queue(m: Module, queue: OutputQueue) -> None:
    """Readbacks are issued only with room; a packet ends in the clock after a flush."""
    flushed = Signal()
    m.d.sync += flushed.eq(queue.flush)
    for holds, what in (
        (implies(queue.reserve != 0, queue.room), "room is reserved that is not there"),
        (queue.reserve <= 4, "more is reserved than a readback brings"),
        (implies(queue.flush | queue.end, ~queue.push & (queue.reserve == 0)), "a beat at a packet's end"),
        (implies(queue.end, flushed), "an end that does not follow a flush"),
    ):
        always(m, holds, what, claim=Assume)


def _control(m: Module, control: ProgramControl) -> None:
    always(m, implies(control.start, ~control.busy), "START while busy", claim=Assume)
    always(m, ~(control.planned & control.refused), "planned and refused at once", claim=Assume)


def _ends(m: Module, control: ProgramControl) -> None:
    """A program that was to be ended is not done; one that ends, ends once."""
    ended = Signal()
    with m.If(control.busy & (control.abort | control.failed)):
        m.d.sync += ended.eq(1)
    with m.If(~control.busy):
        m.d.sync += ended.eq(0)
    always(m, implies(control.done, ~ended), "a program that was ended is said to be done")
    always(m, implies(control.done | control.aborted, control.busy), "the end of no program")
    always(m, ~(control.done & control.aborted), "done and aborted at once")
    always(m, control.ending == ended, "it does not know that the program is to end")


TASKS = (
    Task(
        name="pim-rows",
        what="PIM unit's row engine: every command meets every bank in a state that allows it; a refresh is in time",
        make=lambda: RowEngine(small()),
        assumptions=_rows,
        given=row_engine.OF_INPUTS,
        depth=8,
    ),
    Task(
        name="pim-refresh",
        what="PIM unit's refresh: no more pending than is counted, none due that is not pending",
        make=lambda: Refresh(small()),
        assumptions=_refresh,
        claims=_pending,
        given=("refresh: a REFAB that is not due",),
        depth=6,
    ),
    Task(
        name="pim-program",
        what="PIM unit's control: one state; a program that is ended is never said to be done",
        make=lambda: ProgramControl(5),
        assumptions=_control,
        claims=_ends,
        depth=8,
    ),
    Task(
        name="pim-queue",
        what="PIM unit's output queue: a beat finds its room; what is offered stays, also when a program is ended",
        make=lambda: OutputQueue(small()),
        assumptions=_queue,
        given=("output queue: room reserved that is not there", UNRESERVED, FIFO),
        depth=4,
    ),
    Task(
        name="pim-receiver",
        what="PIM unit's input receiver: beats are not taken and dropped at once",
        make=lambda: InputReceiver(small()),
        assumptions=_stream,
        given=(
            "input receiver: a program's vectors while others are dropped",
            "input receiver: a program's vectors before the last one's are there",
        ),
        depth=6,
    ),
)
