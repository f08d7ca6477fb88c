"""The tile's twin: exact arithmetic, the order of the weights, the latency formula against the stepped control."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from catalog.errors import ForestageError
from pim_model import tile, tile_cycles
from pim_model.tile import MAX_COLUMNS, TileJob, TileParameters
from pim_model.tile_cycles import TilePace

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "pim.md"

SMALL = TileParameters(lanes=4, vector_chunks=5, accumulators=3, max_rows=9)


def int8(*shape: int, seed: int = 0) -> NDArray[np.int8]:
    return np.random.default_rng(seed).integers(-128, 128, shape).astype(np.int8)


def job(rows: int, columns: int, *, group: int = 1, vector: bool = True) -> TileJob:
    return TileJob(weights=int8(rows, columns), vector=int8(columns) if vector else None, group=group)


@st.composite
def job_lists(draw: st.DrawFn) -> list[TileJob]:
    """Jobs that SMALL can do; a job may keep the vector of the one before."""
    jobs: list[TileJob] = []
    for index in range(draw(st.integers(1, 5))):
        keeps = index > 0 and draw(st.booleans())
        columns = jobs[-1].weights.shape[1] if keeps else draw(st.integers(1, 20))
        jobs.append(job(draw(st.integers(1, 9)), columns, group=draw(st.integers(1, 3)), vector=not keeps))
    return jobs


def test_the_longest_vector_of_extremes_does_not_overflow() -> None:
    lowest = np.full((1, MAX_COLUMNS), -128, np.int8)
    assert tile.gemv(lowest, lowest[0]).tolist() == [128 * 128 * MAX_COLUMNS]
    assert tile.gemv(lowest, np.full(MAX_COLUMNS, 127, np.int8)).tolist() == [-128 * 127 * MAX_COLUMNS]
    with pytest.raises(ForestageError, match="131072 columns"):
        tile.gemv(np.zeros((1, MAX_COLUMNS + 1), np.int8), np.zeros(MAX_COLUMNS + 1, np.int8))
    assert 128 * 128 * (MAX_COLUMNS + 1) > 2**31 - 1  # the bound is no smaller than it must be


def test_gemv_equals_python_integers() -> None:
    weights, vector = int8(7, 33), int8(33, seed=1)
    expected = [sum(int(w) * int(x) for w, x in zip(row, vector, strict=True)) for row in weights]
    assert tile.gemv(weights, vector).tolist() == expected


@pytest.mark.parametrize(
    ("weights", "vector", "message"),
    [
        (np.zeros((2, 3)), np.zeros(3, np.int8), "weights are float64"),
        (np.zeros((2, 3), np.int8), np.zeros(3, np.uint8), "the vector uint8"),
        (np.zeros((2, 3), np.int8), np.zeros(4, np.int8), r"\[2, 3\] do not fit a vector \[4\]"),
        (np.zeros(3, np.int8), np.zeros(3, np.int8), r"give \[rows, columns\]"),
    ],
)
def test_gemv_refuses_what_it_would_have_to_convert(weights: NDArray, vector: NDArray, message: str) -> None:
    with pytest.raises(ForestageError, match=message):
        tile.gemv(weights, vector)


def test_the_order_of_the_weights() -> None:
    # Entry 10 · row + column; three rows in groups of two, five columns in chunks of four.
    weights = (10 * np.arange(1, 4)[:, None] + np.arange(5)).astype(np.int8)
    assert tile.weight_beats(weights, 2, 4).tolist() == [
        [10, 11, 12, 13],
        [20, 21, 22, 23],
        [14, 0, 0, 0],
        [24, 0, 0, 0],
        [30, 31, 32, 33],
        [34, 0, 0, 0],
    ]
    assert tile.vector_chunks(np.arange(5, dtype=np.int8), 4).tolist() == [[0, 1, 2, 3], [4, 0, 0, 0]]


def test_the_formula_by_hand() -> None:
    # One row of one chunk: loaded in cycle 0, multiplied in 1, taken a latency later.
    latency = SMALL.result_latency_ck
    assert latency == 4  # fetch, products, one stage of two adder levels, accumulator
    assert TileParameters().result_latency_ck == 5
    assert tile.full_rate_cycles([job(1, 4)], SMALL) == 2 + latency
    # Five chunks to load, then nine rows of five beats: the first beat in cycle 5, the last in 49.
    assert tile.full_rate_cycles([job(9, 20)], SMALL) == 50 + latency
    # The second vector is loaded meanwhile, and the third job keeps it: no cycle between the jobs.
    jobs = [job(9, 20), job(2, 8), job(3, 8, vector=False)]
    assert tile.full_rate_cycles(jobs, SMALL) == 50 + 2 * 2 + 3 * 2 + latency
    # One row each of five chunks: loading is the bottleneck. A third vector waits for the first one's bank, which is
    # released in cycle 9, when the second has just been loaded.
    assert tile.full_rate_cycles([job(1, 20)] * 3, SMALL) == 5 + 5 + 5 + 5 + latency
    assert tile.full_rate_cycles([], SMALL) == 0


@settings(max_examples=150, deadline=None)
@given(job_lists())
def test_the_formula_equals_the_stepped_control(jobs: list[TileJob]) -> None:
    run = tile_cycles.run(jobs, SMALL, TilePace.full())
    assert run.cycles == tile.full_rate_cycles(jobs, SMALL)


@settings(max_examples=60, deadline=None)
@given(job_lists(), st.integers(0, 2**32 - 1))
def test_waits_delay_but_change_no_value(jobs: list[TileJob], seed: int) -> None:
    full = tile_cycles.run(jobs, SMALL, TilePace.full())
    waiting = tile_cycles.run(jobs, SMALL, TilePace.random(seed))
    vectors = tile.job_vectors(jobs)
    expected = [j.weights.astype(int) @ v.astype(int) for j, v in zip(jobs, vectors, strict=True)]
    assert waiting.values.tolist() == full.values.tolist() == np.concatenate(expected).tolist()
    assert (waiting.result_cycles >= full.result_cycles).all()
    assert (np.diff(waiting.result_cycles) > 0).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 20), st.integers(1, 3))
def test_beats_added_up_in_order_are_the_product(rows: int, columns: int, group: int) -> None:
    """What the hardware does: beat by beat into the accumulator of its row."""
    weights, vector = int8(rows, columns), int8(columns, seed=1)
    chunks = tile.vector_chunks(vector, 4).astype(int)
    beats = iter(tile.weight_beats(weights, group, 4).astype(int))
    results = []
    for start in range(0, rows, group):
        accumulators = [0] * min(group, rows - start)
        for chunk in chunks:
            for row in range(len(accumulators)):
                accumulators[row] += int(next(beats) @ chunk)
        results += accumulators
    assert results == tile.gemv(weights, vector).tolist()
    assert next(beats, None) is None


@pytest.mark.parametrize(
    ("jobs", "message"),
    [
        ([job(10, 4)], "job 0: rows is 10; this tile takes 1 to 9"),
        ([job(1, 4), job(1, 21)], "job 1: columns is 21; this tile takes 1 to 20"),
        ([job(1, 4, group=4)], "group is 4"),
        ([job(1, 4, vector=False)], "no job before it has one"),
        ([job(1, 4), job(1, 5, vector=False)], "5 columns, but the vector has 4"),
    ],
)
def test_jobs_that_the_tile_cannot_do(jobs: list[TileJob], message: str) -> None:
    for call in (tile.check_jobs, tile.full_rate_cycles):
        with pytest.raises(ForestageError, match=message):
            call(jobs, SMALL)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lanes": 12}, "power of two"),
        ({"lanes": 64, "vector_chunks": 2048}, "could overflow"),
        ({"lane": 16}, "nearest known key is 'lanes'"),
    ],
)
def test_parameters_that_no_tile_has(values: dict[str, int], message: str) -> None:
    with pytest.raises(ForestageError, match=f"tile.toml.*{message}"):
        TileParameters.parse(values, origin="tile.toml")


def test_the_default_tile_is_the_one_that_the_guide_describes() -> None:
    text = " ".join(GUIDE.read_text(encoding="utf-8").split())
    said = re.search(
        r"default `TileParameters`: (\d+) lanes, (\d+) chunks a vector, (\d+) accumulators, ([\d,]+) rows", text
    )
    assert said is not None
    lanes, chunks, accumulators, rows = (int(number.replace(",", "")) for number in said.groups())
    documented = TileParameters(lanes=lanes, vector_chunks=chunks, accumulators=accumulators, max_rows=rows)
    assert TileParameters() == documented
