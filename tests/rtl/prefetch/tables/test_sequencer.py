"""The sequencer: which cycle of an event does what, in whichever order prediction and verification end."""

from typing import Any

import pytest

from predictor.st_moe.parameters import EngineLimits
from rtl.prefetch.tables.sequencer import Sequencer
from tests.rtl.simulate import simulate

LIMITS = EngineLimits(experts_max=8, layers_max=4, top_k_max=3, candidates_max=2)


def steps(top_k: int, *, rejected: bool, predicts: bool, verifies: bool, ends: dict[str, int]) -> list[str]:
    """What an event does, cycle by cycle from its check on; ``ends``: the cycle of each end, counted from the check."""
    found = ["check"]
    if not rejected:
        found += [f"predict {nth}" for nth in range(top_k)] if predicts else []
        found += [f"verify {nth}" for nth in range(top_k)] if verifies else []
    if len(found) > 1:
        found += ["wait"] * max(1, max(ends.values()) + 1 - len(found))
    return [*found, "idle"]


@pytest.mark.parametrize("top_k", [1, 3])
@pytest.mark.parametrize(
    ("rejected", "predicts", "verifies", "ends"),
    [
        (True, True, True, {}),
        (False, False, False, {}),
        (False, True, False, {"predict": 9}),
        (False, False, True, {"verify": 6}),
        (False, True, True, {"predict": 12, "verify": 9}),
        (False, True, True, {"predict": 9, "verify": 12}),
        (False, True, True, {"predict": 8, "verify": 8}),
        (False, True, True, {"predict": 5, "verify": 10}),  # while rows to verify are still read, where there are three
    ],
)
def test_every_cycle_of_an_event(
    top_k: int, rejected: bool, predicts: bool, verifies: bool, ends: dict[str, int]
) -> None:
    dut = Sequencer(LIMITS)

    def now(ctx: Any) -> str:
        index, last = ctx.get(dut.index), ctx.get(dut.last)
        flags = {
            "idle": dut.idle,
            "check": dut.check,
            "predict": dut.reading_to_predict,
            "verify": dut.reading_to_verify,
        }
        (name,) = [name for name, flag in flags.items() if ctx.get(flag)] or ["wait"]
        if name in ("predict", "verify"):
            assert last == (index == top_k - 1)
            return f"{name} {index}"
        return name

    async def bench(ctx: Any) -> None:
        ctx.set(dut.top_k, top_k)
        for _ in range(2):  # nothing of an event stays for the next
            assert now(ctx) == "idle"
            ctx.set(dut.accept, 1)
            await ctx.tick()
            ctx.set(dut.accept, 0)
            found = []
            for cycle in range(30):
                # Said in the check only.
                said = cycle == 0
                ctx.set(dut.rejected, rejected and said)
                ctx.set(dut.predicts, predicts and said)
                ctx.set(dut.verifies, verifies and said)
                ctx.set(dut.predict_finishing, cycle == ends.get("predict"))
                ctx.set(dut.verify_finishing, cycle == ends.get("verify"))
                found.append(now(ctx))
                if found[-1] == "idle":
                    break
                await ctx.tick()
            assert found == steps(top_k, rejected=rejected, predicts=predicts, verifies=verifies, ends=ends)

    simulate(dut, bench)


def test_it_waits_for_an_event() -> None:
    dut = Sequencer(LIMITS)

    async def bench(ctx: Any) -> None:
        for _ in range(5):
            assert ctx.get(dut.idle)
            await ctx.tick()

    simulate(dut, bench)
