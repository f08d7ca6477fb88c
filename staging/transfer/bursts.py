"""The legaliser: which bursts of AXI4 a run of bytes becomes."""

from dataclasses import dataclass

from staging.transfer.limits import LENGTH_BITS, TransferLimits


@dataclass(frozen=True, slots=True)
class Burst:
    """One burst of whole beats.

    Attributes:
        address: of its first beat, in bytes, a multiple of the beat.
        beats: how many.
    """

    address: int
    beats: int


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Bytes to move; any alignment and size. The two runs must not overlap.

    Attributes:
        source, destination: addresses of the first byte.
        bytes: how many.
    """

    source: int
    destination: int
    bytes: int

    def is_legal(self, limits: TransferLimits) -> bool:
        """Whether there is a byte, and all bytes have an address."""
        space = 1 << limits.address_bits
        return 0 < self.bytes < 1 << LENGTH_BITS and max(self.source, self.destination) + self.bytes <= space


def legalise(address: int, length: int, limits: TransferLimits) -> list[Burst]:
    """The bursts that cover ``length`` bytes from ``address`` on, ascending.

    A burst ends where the bytes end or at a multiple of ``limits.burst_beats`` beats, whichever comes first: so it
    crosses no multiple of 4 KiB and has no more beats than AXI4 allows.

    Raises:
        ValueError: for no bytes, or an address below 0.
    """
    if length < 1 or address < 0:
        raise ValueError(f"legalise: {length} bytes from address {address}")
    beat, end = address // limits.data_bytes, -(-(address + length) // limits.data_bytes)
    bursts = []
    while beat < end:
        after = min(end, (beat // limits.burst_beats + 1) * limits.burst_beats)
        bursts.append(Burst(beat * limits.data_bytes, after - beat))
        beat = after
    return bursts
