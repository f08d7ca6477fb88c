"""One run of the whole engine under Verilator: its build, its stimulus, its logs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from amaranth.lib import data
from numpy.typing import NDArray

from cocotb_tests.build import AMARANTH_LINT_OFF, BuiltModel, build
from cocotb_tests.models import AXI4_CHECKER, AXI4_RAM
from cocotb_tests.models.files import Fault, fault_lines
from cocotb_tests.prefetch_engine.logs import Log
from cocotb_tests.prefetch_engine.stimulus import MOST_EVENTS, events_text
from cocotb_tests.simulation import run
from predictor.engine.counters import EngineCounter
from predictor.engine.environment import LayerTimes
from predictor.engine.events import EngineError, EventArrays
from predictor.engine.limits import PrefetchEngineLimits
from predictor.engine.settings import Mode, PrefetchEngineSettings
from predictor.st_moe.parameters import EngineConfiguration
from predictor.st_moe.rows import RowFormat
from rtl.bus.register_map import DATA_BITS
from rtl.prefetch.address_map import Command, address_bits, address_map, counter_offset
from rtl.prefetch.core import ERROR_BITS
from rtl.prefetch.engine import PrefetchEngine
from rtl.prefetch.limits import table_limits
from rtl.prefetch.payloads import event_layout, notice_layout, prediction_layout, stager_shape
from rtl.prefetch.setting_registers import TABLE_NAMES, table_signal
from rtl.prefetch.stager.layouts import action_layout, command_layout, done_layout
from rtl.prefetch.tables.address_map import Window
from rtl.prefetch.tables.layouts import address_bits as row_address_bits
from rtl.verilog import to_verilog

_FOLDER = Path(__file__).parent
_WAIT: tuple[int, int] = (-1, 0)
"""In the place of a write: until the engine is idle."""
LINT_OFF = (*AMARANTH_LINT_OFF, "UNSIGNED", "CASEOVERLAP", "SYMRSVDWORD", "BLKSEQ")
"""Comparisons with 0, which Amaranth writes where a bound is one; branches in order of priority, which it writes as cases;
a port named interrupt; models that assign at once."""
_VISIBLE = (
    "clk",
    "rst",
    "control__*",
    "interrupt",
    "go",
    "keep",
    "count",
    "*_cycles",
    "share",
    "seed",
    "accepted",
    "cycle",
    "breaches",
)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """How a memory model behaves; see ``axi4_ram.sv``.

    Attributes:
        latency: cycles from the handshake on AR to the first beat; of a write, from the last beat to its answer.
        interval: cycles from beat to beat.
    """

    latency: int = 1
    interval: int = 1


@dataclass(frozen=True, kw_only=True)
class EngineRun:
    """What happened.

    Attributes:
        logs: by name; see ``log_layouts``. Cycles are counted from the first in which an event may be offered.
        counters: the hardware's, by ``EngineCounter``.
        errors: the sticky ones.
        breaches: of the AXI4 protocol on any memory port; ``violations`` on the control port.
        cycles: until nothing was left to do; ``running_s``: seconds that they took.
        staging: address, mask and word of all that lies in the staging buffer.
    """

    logs: dict[str, Log]
    counters: dict[EngineCounter, int]
    errors: EngineError
    breaches: int
    violations: list[str]
    cycles: int
    running_s: float
    staging: tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.uint8]]


def log_layouts(limits: PrefetchEngineLimits) -> dict[str, data.Layout]:
    """What the bench logs, by name."""
    shape, tables = stager_shape(limits), table_limits(limits)
    row = {"row": RowFormat(tables).bits, "address": row_address_bits(tables)}
    return {
        "events": event_layout(limits),
        "notices": notice_layout(limits),
        "commands": command_layout(shape),
        "actions": action_layout(shape),
        "done": done_layout(shape),
        "predictions": prediction_layout(limits),
        "errors": data.StructLayout({"bits": ERROR_BITS}),
        "table_writes": data.StructLayout(row),
    }


@lru_cache(maxsize=4)
def engine_verilog(limits: PrefetchEngineLimits) -> str:
    """The whole engine as Verilog, top module ``prefetch_engine``; the same text on every machine."""
    return to_verilog(PrefetchEngine(limits), "prefetch_engine")


def build_bench(limits: PrefetchEngineLimits, *, waves: bool = False) -> BuiltModel:
    """The bench around an engine.

    Raises:
        ForestageError: hardware runs are not possible here.
    """
    layouts, tables = log_layouts(limits), table_limits(limits)
    parameters = {
        "CONTROL_BITS": address_bits(limits),
        "ADDRESS_BITS": limits.link.address_bits,
        "MOST_EVENTS": MOST_EVENTS,
        "EVENT_BITS": layouts["events"].size,
        "EVENT_FIRST_BIT": layouts["events"]["first"].offset,
        "NOTICE_BITS": layouts["notices"].size,
        "COMMAND_BITS": layouts["commands"].size,
        "ACTION_BITS": layouts["actions"].size,
        "DONE_BITS": layouts["done"].size,
        "PREDICTION_BITS": layouts["predictions"].size,
        "ERROR_BITS": ERROR_BITS,
        "ROW_ADDRESS_BITS": row_address_bits(tables),
        "ROW_BITS": RowFormat(tables).bits,
    }
    return build(
        engine_verilog(limits),
        "bench",
        trace_waves=waves,
        models=(AXI4_RAM, AXI4_CHECKER, _FOLDER / "runner.sv", _FOLDER / "bench.sv"),
        visible=_VISIBLE,
        lint_off=LINT_OFF,
        verilator_arguments=[f"-G{name}={value}" for name, value in parameters.items()],
    )


def run_engine(
    limits: PrefetchEngineLimits,
    settings: PrefetchEngineSettings,
    events: EventArrays,
    times: LayerTimes,
    *,
    tables: EngineConfiguration | None = None,
    table_image: NDArray[np.uint32] | None = None,
    bad: NDArray[np.bool_] | None = None,
    preloaded: Sequence[tuple[int, int, bool]] = (),
    far: Memory | None = None,
    staging: Memory | None = None,
    faults: dict[str, Sequence[Fault]] | None = None,
    waits: int = 0,
    seed: int = 0,
    timeout_s: float = 3600,
    progress: Callable[[int], None] | None = None,
    waves: Path | None = None,
) -> EngineRun:
    """Configure an engine, let it run ``events``, and read all that it did.

    Args:
        limits, settings: of the engine; they fit.
        events: in order; times as ``times``.
        times: how long layers take.
        tables: the table predictor's configuration, in mode ``TABLES``; ``table_image`` what its memory begins with.
        bad: bool ``[events]``, those that it must refuse.
        preloaded: (layer, expert, fixed), resident from the start.
        far, staging: the memories.
        faults: what they do wrong, by name.
        waits: chance, in 256ths, that a side of a channel waits in a cycle.
        seed: of these waits, and of all that the engine must ignore.
        timeout_s: of the simulation.
        progress: called with the number of events accepted.
        waves: where to write the waves.

    Raises:
        SimulationError: a check of the circuit failed, or it hung.
        ForestageError: hardware runs are not possible here.
    """
    far, staging = far or Memory(), staging or Memory()
    layouts, registers = log_layouts(limits), address_map(limits)
    plusargs = {
        "events": "events.txt",
        "seed": seed,
        "far_latency": far.latency,
        "far_interval": far.interval,
        "staging_answer": staging.latency,
        "staging_write_interval": staging.interval,
        **{f"{name}_waits": waits for name in ("far", "staging", "text")},
    }
    flags = ["+far_fill", *(f"+{name}_faulty" for name in faults or {})]
    counters = {counter.name: counter_offset(counter) for counter in EngineCounter}
    result = run(
        build_bench(limits, waves=waves is not None),
        "cocotb_tests.prefetch_engine.engine_test",
        stimulus={
            "inputs": {
                "count": len(events.kind),
                "token_cycles": times.token_cycles,
                "gate_cycles": times.before_gate_cycles,
                "layer_cycles": times.layer_cycles,
                "expert_cycles": times.expert_cycles,
                "share": 256 - waits,
                "seed": seed,
            },
            "writes": list(_writes(limits, settings, tables, table_image, preloaded)),
            "status": registers.offset("STATUS"),
            "busy": registers.mask("STATUS", "busy") | registers.mask("STATUS", "host_pending"),
            "counters": counters,
            "errors": registers.offset("ERRORS"),
            "logs": {name: layout.size for name, layout in layouts.items()},
        },
        files={
            "events.txt": events_text(limits, events, bad=bad, noise=np.random.default_rng(seed)),
            **{f"{name}.faults": fault_lines(of) for name, of in (faults or {}).items()},
        },
        plusargs=[*flags, *(f"+{name}={value}" for name, value in plusargs.items())],
        seed=seed,
        timeout_s=timeout_s,
        progress=progress,
        waves=waves,
    )
    values = result.values
    return EngineRun(
        logs={
            name: Log(values[f"{name}_cycle"], values[f"{name}_payload"], layout) for name, layout in layouts.items()
        },
        counters={counter: values["counters"][counter.name] for counter in EngineCounter},
        errors=EngineError(values["errors"]),
        breaches=values["breaches"],
        violations=values["violations"],
        cycles=values["cycles"],
        running_s=values["running_s"],
        staging=(values["staging_address"], values["staging_mask"].astype(np.bool_), values["staging_word"]),
    )


def _writes(
    limits: PrefetchEngineLimits,
    settings: PrefetchEngineSettings,
    tables: EngineConfiguration | None,
    image: NDArray[np.uint32] | None,
    preloaded: Sequence[tuple[int, int, bool]],
) -> Iterator[tuple[int, int]]:
    """What software writes before the first event; ``_WAIT`` where it waits for the engine."""
    registers = address_map(limits)

    def write(name: str, value: int) -> Iterator[tuple[int, int]]:
        yield registers.offset(name), value & (1 << DATA_BITS) - 1
        if f"{name}_HIGH" in {register.name for register in registers.registers}:
            yield registers.offset(f"{name}_HIGH"), value >> DATA_BITS

    stager, link = settings.stager, settings.link
    most_horizon = (1 << limits.deadline_bits) - 1
    values: dict[str, Any] = {
        **{name: getattr(settings, name) for name in ("layers", "experts", "top_k", "domains", "identity_rows")},
        **{name: getattr(settings, name) for name in ("next_layer", "next_use", "distance", "prefetched", "threshold")},
        "missing": settings.missing,
        "stager_by_layer": len(stager.shares) > 1,
        "stager_spare": limits.spare,
        **{f"stager_{name}": getattr(stager, name) for name in ("value_scale", "chance_scale", "price", "retries")},
        "stager_horizon": min(stager.horizon, most_horizon),
        "stager_by_recency": stager.by_recency,
        "stager_background": stager.background,
        **{f"link_{name}": getattr(link, name) for name in ("expert_bytes", "expert_base", "expert_stride")},
        **{f"link_{name}": getattr(link, name) for name in ("staging_base", "staging_stride", "outstanding", "share")},
        "link_chunk_log2": link.chunk_bytes.bit_length() - 1,
    }
    if tables is not None:
        own = tables.register_values()
        values |= {table_signal(name): own[name] for name in TABLE_NAMES if table_signal(name).startswith("table_")}
    for name, value in values.items():
        yield from write(name.upper(), int(value))
    for layer, share in enumerate(stager.shares):
        yield from write("SHARE_LAYER", layer)
        yield from write("SHARE", share)
    yield from write("COMMAND", Command.CLEAR)
    yield _WAIT
    if image is not None:
        window = Window.of(table_limits(limits))
        for address, row in enumerate(image.tolist()):
            for word, value in enumerate(row):
                yield window.offset(address, word), value
    host = registers.register("HOST_EXPERT")
    for layer, expert, fixed in preloaded:
        places = {"host_layer": layer, "host_expert": expert}
        yield host.offset, sum(value << host.field(name).lowest_bit for name, value in places.items())
        yield from write("COMMAND", Command.PRELOAD)
        yield _WAIT
        if fixed:
            yield from write("COMMAND", Command.FIX)
            yield _WAIT
    yield from write("COMMAND", Command.CLEAR_COUNTERS)
    if settings.mode is not Mode.OFF:
        yield from write("MODE", settings.mode)
