"""Payloads of the stager's ports, for the limits that it is generated with.

A key is a struct of layer and expert; ``layer · experts + expert`` is its number, in whose order keys are compared.
"""

from amaranth.hdl import signed, unsigned
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out
from pydantic import Field, model_validator

from catalog.config import StrictModel
from staging.stager.answers import StagerCounters
from staging.stager.limits import StagerLimits

COUNTER_BITS = 32
COUNTERS = tuple(StagerCounters.__dataclass_fields__)
"""Their names, in the twin's order."""

TRIES_BITS = 4
"""Of the count of failed transfers of a demand, and of the register that limits them."""


class Command(enum.Enum, shape=4):  # type: ignore[call-arg]
    """What the stager is told; each is the method of that name of the twin."""

    SET_VALUES = 0
    """``layer``; the values are read through the port ``values`` meanwhile."""
    DEMAND = 1
    """``layer``, ``count``, ``experts``, ``option``: resident_only."""
    RELEASE = 2
    """``layer``, ``count``, ``experts``: all of them demanded before."""
    PREFETCH = 3
    """``layer``, ``count``, ``experts``, ``chances``, ``deadline``."""
    EXPIRE = 4
    """``deadline``."""
    GRANT = 5
    """The link is free, nothing moves."""
    PREEMPT = 6
    """Something moves."""
    ARRIVE = 7
    """Something moves, and is complete."""
    FAIL = 8
    """Something moves, and failed."""
    PRELOAD = 9
    """``layer``, ``count``, ``experts``."""
    FIX = 10
    """``layer``, ``count``, ``experts``, ``option``: fixed from now on, or not any more."""
    CLEAR = 11
    """Forget everything, counters too: as a new twin. The first command after power-up, and after new shares."""


class ActionKind(enum.Enum, shape=4):  # type: ignore[call-arg]
    """``staging.stager.answers.Kind``, in its order."""

    HIT = 0
    WAIT = 1
    PROMOTE = 2
    HOLD = 3
    QUEUE = 4
    REFUSE = 5
    DROP = 6
    PAUSE = 7
    EVICT = 8
    ELSEWHERE = 9


class ActionWhy(enum.Enum, shape=4):  # type: ignore[call-arg]
    """``staging.stager.answers.Why``, in its order, after the code of no reason."""

    NONE = 0
    LATE = 1
    FAR = 2
    FULL = 3
    USELESS = 4
    WORTH = 5
    PLACE = 6
    SHARE = 7
    RELEASED = 8
    FAILED = 9


