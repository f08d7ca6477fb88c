"""Every policy on one machine: the time per token of each, what is best, and the bounds.

What is free in a policy (the price of a transfer, whether what is missing is computed or fetched, …) is chosen by
simulation on *tuning* tokens, of the training sequences, among the *candidates* of a row, and measured on test tokens.
All policies begin with the experts most used in the training sequences.
"""

import numpy as np
from numpy.typing import NDArray

from catalog.catalogue import Catalog
from perfmodel.config import SimulationConfig
from perfmodel.outcome import Outcome
from perfmodel.results import Result
from perfmodel.simulator import Simulator
from perfmodel.units import PS_PER_S
from predictor.measure.bootstrap import Bootstrap, interval
from predictor.measure.metrics import Ratio
from predictor.policies.parts import Part
from predictor.policies.policy import Policy
from predictor.policies.rows import BASELINES, rows_of
from predictor.policies.tuning import Tried, fastest, tune


class Gain(Result):
    """How many times as fast as another row a row is.

    Attributes:
        over: the other row's name.
        ratio: of the two times over all test tokens.
        low, high: 95 % interval over sequences (`predictor.measure.bootstrap`); ``None`` for a single sequence, and
            where a step serves several, which share its time.
    """

    over: str
    ratio: float
    low: float | None
    high: float | None


class Line(Result):
    """A row of the comparison, measured.

    Attributes:
        name, family: see `predictor.policies.rows.Row`.
        policy: the candidate that was chosen.
        is_oracle: whether it knows what has not happened yet.
        tried: every candidate, on the tuning tokens.
        tuning_s: the chosen one's time there.
        outcome: on the test tokens.
        gain: over the family's baseline; ``None`` for the baseline.
    """

    name: str
    family: str
    policy: Policy
    is_oracle: bool
    tried: tuple[Tried, ...]
    tuning_s: float
    outcome: Outcome
    gain: Gain | None


class Comparison(Result):
    """All policies at one point.

    Attributes:
        config: machine, link, host and share of experts.
        places: experts held, in all.
        expert_bytes: of one.
        link_gb_per_s: of the host link.
        lines: by row.
        recommended: name of the row that is fastest on the tuning tokens (oracles left out).
        gains: of the recommended row over each other that is no oracle's.
        all_resident_s: mean step with every expert on the device: nothing that computes there alone is faster.
        link_roofline_s: no policy that fetches is faster; see `perfmodel.simulator.Simulator`.
    """

    config: SimulationConfig
    places: int
    expert_bytes: int
    link_gb_per_s: float
    lines: list[Line]
    recommended: str
    gains: list[Gain]
    all_resident_s: float
    link_roofline_s: float | None

    def line(self, name: str) -> Line:
        """The line called ``name``."""
        return next(line for line in self.lines if line.name == name)


def compare(
    tuning: Part,
    test: Part,
    config: SimulationConfig,
    uses: NDArray[np.int64],
    *,
    host: bool,
    bootstrap: Bootstrap | None = None,
    catalog: Catalog | None = None,
) -> Comparison:
    """Choose each row's policy on ``tuning`` and measure it on ``test``.

    Args:
        tuning, test: parts of one trace, with the same kinds of foresight.
        config: the point.
        uses: i64 ``[layers, experts]``, of the training sequences: what the device holds at the start.
        host: whether the host may compute.
        bootstrap: of the intervals.
        catalog: the shipped one by default.

    Raises:
        ForestageError: where the configuration does not fit.
    """
    bootstrap = Bootstrap() if bootstrap is None else bootstrap
    if test.mixes_sequences:
        bootstrap = bootstrap.model_copy(update={"resamples": 0})
    trial = Simulator.of(tuning, config, uses, host=host, catalog=catalog)
    real = Simulator.of(test, config, uses, host=host, catalog=catalog)
    timed = int(tuning.steps.timed.sum())

    def step_s(policy: Policy) -> float:
        return int(trial.run(policy).step_ps.sum()) / timed / PS_PER_S

    lines: list[Line] = []
    times: dict[str, NDArray[np.int64]] = {}
    for row in rows_of(test, host=host, in_memory=config.in_memory is not None):
        tried = tune(row, step_s)
        chosen = fastest(tried)
        run = real.run(chosen.policy)
        times[row.name] = real.by_sequence(run)
        baseline = BASELINES[row.family]
        lines.append(
            Line(
                name=row.name,
                family=row.family,
                policy=chosen.policy,
                is_oracle=chosen.policy.is_oracle,
                tried=tried,
                tuning_s=chosen.step_s,
                outcome=real.outcome(chosen.policy, run),
                gain=None if row.name == baseline else _gain(baseline, times[baseline], times[row.name], bootstrap),
            )
        )
    honest = [line for line in lines if not line.is_oracle]
    best = min(honest, key=lambda line: line.tuning_s).name
    return Comparison(
        config=config,
        places=real.places,
        expert_bytes=real.durations.expert_bytes,
        link_gb_per_s=real.link_gb_per_s,
        lines=lines,
        recommended=best,
        gains=[_gain(line.name, times[line.name], times[best], bootstrap) for line in honest if line.name != best],
        all_resident_s=real.all_resident_s,
        link_roofline_s=real.link_roofline_s,
    )


def _gain(name: str, slower: NDArray[np.int64], faster: NDArray[np.int64], bootstrap: Bootstrap) -> Gain:
    low, high = (float(end) for end in interval(Ratio(slower, faster), bootstrap))
    known = not np.isnan(low)
    return Gain(
        over=name,
        ratio=int(slower.sum()) / int(faster.sum()),
        low=low if known else None,
        high=high if known else None,
    )
