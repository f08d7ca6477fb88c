"""The stager's circuit against the twin, command by command, at random over many shapes."""

import pytest

from staging.stager.limits import FOREVER, StagerLimits, StagerSettings
from tests.rtl.prefetch.stager.stager_bench import random_script, run_script

SMALL = dict(layers=2, experts=5, places=4, spare=1, queue_depth=5, sequence_slots=2, event_experts=2, stamp_bits=4)


def test_x():
    run_script(random_script(StagerLimits(**SMALL, lanes=4), StagerSettings(shares=(4,)), 0, 300))
