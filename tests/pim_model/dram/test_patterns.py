"""Cycles of every pattern and device, derived on paper from the constraints, exactly."""

from pathlib import Path

import numpy as np
import pytest

from catalog import DramRecord, ForestageError
from catalog.record_file import record_toml
from pim_model.dram.devices import channel_geometry, find_device
from pim_model.dram.patterns import BYTES_MAX, ROWS, Pattern, pattern_requests, stream_pattern

DEVICES = ("HBM2", "HBM2-PIM", "HBM3", "HBM3E", "HBM4")
BURST = 2


def cycles(name: str, pattern: Pattern, reads: int, *, refresh: bool = False) -> int:
    return stream_pattern(find_device(name), pattern, 32 * reads, refresh=refresh).cycles_ck


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("reads", [1, 33, 1000])
def test_one_bank_group_reads_every_tccd_l(name: str, reads: int) -> None:
    assert cycles(name, Pattern.BANK_GROUP, 2) == find_device(name).trrd_l_ck + BURST  # no other hit to fill the gap
    assert cycles(name, Pattern.BANK_GROUP, reads) == (reads - 1) * 4 + BURST


# From the last read of a row to the first of the next: tRTP, tRP, tRCD.
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("HBM2", 5 + 14 + 14),
        ("HBM2-PIM", 5 + 14 + 14),
        ("HBM3", 9 + 26 + 31),
        ("HBM3E", 13 + 38 + 45),
        ("HBM4", 12 + 33 + 39),
    ],
)
@pytest.mark.parametrize("reads", [1, 32, 33, 1000])
def test_one_bank_reads_32_hits_and_then_changes_its_row(name: str, change: int, reads: int) -> None:
    changes = (reads - 1) // 32
    assert cycles(name, Pattern.ONE_BANK, reads) == (reads - 1 - changes) * 4 + changes * change + BURST


# max(tRC, tRAS + tRP, tRCD + tRTP + tRP): for HBM3 and HBM3E tRC is a clock more than tRAS + tRP.
@pytest.mark.parametrize(
    ("name", "apart"),
    [
        ("HBM2", max(48, 34 + 14, 14 + 5 + 14)),
        ("HBM2-PIM", max(47, 33 + 14, 14 + 5 + 14)),
        ("HBM3", max(72, 45 + 26, 31 + 9 + 26)),
        ("HBM3E", max(104, 65 + 38, 45 + 13 + 38)),
        ("HBM4", max(90, 57 + 33, 39 + 12 + 33)),
    ],
)
def test_conflicts_are_trc_apart(name: str, apart: int) -> None:
    for reads in (1, 2, 500):
        assert cycles(name, Pattern.CONFLICT, reads) == (reads - 1) * apart + BURST


# Four ACTs in a tFAW window; within it tRRD_S apart. HBM2: 4 · 4 > 15, HBM2-PIM: 4 · 4 = 16, so that tRRD_S binds.
@pytest.mark.parametrize(
    ("name", "window", "apart"),
    [("HBM2", 16, 4), ("HBM2-PIM", 16, 4), ("HBM3", 24, 4), ("HBM3E", 35, 6), ("HBM4", 30, 5)],
)
def test_new_rows_in_turn_come_at_the_rate_of_activations(name: str, window: int, apart: int) -> None:
    for reads in (1, 3, 4, 5, 1001):
        fours, rest = divmod(reads - 1, 4)
        assert cycles(name, Pattern.ROTATE, reads) == fours * window + rest * apart + BURST


@pytest.mark.parametrize(("name", "switch"), [("HBM2", 0), ("HBM2-PIM", 0), ("HBM3", 3 - 2)])
def test_sequential_reads_fill_the_bus(name: str, switch: int) -> None:
    # The second read comes 4 clocks after the first (its ACT tRRD_S later, or tCCD_L); the others every 2. HBM3 loses a
    # clock (tCCD_R) at every change of stack ID, every 4 banks · 4 groups · 32 bursts.
    for reads in (2, 512, 513, 5000):
        expected = (reads - 1) * 2 + (4 - 2) + (reads - 1) // 512 * switch + BURST
        assert cycles(name, Pattern.SEQUENTIAL, reads) == expected


