"""The PIM unit's timing table against the published numbers, rule by rule."""

import pytest

from catalog import ForestageError
from pim_model.dram import pim_unit
from pim_model.dram.commands import Scope, TimingConstraint, UnitCommand
from pim_model.dram.devices import find_device

ACT, PREH, PREAB, REFAB, PIM, LDI, RDA = UnitCommand
CHANNEL, BANK_GROUP, BANK, HALF = Scope.CHANNEL, Scope.BANK_GROUP, Scope.BANK, Scope.HALF

# (preceding, following, scope, window): HBM2-PIM, HBM3, HBM4; from Samsung's PIMSimulator and Ramulator 2.1's presets.
EXPECTED: dict[tuple[UnitCommand, UnitCommand, Scope, int], tuple[int, int, int]] = {
    (ACT, ACT, CHANNEL, 1): (4, 4, 5),  # tRRD_S
    (ACT, ACT, BANK_GROUP, 1): (6, 5, 7),  # tRRD_L
    (ACT, ACT, CHANNEL, 4): (16, 24, 30),  # tFAW
    (ACT, ACT, BANK, 1): (47, 72, 90),  # tRC
    (ACT, PIM, HALF, 1): (14, 31, 39),  # tRCD of a read
    (ACT, PREH, HALF, 1): (33, 45, 57),  # tRAS
    (ACT, PREH, CHANNEL, 1): (1, 2, 2),  # the row bus
    (ACT, PREAB, CHANNEL, 1): (33, 45, 57),
    (ACT, REFAB, CHANNEL, 1): (1, 2, 2),
    (PREH, ACT, HALF, 1): (14, 26, 33),  # tRP
    (PREH, ACT, CHANNEL, 1): (1, 1, 1),
    (PREH, PREH, CHANNEL, 1): (1, 1, 1),
    (PREH, PREAB, CHANNEL, 1): (1, 1, 1),
    (PREH, REFAB, CHANNEL, 1): (14, 26, 33),
    (PREAB, ACT, CHANNEL, 1): (14, 26, 33),
    (PREAB, PREH, CHANNEL, 1): (1, 1, 1),
    (PREAB, PREAB, CHANNEL, 1): (1, 1, 1),
    (PREAB, REFAB, CHANNEL, 1): (14, 26, 33),
    (REFAB, ACT, CHANNEL, 1): (350, 560, 900),  # tRFC
    (REFAB, PREH, CHANNEL, 1): (350, 560, 900),
    (REFAB, PREAB, CHANNEL, 1): (1, 1, 1),
    (REFAB, REFAB, CHANNEL, 1): (350, 560, 900),
    (REFAB, PIM, CHANNEL, 1): (350, 560, 900),
    (REFAB, LDI, CHANNEL, 1): (350, 560, 900),
    (REFAB, RDA, CHANNEL, 1): (350, 560, 900),
    (PIM, PIM, CHANNEL, 1): (4, 4, 4),  # the interval of all-bank operations
    (PIM, PREH, HALF, 1): (5, 9, 12),  # tRTP_L
    (PIM, PREAB, CHANNEL, 1): (5, 9, 12),
    (PIM, LDI, CHANNEL, 1): (1, 1, 1),  # the column bus
    (PIM, RDA, CHANNEL, 1): (1, 1, 1),
    (LDI, PIM, CHANNEL, 1): (1, 1, 1),
    (LDI, LDI, CHANNEL, 1): (2, 2, 2),  # a burst
    (LDI, RDA, CHANNEL, 1): (1, 1, 1),  # 8 + 2 + 2 − 20 is below 1
    (RDA, PIM, CHANNEL, 1): (1, 1, 1),
    (RDA, LDI, CHANNEL, 1): (16, 14, 14),  # 20 + 2 + 2 − 8, 20 + 2 + 2 − 10
    (RDA, RDA, CHANNEL, 1): (4, 4, 4),
}


def binding(table: tuple[TimingConstraint[UnitCommand], ...]) -> dict[tuple[UnitCommand, UnitCommand, Scope, int], int]:
    """The greatest latency of every pair of commands, scope and window."""
    found: dict[tuple[UnitCommand, UnitCommand, Scope, int], int] = {}
    for constraint in table:
        for preceding in constraint.preceding:
            for following in constraint.following:
                key = (preceding, following, constraint.scope, constraint.window)
                found[key] = max(found.get(key, 0), constraint.latency_ck)
    return found


