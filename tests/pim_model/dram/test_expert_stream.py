"""Streams: legal schedules, peak never exceeded, near it when long, refreshes in time, energy, closed form."""

from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog import DramRecord, ForestageError
from pim_model.dram import constraints, devices
from pim_model.dram.commands import Command, Scope
from pim_model.dram.devices import Access
from pim_model.dram.expert_stream import IssuedCommand, Refresh, StreamResult, slice_bytes, stream
from pim_model.dram.expert_stream_closed_form import steady_state, stream_cycles_ck
from pim_model.energy import find_energy, stream_energy

DEVICES = ("HBM2", "HBM2-PIM", "HBM3", "HBM3E", "HBM4")


def modes() -> list[tuple[str, Access, Refresh]]:
    """Every access and refresh that a device has."""
    return [
        (name, access, refresh)
        for name in DEVICES
        for access in Access
        for refresh in Refresh
        if access is not Access.IN_BANK or (refresh is not Refresh.PER_BANK and name != "HBM2")
    ]


def recorded(device: DramRecord, size_bytes: int, access: Access, refresh: Refresh) -> StreamResult:
    return stream(device, size_bytes, access, refresh=refresh, record_commands=True)


def violations(device: DramRecord, access: Access, commands: tuple[IssuedCommand, ...], *, first: int = 0) -> list[str]:
    """Every constraint against every pair it joins, by its definition, for the commands from ``first`` on."""
    layout = devices.geometry(device, access)
    joined = {
        Scope.COMMAND_BUS: lambda a, b: True,
        Scope.CHANNEL: lambda a, b: True,
        Scope.OTHER_STACK_ID: lambda a, b: layout.stack_id_of(a) != layout.stack_id_of(b),
        Scope.BANK_GROUP: lambda a, b: layout.bank_group_of(a) == layout.bank_group_of(b),
        Scope.BANK: lambda a, b: a == b,
    }
    found = []
    for constraint in constraints.timing_constraints(device, access):
        joins = joined[constraint.scope]
        for index, later in enumerate(commands[first:], start=first):
            if later.command not in constraint.following:
                continue
            near, place = 0, index - 1
            while place >= 0 and commands[place].at_ck > later.at_ck - constraint.latency_ck:
                earlier = commands[place]
                near += earlier.command in constraint.preceding and joins(earlier.bank, later.bank)
                place -= 1
            if near >= constraint.window:
                found.append(f"{constraint.name}: {later}")
    return found


@pytest.mark.parametrize(("name", "access", "refresh"), modes())
def test_schedules_keep_every_constraint(name: str, access: Access, refresh: Refresh) -> None:
    # Long enough for an all-bank refresh.
    device = devices.find_device(name)
    size = int(1.05 * device.trefi_ck * devices.peak_bytes_per_ck(device, access))
    result = recorded(device, size, access, refresh)
    assert violations(device, access, result.commands) == []
    assert [c.at_ck for c in result.commands] == sorted(c.at_ck for c in result.commands)
    if refresh is Refresh.ALL_BANK:
        assert result.all_bank_refreshes == 1


def test_nothing_comes_a_clock_too_late() -> None:
    """Moved a clock forward, nearly every command breaks a constraint; which also shows that the checker sees it."""
    device = devices.find_device("HBM3")
    commands = recorded(device, 20_000, Access.HOST_READ, Refresh.PER_BANK).commands
    early = 0
    for index, issued in enumerate(commands):
        moved = IssuedCommand(at_ck=issued.at_ck - 1, command=issued.command, bank=issued.bank)
        early += bool(violations(device, Access.HOST_READ, (*commands[:index], moved), first=index))
    # But the first, and what waits for something else than a constraint: its turn to be opened, a refresh to be due.
    assert early > 0.95 * len(commands)


@pytest.mark.parametrize(("name", "access", "refresh"), modes())
@settings(max_examples=8, deadline=None)
@given(size=st.integers(1, 30_000))
def test_every_byte_is_moved_once_and_never_faster_than_the_peak(
    name: str, access: Access, refresh: Refresh, size: int
) -> None:
    device = devices.find_device(name)
    result = recorded(device, size, access, refresh)
    unit = devices.operation_bytes(device, access)
    assert result.moved_bytes == result.operations * unit
    assert size <= result.moved_bytes < size + unit
    counts = Counter(c.command for c in result.commands)
    assert counts[Command.WR if access is Access.HOST_WRITE else Command.RD] == result.operations
    assert result.moved_bytes <= result.cycles_ck * result.peak_bytes_per_ck
    # No row gives more bursts than it holds.
    bursts: dict[int, int] = defaultdict(int)
    for issued in result.commands:
        if issued.command is Command.ACT:
            bursts[issued.bank] = 0
        elif issued.command in (Command.RD, Command.WR):
            bursts[issued.bank] += 1
            assert bursts[issued.bank] <= device.row_bursts


