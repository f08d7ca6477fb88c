"""Commands to the sums become passes: those of a layer's program, or of the text."""

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.memory import Memory as Words
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.row_network.limits import NetLimits
from predictor.row_network.program import (
    IDENTITIES_MAX,
    MATCHED_MAX,
    MATCHED_SUM,
    OPERATION,
    OPERATIONS,
    Begins,
    Memory,
)
from rtl.checks import always, implies
from rtl.prefetch.net.layouts import (
    SHIFT_BITS,
    SumsKind,
    command_layout,
    pass_layout,
    row_address_bits,
    settings_layout,
)
from rtl.prefetch.net.scores.layouts import HEADS, counting, load_layout


class _State(enum.Enum, shape=2):  # type: ignore[call-arg]
    IDLE = 0
    """No command, or its last pass is taken in this clock."""
    PASSES = 1
    """A pass is offered in every clock."""
    MASK = 2
    """The sources that read the record are known."""
    MATCHED = 3
    """The rows of one of them are looked up."""


class Fetcher(wiring.Component):
    """Holds both heads' programs. A pass is offered in the clock after its command was taken, of a record three clocks
    after; then one in every clock (of a record: in every second), as they are taken. A command is taken in the clock in
    which the last pass of the one before is.

    A record that no source of the head reads is done in the second clock after it was taken.

    Members:
        idle: there is no command.
        settings: of each head; they hold still while there are commands.
    """

    def __init__(self, limits: NetLimits) -> None:
        self.limits = limits
        super().__init__(
            {
                "commands": In(stream.Signature(command_layout(limits))),
                "passes": Out(stream.Signature(pass_layout(limits))),
                "idle": Out(1),
                "settings": In(settings_layout()).array(HEADS),
                "load": In(load_layout(limits)),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        limits, offered = self.limits, self.passes.payload
        told, command = self.commands.payload, Signal(command_layout(limits))
        state = Signal(_State)
        place = Signal(range(max(head.operations for head in limits.heads)))  # of the operation that is offered next
        sources = Signal(MATCHED_MAX)
        counted_layer = Signal.like(told.layer)
        # What is told is kept, and looked up, in every clock that would take it: who tells it may find out late.
        ready, taken, last = Signal(), Signal(), Signal()
        m.d.comb += [taken.eq(self.passes.valid & self.passes.ready)]

        operations, matched, records, shifts = [], [], [], []
        for head, own in enumerate(limits.heads):
            gate, rows, record, shift = self._memories(m, head)
            operations.append(gate.data)
            matched.append(rows.data)
            records.append(record.data)
            shifts.append(shift.data)
            m.d.comb += [
                gate.en.eq(ready | taken),
                gate.addr.eq(
                    Mux(
                        ready,
                        told.layer * own.operations + (told.kind == SumsKind.REST),
                        command.layer * own.operations + place,
                    )
                ),
                rows.en.eq(state == _State.MATCHED),
                rows.addr.eq(command.layer * MATCHED_MAX + _lowest(sources)),
                record.addr.eq(told.index),
                record.en.eq(ready),
                shift.addr.eq(told.layer * IDENTITIES_MAX + told.index[:3]),
                shift.en.eq(ready),
            ]

        def chosen(values: list[data.View], name: str) -> data.View:
            found = Signal.like(values[0], name=name)
            m.d.comb += found.eq(Mux(command.head, values[1], values[0]))
            return found

        operation, row = chosen(operations, "operation"), chosen(matched, "row")
        settings = Signal(settings_layout())
        m.d.comb += settings.eq(Mux(command.head, self.settings[1], self.settings[0]))
        mask = Signal(MATCHED_MAX)
        m.d.comb += mask.eq(Mux(command.head, records[1], records[0]))

        # What is offered.
        now = ~operation.fresh & (operation.index == 0)
        m.d.comb += [
            offered.head.eq(command.head),
            offered.slot.eq(command.slot),
            offered.experts.eq(command.experts),
            offered.data.eq(command.data),
            offered.target.eq(command.layer),
            last.eq(1),
        ]
        with m.Switch(command.kind):
            with m.Case(SumsKind.ASK, SumsKind.REST):
                m.d.comb += [
                    offered.fresh.eq(operation.fresh),
                    offered.index.eq(operation.index),
                    offered.target.eq(operation.target),
                    offered.rows.eq(operation.rows & (command.recorded | (command.held & ~now))),
                    offered.base.eq(operation.base),
                    offered.shift.eq(operation.shift),
                    offered.begins.eq(operation.begins),
                    offered.finishes.eq(operation.finishes),
                    offered.starts.eq(operation.starts),
                ]
                with m.If(command.kind == SumsKind.ASK):
                    m.d.comb += offered.asks.eq(1)
                with m.Else():
                    m.d.comb += [
                        last.eq(operation.last),
                        offered.ends.eq(operation.last & (command.layer + 1 == settings.layers)),
                    ]
            with m.Case(SumsKind.SHOW):
                m.d.comb += offered.asks.eq(1)
            with m.Case(SumsKind.IDENTITY):
                m.d.comb += [
                    offered.identity.eq(1),
                    offered.word.eq(command.word),
                    offered.shift.eq(Mux(command.head, shifts[1], shifts[0])),
                ]
            with m.Case(SumsKind.RECORD):
                m.d.comb += [
                    offered.rows.eq(1),
                    offered.base.eq(row.base),
                    offered.shift.eq(row.shift),
                    last.eq(sources == 0),
                ]
            with m.Case(SumsKind.CLEAR):
                m.d.comb += [
                    offered.target.eq(counted_layer),
                    offered.begins.eq(Begins.EVERY_TOKEN),
                    offered.clears.eq(1),
                    last.eq(counted_layer + 1 == settings.layers),
                ]

        # Commands and their passes.
        m.d.comb += [
            self.passes.valid.eq(state == _State.PASSES),
            self.idle.eq(state == _State.IDLE),
            ready.eq((state == _State.IDLE) | (taken & last)),
            self.commands.ready.eq(ready),
        ]
        with m.If(taken):
            m.d.sync += [place.eq(place + 1), counted_layer.eq(counted_layer + 1)]
            with m.If(last):
                m.d.sync += state.eq(_State.IDLE)
            with m.Elif(command.kind == SumsKind.RECORD):
                m.d.sync += state.eq(_State.MATCHED)
        with m.If(state == _State.MASK):
            m.d.sync += [sources.eq(mask), state.eq(Mux(mask.any(), _State.MATCHED, _State.IDLE))]
        with m.If(state == _State.MATCHED):
            m.d.sync += [sources.eq(sources & (sources - 1)), state.eq(_State.PASSES)]
        with m.If(ready):
            m.d.sync += [
                command.eq(told),
                place.eq(Mux(told.kind == SumsKind.REST, 2, 1)),
                counted_layer.eq(0),
            ]
            with m.If(self.commands.valid):
                m.d.sync += state.eq(Mux(told.kind == SumsKind.RECORD, _State.MASK, _State.PASSES))
        always(
            m,
            implies(taken & (command.kind == SumsKind.REST) & ~last, place != 0),
            "net: a gate's program has no end",
        )
        return m

    def _memories(self, m: Module, head: int) -> tuple:
        """Read ports of a head's gate program, matched sources, records and shifts of identities."""
        limits, own, load = self.limits, self.limits.heads[head], self.load
        places = limits.layers * own.operations
        written = load.valid & (load.head == head)
        base = row_address_bits(limits)
        narrow = {"base": base, "target": counting(limits.layers)}
        operation = data.StructLayout({name: narrow.get(name, bits) for name, bits in OPERATION})
        matched = data.StructLayout({name: narrow.get(name, bits) for name, bits in MATCHED_SUM})
        gate = m.submodules[f"gate_program{head}"] = Words(shape=operation, depth=places, init=[])
        rows = m.submodules[f"matched{head}"] = Words(shape=matched, depth=limits.layers * MATCHED_MAX, init=[])
        record = m.submodules[f"records{head}"] = Words(shape=unsigned(MATCHED_MAX), depth=limits.records, init=[])
        shift = m.submodules[f"identity_shifts{head}"] = Words(
            shape=unsigned(SHIFT_BITS), depth=limits.layers * IDENTITIES_MAX, init=[]
        )
        kept = (own.operations - 1).bit_length()
        beyond = (OPERATIONS - 1).bit_length()
        for memory, number, fields, fits, address in (
            # Places of the program that this net does not have are not used, and not kept.
            (
                gate, Memory.GATE_PROGRAM, OPERATION, load.address[kept:beyond] == 0,
                Cat(load.address[:kept], load.address[beyond:]),
            ),
            (rows, Memory.MATCHED, MATCHED_SUM, 1, load.address),
            (record, Memory.RECORDS, None, load.address < limits.records, load.address),
            (shift, Memory.IDENTITY_SHIFTS, None, 1, load.address),
        ):  # fmt: skip
            port = memory.write_port()
            m.d.comb += [
                port.en.eq(written & (load.memory == number) & fits),
                port.addr.eq(address),
            ]
            if fields is None:
                m.d.comb += port.data.eq(load.data)
            else:
                whole = data.View(data.StructLayout(dict(fields)), load.data[: sum(bits for _, bits in fields)])
                m.d.comb += [port.data[name].eq(whole[name]) for name, _ in fields]
        return gate.read_port(), rows.read_port(), record.read_port(), shift.read_port()


def _lowest(bits: Signal) -> Signal:
    """Place of the lowest bit that is set."""
    place = 0
    for bit in reversed(range(len(bits))):
        place = Mux(bits[bit], bit, place)
    return place
