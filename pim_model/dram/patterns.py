"""Patterns of reads from one pseudo-channel, and what the controller makes of them.

A read is one burst. With G bank groups a stack ID, B banks a group, S stack IDs and C bursts a row, read i goes to:

=============  ==============================================================================================
sequential     group i mod G; the next burst of its row after every round of groups; the next bank of every group
               after C bursts of each, then the next stack ID, then the next row
bank-group     group 0 of stack ID 0, bank i mod B, whose one row is read round and round: row hits alone
one-bank       bank 0, the bursts of a row in turn; the next row after C reads
conflict       bank 0, a new row each
random         independent, uniform bank, row (of `ROWS`) and burst
rotate         a new row each; banks in turn, consecutive reads in different groups: groups first, then banks of a
               group, then stack IDs
=============  ==============================================================================================

Which burst of a row is read costs nothing, so requests do not say it. Rows are counted modulo `ROWS`.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from catalog import DramRecord, ForestageError
from pim_model.dram.commands import Command
from pim_model.dram.controller import QUEUE, Requests, schedule
from pim_model.dram.devices import channel_geometry

ROWS = 1 << 14
"""Rows of a bank that the patterns use: those of 8 Gb a channel with 16 banks in each of two pseudo-channels."""

BYTES_MAX = 1 << 26
"""Longest stream: the controller takes some seconds for it, and cycles a read have long settled."""


class Pattern(StrEnum):
    """Where consecutive reads go."""

    SEQUENTIAL = "sequential"
    BANK_GROUP = "bank-group"
    ONE_BANK = "one-bank"
    CONFLICT = "conflict"
    RANDOM = "random"
    ROTATE = "rotate"


@dataclass(frozen=True, kw_only=True)
class PatternStream:
    """Reads of a pattern from one pseudo-channel.

    Attributes:
        device: Name of the device.
        pattern: Where the reads go.
        size_bytes: Bytes asked for.
        reads: Bursts that hold them.
        refresh: Whether all banks are refreshed every tREFI.
        queue: Requests that the controller holds.
        seed: Of the random pattern; None for others.
        cycles_ck: Clocks from the first read command to the last, plus those of one burst.
        activations: ACT commands.
        refreshes: REFab commands up to the last read.
        burst_ck: Clocks that a burst occupies the data bus.
        burst_bytes: Bytes of a burst.
        tck_ns: Clock period.
    """

    device: str
    pattern: Pattern
    size_bytes: int
    reads: int
    refresh: bool
    queue: int
    seed: int | None
    cycles_ck: int
    activations: int
    refreshes: int
    burst_ck: int
    burst_bytes: int
    tck_ns: float

    @property
    def cycles_per_read(self) -> float:
        """Clocks a read."""
        return self.cycles_ck / self.reads

    @property
    def fraction_of_peak(self) -> float:
        """Clocks in which the data bus is busy, over all."""
        return self.reads * self.burst_ck / self.cycles_ck

    @property
    def gb_per_s(self) -> float:
        """Bytes moved over the time; a byte a ns is 10⁹ bytes a second."""
        return self.reads * self.burst_bytes / (self.cycles_ck * self.tck_ns)


def pattern_requests(device: DramRecord, pattern: Pattern, reads: int, *, seed: int = 0) -> Requests:
    """The first ``reads`` of ``pattern``; ``seed`` is that of the random one."""
    geometry = channel_geometry(device)
    groups, banks, stack_ids, bursts = device.bank_groups, device.banks_per_group, device.stack_ids, device.row_bursts
    read = np.arange(reads, dtype=np.int64)
    bank, row = np.zeros_like(read), np.zeros_like(read)
    if pattern is Pattern.SEQUENTIAL:
        row_set = read // (groups * bursts)
        stack_id = row_set // banks % stack_ids
        bank = (stack_id * groups + read % groups) * banks + row_set % banks
        row = row_set // (banks * stack_ids)
    elif pattern is Pattern.BANK_GROUP:
        bank = read % banks
    elif pattern is Pattern.ONE_BANK:
        row = read // bursts
    elif pattern is Pattern.CONFLICT:
        row = read
    elif pattern is Pattern.RANDOM:
        random = np.random.default_rng(seed)
        bank, row = random.integers(0, geometry.banks, reads), random.integers(0, ROWS, reads)
    else:
        group, of_group = read % groups, read // groups % banks
        bank = (read // (groups * banks) % stack_ids * groups + group) * banks + of_group
        row = read // geometry.banks
    return Requests(bank.astype(np.int32), (row % ROWS).astype(np.int32), np.zeros(reads, np.bool_))


def reads_of(device: DramRecord, size_bytes: int) -> int:
    """Bursts that hold ``size_bytes``.

    Raises:
        ForestageError: not between 1 and `BYTES_MAX`.
    """
    if not 1 <= size_bytes <= BYTES_MAX:
        raise ForestageError(f"stream: {size_bytes} bytes; give 1 to {BYTES_MAX}")
    return -(-size_bytes // device.burst_bytes)


def stream_pattern(
    device: DramRecord, pattern: Pattern, size_bytes: int, *, refresh: bool = True, queue: int = QUEUE, seed: int = 0
) -> PatternStream:
    """Read ``size_bytes`` in ``pattern`` from one pseudo-channel of ``device``, all requests waiting from the start.

    Raises:
        ForestageError: a size that is not between 1 and `BYTES_MAX`, or a queue without a place.
    """
    reads = reads_of(device, size_bytes)
    result = schedule(device, pattern_requests(device, pattern, reads, seed=seed), queue=queue, refresh=refresh)
    first, last = int(result.column_ck.min()), int(result.column_ck.max())
    return PatternStream(
        device=device.name,
        pattern=pattern,
        size_bytes=size_bytes,
        reads=reads,
        refresh=refresh,
        queue=queue,
        seed=seed if pattern is Pattern.RANDOM else None,
        cycles_ck=last - first + device.burst_ck,
        activations=result.counts[Command.ACT],
        refreshes=result.counts[Command.REFAB],
        burst_ck=device.burst_ck,
        burst_bytes=device.burst_bytes,
        tck_ns=device.tck_ns,
    )
