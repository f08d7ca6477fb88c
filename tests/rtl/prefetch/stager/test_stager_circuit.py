"""The stager's circuit against the twin, command by command, at random over many shapes."""

from staging.stager.limits import StagerLimits, StagerSettings
from tests.rtl.prefetch.stager.stager_bench import random_script, run_script

SMALL = {"layers": 2, "experts": 5, "places": 4, "spare": 1, "queue_depth": 5, "sequence_slots": 2, "event_experts": 2}


def test_x():
    run_script(random_script(StagerLimits(**SMALL, lanes=4), StagerSettings(shares=(4,)), 0, 300))
