"""What a comparison of policies says: the recommended row and its rivals, and where prediction pays."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from itertools import takewhile

from perfmodel.comparison import Comparison, Gain, Line


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


def overtakes(points: Iterable[Comparison], family: str, value: Callable[[Comparison], float]) -> float | None:
    """The least ``value`` from which on the recommended row of ``points`` (of one share held) is of ``family``.

    ``None`` where it is not at the highest value.
    """
    ordered = sorted(points, key=value, reverse=True)
    wins = list(takewhile(lambda point: point.line(point.recommended).family == family, ordered))
    return value(wins[-1]) if wins else None
