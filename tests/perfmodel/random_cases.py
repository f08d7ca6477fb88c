"""Small random simulations that cover every feature, for comparing the two engines and for properties of each.

Times are small integers on purpose: events then often fall into one instant, and every rule of order is met.
"""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from perfmodel.workload import Durations, Workload
from predictor.foresight.arrays import Predictions, Values
from predictor.policies.plan import Missing, Plan
from staging.stager.limits import FOREVER, StagerLimits, StagerSettings

Case = tuple[Workload, Durations, Plan]


def random_case(seed: int, *, missing: Missing | None = None) -> Case:
    """A case, the same for the same seed; ``missing`` asks for one kind (the rest of the case stays)."""
    random = np.random.default_rng(seed)
    drawn = list(Missing)[int(random.integers(len(Missing)))]
    layers, experts = int(random.integers(1, 6)), int(random.integers(2, 9))
    workload = _workload(random, layers, experts)
    most_needed = max(1, int(np.diff(workload.offsets).max(initial=0)))
    plan = _plan(random, workload, most_needed, missing or drawn)
    return workload, _durations(random, int(workload.tokens.max(initial=1))), plan


def _chance(random: Generator, of: float) -> bool:
    return bool(random.random() < of)


def _workload(random: Generator, layers: int, experts: int) -> Workload:
    steps = int(random.integers(1, 15))
    timed = random.random(steps) < (1.0 if _chance(random, 0.4) else 0.7)
    tokens = random.integers(1, 5, steps) if _chance(random, 0.5) else np.ones(steps, np.int64)
    nothing_timed = _chance(random, 0.1)
    popularity = random.dirichlet(np.full(experts, 0.6), layers)
    needed: list[NDArray[np.int64]] = []
    tokens_of: list[NDArray[np.int64]] = []
    for step in range(steps):
        for layer in range(layers):
            empty = _chance(random, 0.15) and (nothing_timed or not timed[step])
            usable = int((popularity[layer] > 0).sum())
            count = 0 if empty else int(random.integers(1, min(usable, 5) + 1))
            needed.append(random.choice(experts, count, replace=False, p=popularity[layer]))
            tokens_of.append(random.integers(1, tokens[step] + 1, count))
    before = random.integers(1, int(random.choice([10, 60, 400])), (steps, layers))
    if _chance(random, 0.1):
        before[random.random(before.shape) < 0.3] = 0
    shared = random.integers(1, 40, steps) if _chance(random, 0.4) else np.zeros(steps, np.int64)
    engine = [
        np.zeros((steps, layers), np.int64),
        random.integers(0, 12, (steps, layers)),
        random.integers(0, 500, (steps, layers)),
    ]
    return Workload(
        layers=layers,
        model_experts=experts,
        experts=np.concatenate(needed).astype(np.int32),
        tokens_of=np.concatenate(tokens_of).astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum([len(n) for n in needed])]).astype(np.int64),
        timed=timed,
        tokens=tokens.astype(np.int64),
        before_gate_ps=before,
        before_gate_compute_ps=random.integers(0, before + 1),
        shared_ps=shared,
        shared_compute_ps=random.integers(0, shared + 1),
        prefetch_engine_ps=engine[int(random.integers(3))],
        values_engine_ps=engine[int(random.integers(3))],
        begin_engine_ps=random.integers(0, int(random.choice([1, 12, 500])), steps),
    )


def _durations(random: Generator, most_tokens: int) -> Durations:
    chunks = int(random.choice([1, 2, 3, 7]))
    chunk_bytes = int(random.integers(2, 40))
    passed = np.cumsum(random.integers(1, int(random.choice([5, 30, 120])), chunks))
    latency = int(random.choice([0, 0, 17]))
    expert = np.concatenate([[0], np.cumsum(random.integers(1, 25, most_tokens))])
    rates = random.integers(1, 14, most_tokens + 1)
    shares = random.integers(0, 5, most_tokens + 1) if _chance(random, 0.7) else 0
    return Durations(
        expert_bytes=chunks * chunk_bytes - int(random.integers(0, chunk_bytes)),
        chunk_bytes=chunk_bytes,
        chunk_ps=np.concatenate([[0], passed + latency]).astype(np.int64),
        expert_ps=expert,
        expert_compute_ps=random.integers(0, expert + 1),
        host_work=int(random.integers(1, 900)),
        host_free_rate=rates,
        host_shared_rate=rates * shares // 4,
        host_groups=int(random.choice([1, 1, 2, 3, 16])),
        host_before_ps=int(random.choice([0, 5, 30])),
        host_after_ps=int(random.choice([0, 3, 20])),
        host_token_ps=int(random.choice([0, 0, 4])),
    )


