"""The net under Verilator: every score, chance, answer and cycle of real routing, and of large shapes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cocotb_tests.net.lock_step import replay_net
from cocotb_tests.net.script import NetScript
from predictor.next_layer.recipes import RECIPES
from predictor.next_use.recipes import WITHOUT_IDENTITY, NextUseConfig
from predictor.row_network.limits import HeadLimits, NetLimits
from predictor.row_network.program import HeadProgram, head_program
from predictor.row_network.twin import RowNetwork
from tests.learned_samples import identified_trace, random_next_use, random_predictor
from traces import RoutingTrace
from traces.selection import select_sequences


def programs(networks: list[RowNetwork], lanes: int) -> list[HeadProgram]:
    return [
        head_program(
            n.tables, n.config, top_k=n.top_k, ranked=n.ranked, distance=n.lookahead, lanes=lanes, origin="test"
        )
        for n in networks
    ]


def limits_for(made: list[HeadProgram], **shape: Any) -> NetLimits:
    """The default net with memories just large enough."""
    default = NetLimits()
    heads = [
        HeadLimits(**{**own.model_dump(), "row_words": len(program.rows), "matched": 8})
        for own, program in zip(default.heads, made, strict=True)
    ]
    return NetLimits(next_layer=heads[0], next_use=heads[1], **shape)


def compare(networks: list[RowNetwork], traces: list[RoutingTrace], *, lanes: int, tokens: int, most: int) -> None:
    """No difference, with and without waits; the PREFETCH of a gate takes ``most`` cycles."""
    made = programs(networks, lanes)
    trace = traces[0]
    limits = limits_for(
        made, slots=len(traces), layers=trace.layers, experts=trace.experts, top_k=trace.top_k, lanes=lanes
    )
    script = NetScript(networks, made, traces, wanted=8, threshold=1000, tokens=tokens)
    for waits in (False, True):
        result = replay_net(script, limits, waits=waits, seed=1)
        assert result.mismatches == 0, result.first_mismatch
        assert result.events == len(script.told)
        if not waits:
            assert max(result.latencies) == most


@pytest.mark.long
def test_the_shipped_trace_by_routing_in_lock_step(shipped_trace: Path) -> None:
    trace = RoutingTrace.load(shipped_trace)
    shape = {"layers": trace.layers, "experts": trace.experts, "top_k": trace.top_k}
    first = random_predictor(**shape, **RECIPES["no-identity"].predictor.model_dump(), seed=4).network
    config = {**NextUseConfig().model_dump(), **WITHOUT_IDENTITY}
    second = random_next_use(np.random.default_rng(5), ranked=True, **shape, **config).network
    sequences = [select_sequences(trace, [index]) for index in range(2)]
    compare([first, second], sequences, lanes=128, tokens=12, most=62)


@pytest.mark.long
def test_many_experts_in_lock_step() -> None:
    shape = {"layers": 4, "experts": 128, "top_k": 8}
    config = {**RECIPES["deployed"].predictor.model_dump(), "identity_rows": 4}
    first = random_predictor(**shape, **config, seed=4).network
    second = random_next_use(np.random.default_rng(5), ranked=True, **shape, **NextUseConfig().model_dump()).network
    traces = [identified_trace(lengths=(4, 5), unrecorded=0.1, seed=seed, **shape) for seed in range(4)]
    compare([first, second], traces, lanes=128, tokens=9, most=162)
