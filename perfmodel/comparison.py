"""Every policy on one machine: the time per token of each, what is best, and the bounds.

What is free in a policy (the price of a transfer, whether what is missing is computed or fetched, …) is chosen by
simulation on *tuning* tokens, of the training sequences, among the *candidates* of a row, and measured on test tokens.
All policies begin with the experts most used in the training sequences.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from catalog.catalogue import Catalog
from perfmodel.config import SimulationConfig
from perfmodel.outcome import Outcome
from perfmodel.parts import Part
from perfmodel.plan import Missing
from perfmodel.policy import Eviction, Policy, Prefetch
from perfmodel.results import Result
from perfmodel.simulator import Simulator
from perfmodel.units import PS_PER_S
from predictor.measure.bootstrap import Bootstrap, interval
from predictor.measure.metrics import Ratio
from predictor.row_network.integers import CERTAIN

FETCH, HOST = "fetch", "host"

FREQUENCY_PRICES = tuple(CERTAIN * eighths // 8 for eighths in (1, 2, 3, 4))
LEARNED_PRICES = tuple(4 * CERTAIN * eighths // 8 for eighths in (1, 2, 3, 4, 5))
"""Of a value that is 4 · 65535 for an expert that is wanted within 2 tokens for certain."""


@dataclass(frozen=True)
class Row:
    """A line of the comparison.

    Attributes:
        name: in tables.
        family: ``fetch``: a missing expert is fetched; ``host``: the host's processor may compute it.
        candidates: policies; the fastest on the tuning tokens is the one.
    """

    name: str
    family: str
    candidates: tuple[Policy, ...]


def rows_of(part: Part, *, host: bool) -> list[Row]:
    """The rows that can be run with what is known ahead of ``part``.

    Args:
        part: whose values and predictions there are.
        host: whether the machine's host may compute.
    """
    rows = [*_fetching(), *(_computing() if host else ())]
    return [row for row in rows if all(_is_known(policy, part) for policy in row.candidates)]


def _is_known(policy: Policy, part: Part) -> bool:
    values = policy.eviction in (Eviction.LRU, Eviction.STATIC) or policy.eviction in part.values
    return values and (policy.prefetch is Prefetch.NONE or policy.prefetch in part.predictions)


def _fetching() -> Iterator[Row]:
    lru, frequency, learned = Eviction.LRU, Eviction.FREQUENCY, Eviction.LEARNED
    yield Row("LRU", FETCH, (Policy(eviction=lru),))
    yield Row("decayed frequency", FETCH, (Policy(eviction=frequency), *_priced(frequency, FREQUENCY_PRICES)))
    yield Row("ST-MoE prefetch", FETCH, (Policy(eviction=lru, prefetch=Prefetch.ST_MOE),))
    yield Row("learned eviction", FETCH, (Policy(eviction=learned),))
    yield Row("learned prefetch", FETCH, (Policy(eviction=lru, prefetch=Prefetch.LEARNED),))
    both = Policy(eviction=learned, prefetch=Prefetch.LEARNED, chance_scale=4)
    alone = Policy(eviction=learned)
    priced = tuple(
        Policy(eviction=learned, prefetch=prefetch, chance_scale=4, background=True, price=price)
        for prefetch, price in product((Prefetch.NONE, Prefetch.LEARNED), LEARNED_PRICES)
    )
    yield Row("learned", FETCH, (alone, both, *priced))
    yield Row("perfect prefetch", FETCH, (Policy(eviction=lru, prefetch=Prefetch.PERFECT),))
    yield Row("Belady + perfect prefetch", FETCH, (Policy(eviction=Eviction.BELADY, prefetch=Prefetch.PERFECT),))


def _computing() -> Iterator[Row]:
    yield Row("static placement", HOST, (Policy(eviction=Eviction.STATIC, missing=Missing.HOST),))
    yield Row("background, frequency", HOST, _where_it_may_compute(Eviction.FREQUENCY, FREQUENCY_PRICES))
    yield Row("background, learned", HOST, _where_it_may_compute(Eviction.LEARNED, LEARNED_PRICES))
    yield Row("background, oracle", HOST, _where_it_may_compute(Eviction.ORACLE, LEARNED_PRICES))


def _where_it_may_compute(eviction: Eviction, prices: Sequence[int]) -> tuple[Policy, ...]:
    return tuple(
        policy for missing in (Missing.HOST, Missing.SOONER) for policy in _priced(eviction, prices, missing=missing)
    )


def _priced(eviction: Eviction, prices: Sequence[int], *, missing: Missing = Missing.FETCH) -> tuple[Policy, ...]:
    return tuple(Policy(eviction=eviction, missing=missing, background=True, price=price) for price in prices)


class Line(Result):
    """A row of the comparison, measured.

    Attributes:
        name, family, policy: see `Row`; the policy is the candidate chosen.
        is_bound: whether it knows what has not happened yet.
        tuning_s: mean step's time on the tuning tokens.
        outcome: on the test tokens.
    """

    name: str
    family: str
    policy: Policy
    is_bound: bool
    tuning_s: float
    outcome: Outcome


class Gain(Result):
    """How many times as fast ``over`` the recommended policy is.

    Attributes:
        over: the row's name.
        ratio: of the two times over all test tokens.
        low, high: 95 % interval over sequences (`predictor.measure.bootstrap`); ``None`` for a single sequence.
    """

    over: str
    ratio: float
    low: float | None
    high: float | None


class Comparison(Result):
    """All policies at one point.

    Attributes:
        config: machine, link, host and share of experts.
        places: experts held, in all.
        expert_bytes: of one.
        link_gb_per_s: of the host link.
        lines: by row.
        recommended: name of the row that is fastest on the tuning tokens (bounds left out).
        gains: over each other row that is no bound.
        all_resident_s: mean step with every expert on the device: nothing is faster.
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
    trial = Simulator(tuning, config, uses, host=host, catalog=catalog)
    real = Simulator(test, config, uses, host=host, catalog=catalog)
    timed = int(tuning.steps.timed.sum())
    lines, times = [], {}
    for row in rows_of(test, host=host):
        tried = [int(trial.run(policy).step_ps.sum()) for policy in row.candidates]
        chosen = row.candidates[int(np.argmin(tried))]
        run = real.run(chosen)
        times[row.name] = real.by_sequence(run)
        lines.append(
            Line(
                name=row.name,
                family=row.family,
                policy=chosen,
                is_bound=chosen.is_bound,
                tuning_s=min(tried) / timed / PS_PER_S,
                outcome=real.outcome(chosen, run),
            )
        )
    honest = [line for line in lines if not line.is_bound]
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
