"""The lines of a comparison: kinds of policy, each with the candidates among which its free settings are chosen."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from predictor.policies.parts import Part
from predictor.policies.plan import Missing
from predictor.policies.policy import Eviction, Policy, Prefetch
from predictor.row_network.integers import CERTAIN

FETCH, HOST, IN_MEMORY = "fetch", "host", "in-memory"

LRU, STATIC, STATIC_IN_MEMORY = "LRU", "static placement", "in memory, static placement"
"""The row of each family that everyone knows, against which its other rows are measured."""

BASELINES = {FETCH: LRU, HOST: STATIC, IN_MEMORY: STATIC_IN_MEMORY}

FREQUENCY_PRICES = tuple(CERTAIN * part // 32 for part in (0, 1, 2, 4, 8))
"""Of counters that hold `CERTAIN` at most."""

USE_PRICES = tuple(CERTAIN * uses for uses in (0, 1, 2, 3))
"""Of values that count an expert that is wanted for certain as `CERTAIN` each time."""


@dataclass(frozen=True)
class Candidate:
    """A policy with its free price.

    Attributes:
        policy: of price 0.
        prices: to be tried first, ascending; the best of them is refined (`tuning`). One: it is not free.
    """

    policy: Policy
    prices: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Row:
    """A line of the comparison.

    Attributes:
        name: in tables.
        family: ``fetch``: a missing expert is fetched; ``host``: the host's processor may compute it; ``in-memory``:
            the memory in which it lies may, or it is fetched from there.
        candidates: the fastest on the tuning tokens is the one.
    """

    name: str
    family: str
    candidates: tuple[Candidate, ...]


def rows_of(part: Part, *, host: bool, in_memory: bool = False) -> list[Row]:
    """The rows that can be run with what is known ahead of ``part``; the baseline of each family is its first.

    Args:
        part: whose values and predictions there are.
        host: whether the machine's host may compute.
        in_memory: whether the memory in which experts lie computes.
    """
    rows = [*_fetching(), *(_computing() if host else ()), *(_in_memory() if in_memory else ())]
    return [row for row in rows if all(_is_known(candidate.policy, part) for candidate in row.candidates)]


def _is_known(policy: Policy, part: Part) -> bool:
    values = policy.eviction in (Eviction.LRU, Eviction.STATIC) or policy.eviction in part.values
    return values and (policy.prefetch is Prefetch.NONE or policy.prefetch in part.predictions)


def _fetching() -> Iterator[Row]:
    lru, frequency, learned = Eviction.LRU, Eviction.FREQUENCY, Eviction.LEARNED
    yield _plain(LRU, Policy(eviction=lru))
    yield Row(
        "decayed frequency",
        FETCH,
        (
            Candidate(Policy(eviction=frequency)),
            Candidate(Policy(eviction=frequency, background=True), FREQUENCY_PRICES),
        ),
    )
    yield _plain("ST-MoE prefetch", Policy(eviction=lru, prefetch=Prefetch.ST_MOE))
    activation = {"eviction": Eviction.ACTIVATION, "prefetch": Prefetch.ACTIVATION}
    yield Row(
        "activation-aware (MoE-Infinity)",
        FETCH,
        (
            Candidate(Policy(eviction=Eviction.ACTIVATION)),
            Candidate(Policy.model_validate(activation), FREQUENCY_PRICES),
        ),
    )
    yield _plain("learned eviction", Policy(eviction=learned))
    yield _plain("learned prefetch", Policy(eviction=lru, prefetch=Prefetch.LEARNED))
    both = {"eviction": learned, "prefetch": Prefetch.LEARNED, "chance_scale": 4}
    yield Row(
        "learned",
        FETCH,
        (
            Candidate(Policy(eviction=learned)),
            Candidate(Policy.model_validate(both)),
            Candidate(Policy(eviction=learned, background=True), USE_PRICES),
            Candidate(Policy.model_validate({**both, "background": True}), USE_PRICES),
        ),
    )
    yield _plain("perfect prefetch", Policy(eviction=lru, prefetch=Prefetch.PERFECT))
    yield _plain("Belady + perfect prefetch", Policy(eviction=Eviction.BELADY, prefetch=Prefetch.PERFECT))


def _plain(name: str, policy: Policy) -> Row:
    return Row(name, FETCH, (Candidate(policy),))


def _computing() -> Iterator[Row]:
    yield Row(STATIC, HOST, (Candidate(Policy(eviction=Eviction.STATIC, missing=Missing.HOST)),))
    yield from _in_the_background("background", HOST, (Missing.HOST, Missing.SOONER))


def _in_memory() -> Iterator[Row]:
    """Rows of the memory that computes, and what it brings where it does not."""
    static = Policy(eviction=Eviction.STATIC, missing=Missing.IN_MEMORY)
    yield Row(STATIC_IN_MEMORY, IN_MEMORY, (Candidate(static),))
    of_fetching = {row.name: row for row in _fetching()}
    for name in (LRU, "decayed frequency", "learned"):
        row = of_fetching[name]
        candidates = [
            replace(one, policy=one.policy.model_copy(update={"missing": Missing.FROM_MEMORY}))
            for one in row.candidates
        ]
        yield Row(f"from memory, {name}", IN_MEMORY, tuple(candidates))
    yield from _in_the_background("in memory", IN_MEMORY, (Missing.IN_MEMORY, Missing.SOONER_IN_MEMORY))


def _in_the_background(name: str, family: str, ways: tuple[Missing, ...]) -> Iterator[Row]:
    """What is missing is computed where it lies, in one of ``ways``, and what is worth having moves meanwhile."""
    for values, eviction, prices in (
        ("frequency", Eviction.FREQUENCY, FREQUENCY_PRICES),
        ("learned", Eviction.LEARNED, USE_PRICES),
        ("oracle of next use", Eviction.ORACLE, USE_PRICES),
        ("oracle of uses", Eviction.USES, USE_PRICES),
    ):
        policies = [Policy(eviction=eviction, missing=missing, background=True) for missing in ways]
        yield Row(f"{name}, {values}", family, tuple(Candidate(policy, prices) for policy in policies))
