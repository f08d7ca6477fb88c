"""The PyTorch reference: the recorded routing, replayed through the model that it came from."""

from dataclasses import asdict
from typing import Any

from gpu_reference.devices import default_device, one_thread
from gpu_reference.files import SHIPPED_CHECKPOINT, SHIPPED_TRACE
from gpu_reference.replay import replay_check
from study.blocks import Command, Section, Table, Text, rows
from study.numbers import count, percent
from study.output import ProgressCallback
from study.stages import Stage, StudyContext
from study.subjects.base import Subject
from traces import RoutingTrace

SEQUENCES = 8


def run(context: StudyContext, progress: ProgressCallback) -> dict[str, Any]:
    """Every layer of the shipped model, with the shipped trace's routing given instead of computed."""
    trace = RoutingTrace.load(SHIPPED_TRACE)
    checks = []
    with one_thread():
        for layer in trace.metadata.layer_map:
            check = replay_check(SHIPPED_CHECKPOINT, trace, layer, sequences=SEQUENCES, device=default_device())
            checks.append(asdict(check))
            progress(len(checks), trace.layers)
    return {"checks": checks}


def section(context: StudyContext) -> Section:
    """How exactly the replay reproduces the model."""
    checks = context.results["reference"]["checks"]
    first = checks[0]
    return Section(
        id="reference",
        title="The PyTorch reference",
        blocks=(
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
            Command("python -m pytest tests/gpu_reference -k replay"),
        ),
    )


SUBJECT = Subject(Stage("reference", "PyTorch: the routing replayed", run), section)
