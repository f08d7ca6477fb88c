"""The sums of both heads: rows are added as routing becomes known, by one adder, a row a clock."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from typing_extensions import override

from predictor.row_network.config import MAX_DECAY
from predictor.row_network.integers import FRACTION_BITS
from predictor.row_network.limits import NetLimits
from predictor.row_network.program import DECAYS_MAX, Memory
from predictor.row_network.sum_cycles import SUM_CLOCKS, TRAIL_CLOCKS
from rtl.checks import always
from rtl.pipeline import stages
from rtl.prefetch.net.layouts import ROW_BITS, command_layout, pass_layout, settings_layout
from rtl.prefetch.net.scores.layouts import HEADS, load_layout, sums_layout
from rtl.prefetch.net.scores.memory import LoadedMemory
from rtl.prefetch.net.sums.fetcher import Fetcher
from rtl.prefetch.net.sums.issuer import Issuer, banks
from rtl.prefetch.net.sums.lanes import SUM_BITS, SumLane, control_layout
from rtl.product import product
from rtl.ram import Ram
from rtl.register_slice import RegisterSlice
from rtl.verilog import Shared

_SUM_WRITTEN = SUM_CLOCKS - 1
"""Clocks from a slot to its sum in the memory, or at the scores."""
_TRAIL_WRITTEN = TRAIL_CLOCKS - 1
"""Clocks from a slot that finishes a decayed sum to its trail in the memory: the end of the pipeline."""


class Sums(wiring.Component):
    """What every slot of the batch has added up, for each layer of each head.

    A slot of the pipeline is issued in clock 0, and its row read; in 2 its sum is read, in 3 the row is shifted, in 4
    added; in 5 the sum is written, or shown. What finishes a decayed sum reads that in 4 and writes it in 9, and its
    trail in 9 and 12 (`predictor.row_network.sum_cycles`).

    Members:
        commands: see `SumsKind`.
        now: sums that were asked for, with their trail, a word a clock.
        settings: of each head; they hold still while there is work.
        busy: there is work.
    """

    def __init__(self, limits: NetLimits) -> None:
        self.limits = limits
        super().__init__(
            {
                "commands": In(stream.Signature(command_layout(limits))),
                "now": Out(data.StructLayout({"valid": 1, "sums": sums_layout(limits)})),
                "settings": In(settings_layout()).array(HEADS),
                "load": In(load_layout(limits)),
                "busy": Out(1),
            }
        )

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        limits = self.limits
        m.submodules.fetcher = fetcher = Fetcher(limits)
        m.submodules.issuer = issuer = Issuer(limits)
        wiring.connect(m, wiring.flipped(self.commands), fetcher.commands)
        m.submodules.between = between = RegisterSlice(pass_layout(limits))
        wiring.connect(m, fetcher.passes, between.into)
        wiring.connect(m, between.out, issuer.passes)
        m.d.comb += fetcher.load.eq(self.load)
        for head in range(HEADS):
            m.d.comb += [
                fetcher.settings[head].eq(self.settings[head]),
                issuer.settings[head].eq(self.settings[head]),
            ]
        at = stages(m, "slot", issuer.slot, _TRAIL_WRITTEN, reset_less=False)
        identities = stages(m, "identity", issuer.identity, 2)
        addresses = stages(m, "addresses", _addresses(m, limits, issuer.slot), _TRAIL_WRITTEN)

        rows, sums, decayed, trails = [], [], [], []
        totals, afters, trailed = (
            [Signal(signed(SUM_BITS), name=f"{name}{lane}") for lane in range(limits.lanes)]
            for name in ("total", "after", "trailed")
        )
        for head, own in enumerate(limits.heads):
            lanes = limits.word_lanes(head)
            mine = [slot.valid & (slot.head == head) for slot in at]
            m.submodules[f"rows{head}"] = row = LoadedMemory(limits, ROW_BITS * lanes, own.row_words)
            m.d.comb += [
                row.read.eq(mine[0] & at[0].adds),
                row.address.eq(at[0].row),
                row.load.eq(self.load),
                row.selected.eq((self.load.head == head) & (self.load.memory == Memory.ROWS)),
            ]
            rows.append(row.word)
            layer_words = limits.layers * limits.words(head)
            shape = data.ArrayLayout(signed(SUM_BITS), lanes)

            def memory(
                name: str, count: int, reads: Signal, read_at: int, writes: Signal, written_at: int,
                value: list[Signal], *, head: int = head, lanes: int = lanes, layer_words: int = layer_words,
                shape: data.ArrayLayout = shape,
            ) -> data.View:  # fmt: skip
                words = m.submodules[f"{name}{head}"] = Ram(shape.size, max(2, count * layer_words), collisions=False)
                m.d.comb += [
                    words.read.eq(reads),
                    words.read_address.eq(addresses[read_at][name]),
                    words.write.eq(writes),
                    words.write_address.eq(addresses[written_at][name]),
                    words.write_data.eq(Cat(value[:lanes])),
                ]
                return shape(words.read_data)

            sums.append(
                memory(
                    "sums", banks(limits, head) * limits.slots, mine[2] & at[2].first & ~at[2].chains, 2,
                    mine[5] & at[5].writes, 5,
                    totals,
                )
            )  # fmt: skip
            decayed.append(
                memory(
                    "decayed", own.decays * limits.slots, mine[4] & at[4].finishes, 4, mine[9] & at[9].finishes, 9,
                    afters,
                )
            )  # fmt: skip

            # The trail is read where a sum is asked for, and where a decayed sum enters it: never both in a clock.
            asked, entered = mine[1] & at[1].trail, mine[9] & at[9].finishes
            words = m.submodules[f"trails{head}"] = Ram(
                shape.size, max(2, limits.slots * layer_words), collisions=False
            )
            m.d.comb += [
                words.read.eq(asked | entered),
                words.read_address.eq(Mux(entered, addresses[9].trails, addresses[1].trails)),
                words.write.eq(mine[12] & at[12].finishes),
                words.write_address.eq(addresses[12].trails),
                words.write_data.eq(Cat(trailed[:lanes])),
            ]
            trails.append(shape(words.read_data))

        # One register takes both: the issuer keeps them apart.
        together = at[2].valid & at[2].trail & at[10].valid & at[10].finishes
        always(m, ~together, "net: two trails are wanted at once")

        # Shifts of the decayed sum that is finished.
        shifts = [Signal(4, name=f"decay_{head}") for head in range(HEADS)]
        for head, shift in enumerate(shifts):
            with m.Switch(at[4].decay):
                for index in range(DECAYS_MAX):
                    with m.Case(index):
                        m.d.comb += shift.eq(self.settings[head][f"decay{index}"])
        decay = stages(m, "decay", _chosen(m, "decay", at[4].head, shifts), 5)
        half, trail_half = Signal(MAX_DECAY), Signal(FRACTION_BITS)
        trail_shift = Signal(range(FRACTION_BITS + 1))
        rights = [Signal.like(trail_shift, name=f"right{n}") for n in (8, 9)]
        m.d.comb += [right.eq(FRACTION_BITS - (decay[n - 4] >> 1)) for right, n in zip(rights, (8, 9), strict=True)]
        m.d.sync += [
            half.eq((1 << decay[0]) >> 1),
            trail_half.eq((1 << rights[0]) >> 1),
            trail_shift.eq(rights[1]),
        ]

        control = Signal(control_layout())
        entering = at[10].finishes
        m.d.comb += [
            control.row_head.eq(at[2].head),
            control.identity.eq(at[2].identity),
            control.held_head.eq(at[3].head),
            control.begins.eq(at[3].begins),
            control.before_head.eq(at[5].head),
            control.keeps_before.eq(at[5].finishes),
            control.first_before.eq(at[5].first_token),
            control.trail_head.eq(Mux(entering, at[10].head, at[2].head)),
            control.first_trail.eq(entering & at[10].starts),
            control.shift.eq(at[3].shift),
            control.adds.eq(at[3].adds | at[3].identity),
            control.trails.eq(at[3].trail),
            control.no_trail.eq(
                at[3].first_token | ~_chosen(m, "trails", at[3].head, [settings.trails for settings in self.settings])
            ),
            control.moves.eq(at[4].valid),
            control.loads.eq(at[4].first & (~at[4].chains | at[4].begins)),
            control.half.eq(half),
            control.decay.eq(decay[3]),
            control.trail_half.eq(trail_half),
            control.trail_shift.eq(trail_shift),
        ]
        for lane in range(limits.lanes):
            part = m.submodules[f"lane{lane}"] = Shared(SumLane, "net_sum_lane")
            m.d.comb += [
                part.control.eq(control),
                part.identity.eq(identities[2].word_select(lane, ROW_BITS)),
                totals[lane].eq(part.total),
                afters[lane].eq(part.after),
                trailed[lane].eq(part.trailed),
                self.now.sums.sums[lane].eq(part.total),
            ]
            for head in range(HEADS):
                if lane < limits.word_lanes(head):
                    m.d.comb += [
                        part.rows[head].eq(rows[head].word_select(lane, ROW_BITS)),
                        part.sums[head].eq(sums[head][lane]),
                        part.decayed[head].eq(decayed[head][lane]),
                        part.trails[head].eq(trails[head][lane]),
                    ]
        under_way = Signal()  # a slot
        m.d.sync += under_way.eq(
            Cat(slot.valid for slot in at[:_SUM_WRITTEN]).any()
            | Cat(slot.valid & slot.finishes for slot in at[_SUM_WRITTEN:_TRAIL_WRITTEN]).any()
        )
        m.d.comb += [
            self.now.valid.eq(at[5].valid & at[5].trail),
            self.now.sums.head.eq(at[5].head),
            self.now.sums.word.eq(at[5].word),
            self.now.sums.last.eq(at[5].last),
            self.busy.eq(~fetcher.idle | ~between.empty | ~issuer.idle | under_way),
        ]
        return m


def _addresses(m: Module, limits: NetLimits, slot: data.View) -> data.View:
    """Where a slot's word lies in its head's memories of sums, of decayed sums and of trails."""
    banked = {
        "sums": slot.bank,
        "decayed": product(slot.decay, limits.slots) + slot.batch_slot,
        "trails": slot.batch_slot,
    }
    found = {}
    for name, bank in banked.items():
        own = [product(bank, limits.layers * limits.words(head)) + slot.place for head in range(HEADS)]
        found[name] = own[0] if limits.words(0) == limits.words(1) else Mux(slot.head, own[1], own[0])
    view = Signal(data.StructLayout({name: unsigned(len(value)) for name, value in found.items()}), name="addresses")
    m.d.comb += [view[name].eq(value) for name, value in found.items()]
    return view


def _chosen(m: Module, name: str, head: Signal, values: list) -> Signal:
    """The value of a head."""
    found = Signal.like(next(value for value in values if isinstance(value, Value)), name=name)
    m.d.comb += found.eq(Mux(head, values[1], values[0]))
    return found