@pytest.mark.parametrize(
    ("name", "set_reads", "rotation", "period"),
    [
        # The queue sees 32 reads ahead. The first read of the next rows enters it a clock after the (set − 32)-th has
        # been served, which is 4 + 2 · (set − 33) after the first; then tRP and tRCD: more than 2 clocks a read.
        ("HBM3E", 128, 8, 4 + 2 * 95 + 1 + 38 + 45),
        ("HBM4", 64, 16, 4 + 2 * 31 + 1 + 33 + 39),
    ],
)
def test_a_queue_of_32_does_not_hide_the_row_changes_of_fast_parts(
    name: str, set_reads: int, rotation: int, period: int
) -> None:
    assert period > 2 * set_reads
    # The first time round the banks are closed, and need no PRE: that is hidden.
    first_round = cycles(name, Pattern.SEQUENTIAL, rotation * set_reads)
    switches = find_device(name).stack_ids - 1
    assert (
        first_round == (rotation * set_reads - 1) * 2 + (4 - 2) + switches * (find_device(name).tccd_r_ck - 2) + BURST
    )
    later = [cycles(name, Pattern.SEQUENTIAL, (rotation + k) * set_reads + 1) for k in (3, 4, 9)]
    assert [later[1] - later[0], later[2] - later[1]] == [period, 5 * period]
    # A longer queue hides them.
    wide = stream_pattern(find_device(name), Pattern.SEQUENTIAL, 32 * 4096, refresh=False, queue=64)
    assert wide.cycles_per_read == pytest.approx(2, rel=0.002)


@pytest.mark.parametrize(
    ("name", "bound"), [("HBM2", 4), ("HBM2-PIM", 4), ("HBM3", 6), ("HBM3E", 35 / 4), ("HBM4", 7.5)]
)
def test_random_reads_come_near_the_rate_of_activations(name: str, bound: float) -> None:
    """With 16 banks and tRC 48, some banks' requests wait while others have none; with 32 the ACT rate alone binds."""
    result = stream_pattern(find_device(name), Pattern.RANDOM, 1_000_000, refresh=False)
    assert bound * 0.999 <= result.cycles_per_read <= bound * (1.02 if "HBM2" in name else 1.001)
    assert result.activations >= 0.999 * result.reads
    again = stream_pattern(find_device(name), Pattern.RANDOM, 1_000_000, refresh=False)
    other = stream_pattern(find_device(name), Pattern.RANDOM, 1_000_000, refresh=False, seed=1)
    assert again == result != other
    assert other.cycles_ck == pytest.approx(result.cycles_ck, rel=0.005)


@pytest.mark.parametrize("name", DEVICES)
def test_conflicts_with_refreshes_by_hand(name: str) -> None:
    device = find_device(name)
    reads, act, due, served = 500, 0, device.trefi_ck, []
    while len(served) < reads:
        served.append(act + device.trcd_read_ck)
        following = act + device.trc_ck
        if following >= due:
            # The last row is read; PREab after its tRAS, if a PRE has not closed it before the refresh was due.
            closed = act + device.tras_ck
            act = max(closed + device.trp_ck, due) + device.trfc_ck
            due += device.trefi_ck
        else:
            act = following
    assert cycles(name, Pattern.CONFLICT, reads, refresh=True) == served[-1] - served[0] + BURST


@pytest.mark.parametrize("name", DEVICES)
def test_refresh_takes_its_share_of_every_pattern(name: str) -> None:
    """A refresh costs tRFC, and closing and opening again: at most two row cycles."""
    device = find_device(name)
    for pattern in Pattern:
        without = stream_pattern(device, pattern, 200_000, refresh=False)
        refreshed = stream_pattern(device, pattern, 200_000, refresh=True)
        # Counted from the first clock, which comes tRCD before the first read.
        assert refreshed.refreshes == (refreshed.cycles_ck + device.trcd_read_ck) // device.trefi_ck, pattern
        each = (refreshed.cycles_ck - without.cycles_ck) / refreshed.refreshes
        # Where a queue of 32 cannot hide row changes, a refresh has closed the rows of a round, which then need no PRE.
        stalls = {"HBM3E": 8 * 22, "HBM4": 16 * 11}.get(name, 0) if pattern is Pattern.SEQUENTIAL else 0
        # With a REFab between, tRC no longer binds where it is more than tRAS + tRP.
        saved = max(stalls, device.trc_ck - device.tras_ck - device.trp_ck)
        assert device.trfc_ck - saved <= each <= device.trfc_ck + 2 * device.trc_ck, pattern


def places(device: DramRecord, pattern: Pattern, reads: int) -> list[tuple[int, int, int, int]]:
    """Stack ID, group, bank of the group, row of each read."""
    requests, geometry = pattern_requests(device, pattern, reads), channel_geometry(device)
    return [
        (geometry.stack_id_of(b), geometry.bank_group_of(b) % device.bank_groups, b % device.banks_per_group, r)
        for b, r in zip(requests.bank.tolist(), requests.row.tolist(), strict=True)
    ]


