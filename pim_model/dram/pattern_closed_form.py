"""Cycles of a regular pattern in closed form: what `patterns.stream_pattern` counts, without scheduling commands.

Between two refreshes the reads of a pattern come at clocks that follow from the constraints alone (`_Reads.span_ck`).
A refresh closes every row; the next stretch begins like the first. Tests compare this with the controller: it is
within 1 % for the catalogue's devices, most to the clock, and within 3 % for devices of other timings.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass

from catalog import DramRecord, ForestageError
from pim_model.dram.controller import QUEUE
from pim_model.dram.patterns import Pattern, reads_of

_STRETCHES = 64
"""Stretches between refreshes that are followed one by one; longer streams go on at their average."""


def pattern_cycles_ck(device: DramRecord, pattern: Pattern, size_bytes: int, *, refresh: bool = True) -> float:
    """Clocks from the first read command to the last, plus those of one burst, for a controller with its usual queue.

    Raises:
        ForestageError: a size that ``stream_pattern`` refuses; the random pattern; or rows so short that the queue
            holds a whole set of them, for which no closed form holds.
    """
    reads = reads_of(device, size_bytes)
    kind = _reads(device, pattern)
    if not refresh:
        return kind.span_ck(reads, 0) + device.burst_ck
    # The first ACT is at clock 0. ``begin`` is the first ACT of a stretch, ``due`` the refresh that ends it.
    begin, due, done, stretch = 0.0, device.trefi_ck, 0, 0
    history = []
    while True:
        served = kind.reads_before(due - begin, done)
        if done + served >= reads:
            return begin + kind.span_ck(reads - done, done) + device.burst_ck
        begin, due = due + kind.refresh_ck(due - begin, served, done), due + device.trefi_ck
        done += served
        history.append((served, due))
        stretch += 1
        if stretch == _STRETCHES:
            # The later half of the stretches has settled.
            tail = history[_STRETCHES // 2 :]
            each = sum(served for served, _ in tail[1:]) / (tail[-1][1] - tail[0][1])
            skipped = max(0, int((reads - done) * 0.999 / each) // device.trefi_ck)
            begin, due = begin + skipped * device.trefi_ck, due + skipped * device.trefi_ck
            done += int(skipped * device.trefi_ck * each)


@dataclass(frozen=True)
class _Reads:
    """Reads of one pattern that start with all banks closed, the first ACT at clock 0."""

    device: DramRecord

    row_each = False
    """Whether every read opens a row: then a read is served if its ACT comes before the refresh is due."""

    def span_ck(self, reads: int, done: int) -> float:
        """Clocks from the first of so many reads to the last, after ``done`` others before the last refresh."""
        raise NotImplementedError

    def reads_before(self, clocks: float, done: int) -> int:
        """Reads served after ``done`` others, if a refresh is due ``clocks`` after the first ACT."""
        room = clocks - 1 - (0 if self.row_each else self.device.trcd_read_ck)
        if room < 0:
            return 0
        # At most one read a clock.
        return bisect_right(range(1, int(room) + 2), room, key=lambda reads: self.span_ck(reads, done))

    def refresh_ck(self, clocks: float, reads: int, done: int) -> float:
        """Clocks from a refresh to the next ACT; it is due ``clocks`` after the first ACT and after so many reads."""
        device = self.device
        if not reads:
            return device.trfc_ck
        last = self.span_ck(reads, done)
        read = last + device.trcd_read_ck
        opened = last if self.row_each else -device.tras_ck
        closed = max(read + device.trtp_l_ck, opened + device.tras_ck) - clocks
        return max(0.0, closed) + device.trp_ck + device.trfc_ck


@dataclass(frozen=True)
class _Sequential(_Reads):
    """Rows of all groups are read in turn; those of the next set open behind them, if the queue sees far enough."""

    def span_ck(self, reads: int, done: int) -> float:
        device = self.device
        groups = device.bank_groups
        rotation = device.banks // groups
        spacing = max(device.burst_ck, device.tccd_s_ck, device.tccd_l_ck / groups)
        reads_a_set = groups * device.row_bursts
        # The ACTs of a set that was not open come further apart than reads; another read of the first group fills in.
        lag = max(device.trrd_s_ck, math.ceil(device.activate_command_ck))
        gap = min(max(spacing, lag), max(device.tccd_l_ck, spacing))
        # The next set's first request enters the queue a clock after the (set − queue)-th read, and opens its row.
        seen = gap + spacing * (reads_a_set - QUEUE - 1) + 1
        hidden = reads_a_set * spacing
        closed = max(hidden, seen + device.trcd_read_ck)
        open_before = max(hidden, seen + device.trp_ck + device.trcd_read_ck)
        if reads <= groups:
            return (reads - 1) * max(lag, spacing)
        sets, rest = divmod(done % reads_a_set + reads - 1, reads_a_set)
        first = min(sets, rotation)
        clocks = first * closed + (sets - first) * open_before
        stalled = (closed if sets <= rotation else open_before) > hidden
        if sets and not stalled:
            clocks += gap - spacing
        if device.tccd_r_ck is not None and device.stack_ids > 1:
            switches = (first if open_before > hidden else sets) // device.banks_per_group
            clocks += switches * max(0, device.tccd_r_ck - spacing)
        within = rest * spacing + (gap - spacing if rest and (stalled or not sets) else 0)
        # A group that is opened later is also read later, every tCCD_L.
        alone = max(
            self._slot_ck(group * lag, gap, spacing) + (reads - 1 - group) // groups * device.tccd_l_ck
            for group in range(groups)
        )
        return max(clocks + within - done % reads_a_set * spacing, alone)

    @staticmethod
    def _slot_ck(ready_ck: float, gap: float, spacing: float) -> float:
        """First clock from ``ready_ck`` on of those in which reads follow each other: 0, gap, gap + spacing, …"""
        return 0 if not ready_ck else gap + max(0, math.ceil((ready_ck - gap) / spacing)) * spacing


@dataclass(frozen=True)
class _BankGroup(_Reads):
    def span_ck(self, reads: int, done: int) -> float:
        device = self.device
        banks = min(reads, device.banks_per_group)
        of_last = (reads - banks) // device.banks_per_group + 1
        fours, rest = divmod(banks - 1, 4)
        opening = fours * max(device.tfaw_ck, 4 * device.trrd_l_ck) + rest * device.trrd_l_ck
        return max((reads - 1) * device.tccd_l_ck, opening + (of_last - 1) * device.tccd_l_ck)


@dataclass(frozen=True)
class _OneBank(_Reads):
    def span_ck(self, reads: int, done: int) -> float:
        of_first = self.device.row_bursts - done % self.device.row_bursts
        changes = max(0, -(-(reads - of_first) // self.device.row_bursts))
        clocks = (reads - 1 - changes) * self.device.tccd_l_ck
        if changes:
            clocks += self._change_ck(of_first) + (changes - 1) * self._change_ck(self.device.row_bursts)
        return clocks

    def _change_ck(self, reads: int) -> int:
        """Clocks from the last of so many reads of a row to the first of the next row."""
        device = self.device
        last = (reads - 1) * device.tccd_l_ck
        closed = max(device.trcd_read_ck + last + device.trtp_l_ck, device.tras_ck)  # after the row's ACT
        return max(closed + device.trp_ck, device.trc_ck) - last

    def reads_before(self, clocks: float, done: int) -> int:
        served = super().reads_before(clocks, done)
        # A row that was opened before the refresh is due is read from once more.
        opens = (done + served) % self.device.row_bursts == 0
        return served + (opens and self.span_ck(served + 1, done) < clocks)

    def refresh_ck(self, clocks: float, reads: int, done: int) -> float:
        device = self.device
        if not reads:
            return device.trfc_ck
        last = self.span_ck(reads, done)
        opened = last - min((done + reads - 1) % device.row_bursts, reads - 1) * device.tccd_l_ck
        closed = max(device.trcd_read_ck + last + device.trtp_l_ck, opened + device.tras_ck)
        if (done + reads) % device.row_bursts == 0 and closed < clocks:  # the PRE for the next row
            return max(0.0, closed + device.trp_ck - clocks) + device.trfc_ck
        return max(0.0, closed - clocks) + device.trp_ck + device.trfc_ck


@dataclass(frozen=True)
class _Conflict(_Reads):
    row_each = True

    def span_ck(self, reads: int, done: int) -> float:
        return (reads - 1) * _row_cycle_ck(self.device)

    def refresh_ck(self, clocks: float, reads: int, done: int) -> float:
        # The PRE for the next row comes before the refresh is due, if it is legal by then.
        usual = super().refresh_ck(clocks, reads, done)
        closed = self.span_ck(reads, done) + _row_cycle_ck(self.device) - self.device.trp_ck
        return max(closed + self.device.trp_ck - clocks, 0) + self.device.trfc_ck if closed < clocks else usual


@dataclass(frozen=True)
class _Rotate(_Reads):
    row_each = True

    def span_ck(self, reads: int, done: int) -> float:
        device = self.device
        width = math.ceil(device.activate_command_ck)
        # A PRE goes over the row bus for every ACT, from the second round on.
        apart = max(device.trrd_s_ck, width + 1, device.trrd_l_ck / device.bank_groups)
        apart = max(apart, device.burst_ck, device.tccd_s_ck)
        window = max(device.tfaw_ck, 4 * apart, 4 * _row_cycle_ck(device) / device.banks)
        fours, rest = divmod(reads - 1, 4)
        return fours * window + rest * min(apart, window / 4)


def _row_cycle_ck(device: DramRecord) -> int:
    """Least clocks between two rows of a bank of which one burst each is read."""
    read = device.trcd_read_ck + device.trtp_l_ck
    return max(device.trc_ck, max(device.tras_ck, read) + device.trp_ck)


def _reads(device: DramRecord, pattern: Pattern) -> _Reads:
    if pattern is Pattern.RANDOM:
        raise ForestageError("stream: the random pattern has no closed form; use patterns.stream_pattern")
    if pattern is Pattern.SEQUENTIAL and device.bank_groups * device.row_bursts <= QUEUE:
        raise ForestageError(
            f"dram '{device.name}': row_bursts is {device.row_bursts}: the queue of {QUEUE} holds a whole row of every "
            "group; no closed form holds: use patterns.stream_pattern"
        )
    kinds = {
        Pattern.SEQUENTIAL: _Sequential,
        Pattern.BANK_GROUP: _BankGroup,
        Pattern.ONE_BANK: _OneBank,
        Pattern.CONFLICT: _Conflict,
        Pattern.ROTATE: _Rotate,
    }
    return kinds[pattern](device)
