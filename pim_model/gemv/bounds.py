"""What no order of commands exceeds: the rate at which a unit's two halves can be read in turn.

Let a row set have n columns (``row_bursts``), I be the interval of PIM commands, B the blocks. One half is read while
the other is reopened. Between the last column of a row set and the first one of the next row set *of the same half*
lie, one after the other,

    reopening = tRTP (last PIM to PREH) + tRP (to the first ACT) + span (first to last ACT) + tRCD (to the first PIM),

where ``span`` is the least time of B ACTs under tRRD_S, tRRD_L, tFAW and, on a row bus of which an ACT takes several
clocks or every second slot, that bus. Each half therefore needs (n − 1) · I + reopening clocks for each of its row
sets, and the two halves share the work, so a row set takes at least

    P = max(n · I,  ((n − 1) · I + reopening) / 2,  (span + tRAS + tRP) / 2,  B · ACT interval)

clocks on average: the columns themselves; a half's reading and reopening; a half's rows, open at least tRAS; and the
ACTs of all banks, at most four in tFAW. Where reopening ≤ (n + 1) · I it hides behind the other half's columns, and the
bound is the limit itself, B · 32 bytes in I clocks. So it is on HBM2-PIM (8 ACTs a half); on HBM3, HBM3E and HBM4 16
ACTs a half under tFAW are not hidden.

With refresh, no column comes in the tRTP + tRP + tRFC + span + tRCD clocks around each, so that of a tREFI a window W
is left. It holds at most W / I + 1 columns; and as the halves begin it open, the second one B ACTs after the first, at
most n · (2 · W + 2 · reopening − B · ACT interval) / ((n − 1) · I + reopening).
"""

from dataclasses import dataclass

from pim_model.unit.parameters import UnitParameters, UnitTimings


@dataclass(frozen=True, kw_only=True)
class UnitBound:
    """The greatest rate of one pseudo-channel's columns.

    Attributes:
        limit_bytes_per_ck: All blocks reading a column every interval.
        reopening_ck: Of a half, from its last column to its next first one.
        row_set_ck: Least clocks of a row set, on average.
        window_ck: Of a tREFI, from the first column after a refresh to the last one before the next.
        fraction: Of the limit, without refresh.
        fraction_with_refresh: Of the limit, one refresh in every tREFI.
    """

    limit_bytes_per_ck: float
    reopening_ck: int
    row_set_ck: float
    window_ck: int
    fraction: float
    fraction_with_refresh: float


def unit_bound(parameters: UnitParameters) -> UnitBound:
    """The bound of this module's docstring."""
    timings, columns = parameters.timings, parameters.device.row_bursts
    span = act_span_ck(timings, parameters.blocks.blocks)
    reopening = timings.pim_to_close + timings.close_to_act + span + timings.act_to_pim
    row_set = max(
        columns * timings.interval,
        ((columns - 1) * timings.interval + reopening) / 2,
        (span + timings.act_to_close + timings.close_to_act) / 2,
        parameters.blocks.blocks * act_interval_ck(timings),
    )
    fraction = columns * timings.interval / row_set
    window = max(0, timings.refresh_interval - reopening - timings.refresh)
    second = parameters.blocks.blocks * act_interval_ck(timings)
    in_window = min(
        window / timings.interval + 1,
        columns * (2 * window + 2 * reopening - second) / ((columns - 1) * timings.interval + reopening),
    )
    return UnitBound(
        limit_bytes_per_ck=parameters.blocks.bytes_per_ck,
        reopening_ck=reopening,
        row_set_ck=row_set,
        window_ck=window,
        fraction=fraction,
        fraction_with_refresh=in_window * timings.interval / timings.refresh_interval,
    )


def act_span_ck(timings: UnitTimings, banks: int) -> int:
    """Least clocks from the first to the last ACT of ``banks`` banks, bank groups in turn."""
    acts: list[int] = []
    for index in range(banks):
        clock = acts[-1] + timings.act_to_act if acts else timings.row_phase
        if index >= timings.group_window:
            clock = max(clock, acts[-timings.group_window] + timings.act_to_act_group)
        if index >= 4:
            clock = max(clock, acts[-4] + timings.four_acts)
        acts.append(clock + (timings.row_phase - clock) % timings.row_period)
    return acts[-1] - acts[0]


def act_interval_ck(timings: UnitTimings) -> float:
    """Least clocks between ACTs in the long run."""
    return max(timings.act_to_act, timings.four_acts / 4, timings.row_period if timings.row_period > 1 else 1)
