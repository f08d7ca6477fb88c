"""A recorded trace through the engine of ST-MoE's tables under Verilator, in lock-step with the twin."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.config import StrictModel
from catalog.errors import ForestageError
from catalog.progress import Progress
from cocotb_tests.lock_step import run_lock_step
from predictor.st_moe.events import routing_events
from predictor.st_moe.parameters import EngineConfiguration, EngineLimits, StMoeParameters
from predictor.st_moe.predictor import StMoePredictor
from traces import DECODE, RoutingTrace, split
from traces.selection import select_sequences


class ReplayResult(StrictModel):
    """The document of ``forestage rtl replay --unit table-engine``.

    Attributes:
        model: whose routing it is.
        synthetic: whether a generator made the trace.
        tokens: tokens replayed, prompts included; ``decode_tokens`` of them are decode steps.
        steps: routing events compared, one a recorded layer of a token.
        mismatches, first_mismatch: as ``LockStepResult``.
        cycles: of the hardware; ``cycles_per_token`` of its clock, ``cycles_per_s`` of the simulation.
        tokens_per_s: of the simulation.
        counters: the hardware's own.
        waits, seed: of the random waits.
        limits, configuration: of the engine.
    """

    model: str
    synthetic: bool
    tokens: int
    decode_tokens: int
    steps: int
    mismatches: int
    first_mismatch: str
    cycles: int
    cycles_per_token: float
    cycles_per_s: float
    tokens_per_s: float
    counters: dict[str, int]
    waits: bool
    seed: int
    limits: EngineLimits
    configuration: EngineConfiguration


def replay(
    trace: RoutingTrace,
    tokens: int,
    *,
    limits: EngineLimits | None = None,
    parameters: Mapping[str, Any] | None = None,
    lookahead: int = 1,
    issue_limit: int | None = None,
    waits: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> ReplayResult:
    """Profile on the trace's training sequences, replay the first ``tokens`` tokens of its test sequences.

    Args:
        trace: split by ``traces.split``; sequences are replayed from their first token on, prompt included.
        tokens: how many; the last sequence is cut.
        limits: of the engine; the default ones where None.
        parameters: fields of ``StMoeParameters``.
        lookahead: layers ahead.
        issue_limit: most experts issued for one token and layer; no limit where ``None``.
        waits: as ``run_lock_step``.
        seed: as ``run_lock_step``.
        progress: called with (tokens done, tokens in all).

    Raises:
        ForestageError: the trace exceeds the limits or has too few test tokens, or hardware runs are not possible here.
        SimulationError: the simulation failed.
    """
    limits = limits or EngineLimits()
    chosen = StMoeParameters.parse(dict(parameters or {}), origin="predictor 'st-moe'")
    limits.check_trace(trace, candidates=chosen.candidates)
    train, test = split(trace)
    stimulus = first_tokens(trace, test, tokens)
    predictor = StMoePredictor.fit(select_sequences(trace, train), lookahead=lookahead, **(parameters or {}))
    events = list(routing_events(stimulus))
    # Tokens done when so many events are.
    done = np.concatenate([[0], np.repeat(np.arange(1, tokens + 1), stimulus.recorded().sum(axis=1))])
    result = run_lock_step(
        tables := predictor.tables(limits, issue_limit),
        events,
        waits=waits,
        seed=seed,
        progress=None if progress is None else lambda n: progress(int(done[n]), tokens),
    )
    return ReplayResult(
        model=trace.metadata.model,
        synthetic=trace.metadata.synthetic,
        tokens=tokens,
        decode_tokens=int((stimulus.phase == DECODE).sum()),
        steps=result.events,
        mismatches=result.mismatches,
        first_mismatch=result.first_mismatch,
        cycles=result.cycles,
        cycles_per_token=result.cycles / tokens,
        cycles_per_s=result.cycles_per_s,
        tokens_per_s=tokens / result.streaming_s,
        counters=result.counters,
        waits=waits,
        seed=seed,
        limits=limits,
        configuration=tables.configuration,
    )


def first_tokens(trace: RoutingTrace, test: NDArray[np.int64], tokens: int, *, behind: int = 0) -> RoutingTrace:
    """The first ``tokens`` tokens of the ``test`` sequences, without so many as ``behind`` says of them.

    Raises:
        ForestageError: if there are not so many.
    """
    ends = np.cumsum(np.diff(trace.sequence_offsets)[test])
    available = int(ends[-1]) if len(ends) else 0
    if not 1 <= tokens <= available:
        raise ForestageError(
            f"tokens: {tokens} asked for, the test sequences of the trace have {available}; "
            + (f"choose 1 to {available}" if available else "give a trace of more sequences")
        )
    first, last = int(np.searchsorted(ends, behind, side="right")), int(np.searchsorted(ends, tokens))
    before = int(ends[first - 1]) if first else 0
    return select_sequences(trace, test[first : last + 1]).token_range(behind - before, tokens - before)
