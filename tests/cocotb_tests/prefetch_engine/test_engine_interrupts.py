"""The interrupt in runs of the whole engine: it calls for what is enabled alone, until software clears it."""

import pytest

from cocotb_tests.models.files import RESPONSE, WRITE, Fault
from cocotb_tests.prefetch_engine.replay import replay_engine
from cocotb_tests.prefetch_engine.run import INTERRUPT_SCRIPT
from predictor.engine.events import EngineError
from predictor.engine.settings import Mode
from tests.cocotb_tests.prefetch_engine.small_engines import Model, replay_of, skip_without_tools

pytestmark = pytest.mark.long  # its build takes a minute or more; it is that of ``test_whole_engine``

MODEL = Model()
FAULTS = {
    "far": [Fault(RESPONSE, burst, 0, 2) for burst in (3, 40)],
    "staging": [Fault(WRITE, burst, 0, 3) for burst in (60, 90)],
}


@pytest.fixture(autouse=True, scope="module")
def _tools() -> None:
    skip_without_tools()


@pytest.mark.parametrize("mode", [Mode.OFF, Mode.LEARNED])
def test_the_interrupt_calls_for_what_is_enabled_until_it_is_cleared(mode: Mode) -> None:
    """In mode ``LEARNED`` an image was loaded, too."""
    if mode is Mode.LEARNED:
        of = MODEL.learned(MODEL.trace(lengths=(40, 36)))
    else:
        of = {"settings": MODEL.settings(mode), "events": MODEL.random_events(40, 2)}
    result = replay_engine(replay_of(**of, faults=FAULTS, script=INTERRUPT_SCRIPT))
    assert result.mismatches == 0, result.first_mismatch
    assert result.errors == EngineError.WRITE, "what went wrong since the script cleared the errors"
    assert result.counters["retried"] + result.counters["failed"] + result.counters["cancelled"] >= 4
