"""Warn of signs that a recording is not what it seems, for every format."""

from collections.abc import Sequence

import numpy as np

from catalog import load_catalog
from traces.importers.assembly.constant_runs import ConstantRuns, constant_runs
from traces.importers.assembly.row_signs import RowSigns, row_signs
from traces.importers.report import Report
from traces.trace import RoutingTrace
from traces.validation import counted_from_one

CONSTANT_ROWS = 8
"""So many equal consecutive rows do not come from a text; a layer or run shorter than this is not judged.

Over all of their layers the longest runs of identical rows in five recordings (gpt-oss-20b's 172,891 decode tokens with
their looping generations, DeepSeek-V2-Lite, Gemma-4's and Qwen3-30B's chats, the shipped model) are 1, 1, 1, 1 and 4
tokens, the 4 being one repeated token of text. With fewer layers or experts they are longer: see ``judged_rows``.
"""

FEWEST_IDS, FEW_LAYERS_IDS = 20, 64
"""Ids per expert after which it is odd that none is 0; for four layers or more, and for fewer."""

NAMED_SPANS = 3
"""Most runs and sequences that a warning names."""

BEYOND_CHANCE = 1000
"""A sign is reported if its count is so many times what chance gives."""


def judged_rows(layers: int, top_k: int) -> int:
    """The length, in tokens, from which on a run of identical rows is reported.

    Longest runs in the recordings named above, reduced to their k best experts and to consecutive layers: one layer
    209; two layers 129 for k below 4 and 43 for 4; three layers 85 and 26; four layers 35 and 12; six layers of one
    expert 14; five layers or more of four experts at most 8; eight layers of one expert 7.
    """
    if layers >= 8 or (layers >= 4 and layers * top_k >= 24):
        return CONSTANT_ROWS
    few, several = {1: (256, 256), 2: (160, 64), 3: (96, 40)}.get(layers, (48, 48))
    return several if top_k >= 4 else few


def warn_of_trace(trace: RoutingTrace, report: Report, *, ids_are_computed: bool = False) -> None:
    """Warn of what is not a text's routing: layers and runs of identical rows, equal weights, padding, repetition.

    Reads the trace four times, in chunks (once it has seen expert 0, the last stops).

    Args:
        trace: the recording.
        report: takes the warnings.
        ids_are_computed: the ids are places in rows of logits, and so count from 0.
    """
    layers = _constant_layers(trace)
    if layers:
        named = _named([trace.metadata.layer_map[layer] for layer in layers])
        report.warn(
            f"{trace.origin}: constant rows: every token of layer {named} has the same experts; was it a dummy run?"
        )
    if len(layers) < trace.layers:
        runs = constant_runs(trace, judged_rows(trace.layers, trace.top_k))
        if len(runs.spans):
            report.warn(_runs_line(trace, runs))
    _warn_of_signs(trace, row_signs(trace), report)
    _warn_of_first_expert(trace, report, ids_are_computed=ids_are_computed)


def _warn_of_first_expert(trace: RoutingTrace, report: Report, *, ids_are_computed: bool) -> None:
    """Warn where expert 0 was never chosen, though it had many chances: ids may count from 1."""
    ids = 0
    for part in trace.chunks():
        recorded = part.expert_ids[part.recorded()]
        if (recorded == 0).any():
            return
        ids += recorded.size
    # One expert of one layer may be dead; but that the first is dead in each of several layers is not chance.
    if ids >= (FEW_LAYERS_IDS if trace.layers < 4 else FEWEST_IDS) * trace.experts:
        question = "" if ids_are_computed else counted_from_one(trace.experts, trace.experts)
        report.warn(f"{trace.origin}: no row has expert 0, in any layer{question}")


def _runs_line(trace: RoutingTrace, runs: ConstantRuns) -> str:
    """The runs, as one line."""
    spans = [f"{first}–{stop - 1}" for first, stop in runs.spans[:NAMED_SPANS].tolist()]
    more = len(runs.spans) - NAMED_SPANS
    named = ", ".join(spans) + (f" and {more} more runs" if more > 0 else "")
    return (
        f"{trace.origin}: constant rows: within rows {named} the experts are the same in every layer ({runs.tokens} of "
        f"{trace.tokens} tokens); were they warm-up or dummy runs? `trace import --drop-constant {runs.least}` leaves "
        "such runs out"
    )


def _warn_of_signs(trace: RoutingTrace, signs: RowSigns, report: Report) -> None:
    """Warn of each sign that is not chance."""
    for sign, what, meaning in (
        (signs.equal_weights, "equal weights", "a token's gate weights are all equal in every layer"),
        (signs.in_order, "experts in order", f"a token's experts are 0 to {trace.top_k - 1} in order in every layer"),
    ):
        if sign.tokens >= CONSTANT_ROWS and sign.tokens > BEYOND_CHANCE * sign.expected:
            report.warn(
                f"{trace.origin}: {what}: {meaning}, {sign.tokens} times (rows {sign.first} to {sign.last}), as where "
                "a router is given nothing to tell apart; was it a dummy run, or padding?"
            )
    if len(signs.repeated):
        sequence, earlier = signs.repeated[0].tolist()
        report.warn(
            f"{trace.origin}: repeated sequences: {len(signs.repeated)} of {trace.sequences} have the routing of an "
            f"earlier one, token for token (first: sequence {sequence} that of {earlier}); each counts, and a split "
            "may put one in training and one in test"
        )


def warn_of_layers(trace: RoutingTrace, report: Report) -> None:
    """Warn of MoE layers that the catalogue's model has and the recording lacks: a file, rank or end is missing."""
    record = load_catalog().match_shape(trace.metadata.model)
    absent = sorted(set(record.layer_map) - set(trace.metadata.layer_map)) if record is not None else []
    if record is not None and absent:
        report.warn(
            f"{trace.origin}: {len(absent)} of the {record.moe_layers} MoE layers of {record.name} are not in it "
            f"({_named(absent)}); was it cut off, or is a file missing?"
        )


def _named(layers: Sequence[int]) -> str:
    """Some layers by number."""
    return ", ".join(map(str, layers[:4])) + (f" and {len(layers) - 4} more" if len(layers) > 4 else "")


def _constant_layers(trace: RoutingTrace) -> list[int]:
    """Layers with at least ``CONSTANT_ROWS`` recorded rows that are all equal."""
    first = np.full((trace.layers, trace.top_k), trace.unrecorded_id, dtype=trace.expert_ids.dtype)
    rows = np.zeros(trace.layers, dtype=np.int64)
    same = np.ones(trace.layers, dtype=np.bool_)
    for part in trace.chunks():
        recorded = part.recorded()
        for layer in np.flatnonzero(same):
            ids = part.expert_ids[recorded[:, layer], layer]
            if not len(ids):
                continue
            if not rows[layer]:
                first[layer] = ids[0]
            rows[layer] += len(ids)
            same[layer] = bool((ids == first[layer]).all())
        if not same.any():
            break
    return [int(layer) for layer in np.flatnonzero(same & (rows >= CONSTANT_ROWS))]