class StagerShape(StrictModel):
    """What a stager's circuit is generated with.

    Attributes:
        limits: the twin's. One channel; ``lanes`` a power of two. ``layers``, ``experts`` and ``spare`` are the most
            that the registers may say; how many places are used, shares and spare say.
        named_experts: the most that one command names.
    """

    limits: StagerLimits
    named_experts: int = Field(default=8, ge=1)

    @model_validator(mode="after")
    def _check(self) -> "StagerShape":
        limits = self.limits
        if limits.channels != 1:
            raise ValueError(f"channels: {limits.channels}; the circuit has 1")
        if limits.lanes & (limits.lanes - 1):
            raise ValueError(f"lanes: {limits.lanes}; give a power of two")
        if self.named_experts < limits.event_experts:
            raise ValueError(
                f"named_experts: {self.named_experts}; give event_experts ({limits.event_experts}) or more"
            )
        return self

    @property
    def layer_bits(self) -> int:
        """Of a layer's number."""
        return max(1, (self.limits.layers - 1).bit_length())

    @property
    def expert_bits(self) -> int:
        """Of an expert's number."""
        return max(1, (self.limits.experts - 1).bit_length())

    @property
    def all_places(self) -> int:
        """Places, the spare ones too."""
        return self.limits.places + self.limits.spare

    @property
    def place_bits(self) -> int:
        """Of a place's number, and of the one behind the last, which stands for ``NO_PLACE``."""
        return max(1, self.all_places.bit_length())

    @property
    def held_bits(self) -> int:
        """Of a number of places."""
        return max(1, self.all_places.bit_length())

    @property
    def pin_bits(self) -> int:
        """Of the pins of a key, and of all."""
        return self.limits.most_pins.bit_length()

    @property
    def time_bits(self) -> int:
        """Of a value (signed) or a chance (unsigned) times its scale."""
        return self.limits.value_bits + self.limits.scale_bits

    @property
    def worth_bits(self) -> int:
        """Of a worth, signed; the difference of two has one more."""
        return self.time_bits + 2

    @property
    def deadline_code_bits(self) -> int:
        """Of a deadline as it is kept: one more than told, 0 for none."""
        return self.limits.deadline_bits + 1

    @property
    def lane_bits(self) -> int:
        """Of a lane's number; may be 0."""
        return (self.limits.lanes - 1).bit_length()

    @property
    def word_bits(self) -> int:
        """Of a word's number in its layer; may be 0."""
        return (self.words - 1).bit_length()

    @property
    def directory_words(self) -> int:
        """Of the directory's memories."""
        return self.limits.layers << self.word_bits

    @property
    def address_bits(self) -> int:
        """Of a word's address in the directory: the layer above the word in the layer."""
        return self.layer_bits + self.word_bits

    @property
    def words(self) -> int:
        """Of the directory that a layer takes: ``lanes`` entries each."""
        return -(-self.limits.experts // self.limits.lanes)


def key_layout(shape: StagerShape) -> data.StructLayout:
    """A key: an expert of a layer."""
    return data.StructLayout({"expert": unsigned(shape.expert_bits), "layer": unsigned(shape.layer_bits)})


def command_layout(shape: StagerShape) -> data.StructLayout:
    """A command; what its kind does not use is ignored (see ``Command``). ``deadline``: all ones never passes."""
    return data.StructLayout(
        {
            "kind": Command,
            "layer": unsigned(shape.layer_bits),
            "count": range(shape.named_experts + 1),
            "experts": data.ArrayLayout(unsigned(shape.expert_bits), shape.named_experts),
            "chances": data.ArrayLayout(unsigned(shape.limits.value_bits), shape.named_experts),
            "deadline": unsigned(shape.limits.deadline_bits),
            "option": 1,
        }
    )


def action_layout(shape: StagerShape) -> data.StructLayout:
    """What happened to an expert, in the cycle where ``valid``: an answer's ``Action``.

    ``placed``: the expert holds ``place``, or has just lost it; otherwise ``place`` is the number behind the last.
    """
    return data.StructLayout(
        {
            "valid": 1,
            "kind": ActionKind,
            "why": ActionWhy,
            "key": key_layout(shape),
            "placed": 1,
            "place": unsigned(shape.place_bits),
        }
    )


def transfer_layout(shape: StagerShape) -> data.StructLayout:
    """An answer's ``Transfer``; ``NO_PLACE`` is the number behind the last place; ``evicts``: there is a victim."""
    return data.StructLayout(
        {
            "valid": 1,
            "key": key_layout(shape),
            "place": unsigned(shape.place_bits),
            "evicts": 1,
            "victim": key_layout(shape),
            "demanded": 1,
        }
    )


def done_layout(shape: StagerShape) -> data.StructLayout:
    """A command's last cycle, where ``valid``.

    ``transfer`` of GRANT (not valid: nothing to move). ``stopped`` of PREEMPT: it was paused or dropped. ``rejected``
    of PRELOAD: one was not absent, or its group had no place left; the others were loaded.
    """
    return data.StructLayout(
        {"valid": 1, "kind": Command, "transfer": transfer_layout(shape), "stopped": 1, "rejected": 1}
    )


def settings_layout(shape: StagerShape) -> data.StructLayout:
    """The registers (``StagerSettings``); all but ``background`` stay as they are from CLEAR on.

    ``layers`` and ``experts``: in use, 1 or more. ``by_layer``: every layer has a share of its own; otherwise that of
    layer 0 is the share of the group of all. ``horizon``: all ones: none is too far.
    """
    limits = shape.limits
    return data.StructLayout(
        {
            "layers": range(limits.layers + 1),
            "experts": range(limits.experts + 1),
            "by_layer": 1,
            "spare": range(limits.spare + 1) if limits.spare else unsigned(1),
            "value_scale": unsigned(limits.scale_bits),
            "chance_scale": unsigned(limits.scale_bits),
            "price": unsigned(limits.scale_bits),
            "horizon": unsigned(limits.deadline_bits),
            "by_recency": 1,
            "background": 1,
            "retries": unsigned(TRIES_BITS),
        }
    )


def counters_layout() -> data.StructLayout:
    """``StagerCounters``; each wraps."""
    return data.StructLayout({name: unsigned(COUNTER_BITS) for name in COUNTERS})


def entry_layout(shape: StagerShape) -> data.StructLayout:
    """An entry of the directory without its value: what can be known of a key.

    ``deadline``: one more than told, so that 0 is none.
    """
    limits = shape.limits
    return data.StructLayout(
        {
            "status": unsigned(2),
            "placed": 1,
            "place": unsigned(shape.place_bits),
            "pins": unsigned(shape.pin_bits),
            "fixed": 1,
            "unused": 1,
            "chance": unsigned(shape.time_bits),
            "deadline": unsigned(shape.deadline_code_bits),
            "last": unsigned(limits.stamp_bits),
        }
    )


def waiting_layout(shape: StagerShape) -> data.StructLayout:
    """An entry of the queue.

    ``deadline``: as in the directory. ``worth``: value and chance, which lies ahead of all that is not demanded.
    """
    return data.StructLayout(
        {
            "key": key_layout(shape),
            "demanded": 1,
            "placed": 1,
            "deadline": unsigned(shape.deadline_code_bits),
            "worth": signed(shape.worth_bits),
            "tries": unsigned(TRIES_BITS),
        }
    )


class ValuesSignature(wiring.Signature):
    """Where SET_VALUES reads: ``lanes`` values, those from expert ``word · lanes`` on, in the cycle after ``read``."""

    def __init__(self, shape: StagerShape) -> None:
        values = data.ArrayLayout(signed(shape.limits.value_bits), shape.limits.lanes)
        super().__init__({"read": Out(1), "word": Out(range(max(2, shape.words))), "values": In(values)})


class ShareWriteSignature(wiring.Signature):
    """A write of a share, while the stager is idle; CLEAR follows."""

    def __init__(self, shape: StagerShape) -> None:
        super().__init__({"valid": Out(1), "layer": Out(shape.layer_bits), "share": Out(shape.held_bits)})


class LookSignature(wiring.Signature):
    """``read`` an entry while the stager is idle: it and its value answer ``key`` two cycles later, and stay."""

    def __init__(self, shape: StagerShape) -> None:
        super().__init__(
            {
                "read": Out(1),
                "key": Out(key_layout(shape)),
                "entry": In(entry_layout(shape)),
                "value": In(signed(shape.time_bits)),
            }
        )


class QueueSignature(wiring.Signature):
    """The queue, the earliest that came first, for whoever observes the stager."""

    def __init__(self, shape: StagerShape) -> None:
        depth = shape.limits.queue_depth
        super().__init__(
            {
                "waiting": Out(range(depth + 2)),
                "keys": Out(data.ArrayLayout(key_layout(shape), depth)),
                "demanded": Out(depth),
            }
        )


class StagerSignature(wiring.Signature):
    """All ports of the stager.

    ``commands`` is ready while the stager is idle: then a command is taken, and its answers (``actions``, ``done``)
    follow before the next is. ``busy``: a command runs. The other levels are as the last command that is done left
    them: ``demand_waits``, a demand is in the queue; ``queue_empty``; ``moving``, something is on the link;
    ``moving_demanded``, and a gate waits for it.
    """

    def __init__(self, shape: StagerShape) -> None:
        super().__init__(
            {
                "commands": In(stream.Signature(command_layout(shape))),
                "done": Out(done_layout(shape)),
                "actions": Out(action_layout(shape)),
                "values": Out(ValuesSignature(shape)),
                "settings": In(settings_layout(shape)),
                "shares": In(ShareWriteSignature(shape)),
                "look": In(LookSignature(shape)),
                "queue": Out(QueueSignature(shape)),
                "counters": Out(counters_layout()),
                "demand_waits": Out(1),
                "queue_empty": Out(1, init=1),
                "moving": Out(1),
                "moving_demanded": Out(1),
                "busy": Out(1),
            }
        )
