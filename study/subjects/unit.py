"""The PIM expert unit: an expert of the shipped checkpoint in hardware, twin and PyTorch, on text that used it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from catalog.progress import Progress
from gpu_reference.devices import one_thread
from gpu_reference.files import SHIPPED_CHECKPOINT, SHIPPED_TRACE
from pim_model.dram.devices import find_device
from pim_model.numerics.floats import from_float_bits
from pim_model.unit.parameters import UnitParameters
from pim_model.unit.program import WeightFormat
from study import needs
from study.blocks import Command, Fact, Section, Table, Text, rows
from study.numbers import count, percent, verdict
from study.stages import Stage, StudyContext
from study.subjects.base import Subject
from traces import RoutingTrace, split

TITLE = "The PIM expert unit in RTL"

DEVICE = "HBM2-PIM"
"""The one part with compute at its banks whose figures are published."""

LAYER = 3
TOKENS = 8
"""Tokens that the hardware runs in each format."""

MOST_ERROR = {WeightFormat.BF16: 2.0**-7}
"""Relative error against float64 from which on a format's result counts as wrong: of BF16 alone, as the error of INT8
and MXFP4 is that of the rounded weights.
"""


def run(context: StudyContext, progress: Progress) -> dict[str, Any]:
    """Run a layer's most used expert on real activations in the RTL, the twin and PyTorch, in every format."""
    trace = RoutingTrace.load(SHIPPED_TRACE)
    return check_unit(trace, layer=LAYER, tokens=TOKENS, seed=context.config.seed, progress=progress)


