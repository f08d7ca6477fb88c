"""Matrices through the PIM tile under Verilator, compared with the tile's twin result by result and cycle by cycle."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalog.errors import ForestageError
from cocotb_tests.build import build
from cocotb_tests.payloads import pack_commands, pack_vector, unpack_results
from cocotb_tests.simulation import run as run_simulation
from pim_model import tile, tile_cycles
from pim_model.tile import TileJob, TileParameters
from pim_model.tile_cycles import TilePace
from rtl.pim import tile as pim_tile


@dataclass(frozen=True, kw_only=True)
class TileReplayResult:
    """A replay and its comparison.

    Attributes:
        mismatches: Results whose value, end mark or cycle differs from the twin's, and results missing or too many.
        cycles: Cycles until the last result was taken.
        predicted_cycles: The same according to the twin; without waits, its latency formula.
        wall_s: Seconds of the simulator, its start included.
        cycles_per_s: Cycles simulated in a second, once it has started.
        outputs: For each matrix, the hardware's int32 ``[rows]``; shorter where results are missing.
    """

    mismatches: int
    cycles: int
    predicted_cycles: int
    wall_s: float
    cycles_per_s: float
    outputs: list[NDArray[np.int32]]


def replay_tile(
    matrices: Sequence[tuple[NDArray[np.int8], NDArray[np.int8]]],
    *,
    seed: int = 0,
    waits: bool = False,
    group: int | None = None,
    parameters: TileParameters | None = None,
    progress: Callable[[int], None] | None = None,
) -> TileReplayResult:
    """Multiply each matrix by its vector in the tile and in its twin.

    A vector equal to the one before is loaded once and kept, as for an expert's gate and up matrices.

    Args:
        matrices: Pairs of int8 ``[rows, columns]`` and int8 ``[columns]``, at least one.
        seed: Seed of the random waits.
        waits: Whether all four streams wait at random; otherwise they run at full rate.
        group: Rows in work at once; the tile's accumulators where None.
        parameters: What the tile is generated with.
        progress: Called with the number of cycles simulated so far.

    Raises:
        ForestageError: no matrix, one that the tile cannot do, or hardware runs are not possible here.
        SimulationError: the simulation failed.
    """
    if not matrices:
        raise ForestageError("tile replay: no matrix given; give at least one")
    parameters = parameters or TileParameters()
    jobs = _jobs(matrices, parameters.accumulators if group is None else group)
    pace = TilePace.random(seed) if waits else TilePace.full()
    expected = tile_cycles.run(jobs, parameters, pace)
    predicted = expected.cycles if waits else tile.full_rate_cycles(jobs, parameters)
    model = build(pim_tile.generate_verilog(parameters), "pim_tile")
    simulation = run_simulation(
        model,
        "cocotb_tests.pim_tile_test",
        stimulus={
            **pack_streams(jobs, parameters),
            **{f"{name}_pace": pattern for name, pattern in vars(pace).items()},
            "results": len(expected.values),
            # Hardware that hangs is found out soon, hardware that is merely late is measured.
            "max_cycles": 2 * expected.cycles + 1000,
            "surplus_cycles": 2 * parameters.result_latency_ck,
        },
        seed=seed,
        timeout_s=600 + expected.cycles / 1000,
        progress=progress,
    )
    payloads, cycles = simulation.values["payloads"], simulation.values["cycles"]
    values, ends = unpack_results(payloads)
    rows = [len(job.weights) for job in jobs]
    arrived = len(values)
    wrong = (
        (values != expected.values[:arrived])
        | (cycles != expected.result_cycles[:arrived])
        | (ends != np.isin(np.arange(arrived), np.cumsum(rows) - 1))
    )
    total_cycles = int(cycles[-1]) + 1 if arrived else 0
    return TileReplayResult(
        mismatches=int(wrong.sum()) + len(expected.values) - arrived + simulation.values["surplus"],
        cycles=total_cycles,
        predicted_cycles=predicted,
        wall_s=simulation.wall_s,
        cycles_per_s=total_cycles / simulation.values["simulating_s"],
        outputs=np.split(values, np.cumsum(rows)[:-1]),
    )


def pack_streams(jobs: Sequence[TileJob], parameters: TileParameters) -> dict[str, NDArray[np.uint8]]:
    """The payloads of the tile's three input streams, u8 ``[items, bytes]``, little-endian."""
    lanes = parameters.lanes
    vectors = [tile.vector_chunks(job.vector, lanes) for job in jobs if job.vector is not None]
    kept = [following.vector is None for following in jobs[1:]] + [False]
    return {
        "vector": np.concatenate([pack_vector(chunks) for chunks in vectors]),
        "command": pack_commands(
            [
                {
                    "rows": job.weights.shape[0],
                    "chunks": -(-job.weights.shape[1] // lanes),
                    "group": job.group,
                    "release": int(not keep),
                }
                for job, keep in zip(jobs, kept, strict=True)
            ],
            parameters,
        ),
        "weights": np.concatenate([tile.weight_beats(job.weights, job.group, lanes) for job in jobs]).view(np.uint8),
    }


def _jobs(matrices: Sequence[tuple[NDArray[np.int8], NDArray[np.int8]]], group: int) -> list[TileJob]:
    """A job a matrix; a vector equal to the one before is kept."""
    jobs: list[TileJob] = []
    previous: NDArray[np.int8] | None = None
    for weights, vector in matrices:
        same = previous is not None and np.array_equal(previous, vector)
        jobs.append(TileJob(weights=weights, vector=None if same else vector, group=group))
        previous = vector
    return jobs
