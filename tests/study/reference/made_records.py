"""A record that the system model itself has made, with known constants: what compares it must find no error."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from gpu_reference.records import MeasurementRecord
from gpu_reference.records.decode import Decode, Regimen, TracePart
from gpu_reference.records.machine import Machine
from gpu_reference.records.micro import Micro, MicroKind, Setting
from gpu_reference.records.record import MeasuredModel, MeasuredTrace
from gpu_reference.records.summary import Summary
from perfmodel.measured import (
    CopyLine,
    Curve,
    Grid,
    HostConstants,
    LayerConstants,
    MeasuredConstants,
    measured_times,
)
from perfmodel.simulator import Simulator
from perfmodel.units import PS_PER_S
from predictor.policies.material import Material, material_of, part_of_steps
from predictor.policies.parts import Predictors
from predictor.policies.plan import Missing
from predictor.policies.policy import Eviction, Policy, Prefetch
from predictor.predictions.digest import trace_digest
from study.reference.comparison import DecodedPart, contexts_of
from tests.routing import trace_of
from traces import RoutingTrace
from traces.selection import select_sequences

LAYERS, EXPERTS, TOP_K, HIDDEN = 3, 8, 2, 64
EXPERT_BYTES, SMALL_BYTES = 5_000_000, 600_000
FIRST = 300
"""Tokens that every sequence has in its cache when it begins."""

LINE = CopyLine(latency_s=2e-6, bytes_per_s=25e9)
ALONE = CopyLine(latency_s=9e-6, bytes_per_s=25e9)
EXPERT_S = {1: 20e-6, 4: 26e-6, 16: 50e-6}
HOST_S = {1: 300e-6, 4: 360e-6, 16: 600e-6}
WHILE_COPYING = 1.5
FIXED_S = {
    ("0", 1): {256: 40e-6, 512: 50e-6}, ("0", 4): {256: 44e-6, 512: 60e-6},
    ("1,2", 1): {256: 30e-6, 512: 38e-6}, ("1,2", 4): {256: 33e-6, 512: 46e-6},
}  # fmt: skip
"""By (layers, batch): by rows of the cache."""
LOGITS_S = {1: 50e-6, 4: 55e-6}
GATE_S = {2: 11e-6, 8: 13e-6}
RUNTIME_S = {"offloaded": {1: 25e-6, 4: 27e-6}, "resident": {1: 17e-6, 4: 20e-6}}
"""By runtime: by tokens that choose the same experts."""
FURTHER_S = {"offloaded": 3e-6, "resident": 2e-6}
DECISION_S = {
    "recency": 8e-6, "values": 12e-6, "values and prefetch": 15e-6, "values, prefetch and background loads": 20e-6,
}  # fmt: skip

LRU = Policy(eviction=Eviction.LRU)
FREQUENCY = Policy(eviction=Eviction.FREQUENCY)
BELADY = Policy(eviction=Eviction.BELADY)
PREFETCH = Policy(eviction=Eviction.LRU, prefetch=Prefetch.PERFECT)
STATIC = Policy(eviction=Eviction.STATIC, missing=Missing.HOST)
BACKGROUND = Policy(eviction=Eviction.FREQUENCY, missing=Missing.HOST, background=True, price=50)


def routed(seed: int = 0) -> RoutingTrace:
    """60 sequences of 40 tokens; experts are the likelier the smaller their number."""
    tokens = 60 * 40
    noise = np.random.default_rng(seed).gumbel(size=(tokens, LAYERS, EXPERTS)) - np.log(1 + np.arange(EXPERTS))
    ids = np.argsort(-noise, axis=2)[:, :, :TOP_K]
    trace = trace_of(ids, experts=EXPERTS, lengths=[40] * 60)
    return replace(trace, position=trace.position + FIRST)


def made_material(trace: RoutingTrace | None = None, predictors: Predictors | None = None) -> Material:
    return material_of(routed() if trace is None else trace, predictors or Predictors(), {}, test_tokens=400)


def constants(policy: Policy, batch: int, *, throttle_gb_per_s: float | None, size: int) -> MeasuredConstants:
    """What the record's micro-measurements must come to."""
    fixed = {
        name: Grid(
            "fixed",
            tuple(
                (of, Curve("fixed", tuple(by_rows.items())))
                for (layers, of), by_rows in FIXED_S.items()
                if layers == name
            ),
        )
        for name in ("0", "1,2")
    }
    told = "values" if policy.eviction is not Eviction.LRU and policy.eviction is not Eviction.STATIC else "recency"
    told = "values and prefetch" if policy.prefetch is not Prefetch.NONE else told
    told = "values, prefetch and background loads" if policy.background else told
    of_layers = [LayerConstants(fixed_s=fixed[name], shared_s=None) for name in ("0", "1,2", "1,2")]
    activations = batch * HIDDEN * 2
    host = HostConstants(
        expert_s=Curve("host", tuple(HOST_S.items())),
        while_copying=WHILE_COPYING,
        before_s=ALONE.at(activations),
        after_s=ALONE.at(activations),
    )
    experts = {tokens: taken * size / EXPERT_BYTES for tokens, taken in EXPERT_S.items()}
    return MeasuredConstants(
        model="made",
        expert_bytes=size,
        chunk_bytes=2 << 20,
        copy=LINE,
        throttle_bytes_per_s=None if throttle_gb_per_s is None else throttle_gb_per_s * 1e9,
        expert_s=Curve("expert", tuple(experts.items())),
        expert_launch_s=experts[1],
        layers=tuple(of_layers),
        end_s=Curve("end", tuple(LOGITS_S.items())),
        buckets=(256, 512),
        gate_s=Curve("gate", tuple(GATE_S.items())),
        runtime_s=Curve("runtime", tuple(RUNTIME_S["offloaded"].items())),
        runtime_expert_s=FURTHER_S["offloaded"],
        foresight_s=DECISION_S[told] - DECISION_S["recency"],
        begin_s=DECISION_S[told] - DECISION_S["recency"] if policy.prefetch is not Prefetch.NONE else 0.0,
        host=None if policy.missing is Missing.FETCH else host,
    )


