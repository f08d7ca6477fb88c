"""What a simulated policy gives: the time per token with its parts, what moved, and what the host computed."""

from typing import Self

import numpy as np
from numpy.typing import NDArray

from perfmodel.results import Result, TokenTime
from perfmodel.run import Parts, Run
from perfmodel.units import PS_PER_S
from perfmodel.workload import Durations, Workload


class Outcome(Result):
    """One policy on one workload.

    Attributes:
        policy: its name.
        steps, tokens: timed.
        tpot: time per output token: of each token the time of its step.
        tokens_per_s: of all sequences that are served at once, or of a verification's tokens.
        parts_s: of the mean step's time, seconds; they sum to it (see `perfmodel.run.Parts`).
        hit_rate: share of the needed experts (distinct, of each step and layer) that were on the device at the gate.
        fetched, computed: a step: missing experts that were fetched, and that the host or the memory computed.
        moved: a step: experts over the link, whole transfers.
        moved_bytes: a step, with those of transfers given up.
        useful_share: of the experts that arrived unasked, those demanded before they gave way; ``None`` for none.
        link_busy, host_busy: share of the time; of the memory that computes, that of the group which decides.
    """

    policy: str
    steps: int
    tokens: int
    tpot: TokenTime
    tokens_per_s: float
    parts_s: dict[str, float]
    hit_rate: float
    fetched: float
    computed: float
    moved: float
    moved_bytes: float
    useful_share: float | None
    link_busy: float
    host_busy: float

    @classmethod
    def of(cls, policy: str, run: Run, workload: Workload, durations: Durations) -> Self:
        """From a simulation's result."""
        timed = workload.timed
        step_ps, tokens, counts = run.step_ps[timed], workload.tokens[timed], run.counts
        steps, total_ps = len(step_ps), int(step_ps.sum())
        moved = counts.demands + counts.late + counts.ahead
        return cls(
            policy=policy,
            steps=steps,
            tokens=int(tokens.sum()),
            tpot=TokenTime.of(np.repeat(step_ps, tokens).tolist()),
            tokens_per_s=int(tokens.sum()) / (total_ps / PS_PER_S),
            parts_s=parts_s(run.parts, steps),
            hit_rate=counts.hits / counts.lookups,
            fetched=counts.fetched / steps,
            computed=counts.computed / steps,
            moved=moved / steps,
            moved_bytes=(moved * durations.expert_bytes + counts.abandoned_bytes) / steps,
            useful_share=counts.useful / counts.ahead if counts.ahead else None,
            link_busy=run.link_busy_ps / total_ps,
            host_busy=run.host_busy_ps / total_ps,
        )


def parts_s(parts: Parts, steps: int) -> dict[str, float]:
    """Each part of the mean step's time, seconds."""
    return {name: value / steps / PS_PER_S for name, value in vars(parts).items()}


def sequence_ps(run: Run, workload: Workload, sequence_of_step: NDArray[np.int64], sequences: int) -> NDArray[np.int64]:
    """Time that the timed steps of each sequence took: i64 ``[sequences]``, for intervals over sequences."""
    found = np.zeros(sequences, np.int64)
    np.add.at(found, sequence_of_step[workload.timed], run.step_ps[workload.timed])
    return found
