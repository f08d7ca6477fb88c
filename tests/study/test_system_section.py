"""What the report concludes from a comparison: what to build, against which rival, and where prediction pays."""

import re
from pathlib import Path
from typing import Any

import pytest

from perfmodel.comparison import Comparison, Gain, Line
from perfmodel.config import SimulationConfig
from perfmodel.host import Host
from perfmodel.outcome import Outcome
from perfmodel.plan import Missing
from perfmodel.policy import Eviction, Policy
from perfmodel.results import TokenTime
from perfmodel.rows import FETCH, HOST
from predictor.row_network.integers import CERTAIN
from study.answer import Verdict, advice, gain_text, in_words, overtakes, price_text
from study.config import StudyConfig
from study.figures.style import to_svg
from study.figures.system import FILLS, LINES, SHORT, map_of_winners, parts_of_a_token, time_by_share
from study.stages import StudyContext
from study.subjects import system
from study.subjects.system import where_it_does_not_pay
from tests.routing import trace_of

LEARNED = Policy(eviction=Eviction.LEARNED, missing=Missing.SOONER, background=True, price=3 * CERTAIN // 2)
POLICIES = {
    "LRU": (FETCH, Policy(eviction=Eviction.LRU)),
    "learned": (FETCH, Policy(eviction=Eviction.LEARNED)),
    "Belady + perfect prefetch": (FETCH, Policy(eviction=Eviction.BELADY)),
    "static placement": (HOST, Policy(eviction=Eviction.STATIC, missing=Missing.HOST)),
    "background, learned": (HOST, LEARNED),
}


def line(name: str, mean_ms: float) -> Line:
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
        name=name, family=family, policy=policy, is_oracle=policy.is_oracle, tried=(), tuning_s=0.0, outcome=outcome,
        gain=None,
    )  # fmt: skip


def point(
    times_ms: dict[str, float], recommended: str, *, spread: float | None = 0.05, share: float = 0.5, link: float = 32.0
) -> Comparison:
    """A comparison with these times; every gain's interval reaches ``spread`` to both sides."""
    lines = [line(name, time) for name, time in times_ms.items()]
    gains = [
        Gain(
            over=one.name,
            ratio=(ratio := times_ms[one.name] / times_ms[recommended]),
            low=None if spread is None else ratio - spread,
            high=None if spread is None else ratio + spread,
        )
        for one in lines
        if one.name != recommended and not one.is_oracle
    ]
    return Comparison(
        config=SimulationConfig(capacity_fraction=share, link_gb_per_s=link), places=4, expert_bytes=10,
        link_gb_per_s=link, lines=lines, recommended=recommended, gains=gains, all_resident_s=0.5e-3,
        link_roofline_s=None,
    )  # fmt: skip


TIMES = {
    "LRU": 4.0,
    "learned": 3.0,
    "Belady + perfect prefetch": 1.0,
    "static placement": 2.0,
    "background, learned": 1.6,
}


def test_the_rival_of_a_learned_row_is_the_fastest_unlearned_one_and_no_oracle() -> None:
    found = advice(point(TIMES, "background, learned"))
    assert found.rival is not None
    assert (found.best.name, found.rival.name) == ("background, learned", "static placement")
    assert found.verdict is Verdict.PAYS
    assert gain_text(found.gain) == "1.25 × (1.20 to 1.30)"


@pytest.mark.parametrize(
    ("times", "recommended", "spread", "verdict"),
    [
        (TIMES, "background, learned", 0.3, Verdict.UNCLEAR),
        (TIMES, "background, learned", None, Verdict.UNCLEAR),
        (TIMES, "learned", 0.05, Verdict.DOES_NOT),  # tuning chose it, and it was slower on the test tokens
        ({**TIMES, "background, learned": 2.5}, "static placement", 0.05, Verdict.DOES_NOT),
        ({"LRU": 2.0, "static placement": 1.0}, "static placement", 0.05, None),
    ],
)
def test_prediction_pays_only_where_its_whole_interval_says_so(
    times: dict[str, float], recommended: str, spread: float | None, verdict: Verdict | None
) -> None:
    assert advice(point(times, recommended, spread=spread)).verdict is verdict


def test_a_gain_without_interval_is_a_number_alone() -> None:
    assert gain_text(Gain(over="LRU", ratio=1.234, low=None, high=None)) == "1.23 ×"
    assert gain_text(None) == "–"


