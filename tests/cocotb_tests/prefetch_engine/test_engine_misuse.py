"""Software that does everything wrong: it is told, and the engine goes on."""

import pytest

from cocotb_tests.prefetch_engine.replay import replay_engine
from cocotb_tests.prefetch_engine.run import MISUSE_SCRIPT
from predictor.engine.settings import Mode
from tests.cocotb_tests.prefetch_engine.small_engines import (
    Model,
    replay_of,
    skip_without_tools,
    with_a_bad_copy,
)

pytestmark = pytest.mark.long  # its build takes a minute or more; it is that of ``test_whole_engine``

MODEL = Model()


@pytest.fixture(autouse=True, scope="module")
def _tools() -> None:
    skip_without_tools()


def test_bad_settings_and_writes_while_events_are_in_work_are_refused_and_told() -> None:
    result = replay_engine(
        replay_of(settings=MODEL.settings(Mode.OFF), events=MODEL.random_events(40, 2), script=MISUSE_SCRIPT)
    )
    assert result.mismatches == 0, result.first_mismatch
    assert result.errors == 0


def test_bad_images_are_refused_and_told_and_a_good_one_is_loaded_after_them() -> None:
    result = replay_engine(replay_of(**MODEL.learned(), script=MISUSE_SCRIPT, spoil=with_a_bad_copy))
    assert result.mismatches == 0, result.first_mismatch
    assert result.counters["predictions"] > 20
    assert result.errors == 0
