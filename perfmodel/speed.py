"""How many (token, layer) steps a second each engine simulates on one core: ``python -m perfmodel.speed``.

Synthetic routing of 24 layers of 32 experts, 4 a token, each expert's score a random walk that is drawn back to its
mean;
sizes and times of gpt-oss-20b on an A100. What is known ahead is made of the same scores with noise, so that it is
right about as often as a trained predictor; making it is not timed.
"""

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from perfmodel import engine
from perfmodel.compiled import simulation as compiled
from perfmodel.run import Run
from perfmodel.workload import Durations, Workload
from predictor.foresight.arrays import Predictions, Values
from predictor.policies.plan import Missing, Plan
from predictor.policies.policy import Eviction, Policy, Prefetch, plan_of
from staging.stager.speed import CHANCES, EXPERTS, LAYERS, PREDICTED, TOP_K, synthetic_steps

PLACES = LAYERS * EXPERTS // 4
PRICE = 20_000
LEARNED, LRU = Eviction.LEARNED, Eviction.LRU
CASES = {
    "LRU, fetched": Policy(eviction=LRU),
    "values, fetched": Policy(eviction=LEARNED),
    "values and prefetch, fetched": Policy(eviction=LEARNED, prefetch=Prefetch.LEARNED, price=PRICE),
    "static, host computes": Policy(eviction=Eviction.STATIC, missing=Missing.HOST),
    "values, background, host computes": Policy(eviction=LEARNED, missing=Missing.HOST, background=True, price=PRICE),
}


def workload(chosen: NDArray[np.int32]) -> Workload:
    """Steps of one token each, 30 µs before each gate."""
    tokens = len(chosen)
    each = np.full((tokens, LAYERS), 30_000_000, np.int64)
    none = np.zeros(tokens, np.int64)
    return Workload(
        layers=LAYERS,
        model_experts=EXPERTS,
        experts=chosen.ravel(),
        tokens_of=np.ones(chosen.size, np.int32),
        offsets=np.arange(tokens * LAYERS + 1, dtype=np.int64) * TOP_K,
        timed=np.ones(tokens, np.bool_),
        tokens=np.ones(tokens, np.int64),
        before_gate_ps=each,
        before_gate_compute_ps=each // 8,
        shared_ps=none,
        shared_compute_ps=none,
        prefetch_engine_ps=np.full((tokens, LAYERS), 100_000, np.int64),
        values_engine_ps=np.full((tokens, LAYERS), 100_000, np.int64),
        begin_engine_ps=np.full(tokens, 100_000, np.int64),
    )


def durations() -> Durations:
    """Experts of 13.2 MB over 32 GB/s in chunks of 1 MiB, 7.6 µs each on the device; host memory of 76 GB/s."""
    size, chunk, link = 13_219_200, 1 << 20, 32 * 10**9
    ends = [*range(0, size, chunk), size]
    return Durations(
        expert_bytes=size,
        chunk_bytes=chunk,
        chunk_ps=np.array([-(-end * 10**12 // link) for end in ends], np.int64),
        expert_ps=np.array([0, 7_600_000], np.int64),
        expert_compute_ps=np.array([0, 200_000], np.int64),
        host_work=size * 10**6,
        host_free_rate=np.array([0, 76_000], np.int64),
        host_shared_rate=np.array([0, 44_000], np.int64),
        host_groups=1,
        host_before_ps=10_000_000,
        host_after_ps=10_000_000,
        host_token_ps=0,
    )


def foresight(tokens: int) -> tuple[NDArray[np.int32], Values, Predictions]:
    """Experts i32 ``[tokens, layers, top_k]``, values, and predictions one layer ahead."""
    chosen, guess, values = synthetic_steps(tokens)
    return (
        chosen,
        Values(rows=20 * values, at_step_end=False, most=600_000),
        Predictions(
            distances=(1,),
            experts=guess[:, :, None].astype(np.int16),
            chances=np.ascontiguousarray(np.broadcast_to(CHANCES, (tokens, LAYERS, 1, PREDICTED))),
        ),
    )


def measure(tokens: int, reference_tokens: int, repeats: int = 3) -> dict[str, dict[str, float]]:
    """By case: steps a second of both engines (process time, the best of ``repeats``), and their ratio."""
    results = {}
    for name, policy in CASES.items():
        rates = {}
        for engine_name, run, count, times in (
            ("compiled", compiled.simulate, tokens, repeats),
            ("reference", engine.simulate, reference_tokens, 1),
        ):
            chosen, values, predictions = foresight(count)
            plan = plan_of(
                policy,
                layers=LAYERS,
                experts=EXPERTS,
                most_needed=TOP_K,
                places=PLACES,
                scope="global",
                hottest=np.arange(PLACES, dtype=np.int64),
                values={LEARNED: values},
                predictions={Prefetch.LEARNED: predictions},
            )
            rates[engine_name] = _rate(run, workload(chosen), plan, times)
        results[name] = {
            "compiled_steps_per_s": rates["compiled"],
            "reference_steps_per_s": rates["reference"],
            "ratio": rates["compiled"] / rates["reference"],
        }
    return results


def _rate(run: Callable[[Workload, Durations, Plan], Run], work: Workload, plan: Plan, repeats: int) -> float:
    """Steps a second of the fastest run."""
    times = durations()
    best = float("inf")
    if repeats > 1:
        run(work, times, plan)  # compiles
    for _ in range(repeats):
        began = time.process_time()
        run(work, times, plan)
        best = min(best, time.process_time() - began)
    return len(work.timed) * LAYERS / best


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m perfmodel.speed", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tokens", type=int, default=10_000)
    parser.add_argument("--reference-tokens", type=int, default=100)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    asked = parser.parse_args()
    if min(asked.tokens, asked.reference_tokens) < 1:
        parser.error("--tokens, --reference-tokens: give 1 or more")
    results = measure(asked.tokens, asked.reference_tokens)
    if asked.json:
        print(json.dumps(results))
        return
    for name, of in results.items():
        print(
            f"{name}: {of['compiled_steps_per_s'] / 1e6:.2f} million steps/s, the reference "
            f"{of['reference_steps_per_s']:,.0f} ({of['ratio']:,.0f} times)"
        )


if __name__ == "__main__":
    main()
