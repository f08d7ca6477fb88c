"""The prefetch engine: its Verilog, replays in lock-step with the twins, the learned engine's latency and cost."""

from pathlib import Path
from typing import Any

import numpy as np

from catalog.errors import ForestageError
from catalog.progress import Progress
from cocotb_tests.build import require_tools
from cocotb_tests.replay import replay
from predictor.engine.limits import PrefetchEngineLimits
from predictor.next_layer.predictor import NextLayerPredictor
from predictor.next_use.predictor import NextUsePredictor
from predictor.st_moe.parameters import EngineLimits
from rtl.generate import generate
from study import needs
from study.blocks import Block, Command, Fact, Note, Section, Table, Text, rows
from study.engine.latency import net_latency
from study.engine.silicon import PARTS, silicon
from study.numbers import count, counted, size, verdict
from study.stages import Stage, StudyContext
from study.subjects.base import Subject
from study.subjects.learned import PREDICTOR_FILE as NEXT_LAYER_FILE
from study.subjects.next_use import PREDICTOR_FILE as NEXT_USE_FILE
from traces import RoutingTrace, split

TITLE = "The prefetch engine in RTL"

VERILOG = "verilog"
RECORDS = Path(__file__).resolve().parents[2] / "records"
"""What was measured where it takes long, and committed: ``synthesis`` and ``replays``."""
THIS_STUDY = "this study"
TARGET = "asap7sc7p5t"
"""The cells of which the cost is shown."""
LIMITS = {"prefetch": {(128, 32): 64, (64, 32): 112, (128, 128): 208}, "summed": {(128, 32): 160}}
"""Most cycles of the net, by its lanes and the model's experts: until PREFETCH, and until every sum is written."""
LIMIT_HIDDEN = 128
"""Hidden units of the widest net that these limits are for."""


def run(context: StudyContext, progress: Progress) -> dict[str, Any]:
    """Generate an engine of tables that holds the trace's model, and replay test tokens through it."""
    trace = context.trace
    limits = engine_for(trace)
    paths = [*generate(context.out / VERILOG, "table-engine", limits), *generate(context.out / VERILOG, "pim-unit")]
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
    learned = _learned(context, available, progress)
    if learned is not None and learned["replay"] is not None:
        # The engine that ran.
        whole = PrefetchEngineLimits.model_validate(learned["replay"]["limits"])
        paths += generate(context.out / VERILOG, "prefetch-engine", whole)
    return {
        "files": {str(path.relative_to(context.out)): path.stat().st_size for path in sorted(paths)},
        "replay": result.model_dump(mode="json"),
        "learned": learned,
    }


def _learned(context: StudyContext, available: int, progress: Progress) -> dict[str, Any] | None:
    """The net's latency, and the whole engine's replay where the configuration asks for one."""
    next_layer = next_use = None
    if "learned" not in context.left_out:
        next_layer = NextLayerPredictor.load(context.out / NEXT_LAYER_FILE, context.config.lookahead)
    if "next_use" not in context.left_out:
        next_use = NextUsePredictor.load(context.out / NEXT_USE_FILE, 0)
    if next_layer is None:
        return None
    networks = {"next-layer": next_layer.network} | ({} if next_use is None else {"next-use": next_use.network})
    lanes = PrefetchEngineLimits().net.lanes
    latency, refused = None, ""
    try:
        latency = net_latency(networks, distance=context.config.lookahead, lanes=lanes)
    except ForestageError as error:
        refused = str(error)
    replayed = None
    if context.config.engine_tokens:
        # Amaranth and cocotb are needed here alone.
        from cocotb_tests.prefetch_engine.trace_replay import ReplayConfig, replay_trace
        from predictor.engine.settings import Mode

        replayed = replay_trace(
            context.trace,
            min(context.config.engine_tokens, available),
            ReplayConfig(mode=Mode.LEARNED, distance=context.config.lookahead, seed=context.config.seed),
            next_layer=next_layer,
            next_use=next_use,
            progress=progress,
        ).model_dump(mode="json")
    return {
        "lanes": lanes,
        "experts": context.trace.experts,
        "hidden": next_layer.network.config.hidden,
        "next_use": next_use is not None,
        "latency": latency,
        "refused": refused,
        "replay": replayed,
    }


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
    learned = _runs(result["learned"])
    options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in limits.items())
    return Section(
        id="engine",
        title=TITLE,
        blocks=(
            *_whole(context, learned),
            Text(
                "The engine's tables, by themselves: ST-MoE's predictor as hardware, generated for up to "
                f"{limits['experts_max']} experts, {limits['layers_max']} layers and top-{limits['top_k_max']}, set to "
                "this model at run time. The trace's test tokens stream through the RTL under Verilator and through "
                "the integer twin; every prefetch request, every table write, every event's cycles, the final tables "
                "and the counters are compared. The twin never sees what the hardware did."
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
                f"forestage rtl replay --unit table-engine --trace {context.trace_name} "
                f"--tokens {replayed['tokens']} --lookahead {context.config.lookahead} {options}\n"
                f"forestage rtl generate --unit table-engine --out DIR {options}"
            ),
        ),
        facts=(
            *_facts(learned, replayed["model"]),
            Fact(
                f"{count(replayed['mismatches'])} of {count(replayed['steps'])}",
                "routing events in which the tables' RTL and twin differ",
            ),
        ),
    )


