"""The compiled controller against its policy in plain Python, and against the constraints themselves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog import DramRecord, ForestageError
from pim_model.dram.channel_state import ChannelState
from pim_model.dram.commands import Command
from pim_model.dram.constraint_arrays import COMMANDS
from pim_model.dram.constraints import timing_constraints
from pim_model.dram.controller import Requests, Schedule, schedule
from pim_model.dram.devices import channel_geometry, find_device
from tests.pim_model.dram.reference_controller import Issued, ReferenceController

DEVICES = ("HBM2", "HBM2-PIM", "HBM3", "HBM3E", "HBM4")
NAMES = tuple(COMMANDS)


def commands(result: Schedule) -> list[Issued]:
    parts = (result.at_ck, result.command, result.bank, result.row)
    return [(int(t), NAMES[c], int(b), int(r)) for t, c, b, r in zip(*parts, strict=True)]


def requests_of(banks: list[int], rows: list[int], writes: list[bool] | None = None) -> Requests:
    return Requests(
        np.array(banks, np.int32), np.array(rows, np.int32), np.array(writes or [False] * len(banks), np.bool_)
    )


def short_refreshes(device: DramRecord) -> DramRecord:
    """Refreshes that come often, so that a short stream meets several."""
    return device.model_copy(update={"trefi_ck": 160, "trfc_ck": 40})


@pytest.mark.parametrize("name", DEVICES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_it_issues_what_the_policy_says_clock_for_clock(name: str, data: st.DataObject) -> None:
    device = short_refreshes(find_device(name))
    pseudo_channels = data.draw(st.integers(1, 3))
    queue = data.draw(st.integers(1, 12))
    refresh = data.draw(st.booleans())
    count = data.draw(st.integers(1, 60))
    banks = channel_geometry(device, pseudo_channels).banks
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    # Few banks and rows give hits and conflicts; many give parallel banks.
    some = rng.choice(banks, size=min(banks, data.draw(st.integers(1, 24))), replace=False)
    writes = rng.random(count) < data.draw(st.sampled_from([0.0, 0.4]))
    requests = Requests(
        rng.choice(some, size=count).astype(np.int32),
        rng.integers(0, data.draw(st.integers(1, 4)), count).astype(np.int32),
        writes,
    )
    options = {"pseudo_channels": pseudo_channels, "queue": queue, "refresh": refresh}
    result = schedule(device, requests, record_commands=True, **options)  # type: ignore[arg-type]
    expected = ReferenceController(device, requests, **options).run()  # type: ignore[arg-type]
    assert commands(result) == expected
    assert sorted(result.column_ck) == [t for t, command, *_ in expected if command in (Command.RD, Command.WR)]
    assert result.counts == {command: sum(one == command for _, one, *_ in expected) for command in Command}


@pytest.mark.parametrize("name", DEVICES)
def test_every_request_is_served_once_in_an_open_row(name: str) -> None:
    device = find_device(name)
    rng = np.random.default_rng(0)
    requests = Requests(
        rng.integers(0, device.banks, 3000).astype(np.int32),
        rng.integers(0, 3, 3000).astype(np.int32),
        rng.random(3000) < 0.3,
    )
    result = schedule(device, requests, record_commands=True)
    state = ChannelState(channel_geometry(device), timing_constraints(device))
    served: list[tuple[int, int | None, Command]] = []
    for at_ck, command, bank, row in commands(result):
        state.issue(command, bank, at_ck, row=row)  # refuses what is too early or meets the wrong state
        if command in (Command.RD, Command.WR):
            served.append((bank, state.open_row(bank), command))
    asked = [(int(b), int(r), Command.WR if w else Command.RD) for b, r, w in zip(*requests, strict=True)]
    assert sorted(served, key=str) == sorted(asked, key=str)
    assert result.counts[Command.REFAB] == (max(result.column_ck) - 1) // device.trefi_ck >= 1


def test_row_hits_come_first_and_then_the_oldest() -> None:
    device = find_device("HBM2")
    # Bank 0: rows 7, 8, 7; the hit overtakes the request for row 8. Bank 4 is in another group.
    result = schedule(device, requests_of([0, 0, 0, 4], [7, 8, 7, 1]), refresh=False)
    # ACT 0 and 4, reads from 14 and 18 (tRCD); the second hit tCCD_L after the first. PRE tRTP after it, but not before
    # tRAS: 34; ACT at 48, read at 62.
    assert result.column_ck.tolist() == [14, 62, 18, 20]


def test_a_queue_of_one_serves_in_order_of_arrival() -> None:
    device = find_device("HBM2")
    result = schedule(device, requests_of([0, 0, 0], [7, 8, 7]), refresh=False, queue=1)
    assert result.column_ck.tolist() == [14, 62, 110]


def test_two_pseudo_channels_share_the_command_buses() -> None:
    """Twice the data of one, where a command a clock suffices; the second ACT waits for the row bus."""
    device = find_device("HBM3")
    one = channel_geometry(device).banks
    result = schedule(device, requests_of([0, one], [0, 0]), pseudo_channels=2, refresh=False, record_commands=True)
    assert [(t, c) for t, c, *_ in commands(result)] == [
        (0, Command.ACT), (2, Command.ACT), (31, Command.RD), (33, Command.RD)
    ]  # fmt: skip
    reads = 4096
    banks = [pc * one + 4 * (i % 4) for i in range(reads // 2) for pc in (0, 1)]
    both = schedule(device, requests_of(banks, [0] * reads), pseudo_channels=2, refresh=False)
    # A read every clock on the shared column bus: 2 ck a burst in each pseudo-channel.
    assert (both.column_ck.max() - both.column_ck.min() + 1) / reads == pytest.approx(1, rel=0.01)


def test_own_command_buses_are_not_waited_for() -> None:
    device = find_device("HBM3").model_copy(update={"pseudo_channels_per_command_bus": 1})
    one = channel_geometry(device).banks
    result = schedule(device, requests_of([0, one], [0, 0]), pseudo_channels=2, refresh=False)
    # The controller issues one row command a clock.
    assert result.column_ck.tolist() == [31, 32]


@pytest.mark.parametrize(
    ("requests", "options", "message"),
    [
        (([], []), {}, "requests"),
        (([0], [0]), {"queue": 0}, "queue is 0; give at least 1"),
        (([16], [0]), {}, "give 0 to 15"),
        (([-1], [0]), {}, "give 0 to 15"),
        (([0], [-1]), {}, "row -1"),
        (([0], [0]), {"pseudo_channels": 17}, "give 1 to 16"),
    ],
)
def test_impossible_requests_are_refused(requests: tuple, options: dict, message: str) -> None:
    with pytest.raises(ForestageError, match=message):
        schedule(find_device("HBM2"), requests_of(*requests), **options)