def micro_rows(line: CopyLine = LINE) -> tuple[Micro, ...]:
    """As a suite would have measured them, with other ways of timing that must not be taken."""
    return tuple(_micro_rows(line))


def _micro_rows(line: CopyLine) -> Iterable[Micro]:
    for copied in (1 << 16, 1 << 20, 1 << 21, 1 << 24, EXPERT_BYTES):
        for kind in (MicroKind.COPY_TO_DEVICE, MicroKind.COPY_FROM_DEVICE):
            where = {"memory": "pinned", "copy_bytes": copied, "streams": 1}
            yield _micro(kind, line.at(copied), copied, **where, clock="device", queued=16)
            yield _micro(kind, ALONE.at(copied), copied, **where, clock="host", queued=1)
            yield _micro(kind, 3 * ALONE.at(copied), copied, **{**where, "memory": "pageable"}, clock="host", queued=1)
    for size in (EXPERT_BYTES, SMALL_BYTES):
        for tokens, taken in EXPERT_S.items():
            how = {"tokens": tokens, "format": "mxfp4", "kernel": "torch", "launched": "eager"}
            yield _micro(MicroKind.EXPERT, taken * size / EXPERT_BYTES, size, **how, clock="host", queued=8)
            yield _micro(MicroKind.EXPERT, taken / 2, size, **how, clock="device", queued=8)
            yield _micro(MicroKind.EXPERT, taken * 2, size, **how, clock="host", queued=1)
    for (layers, batch), by_rows in FIXED_S.items():
        of = {"layers": layers, "batch": batch, "launched": "eager", "clock": "host", "queued": 8}
        for rows, taken in by_rows.items():
            yield _micro(MicroKind.FIXED_PART, taken, part="to_gate", context=rows, **of)
            if rows > 256:  # another in the same bucket, which is less full
                yield _micro(MicroKind.FIXED_PART, taken / 2, part="to_gate", context=rows - 1, **of)
    for batch, taken in LOGITS_S.items():
        of = {"layers": "2", "context": 1, "batch": batch, "launched": "eager", "clock": "device", "queued": 8}
        yield _micro(MicroKind.FIXED_PART, taken, part="logits", **of)
    for ids, taken in GATE_S.items():
        yield _micro(MicroKind.GATE_ROUND_TRIP, taken, ids=ids, clock="host", queued=1)
    for runtime, of_runtime in RUNTIME_S.items():
        for tokens, taken in of_runtime.items():
            for needed in {TOP_K, min(EXPERTS, tokens * TOP_K)}:
                how = {"runtime": runtime, "tokens": tokens, "top_k": TOP_K, "needed": needed, "missing": 0}
                whole = taken + (needed - TOP_K) * FURTHER_S[runtime]
                yield _micro(MicroKind.LAYER_OVERHEAD, whole, **how, clock="host", queued=3)
    how = {"runtime": "offloaded", "tokens": 1, "top_k": TOP_K, "needed": TOP_K, "missing": 1}
    yield _micro(MicroKind.LAYER_OVERHEAD, 80e-6, **how, clock="host", queued=3)
    for told, taken in DECISION_S.items():
        shape = {"layers": LAYERS, "experts": EXPERTS, "top_k": TOP_K, "places": 6}
        yield _micro(MicroKind.DECISION, taken, policy=told, **shape, clock="host", queued=3)
    for tokens, taken in HOST_S.items():
        how = {"tokens": tokens, "format": "mxfp4", "kernel": "torch", "clock": "host", "queued": 1}
        for threads, times in ((2, 1.5), (6, 0.5)):  # rows are decoded with 4
            yield _micro(MicroKind.HOST_EXPERT, taken * times, EXPERT_BYTES, threads=threads, **how)
            if tokens == 1:
                beside = {"what": "expert", "copy_bytes": 1 << 24, "threads": threads, **how}
                seconds = taken * WHILE_COPYING * times
                yield _micro(MicroKind.HOST_EXPERT_WHILE_COPYING, seconds, EXPERT_BYTES, **beside)


