"""What a comparison of policies says: the recommended row and its rivals, and where prediction pays."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from perfmodel.comparison import Comparison, Gain, Line
from perfmodel.plan import Missing
from perfmodel.policy import Eviction, Policy, Prefetch
from perfmodel.rows import HOST
from predictor.row_network.integers import CERTAIN


class Verdict(Enum):
    """Whether what is learned beats what is not, at one point."""

    PAYS = "pays"
    """The recommended row is learned, and the whole interval of its gain over the best unlearned row is above 1."""
    UNCLEAR = "unclear"
    """The interval holds 1 (or there is none, of a single sequence)."""
    DOES_NOT = "does not"
    """An unlearned row is recommended, or the learned one that is was slower on the test tokens."""


@dataclass(frozen=True)
class Advice:
    """What to build at one point.

    Attributes:
        best: the recommended row, which was chosen on training tokens.
        rival: the fastest row on the test tokens of the other kind: unlearned if ``best`` is learned, and learned if it
            is not; ``None`` where no row is learned.
        gain: of ``best`` over ``rival``.
        verdict: see `Verdict`; ``None`` without a rival.
    """

    best: Line
    rival: Line | None
    gain: Gain | None
    verdict: Verdict | None


def advice(point: Comparison) -> Advice:
    """What ``point`` recommends, and against which rival."""
    best = point.line(point.recommended)
    rival = fastest(line for line in real(point) if line.policy.is_learned is not best.policy.is_learned)
    if rival is None:
        return Advice(best, None, None, None)
    gain = gain_over(point, rival.name)
    assert gain is not None, "every row but an oracle's has a gain"
    return Advice(best, rival, gain, _verdict(best, gain))


def _verdict(best: Line, gain: Gain) -> Verdict:
    if gain.low is None or gain.high is None or gain.low <= 1.0 <= gain.high:
        return Verdict.UNCLEAR
    return Verdict.PAYS if best.policy.is_learned and gain.low > 1.0 else Verdict.DOES_NOT


def real(point: Comparison) -> list[Line]:
    """The rows that know nothing of the future."""
    return [line for line in point.lines if not line.is_oracle]


def fastest(lines: Iterable[Line]) -> Line | None:
    """The row with the least time per token on the test tokens; ``None`` of none."""
    return min(lines, key=lambda line: line.outcome.tpot.mean_s, default=None)


def gain_over(point: Comparison, name: str) -> Gain | None:
    """The gain of the recommended row over ``name``; ``None`` for itself, an oracle, or a row that was not run."""
    return next((gain for gain in point.gains if gain.over == name), None)


def gain_text(gain: Gain | None) -> str:
    """``1.35 × (1.30 to 1.41)``; an en dash for ``None``."""
    if gain is None:
        return "–"
    return f"{gain.ratio:.2f} ×" + ("" if gain.low is None else f" ({gain.low:.2f} to {gain.high:.2f})")


def in_words(line: Line) -> str:
    """How a row provides experts, after "it"."""
    policy = line.policy
    missing = {
        Missing.FETCH: "fetches a missing expert and waits for it",
        Missing.HOST: "lets the host's processor compute what is missing",
        Missing.SOONER: "fetches a missing expert or lets the host's processor compute it, whichever ends sooner",
    }[policy.missing]
    keeps = {
        Eviction.STATIC: "holds the experts most used in training and never changes them",
        Eviction.LRU: "keeps the most recently used",
        Eviction.FREQUENCY: "keeps what the decayed counters of use value most",
        Eviction.LEARNED: "keeps what the next-use predictor values most",
        Eviction.ORACLE: "keeps what an oracle of the next use values most",
        Eviction.USES: "keeps what an oracle of the coming uses values most",
        Eviction.BELADY: "keeps by Belady's rule",
    }[policy.eviction]
    ahead = {
        Prefetch.NONE: "",
        Prefetch.ST_MOE: ", prefetches by ST-MoE's tables",
        Prefetch.LEARNED: ", prefetches by the learned next-layer predictor",
        Prefetch.PERFECT: ", prefetches perfectly",
    }[policy.prefetch]
    moves = (
        f"; in the background it moves what is worth more by {price_text(policy)} than what gives way"
        if policy.background
        else ""
    )
    return f"{missing}; it {keeps}{ahead}{moves}"


def price_text(policy: Policy) -> str:
    """The price of a transfer as a share of the highest value, or in units of the counters."""
    if policy.eviction is Eviction.FREQUENCY:
        return f"{100 * policy.price / CERTAIN:.3g}\u202f% of the counters' range"
    return f"{policy.price / CERTAIN:.3g} certain uses"


def overtakes(points: Iterable[Comparison]) -> float | None:
    """The link, GB/s, from which on the recommended row of ``points`` (of one share held) fetches what is missing.

    ``None`` where it lets the host compute over the fastest of the links.
    """
    computes = {point.link_gb_per_s: point.line(point.recommended).family == HOST for point in points}
    fetching = [link for link in sorted(computes) if not any(computes[other] for other in computes if other >= link)]
    return fetching[0] if fetching else None