def test_patterns_read_what_they_say() -> None:
    hbm3 = find_device("HBM3")
    reads = places(hbm3, Pattern.SEQUENTIAL, 2 * 4 * 4 * 4 * 32 + 1)
    assert [reads[i] for i in (0, 1, 4, 128, 512, 1024)] == [
        (0, 0, 0, 0), (0, 1, 0, 0), (0, 0, 0, 0), (0, 0, 1, 0), (1, 0, 0, 0), (0, 0, 0, 1)
    ]  # fmt: skip
    assert {reads[:1024].count(place) for place in set(reads[:1024])} == {32}
    assert places(hbm3, Pattern.BANK_GROUP, 6) == [(0, 0, i % 4, 0) for i in range(6)]
    assert [places(hbm3, Pattern.ONE_BANK, 65)[i] for i in (0, 31, 32, 64)] == [(0, 0, 0, r) for r in (0, 0, 1, 2)]
    assert places(hbm3, Pattern.CONFLICT, 3) == [(0, 0, 0, i) for i in range(3)]
    rotate = places(hbm3, Pattern.ROTATE, 33)
    assert [rotate[i] for i in (0, 1, 4, 16, 32)] == [
        (0, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (1, 0, 0, 0), (0, 0, 0, 1)
    ]  # fmt: skip
    assert len(set(rotate)) == 33
    random = pattern_requests(hbm3, Pattern.RANDOM, 100_000)
    assert np.bincount(random.bank, minlength=32).min() > 2900
    assert 0 <= random.row.min() <= random.row.max() < ROWS
    assert pattern_requests(hbm3, Pattern.CONFLICT, ROWS + 1).row[-1] == 0


def test_bytes_are_rounded_up_to_bursts_and_bounded() -> None:
    device = find_device("HBM2")
    result = stream_pattern(device, Pattern.BANK_GROUP, 33, refresh=False)
    assert (result.reads, result.cycles_ck, result.cycles_per_read, result.fraction_of_peak) == (2, 6, 3, 4 / 6)
    assert result.gb_per_s == pytest.approx(64 / 6)
    for size in (0, -1, BYTES_MAX + 1):
        with pytest.raises(ForestageError, match=f"stream: {size} bytes; give 1 to"):
            stream_pattern(device, Pattern.RANDOM, size)


def test_a_device_of_a_file_is_read_like_the_catalogues(tmp_path: Path) -> None:
    hbm3 = find_device("HBM3")
    path = tmp_path / "mine.toml"
    path.write_text(record_toml("dram", hbm3.model_copy(update={"name": "Mine", "trc_ck": 80})))
    mine = find_device(str(path))
    assert (mine.name, mine.trc_ck, mine.trp_ck) == ("Mine", 80, hbm3.trp_ck)
    assert stream_pattern(mine, Pattern.CONFLICT, 64, refresh=False).cycles_ck == 80 + BURST


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("trp_ck = 26", "trpp_ck = 26"), r"mine.toml: dram 'HBM3': unknown key 'trpp_ck'; .* is 'trp_ck'"),
        (("trp_ck = 26", "trp_ck = 0"), r"mine.toml: dram 'HBM3': trp_ck: "),
        (("trfc_ck = 560", "trfc_ck = 6240"), r"mine.toml: dram 'HBM3': trefi_ck is 6240, but a refresh takes"),
        (("[[dram]]", "[[energy]]"), r"mine.toml: energy 'HBM3'"),
        (("[[dram]]", "[[dam]]"), r"mine.toml: unknown table 'dam'; the nearest known is '\[\[dram\]\]'"),
        (("[[dram]]", "[dram"), r"mine.toml: not valid TOML"),
    ],
)
def test_a_faulty_device_file_is_refused_in_one_line(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    path = tmp_path / "mine.toml"
    text = record_toml("dram", find_device("HBM3"))
    assert change[0] in text
    path.write_text(text.replace(*change, 1))
    with pytest.raises(ForestageError, match=message) as error:
        find_device(str(path))
    assert "\n" not in str(error.value)


def test_a_device_file_holds_one_device(tmp_path: Path) -> None:
    path = tmp_path / "two.toml"
    text = record_toml("dram", find_device("HBM3"))
    path.write_text(text + text.replace('"HBM3"', '"Other"', 1))
    with pytest.raises(
        ForestageError, match=r"two.toml: it holds 2 \[\[dram\]\] tables; --device takes a file with one"
    ):
        find_device(str(path))
    with pytest.raises(ForestageError, match=r"none.toml: cannot read the file"):
        find_device(str(tmp_path / "none.toml"))
