"""The scorer against sums and maxima of NumPy."""

from typing import Any

import numpy as np
import pytest

from predictor.st_moe.parameters import EngineLimits
from rtl.prefetch.tables.scorer import Scorer
from tests.rtl.simulate import simulate

LIMITS = EngineLimits(experts_max=16, layers_max=2, top_k_max=3, candidates_max=4)


@pytest.mark.parametrize("add", [False, True])
def test_rows_and_history_become_scores(add: bool) -> None:
    dut = Scorer(LIMITS)
    generator = np.random.default_rng(2)

    async def bench(ctx: Any) -> None:
        for _ in range(30):
            entries_used, experts, top_k = (int(generator.integers(1, high + 1)) for high in (4, 16, 3))
            recent = generator.choice(16, 3, replace=False).tolist()
            history_valid, ht_confidence = int(generator.integers(2)), int(generator.integers(4))
            ctx.set(dut.clear, 1)
            ctx.set(dut.add, add)
            ctx.set(dut.entries_used, (1 << entries_used) - 1)
            ctx.set(dut.experts_used, (1 << experts) - 1)
            ctx.set(dut.history_load, 1)
            ctx.set(dut.history_valid, history_valid)
            ctx.set(dut.history_used, (1 << top_k) - 1)
            ctx.set(dut.history, recent)
            ctx.set(dut.ht_confidence, ht_confidence)
            ctx.set(dut.threshold, 3)
            await ctx.tick()
            ctx.set(dut.clear, 0)
            ctx.set(dut.history_load, 0)
            expected = np.zeros(16, int)
            ctx.set(dut.row_valid, 1)
            for _ in range(3):
                ids, confidences = generator.choice(16, 4, replace=False), generator.integers(0, 4, 4)
                entries = [
                    {"expert": e, "confidence": c} for e, c in zip(ids.tolist(), confidences.tolist(), strict=True)
                ]
                ctx.set(dut.entries, entries)
                await ctx.tick()
                used = ids[:entries_used]
                row = confidences[:entries_used]
                expected[used] = expected[used] + row if add else np.maximum(expected[used], row)
            ctx.set(dut.row_valid, 0)
            await ctx.tick()  # the last row's second cycle
            if history_valid:
                expected[recent[:top_k]] += ht_confidence
            assert [ctx.get(dut.scores[expert]) for expert in range(16)] == expected.tolist()
            eligible = sum(1 << expert for expert in range(experts) if expected[expert] >= 3)
            assert ctx.get(dut.eligible) == eligible
            await ctx.tick()

    simulate(dut, bench)
