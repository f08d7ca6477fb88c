"""The prefetch engine: its Verilog, and a replay of the trace in lock-step with its twin."""

from typing import Any

import numpy as np

from catalog.errors import ForestageError
from catalog.progress import Progress
from cocotb_tests.build import require_tools
from cocotb_tests.replay import replay
from predictor.st_moe.parameters import EngineLimits
from rtl.generate import generate
from study import needs
from study.blocks import Command, Fact, Section, Table, Text, rows
from study.numbers import count, size, verdict
from study.stages import Stage, StudyContext
from study.subjects.base import Subject
from traces import RoutingTrace, split

TITLE = "The prefetch engine in RTL"

VERILOG = "verilog"


def run(context: StudyContext, progress: Progress) -> dict[str, Any]:
    """Generate an engine that holds the trace's model, and replay test tokens through it."""
    trace = context.trace
    limits = engine_for(trace)
    paths = generate(context.out / VERILOG, limits)
    _, test = split(trace)
    available = int(np.diff(trace.sequence_offsets)[test].sum())
    result = replay(
        trace,
        min(context.config.replay_tokens, available),
        limits=limits,
        lookahead=context.config.lookahead,
        seed=context.config.seed,
        progress=progress,
    )
    files = {str(path.relative_to(context.out)): path.stat().st_size for path in paths}
    return {"files": files, "replay": result.model_dump(mode="json")}


def engine_for(trace: RoutingTrace) -> EngineLimits:
    """The default engine, or, where it is too small for the trace's model, the smallest that is large enough.

    Raises:
        ForestageError: if no engine can be large enough.
    """
    limits = EngineLimits()
    try:
        limits.check_trace(trace)
    except ForestageError:
        return EngineLimits.holding(
            layers=trace.layers,
            experts=trace.experts,
            top_k=trace.top_k,
            candidates=trace.top_k,
            slots=limits.slots_max,
            domains=limits.domains_max,
        )
    return limits


def lacks(context: StudyContext) -> str | None:
    """Why the replay is not possible (test tokens, layers, the model's size, the compiler); ``None`` if it is."""
    return (
        needs.test_sequences(context.trace)
        or needs.layers_ahead(context)
        or needs.refusal(engine_for, context.trace)
        or needs.refusal(require_tools)
    )


def section(context: StudyContext) -> Section:
    """Show what was generated, what was compared, and what the engine counted."""
    result = context.results["engine"]
    replayed, files = result["replay"], result["files"]
    limits = replayed["limits"]
    options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in limits.items())
    return Section(
        id="engine",
        title=TITLE,
        blocks=(
            Text(
                f"ST-MoE's tables as hardware, generated for up to {limits['experts_max']} experts, "
                f"{limits['layers_max']} layers and top-{limits['top_k_max']}, set to this model at run time. The "
                "trace's test tokens stream through the RTL under Verilator and through the integer twin; every "
                "prefetch request, every table write, every event's cycles, the final tables and the counters are "
                "compared. The twin never sees what the hardware did."
            ),
            Table(
                columns=("compared", "figure"),
                rows=rows(
                    [
                        ("tokens replayed", count(replayed["tokens"])),
                        ("routing events", count(replayed["steps"])),
                        ("differences", count(replayed["mismatches"])),
                        ("RTL and twin", verdict(replayed["mismatches"])),
                        ("clock cycles", count(replayed["cycles"])),
                        ("clock cycles a token", f"{replayed['cycles_per_token']:.1f}"),
                        ("simulation speed, cycles a second", count(round(replayed["cycles_per_s"]))),
                        *((f"written: {name}", size(length)) for name, length in files.items()),
                    ]
                ),
            ),
            Table(
                columns=("counter of the hardware", "value"),
                rows=rows([(name, count(value)) for name, value in replayed["counters"].items()]),
            ),
            Command(
                f"forestage rtl replay --trace {context.trace_name} --tokens {replayed['tokens']} "
                f"--lookahead {context.config.lookahead} {options}\n"
                f"forestage rtl generate --out DIR {options}"
            ),
        ),
        facts=(
            Fact(
                f"{count(replayed['mismatches'])} of {count(replayed['steps'])}",
                "routing events in which RTL and twin differ",
            ),
        ),
    )


SUBJECT = Subject(
    Stage("engine", "Prefetch engine: Verilog and lock-step", run, outputs=(f"{VERILOG}/prefetch_engine.v",)),
    section,
    title=TITLE,
    lacks=lacks,
)
