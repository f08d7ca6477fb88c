"""Payloads of the DMA's streams, for its limits; the twin is ``staging.transfer``."""

from amaranth.hdl import unsigned
from amaranth.lib import data, enum

from rtl.prefetch.stager.layouts import StagerShape
from staging.transfer.limits import LENGTH_BITS, TransferError, TransferLimits

ERROR_BITS = max(TransferError).bit_length()
SILENCE_BITS = 20
SHARE_BITS = 9


def descriptor_layout(limits: TransferLimits) -> data.StructLayout:
    """What is to move, as ``staging.transfer.bursts.Descriptor``."""
    return data.StructLayout(
        {
            "source": unsigned(limits.address_bits),
            "destination": unsigned(limits.address_bits),
            "bytes": unsigned(LENGTH_BITS),
        }
    )


def run_layout(limits: TransferLimits) -> data.StructLayout:
    """The beats in which a run of bytes lies: the first one's number, and how many."""
    offset = limits.offset_bits
    return data.StructLayout(
        {"beat": unsigned(limits.address_bits - offset), "beats": unsigned(LENGTH_BITS + 1 - offset)}
    )


def burst_layout(limits: TransferLimits) -> data.StructLayout:
    """A burst: its first beat's address, its beats less one, and whether it is the last of its run."""
    return data.StructLayout({"address": unsigned(limits.address_bits), "length": unsigned(8), "last": 1})


def record_layout(limits: TransferLimits) -> data.StructLayout:
    """How a descriptor's beats are realigned: places in a beat of the first byte, there and here."""
    offset = unsigned(limits.offset_bits)
    return data.StructLayout({"source": offset, "destination": offset, "bytes": unsigned(LENGTH_BITS)})


def beat_layout(limits: TransferLimits) -> data.StructLayout:
    """A beat to write."""
    return data.StructLayout({"data": unsigned(8 * limits.data_bytes), "strobe": unsigned(limits.data_bytes)})


def slot_bits(limits: TransferLimits) -> int:
    """Bits of a descriptor's number among those under way."""
    return max(1, (limits.descriptors - 1).bit_length())


def error_layout(limits: TransferLimits) -> data.StructLayout:
    """An error of the descriptor in ``slot``."""
    return data.StructLayout({"valid": 1, "slot": unsigned(slot_bits(limits)), "code": unsigned(ERROR_BITS)})


class LinkRequest(enum.Enum, shape=2):  # type: ignore[call-arg]
    """What the link tells the stager."""

    ARRIVE = 0
    FAIL = 1
    PREEMPT = 2
    GRANT = 3


def link_request_layout() -> data.StructLayout:
    """See ``LinkRequest``."""
    return data.StructLayout({"kind": LinkRequest})


def moving_layout(shape: StagerShape) -> data.StructLayout:
    """What moves over the link, and to which place; the one behind the last, if the stager gave it none."""
    return data.StructLayout(
        {
            "layer": unsigned(shape.layer_bits),
            "expert": unsigned(shape.expert_bits),
            "place": unsigned(shape.place_bits),
        }
    )


def link_settings_layout(limits: TransferLimits, shape: StagerShape) -> data.StructLayout:
    """What the registers tell the link; all but the last three hold still while it is busy.

    ``experts``: of a layer. ``expert_bytes``: of each, 1 or more. The others are addresses, distances and a chunk's
    bytes (as a power of two) in bytes, and ``staging.transfer.limits.TransferSettings``.
    """
    return data.StructLayout(
        {
            "experts": range(shape.limits.experts + 1),
            "expert_bytes": unsigned(LENGTH_BITS),
            "expert_base": unsigned(limits.address_bits),
            "expert_stride": unsigned(LENGTH_BITS),
            "staging_base": unsigned(limits.address_bits),
            "staging_stride": unsigned(LENGTH_BITS),
            "chunk_log2": unsigned(5),
            "outstanding": range(limits.outstanding + 1),
            "share": unsigned(SHARE_BITS),
            "silence": unsigned(SILENCE_BITS),
        }
    )


def transfer_errors_layout() -> data.StructLayout:
    """Errors of transfers, each 1 for a cycle: of a descriptor, a read, the order of beats, a write."""
    return data.StructLayout({"descriptor": 1, "read": 1, "last": 1, "write": 1})
