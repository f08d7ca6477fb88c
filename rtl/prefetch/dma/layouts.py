"""Payloads of the DMA's streams, for its limits; the twin is ``staging.transfer``."""

from amaranth.hdl import unsigned
from amaranth.lib import data

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
    """A run of bytes."""
    return data.StructLayout({"address": unsigned(limits.address_bits), "bytes": unsigned(LENGTH_BITS)})


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