@pytest.mark.parametrize(("column", "name"), [(0, "HBM2-PIM"), (1, "HBM3"), (2, "HBM4")])
def test_every_distance_is_the_published_one(column: int, name: str) -> None:
    expected = {key: values[column] for key, values in EXPECTED.items()}
    assert binding(pim_unit.pim_unit_constraints(find_device(name))) == expected


def test_latencies_of_data_by_hand() -> None:
    # HBM2-PIM: CL 20, CWL 8, burst 2, interval 4. A load's burst ends 10 clocks after its issue, a column arrives 20
    # clocks after its own; a column is in use 20 to 23 clocks after its issue and in the registers before the lanes
    # one clock more, so that a burst may end 25 clocks after at the earliest: 15 + 8 + 2.
    assert pim_unit.data_latencies(find_device("HBM2-PIM"), lane_latency_ck=9) == pim_unit.DataLatencies(
        load_to_use_ck=1, use_to_reload_ck=15, column_to_readout_ck=13
    )
    late_writes = find_device("HBM2-PIM", {"cwl_ck": 30})
    assert pim_unit.data_latencies(late_writes, lane_latency_ck=0).load_to_use_ck == 12
    assert pim_unit.data_latencies(late_writes, lane_latency_ck=0).use_to_reload_ck == 1


def test_refresh_stops_everything_but_closing_and_refreshing() -> None:
    rule = pim_unit.refresh_rule(find_device("HBM4"))
    assert (rule.interval_ck, rule.duration_ck) == (7800, 900)
    assert set(UnitCommand) - set(rule.blocked) == {PREAB, REFAB}


@pytest.mark.parametrize(
    ("name", "rows", "columns"),
    [("HBM2-PIM", [[0, 2], [1, 3]], [[0, 2], [1, 3]]), ("HBM3", [[0], [2]], [[0, 2], [1, 3]])],
)
def test_two_pseudo_channels_take_turns_on_both_buses(name: str, rows: list, columns: list) -> None:
    device = find_device(name)
    for phase in (0, 1):
        row, column = pim_unit.bus_slots(device, 2, phase)
        assert [at_ck for at_ck in range(4) if row.allows(at_ck)] == rows[phase]
        assert [at_ck for at_ck in range(4) if column.allows(at_ck)] == columns[phase]
        assert {*row.commands, *column.commands} == set(UnitCommand)
    for slots in pim_unit.bus_slots(device, 1):  # the buses are its own
        assert all(slots.allows(at_ck) for at_ck in range(4))


def test_a_bus_has_no_more_phases_than_pseudo_channels() -> None:
    with pytest.raises(ForestageError, match=r"bus_phases is 3, but 2 pseudo-channels .*; give 1 to 2"):
        pim_unit.bus_slots(find_device("HBM3"), 3)
    with pytest.raises(ForestageError, match=r"phase is 1; give 0 to 0"):
        pim_unit.bus_slots(find_device("HBM3"), 1, 1)


@pytest.mark.parametrize("name", ["HBM2-PIM", "HBM3", "HBM3E", "HBM4"])
def test_the_blocks_divide_the_banks_into_two_halves(name: str) -> None:
    device = find_device(name)
    geometry = pim_unit.unit_geometry(device)
    assert device.pim is not None
    halves = [[pim_unit.bank_of_block(device, block, half) for block in range(device.pim.blocks)] for half in (0, 1)]
    assert sorted(halves[0] + halves[1]) == list(range(geometry.banks))
    for half, banks in enumerate(halves):
        assert {pim_unit.half_of(bank) for bank in banks} == {half}
    # Consecutive blocks lie in different bank groups, and a block's banks in one.
    assert [geometry.bank_group_of(bank) for bank in halves[0][: device.bank_groups]] == list(range(device.bank_groups))
    assert [geometry.bank_group_of(bank) for bank in halves[0]] == [geometry.bank_group_of(bank) for bank in halves[1]]


def test_devices_that_cannot_hold_the_unit_are_refused() -> None:
    with pytest.raises(ForestageError, match="no compute at its banks"):
        pim_unit.pim_unit_constraints(find_device("HBM2"))
    four = find_device("HBM2-PIM").model_copy(
        update={"pim": find_device("HBM2-PIM").pim.model_copy(update={"blocks": 4, "banks_per_block": 4})}  # type: ignore[union-attr]
    )
    with pytest.raises(ForestageError, match="banks_per_block is 4; the PIM unit needs 2"):
        pim_unit.pim_unit_constraints(four)
    odd = find_device("HBM2-PIM").model_copy(update={"banks_per_group": 3})
    with pytest.raises(ForestageError, match="even number"):
        pim_unit.pim_unit_constraints(odd)
