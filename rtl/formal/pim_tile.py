"""Proofs of the PIM tile, at its smallest size."""

from amaranth.hdl import Array, Assume, Module, Mux, Signal, Value

from pim_model.tile import TileParameters
from rtl.checks import always, implies
from rtl.formal.environment import offers
from rtl.formal.task import Task
from rtl.pim.tile import GemvSequencer, PimTile, VectorBuffer

SMALL = TileParameters(lanes=2, vector_chunks=3, accumulators=2, max_rows=5)

BUFFER_INPUTS = (
    "vector buffer: a bank is given back that is not complete",
    "vector buffer: the vector given has more chunks than a bank",
)
COMMAND_INPUTS = tuple(f"sequencer: {name} of the command given" for name in ("rows", "chunks", "group"))


def _vector(m: Module, buffer: VectorBuffer) -> None:
    offers(m, "vector", buffer.vector)


def _banks(m: Module, buffer: VectorBuffer) -> None:
    """As a FIFO of two vectors: full while it holds one, ready while it does not hold two."""
    held = Signal(range(3))
    completes = buffer.vector.valid & buffer.vector.ready & buffer.vector.p.last
    m.d.sync += held.eq(held + completes - buffer.release)
    always(m, held <= 2, "more than two vectors")
    always(m, buffer.full == (held != 0), "full says something else than that a vector is there")
    always(m, buffer.vector.ready == (held != 2), "ready says something else than that there is room")


def _data(m: Module, buffer: VectorBuffer) -> None:
    """The chunk read is the one that was written at its place of the older vector."""
    vector, depth = buffer.vector, SMALL.vector_chunks
    chunks = [Array(Signal.like(Value.cast(vector.p.chunk), name=f"v{n}_{i}") for i in range(4)) for n in range(2)]
    length = Array(Signal(range(depth + 1), name=f"length{n}") for n in range(2))
    written = Signal(range(depth + 1))
    filled, used = Signal(), Signal()
    with m.If(vector.valid & vector.ready):
        m.d.sync += [written.eq(Mux(vector.p.last, 0, written + 1)), length[filled].eq(written + 1)]
        m.d.sync += [Array(chunks)[filled][written].eq(vector.p.chunk), filled.eq(filled ^ vector.p.last)]
    m.d.sync += used.eq(used ^ buffer.release)
    read, expected = Signal(), Signal.like(chunks[0][0])
    with m.If(buffer.enable):
        m.d.sync += [
            read.eq(buffer.full & (buffer.address < length[used])),
            expected.eq(Array(chunks)[used][buffer.address]),
        ]
    always(m, implies(read, Value.cast(buffer.chunk) == expected), "another chunk than was written")


def _command(m: Module, sequencer: GemvSequencer) -> None:
    offers(m, "command", sequencer.command)
    always(m, implies(sequencer.step, sequencer.ready), "a beat that is not accepted", claim=Assume)


def _streams(m: Module, tile: PimTile) -> None:
    offers(m, "vector", tile.vector)
    offers(m, "weights", tile.weights)
    offers(m, "command", tile.command)


TASKS = (
    Task(
        name="vector-buffer",
        what="PIM tile's vector buffer: two banks in turn, none filled that is in use, none read that is not complete",
        make=lambda: VectorBuffer(SMALL),
        assumptions=_vector,
        claims=_banks,
        given=BUFFER_INPUTS,
        depth=8,
    ),
    Task(
        name="vector-buffer-data",
        what="PIM tile's vector buffer: what is read is what was written there",
        make=lambda: VectorBuffer(SMALL),
        assumptions=_vector,
        claims=_data,
        given=BUFFER_INPUTS,
        depth=8,
        unbounded=False,
        quick=False,
    ),
    Task(
        name="tile-sequencer",
        what="PIM tile's sequencer: every beat is inside its job",
        make=lambda: GemvSequencer(SMALL),
        assumptions=_command,
        given=COMMAND_INPUTS,
        depth=6,
    ),
    Task(
        name="tile",
        what="PIM tile: the stream of results; its sums begin once and do not overflow",
        make=lambda: PimTile(SMALL),
        assumptions=_streams,
        given=(*COMMAND_INPUTS, BUFFER_INPUTS[1]),
        depth=6,
        unbounded=False,
        quick=False,
    ),
)
