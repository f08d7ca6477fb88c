"""The PIM tile: run an expert of the shipped checkpoint in hardware, twin and PyTorch, on text that used it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.errors import SettingError
from catalog.progress import Progress
from gpu_reference.devices import one_thread
from gpu_reference.files import SHIPPED_CHECKPOINT, SHIPPED_TRACE
from pim_model import tile
from pim_model.tile import TileParameters
from study import needs
from study.blocks import Command, Fact, Section, Table, Text, rows
from study.numbers import count, percent, verdict
from study.stages import Stage, StudyContext
from study.subjects.base import Subject
from traces import RoutingTrace, split

TITLE = "The PIM tile in RTL"

LAYER = 3
TOKENS = 8
"""Tokens that the hardware runs; each takes three matrix-vector products."""


def run(context: StudyContext, progress: Progress) -> dict[str, Any]:
    """Run a layer's most used expert on real activations in the RTL, and the same products in twin and PyTorch."""
    trace = RoutingTrace.load(SHIPPED_TRACE)
    return check_tile(trace, layer=LAYER, tokens=TOKENS, seed=context.config.seed, progress=progress)


def check_tile(
    trace: RoutingTrace, *, layer: int, tokens: int, seed: int, progress: Progress | None = None
) -> dict[str, Any]:
    """Run the most used expert of ``layer`` on the first ``tokens`` test tokens that chose it.

    First one simulation does all of the hardware's products; then the same expert runs in PyTorch's integers, with the
    hardware's results in place of its own, product by product.

    Raises:
        ForestageError: if the checkpoint is missing or lacks the layer, or this machine cannot simulate the hardware.
    """
    # These need the extras; the command starts without them.
    from cocotb_tests.build import require_tools
    from cocotb_tests.pim_replay import replay_tile
    from gpu_reference.checks.model_replay import layer_inputs
    from gpu_reference.checks.tile_check import tile_reference_check
    from gpu_reference.moe_layer import checkpoint_layers

    layers = checkpoint_layers(SHIPPED_CHECKPOINT)
    if not 0 <= layer < layers:
        raise SettingError("layer", f"is not in the shipped checkpoint; choose 0 to {layers - 1}", value=layer)
    require_tools()
    _, test = split(trace)
    sequence = trace.sequence(int(test[0]))
    with one_thread():
        inputs = layer_inputs(SHIPPED_CHECKPOINT, sequence, layer)
    chosen = inputs.ids.numpy()
    expert = int(np.bincount(chosen.ravel(), minlength=trace.experts).argmax())
    x = inputs.x[(chosen == expert).any(axis=1)][:tokens]
    asked: list[tuple[NDArray[np.int8], NDArray[np.int8]]] = []

    def ask(weights: NDArray[np.int8], vector: NDArray[np.int8]) -> NDArray[np.int32]:
        asked.append((weights, vector))
        return tile.gemv(weights, vector)

    tile_reference_check(SHIPPED_CHECKPOINT, layer, expert, x, ask)
    replayed = replay_tile(asked, seed=seed)
    if progress is not None:
        progress(len(asked), len(asked))
    answers = iter(replayed.outputs)
    # The second run asks for the same products, since each depends only on the hardware's integers.
    check = tile_reference_check(SHIPPED_CHECKPOINT, layer, expert, x, lambda weights, vector: next(answers))
    parameters = TileParameters()
    beats = sum(weights.shape[0] * -(-weights.shape[1] // parameters.lanes) for weights, _ in asked)
    return {
        "layer": layer,
        "expert": expert,
        "tokens": len(x),
        "products": check.products,
        "integers": check.elements,
        "mismatches_with_twin": replayed.mismatches,
        "mismatches_with_pytorch": check.mismatches,
        "relative_error": check.relative_error,
        "worst_relative_error": check.worst_relative_error,
        "cycles": replayed.cycles,
        "predicted_cycles": replayed.predicted_cycles,
        "beats": beats,
        "cycles_per_s": replayed.cycles_per_s,
        "lanes": parameters.lanes,
    }


def lacks(context: StudyContext) -> str | None:
    """Why the hardware cannot be simulated (no compiler); ``None`` if it can. Trace and checkpoint are shipped."""
    from cocotb_tests.build import require_tools  # needs the extra

    return needs.refusal(require_tools)


def section(context: StudyContext) -> Section:
    """Show that all three give the same integers, and the accuracy that int8 costs."""
    result = context.results["tile"]
    wrong = result["mismatches_with_twin"] + result["mismatches_with_pytorch"]
    return Section(
        id="tile",
        title=TITLE,
        blocks=(
            Text(
                f"A {result['lanes']}-lane INT8 dot-product tile, the compute beside a pair of banks. Expert "
                f"{result['expert']} of layer {result['layer']} of the shipped checkpoint (its most used one) runs on "
                f"the activations of {result['tokens']} tokens that chose it: gate, up and down, {result['products']} "
                "matrix-vector products, in the RTL under Verilator, in the integer twin and in PyTorch."
            ),
            Table(
                columns=("compared", "figure"),
                rows=rows(
                    [
                        ("integers compared", count(result["integers"])),
                        ("RTL against twin, values and cycles", verdict(result["mismatches_with_twin"])),
                        ("RTL against PyTorch's integers", verdict(result["mismatches_with_pytorch"])),
                        ("clock cycles, RTL", count(result["cycles"])),
                        ("clock cycles, twin's formula", count(result["predicted_cycles"])),
                        ("beats of weights a cycle", percent(result["beats"] / result["cycles"])),
                        ("int8 against float32, relative error", percent(result["relative_error"], 2)),
                        ("the same, worst token", percent(result["worst_relative_error"], 2)),
                        ("simulation speed, cycles a second", count(round(result["cycles_per_s"]))),
                    ]
                ),
            ),
            Command(f"forestage pim check --layer {result['layer']} --tokens {result['tokens']}"),
        ),
        facts=(
            Fact(count(wrong), f"of {count(result['integers'])} integers of the PIM tile differ from twin or PyTorch"),
        ),
    )


SUBJECT = Subject(Stage("tile", "PIM tile: RTL, twin and PyTorch", run), section, title=TITLE, lacks=lacks)
