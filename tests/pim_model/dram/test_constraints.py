"""Earliest times against the published numbers: blocked one clock before, ready on the clock."""

import pytest

from catalog import DramRecord, ForestageError
from pim_model.dram import constraints, devices
from pim_model.dram.channel_state import ChannelState
from pim_model.dram.commands import Command, Scope
from pim_model.dram.devices import Access

ACT, PRE, PREAB, RD, WR, REFAB, REFPB = Command

# Places: two banks of one group, a bank of another group, a bank of another stack ID.
SAME, NEIGHBOUR, GROUP, STACK = "same", "neighbour", "group", "stack"

# Commands with their clocks, then the command asked for, and its earliest clock as the published table has it
# (hardware parameters: Ramulator 2.1 presets and Samsung's PIMSimulator).
HBM2 = [
    ([(ACT, SAME, 0)], (ACT, GROUP), 4),  # tRRD_S
    ([(ACT, SAME, 0)], (ACT, NEIGHBOUR), 4),  # tRRD_L
    ([(ACT, SAME, 0)], (RD, SAME), 14),  # tRCD
    ([(ACT, SAME, 0)], (WR, SAME), 12),
    ([(ACT, SAME, 0)], (PRE, SAME), 34),  # tRAS
    ([(ACT, SAME, 0), (PRE, SAME, 34)], (ACT, SAME), 48),  # tRP, tRC
    ([(ACT, SAME, 0), (PRE, SAME, 40)], (ACT, SAME), 54),  # tRP alone
    ([(ACT, SAME, 0), (RD, SAME, 14)], (RD, SAME), 18),  # tCCD_L
    ([(ACT, SAME, 0), (ACT, NEIGHBOUR, 4), (RD, SAME, 18)], (RD, NEIGHBOUR), 22),
    ([(ACT, SAME, 0), (ACT, GROUP, 4), (RD, SAME, 18)], (RD, GROUP), 20),  # tCCD_S
    ([(ACT, SAME, 0), (RD, SAME, 33)], (PRE, SAME), 38),  # tRTP
    ([(ACT, SAME, 0), (RD, SAME, 33)], (PREAB, SAME), 38),
    ([(ACT, SAME, 0), (WR, SAME, 12)], (PRE, SAME), 12 + 5 + 2 + 16),  # CWL, burst, tWR
    ([(ACT, SAME, 0), (WR, SAME, 12)], (RD, SAME), 12 + 5 + 2 + 8),  # CWL, burst, tWTR_L
    ([(ACT, SAME, 0), (ACT, GROUP, 4), (WR, SAME, 18)], (RD, GROUP), 18 + 5 + 2 + 6),  # tWTR_S
    ([(ACT, SAME, 0), (RD, SAME, 14)], (WR, SAME), 14 + 14 + 2 + 2 - 5),  # read to write
    ([(REFAB, SAME, 0)], (ACT, SAME), 350),  # tRFC
    ([(REFPB, SAME, 0)], (ACT, SAME), 160),  # tRFCpb
    ([(REFPB, SAME, 0)], (ACT, GROUP), 4),
    ([(REFPB, SAME, 0)], (REFAB, SAME), 160),
    ([(ACT, SAME, 0), (PRE, SAME, 34)], (REFAB, SAME), 48),  # tRP
    ([(ACT, SAME, 0), (PREAB, SAME, 34)], (ACT, GROUP), 48),
    ([(ACT, SAME, 0)], (REFPB, GROUP), 4),
]
HBM2_PIM = [
    ([(ACT, SAME, 0)], (ACT, NEIGHBOUR), 6),  # tRRD_L
    ([(ACT, SAME, 0)], (ACT, GROUP), 4),
    ([(ACT, SAME, 0)], (PRE, SAME), 33),
    ([(ACT, SAME, 0), (PRE, SAME, 33)], (ACT, SAME), 47),
    ([(ACT, SAME, 0), (WR, SAME, 10)], (RD, SAME), 10 + 8 + 2 + 9),
]
HBM3 = [
    ([(ACT, SAME, 0)], (ACT, NEIGHBOUR), 5),
    ([(ACT, GROUP, 0), (ACT, SAME, 50)], (PRE, GROUP), 52),  # an ACT keeps the row bus for 1.5 clocks
    ([(ACT, SAME, 0)], (RD, SAME), 31),
    ([(ACT, SAME, 0), (ACT, STACK, 4), (RD, SAME, 36)], (RD, STACK), 39),  # tCCD_R
    ([(ACT, SAME, 0), (ACT, GROUP, 4), (RD, SAME, 36)], (RD, GROUP), 38),
    ([(ACT, SAME, 0), (PRE, SAME, 45)], (ACT, SAME), 72),  # tRC and 45 + tRP = 71
    ([(REFPB, SAME, 0)], (ACT, SAME), 320),
]
HBM4 = [
    ([(ACT, SAME, 0)], (ACT, NEIGHBOUR), 7),
    ([(ACT, SAME, 0)], (RD, SAME), 39),
    ([(ACT, SAME, 0), (ACT, STACK, 5), (RD, SAME, 50)], (RD, STACK), 52),
]
CASES = [
    pytest.param(name, history, following, expected, id=f"{name}-{index}")
    for name, cases in {"HBM2": HBM2, "HBM2-PIM": HBM2_PIM, "HBM3": HBM3, "HBM4": HBM4}.items()
    for index, (history, following, expected) in enumerate(cases)
]


