"""The PIM tile under Verilator against its twin, and that a fault in either shows."""

import time

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("cocotb_tools", reason="needs the extra 'hardware'")

from catalog.errors import ForestageError
from cocotb_tests.pim_replay import replay_tile
from pim_model import tile
from pim_model.quantise import QuantisedExpert, float_expert, relative_error
from pim_model.tile import TileJob, TileParameters

Matrices = list[tuple[NDArray[np.int8], NDArray[np.int8]]]


def int8(generator: np.random.Generator, *shape: int) -> NDArray[np.int8]:
    return generator.integers(-128, 128, shape).astype(np.int8)


@pytest.fixture
def expert() -> Matrices:
    """The shapes of an expert: gate and up share their vector, down has its own; then odd shapes and extremes."""
    generator = np.random.default_rng(5)
    hidden, inner = int8(generator, 144), int8(generator, 64)
    shapes: Matrices = [(int8(generator, 64, 144), hidden), (int8(generator, 64, 144), hidden)]
    shapes += [(int8(generator, 144, 64), inner)]
    shapes += [
        (int8(generator, rows, columns), int8(generator, columns)) for rows, columns in ((1, 1), (3, 17), (9, 16))
    ]
    lowest = np.full((2, 4096), -128, np.int8)
    return [*shapes, (lowest, lowest[0])]


def test_full_rate_follows_the_latency_formula(expert: Matrices) -> None:
    counts: list[int] = []
    began = time.perf_counter()
    result = replay_tile(expert, progress=counts.append)
    elapsed_s = time.perf_counter() - began
    assert result.mismatches == 0
    assert result.cycles == result.predicted_cycles
    # One beat a cycle: beyond the beats, only the first load and the pipeline, and what the small jobs at the end
    # wait for their vectors (the last one's 256 chunks).
    beats = sum(len(weights) * -(-len(vector) // 16) for weights, vector in expert)
    assert beats < result.cycles < beats + 9 + 5 + 256
    for output, (weights, vector) in zip(result.outputs, expert, strict=True):
        assert output.tolist() == (weights.astype(int) @ vector.astype(int)).tolist()
    assert counts
    assert result.cycles_per_s > result.cycles / elapsed_s


@pytest.mark.parametrize(("seed", "group"), [(1, 8), (2, 1), (3, 5)])
def test_random_waits_follow_the_twin_cycle_for_cycle(expert: Matrices, seed: int, group: int) -> None:
    result = replay_tile(expert[2:], seed=seed, waits=True, group=group)
    assert result.mismatches == 0
    assert result.cycles == result.predicted_cycles


def test_an_expert_on_the_tile_gives_the_twins_bits() -> None:
    generator = np.random.default_rng(2)
    gate, up = generator.normal(0, 0.1, (2, 24, 40))
    down, inputs = generator.normal(0, 0.1, (40, 24)), generator.normal(size=(3, 40))
    expert = QuantisedExpert.of(gate, up, down)
    replay = replay_tile([product for x in inputs for product in expert.products(x)])
    assert replay.mismatches == 0
    sums = iter(replay.outputs)
    outputs = np.array([expert.run(x, lambda weights, vector: next(sums)) for x in inputs])
    assert outputs.tobytes() == np.array([expert.run(x) for x in inputs]).tobytes()
    reference = [float_expert(gate, up, down, x) for x in inputs]
    assert relative_error(outputs, reference) < 0.05


def test_a_tile_of_another_size() -> None:
    generator = np.random.default_rng(1)
    parameters = TileParameters(lanes=8, vector_chunks=5, accumulators=3, max_rows=20)
    matrices = [(int8(generator, 20, 40), int8(generator, 40)), (int8(generator, 4, 9), int8(generator, 9))]
    for waits in (False, True):
        assert replay_tile(matrices, waits=waits, parameters=parameters).mismatches == 0


def test_one_wrong_bit_in_the_twin_is_one_mismatch(expert: Matrices, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = tile.gemv

    def faulty(weights: NDArray[np.int8], vector: NDArray[np.int8]) -> NDArray[np.int32]:
        flipped = weights.copy()
        if weights.shape == (3, 17):
            flipped[1, 16] ^= 1
        return exact(flipped, vector)

    monkeypatch.setattr(tile, "gemv", faulty)
    assert replay_tile(expert[3:6]).mismatches == 1


def test_one_cycle_wrong_in_the_twin_is_seen(expert: Matrices, monkeypatch: pytest.MonkeyPatch) -> None:
    slower = property(lambda parameters: 4 + parameters.tree_stages)
    monkeypatch.setattr(TileParameters, "result_latency_ck", slower)
    result = replay_tile(expert[3:6])
    assert result.mismatches == sum(len(weights) for weights, _ in expert[3:6])
    assert result.cycles == result.predicted_cycles - 1


def test_results_that_never_come_are_mismatches(expert: Matrices, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hardware is given one beat less than it waits for."""
    complete = tile.weight_beats
    monkeypatch.setattr(tile, "weight_beats", lambda *arguments: complete(*arguments)[:-1])
    weights, vector = expert[4]
    result = replay_tile([(weights, vector)])
    assert result.mismatches == 1
    assert len(result.outputs[0]) == 2


def test_matrices_that_the_tile_cannot_do(expert: Matrices) -> None:
    with pytest.raises(ForestageError, match="give at least one"):
        replay_tile([])
    with pytest.raises(ForestageError, match="columns is 4097; this tile takes 1 to 4096"):
        replay_tile([(np.zeros((1, 4097), np.int8), np.zeros(4097, np.int8))])
    with pytest.raises(ForestageError, match="group is 9"):
        replay_tile(expert, group=9)


def test_jobs_are_checked_before_anything_is_built() -> None:
    job = TileJob(weights=np.zeros((0, 4), np.int8), vector=np.zeros(4, np.int8), group=1)
    with pytest.raises(ForestageError, match="rows is 0"):
        tile.check_jobs([job], TileParameters())
