"""Rows, prices, gains, shares and machines in words."""

from collections.abc import Sequence

from perfmodel.comparison import Comparison, Gain, Line
from perfmodel.in_memory_config import InMemory
from predictor.policies.plan import Missing
from predictor.policies.policy import Eviction, Policy, Prefetch
from predictor.policies.rows import LRU, STATIC
from predictor.row_network.integers import CERTAIN
from study.numbers import percent
from study.system.answer import advice, gain_over

RIVALS = {LRU: "an LRU cache that fetches what is missing", STATIC: "a static placement with the host computing"}
"""Rows that everyone knows, beside which the recommended one is put."""


def listed(texts: Sequence[str]) -> str:
    """``a, b and c``."""
    *most, last = texts
    return f"{', '.join(most)} and {last}" if most else last


def share_text(share: float | None) -> str:
    """``25 %``, ``12.5 %``."""
    assert share is not None, "every point has one"
    return percent(share, 1 if round(1000 * share) % 10 else 0)


def row_name(line: Line) -> str:
    """The row's name, marked where it knows the future and does not say so itself."""
    return f"{line.name} (oracle)" if line.is_oracle and "oracle" not in line.name else line.name


def ratio_text(gain: Gain | None) -> str:
    """``1.35 ×``; an en dash for ``None``."""
    return "–" if gain is None else f"{gain.ratio:.2f}\u202f×"


def range_text(gain: Gain | None) -> str:
    """``1.30 to 1.41``; empty where there is no interval."""
    return "" if gain is None or gain.low is None else f"{gain.low:.2f} to {gain.high:.2f}"


def gain_text(gain: Gain | None) -> str:
    """``1.35 × (1.30 to 1.41)``; an en dash for ``None``."""
    return ratio_text(gain) + (f" ({range_})" if (range_ := range_text(gain)) else "")


def gains_told(point: Comparison) -> list[str]:
    """How many times as fast the recommended row is as each of `RIVALS`, and as its rival of the other kind."""
    found = advice(point)
    told = [
        f"{gain_text(gain)} as fast as {words}"
        for name, words in RIVALS.items()
        if (gain := gain_over(point, name)) is not None
    ]
    if found.rival is not None and found.rival.name not in RIVALS:
        kind = "the fastest unlearned policy" if found.best.policy.is_learned else "the fastest learned policy"
        told.append(f"{gain_text(found.gain)} as fast as “{found.rival.name}”, {kind}")
    return told


def in_words(line: Line) -> str:
    """How a row provides experts, after "it"."""
    policy = line.policy
    missing = {
        Missing.FETCH: "fetches a missing expert and waits for it",
        Missing.HOST: "lets the host's processor compute what is missing",
        Missing.SOONER: "fetches a missing expert or lets the host's processor compute it, whichever ends sooner",
        Missing.IN_MEMORY: "lets the memory compute what is missing",
        Missing.FROM_MEMORY: "fetches a missing expert from that memory and waits for it",
        Missing.SOONER_IN_MEMORY: "fetches a missing expert or lets the memory compute it, whichever ends sooner",
    }[policy.missing]
    keeps = {
        Eviction.STATIC: "holds the experts most used in training and never changes them",
        Eviction.LRU: "keeps the most recently used",
        Eviction.FREQUENCY: "keeps what the decayed counters of use value most",
        Eviction.ACTIVATION: "keeps what the sequence has used most so far",
        Eviction.LEARNED: "keeps what the next-use predictor values most",
        Eviction.ORACLE: "keeps what an oracle of the next use values most",
        Eviction.USES: "keeps what an oracle of the coming uses values most",
        Eviction.BELADY: "keeps by Belady's rule",
    }[policy.eviction]
    ahead = {
        Prefetch.NONE: "",
        Prefetch.ST_MOE: ", prefetches by ST-MoE's tables",
        Prefetch.ACTIVATION: ", prefetches what the most similar training sequence used",
        Prefetch.LEARNED: ", prefetches by the learned next-layer predictor",
        Prefetch.PERFECT: ", prefetches perfectly",
    }[policy.prefetch]
    moves = (
        f"; in the background it moves what is worth more by {price_text(policy)} than what gives way"
        if policy.background
        else ""
    )
    return f"{missing}; it {keeps}{ahead}{moves}"


def memory_in_words(memory: InMemory) -> str:
    """Which memory computes, and where it is."""
    where = {"device": "beside the device", "host": "as the host's memory"}[memory.where]
    return f"{memory.stacks} PIM stacks of {memory.dram} {where}"


def price_text(policy: Policy) -> str:
    """The price of a transfer in certain uses, or as a share of the counters' range."""
    uses = policy.price / CERTAIN
    if policy.eviction is Eviction.FREQUENCY:
        return f"{percent(uses, 1 if round(1000 * uses) % 10 else 0)} of the counters' range"
    return f"{uses:.3g} certain use" + ("s" if uses != 1 else "")