def test_by_hand() -> None:
    device = devices.find_device("HBM2")
    # One burst: tRCD 14, CL 14, 2 clocks of data.
    assert stream(device, 32).cycles_ck == 30
    assert stream(device, 1).cycles_ck == 30
    # Four bursts in four groups: their ACTs come every tRRD_S = 4.
    assert stream(device, 4 * 32).cycles_ck == 14 + 3 * 4 + 16
    # Five: the fifth is in the first group's row, tCCD_S = 2 after the fourth.
    assert stream(device, 5 * 32).cycles_ck == 14 + 3 * 4 + 2 + 16
    # In the banks of HBM2-PIM: tRCD 14, then one operation of 256 bytes every 4 clocks.
    assert stream(devices.find_device("HBM2-PIM"), 256, Access.IN_BANK).cycles_ck == 14 + 4
    assert stream(devices.find_device("HBM2-PIM"), 10 * 256, Access.IN_BANK).cycles_ck == 14 + 9 * 4 + 4


@pytest.mark.parametrize("name", DEVICES)
def test_long_streams_come_near_the_peak(name: str) -> None:
    device = devices.find_device(name)
    result = stream(device, 200_000)
    assert 0.99 < result.efficiency <= 1
    assert result.gb_per_s == pytest.approx(device.pseudo_channel_gb_per_s, rel=0.01)
    # All banks refreshing at once costs about tRFC of every tREFI.
    stopped = stream(device, 200_000, refresh=Refresh.ALL_BANK)
    assert stopped.efficiency == pytest.approx(1 - device.trfc_ck / device.trefi_ck, abs=0.04)


def test_in_bank_reads_are_four_times_as_fast_on_hbm2_pim() -> None:
    device = devices.find_device("HBM2-PIM")
    host = stream(device, 100_000, Access.HOST_READ, refresh=Refresh.NONE)
    inside = stream(device, 100_000, Access.IN_BANK, refresh=Refresh.NONE)
    assert host.cycles_ck / inside.cycles_ck == pytest.approx(4, rel=0.02)


@pytest.mark.parametrize("name", DEVICES)
def test_per_bank_refreshes_are_in_time_and_fair(name: str) -> None:
    device = devices.find_device(name)
    interval = devices.per_bank_refresh_interval_ck(device)
    size = int(1.5 * device.trefi_ck * device.burst_bytes / device.burst_ck)
    commands = recorded(device, size, Access.HOST_READ, Refresh.PER_BANK).commands
    refreshes = [c for c in commands if c.command is Command.REFPB]
    assert len(refreshes) >= 1.4 * device.trefi_ck // interval
    for number, issued in enumerate(refreshes, start=1):
        # Never before it is due, and far less than the eight intervals that JEDEC lets it wait.
        assert number * interval <= issued.at_ck < (number + 2) * interval
    banks = [c.bank for c in refreshes]
    assert sorted(banks[: device.banks]) == list(range(device.banks))


@pytest.mark.parametrize(("name", "access", "refresh"), modes())
@pytest.mark.parametrize("size", [32, 1000, 20_000, 250_000])
def test_the_closed_form_is_within_a_hundredth(name: str, access: Access, refresh: Refresh, size: int) -> None:
    device = devices.find_device(name)
    exact = stream(device, size, access, refresh=refresh).cycles_ck
    assert stream_cycles_ck(device, size, access, refresh=refresh) == pytest.approx(exact, rel=0.01)


def test_the_steady_state_of_hbm3() -> None:
    state = steady_state(devices.find_device("HBM3"))
    # Four bank groups hide tCCD_L = 4 behind four bursts of 2 clocks; a change of stack ID costs tCCD_R − 2 = 1 clock
    # every 4 · 4 · 32 bursts.
    assert state.operation_ck == 2
    assert state.bytes_per_ck == pytest.approx(32 / (2 + 1 / 512))
    # With one bank group, tCCD_L is what limits.
    single = steady_state(devices.find_device("HBM3", {"bank_groups": 1, "pim": None}))
    assert single.efficiency == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"row_bursts": 2}, "opening the next rows takes 30 ck, but only 16 pass"),
        ({"banks_per_group": 1}, "closing and opening again"),
        ({"trfc_per_bank_ck": 2500}, "per-bank refresh takes 2544 ck, but only 512 pass"),
    ],
)
def test_no_closed_form_where_rows_hide_nothing(overrides: dict[str, int], message: str) -> None:
    device = devices.find_device("HBM2", overrides)
    with pytest.raises(ForestageError, match=message):
        steady_state(device)
    # The exact schedule has no such limit, and shows what the closed form would have missed.
    assert stream(device, 50_000).efficiency < 0.9


