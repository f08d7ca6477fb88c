"""The PIM expert unit: one pseudo-channel's blocks at the banks, and the base die that runs experts on them.

::

                 ┌────────────────────────── base die ──────────────────────────────┐
    control ─────▶ RegisterFile ─▶ ProgramControl ─▶ Planner                         │
                 │                                     │ plan                        │
    x ───────────▶ InputReceiver ─▶ InputBuffer ◀──┐   ▼                             │
                 │                      │ LDI      │ Sequencer ──────────▶ row, column
    y ◀────────── OutputQueue ◀────────────── Epilogue ◀── readbacks                 │
                 └──────────────────────│─────────────────────▲──────────────────────┘
                                        ▼                     │
    column_data ────────────────▶ a BankBlock at every pair of banks
"""

from typing import Any

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from pim_model.unit.events import UnitCounter, UnitError
from pim_model.unit.parameters import ACCUMULATORS, LANE_LATENCY_CK, OCTET, READBACK_LATENCY_CK, UnitParameters
from pim_model.unit.program import ExpertKind, WeightFormat
from rtl.bus.axi_lite import AxiLiteSignature, AxiLiteSlave
from rtl.bus.axi_stream import AxiStreamSignature
from rtl.bus.counters import Counters
from rtl.checks import always, implies
from rtl.pim.address_map import ADDRESS_BITS
from rtl.pim.base_die.epilogue import Contents, Epilogue
from rtl.pim.base_die.input_buffer import InputBuffer, InputReceiver
from rtl.pim.base_die.layouts import (
    INPUTS_BITS,
    MOST_TOKENS,
    ColumnCommand,
    RowCommand,
    column_layout,
    column_port_layout,
    readback_layout,
    row_port_layout,
)
from rtl.pim.base_die.output_queue import BEAT_BITS, BEATS_OF_READBACK, OutputQueue
from rtl.pim.base_die.planner import Planner, planning_ck
from rtl.pim.base_die.program_control import ProgramControl
from rtl.pim.base_die.quantiser import WORD_BITS, shared_exponent
from rtl.pim.base_die.sequencer import Sequencer
from rtl.pim.block.block import BankBlock
from rtl.pim.block.layouts import COLUMN_BITS
from rtl.pim.register_file import RegisterFile
from rtl.pipeline import delayed
from rtl.verilog import Shared, to_verilog

_GATHER_CK = 1
"""From a block's showing a readback to the epilogue's receiving it."""

_PORT_CK = 1
"""From the decision for a command to its being on the bus."""

_DRAIN_CK = _PORT_CK + _GATHER_CK + Epilogue.HIDDEN_LATENCY + BEATS_OF_READBACK

START_CK = 2
"""Clocks from the write of START, as the register file sees it, to clock 0, beside those of planning; more where a
refresh is due or under way, or, with shared buses, to the first clock of a period."""

if BankBlock.LATENCY != LANE_LATENCY_CK:
    raise AssertionError(f"LANE_LATENCY_CK is {LANE_LATENCY_CK}, a block's latency {BankBlock.LATENCY}")
if _PORT_CK + _GATHER_CK + Epilogue.HIDDEN_LATENCY + BEATS_OF_READBACK != READBACK_LATENCY_CK:
    raise AssertionError(f"READBACK_LATENCY_CK is {READBACK_LATENCY_CK}; the circuits take another")


def start_ck(phases: int) -> int:
    """Clocks from the write of START, as the register file sees it, to clock 0: see ``START_CK``."""
    return planning_ck(phases) + START_CK


def tag_layout() -> data.StructLayout:
    """What travels with a readback to its results.

    Members: ``token``; ``element``: number of the first of its inputs of ``down``; ``last_pair``: the last of its pairs
    that has a row; ``last``: that pair is the program's last result.
    """
    return data.StructLayout(
        {"token": ceil_log2(MOST_TOKENS), "element": INPUTS_BITS, "last_pair": ceil_log2(BEATS_OF_READBACK), "last": 1}
    )