def _plan(random: Generator, workload: Workload, most_needed: int, missing: Missing) -> Plan:
    layers, experts = workload.layers, workload.model_experts
    keys = layers * experts
    share = float(random.choice([0.0, 0.1, 0.25, 0.5, 0.8, 1.0]))
    if _chance(random, 0.5):
        shares = tuple(int(n) for n in random.integers(0, round(share * experts) + 1, layers))
    else:
        shares = (round(share * keys),)
    deep = _chance(random, 0.7)
    limits = StagerLimits(
        layers=layers,
        experts=experts,
        places=sum(shares) + int(random.integers(0, 2)),
        spare=int(random.choice([0, 0, 1, most_needed])),
        queue_depth=most_needed + int(random.integers(0, 3)) + (keys if deep else 0),
        event_experts=most_needed,
        value_bits=20,
    )
    settings = StagerSettings(
        shares=shares,
        value_scale=int(random.integers(0, 4)),
        chance_scale=int(random.integers(0, 4)),
        price=int(random.choice([0, 0, 1, 30, 3000])),
        horizon=int(random.choice([1, layers, FOREVER])) if _chance(random, 0.3) else FOREVER,
        by_recency=_chance(random, 0.7),
        background=_chance(random, 0.5),
    )
    return Plan(
        limits=limits,
        settings=settings,
        missing=missing,
        resident=_resident(random, shares, layers, experts),
        fixed=_chance(random, 0.2),
        values=_values(random, workload) if _chance(random, 0.65) else None,
        predictions=_predictions(random, workload) if _chance(random, 0.75) else None,
    )


def _resident(random: Generator, shares: tuple[int, ...], layers: int, experts: int) -> NDArray[np.int64]:
    full = _chance(random, 0.5)
    if len(shares) == 1:
        count = shares[0] if full else int(random.integers(0, shares[0] + 1))
        return random.permutation(layers * experts)[:count].astype(np.int64)
    held = [layer * experts + random.permutation(experts)[:share] for layer, share in enumerate(shares)]
    keys = random.permutation(np.concatenate(held)).astype(np.int64)
    return keys if full else keys[: len(keys) // 2]


def _values(random: Generator, workload: Workload) -> Values:
    most = int(random.choice([3, 50, 4000]))
    shape = (len(workload.timed), workload.layers, workload.model_experts)
    rows = random.integers(-most if _chance(random, 0.5) else 0, most + 1, shape).astype(np.int32)
    return Values(rows=rows, at_step_end=_chance(random, 0.4), most=most)


def _predictions(random: Generator, workload: Workload) -> Predictions:
    """Often right (as a predictor is), the order and the rest at random; some certain of nothing (chance 0)."""
    steps, layers, experts = len(workload.timed), workload.layers, workload.model_experts
    count = int(random.integers(1, 4))
    distances = tuple(sorted(random.choice(np.arange(1, layers + 3), min(count, layers + 2), replace=False).tolist()))
    most, right = int(random.integers(1, experts + 1)), float(random.choice([0.2, 0.7, 1.0]))
    named = np.full((steps, layers, len(distances), most), -1, np.int16)
    for step in range(steps):
        for layer in range(layers):
            at = step * layers + layer
            needed = workload.experts[workload.offsets[at] : workload.offsets[at + 1]]
            for index in range(len(distances)):
                if _chance(random, 0.1):
                    continue
                score = random.random(experts)
                score[needed] += right * (random.random(len(needed)) < right)
                order = np.argsort(-score)[: int(random.integers(0, most + 1))]
                named[step, layer, index, : len(order)] = order
    chances = random.integers(0, int(random.choice([3, 65536])), named.shape).astype(np.int32)
    chances[random.random(named.shape) < 0.1] = 0
    return Predictions(distances=distances, experts=named, chances=chances)