def check_unit(
    trace: RoutingTrace,
    *,
    layer: int,
    tokens: int,
    formats: Sequence[WeightFormat] = tuple(WeightFormat),
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run the most used expert of ``layer`` on the first ``tokens`` test tokens that chose it, with refresh.

    A program takes as many tokens as a block multiplies with a weight it has read; more tokens take more programs.

    Raises:
        ForestageError: the checkpoint is missing or lacks the layer, too few tokens chose the expert, or this machine
            cannot simulate the hardware.
    """
    # These need the extras; the command starts without them.
    from cocotb_tests.build import require_tools
    from gpu_reference.checks.unit_expert import most_used_expert

    require_tools()
    _, test = split(trace)
    with one_thread():
        case = most_used_expert(SHIPPED_CHECKPOINT, trace, test.tolist(), layer, tokens)
    parameters = UnitParameters(device=find_device(DEVICE))
    checks = []
    for number, weight_format in enumerate(formats):
        if progress is not None:
            progress(number, len(formats))
        checks.append(_check_format(case, weight_format, parameters, seed))
    return {
        "layer": layer,
        "expert": case.expert,
        "hidden": case.down.shape[0],
        "intermediate": case.down.shape[1],
        "tokens": tokens,
        "device": parameters.device.name,
        "refresh": True,
        "agrees": all(check["agrees"] for check in checks),
        "formats": checks,
    }


def _check_format(case: Any, weight_format: WeightFormat, parameters: UnitParameters, seed: int) -> dict[str, Any]:
    """``case``, a `gpu_reference.checks.unit_expert.UnitExpert`, in one format."""
    from cocotb_tests.pim_unit.jobs import UnitJob
    from cocotb_tests.pim_unit.replay import replay_unit

    weights, x = case.weights(weight_format), case.inputs()
    parts = [x[start : start + weight_format.most_tokens] for start in range(0, len(x), weight_format.most_tokens)]
    jobs: list[UnitJob] = []
    for part in parts:
        # Programs of as many tokens lay the weights out alike and share rows; the last one may have fewer.
        base_row = 0 if len(part) == len(parts[0]) else jobs[0].contents.shape[1]
        jobs.append(UnitJob.of_expert(parameters, weights, part, base_row=base_row))
    replayed = replay_unit(jobs, parameters, refresh=True, seed=seed)
    whole, *each = _errors(case, replayed.outputs)
    most = MOST_ERROR.get(weight_format)
    size = sum(job.program.weight_bytes for job in jobs)
    return {
        "format": weight_format.name.lower(),
        "programs": len(jobs),
        "tokens_per_read": weight_format.most_tokens,
        "weight_bytes": jobs[0].program.weight_bytes,
        # A queue of results that fills up delays commands, whose clocks are then not compared.
        "agrees": not replayed.mismatches
        and not replayed.counters["OUTPUT_WAIT_CLOCKS"]
        and not replayed.violations
        and replayed.cycles == replayed.predicted_cycles
        and whole is not None
        and (most is None or whole <= most),
        "mismatches": replayed.mismatches,
        "first_mismatch": replayed.first_mismatch,
        "violations": len(replayed.violations),
        "first_violation": str(replayed.violations[0]) if replayed.violations else "",
        "cycles": replayed.cycles,
        "predicted_cycles": replayed.predicted_cycles,
        "relative_error": whole,
        "worst_relative_error": None if whole is None else max(each),
        "most_relative_error": most,
        "fraction_of_limit": size / (replayed.cycles * parameters.blocks.bytes_per_ck) if replayed.cycles else 0.0,
        "cycles_per_s": replayed.clocks_per_s,
        "counters": replayed.counters,
    }


def _errors(case: Any, outputs: list[Any]) -> list[Any]:
    """Of the hardware's results: relative error of all tokens together, then of each; ``[None]`` if they have none."""
    if not outputs or any(output is None for output in outputs):
        return [None]
    errors = case.errors(from_float_bits(np.concatenate(outputs)))
    return [float(error) for error in errors] if np.isfinite(errors).all() else [None]


def lacks(context: StudyContext) -> str | None:
    """Why the hardware cannot be simulated (no compiler); ``None`` if it can. Trace and checkpoint are shipped."""
    from cocotb_tests.build import require_tools  # needs the extra

    return needs.refusal(require_tools)


def section(context: StudyContext) -> Section:
    """Show that hardware and twins agree, and what each format costs in accuracy."""
    result = context.results["unit"]
    checks = result["formats"]
    wrong = sum(check["mismatches"] + check["violations"] for check in checks)
    outputs = len(checks) * result["tokens"] * result["hidden"]
    return Section(
        id="unit",
        title=TITLE,
        blocks=(
            Text(
                f"A unit that runs a whole expert in a pseudo-channel of {result['device']}: gate, up, activation and "
                f"down, without the host. Expert {result['expert']} of layer {result['layer']} of the shipped "
                f"checkpoint (its most used one, {result['hidden']} × {result['intermediate']}) runs on the "
                f"activations of {result['tokens']} tokens that chose it, in three formats of the weights: in the RTL "
                "under Verilator, in the twins of its arithmetic and its sequencer, and in PyTorch in float64. Every "
                "result is compared bit for bit, every DRAM command clock by clock, and each command is checked "
                "against the device's timing rules. The banks are refreshed meanwhile."
            ),
            Table(
                columns=("compared", *(check["format"] for check in checks)),
                rows=rows(
                    [
                        ("tokens a weight read", *(count(check["tokens_per_read"]) for check in checks)),
                        ("programs", *(count(check["programs"]) for check in checks)),
                        ("RTL against twins", *(verdict(check["mismatches"]) for check in checks)),
                        ("timing rules broken", *(count(check["violations"]) for check in checks)),
                        ("clocks, RTL", *(count(check["cycles"]) for check in checks)),
                        ("clocks, twin", *(count(check["predicted_cycles"]) for check in checks)),
                        ("weights read, of the limit", *(percent(check["fraction_of_limit"]) for check in checks)),
                        ("error against float64", *(percent(check["relative_error"], 2) for check in checks)),
                        ("the same, worst token", *(percent(check["worst_relative_error"], 2) for check in checks)),
                        ("simulated clocks a second", *(count(round(check["cycles_per_s"])) for check in checks)),
                    ]
                ),
            ),
            Text(
                "The limit is a column of 32 bytes in every block each interval. So small an expert stays far below "
                "it: loading inputs, filling the pipeline and reading the results back take as long as reading its "
                "weights."
            ),
            Command(f"forestage pim check --layer {result['layer']} --tokens {result['tokens']}"),
        ),
        facts=(
            Fact(
                count(wrong),
                f"differences between the PIM expert unit's RTL and its twins: {count(outputs)} results, every command "
                "and its clock",
            ),
        ),
    )


SUBJECT = Subject(Stage("unit", "PIM expert unit: RTL, twins and PyTorch", run), section, title=TITLE, lacks=lacks)