def state_of(device: DramRecord, access: Access = Access.HOST_READ) -> ChannelState:
    return ChannelState(devices.geometry(device, access), constraints.timing_constraints(device, access))


def place(device: DramRecord, where: str) -> int:
    stack_id, group, bank = {SAME: (0, 0, 0), NEIGHBOUR: (0, 0, 1), GROUP: (0, 1, 0), STACK: (1, 0, 0)}[where]
    return devices.geometry(device, Access.HOST_READ).bank(stack_id, group, bank)


@pytest.mark.parametrize(("name", "history", "following", "expected"), CASES)
def test_earliest_time(name: str, history: list, following: tuple[Command, str], expected: int) -> None:
    device = devices.find_device(name)
    state = state_of(device)
    for command, where, at_ck in history:
        state.issue(command, place(device, where), at_ck)
    command, where = following
    bank = place(device, where)
    assert state.earliest_ck(command, bank) == expected
    with pytest.raises(ValueError, match=f"not before {expected}"):
        state.issue(command, bank, expected - 1)
    state.issue(command, bank, expected)


def test_the_fifth_activation_waits_for_the_window() -> None:
    device = devices.find_device("HBM3")
    state = state_of(device)
    banks = [devices.geometry(device, Access.HOST_READ).bank(0, group, bank) for bank in (0, 1) for group in range(4)]
    clocks = []
    for bank in banks:
        clocks.append(state.earliest_ck(ACT, bank))
        state.issue(ACT, bank, clocks[-1])
    # tRRD_S 4 within the window of four, tFAW 24 from the first to the fifth, and so on.
    assert clocks == [0, 4, 8, 12, 24, 28, 32, 36]


def test_all_bank_operations_keep_their_own_interval() -> None:
    device = devices.find_device("HBM2-PIM")
    state = state_of(device, Access.IN_BANK)
    state.issue(ACT, 0, 0)
    state.issue(ACT, 1, 6)  # tRRD_L
    state.issue(RD, 0, 14)
    assert [state.earliest_ck(RD, bank) for bank in (0, 1)] == [18, 20]  # the second waits for its tRCD
    state.issue(RD, 0, 18)
    assert state.earliest_ck(RD, 1) == 22
    with pytest.raises(ForestageError, match=r"dram 'HBM2': pim: it has no compute"):
        constraints.timing_constraints(devices.find_device("HBM2"), Access.IN_BANK)


@pytest.mark.parametrize(
    ("history", "command", "message"),
    [
        ([], RD, "no row is open"),
        ([], PRE, "no row is open"),
        ([(ACT, SAME, 0)], ACT, "row 0 is open"),
        ([(ACT, SAME, 0)], REFPB, "row 0 is open"),
        ([(ACT, SAME, 0)], REFAB, r"rows are open in banks \[0\]"),
        ([(ACT, SAME, 0), (PREAB, SAME, 50)], RD, "no row is open"),
    ],
)
def test_commands_need_their_banks_state(history: list, command: Command, message: str) -> None:
    state = state_of(devices.find_device("HBM2"))
    for earlier, _, at_ck in history:
        state.issue(earlier, 0, at_ck)
    with pytest.raises(ValueError, match=message):
        state.issue(command, 0, 10_000)


