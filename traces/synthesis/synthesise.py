"""Make a synthetic trace of another shape or length from a recorded one."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from catalog.progress import Progress
from traces.metadata import FittedFigure, SynthesisFit, TraceMetadata
from traces.synthesis.calibrate import calibrate
from traces.synthesis.measure import Figures, Floats, Measurement
from traces.synthesis.model import PLAN, Generator
from traces.synthesis.parts import draw_parts
from traces.synthesis.plan import plan_sequences
from traces.synthesis.profile import Shape, profile_of, rescale
from traces.synthesis.weights import WeightRows
from traces.trace import RoutingTrace
from traces.writer import TraceWriter

SAMPLE_TOKENS = 65_536
"""Tokens drawn per round of calibration, if the trace to be made is longer than two such samples."""

ShowProgress = Callable[[str], AbstractContextManager[Progress]]
"""Opens a progress display with the given label."""


def synthesise(
    trace: RoutingTrace,
    path: Path | str,
    show: ShowProgress,
    *,
    shape: Shape | None = None,
    tokens: int | None = None,
    sequences: int | None = None,
    seed: int = 0,
    model: str | None = None,
    layer_map: tuple[int, ...] | None = None,
) -> SynthesisFit:
    """Write a synthetic trace fitted to ``trace`` to ``path``, in constant memory.

    Args:
        trace: a recorded trace.
        path: the file to write.
        show: makes the progress callback of each of the two steps.
        shape: layers, experts and top-k of the result; ``None``: the recorded ones.
        tokens, sequences: see ``plan.plan_sequences``.
        seed: seed of everything random; the same arguments write the same file.
        model: model name of the result; by default the recorded name, or, if the shape differs, a name that states it.
        layer_map: layer map of the result; by default the recorded one if it fits, else 0, 1, ….

    Returns:
        How well the written trace fits.

    Raises:
        ForestageError: if the shape or length cannot be made, or the file cannot be written.
    """
    recorded = profile_of(trace)
    profile = rescale(recorded, shape or recorded.shape)
    plan = plan_sequences(trace, np.random.default_rng([seed, PLAN]), tokens=tokens, sequences=sequences)
    weights = _weights(trace, profile.shape, seed)
    metadata = _metadata(trace, profile.shape, model, layer_map, with_weights=weights is not None)
    bare = metadata.model_copy(update={"gate_weight_kind": "none"})
    sample = plan
    if plan.tokens > 2 * SAMPLE_TOKENS:
        sample = plan_sequences(trace, np.random.default_rng([seed, PLAN, 1]), tokens=SAMPLE_TOKENS)
    with TraceWriter(path, metadata) as writer:  # opened first: an unwritable folder is an error before the work
        with show("calibrating") as progress:
            parameters = calibrate(profile, sample, bare, seed, progress)
        measurement = Measurement(profile.shape.layers, profile.shape.experts, profile.shape.top_k)
        generator = Generator(parameters, profile.shape, plan, seed)
        with show("drawing tokens") as progress:
            for part, continues in draw_parts(generator, plan, metadata, weights):
                measurement.add(part, continues=continues)
                writer.append(part, continues=continues)
                progress(writer.tokens, plan.tokens)
        fit = SynthesisFit(
            model=trace.metadata.model,
            source=trace.metadata.source,
            layers=trace.layers,
            experts=trace.experts,
            top_k=trace.top_k,
            tokens=trace.tokens,
            seed=seed,
            figures=fitted_figures(profile.figures, measurement.figures()),
        )
        writer.amend(synthesis=fit.model_dump())
    return fit


def fitted_figures(target: Figures, found: Figures) -> dict[str, FittedFigure]:
    """Name → figure, for every figure that both have."""
    figures = {}
    for name in (
        "temporal_overlap",
        "sequence_overlap",
        "domain_overlap",
        "load_entropy",
        "hottest_over_mean",
        "mutual_information",
    ):
        wanted: Floats = getattr(target, name)
        achieved: Floats = getattr(found, name)
        both = ~(np.isnan(wanted) | np.isnan(achieved))
        if both.any():
            difference = (achieved - wanted)[both]
            figures[name] = FittedFigure(
                target=float(wanted[both].mean()),
                achieved=float(achieved[both].mean()),
                worst_layer=float(difference[np.argmax(np.abs(difference))]),
            )
    return figures


def _weights(trace: RoutingTrace, shape: Shape, seed: int) -> WeightRows | None:
    """Rows from which to draw gate weights; ``None`` if the trace has none, or none for as many experts per token."""
    if trace.gate_weights is None or shape.top_k != trace.top_k:
        return None
    rows = WeightRows(trace, shape.layers, seed)
    return rows if rows.complete else None


def _metadata(
    trace: RoutingTrace, shape: Shape, model: str | None, layer_map: tuple[int, ...] | None, *, with_weights: bool
) -> TraceMetadata:
    """Metadata of the result, before it is measured."""
    recorded = trace.metadata
    same = shape == Shape(trace.layers, trace.experts, trace.top_k)
    if layer_map is None:
        layer_map = recorded.layer_map if shape.layers == trace.layers else tuple(range(shape.layers))
    return TraceMetadata(
        model=model or (recorded.model if same else f"synthetic-{shape.layers}x{shape.experts}-top{shape.top_k}"),
        experts=shape.experts,
        top_k=shape.top_k,
        layer_map=layer_map,
        ranked=True,
        gate_weight_kind=recorded.gate_weight_kind if with_weights else "none",
        source=f"forestage trace synthesise, fitted to {recorded.model} ({recorded.source})",
        licence=recorded.licence,
        synthetic=True,
    )
