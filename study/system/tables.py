"""Tables of the whole system: what to build by share held, and every row at one share."""

from collections.abc import Sequence

from perfmodel.comparison import Comparison, Gain
from predictor.policies.rows import BASELINES, LRU, STATIC
from study.blocks import Row, Table
from study.numbers import percent, seconds, size
from study.system.answer import advice, fastest, gain_over
from study.system.words import price_text, range_text, ratio_text, row_name, share_text


def by_share(points: Sequence[Comparison]) -> Table:
    """The recommended row at each share held, and its gains."""
    rows = []
    for point in points:
        found = advice(point)
        oracle = fastest(line for line in point.lines if line.is_oracle)
        priced = found.best.policy.background
        rows.append(
            Row(
                (
                    share_text(point.config.capacity_fraction),
                    found.best.name + (f"\nprice {price_text(found.best.policy)}" if priced else ""),
                    seconds(found.best.outcome.tpot.mean_s),
                    _in_two_lines(gain_over(point, LRU)),
                    _in_two_lines(gain_over(point, STATIC)),
                    _in_two_lines(found.gain if found.best.policy.is_learned else None),
                    "–" if oracle is None else seconds(oracle.outcome.tpot.mean_s),
                )
            )
        )
    return Table(
        columns=(
            "held",
            "what to build",
            "time\nper token",
            "over LRU",
            "over static\nplacement",
            "over the fastest\nunlearned",
            "fastest\noracle",
        ),
        rows=tuple(rows),
        caption="What to build is what was fastest on training tokens; times and gains are those on the test tokens, "
        "with 95 % intervals over sequences. The fastest unlearned rival is the one that was fastest on the test "
        "tokens themselves. Price: what a transfer that no gate waits for must be worth beyond what gives way; an "
        "expert that is certainly wanted within 2, 4, 8 and 16 tokens is worth 4 certain uses. Oracles know the coming "
        "uses but not the best use of the link: they are no strict bounds and can be slower.",
        text_columns=(0, 1),
    )


def _in_two_lines(gain: Gain | None) -> str:
    """A gain with its interval below it."""
    return "\n".join(filter(None, (ratio_text(gain), range_text(gain))))


def every_row(point: Comparison) -> Table:
    """Every row at one point, the recommended one marked."""
    return Table(
        columns=(
            "policy",
            "time\nper token",
            "over its\nbaseline",
            "hit rate",
            "fetched",
            "host\ncomputed",
            "moved",
            "moved ahead\nand used",
        ),
        rows=tuple(
            Row(
                (
                    f"{row_name(line)} ←" if line.name == point.recommended else row_name(line),
                    f"{seconds(line.outcome.tpot.mean_s)}\np95 {seconds(line.outcome.tpot.p95_s)}",
                    "baseline" if line.name == BASELINES[line.family] else _in_two_lines(line.gain),
                    percent(line.outcome.hit_rate),
                    f"{line.outcome.fetched:.1f}",
                    f"{line.outcome.computed:.1f}",
                    size(line.outcome.moved_bytes),
                    percent(line.outcome.useful_share),
                ),
                pale=line.is_oracle,
            )
            for line in point.lines
        ),
        caption="←: what to build. Over its baseline: how many times as fast as LRU, where what "
        "is missing is fetched, or as the static placement, where the host may compute it. Fetched, host computed: "
        "missing experts a token; moved: over the link, a token; moved ahead and used: share of the experts that no "
        f"gate waited for. Strict bounds of what the device computes alone: with every expert there a token takes "
        f"{seconds(point.all_resident_s)}"
        + (
            ""
            if point.link_roofline_s is None
            else f"; fetching cannot take less than {seconds(point.link_roofline_s)}"
        )
        + ".",
    )
