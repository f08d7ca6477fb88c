"""Runs of the whole engine under Verilator: its build, their stimulus, their logs."""

import hashlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.errors import ForestageError
from cocotb_tests import build_cache, memory_accesses
from cocotb_tests.build import AMARANTH_LINT_OFF, FST, BuildOptions, BuiltModel, build, require_fst
from cocotb_tests.models import AXI4_CHECKER, AXI4_RAM
from cocotb_tests.models.files import Fault, fault_lines, word_records
from cocotb_tests.prefetch_engine.learned_memory import LearnedMemory
from cocotb_tests.prefetch_engine.logs import Log, log_path, read_log
from cocotb_tests.prefetch_engine.stimulus import MOST_EVENTS, events_text
from cocotb_tests.simulation import run
from predictor.engine.counters import EngineCounter
from predictor.engine.environment import LayerTimes
from predictor.engine.events import EngineError, EventArrays
from predictor.engine.limits import PrefetchEngineLimits
from predictor.engine.settings import PrefetchEngineSettings
from predictor.st_moe.parameters import EngineConfiguration
from predictor.st_moe.rows import RowFormat
from rtl.bus.payload_bits import Layout, StructLayout
from rtl.generate import prefetch_engine_verilog
from rtl.prefetch.address_map import address_bits
from rtl.prefetch.core import ERROR_BITS
from rtl.prefetch.limits import table_limits, text_limits
from rtl.prefetch.net.scores.layouts import scored_layout
from rtl.prefetch.payloads import event_layout, notice_layout, prediction_layout, stager_shape
from rtl.prefetch.stager.layouts import action_layout, command_layout, done_layout
from rtl.prefetch.tables.layouts import address_bits as row_address_bits
from staging.transfer.limits import CHUNK_BITS
from staging.transfer.timing import MemoryTiming

_FOLDER = Path(__file__).parent
_TEXT = "engine.v"
_EVENTS = "events.txt"
_MEMORIES = ("far", "staging", "text")
SCRIPT = "cocotb_tests.prefetch_engine.engine_test"
MISUSE_SCRIPT = "cocotb_tests.prefetch_engine.misuse_test"
IMAGE_FAULT_SCRIPT = "cocotb_tests.prefetch_engine.image_fault_test"
INTERRUPT_SCRIPT = "cocotb_tests.prefetch_engine.interrupt_test"
LINT_OFF = (*AMARANTH_LINT_OFF, "UNSIGNED", "CASEOVERLAP", "SYMRSVDWORD", "BLKSEQ")
"""Comparisons with 0, which Amaranth writes where a bound is one; branches in order of priority, which it writes as
cases; a port named interrupt; models that assign at once."""
SAIF = "activity.saif"
"""What toggled, of a bench that counts it: from the first cycle in which an event may be offered, to the end."""
COUNTED_NET = "counted"
"""The bench's net that is high until the last event is taken, as long as which accesses are counted."""
_COUNT_ACTIVITY = (
    "--trace-saif",
    *("--trace-max-width", "65536"),  # by default wide nets are left out
    *("--trace-max-array", "1"),  # what lies in a memory is no net
    "+define+FORESTAGE_ACTIVITY",
    f"+define+{memory_accesses.COUNTED_MACRO}=bench.counted",
)
_BUS_INPUTS = (
    *("awaddr", "awprot", "awvalid", "wdata", "wstrb", "wvalid", "bready"),
    *("araddr", "arprot", "arvalid", "rready"),
)
_BUS_OUTPUTS = ("awready", "wready", "bresp", "bvalid", "arready", "rdata", "rresp", "rvalid")
_SET = ("rst", "go", "keep", "count", "*_cycles", "share", "seed", *(f"control__{name}" for name in _BUS_INPUTS))
_READ = ("clk", "interrupt", "accepted", "cycle", "breaches", *(f"control__{name}" for name in _BUS_OUTPUTS))


