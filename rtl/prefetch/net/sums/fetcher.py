"""Commands to the sums become passes: those of a layer's program, or of the text."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.memory import Memory as Words
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.row_network.limits import HeadLimits, NetLimits
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
        # In registers: whether what is offered is the command's last pass, as the handshakes hang on it, and whether it
        # is of the program, whose memory answers late.
        last_counted, single, of_program = Signal(), Signal(), Signal()
        sources = Signal(MATCHED_MAX)
        counted_layer = Signal.like(told.layer)
        # What is told is kept, and looked up, in every clock that would take it: who tells it may find out late.
        ready, taken, last = Signal(), Signal(), Signal()
        m.d.comb += [taken.eq(self.passes.valid & self.passes.ready)]

        operations, ends, matched, records, shifts = [], [], [], [], []
        for head, own in enumerate(limits.heads):
            gate, end, rows, record, shift = self._memories(m, head)
            operations.append(gate.data)
            ends.append(end.data)
            matched.append(rows.data)
            records.append(record.data)
            shifts.append(shift.data)
            m.d.comb += [
                gate.en.eq(ready | taken),
                gate.addr.eq(
                    Mux(
                        ready,
                        Cat((told.kind == SumsKind.REST) | Const(0, place_bits(own)), told.layer),
                        Cat(place | Const(0, place_bits(own)), command.layer),
                    )
                ),
                end.en.eq(ready),
                end.addr.eq(told.layer),
                rows.en.eq(state == _State.MATCHED),
                rows.addr.eq(command.layer * MATCHED_MAX + _lowest(sources)),
                record.addr.eq(told.index),
                record.en.eq(ready),
                shift.addr.eq(told.layer),
                shift.en.eq(ready),
            ]

        def chosen(values: list[data.View], name: str) -> data.View:
            found = Signal.like(values[0], name=name)
            m.d.comb += found.eq(Mux(command.head, values[1], values[0]))
            return found

        operation, end, row = chosen(operations, "operation"), chosen(ends, "end"), chosen(matched, "row")
        settings = Signal(settings_layout())
        m.d.comb += settings.eq(Mux(command.head, self.settings[1], self.settings[0]))
        mask = Signal(MATCHED_MAX)
        m.d.comb += mask.eq(Mux(command.head, records[1], records[0]))

        # What is offered.
        m.d.comb += [
            offered.head.eq(command.head),
            offered.slot.eq(command.slot),
            offered.experts.eq(command.experts),
            offered.data.eq(command.data),
            offered.target.eq(command.layer),
            last.eq(last_counted | (single & end.first)),
        ]
        with m.If(of_program):
            m.d.comb += [
                offered.fresh.eq(operation.fresh),
                offered.index.eq(operation.index),
                offered.target.eq(operation.target),
                offered.rows.eq(operation.rows & (command.recorded | (command.held & ~operation.now))),
                offered.base.eq(operation.base),
                offered.shift.eq(operation.shift),
                offered.begins.eq(operation.begins),
                offered.finishes.eq(operation.finishes),
                offered.starts.eq(operation.starts),
                offered.asks.eq(command.kind == SumsKind.ASK),
                offered.ends.eq((command.kind == SumsKind.REST) & last & (command.layer + 1 == settings.layers)),
            ]
        with m.Else(), m.Switch(command.kind):
            with m.Case(SumsKind.SHOW):
                m.d.comb += offered.asks.eq(1)
            with m.Case(SumsKind.IDENTITY):
                m.d.comb += [
                    offered.identity.eq(1),
                    offered.word.eq(command.word),
                    offered.shift.eq(Mux(command.head, *(shifts[head][command.index[:3]] for head in (1, 0)))),
                ]
            with m.Case(SumsKind.RECORD):
                m.d.comb += [
                    offered.rows.eq(1),
                    offered.base.eq(row.base),
                    offered.shift.eq(row.shift),
                ]
            with m.Case(SumsKind.CLEAR):
                m.d.comb += [
                    offered.target.eq(counted_layer),
                    offered.begins.eq(Begins.EVERY_TOKEN),
                    offered.clears.eq(1),
                ]

        # Commands and their passes.
        m.d.comb += [
            self.passes.valid.eq(state == _State.PASSES),
            self.idle.eq(state == _State.IDLE),
            ready.eq((state == _State.IDLE) | (taken & last)),
            self.commands.ready.eq(ready),
        ]
        following = sources & (sources - 1)
        with m.If(taken):
            m.d.sync += [place.eq(place + 1), counted_layer.eq(counted_layer + 1), single.eq(0)]
            with m.If(command.kind == SumsKind.REST):
                m.d.sync += last_counted.eq(place == end.place)
            with m.Else():
                m.d.sync += last_counted.eq(counted_layer + 2 == settings.layers)
            with m.If(last):
                m.d.sync += state.eq(_State.IDLE)
            with m.Elif(command.kind == SumsKind.RECORD):
                m.d.sync += state.eq(_State.MATCHED)
        with m.If(state == _State.MASK):
            m.d.sync += [sources.eq(mask), state.eq(Mux(mask.any(), _State.MATCHED, _State.IDLE))]
        with m.If(state == _State.MATCHED):
            m.d.sync += [sources.eq(following), last_counted.eq(following == 0), state.eq(_State.PASSES)]
        with m.If(ready):
            m.d.sync += [
                command.eq(told),
                place.eq(Mux(told.kind == SumsKind.REST, 2, 1)),
                counted_layer.eq(0),
                single.eq(told.kind == SumsKind.REST),
                of_program.eq((told.kind == SumsKind.ASK) | (told.kind == SumsKind.REST)),
            ]
            with m.Switch(told.kind):
                with m.Case(SumsKind.REST):
                    m.d.sync += last_counted.eq(0)
                with m.Case(SumsKind.CLEAR):
                    layers = Mux(told.head, self.settings[1].layers, self.settings[0].layers)
                    m.d.sync += last_counted.eq(layers == 1)
                with m.Default():
                    m.d.sync += last_counted.eq(1)
            with m.If(self.commands.valid):
                m.d.sync += state.eq(Mux(told.kind == SumsKind.RECORD, _State.MASK, _State.PASSES))
        always(
            m,
            implies(taken & (command.kind == SumsKind.REST) & ~last, place != 0),
            "net: a gate's program has no end",
        )
        return m

    def _memories(self, m: Module, head: int) -> tuple:
        """Read ports of a head's gate program, the ends of its gates, matched sources, records, identities' shifts."""
        limits, own, load = self.limits, self.limits.heads[head], self.load
        written = load.valid & (load.head == head)
        narrow = {"base": row_address_bits(limits), "target": counting(limits.layers)}

        def kept(fields: tuple[tuple[str, int], ...], *others: str) -> tuple[data.StructLayout, data.View]:
            """Of an entry's ``fields``: those that are kept, as narrow as they may be; the entry that is loaded."""
            layout = {name: narrow.get(name, bits) for name, bits in fields if name not in others}
            whole = data.View(data.StructLayout(dict(fields)), load.data[: sum(bits for _, bits in fields)])
            return data.StructLayout(layout), whole

        def memory(name: str, shape: Any, depth: int) -> Words:
            words = m.submodules[f"{name}{head}"] = Words(shape=shape, depth=max(2, depth), init=[])
            return words

        # Places of the program that this net does not have are not used, and not kept.
        fields, operation = kept(OPERATION, "last")
        place, beyond = load.address[: place_bits(own)], load.address[place_bits(own) : (OPERATIONS - 1).bit_length()]
        layer = load.address[(OPERATIONS - 1).bit_length() :]
        is_operation = written & (load.memory == Memory.GATE_PROGRAM) & (beyond == 0)
        gate = memory("gate_program", data.StructLayout({**fields.members, "now": 1}), limits.layers * own.operations)
        to = gate.write_port()
        m.d.comb += [
            to.en.eq(is_operation),
            to.addr.eq(Cat(place, layer)),
            *(to.data[name].eq(operation[name]) for name in fields.members),
            to.data.now.eq(~operation.fresh & (operation.index == 0)),
        ]

        end = memory("gate_ends", data.StructLayout({"place": len(place), "first": 1}), limits.layers)
        to = end.write_port()
        m.d.comb += [
            to.en.eq(is_operation & operation.last),
            to.addr.eq(layer),
            to.data.place.eq(place),
            to.data.first.eq(place == 1),
        ]

        fields, source = kept(MATCHED_SUM)
        matched = memory("matched", fields, limits.layers * MATCHED_MAX)
        to = matched.write_port()
        m.d.comb += [
            to.en.eq(written & (load.memory == Memory.MATCHED)),
            to.addr.eq(load.address),
            *(to.data[name].eq(source[name]) for name in fields.members),
        ]

        records = memory("records", unsigned(MATCHED_MAX), limits.records)
        to = records.write_port()
        m.d.comb += [
            to.en.eq(written & (load.memory == Memory.RECORDS) & (load.address < limits.records)),
            to.addr.eq(load.address),
            to.data.eq(load.data),
        ]

        # A layer's shifts are one word: which of them counts is known with the command.
        shifts = memory("identity_shifts", data.ArrayLayout(SHIFT_BITS, IDENTITIES_MAX), limits.layers)
        to = shifts.write_port(granularity=1)
        age = load.address[: (IDENTITIES_MAX - 1).bit_length()]
        m.d.comb += [
            to.en.eq(Mux(written & (load.memory == Memory.IDENTITY_SHIFTS), Const(1, IDENTITIES_MAX) << age, 0)),
            to.addr.eq(load.address[len(age) :]),
            to.data.eq(load.data[:SHIFT_BITS].replicate(IDENTITIES_MAX)),
        ]
        return tuple(words.read_port() for words in (gate, end, matched, records, shifts))


def place_bits(limits: HeadLimits) -> int:
    """Bits of an operation's place in a layer's program."""
    return (limits.operations - 1).bit_length()


def _lowest(bits: Signal) -> Signal:
    """Place of the lowest bit that is set."""
    place = 0
    for bit in reversed(range(len(bits))):
        place = Mux(bits[bit], bit, place)
    return place
