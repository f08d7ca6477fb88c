"""The engine of ST-MoE's tables, by itself, under Verilator, in lock-step with its twin."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from catalog.config import StrictModel
from cocotb_tests.build import build
from cocotb_tests.payloads import pack_events, request_fields
from cocotb_tests.simulation import run
from predictor.st_moe.events import RoutingEvent
from predictor.st_moe.tables import StMoeTables
from rtl.generate import table_engine_verilog

_PATTERN_CYCLES = 4096


class LockStepResult(StrictModel):
    """A comparison of hardware and twin.

    Attributes:
        events: routing events streamed.
        mismatches: requests, table updates, cycle counts of events (without waits), words of the final table, counters
            and protocol breaches that differ.
        first_mismatch: the first of them in words; empty where there is none.
        cycles: hardware cycles while events were streamed.
        cycles_per_s: of these, simulated in a second.
        streaming_s: seconds that took.
        counters: the hardware's, read over its bus.
    """

    events: int
    mismatches: int
    first_mismatch: str
    cycles: int
    cycles_per_s: float
    streaming_s: float
    counters: dict[str, int]


def run_lock_step(
    tables: StMoeTables,
    events: Sequence[RoutingEvent],
    *,
    waits: bool = False,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> LockStepResult:
    """Stream ``events`` through an engine loaded and configured as ``tables``, and through a twin of it.

    Args:
        tables: what the engine is configured and its memory loaded with; no history of theirs. They are not changed.
        events: at least one.
        waits: events and requests wait at random, the bus too, and registers are read meanwhile; otherwise every event
            is offered at once and every request taken at once, and the cycles of every event are compared as well.
        seed: of the waits, and of the bits that the engine must ignore.
        progress: called with the number of events done.

    Raises:
        SimulationError: the simulation failed.
        ForestageError: hardware runs are not possible here.
    """
    generator = np.random.default_rng(seed)
    # Rows of different events are of one width: the configured top-k.
    fields = [
        (event.slot, event.layer, event.starts_token, event.starts_sequence, event.domain, *event.experts)
        for event in events
    ]
    simulation = run(
        build(table_engine_verilog(tables.limits), "table_engine"),
        "cocotb_tests.table_engine_test",
        stimulus={
            "limits": tables.limits.model_dump(),
            "configuration": tables.configuration.model_dump(),
            "image": tables.to_memory_image(),
            "events": np.array(fields, np.int32),
            "payloads": pack_events(tables.limits, events, generator),
            "request_fields": request_fields(tables.limits),
            "event_pattern": _pattern(generator, waits, busy=0.7),
            "request_pattern": _pattern(generator, waits, busy=0.4),
            "waits": waits,
            "seed": seed,
        },
        seed=seed,
        timeout_s=600 + len(events) / 50,
        progress=progress,
    )
    values = simulation.values
    return LockStepResult(
        events=len(events),
        mismatches=values["mismatches"],
        first_mismatch=values["first_mismatch"],
        cycles=values["cycles"],
        cycles_per_s=values["cycles"] / values["streaming_s"],
        streaming_s=values["streaming_s"],
        counters=values["counters"],
    )


def _pattern(generator: np.random.Generator, waits: bool, *, busy: float) -> NDArray[np.bool_]:
    """In which cycles a side of a stream moves: all, or a random share ``busy`` of a repeated stretch."""
    return generator.random(_PATTERN_CYCLES) < busy if waits else np.ones(1, np.bool_)