class PimUnit(wiring.Component):
    """Runs a descriptor: an expert slice, or a matrix, times one to four vectors.

    All commands stand on ``row`` and ``column`` one clock after the clock in which ``pim_model.unit.schedule`` has
    them. ``column_data`` is expected CL clocks after a PIM stood on the port, block 0's 32 bytes lowest.

    Members:
        control: Registers, see ``rtl.pim.address_map``.
        x: Input vectors: 16 BF16 of one token a beat; chunk by chunk, in it token by token; TLAST with the last.
        y: Results: two FP32 of neighbouring rows a beat, in the order of the readbacks; TKEEP where the second is no
            row; TLAST with the last. A packet that ends with an empty beat (TKEEP 0) is one that was cut short.
        row, column, column_data: The memory.
        interrupt: See CONTROL.
    """

    def __init__(self, parameters: UnitParameters) -> None:
        self.parameters = parameters
        super().__init__(
            {
                "control": In(AxiLiteSignature(ADDRESS_BITS)),
                "x": In(AxiStreamSignature(WORD_BITS)),
                "y": Out(AxiStreamSignature(BEAT_BITS, keep=True)),
                "row": Out(row_port_layout(parameters)),
                "column": Out(column_port_layout(parameters)),
                "column_data": In(COLUMN_BITS * parameters.blocks.blocks),
                "interrupt": Out(1),
            }
        )
        self._slave = AxiLiteSlave(ADDRESS_BITS)
        self._registers = RegisterFile(parameters)
        self._control = ProgramControl(parameters.timings.read_latency + _DRAIN_CK)
        self._planner = Planner(parameters)
        self._sequencer = Sequencer(parameters)
        self._receiver = InputReceiver(parameters)
        self._buffer = InputBuffer(parameters)
        self._epilogue = Epilogue(tag_layout().size)
        self._queue = OutputQueue(parameters)
        self._counters = Counters(UnitCounter)

    def elaborate(self, platform: object) -> Module:
        """Connect the parts; delay what goes to and comes from the blocks."""
        m = Module()
        m.submodules.slave = self._slave
        m.submodules.registers = self._registers
        m.submodules.program_control = self._control
        m.submodules.planner = self._planner
        m.submodules.sequencer = self._sequencer
        m.submodules.receiver = self._receiver
        m.submodules.buffer = self._buffer
        m.submodules.epilogue = self._epilogue
        m.submodules.queue = self._queue
        m.submodules.counters = self._counters
        wiring.connect(m, wiring.flipped(self.control), self._slave.bus)
        wiring.connect(m, self._slave.registers, self._registers.registers)
        wiring.connect(m, wiring.flipped(self.x), self._receiver.stream)
        wiring.connect(m, self._queue.stream, wiring.flipped(self.y))
        m.d.comb += [
            self.row.eq(self._sequencer.row),
            self.column.eq(self._sequencer.column),
            self.interrupt.eq(self._registers.interrupt),
        ]
        self._program(m)
        self._inputs(m)
        readouts = self._blocks(m)
        self._results(m, readouts)
        self._count(m)
        return m

    def _program(self, m: Module) -> None:
        """Registers, control, planner and sequencer."""
        registers, control, planner, sequencer = self._registers, self._control, self._planner, self._sequencer
        receiver = self._receiver
        errors = {
            UnitError.DESCRIPTOR: planner.refused,
            UnitError.SHORT_INPUT: receiver.short,
            UnitError.LONG_INPUT: receiver.long,
            UnitError.REFRESH: sequencer.refresh_overdue,
            UnitError.NONFINITE: self._buffer.nonfinite | self._epilogue.nonfinite,
        }
        with m.If(sequencer.started):
            m.d.sync += registers.refresh_at_start.eq(sequencer.refresh_left)
        m.d.comb += [
            planner.descriptor.eq(registers.descriptor),
            planner.start.eq(control.plan),
            control.start.eq(registers.start),
            control.abort.eq(registers.abort),
            control.failed.eq(receiver.short | receiver.long),
            control.planned.eq(planner.ready),
            control.refused.eq(planner.refused),
            control.begun.eq(sequencer.started),
            control.finished.eq(sequencer.done),
            control.all_out.eq(self._queue.empty),
            sequencer.plan.eq(planner.plan),
            sequencer.start.eq(control.begin),
            sequencer.cancel.eq(control.cancel),
            sequencer.refresh_enable.eq(registers.refresh_enable),
            registers.busy.eq(control.busy),
            registers.dropping.eq(receiver.dropping),
            registers.done.eq(control.done),
            registers.aborted.eq(control.aborted),
            registers.refusal.eq(planner.refusal),
            *(registers.errors[error].eq(cause) for error, cause in errors.items()),
        ]

    def _inputs(self, m: Module) -> None:
        """From the stream and the epilogue to the buffer, and from there to the blocks."""
        control, sequencer, receiver, buffer = self._control, self._sequencer, self._receiver, self._buffer
        plan, hidden = self._planner.plan, self._epilogue.hidden
        tag = data.View(tag_layout(), hidden.tag)
        m.d.comb += [
            receiver.last_token.eq(plan.last_token),
            receiver.inputs.eq(plan.phases[0].inputs),
            receiver.start.eq(control.receive),
            receiver.cancel.eq(control.cancel),
            sequencer.x_chunks.eq(receiver.chunks),
            sequencer.x_complete.eq(receiver.complete),
            buffer.plan.eq(plan),
            buffer.start.eq(control.receive),
            *(getattr(buffer, name).eq(getattr(receiver, name)) for name in ("beat", "chunk", "token", "word")),
            buffer.computed.valid.eq(hidden.valid),
            buffer.computed.token.eq(tag.token),
            buffer.computed.element.eq(tag.element + hidden.pair),
            buffer.computed.value.eq(hidden.value),
            buffer.load_valid.eq(self._on_bus(ColumnCommand.LDI)),
            buffer.load.eq(sequencer.load_info),
        ]

    def _on_bus(self, command: Any) -> Value:
        column = self._sequencer.column
        return column.valid & (column.command == command)

    def _blocks(self, m: Module) -> Value:
        """The blocks; returns what is read back from the one that is asked, as it is asked."""
        sequencer, plan = self._sequencer, self._planner.plan
        latency = self.parameters.timings.read_latency
        column_tag = Signal(data.StructLayout({"valid": 1, "column": column_layout()}))
        m.d.comb += [column_tag.valid.eq(self._on_bus(ColumnCommand.PIM)), column_tag.column.eq(sequencer.column_info)]
        column = delayed(m, "column_arrives", column_tag, latency, reset_less=False)
        readback_tag = Signal(self._readback_tag())
        m.d.comb += [
            readback_tag.valid.eq(self._on_bus(ColumnCommand.RDA)),
            readback_tag.readback.eq(sequencer.readback_info),
        ]
        self._asked = asked = delayed(m, "readback_arrives", readback_tag, latency, reset_less=False)

        octets = ceil_log2(ACCUMULATORS // OCTET)
        of_token = Array(asked.readback.token << (octets - log2) for log2 in range(octets + 1))[plan.log2_slots]
        line = Cat((of_token | asked.readback.octet)[:octets], asked.readback.bank)
        readouts = []
        for number in range(self.parameters.blocks.blocks):
            m.submodules[f"block{number}"] = block = Shared(BankBlock, "pim_bank_block")
            m.d.comb += [
                block.column.valid.eq(column.valid),
                block.column.kind.eq(column.column.kind),
                block.column.weight_format.eq(plan.format),
                block.column.log2_tokens.eq(plan.log2_slots),
                block.column.first.eq(column.column.first),
                block.column.index.eq(column.column.index),
                block.column.bank.eq(column.column.bank),
                block.column.register.eq(column.column.register),
                block.column_data.eq(self.column_data.word_select(number, COLUMN_BITS)),
                block.load.eq(self._buffer.register_load),
                block.select.valid.eq(asked.valid & (asked.readback.block == number)),
                block.select.constants.eq(asked.readback.constants),
                block.select.line.eq(Mux(asked.readback.constants, asked.readback.index, line)),
            ]
            readouts.append(block.readout)
        return Array(readouts)[asked.readback.block]

    def _readback_tag(self) -> data.StructLayout:
        return data.StructLayout({"valid": 1, "readback": readback_layout(self.parameters)})

    def _results(self, m: Module, readout: Value) -> None:
        """From a block to the epilogue, and from there to the queue."""
        plan, queue, outputs = self._planner.plan, self._queue, self._epilogue.outputs
        arrives = self._epilogue.readback
        gathered = Signal(COLUMN_BITS, reset_less=True)
        m.d.sync += gathered.eq(readout)
        tag = delayed(m, "gathered", self._asked, _GATHER_CK, reset_less=False)
        readback = tag.readback
        feeds = plan.two_phases & (readback.phase == 0)
        is_int8 = plan.format == WeightFormat.INT8
        element = Signal(INPUTS_BITS)
        with m.If(tag.valid & feeds & readback.last_token):
            m.d.sync += element.eq(element + (readback.valid_rows >> 1))
        with m.If(self._control.receive):
            m.d.sync += element.eq(0)
        given = Signal(tag_layout())
        fields = self._buffer.fields[readback.phase][readback.token[0]]
        scales = Mux(readback.index[2], Contents.BIASES, Contents.SCALES)
        m.d.comb += [
            given.token.eq(readback.token),
            given.element.eq(element),
            given.last_pair.eq((readback.valid_rows - 1)[1:3]),
            given.last.eq(readback.last),
            arrives.valid.eq(tag.valid),
            arrives.contents.eq(Mux(readback.constants, scales, Contents.ACCUMULATORS)),
            arrives.data.eq(gathered),
            arrives.weight_format.eq(plan.format),
            arrives.bias.eq(plan.phases[readback.phase].bias),
            arrives.power.eq(Mux(is_int8, shared_exponent(fields), 0)),
            arrives.kind.eq(Mux(feeds, plan.kind, ExpertKind.NONE)),
            arrives.valid_rows.eq(readback.valid_rows),
            arrives.tag.eq(given),
        ]
        out = data.View(tag_layout(), outputs.tag)
        # Room is reserved as a readback is issued.
        issued = self._sequencer.readback_info
        brings = self._on_bus(ColumnCommand.RDA) & ~issued.constants & ~(plan.two_phases & (issued.phase == 0))
        m.d.comb += [
            self._sequencer.output_room.eq(queue.room),
            queue.reserve.eq(Mux(brings, (issued.valid_rows + 1) >> 1, 0)),
            queue.push.eq(outputs.valid & ~self._control.ending),
            queue.beat.data.eq(Cat(outputs.even, Mux(outputs.both, outputs.odd.as_value(), 0))),
            queue.beat.keep.eq(Mux(outputs.both, 0xFF, 0x0F)),
            queue.beat.last.eq(out.last & (outputs.pair == out.last_pair)),
            queue.flush.eq(self._control.flush),
            queue.end.eq(self._control.end_packet),
        ]
        always(
            m,
            implies(self._epilogue.hidden.valid | outputs.valid, self._control.busy),
            "unit: a result without a program",
        )

    def _count(self, m: Module) -> None:
        """Feed the counters."""
        sequencer, counters = self._sequencer, self._counters
        row = sequencer.row

        def on_row(*commands: Any) -> Value:
            return row.valid & Cat(row.command == command for command in commands).any()

        increments = {
            UnitCounter.PROGRAMS: self._control.done,
            UnitCounter.ACTIVATES: on_row(RowCommand.ACT),
            UnitCounter.CLOSES: on_row(RowCommand.PREH, RowCommand.PREAB),
            UnitCounter.REFRESHES: on_row(RowCommand.REFAB),
            UnitCounter.COLUMNS: self._on_bus(ColumnCommand.PIM),
            UnitCounter.LOADS: self._on_bus(ColumnCommand.LDI),
            UnitCounter.READBACKS: self._on_bus(ColumnCommand.RDA),
            UnitCounter.BUSY_CLOCKS: self._control.busy,
            UnitCounter.INPUT_WAIT_CLOCKS: sequencer.waits_for_inputs,
            UnitCounter.OUTPUT_WAIT_CLOCKS: sequencer.waits_for_output,
            UnitCounter.ROW_WAIT_CLOCKS: sequencer.waits_for_rows,
        }
        m.d.comb += [
            counters.clear.eq(self._registers.clear_counters),
            self._registers.counters.eq(counters.values),
            *(counters.increments[counter.name.lower()].eq(value) for counter, value in increments.items()),
        ]


def generate_verilog(parameters: UnitParameters) -> str:
    """The unit as Verilog, top module ``pim_unit``; the same text on every machine."""
    return to_verilog(PimUnit(parameters), "pim_unit")
