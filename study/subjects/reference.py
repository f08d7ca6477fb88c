"""The PyTorch reference: replay recorded routing, the shipped trace's with the model that it came from."""

from dataclasses import asdict
from typing import Any

import numpy as np

from catalog.errors import ForestageError
from catalog.progress import Progress
from gpu_reference.devices import default_device, one_thread
from gpu_reference.files import SHIPPED_CHECKPOINT, SHIPPED_TRACE
from study import needs
from study.blocks import Command, Section, Table, Text, rows
from study.numbers import count, percent
from study.stages import Stage, StudyContext
from study.subjects.base import Subject
from traces import RoutingTrace

TITLE = "The PyTorch reference"

SEQUENCES = 8


def run(context: StudyContext, progress: Progress) -> dict[str, Any]:
    """Replay the studied trace's routing in PyTorch, then the shipped trace's against the shipped model."""
    return check_reference(context.trace, progress)


def check_reference(trace: RoutingTrace, progress: Progress) -> dict[str, Any]:
    """Replay every layer of ``trace``, and every layer of the shipped trace against the shipped model.

    Raises:
        ForestageError: if a layer of ``trace`` has no recorded token, or the checkpoint is missing.
    """
    check_recorded(trace)
    from gpu_reference.checks.model_replay import replay_check  # needs the extra, as does the next
    from gpu_reference.checks.routing_replay import replay_routing

    shipped = RoutingTrace.load(SHIPPED_TRACE)
    device = default_device()
    replays: list[dict[str, Any]] = []
    checks: list[dict[str, Any]] = []
    with one_thread():
        for layer in range(trace.layers):
            replays.append(asdict(replay_routing(trace, layer, SHIPPED_CHECKPOINT, device=device)))
            progress(len(replays), trace.layers + shipped.layers)
        for layer in shipped.metadata.layer_map:
            check = replay_check(SHIPPED_CHECKPOINT, shipped, layer, sequences=SEQUENCES, device=device)
            checks.append(asdict(check))
            progress(len(replays) + len(checks), trace.layers + shipped.layers)
    return {"replays": replays, "checks": checks}


def lacks(context: StudyContext) -> str | None:
    """Why a layer cannot be replayed (it has no recorded token); ``None`` if all can."""
    return needs.refusal(check_recorded, context.trace)


def check_recorded(trace: RoutingTrace) -> None:
    """Refuse a trace with a layer that cannot be replayed.

    Raises:
        ForestageError: naming the layer.
    """
    if not trace.metadata.has_unrecorded:
        return
    empty = np.flatnonzero(~trace.recorded().any(axis=0))
    if len(empty):
        raise ForestageError(
            f"{trace.origin}: layer {trace.metadata.layer_map[empty[0]]} has no recorded token to replay; give a trace "
            "without that layer"
        )


def section(context: StudyContext) -> Section:
    """Show how exactly the replay reproduces the model."""
    replays, checks = context.results["reference"]["replays"], context.results["reference"]["checks"]
    first = checks[0]
    weights = (
        "the shipped checkpoint's"
        if replays[0]["experts"] == "checkpoint"
        else "random weights, the shipped model's size"
    )
    gates = "recorded gates" if replays[0]["gates"] == "recorded" else "equal gates, as the trace has none"
    return Section(
        id="reference",
        title=TITLE,
        blocks=(
            Text(
                f"The trace's recorded routing through a plain PyTorch mixture-of-experts layer on {first['device']}: "
                f"ids given, not computed, with {gates}; experts: {weights}; random inputs. Its output is compared "
                f"with the same sum in float64 NumPy, expert by expert: over {len(replays)} layers of "
                f"{count(replays[0]['tokens'])} tokens each, the largest relative error is "
                f"{max(r['relative_error'] for r in replays):.1e}."
            ),
            Text(
                f"The shipped model reads the text of {first['sequences']} recorded sequences "
                f"({count(first['tokens'])} tokens) again, on {first['device']}. A plain PyTorch layer with the "
                "checkpoint's experts replays the recorded routing, ids and gates given, and its output is compared "
                "with the model's own block. The recording was made token by token with a key-value cache, so a near "
                "tie of two gates may have fallen the other way, and recorded gates are 16-bit."
            ),
            Table(
                columns=(
                    "MoE layer",
                    "same experts chosen again",
                    "relative error of the output",
                    "tokens/s of the layer",
                ),
                rows=rows(
                    [
                        (
                            str(check["layer"]),
                            percent(check["same_experts"], 2),
                            f"{check['relative_error']:.2e}",
                            count(round(check["tokens_per_s"])),
                        )
                        for check in checks
                    ]
                ),
                caption="Figures of the shipped model and trace, whatever trace this report is about.",
            ),
            Command(f"forestage reference check --trace {context.trace_name}"),
        ),
    )


SUBJECT = Subject(Stage("reference", "PyTorch: the routing replayed", run), section, title=TITLE, lacks=lacks)