def test_every_constraint_holds_for_its_scope_alone() -> None:
    """Each row of the table by itself, on every device: at its latency, in its scope, after its window."""
    for name in ("HBM2", "HBM2-PIM", "HBM3", "HBM3E", "HBM4"):
        device = devices.find_device(name)
        layout = devices.geometry(device, Access.HOST_READ)
        inside = {Scope.COMMAND_BUS: (1, 0), Scope.CHANNEL: (1, 0), Scope.BANK_GROUP: (0, 1), Scope.BANK: (0, 0)}
        outside = {Scope.BANK_GROUP: layout.bank(0, 1, 0), Scope.BANK: layout.bank(0, 0, 1)}
        outside[Scope.OTHER_STACK_ID] = layout.bank(0, 1, 1)
        for constraint in constraints.timing_constraints(device):
            assert constraint.latency_ck > 0
            scope = constraint.scope
            if scope is Scope.OTHER_STACK_ID and layout.stack_ids == 1:
                continue
            target = layout.bank(1, 0, 0) if scope is Scope.OTHER_STACK_ID else layout.bank(0, *inside[scope])
            for preceding in constraint.preceding:
                state = ChannelState(layout, [constraint])
                for count in range(constraint.window):
                    assert all(state.earliest_ck(following, target) == 0 for following in constraint.following)
                    if preceding is PRE or preceding in (RD, WR):
                        state.issue(ACT, 0, 0)
                    # The window counts commands to different banks; the other scopes have a window of one.
                    state.issue(preceding, layout.bank(0, 0, count) if constraint.window > 1 else 0, 100)
                for following in constraint.following:
                    assert state.earliest_ck(following, target) == 100 + constraint.latency_ck, constraint
                    if scope in outside:
                        assert state.earliest_ck(following, outside[scope]) == 0, constraint


def test_overrides_change_a_value_and_refuse_an_unknown_one() -> None:
    assert devices.find_device("hbm3_6400", {"trp_ck": 30}).trp_ck == 30
    with pytest.raises(
        ForestageError, match=r"HBM3 overrides: unknown key 'trp_clk'; the nearest known key is 'trp_ck'"
    ):
        devices.find_device("HBM3", {"trp_clk": 30})
    with pytest.raises(ForestageError, match="the nearest known is 'HBM3'"):
        devices.find_device("HBM33")


def test_scaled_timings_are_rounded_up() -> None:
    """HBM3E is HBM3 in ns: 14 ns of tRRD_S … at 9.2 Gb/s, never below the time it stands for."""
    base, fast = devices.find_device("HBM3"), devices.find_device("HBM3E")
    for name in ("trcd_read_ck", "trp_ck", "tras_ck", "trc_ck", "trrd_s_ck", "tfaw_ck", "trfc_ck"):
        before, after = getattr(base, name) * base.tck_ns, getattr(fast, name) * fast.tck_ns
        assert before <= after + 1e-9 < before + fast.tck_ns + 1e-6
    assert fast.trefi_ck * fast.tck_ns <= base.trefi_ck * base.tck_ns + 1e-9


def test_units_bits_and_bytes() -> None:
    hbm2, hbm3 = devices.find_device("HBM2-PIM"), devices.find_device("HBM3")
    # 64 pins at 2 Gb/s are 16 GB/s: 16 bytes a clock of 1 ns; a burst is 32 bytes.
    assert devices.operation_bytes(hbm2, Access.HOST_READ) == 32
    assert devices.peak_bytes_per_ck(hbm2, Access.HOST_READ) / hbm2.tck_ns == pytest.approx(16)
    # 8 blocks of 256 bits every 4 clocks: 64 bytes a clock, four times the pins.
    assert devices.operation_bytes(hbm2, Access.IN_BANK) == 256
    assert devices.peak_bytes_per_ck(hbm2, Access.IN_BANK) == 64
    assert devices.peak_bytes_per_ck(hbm3, Access.HOST_READ) / hbm3.tck_ns == pytest.approx(25.6)


@pytest.mark.parametrize(("name", "interval"), [("HBM2", 244), ("HBM2-PIM", 242), ("HBM3", 195), ("HBM4", 244)])
def test_every_bank_is_refreshed_once_a_trefi(name: str, interval: int) -> None:
    device = devices.find_device(name)
    assert devices.per_bank_refresh_interval_ck(device) == interval
    assert interval * device.banks == pytest.approx(device.trefi_ck, rel=0.01)
