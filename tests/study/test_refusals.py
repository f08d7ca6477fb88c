"""Settings and options out of range are refused in one line, before anything is computed or written."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.study.conftest import Outcome, refused
from traces import RoutingTrace
from traces.selection import select_sequences

Forestage = Callable[..., Outcome]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("seed = -1", "seed"),
        ("lookahead = 3", "lookahead"),
        ("issue = [0, 4]", "issue.0"),
        ("predictors = ['st-mo']", "'st-moe'"),
        ("predictors = ['st-moe', 'st-moe']", "predictors"),
        ("cache_fractions = []", "cache_fractions"),
        ("cache_fractions = [0.5, 2.0]", "cache_fractions.1"),
        ("[system]\nmachine = 'A100-81GB'", "'A100-80GB'"),
        ("[system]\nsizes_of = 'gpt-oss-21b'", "'gpt-oss-20b'"),
        ("[system]\nissue_limit = 9", "issue_limit"),
        ("[system]\nlink_gb_per_s = [32, 32]", "once"),
        ("[system]\nhost_gb_per_s = 0", "host_gb_per_s"),
        ("[next_use]\nhiden = 9", "'hidden'"),
        ("[next_use]\nnearest = 1", "nearest"),
        ("[system]\nlink_gb_per_s = []", "link_gb_per_s"),
        ("[system]\nlink_gb_per_s = [0.0]", "link_gb_per_s.0"),
        ("[system]\nlink_gb_per_s = [inf]", "link_gb_per_s.0"),
    ],
)
def test_study_settings(forestage: Forestage, small_trace: Path, tmp_path: Path, text: str, named: str) -> None:
    config = tmp_path / "study.toml"
    config.write_text(text + "\n")
    line = refused(forestage("study", "--trace", small_trace, "--config", config, "--out", tmp_path / "out"))
    assert named in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", [("rtl", "replay", "--trace", "t"), ("pim", "check")])
def test_seeds(forestage: Forestage, command: tuple[str, ...]) -> None:
    assert "--seed" in refused(forestage(*command, "--seed", -1))


def test_a_layer_that_the_checkpoint_does_not_have(forestage: Forestage) -> None:
    assert "0 to 7" in refused(forestage("pim", "check", "--layer", 8))


@pytest.mark.parametrize("mib", ["nan", "inf", "1e300", "-1"])
def test_capacity_in_mib(forestage: Forestage, small_trace: Path, mib: str) -> None:
    assert "--capacity-mib" in refused(forestage("cache", "simulate", "--trace", small_trace, "--capacity-mib", mib))


def test_one_capacity(forestage: Forestage, small_trace: Path) -> None:
    assert "--capacity-mib" in refused(forestage("cache", "simulate", "--trace", small_trace))


@pytest.mark.parametrize("lookahead", [-1, 0, 3])
@pytest.mark.parametrize("predictor", ["st-moe", "markov-spatial", "markov-temporal", "popularity"])
def test_lookahead(forestage: Forestage, small_trace: Path, predictor: str, lookahead: int) -> None:
    line = refused(
        forestage(
            "predictor", "evaluate", "--trace", small_trace, "--predictor", predictor, "--issue", 2,
            "--lookahead", lookahead,
        )
    )  # fmt: skip
    assert "lookahead" in line
    assert "1…2" in line


@pytest.mark.parametrize("link", ["1e-300", "0", "nan"])
def test_link_bandwidth(forestage: Forestage, small_trace: Path, link: str) -> None:
    line = refused(
        forestage(
            "system", "simulate", "--trace", small_trace, "--sizes-of", "gpt-oss-20b",
            "--link-gb-per-s", link,
        )
    )  # fmt: skip
    assert "--link-gb-per-s" in line


def test_simulation_of_too_few_sequences(forestage: Forestage, small_trace: Path, tmp_path: Path) -> None:
    one = tmp_path / "one.safetensors"
    select_sequences(RoutingTrace.load(small_trace), [0]).save(one)
    line = refused(forestage("system", "simulate", "--trace", one))
    assert str(one) in line
    assert "more sequences" in line


def test_a_forced_format_that_is_not_the_files(forestage: Forestage, small_trace: Path, tmp_path: Path) -> None:
    line = refused(forestage("trace", "import", small_trace, "--format", "npz", "--out", tmp_path / "out"))
    assert "not an .npz" in line
    assert "pickle" not in line


@pytest.mark.parametrize("lookahead", ["-1", "8"])
def test_lookahead_of_a_replay(forestage: Forestage, shipped_trace: Path, lookahead: str) -> None:
    line = refused(forestage("rtl", "replay", "--trace", shipped_trace, "--tokens", "2", "--lookahead", lookahead))
    assert "lookahead" in line
