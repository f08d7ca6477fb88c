"""``forestage pim stream``: what the document says, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from catalog.record_file import record_toml
from pim_model.dram.devices import find_device
from tests.study.conftest import Outcome, refused

Forestage = Callable[..., Outcome]


def streamed(forestage: Forestage, *arguments: str) -> dict[str, Any]:
    outcome = forestage("pim", "stream", *arguments, "--json")
    assert outcome.status == 0, outcome.err
    document = json.loads(outcome.out)
    assert isinstance(document, dict)
    return document


def test_the_document_of_a_stream(forestage: Forestage) -> None:
    result = streamed(forestage, "--device", "HBM3", "--pattern", "conflict", "--bytes", "3200", "--refresh", "off")
    assert (result["reads"], result["cycles"]) == (100, 99 * 72 + 2)
    assert result["cycles_per_read"] == pytest.approx(71.3)
    assert result["fraction_of_peak"] == pytest.approx(200 / 7130)
    assert result["gb_per_s"] == pytest.approx(3200 / (7130 * 0.625))
    assert result["bank_order"] == "bank 0"
    assert (result["device"], result["pattern"], result["refresh"]) == ("HBM3", "conflict", "off")
    assert (result["activations"], result["refreshes"], result["seed"], result["queue"]) == (100, 0, None, 32)


def test_refresh_is_on_unless_told_otherwise_and_the_seed_is_said(forestage: Forestage) -> None:
    result = streamed(forestage, "--device", "hbm2_2000", "--pattern", "random", "--seed", "5", "--bytes", "100000")
    assert (result["device"], result["refresh"], result["seed"], result["rows"]) == ("HBM2", "on", 5, 16_384)
    assert result["refreshes"] == result["cycles"] // 3900


def test_a_device_may_come_from_a_file(forestage: Forestage, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(record_toml("dram", find_device("HBM2").model_copy(update={"name": "Mine", "tccd_l_ck": 6})))
    result = streamed(forestage, "--device", str(path), "--pattern", "bank-group", "--bytes", "320", "--refresh", "off")
    assert (result["device"], result["cycles"]) == ("Mine", 9 * 6 + 2)
    path.write_text(path.read_text().replace("tccd_l_ck", "tccdl_ck"))
    message = refused(forestage("pim", "stream", "--device", str(path)))
    assert "unknown key 'tccdl_ck'; the nearest known key is 'tccd_l_ck'" in message


def test_the_table_says_the_same(forestage: Forestage) -> None:
    outcome = forestage("pim", "stream", "--device", "HBM2", "--bytes", "64", "--refresh", "off")
    assert outcome.status == 0
    assert "bank groups in turn" in " ".join(outcome.out.split())