@dataclass(frozen=True, kw_only=True)
class EngineRun:
    """What happened.

    Attributes:
        logs: by name; see ``log_layouts``. Cycles are counted from the first in which an event may be offered.
        counters: the hardware's, by ``EngineCounter``.
        errors: the sticky ones; ``cleared``: those that the script looked at, and cleared.
        breaches: of the AXI4 protocol on any memory port; ``violations`` on the control port.
        cycles: until nothing was left to do; ``running_s``: seconds that they took.
        ended: when the simulation had, by ``time.perf_counter``.
        staging: address, mask and word of all that lies in the staging buffer.
        bursts: of far memory's ``reads``, the staging buffer's ``writes``, and of the memory of the text ``text_reads``
            and ``text_writes``, i64 ``[bursts, BURST_FIELDS]``, where asked for.
    """

    logs: dict[str, Log]
    counters: dict[EngineCounter, int]
    errors: EngineError
    cleared: EngineError
    breaches: int
    violations: list[str]
    cycles: int
    running_s: float
    ended: float
    staging: tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.uint8]]
    bursts: dict[str, NDArray[np.int64]]


def log_layouts(limits: PrefetchEngineLimits) -> dict[str, Layout]:
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
        "errors": StructLayout({"bits": ERROR_BITS}),
        "scores": scored_layout(limits.network),
        "stops": StructLayout({"chunk": CHUNK_BITS + 1}),
        "table_writes": StructLayout(row),
    }


@lru_cache(maxsize=4)
def engine_verilog(limits: PrefetchEngineLimits) -> str:
    """The whole engine as Verilog, top module ``prefetch_engine``; the same text on every machine.

    It takes a minute to make, so it is kept beside the built models, by the sources that it is made of.
    """
    key = hashlib.sha256(limits.model_dump_json().encode())
    key.update(metadata.version("amaranth").encode())
    for package in ("catalog", "traces", "staging", "predictor", "rtl"):
        for path in sorted(Path(str(import_module(package).__file__)).parent.rglob("*.py")):
            key.update(path.read_bytes())

    def make(folder: Path) -> None:
        folder.mkdir()
        (folder / _TEXT).write_text(prefetch_engine_verilog(limits), encoding="utf-8")
        (folder / build_cache.MANIFEST).write_text("{}")

    folder, _ = build_cache.obtain(f"engine-{key.hexdigest()[:24]}", make)
    return (folder / _TEXT).read_text(encoding="utf-8")