def test_a_row_in_words_names_what_keeps_what_is_missing_and_what_moves() -> None:
    said = in_words(line("background, learned", 1.0))
    assert "whichever ends sooner" in said
    assert "next-use predictor" in said
    assert price_text(LEARNED) == "1.5 certain uses"
    assert said.endswith("worth more by 1.5 certain uses than what gives way")


def test_the_places_where_prediction_does_not_pay_are_named() -> None:
    losing = {**TIMES, "background, learned": 2.5}
    cells = [
        point(TIMES, "background, learned", link=16.0),
        point(TIMES, "background, learned", spread=0.3, link=32.0),
        point(losing, "static placement", link=64.0),
        point(losing, "static placement", share=0.75, link=64.0),
        point({**TIMES, "learned": 1.0}, "learned", link=128.0),
    ]
    said = where_it_does_not_pay(cells)
    assert said.startswith("Prediction pays at 2 of the 5 points of the map")
    assert "no clear difference at 1 (50\u202f% held over 32 GB/s)" in said
    assert "at 2 (50\u202f% held over 64 GB/s; 75\u202f% held over 64 GB/s)" in said
    assert said.endswith(
        "Fetching what is missing beats computing it on the host from 128 GB/s on with 50\u202f% held."
    )


def test_fetching_must_win_on_all_faster_links_too() -> None:
    fetches, computes = {**TIMES, "learned": 1.0}, TIMES
    cells = [
        point(fetches, "learned", link=16.0),
        point(computes, "background, learned", link=32.0),
        point(fetches, "learned", link=64.0),
    ]
    assert overtakes(cells) == 64.0
    assert overtakes(cells[:2]) is None


@pytest.mark.parametrize(
    ("known", "settings", "expected"),
    [
        (None, {}, {"host_gb_per_s": 76.0, "host_tflops": 1.0}),
        (None, {"host_gb_per_s": 100.0}, {"host_gb_per_s": 100.0, "host_tflops": 1.0}),
        (Host(bytes_per_s=1, flops_per_s=1, latency_ps=0), {}, {}),
        (Host(bytes_per_s=1, flops_per_s=1, latency_ps=0), {"host_tflops": 2.0}, {"host_tflops": 2.0}),
        (Host(bytes_per_s=1, flops_per_s=None, latency_ps=0), {}, {"host_tflops": 1.0}),
    ],
)
def test_a_desktops_host_is_taken_only_where_neither_settings_nor_catalogue_say(
    monkeypatch: pytest.MonkeyPatch, known: Host | None, settings: dict[str, float], expected: dict[str, float]
) -> None:
    monkeypatch.setattr(system, "host_of", lambda config, machine: known)
    config = StudyConfig.parse({"system": settings}, origin="test")
    trace = trace_of([[[0]]], experts=2)
    assert system.host_settings(StudyContext(trace=trace, trace_path=Path(), config=config, out=Path())) == expected


def test_every_row_of_the_comparison_has_a_look_in_every_figure() -> None:
    from perfmodel.rows import _computing, _fetching

    rows = [*_fetching(), *_computing()]
    assert {row.name for row in rows} == set(LINES)
    assert {row.name for row in rows if not row.candidates[0].policy.is_oracle} == set(FILLS) == set(SHORT)


def test_the_figures_say_what_the_comparison_says() -> None:
    points = [point(TIMES, "background, learned", share=0.25), point(TIMES, "background, learned")]
    by_share: Any = time_by_share(points)
    fetching, computing = by_share.axes
    drawn = {text.get_label(): list(text.get_ydata()) for axes in (fetching, computing) for text in axes.get_lines()}
    assert drawn["LRU"] == [4.0, 4.0]
    assert drawn["Belady + perfect prefetch (oracle)"] == [1.0, 1.0]
    assert drawn["everything resident"] == [0.5, 0.5]
    parts: Any = parts_of_a_token(points[0])
    said = [text.get_text() for text in parts.axes[0].texts]
    assert said == ["4 ms", "3 ms", "1 ms", "2 ms", "1.6 ms"]
    cells = [point(TIMES, "background, learned", link=16.0), point(TIMES, "learned", spread=0.5, link=32.0)]
    grid: Any = map_of_winners(cells, 32.0, 20.0)
    assert [text.get_text() for text in grid.axes[0].texts] == [
        "host + learned\n1.25 ×",
        "learned\n0.67 ×",
        "→ no more than the host's memory reads: 20 GB/s",
    ]
    assert [bool(patch.get_hatch()) for patch in grid.axes[0].patches] == [False, False, True, False]
    assert re.search(r"<svg", to_svg(grid, "map"))