def _micro(kind: MicroKind, taken_s: float, moved: int | None = None, /, **settings: Setting) -> Micro:
    return Micro(kind=kind, settings=settings, seconds=Summary.of([taken_s]), bytes=moved)


def decoded(
    material: Material,
    policy: Policy,
    name: str,
    *,
    batch: int = 1,
    steps: int = 60,
    warm: int = 0,
    places: int = 6,
    throttle_gb_per_s: float | None = None,
    size: int = EXPERT_BYTES,
) -> Decode:
    """A row as the system model says it would be measured."""
    sequences = tuple(range(2 * batch + 2))
    trace, all_steps = part_of_steps(select_sequences(material.test, sequences), batch=batch, steps=warm + steps)
    found = DecodedPart.of(trace, all_steps, warm, material.predictors, policy)
    part = found.part
    known = constants(policy, batch, throttle_gb_per_s=throttle_gb_per_s, size=size)
    if places == LAYERS * EXPERTS:
        resident = Curve("runtime", tuple(RUNTIME_S["resident"].items()))
        further = FURTHER_S["resident"]
        known = replace(known, runtime_s=resident, runtime_expert_s=further, foresight_s=0.0, begin_s=0.0)
    times = measured_times(part, contexts_of(trace), known)
    run = Simulator(part, times, material.uses, places=places, scope="global").run(policy, first=found.first)
    counts = vars(run.counts)
    moved = counts["demands"] + counts["late"] + counts["ahead"]
    regime = "real sizes" if size == EXPERT_BYTES else "small experts"
    return Decode(
        row=name,
        policy=policy,
        scope="global",
        share=places / (LAYERS * EXPERTS),
        places=places,
        regimen=Regimen(
            name="throttled" if throttle_gb_per_s else regime,
            expert_intermediate=10,
            expert_bytes=size,
            format="mxfp4",
            throttle_gb_per_s=throttle_gb_per_s,
        ),
        part=TracePart(
            sequences=sequences,
            batch=batch,
            warm_steps=warm,
            steps=steps,
            tokens=int(np.diff(all_steps.offsets)[found.counted].sum()),
        ),
        mode="eager",
        kernel="torch",
        foresight="none" if policy.eviction is Eviction.LRU else "arrays",
        host_threads=4 if policy.missing is Missing.HOST else 0,
        tpot_s=Summary.of((run.step_ps[found.counted] / PS_PER_S).tolist()),
        hit_rate=counts["hits"] / counts["lookups"],
        moved_bytes=moved * size + counts["abandoned_bytes"],
        stall_s=0.0,
        link_busy_s=0.0,
        counts=counts,
        output_digest="0" * 64,
    )


def made_record(
    material: Material, decode: Iterable[Decode], micro: tuple[Micro, ...] | None = None, **changes: object
) -> MeasurementRecord:
    test = material.test
    fields = {
        "command": "made by a test",
        "date": "2026-11-27T12:00:00+00:00",
        "suite": "full",
        "device": "cuda",
        "commit": "unknown",
        "sources": "0" * 64,
        "machine": Machine(
            processor="none", cores=4, usable_cores=4, threads=4, memory_gib=8.0, gpu="made", gpu_memory_gib=8.0,
            driver=None, cuda=None, pcie=None,
        ),
        "versions": {},
        "model": MeasuredModel(
            name="made", layers=LAYERS, experts=EXPERTS, top_k=TOP_K, hidden=HIDDEN, expert_intermediate=10,
            expert_matrices=3, activation="swiglu", expert_bias=False, formats={"mxfp4": EXPERT_BYTES},
        ),
        "trace": MeasuredTrace(
            name="made.safetensors", model="test", tokens=test.tokens, sequences=test.sequences,
            digest=trace_digest(test),
        ),
        "predictors": dict(material.digests),
        "seed": 0,
        "sections": (),
        "micro": micro_rows() if micro is None else micro,
        "decode": tuple(decode),
    }  # fmt: skip
    return MeasurementRecord.model_validate({**fields, **changes})