def build_bench(limits: PrefetchEngineLimits, *, waves: Path | None = None, activity: bool = False) -> BuiltModel:
    """The bench around an engine.

    Args:
        limits: of the engine.
        waves: the file that it can write its waves to, VCD or FST by the name's end.
        activity: whether it counts what toggles, and what its memories are asked; not with ``waves``.

    Raises:
        ForestageError: hardware runs, or waves of this kind, are not possible here.
    """
    if waves is not None and waves.suffix not in (".vcd", ".fst"):
        raise ForestageError(f"{waves}: waves are written as VCD or FST; give a name that ends in .vcd or .fst")
    is_fst = waves is not None and waves.suffix == ".fst"
    if is_fst:
        require_fst()
    layouts, tables = log_layouts(limits), table_limits(limits)
    parameters = {
        "CONTROL_BITS": address_bits(limits),
        "ADDRESS_BITS": limits.link.address_bits,
        "TEXT_ADDRESS_BITS": text_limits(limits).address_bits,
        "MOST_EVENTS": MOST_EVENTS,
        "EVENT_BITS": layouts["events"].size,
        "EVENT_FIRST_BIT": layouts["events"]["first"].offset,
        "NOTICE_BITS": layouts["notices"].size,
        "COMMAND_BITS": layouts["commands"].size,
        "ACTION_BITS": layouts["actions"].size,
        "DONE_BITS": layouts["done"].size,
        "PREDICTION_BITS": layouts["predictions"].size,
        "ERROR_BITS": ERROR_BITS,
        "STOP_BITS": CHUNK_BITS + 1,
        "SCORE_BITS": layouts["scores"].size,
        "ROW_ADDRESS_BITS": row_address_bits(tables),
        "ROW_BITS": RowFormat(tables).bits,
    }
    verilog = engine_verilog(limits)
    return build(
        memory_accesses.counting(verilog) if activity else verilog,
        "bench",
        BuildOptions(
            trace_waves=waves is not None or activity,
            models=(AXI4_RAM, AXI4_CHECKER, _FOLDER / "runner.sv", _FOLDER / "bench.sv"),
            visible=_SET,
            read_only=_READ,
            optimisation="-O0" if activity else "-O2",  # what counts is thrice the code, and runs few tokens
            lint_off=LINT_OFF,
            verilator_arguments=[
                *("--timing", "--timescale", "1ns/1ps"),  # of the clock that the bench makes
                *([FST] if is_fst else []),
                *(_COUNT_ACTIVITY if activity else []),
                *(f"-G{name}={value}" for name, value in parameters.items()),
            ],
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Run:
    """What the engine is set to and told in one run.

    Attributes:
        settings: of the engine; they fit.
        events: in order; times as ``times``.
        times: how long layers take.
        tables: the table predictor's configuration, in mode ``TABLES``; ``table_image`` what its memory begins with.
        learned: what lies in the memory of texts and images, in mode ``LEARNED``.
        bad: bool ``[events]``, those that it must refuse.
        preloaded: (layer, expert, fixed), resident from the start.
        faults: what memories do wrong, by name.
    """

    settings: PrefetchEngineSettings
    events: EventArrays
    times: LayerTimes
    tables: EngineConfiguration | None = None
    table_image: NDArray[np.uint32] | None = None
    learned: LearnedMemory | None = None
    bad: NDArray[np.bool_] | None = None
    preloaded: Sequence[tuple[int, int, bool]] = ()
    faults: Mapping[str, Sequence[Fault]] | None = None

    def stimulus(self, *, share: int, seed: int) -> dict[str, Any]:
        """What the script is told of it, in values of JSON; but for the table image."""
        times, learned = self.times, self.learned
        return {
            "inputs": {
                "count": len(self.events.kind),
                "token_cycles": times.token_cycles,
                "gate_cycles": times.before_gate_cycles,
                "layer_cycles": times.layer_cycles,
                "expert_cycles": times.expert_cycles,
                "share": share,
                "seed": seed,
            },
            "settings": self.settings.model_dump(),
            "tables": None if self.tables is None else self.tables.model_dump(),
            "text": None if learned is None else learned.text.model_dump(),
            "sections": None if learned is None else list(learned.sections),
            "preloaded": list(self.preloaded),
        }

    def files(self, limits: PrefetchEngineLimits, *, seed: int) -> dict[str, str | bytes]:
        """What the models read, by name."""
        faults = self.faults or {}
        return {
            _EVENTS: events_text(limits, self.events, bad=self.bad, noise=np.random.default_rng(seed)),
            "text.load": b"" if self.learned is None else word_records(self.learned.words),
            **{f"{name}.faults": fault_lines(faults.get(name, ())) for name in _MEMORIES},
        }


def run_in_turn(
    limits: PrefetchEngineLimits,
    runs: Sequence[Run],
    *,
    memory: MemoryTiming | None = None,
    waits: int = 0,
    seed: int = 0,
    timeout_s: float = 3600,
    progress: Callable[[int], None] | None = None,
    waves: Path | None = None,
    activity: Path | None = None,
    script: str = SCRIPT,
    bursts: bool = False,
    folder: Path | None = None,
) -> list[EngineRun]:
    """Configure an engine, let it run, read all that it did; then configure it anew, without a reset, for the next.

    Args:
        limits: of the engine.
        runs: at least one.
        memory: far memory and staging buffer.
        waits: chance, in 256ths, that a side of a channel waits in a cycle.
        seed: of these waits, and of all that the engine must ignore.
        timeout_s: of the simulation.
        progress: called with the number of events accepted, of all runs.
        waves: where to write the waves.
        activity: folder for what toggled (``SAIF``) and what was asked of memories (``memory_accesses.FILE``); not with
            ``waves``.
        script: module of cocotb that tells the engine all this.
        bursts: whether the memories' bursts are wanted.
        folder: the simulator's, an empty one, for who reads logs while they grow; by default one for this call alone.

    Raises:
        SimulationError: a check of the circuit failed, or it hung.
        ForestageError: hardware runs are not possible here.
    """
    memory = memory or MemoryTiming()
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="forestage-run-") as name:
            return run_in_turn(
                limits, runs, memory=memory, waits=waits, seed=seed, timeout_s=timeout_s, progress=progress,
                waves=waves, activity=activity, script=script, bursts=bursts, folder=Path(name),
            )  # fmt: skip
    layouts = log_layouts(limits)
    plusargs = {
        "events": _EVENTS,
        "seed": seed,
        "far_latency": memory.latency,
        "far_interval": memory.interval,
        "text_latency": memory.latency,
        "text_interval": memory.interval,
        "text_answer": memory.answer,
        "staging_answer": memory.answer,
        "staging_write_interval": memory.write_interval,
        **{f"{name}_waits": waits for name in _MEMORIES},
    }
    faulty = sorted({name for of in runs for name in of.faults or {}})
    # The first run's files are there at the start, the script puts each other's in their place.
    files = {
        f"{nth}.{name}" if nth else name: text
        for nth, of in enumerate(runs)
        for name, text in of.files(limits, seed=seed).items()
    }
    values = run(
        build_bench(limits, waves=waves, activity=activity is not None),
        script,
        stimulus={
            "runs": [of.stimulus(share=256 - waits, seed=seed) for of in runs],
            "limits": limits.model_dump(),
            "bursts": bursts,
            **{f"{nth}.table_image": of.table_image for nth, of in enumerate(runs) if of.table_image is not None},
        },
        files=files,
        plusargs=[
            "+far_fill",
            *(f"+{name}_faulty" for name in faulty),
            *(f"+{name}={value}" for name, value in plusargs.items()),
        ],
        seed=seed,
        timeout_s=timeout_s,
        progress=progress,
        waves=waves,
        kept=None if activity is None else {name: activity / name for name in (SAIF, memory_accesses.FILE)},
        folder=folder,
    ).values
    ended = time.perf_counter()
    return [
        _engine_run(
            {name: values[f"{nth}.{name}"] for name in _of_run(values, nth)},
            {name: read_log(log_path(folder, nth, name), layout) for name, layout in layouts.items()},
            bursts,
            ended,
        )
        for nth in range(len(runs))
    ]


def _of_run(values: Mapping[str, Any], nth: int) -> list[str]:
    """Names of what one run left behind."""
    return [name.removeprefix(f"{nth}.") for name in values if name.startswith(f"{nth}.")]


def _engine_run(values: Mapping[str, Any], logs: dict[str, Log], bursts: bool, ended: float) -> EngineRun:
    return EngineRun(
        logs=logs,
        counters={counter: values["counters"][counter.name] for counter in EngineCounter},
        errors=EngineError(values["errors"]),
        cleared=EngineError(values["cleared"]),
        breaches=values["breaches"],
        violations=values["violations"],
        cycles=values["cycles"],
        running_s=values["running_s"],
        ended=ended,
        staging=(values["staging_address"], values["staging_mask"].astype(np.bool_), values["staging_word"]),
        bursts={
            "reads": values["far_reads"],
            "writes": values["staging_writes"],
            "text_reads": values["text_reads"],
            "text_writes": values["text_writes"],
        }
        if bursts
        else {},
    )
