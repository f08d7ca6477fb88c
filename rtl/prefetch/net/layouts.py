"""What the parts of the net tell each other, for a net's limits."""

from amaranth.hdl import unsigned
from amaranth.lib import data, enum

from predictor.row_network.limits import NetLimits
from predictor.row_network.program import LAYER, LONGEST_SHIFT, SETTINGS, Begins
from rtl.prefetch.net.scores.layouts import HEADS, counting

ROW_BITS = 8
SHIFT_BITS = LONGEST_SHIFT.bit_length()
INDEX_BITS = 7


class SumsKind(enum.Enum, shape=3):  # type: ignore[call-arg]
    """What the sums are told.

    ``ASK`` and ``REST``: the gate of ``layer`` chose ``experts``: place 0 of its program, whose target is then asked
    for; the other places, of the last layer with the end of the token. ``SHOW``: ``layer`` is asked for. ``IDENTITY``:
    a ``word`` of the row of age ``index`` of ``layer``. ``RECORD``: what ``layer`` chose in record ``index`` of the
    log. ``CLEAR``: a sequence begins.
    """

    ASK = 0
    REST = 1
    SHOW = 2
    IDENTITY = 3
    RECORD = 4
    CLEAR = 5


def experts_layout(limits: NetLimits) -> data.ArrayLayout:
    """The experts that a gate chose, in its order."""
    return data.ArrayLayout(counting(limits.experts), limits.top_k)


def settings_layout() -> data.StructLayout:
    """A head's settings, as they are loaded (`program.HeadSettings`)."""
    return data.StructLayout({name: unsigned(bits) for name, bits in SETTINGS})


def command_layout(limits: NetLimits) -> data.StructLayout:
    """A command to the sums.

    Members:
        recorded: of a gate, ``experts`` are its choice; else, where ``held``, the last one that was recorded.
        index: record of the log, or age of the identity.
        word, data: of the row of an identity.
    """
    words = max(limits.words(head) for head in range(HEADS))
    return data.StructLayout(
        {
            "kind": SumsKind,
            "head": 1,
            "slot": counting(limits.slots),
            "layer": counting(limits.layers),
            "recorded": 1,
            "held": 1,
            "experts": experts_layout(limits),
            "index": INDEX_BITS,
            "word": counting(words),
            "data": ROW_BITS * limits.lanes,
        }
    )


def row_address_bits(limits: NetLimits) -> int:
    """Bits of a word's place in the larger memory of rows."""
    return max((head.row_words - 1).bit_length() for head in limits.heads)


def pass_layout(limits: NetLimits) -> data.StructLayout:
    """A pass over the words of a sum: the same rows are added to each.

    Members:
        fresh, index, target, base, shift, begins, finishes, starts: as `program.Operation`.
        rows: rows of ``experts`` are added.
        asks: its sums are shown, with the trail.
        clears: the slot's sequence begins; ends: its token ends.
        identity: ``data`` is added to ``word`` alone.
    """
    words = max(limits.words(head) for head in range(HEADS))
    return data.StructLayout(
        {
            "head": 1,
            "slot": counting(limits.slots),
            "fresh": 1,
            "index": 3,
            "target": counting(limits.layers),
            "rows": 1,
            "base": row_address_bits(limits),
            "shift": SHIFT_BITS,
            "begins": range(max(Begins) + 1),
            "finishes": 1,
            "starts": 1,
            "asks": 1,
            "clears": 1,
            "ends": 1,
            "identity": 1,
            "word": counting(words),
            "experts": experts_layout(limits),
            "data": ROW_BITS * limits.lanes,
        }
    )


class NetEventKind(enum.Enum, shape=1):  # type: ignore[call-arg]
    """What the net is told."""

    TOKEN = 0
    GATE = 1


def net_event_layout(limits: NetLimits, deadline_bits: int) -> data.StructLayout:
    """A token that begins, or a gate that has chosen, as in `predictor.engine.events`.

    Members:
        first, last: of the slots that run together.
        known: the choice ``experts`` was recorded.
        step: deadline of the step's layer 0.
    """
    return data.StructLayout(
        {
            "kind": NetEventKind,
            "slot": counting(limits.slots),
            "layer": counting(limits.layers),
            "first": 1,
            "last": 1,
            "starts_sequence": 1,
            "known": 1,
            "experts": experts_layout(limits),
            "step": unsigned(deadline_bits),
        }
    )


class ItemKind(enum.Enum, shape=2):  # type: ignore[call-arg]
    """What the memory of the text tells, as `predictor.row_network.program` says."""

    IDENTITY = 0
    RECORD = 1
    END = 2


def item_layout(limits: NetLimits) -> data.StructLayout:
    """What was read for a token: see `command_layout`; the end of it."""
    command = command_layout(limits)
    names = ("layer", "experts", "index", "word", "data")
    return data.StructLayout({"kind": ItemKind, **{name: command[name].shape for name in names}})


def layer_layout(limits: NetLimits) -> data.StructLayout:
    """A layer's shifts, and where its words lie, as `program.LAYER`."""
    return data.StructLayout({name: unsigned(bits) for name, bits in LAYER})