def _runs(learned: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Replays of the whole engine by name: this study's, where there is one, and the committed records."""
    from study.engine.replays import read_replays  # Amaranth takes a second

    live = None if learned is None else learned["replay"]
    records = {name: run.model_dump(mode="json") for name, run in read_replays(RECORDS / "replays").items()}
    return records if live is None else {THIS_STUDY: live, **records}


def _facts(runs: dict[str, dict[str, Any]], model: str) -> tuple[Fact, ...]:
    """How far the whole engine and its twin agree, over all runs of the model in mode learned."""
    of = [run for run in runs.values() if run["mode"] == "learned" and run["model"] == model]
    if not of:
        return ()
    differences, values = sum(run["mismatches"] for run in of), sum(sum(run["compared"].values()) for run in of)
    tokens = counted(sum(run["tokens"] for run in of), "token")
    return (
        Fact(
            f"{count(differences)} of {count(values)}",
            f"values in which the learned engine and its twin differ, {tokens}",
        ),
    )


def _whole(context: StudyContext, runs: dict[str, dict[str, Any]]) -> list[Block]:
    """The whole engine: what it is, its replays, its latency and its cost."""
    learned = context.results["engine"]["learned"]
    blocks: list[Block] = [
        Text(
            "The engine is told each gate's choice, predicts the gates to come by the trained nets (or by tables), "
            "decides which experts are worth a place, and moves their bytes. Everything is specified in integers by a "
            "twin, decision by decision and cycle by cycle; the RTL runs beside it under Verilator."
        ),
        *_replays(context, runs),
    ]
    if learned is not None:
        blocks += _latency(learned)
    return blocks + _cost()


def _replays(context: StudyContext, runs: dict[str, dict[str, Any]]) -> list[Block]:
    """What ran through the whole engine."""
    tokens = context.config.engine_tokens or max((run["tokens"] for run in runs.values()), default=100)
    command = Command(
        f"forestage rtl replay --trace {context.trace_name} --predictor {NEXT_LAYER_FILE} "
        + ("" if "next_use" in context.left_out else f"--next-use {NEXT_USE_FILE} ")
        + f"--lookahead {context.config.lookahead} "
        f"--tokens {tokens} --json\n"
        f"forestage rtl generate --out DIR --layers-max {context.trace.layers} "
        f"--experts-max {1 << (context.trace.experts - 1).bit_length()} --top-k-max {context.trace.top_k}"
    )
    if not runs:
        return [
            Note(
                "The whole engine was not replayed in this study, as building its simulation takes minutes "
                "(engine_tokens in the configuration asks for it), and no record of a replay is committed."
            ),
            command,
        ]
    table = Table(
        columns=(
            "run",
            "model",
            "mode",
            "tokens",
            "commands",
            "start cycles",
            "values compared",
            "differences",
            "cycles a token",
        ),
        rows=rows(
            [
                (
                    name,
                    run["model"],
                    run["mode"] + (", random waits" if run["waits"] else ""),
                    count(run["tokens"]),
                    count(run["commands"]),
                    run["start_cycles"],
                    count(sum(run["compared"].values())),
                    count(run["mismatches"]),
                    count(round(run["cycles_per_token"])),
                )
                for name, run in runs.items()
            ]
        ),
        caption="Compared are every command of the stager and its length in cycles, every action, transfer, "
        "prediction, score, notice and counter, and the bytes in the staging buffer; and the cycle in which each "
        "command starts, but where channels wait at random or a net reads text or identity rows: there it is the "
        "hardware's, and so is their order. "
        + ("" if list(runs) == [THIS_STUDY] else "Runs but this study's are committed records."),
        text_columns=(0, 1, 2, 5),
    )
    return [table, command]


def _latency(learned: dict[str, Any]) -> list[Block]:
    """Cycles from a gate to what the net says of it; or why the hardware cannot hold it."""
    if learned["latency"] is None:
        return [Note(f"The hardware's net does not hold what was trained here: {learned['refused']}.")]
    latency, key = learned["latency"], (learned["lanes"], learned["experts"])
    limits = LIMITS if learned["hidden"] <= LIMIT_HIDDEN else {}
    names = {
        "prefetch": "prediction of the coming layer on offer",
        "summed": "every sum written",
        "values": "values of this layer on offer",
        "next": "next event taken",
    }
    return [
        Table(
            columns=("cycles from a gate on, at most", "this model", "limit"),
            rows=rows(
                [
                    (words, count(latency[name]), str(limits.get(name, {}).get(key, "")))
                    for name, words in names.items()
                    if latency[name]
                ]
            ),
            caption="By the twin's formula for the nets trained here, on "
            f"{learned['lanes']} lanes, from the net's taking the gate. The net's own replay (tests/cocotb_tests/net) "
            "compares the formula with the hardware at every event.",
        )
    ]


def _cost() -> list[Block]:
    """Area, path and memory of each part that has a record."""
    parts = silicon(RECORDS / "synthesis", TARGET)
    missing = [words for unit, words in PARTS.items() if unit not in {part.unit for part in parts}]
    if not parts:
        return [Note("What the parts take in silicon has no committed record (forestage rtl synthesise --save).")]
    table = Table(
        columns=("part, default limits", "cells, µm²", "longest path, ns", "SRAM bits beside"),
        rows=rows(
            [
                (
                    part.part,
                    count(round(part.area_um2)),
                    "" if part.longest_path_ns is None else f"{part.longest_path_ns:.3f}",
                    count(part.sram_bits),
                )
                for part in parts
            ]
        ),
        caption="Committed records in ASAP7, a predictive 7 nm library that no foundry makes: cells without wires, and "
        "without the memories." + (f" Without a record: {'; '.join(missing)}." if missing else ""),
    )
    return [table, Command("forestage rtl synthesise --unit UNIT --liberty asap7sc7p5t_*.lib.gz")]


SUBJECT = Subject(
    Stage("engine", "Prefetch engine: Verilog and lock-step", run, outputs=(f"{VERILOG}/table_engine.v",)),
    section,
    title=TITLE,
    lacks=lacks,
)
