"""The commands print one JSON document, and a user's error is one line and exit status 2."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.study.conftest import Outcome, refused

Forestage = Callable[..., Outcome]


def test_info_and_stats(forestage: Forestage, small_trace: Path) -> None:
    info = json.loads(forestage("trace", "info", small_trace, "--json").out)
    assert (info["tokens"], info["layers"], info["experts"], info["decode_tokens"]) == (72, 3, 8, 48)
    stats = json.loads(forestage("trace", "stats", small_trace, "--json").out)
    assert stats["uniform_overlap"] == pytest.approx(0.5)
    assert set(stats["by_domain"]) == {"a", "b"}


@pytest.mark.parametrize("command", [("trace", "info"), ("trace", "stats")])
def test_tables_for_a_person(forestage: Forestage, small_trace: Path, command: tuple[str, ...]) -> None:
    outcome = forestage(*command, small_trace)
    assert outcome.status == 0
    assert "made-for-tests" in outcome.out


def test_import_writes_a_trace(forestage: Forestage, small_trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy.safetensors"
    assert forestage("trace", "import", small_trace, "--out", out, "--json").status == 0
    assert json.loads(forestage("trace", "info", out, "--json").out)["tokens"] == 72


def test_evaluate_prints_the_documented_keys(forestage: Forestage, small_trace: Path) -> None:
    outcome = forestage(
        "predictor", "evaluate", "--trace", small_trace, "--predictor", "popularity",
        "--issue", 2, "--issue", 8, "--json",
    )  # fmt: skip
    document = json.loads(outcome.out)
    assert {"predictor", "trace", "lookahead", "recall", "precision", "issued_per_layer", "by_layer"} <= set(document)
    assert set(document["recall"]) == {"2", "8"}
    assert document["recall"]["8"] == pytest.approx(1.0)


def test_cache_simulation(forestage: Forestage, small_trace: Path) -> None:
    outcome = forestage("cache", "simulate", "--trace", small_trace, "--capacity", 4, "--json")
    rates = {result["policy"]: result["hit_rate"] for result in json.loads(outcome.out)["results"]}
    assert rates["belady"] >= rates["lru"]


def test_truncated_file(forestage: Forestage, small_trace: Path) -> None:
    small_trace.write_bytes(small_trace.read_bytes()[:-100])
    assert str(small_trace) in refused(forestage("trace", "info", small_trace))


def test_id_out_of_range(forestage: Forestage, small_trace: Path) -> None:
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    tensors = load_file(small_trace)
    with safe_open(small_trace, "np") as file:
        metadata = file.metadata()
    tensors["expert_ids"][41, 1, 0] = 200
    save_file(tensors, small_trace, metadata=metadata)
    line = refused(forestage("trace", "stats", small_trace))
    assert "expert_ids" in line
    assert "41" in line


def test_a_file_that_is_no_trace(forestage: Forestage, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("hello")
    assert "notes.txt" in refused(forestage("trace", "info", path))


def test_a_missing_file(forestage: Forestage, tmp_path: Path) -> None:
    assert "absent.npz" in refused(forestage("trace", "info", tmp_path / "absent.npz"))


def test_unknown_predictor(forestage: Forestage, small_trace: Path) -> None:
    line = refused(forestage("predictor", "evaluate", "--trace", small_trace, "--predictor", "popularty"))
    assert "'popularity'" in line


def test_unknown_part(forestage: Forestage, small_trace: Path) -> None:
    line = refused(
        forestage("predictor", "evaluate", "--trace", small_trace, "--predictor", "popularity", "--split", "validation")
    )
    assert "test" in line


def test_unwritable_import_target(forestage: Forestage, small_trace: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    target = tmp_path / "file" / "out.safetensors"
    assert str(target) in refused(forestage("trace", "import", small_trace, "--out", target))


def test_unknown_study_key_names_the_nearest(forestage: Forestage, small_trace: Path, tmp_path: Path) -> None:
    config = tmp_path / "study.toml"
    config.write_text("[system]\nmachin = 'A100'\n")
    line = refused(forestage("study", "--trace", small_trace, "--out", tmp_path / "out", "--config", config))
    assert "study.toml" in line
    assert "'machine'" in line
    assert not (tmp_path / "out").exists()


def test_unwritable_study_folder(forestage: Forestage, small_trace: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    assert "taken" in refused(forestage("study", "--trace", small_trace, "--out", tmp_path / "taken"))
