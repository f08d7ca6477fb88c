"""How many (token, layer) steps a second the compiled stager does on one core: ``python -m staging.stager.speed``.

A step demands the experts of a layer, serves the link until nothing is left to move, and releases the layer. The cases
add to that one thing after the other, so their differences say where the time goes. The routing is synthetic: 24 layers
of 32 experts, 4 a token, each expert's score a random walk that is drawn back to its mean, so that choices repeat.
Beside them the form for hit rates (``zero_time``) runs the same LRU caches.
"""

import argparse
import json
import time

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit
from staging.stager.compiled import commands
from staging.stager.compiled.state import ENTRY, State, empty_state
from staging.stager.limits import StagerLimits, StagerSettings
from staging.stager.zero_time import ZeroTimeStager

LAYERS, EXPERTS, TOP_K, PREDICTED = 24, 32, 4, 6
CHANCES = np.array([60000, 55000, 50000, 40000, 25000, 15000], np.int32)
"""Of what is predicted, best first; 65535 is certainty."""
PER_LAYER, SHARED = (8,) * LAYERS, (192,)
CASES = {
    "LRU, 8 of 32 a layer": (PER_LAYER, False, False, False),
    "LRU, 192 of 768 in all": (SHARED, False, False, False),
    "192 of 768, values of the layer at each step": (SHARED, True, False, False),
    "192 of 768, values, prefetch of 6 with chances and a price": (SHARED, True, True, False),
    "192 of 768, values, prefetch, background loads": (SHARED, True, True, True),
}
"""Shares, values, prefetch, background."""
ZERO_TIME_CASES = {"LRU, 8 of 32 a layer, for hit rates": PER_LAYER, "LRU, 192 of 768 in all, for hit rates": SHARED}
"""Shares."""


def synthetic_steps(tokens: int) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Experts i32 ``[tokens, layers, top_k]``, predictions ``[…, 6]``, best first, and values ``[…, experts]``."""
    generator = np.random.default_rng(0)
    mean = generator.normal(size=(LAYERS, EXPERTS))
    score = mean.copy()
    scores = np.empty((tokens, LAYERS, EXPERTS))
    for token in range(tokens):
        score += 0.3 * (mean - score) + generator.normal(0, 0.6, score.shape)
        scores[token] = score
    chosen = np.argsort(-scores, axis=-1)[..., :TOP_K]
    guess = np.argsort(-scores - generator.normal(0, 0.3, scores.shape), axis=-1)[..., :PREDICTED]
    values = np.clip(scores * 1000, -30000, 30000)
    return chosen.astype(np.int32), guess.astype(np.int32), values.astype(np.int32)


def measure(tokens: int, repeats: int = 3) -> dict[str, dict[str, float]]:
    """By case: million steps a second (process time, the best of ``repeats``), hit rate and transfers a step."""
    chosen, guess, values = synthetic_steps(tokens)
    results = {}
    for name, (shares, *switches) in CASES.items():
        limits = StagerLimits(
            layers=LAYERS, experts=EXPERTS, places=sum(shares), spare=EXPERTS, queue_depth=16, event_experts=TOP_K
        )
        registers = StagerSettings(shares=shares, price=2000, background=switches[2])
        best = float("inf")
        for repeat in range(repeats + 1):
            state = empty_state(limits, registers, record_actions=False)
            # The first run compiles.
            steps = slice(None) if repeat else slice(1)
            began = time.process_time()
            _run(state, chosen[steps], guess[steps], values[steps], CHANCES, *switches[:2])
            took = time.process_time() - began
            best = min(best, took) if repeat else best
        done, numbers = tokens * LAYERS, state.numbers
        moved = numbers["moved_demands"] + numbers["moved_prefetches"]
        results[name] = {
            "million_steps_per_s": done / best / 1e6,
            "hit_rate": float(numbers["hits"] / (done * TOP_K)),
            "transfers_per_step": float(moved / done),
        }
    return {**results, **_measure_zero_time(chosen, repeats)}


def _measure_zero_time(chosen: NDArray[np.int32], repeats: int) -> dict[str, dict[str, float]]:
    """As ``measure``, of the form for hit rates."""
    tokens = len(chosen)
    keys = (chosen + np.arange(LAYERS, dtype=np.int32)[:, None] * EXPERTS).ravel()
    offsets = np.arange(tokens * LAYERS + 1) * TOP_K
    layer_of = np.tile(np.arange(LAYERS, dtype=np.int32), tokens)
    results = {}
    for name, shares in ZERO_TIME_CASES.items():
        best = float("inf")
        for repeat in range(repeats + 1):
            stager = ZeroTimeStager.empty(LAYERS, EXPERTS, shares, by_recency=True)
            hit = np.zeros(len(keys), np.bool_)
            began = time.process_time()
            stager.run(keys, offsets, layer_of, hit)
            took = time.process_time() - began
            best = min(best, took) if repeat else best
        results[name] = {
            "million_steps_per_s": tokens * LAYERS / best / 1e6,
            "hit_rate": float(hit.mean()),
            "transfers_per_step": float((~hit).sum() / (tokens * LAYERS)),
        }
    return results


@njit(**ENTRY)
def _run(
    state: State,
    chosen: NDArray[np.int32],
    guess: NDArray[np.int32],
    values: NDArray[np.int32],
    chances: NDArray[np.int32],
    with_values: bool,
    with_prefetch: bool,
) -> None:
    tokens, layers = chosen.shape[:2]
    step = 0
    for token in range(tokens):
        for layer in range(layers):
            if with_values:
                commands.set_values(state, layer, values[token, layer])
            commands.demand(state, layer, chosen[token, layer])
            if with_prefetch:
                commands.expire(state, step)
                if layer + 1 < layers:
                    commands.prefetch(state, layer + 1, guess[token, layer + 1], chances, step + 1)
            commands.transfer_all(state)
            commands.release(state, layer, chosen[token, layer])
            step += 1


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m staging.stager.speed", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tokens", type=int, default=4000)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    chosen = parser.parse_args()
    if chosen.tokens < 1:
        parser.error("--tokens: give 1 or more")
    results = measure(chosen.tokens)
    if chosen.json:
        print(json.dumps(results))
        return
    for name, of in results.items():
        print(
            f"{name}: {of['million_steps_per_s']:.2f} million steps/s, hit rate {of['hit_rate']:.1%}, "
            f"{of['transfers_per_step']:.2f} transfers a step"
        )


if __name__ == "__main__":
    main()
