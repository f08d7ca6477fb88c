"""The bench's judgement: whatever differs is counted and told."""

import numpy as np
import pytest

from cocotb_tests.models.files import pattern
from cocotb_tests.prefetch_engine.comparison import Comparison
from cocotb_tests.prefetch_engine.staging_buffer import compare_staging
from predictor.engine.commands import CommandKind, Done
from predictor.engine.settings import LinkSettings
from staging.stager.answers import Transfer

LINK = LinkSettings(expert_bytes=128, expert_stride=128, staging_stride=128)
MOVED = [Done(CommandKind.GRANT, transfer=Transfer(0, 3, 1, -1, True)), Done(CommandKind.ARRIVE)]


def _judge(addresses: list[int], words: np.ndarray) -> Comparison:
    comparison = Comparison()
    masks = np.ones(words.shape, np.bool_)
    compare_staging(comparison, LINK, MOVED, [], (np.array(addresses), masks, words))
    return comparison


def test_the_bytes_of_an_expert_at_its_place_are_what_must_be_written_and_no_others() -> None:
    right = pattern(3 * 128, 128).reshape(2, 64)
    assert _judge([128, 192], right).mismatches == 0
    wrong = right.copy()
    wrong[1, 5] ^= 1
    assert "(1, 69, 1)" in _judge([128, 192], wrong).first
    assert "not written" in _judge([128], right[:1]).first
    elsewhere = np.concatenate([right, right[:1]])
    assert "bytes written elsewhere" in _judge([128, 192, 256], elsewhere).first


@pytest.mark.parametrize("hardware", [[1, 2], [1, 2, 4], [1, 2, 3, 3]])
def test_lists_that_differ_anywhere_are_told(hardware: list[int]) -> None:
    comparison = Comparison()
    comparison.equal_lists("number", [1, 2, 3], hardware)
    assert comparison.mismatches == 1
    assert comparison.first.startswith("number ")
    assert comparison.compared == {"number": max(3, len(hardware))}
