"""The PIM tile's control, cycle by cycle, at any pace of its producers and its consumer.

`pim_model.tile.full_rate_cycles` is the closed form for the case in which nobody ever waits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pim_model import tile
from pim_model.tile import TileJob, TileParameters


@dataclass(frozen=True, kw_only=True)
class TilePace:
    """The cycles in which producers and consumer are willing: four bool patterns, each repeated cyclically.

    A producer raises ``valid`` in a cycle whose pattern is True, and holds it until its item is accepted; the consumer
    is ``ready`` exactly where its pattern is True.

    Attributes:
        vector: Producer of vector chunks.
        command: Producer of commands.
        weights: Producer of weight beats.
        results: Consumer of results.
    """

    vector: NDArray[np.bool_]
    command: NDArray[np.bool_]
    weights: NDArray[np.bool_]
    results: NDArray[np.bool_]

    @classmethod
    def full(cls) -> "TilePace":
        """The pace at which nobody ever waits."""
        always = np.ones(1, np.bool_)
        return cls(vector=always, command=always, weights=always, results=always)

    @classmethod
    def random(cls, seed: int, *, probability: float = 0.6, length: int = 1009) -> "TilePace":
        """Each side is willing with ``probability``; the patterns differ in length, so they drift apart."""
        generator = np.random.default_rng(seed)
        vector, command, weights, results = (generator.random(length + 2 * i) < probability for i in range(4))
        return cls(vector=vector, command=command, weights=weights, results=results)


@dataclass(frozen=True, kw_only=True)
class TileRun:
    """What the tile does with a list of jobs.

    Attributes:
        values: int32 ``[results]``, of all jobs in order.
        result_cycles: i64 ``[results]``, the cycle in which each is taken; cycle 0 is the first after reset.
    """

    values: NDArray[np.int32]
    result_cycles: NDArray[np.int64]

    @property
    def cycles(self) -> int:
        """Cycles up to and including the one in which the last result is taken."""
        return int(self.result_cycles[-1]) + 1 if len(self.result_cycles) else 0


def run(jobs: Sequence[TileJob], parameters: TileParameters, pace: TilePace) -> TileRun:
    """The results of ``jobs`` and the cycle in which each is taken, at any pace, by stepping the tile's control.

    Raises:
        ForestageError: the tile cannot do one of the jobs.
    """
    tile.check_jobs(jobs, parameters)
    vectors = tile.job_vectors(jobs)
    values = [tile.gemv(job.weights, vector) for job, vector in zip(jobs, vectors, strict=True)]
    cycles = _Control(jobs, parameters, pace).run(sum(len(v) for v in values))
    return TileRun(
        values=np.concatenate(values) if values else np.empty(0, np.int32), result_cycles=np.array(cycles, np.int64)
    )


class _Control:
    """The tile's valid and ready signals, one cycle a ``step``."""

    def __init__(self, jobs: Sequence[TileJob], parameters: TileParameters, pace: TilePace) -> None:
        lanes = parameters.lanes
        self._pace = pace
        self._loads = [-(-len(job.vector) // lanes) for job in jobs if job.vector is not None]
        self._beats = [_completions(job, lanes) for job in jobs]
        # The last job that uses a vector releases it: the next job brings its own, or there is none.
        self._releases = [following.vector is not None for _, following in pairwise(jobs)] + [True]
        self._loaded_chunks = 0
        self._full = [False, False]
        self._write_bank = self._read_bank = 0
        self._accepted = 0  # commands
        self._beat: int | None = None  # next beat of the active job
        self._pipeline = [False] * (parameters.result_latency_ck - 1)
        self._result = False
        self._holding = {"vector": False, "command": False, "weights": False}

    def run(self, results: int) -> list[int]:
        """The cycle in which each of ``results`` results is taken."""
        taken: list[int] = []
        cycle = 0
        while len(taken) < results:
            if self._step(cycle):
                taken.append(cycle)
            cycle += 1
        return taken

    def _step(self, cycle: int) -> bool:
        """Advance a cycle; return whether a result is taken in it."""
        ready = bool(self._pace.results[cycle % len(self._pace.results)])
        taken = self._result and ready
        advance = not self._result or ready
        completes, ends = False, False
        beat_offered = self._offers("weights", cycle, any(self._beats))
        if beat_offered and advance and self._beat is not None and self._full[self._read_bank]:
            completions = self._beats[self._accepted - 1]
            completes = completions[self._beat]
            self._beat += 1
            ends = self._beat == len(completions)
            self._holding["weights"] = False
        idle = self._beat is None
        self._load(cycle)
        if ends:
            self._beats[self._accepted - 1] = []
            self._beat = None
            if self._releases[self._accepted - 1]:
                self._full[self._read_bank] = False
                self._read_bank ^= 1
        if self._offers("command", cycle, self._accepted < len(self._beats)) and (idle or ends):
            self._holding["command"] = False
            self._accepted += 1
            self._beat = 0
        if advance:
            self._result = self._pipeline[-1]
            self._pipeline = [completes, *self._pipeline[:-1]]
        return taken

    def _load(self, cycle: int) -> None:
        """Accept a chunk of a vector, if one is offered and a bank is free."""
        # A bank released in this cycle is free only from the next on, since this runs before the release.
        if self._offers("vector", cycle, bool(self._loads)) and not self._full[self._write_bank]:
            self._holding["vector"] = False
            self._loaded_chunks += 1
            if self._loaded_chunks == self._loads[0]:
                self._loads.pop(0)
                self._loaded_chunks = 0
                self._full[self._write_bank] = True
                self._write_bank ^= 1

    def _offers(self, producer: str, cycle: int, has_items: bool) -> bool:
        """Whether ``producer`` raises its valid in this cycle."""
        pattern = getattr(self._pace, producer)
        self._holding[producer] = has_items and (self._holding[producer] or bool(pattern[cycle % len(pattern)]))
        return self._holding[producer]


def _completions(job: TileJob, lanes: int) -> list[bool]:
    """For each beat of ``job``, whether it is its row's last."""
    rows, columns = job.weights.shape
    chunks = -(-columns // lanes)
    sizes = [min(job.group, rows - start) for start in range(0, rows, job.group)]
    return [chunk == chunks - 1 for size in sizes for chunk in range(chunks) for _ in range(size)]
