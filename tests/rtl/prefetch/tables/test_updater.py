"""The updater against the twin's verification of the same row."""

from typing import Any

import numpy as np
import pytest

from predictor.st_moe.events import EngineCounter, RoutingEvent
from predictor.st_moe.parameters import REPLACEMENT_CODES, EngineConfiguration, EngineLimits
from predictor.st_moe.tables import StMoeTables
from rtl.prefetch.tables.updater import Updater
from tests.rtl.simulate import simulate

LIMITS = EngineLimits(experts_max=16, layers_max=2, top_k_max=4, candidates_max=5)
COUNTERS = (EngineCounter.CANDIDATE_HITS, EngineCounter.CANDIDATE_MISSES, EngineCounter.REPLACEMENTS)


@pytest.mark.parametrize("replacement", ["none", "ranked", "reversed"])
def test_a_row_a_cycle_equals_the_twin(replacement: str) -> None:
    """Rows follow each other without a gap and leave two cycles later; counts leave with them."""
    dut = Updater(LIMITS)
    generator = np.random.default_rng(3)
    configuration = EngineConfiguration(
        experts=16, layers=2, top_k=3, candidates=4, issue_limit=16, replacement=replacement, replacement_confidence=1
    )

    async def bench(ctx: Any) -> None:
        ctx.set(dut.entries_used, 0b01111)
        ctx.set(dut.needed_used, 0b0111)
        ctx.set(dut.replacement, REPLACEMENT_CODES[replacement])
        ctx.set(dut.replacement_confidence, 1)
        for _ in range(25):
            candidates = np.array([[generator.choice(16, 4, replace=False) for _ in range(16)] for _ in range(2)])
            confidences = generator.choice(4, (2, 16, 4), p=(0.55, 0.15, 0.15, 0.15))
            twin = StMoeTables(LIMITS, configuration, candidates.astype(np.int16), confidences.astype(np.int8))
            before = {
                row: twin.rows.pack(*(np.pad(x[0, row], (0, 1)) for x in (candidates, confidences)))
                for row in range(16)
            }
            chosen, needed = (generator.choice(16, 3, replace=False).tolist() for _ in range(2))
            twin.step(RoutingEvent(0, tuple(chosen), starts_token=True, starts_sequence=True))
            updates = twin.step(RoutingEvent(1, tuple(needed))).updates
            ctx.set(dut.needed, [*needed, int(generator.integers(16))])
            found, counts = [], np.zeros(3, int)
            for cycle in range(5):
                if cycle < 3:
                    ctx.set(dut.row.as_value(), before[chosen[cycle]])
                    ctx.set(dut.address, updates[cycle].address)
                ctx.set(dut.valid, cycle < 3)
                assert ctx.get(dut.write.valid) == (cycle >= 2)
                await ctx.tick()
                if cycle >= 1:
                    found.append((ctx.get(dut.write.address), ctx.get(dut.write.row.as_value())))
                    counts += [ctx.get(dut.hits), ctx.get(dut.misses), ctx.get(dut.replacements)]
                if cycle == 3:
                    break
            assert found == [(update.address, update.row) for update in updates]
            assert counts.tolist() == [twin.counters[counter] for counter in COUNTERS]
            await ctx.tick()

    simulate(dut, bench)
