"""Payloads of the prefetch engine's own streams: events in, what they ask of the stager, notices out.

An expert is named by its layer and its number in it. A place is that of the staging buffer; the one behind the last
(``places + spare`` of ``StagerLimits``) is where an expert without a place lands.
"""

from amaranth.hdl import unsigned
from amaranth.lib import data, enum

from predictor.engine.events import DOMAIN_BITS, ROW_BITS, EventKind
from predictor.engine.limits import PrefetchEngineLimits
from predictor.engine.notices import NoticeKind
from rtl.prefetch.stager.layouts import StagerShape

IDENTITY_BITS = 32
CHANCE_BITS = 16


class UrgentKind(enum.Enum, shape=2):  # type: ignore[call-arg]
    """What an event asks of the stager at once."""

    DEMAND = 0
    RELEASE = 1
    EXPIRE = 2


def bits_of(count: int) -> int:
    """Bits of a number below ``count``; a signal has at least one."""
    return max(1, (count - 1).bit_length())


def experts_layout(limits: PrefetchEngineLimits) -> data.ArrayLayout:
    """The experts of one gate, in rank order; those beyond the configured top-k are ignored."""
    return data.ArrayLayout(unsigned(bits_of(limits.experts_max)), limits.top_k_max)


def event_layout(limits: PrefetchEngineLimits) -> data.StructLayout:
    """As ``predictor.engine.events``; what an event's kind does not use is ignored."""
    return data.StructLayout(
        {
            "kind": unsigned(max(EventKind).bit_length()),
            "slot": unsigned(bits_of(limits.slots_max)),
            "layer": unsigned(bits_of(limits.layers_max)),
            "first": 1,
            "last": 1,
            "starts_sequence": 1,
            "known": 1,
            "identity": unsigned(IDENTITY_BITS),
            "row": unsigned(ROW_BITS),
            "domain": unsigned(DOMAIN_BITS),
            "experts": experts_layout(limits),
        }
    )


def urgent_layout(limits: PrefetchEngineLimits) -> data.StructLayout:
    """What an event asks of the stager at once; ``experts`` and ``count`` of a demand."""
    return data.StructLayout(
        {
            "kind": UrgentKind,
            "slot": unsigned(bits_of(limits.slots_max)),
            "layer": unsigned(bits_of(limits.layers_max)),
            "count": unsigned(bits_of(limits.top_k_max + 1)),
            "experts": experts_layout(limits),
            "deadline": unsigned(limits.deadline_bits),
        }
    )


def known_event_layout(limits: PrefetchEngineLimits) -> data.StructLayout:
    """An event for the predictor, with the deadline of its step's layer 0."""
    return data.StructLayout({"event": event_layout(limits), "step": unsigned(limits.deadline_bits)})


def notice_layout(limits: PrefetchEngineLimits) -> data.StructLayout:
    """As ``predictor.engine.notices``; ``wanted`` of ARRIVED: a slot waited for it."""
    return data.StructLayout(
        {
            "kind": unsigned(max(NoticeKind).bit_length()),
            "slot": unsigned(bits_of(limits.slots_max)),
            "layer": unsigned(bits_of(limits.layers_max)),
            "expert": unsigned(bits_of(limits.experts_max)),
            "place": unsigned(place_bits(limits)),
            "wanted": 1,
        }
    )


def stager_shape(limits: PrefetchEngineLimits) -> StagerShape:
    """The stager of an engine: a command names the experts of a gate or of a prediction."""
    return StagerShape(limits=limits.stager, named_experts=max(limits.net.prefetched_max, limits.top_k_max))


def prediction_layout(limits: PrefetchEngineLimits) -> data.StructLayout:
    """What a predictor tells: the experts of a layer that are wanted at a deadline, of most chance first."""
    named = stager_shape(limits).named_experts
    return data.StructLayout(
        {
            "layer": unsigned(bits_of(limits.layers_max)),
            "count": unsigned(bits_of(named + 1)),
            "experts": data.ArrayLayout(unsigned(bits_of(limits.experts_max)), named),
            "chances": data.ArrayLayout(unsigned(CHANCE_BITS), named),
            "deadline": unsigned(limits.deadline_bits),
        }
    )


def values_layout(limits: PrefetchEngineLimits) -> data.StructLayout:
    """That the values of a layer's experts wait to be read."""
    return data.StructLayout({"layer": unsigned(bits_of(limits.layers_max))})


class HostRequest(enum.Enum, shape=2):  # type: ignore[call-arg]
    """What the host tells the stager through registers."""

    PRELOAD = 0
    """The expert is at its place already."""
    FIX = 1
    """The expert never gives way."""
    UNFIX = 2
    """The expert may give way again."""
    CLEAR = 3
    """Forget everything; after new settings, before anything else."""


def host_request_layout(limits: PrefetchEngineLimits) -> data.StructLayout:
    """See ``HostRequest``; the expert of those that name one."""
    return data.StructLayout(
        {
            "kind": HostRequest,
            "layer": unsigned(bits_of(limits.layers_max)),
            "expert": unsigned(bits_of(limits.experts_max)),
        }
    )


def place_bits(limits: PrefetchEngineLimits) -> int:
    """Of a place's number, the landing place included."""
    return bits_of(limits.places + limits.spare + 1)
