"""``forestage reference decode`` prints texts and figures, and refuses what it cannot do."""

import json
from typing import Any

import pytest

from tests.study.conftest import refused

FEW = ["--policy", "lru", "--capacity", "8", "--tokens", "3", "--domain", "prose"]


def test_the_document_holds_text_check_and_figures(forestage: Any) -> None:
    result = forestage("reference", "decode", *FEW, "--json")
    assert result.status == 0, result.err
    document = json.loads(result.out)
    (sequence,) = document["sequences"]
    assert sequence["same_text"] is True
    assert sequence["domain"] == "prose"
    assert sequence["tokens"] == 3
    assert document["steps"] == 2
    assert document["places"] == 64
    counts = document["counts"]
    assert counts["lookups"] == 2 * 8 * 4 == counts["hits"] + counts["fetched"]
    assert document["moved_bytes"] == counts["fetched"] * document["expert_bytes"]
    assert document["resident_tpot_s"] > 0


def test_without_the_check_it_says_that_nothing_was_compared(forestage: Any) -> None:
    result = forestage("reference", "decode", *FEW[:-2], "--prompt", "def f(", "--no-check")
    assert result.status == 0, result.err
    assert "not compared" in result.out
    assert "time per token" in result.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--policy", "lro", "--capacity", "8"], "the nearest known name is 'lru'"),
        (["--policy", "lru", "--capacity", "33"], "--capacity 33: choose 0 to 32 with --scope layer"),
        (["--policy", "learned", "--capacity", "8"], "--next-use: the policy needs a trained predictor"),
        (["--policy", "lru", "--capacity", "8", "--price", "5"], "--price"),
        (["--policy", "lru", "--capacity", "8", "--prompt", "x", "--domain", "code"], "--domain"),
        (["--policy", "lru", "--capacity", "8", "--domain", "poetry"], "unknown name 'poetry'"),
        (["--policy", "lru", "--capacity", "8", "--sequences", "9999"], "--sequences 9999: the shipped trace has"),
        (["--policy", "lru", "--capacity", "8", "--format", "fp8"], "fp8"),
        (["--policy", "lru", "--capacity", "8", "--link-gb-per-s", "0"], "--link-gb-per-s 0: give a number above 0"),
        (["--policy", "lru", "--capacity", "8", "--kernel", "triton"], "expert kernel 'triton'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(forestage: Any, options: list[str], said: str) -> None:
    assert said in refused(forestage("reference", "decode", *options, "--tokens", 2, "--no-check"))
