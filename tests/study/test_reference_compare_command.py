"""``forestage reference pack`` and ``compare``: what is packed is what a record is compared with."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gpu_reference.package import wheels
from gpu_reference.package.manifest import Manifest
from tests.study.conftest import Outcome, refused
from tests.study.reference.made_records import LRU, decoded, made_material, made_record, routed

Forestage = Callable[..., Outcome]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    routed().save(tmp_path / "made.safetensors")
    return tmp_path / "made.safetensors"


@pytest.fixture
def record(tmp_path: Path) -> Path:
    material = made_material(routed())
    rows = [decoded(material, LRU, "LRU"), decoded(material, LRU, "LRU", batch=4, steps=30)]
    micro = made_record(material, []).micro
    few = tuple(one for one in micro if one.settings.get("batch") != 4)
    made_record(material, rows, few).save(tmp_path / "record.json")
    return tmp_path / "record.json"


def test_a_package_takes_the_place_of_its_trace(
    forestage: Forestage, tmp_path: Path, trace: Path, record: Path
) -> None:
    told = forestage("reference", "pack", "--trace", trace, "--tokens", 400, "--out", tmp_path / "package", "--json")
    assert told.status == 0, told.err
    manifest = Manifest.model_validate(json.loads(told.out))
    assert manifest.command == "forestage reference pack --trace made.safetensors --tokens 400 --out PACKAGE"
    assert manifest.training_sequences == 48
    assert set(manifest.files) == {
        "run.sh",
        *(f"{name}.safetensors" for name in ("activation", "st-moe", "test", "tuning", "uses")),
    }
    by_package = forestage("reference", "compare", "--record", record, "--package", tmp_path / "package", "--json")
    by_trace = forestage("reference", "compare", "--record", record, "--trace", trace, "--tokens", 400, "--json")
    assert by_package.status == 0, by_package.err
    assert by_package.out == by_trace.out
    document = json.loads(by_package.out)
    assert document["rows"][0]["tpot_s"]["error"] == pytest.approx(0, abs=1e-3)
    assert "fixed_part to_gate of layers" in document["rows"][1]["left_out"]


def test_the_table_shows_errors_and_what_could_not_be_predicted(
    forestage: Forestage, trace: Path, record: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    told = forestage("reference", "compare", "--record", record, "--trace", trace, "--tokens", 400)
    assert told.status == 0, told.err
    (row,) = [line for line in told.out.splitlines() if line.startswith("real sizes  1 ")]
    assert "+0.0\u202f%" in row or "-0.0\u202f%" in row
    assert "LRU, real sizes, batch 4, 25\u202f%: not predicted: fixed_part to_gate of layers" in told.out
    assert "the model: 1 row, 1 of them within 10\u202f%" in told.out


def test_a_package_is_replaced_and_another_folder_is_not(forestage: Forestage, tmp_path: Path, trace: Path) -> None:
    out = tmp_path / "package"
    for tokens in (400, 900):
        told = forestage("reference", "pack", "--trace", trace, "--tokens", tokens, "--out", out, "--json")
        assert told.status == 0, told.err
    assert f"--tokens {900} " in Manifest.load(out).command
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter").write_text("dear")
    line = refused(forestage("reference", "pack", "--trace", trace, "--out", other))
    assert "is there and is no package; name a new folder" in line
    assert (other / "letter").read_text() == "dear"


def test_what_contradicts_itself_is_refused(forestage: Forestage, tmp_path: Path, trace: Path, record: Path) -> None:
    compare = ("reference", "compare", "--record", record)
    assert "--trace, --package: give one of the two" in refused(forestage(*compare))
    both = refused(forestage(*compare, "--trace", trace, "--package", tmp_path))
    assert "--trace, --package: give one of the two" in both
    with_tokens = refused(forestage(*compare, "--package", tmp_path, "--tokens", 3))
    assert "--tokens: has no effect: the package has its own" in with_tokens
    assert "no package" in refused(forestage(*compare, "--package", tmp_path))
    routed(1).save(tmp_path / "other.safetensors")
    other = refused(forestage(*compare, "--trace", tmp_path / "other.safetensors"))
    assert "record.json: trace: 480 tokens of made.safetensors were decoded, and these are 480 others" in other


def test_wheels_are_those_of_what_is_installed_here(
    forestage: Forestage, tmp_path: Path, trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = refused(forestage("reference", "pack", "--trace", trace, "--python", "3.12", "--out", tmp_path / "p"))
    assert "--python: has no effect: without --wheels none are fetched" in line

    # Without an index nothing is found, and nothing is left behind.
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    line = refused(forestage("reference", "pack", "--trace", trace, "--wheels", "--out", tmp_path / "p"))
    assert "--wheels: ERROR: Could not find a version that satisfies the requirement pydantic==" in line
    assert not (tmp_path / "p").exists()
    assert "pydantic" in wheels.CARRIED
