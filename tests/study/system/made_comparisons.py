"""Comparisons made of given times, for what is concluded from them and drawn of them."""

from perfmodel.comparison import Comparison, Gain, Line
from perfmodel.config import SimulationConfig
from perfmodel.outcome import Outcome
from perfmodel.results import TokenTime
from predictor.policies.plan import Missing
from predictor.policies.policy import Eviction, Policy
from predictor.policies.rows import BASELINES, FETCH, HOST
from predictor.policies.tuning import Tried
from predictor.row_network.integers import CERTAIN

LEARNED = Policy(eviction=Eviction.LEARNED, missing=Missing.SOONER, background=True, price=3 * CERTAIN // 2)
POLICIES = {
    "LRU": (FETCH, Policy(eviction=Eviction.LRU)),
    "learned": (FETCH, Policy(eviction=Eviction.LEARNED)),
    "Belady + perfect prefetch": (FETCH, Policy(eviction=Eviction.BELADY)),
    "static placement": (HOST, Policy(eviction=Eviction.STATIC, missing=Missing.HOST)),
    "background, learned": (HOST, LEARNED),
}


def line(name: str, mean_ms: float, gain: Gain | None = None, tried: tuple[Tried, ...] = ()) -> Line:
    """A row called ``name`` that takes ``mean_ms`` a token."""
    family, policy = POLICIES[name]
    time = TokenTime(mean_s=mean_ms / 1e3, p50_s=0.0, p95_s=0.0, p99_s=0.0)
    numbers = dict.fromkeys(
        ("hit_rate", "fetched", "computed", "moved", "moved_bytes", "tokens_per_s", "link_busy", "host_busy"), 0.5
    )
    parts = {"compute": 0.0, "hbm": mean_ms / 4e3, "demand_wait": mean_ms / 4e3, "late_wait": 0.0}
    outcome = Outcome(
        policy=policy.name, steps=1, tokens=1, tpot=time, useful_share=None,
        parts_s={**parts, "host_wait": mean_ms / 2e3}, **numbers,
    )  # fmt: skip
    return Line(
        name=name, family=family, policy=policy, is_oracle=policy.is_oracle, tried=tried, tuning_s=mean_ms / 1e3,
        outcome=outcome, gain=gain,
    )  # fmt: skip


def point(
    times_ms: dict[str, float],
    recommended: str,
    *,
    spread: float | None = 0.05,
    share: float = 0.5,
    link: float = 32.0,
    host: float | None = None,
) -> Comparison:
    """A comparison with these times; every gain's interval reaches ``spread`` to both sides."""

    def gain(name: str, over: str) -> Gain:
        ratio = times_ms[over] / times_ms[name]
        ends = (None, None) if spread is None else (ratio - spread, ratio + spread)
        return Gain(over=over, ratio=ratio, low=ends[0], high=ends[1])

    lines = []
    for name, time in times_ms.items():
        baseline = BASELINES[POLICIES[name][0]]
        lines.append(line(name, time, gain(name, baseline) if name != baseline else None))
    gains = [gain(recommended, one.name) for one in lines if one.name != recommended and not one.is_oracle]
    return Comparison(
        config=SimulationConfig(capacity_fraction=share, link_gb_per_s=link, host_gb_per_s=host),
        places=4,
        expert_bytes=10,
        link_gb_per_s=link,
        lines=lines,
        recommended=recommended,
        gains=gains,
        all_resident_s=0.5e-3,
        link_roofline_s=None,
    )


TIMES = {
    "LRU": 4.0,
    "learned": 3.0,
    "Belady + perfect prefetch": 1.0,
    "static placement": 2.0,
    "background, learned": 1.6,
}
