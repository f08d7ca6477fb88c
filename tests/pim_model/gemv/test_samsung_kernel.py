"""The published HBM-PIM's kernel: its commands by hand, and its closed form equal to its schedule."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog import ForestageError
from pim_model.dram.channel_state import ChannelState
from pim_model.dram.commands import Command
from pim_model.dram.devices import Geometry, find_device
from pim_model.gemv.samsung import all_bank_constraints, samsung_clocks, samsung_schedule, tile_rows, tiles

DEVICES = ("HBM2-PIM", "HBM3", "HBM3E", "HBM4")


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(DEVICES),
    st.integers(1, 300),
    st.integers(1, 900),
    st.sampled_from([(1, 0), (2, 0), (2, 1)]),
    st.none() | st.integers(0, 9000),
)
def test_the_closed_form_agrees_with_the_schedule(
    name: str, rows: int, inputs: int, slots: tuple[int, int], due: int | None
) -> None:
    device = find_device(name)
    bus_phases, phase = slots
    exact = samsung_schedule(device, rows, inputs, refresh_in_ck=due, bus_phases=bus_phases, phase=phase)
    clocks = samsung_clocks(device, rows, inputs, refresh_in_ck=due, bus_phases=bus_phases, phase=phase)
    # Without refresh it is equal.
    assert clocks.compute_ck == pytest.approx(exact.compute_ck, rel=0.002 if due is not None else 0)


def test_commands_of_a_kernel_by_hand() -> None:
    device = find_device("HBM2-PIM")
    assert tile_rows(device) == 64
    assert tiles(device, 65, 129) == (2, 2)
    schedule = samsung_schedule(device, 65, 129)
    assert schedule.count(Command.RD) == 2 * 2 * 64
    assert schedule.count(Command.WR) == 4 + 2 * (8 + 1 + 2 * 8 + 1)
    # Entering the mode, the registers' row, and two row changes an input tile.
    assert schedule.count(Command.ACT) == 2 + 2 * 2 * 2
    # Within an output tile: 8 writes every tCCD_L; CWL + burst + tWR; tRP; tRCD of a read; 64 MACs every tCCD_L; tRTP;
    # tRP; tRCD of a write.
    period = 7 * 4 + (8 + 2 + 16) + 14 + 14 + 63 * 4 + 5 + 14 + 10
    acts = [c.clock_ck for c in schedule.commands if c.command is Command.ACT and c.row >= 3]
    assert acts[1] - acts[0] == period == 363


def test_every_command_obeys_the_table() -> None:
    device = find_device("HBM2-PIM")
    state = ChannelState(Geometry(1, 1, 1), all_bank_constraints(device))
    for issued in samsung_schedule(device, 200, 500, refresh_in_ck=500).commands:
        state.issue(issued.command, 0, issued.clock_ck, row=issued.row)  # raises if it comes too early


def test_refreshes_are_served_before_the_next_command() -> None:
    device = find_device("HBM2-PIM")
    schedule = samsung_schedule(device, 256, 1024, refresh_in_ck=1000)
    refreshes = [c.clock_ck for c in schedule.commands if c.command is Command.REFAB]
    assert len(refreshes) == 1 + (schedule.compute_ck - 1000) // device.trefi_ck
    for number, clock in enumerate(refreshes):
        due = 1000 + number * device.trefi_ck
        assert due <= clock <= due + device.tras_ck + device.twr_ck + device.trp_ck
    # Without refresh the kernel is the same but for those clocks.
    free = samsung_schedule(device, 256, 1024)
    assert free.count(Command.RD) == schedule.count(Command.RD)


def test_a_large_matrix_reaches_what_the_published_kernel_is_said_to() -> None:
    """68 % of the limit, 62 % with refresh: figures of others, met from the constraints alone."""
    device = find_device("HBM2-PIM")
    limit_ck = 2880 * 2880 * 2 / 64
    assert limit_ck / samsung_clocks(device, 2880, 2880).compute_ck == pytest.approx(0.68, abs=0.01)
    refreshed = samsung_clocks(device, 2880, 2880, refresh_in_ck=device.trefi_ck)
    assert limit_ck / refreshed.compute_ck == pytest.approx(0.62, abs=0.01)


def test_readout_is_apart_and_in_proportion_to_the_rows() -> None:
    device = find_device("HBM2-PIM")
    one, ten = (samsung_clocks(device, 64 * tiles_, 128).readout_ck for tiles_ in (1, 10))
    # A tile more: its store, then 64 bursts of 2 clocks.
    assert (ten - one) / 9 == pytest.approx(124 + 128, rel=0.02)


@pytest.mark.parametrize(
    ("name", "rows", "inputs", "overrides", "message"),
    [
        ("HBM2-PIM", 0, 5, None, "rows is 0"),
        ("HBM2-PIM", 5, 0, None, "inputs is 0"),
        ("HBM2", 5, 5, None, "no compute at its banks"),
        ("HBM2-PIM", 5, 5, {"row_bursts": 16}, "64 columns together in a row"),
    ],
)
def test_what_the_kernel_cannot_do_is_refused(
    name: str, rows: int, inputs: int, overrides: dict | None, message: str
) -> None:
    for run in (samsung_schedule, samsung_clocks):
        with pytest.raises(ForestageError, match=message):
            run(find_device(name, overrides), rows, inputs)
