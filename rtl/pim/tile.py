"""The PIM tile: an int8 matrix times an int8 vector, a beat of weights a cycle. `pim_model.tile` specifies it.

::

    vector ──▶ VectorBuffer (two banks) ──────chunk──────┐
                  ▲ bank, chunk   │ full                 ▼
    command ──▶ GemvSequencer ◀───┘    fetch ─▶ products ─▶ adder tree ─▶ accumulators ──▶ results
    weights ──▶      └─────────beat──────▲      └──────────── DotProductLanes ────────┘

`DotProductLanes` knows no matrix: every beat says which accumulator it adds to and whether it starts or ends a sum, so
that a unit with another order of weights can use it as it is. All stages advance together, unless a result is offered
and not taken.
"""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from pim_model.tile import ACCUMULATOR_BITS, TileParameters
from rtl.checks import always, always_stable, always_within, implies
from rtl.verilog import to_verilog


def lane_values(lanes: int) -> data.ArrayLayout:
    """Layout of a beat of weights or a chunk of a vector: lane 0 in the lowest bits."""
    return data.ArrayLayout(signed(8), lanes)


def vector_layout(parameters: TileParameters) -> data.StructLayout:
    """Layout of the vector stream: a chunk, and whether it is the vector's last."""
    return data.StructLayout({"chunk": lane_values(parameters.lanes), "last": 1})


def command_layout(parameters: TileParameters) -> data.StructLayout:
    """Layout of a command.

    ``rows``, ``chunks`` (as many as the vector has) and ``group`` (rows in work at once) are at least 1 and within
    ``parameters``; ``release`` gives the vector's bank back after the job: without it the next job uses it again.
    """
    return data.StructLayout(
        {
            "rows": ceil_log2(parameters.max_rows + 1),
            "chunks": ceil_log2(parameters.vector_chunks + 1),
            "group": ceil_log2(parameters.accumulators + 1),
            "release": 1,
        }
    )


def result_layout() -> data.StructLayout:
    """Layout of a result: a row's sum, and whether it is the job's last."""
    return data.StructLayout({"value": signed(ACCUMULATOR_BITS), "last": 1})


def beat_layout(parameters: TileParameters) -> data.StructLayout:
    """Layout of what travels with a beat to its accumulator.

    ``accumulator`` is added to; ``first`` starts its sum from 0, ``last`` sends it out as a result, ``end`` marks that
    result as the job's last.
    """
    return data.StructLayout({"accumulator": ceil_log2(parameters.accumulators), "first": 1, "last": 1, "end": 1})


