"""LLMServingSim's measured expert routing: ``gate_stats.json`` of ``--expert-routing-policy CUSTOM --gate-stats FILE``.

One curve: how many distinct experts a gate call reaches, by the number of its tokens. The fields are those that
``bench/core/gate_stats.py`` of casys-kaist/LLMServingSim writes and ``load_gate_stats`` in
``serving/core/gate_function.py`` reads: ``schema_version`` (1), ``model``, ``num_experts``,
``num_experts_per_tok``, ``n_calls``, ``n_dropped_uniform_token``, ``n_unparsed``, and ``curve``, a list of
``[tokens, mean distinct experts, calls]`` by ascending tokens. A gate is called once per step and layer, so
the trace needs a batch schedule. Calls with unrecorded rows are left out and counted as ``n_unparsed``. The original
writer drops calls of more than top-k tokens that reach at most top-k experts, because its server's warm-up makes such
calls; in a trace every call is real, so none are dropped here.
"""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError
from catalog.files import write_text
from catalog.progress import Progress
from traces.batch import BatchSchedule, distinct_experts_by_step
from traces.exporters.exporter import Exporter, ExportOptions, Source, lost_but
from traces.trace import RoutingTrace

NAME = "llmservingsim_gate_stats"
SCHEMA_VERSION = 1


def check(source: Source, path: Path, options: ExportOptions) -> None:
    """Refuse a trace without a batch schedule.

    Raises:
        ForestageError: naming the command that makes a batch.
    """
    if source.schedule is None:
        raise ForestageError(
            f"{source.trace.origin}: says nothing of batches, and {NAME} is experts by tokens a step; make a batch "
            "first: `forestage trace batch --trace TRACE --batch SLOTS --out BATCH.safetensors`"
        )


def write(source: Source, path: Path, options: ExportOptions, progress: Progress) -> tuple[Path, ...]:
    """Write the curve over all steps and layers."""
    trace, schedule = source.trace, source.schedule
    assert schedule is not None
    tokens = np.diff(schedule.step_offsets)[:, None]
    distinct = distinct_experts_by_step(trace, schedule)
    kept = steps_recorded(trace, schedule)
    if not kept.any():
        raise ForestageError(f"{trace.origin}: no step is recorded whole in any layer; there is no curve to write")
    calls = np.broadcast_to(tokens, distinct.shape)[kept]
    reached = distinct[kept]
    sizes, place = np.unique(calls, return_inverse=True)
    times = np.bincount(place)
    means = np.bincount(place, weights=reached) / times
    document = {
        "schema_version": SCHEMA_VERSION,
        "model": trace.metadata.model,
        "num_experts": trace.experts,
        "num_experts_per_tok": trace.top_k,
        "n_calls": int(kept.sum()),
        "n_dropped_uniform_token": 0,
        "n_unparsed": int((~kept).sum()),
        "curve": [[int(n), float(mean), int(calls)] for n, mean, calls in zip(sizes, means, times, strict=True)],
    }
    write_text(path, json.dumps(document, indent=2) + "\n")
    progress(trace.tokens, trace.tokens)
    return (path,)


def steps_recorded(trace: RoutingTrace, schedule: BatchSchedule) -> npt.NDArray[np.bool_]:
    """Whether every row of a step in a layer was recorded: bool ``[steps, layers]``."""
    whole = np.ones((schedule.steps, trace.layers), np.bool_)
    if trace.metadata.has_unrecorded:
        step, first = schedule.step_of_token(), 0
        for chunk in trace.chunks():
            token, layer = np.nonzero(~chunk.recorded())
            whole[step[first + token], layer] = False
            first += chunk.tokens
    return whole


def lost(source: Source, path: Path, options: ExportOptions) -> tuple[str, ...]:
    """All facts but the curve and the model facts it is checked against."""
    return lost_but(source, "model", "experts", "top_k")


EXPORTER = Exporter(
    NAME, "LLMServingSim's gate_stats.json: distinct experts by batch size", (".json",), check, write, lost
)
