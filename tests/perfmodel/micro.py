"""A model and a machine whose times can be added up by hand, and traces of a few tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from catalog.catalogue import Catalog, load_catalog
from perfmodel import engine
from perfmodel.compiled import simulation as compiled
from perfmodel.config import SimulationConfig
from perfmodel.run import Run
from perfmodel.simulator import Simulator
from predictor.foresight.arrays import Predictions
from predictor.policies.parts import Predictors, part_of
from predictor.policies.plan import Missing
from predictor.policies.policy import Policy, Prefetch
from predictor.row_network.integers import CERTAIN
from staging.steps import decode_steps
from tests.routing import trace_of
from traces import RoutingTrace

# The device reads 10 bytes a nanosecond and computes in no time to speak of; the link moves 1 byte a nanosecond.
TOML = """
[[model]]
name = "micro"
source = "test"
evidence = "assumption"
layers = {layers}
dense_layers = {dense_layers}
experts = {experts}
shared_experts = {shared_experts}
top_k = {top_k}
hidden = 100
expert_intermediate = 100
expert_weight_format = "fp8"
bits_per_weight = 8
attention = {{ kind = "gqa", query_heads = 1, kv_heads = 1, head_dim = 1 }}

[[machine]]
name = "micro"
source = "test"
evidence = "assumption"
compute_tflops = 100000
memory_gb_per_s = 10
host_link = "test"
host_link_gb_per_s = 1
engine_clock_ghz = 1.0
engine_bus_bits = 512
"""

EXPERT_BYTES = 30_000
EXPERT = 3_000_000  # ps: 30,000 bytes from HBM
FETCH = 30_000_000  # ps: the same over the link
CHUNK = 10_000_000  # ps: 10,000 bytes over the link


def attention(context_tokens: int) -> int:
    """ps: 400 weights of 2 bytes, and 4 bytes of key and value a token of context."""
    return (800 + 4 * context_tokens) * 100


def gate(experts: int) -> int:
    """ps: 100 weights of 2 bytes an expert."""
    return 100 * experts * 2 * 100


def make_catalog(
    tmp_path: Any, *, layers: int, experts: int, top_k: int, shared_experts: int = 0, dense_layers: Sequence[int] = ()
) -> Catalog:
    path = tmp_path / "micro.toml"
    path.write_text(
        TOML.format(
            layers=layers,
            experts=experts,
            top_k=top_k,
            shared_experts=shared_experts,
            dense_layers=list(dense_layers),
        )
    )
    return load_catalog(path)


def make_trace(
    ids: Any, *, experts: int, sequences: Sequence[int] | None = None, prompts: Sequence[int] = (), **metadata: Any
) -> RoutingTrace:
    """A trace from ids ``[tokens, layers, top_k]``; ``sequences``: their lengths; ``prompts``: the rows of prompts."""
    tokens = len(ids)
    phase = np.ones(tokens, np.uint8)
    phase[list(prompts)] = 0
    facts = {"model": "micro", "synthetic": False}
    return trace_of(ids, experts=experts, lengths=sequences, phase=phase, **{**facts, **metadata})


def make_config(**values: Any) -> SimulationConfig:
    """A configuration on the micro machine, with chunks of 10,000 bytes."""
    return SimulationConfig(**{"machine": "micro", "chunk_bytes": 10_000, **values})


@dataclass(frozen=True)
class Simulated:
    """A run, and what it was run on."""

    run: Run
    simulator: Simulator

    @property
    def step_ps(self) -> list[int]:
        """Of each timed step."""
        return self.run.step_ps[self.simulator.workload.timed].tolist()


def simulate(
    trace: RoutingTrace,
    policy: Policy,
    config: SimulationConfig,
    catalog: Catalog,
    *,
    resident: Sequence[int] = (),
    named: Mapping[tuple[int, int], Sequence[int]] | None = None,
    distance: int = 1,
) -> Simulated:
    """Run both engines, which must agree.

    Args:
        trace, policy, config, catalog: what is simulated; one token a step.
        resident: keys on the device at the start.
        named: by (step, layer), the experts that ``Prefetch.ST_MOE`` predicts for it, each certain.
        distance: of these.
    """
    part = part_of(trace, decode_steps(trace), Predictors())
    if named is not None:
        part.predictions[Prefetch.ST_MOE] = predictions(len(part.steps), trace.layers, named, distance)
    uses = np.zeros((trace.layers, trace.experts), np.int64)
    on_host = policy.missing in (Missing.HOST, Missing.SOONER)
    simulator = Simulator.of(part, config, uses, host=on_host, catalog=catalog)
    plan = replace(simulator.plan(policy), resident=np.array(resident, np.int64))
    takes = simulator.durations_of(policy)
    run = compiled.simulate(simulator.workload, takes, plan)
    reference = engine.simulate(simulator.workload, takes, plan)
    assert np.array_equal(run.step_ps, reference.step_ps)
    assert (run.parts, run.counts) == (reference.parts, reference.counts)
    assert (run.link_busy_ps, run.host_busy_ps) == (reference.link_busy_ps, reference.host_busy_ps)
    return Simulated(run, simulator)


def predictions(steps: int, layers: int, named: Mapping[tuple[int, int], Sequence[int]], distance: int) -> Predictions:
    """Predictions that name ``named[step, layer]`` and nothing else."""
    most = max([1, *map(len, named.values())])
    experts = np.full((steps, layers, 1, most), -1, np.int16)
    for (step, layer), of in named.items():
        experts[step, layer, 0, : len(of)] = of
    return Predictions(distances=(distance,), experts=experts, chances=np.full(experts.shape, CERTAIN, np.int32))