class VectorBuffer(wiring.Component):
    """Two banks of a vector each: one is filled from the stream while the other is read.

    Members:
        vector: Chunks; the one marked ``last`` completes the bank.
        full: Whether the bank to be read is complete.
        release: The bank being read is done with; acts at the end of the cycle.
        address: Chunk of the bank being read.
        enable: Whether to read in this cycle.
        chunk: What was read in the last cycle that was enabled.
    """

    def __init__(self, parameters: TileParameters) -> None:
        self._parameters = parameters
        super().__init__(
            {
                "vector": In(stream.Signature(vector_layout(parameters))),
                "full": Out(1),
                "release": In(1),
                "address": In(ceil_log2(parameters.vector_chunks)),
                "enable": In(1),
                "chunk": Out(lane_values(parameters.lanes)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """The memory, its banks' flags and the write address."""
        m = Module()
        width = ceil_log2(self._parameters.vector_chunks)
        # The bank is the top address bit, so a bank takes a power of two whatever its size.
        m.submodules.memory = memory = Memory(shape=lane_values(self._parameters.lanes), depth=2 << width, init=[])
        write, read = memory.write_port(), memory.read_port()
        full = Signal(2)
        write_bank, read_bank = Signal(), Signal()
        write_address = Signal(width)
        m.d.comb += [
            self.vector.ready.eq(~full.bit_select(write_bank, 1)),
            write.addr.eq(Cat(write_address, write_bank)),
            write.data.eq(self.vector.p.chunk),
            write.en.eq(self.vector.valid & self.vector.ready),
            self.full.eq(full.bit_select(read_bank, 1)),
            read.addr.eq(Cat(self.address, read_bank)),
            read.en.eq(self.enable),
            self.chunk.eq(read.data),
        ]
        with m.If(write.en):
            m.d.sync += write_address.eq(write_address + 1)
            with m.If(self.vector.p.last):
                m.d.sync += [write_address.eq(0), write_bank.eq(~write_bank), full.bit_select(write_bank, 1).eq(1)]
        always(m, implies(self.release, self.full), "vector buffer: a bank is given back that is not complete")
        in_turn = Mux(read_bank == write_bank, full[0] == full[1], full == (1 << read_bank))
        always(m, in_turn, "vector buffer: the banks are not filled and read in turn")
        always_within(
            m,
            write_address,
            0,
            self._parameters.vector_chunks - 1,
            "vector buffer: the vector given has more chunks than a bank",
            where=write.en,
        )
        with m.If(self.release):
            m.d.sync += [read_bank.eq(~read_bank), full.bit_select(read_bank, 1).eq(0)]
        return m


class GemvSequencer(wiring.Component):
    """Says of every beat of a job which chunk it meets and which accumulator it adds to.

    A command is accepted in the cycle of the last beat of the one before, so jobs follow each other without a gap.

    Members:
        command: The jobs.
        vector_full: Whether the job's vector is there.
        step: A beat is accepted in this cycle.
        ready: Whether the beat of this cycle may be accepted.
        chunk: Chunk that it meets.
        beat: Where it goes.
        release: With ``step``: the beat is the last that uses the vector.
    """

    def __init__(self, parameters: TileParameters) -> None:
        self._parameters = parameters
        super().__init__(
            {
                "command": In(stream.Signature(command_layout(parameters))),
                "vector_full": In(1),
                "step": In(1),
                "ready": Out(1),
                "chunk": Out(ceil_log2(parameters.vector_chunks)),
                "beat": Out(beat_layout(parameters)),
                "release": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Three nested counters: groups of rows, chunks, rows of the group."""
        m = Module()
        active = Signal()
        job = Signal(command_layout(self._parameters))
        rows_left = Signal.like(job.rows)  # of this group and those after it
        chunk = Signal.like(self.chunk)
        row = Signal(ceil_log2(self._parameters.accumulators))  # of the group
        last_group, last_chunk, last_row, end = Signal(), Signal(), Signal(), Signal()
        rows = Mux(last_group, rows_left, job.group)
        m.d.comb += [
            last_group.eq(rows_left <= job.group),
            last_chunk.eq(chunk == job.chunks - 1),
            last_row.eq(row == rows - 1),
            end.eq(last_group & last_chunk & last_row),
            self.ready.eq(active & self.vector_full),
            self.chunk.eq(chunk),
            self.beat.accumulator.eq(row),
            self.beat.first.eq(chunk == 0),
            self.beat.last.eq(last_chunk),
            self.beat.end.eq(end),
            self.release.eq(end & job.release),
            self.command.ready.eq(~active | (self.step & end)),
        ]
        with m.If(self.step):
            m.d.sync += row.eq(row + 1)
            with m.If(last_row):
                m.d.sync += [row.eq(0), chunk.eq(chunk + 1)]
                with m.If(last_chunk):
                    m.d.sync += [chunk.eq(0), rows_left.eq(rows_left - job.group)]
            with m.If(end):
                m.d.sync += active.eq(0)
        accept = Signal()
        m.d.comb += accept.eq(self.command.valid & self.command.ready)
        self._check(m, accept)
        always(m, implies(self.step, active), "sequencer: a beat is accepted without a job")
        always(m, implies(active, rows_left != 0), "sequencer: a job without rows is in work")
        always(m, implies(active, (chunk < job.chunks) & (row < rows)), "sequencer: a beat is outside its job")
        always(
            m, implies(~active, (chunk == 0) & (row == 0)), "sequencer: the next job does not start with its first beat"
        )
        with m.If(accept):
            m.d.sync += [active.eq(1), job.eq(self.command.p), rows_left.eq(self.command.p.rows)]
        return m

    def _check(self, m: Module, accept: Value) -> None:
        """Check that the command given is one that the tile can do."""
        limits = {
            "rows": self._parameters.max_rows,
            "chunks": self._parameters.vector_chunks,
            "group": self._parameters.accumulators,
        }
        for name, limit in limits.items():
            value = getattr(self.command.p, name)
            always_within(m, value, 1, limit, f"sequencer: {name} of the command given", where=accept)


class DotProductLanes(wiring.Component):
    """Multipliers, adder tree and accumulators.

    Members:
        advance: Whether the pipeline moves in this cycle; what enters is taken only then.
        valid: Whether a beat enters.
        weights, inputs: Its two factors, lane by lane.
        beat: Where its sum goes.
        results: Sums that are complete. ``advance`` is 0 while one waits.
    """

    def __init__(self, parameters: TileParameters) -> None:
        self._parameters = parameters
        super().__init__(
            {
                "advance": Out(1),
                "valid": In(1),
                "weights": In(lane_values(parameters.lanes)),
                "inputs": In(lane_values(parameters.lanes)),
                "beat": In(beat_layout(parameters)),
                "results": Out(stream.Signature(result_layout())),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """One register stage for the products, one for every two levels of adders, one for the accumulators."""
        m = Module()
        m.d.comb += self.advance.eq(~self.results.valid | self.results.ready)
        products = [weight * value for weight, value in zip(self.weights, self.inputs, strict=True)]
        terms, valid, beat = self._register(m, "products", products, self.valid, self.beat)
        for stage in range(self._parameters.tree_stages):
            terms, valid, beat = self._register(m, f"tree{stage}", _add_pairs(_add_pairs(terms)), valid, beat)
        (total,) = terms
        self._accumulate(m, total, valid, beat)
        return m

    def _register(
        self, m: Module, name: str, terms: list, valid: Signal, beat: data.View
    ) -> tuple[list[Signal], Signal, data.View]:
        """A pipeline stage: ``terms``, and what travels with them, one advance later."""
        registers = [Signal(term.shape(), name=f"{name}_{i}", reset_less=True) for i, term in enumerate(terms)]
        valid_register = Signal(name=f"{name}_valid")
        beat_register = Signal(beat_layout(self._parameters), name=f"{name}_beat", reset_less=True)
        with m.If(self.advance):
            m.d.sync += [register.eq(term) for register, term in zip(registers, terms, strict=True)]
            m.d.sync += [valid_register.eq(valid), beat_register.eq(beat)]
        return registers, valid_register, beat_register

    def _accumulate(self, m: Module, total: Signal, valid: Signal, beat: data.View) -> None:
        """Add ``total`` to its accumulator, and offer the sum if it is complete."""
        layout = data.ArrayLayout(signed(ACCUMULATOR_BITS), self._parameters.accumulators)
        accumulators = Signal(layout, reset_less=True)
        sum_ = Signal(signed(ACCUMULATOR_BITS))
        m.d.comb += sum_.eq(Mux(beat.first, 0, accumulators[beat.accumulator]) + total)
        exact = Mux(beat.first, 0, accumulators[beat.accumulator]) + total
        begun = Signal(self._parameters.accumulators)
        entering = self.advance & valid
        always(m, implies(entering, sum_ == exact), "lanes: a sum overflows its accumulator")
        always(
            m,
            implies(entering, begun.bit_select(beat.accumulator, 1) ^ beat.first),
            "lanes: a sum begins twice, or goes on without a beginning",
        )
        always(m, implies(entering & beat.end, beat.last), "lanes: a job ends in the midst of a sum")
        always_stable(
            m,
            "results",
            valid=self.results.valid,
            ready=self.results.ready,
            payload=self.results.p.as_value(),
        )
        with m.If(entering):
            m.d.sync += begun.bit_select(beat.accumulator, 1).eq(~beat.last)
        with m.If(self.advance):
            m.d.sync += self.results.valid.eq(valid & beat.last)
            with m.If(valid):
                m.d.sync += [
                    accumulators[beat.accumulator].eq(sum_),
                    self.results.p.value.eq(sum_),
                    self.results.p.last.eq(beat.end),
                ]


class PimTile(wiring.Component):
    """The tile: streams in, results out.

    Members:
        vector: Vectors, chunk by chunk (`vector_layout`).
        command: Jobs (`command_layout`).
        weights: Beats of weights in the order of `pim_model.tile.weight_beats`.
        results: A sum a row, in row order (`result_layout`).
    """

    def __init__(self, parameters: TileParameters) -> None:
        self._parameters = parameters
        super().__init__(
            {
                "vector": In(stream.Signature(vector_layout(parameters))),
                "command": In(stream.Signature(command_layout(parameters))),
                "weights": In(stream.Signature(lane_values(parameters.lanes))),
                "results": Out(stream.Signature(result_layout())),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Wire the parts, with the fetch stage: a beat waits there a cycle for its chunk out of the memory."""
        m = Module()
        m.submodules.buffer = buffer = VectorBuffer(self._parameters)
        m.submodules.sequencer = sequencer = GemvSequencer(self._parameters)
        m.submodules.lanes = lanes = DotProductLanes(self._parameters)
        wiring.connect(m, wiring.flipped(self.vector), buffer.vector)
        wiring.connect(m, wiring.flipped(self.command), sequencer.command)
        wiring.connect(m, lanes.results, wiring.flipped(self.results))

        accept = Signal()
        m.d.comb += [
            self.weights.ready.eq(sequencer.ready & lanes.advance),
            accept.eq(self.weights.valid & self.weights.ready),
            sequencer.vector_full.eq(buffer.full),
            sequencer.step.eq(accept),
            buffer.address.eq(sequencer.chunk),
            buffer.enable.eq(accept),
            buffer.release.eq(accept & sequencer.release),
        ]
        fetched = Signal()
        fetched_weights = Signal(lane_values(self._parameters.lanes), reset_less=True)
        fetched_beat = Signal(beat_layout(self._parameters), reset_less=True)
        with m.If(lanes.advance):
            m.d.sync += [
                fetched.eq(accept),
                fetched_weights.eq(self.weights.payload),
                fetched_beat.eq(sequencer.beat),
            ]
        m.d.comb += [
            lanes.valid.eq(fetched),
            lanes.weights.eq(fetched_weights),
            lanes.inputs.eq(buffer.chunk),
            lanes.beat.eq(fetched_beat),
        ]
        return m


def generate_verilog(parameters: TileParameters) -> str:
    """Verilog of `PimTile`, top module ``pim_tile``; the same text for the same parameters on every machine."""
    return to_verilog(PimTile(parameters), "pim_tile")


def _add_pairs(terms: list) -> list:
    """Sums of neighbours, half as many (one term stays as it is); each a bit wider, so nothing is lost."""
    if len(terms) == 1:
        return terms
    return [a + b for a, b in zip(terms[::2], terms[1::2], strict=True)]