def test_energy_of_the_default_set() -> None:
    device = devices.find_device("HBM2-PIM")
    energy = find_energy()
    size = 64 * 1024  # 64 rows of 1 KB
    bits = 8 * size
    host = stream_energy(stream(device, size, refresh=Refresh.NONE), device, energy)
    inside = stream_energy(stream(device, size, Access.IN_BANK, refresh=Refresh.NONE), device, energy)
    assert host.parts_pj == pytest.approx(
        {"array": 1.51 * bits, "io": 1.17 * bits, "phy": 0.8 * bits, "activate_precharge": 64 * 909}
    )
    assert inside.parts_pj == pytest.approx({"array": 1.51 * bits, "activate_precharge": 64 * 909})
    assert host.pj_per_bit(size) == pytest.approx(3.48 + 909 / 8192)
    assert inside.pj_per_bit(size) == pytest.approx(1.51 + 909 / 8192)


def test_energy_counts_refreshes_and_whole_bursts() -> None:
    device, energy = devices.find_device("HBM2"), find_energy()
    long = stream(device, 200_000, refresh=Refresh.ALL_BANK)
    assert stream_energy(long, device, energy).parts_pj["refresh"] == long.all_bank_refreshes * 58176
    per_bank = stream(device, 200_000, refresh=Refresh.PER_BANK)
    share = stream_energy(per_bank, device, energy).parts_pj["refresh"] / 58176
    assert share == per_bank.per_bank_refreshes / 16
    # One byte costs a burst.
    assert stream_energy(stream(device, 1), device, energy).parts_pj["array"] == 1.51 * 256


def test_other_energy_sets_keep_their_meaning() -> None:
    device = devices.find_device("HBM2-PIM")
    inside, write = stream(device, 1024, Access.IN_BANK), stream(device, 1024, Access.HOST_WRITE)
    attacc = stream_energy(inside, device, find_energy("attacc"))
    assert attacc.parts_pj == pytest.approx({"cell_activate_precharge": 0.11 * 8192, "cell_access": 0.44 * 8192})
    assert stream_energy(write, device, find_energy("dramsim3-hbm2")).parts_pj["write"] == pytest.approx(2.09 * 8192)
    with pytest.raises(ForestageError, match="energy 'accelergy-hbm2': in_bank_terms"):
        stream_energy(inside, device, find_energy("accelergy-hbm2"))


def test_an_expert_over_a_stack() -> None:
    # 17.3 MB of a DeepSeek-V2-Lite expert in BF16, over the 32 pseudo-channels of HBM3.
    size = 3 * 2048 * 1408 * 2
    share = slice_bytes(size, 32)
    assert share * 32 >= size > (share - 1) * 32
    device = devices.find_device("HBM3")
    stack_s = stream_cycles_ck(device, share) * device.tck_ns * 1e-9
    assert size / stack_s == pytest.approx(819.2e9, rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("HBM2", 0, Access.HOST_READ, None), "size_bytes is 0"),
        (("HBM2", 32, Access.IN_BANK, None), "no compute at its banks"),
        (("HBM2-PIM", 32, Access.IN_BANK, Refresh.PER_BANK), "use all-bank or none"),
    ],
)
def test_streams_that_cannot_be(arguments: tuple[str, int, Access, Refresh | None], message: str) -> None:
    name, size, access, refresh = arguments
    for call in (stream, stream_cycles_ck):
        with pytest.raises(ForestageError, match=message):
            call(devices.find_device(name), size, access, refresh=refresh)


def test_of_equal_banks_the_first_is_refreshed() -> None:
    """The banks of a set, one in each group, are needed equally late: they are refreshed in ascending order."""
    device = devices.find_device("HBM2")
    size = int(1.5 * device.trefi_ck * device.burst_bytes / device.burst_ck)
    commands = recorded(device, size, Access.HOST_READ, Refresh.PER_BANK).commands
    round_ = [c.bank for c in commands if c.command is Command.REFPB][: device.banks]
    banks_per_group = devices.geometry(device, Access.HOST_READ).banks_per_group
    for within in range(banks_per_group):
        of_set = [bank for bank in round_ if bank % banks_per_group == within]
        assert of_set == list(range(within, device.banks, banks_per_group))
