"""Hugging Face transformers' router logits, as ``output_router_logits=True`` returns them.

The library writes no file itself. These layouts are read, ``.pt`` (``torch.save``) or ``.safetensors``:

* one forward pass: the tuple ``output.router_logits``, one tensor ``[batch · sequence, experts]`` per MoE layer, alone
  or as ``router_logits`` in a dictionary with, optionally, ``input_ids`` and ``attention_mask [batch, sequence]``. In
  safetensors the tensors are ``router_logits.<n>`` (n: index in the tuple), and the same two. Entries for dense layers
  (``None`` or ``[batch · sequence, 1]``, as some versions return) are left out; the index of each other entry is the
  model's layer index.
* a generation, pass after pass: ``passes``, a list of such dictionaries; or ``router_logits`` as a tuple of tuples,
  with ``sequences`` (what ``generate`` returns). In safetensors a pass's number precedes its names:
  ``3.router_logits.0``. The ``input_ids`` of a pass are the tokens it *processed*. The first pass, and later passes of
  several tokens, are the prompt; passes of one token are decode steps. In a batch, a sequence has ended where
  ``pad_token_id`` was processed.

``assembly.logit_axes`` describes how tensors with a batch axis, and one tensor of all layers, are read.

Without ``input_ids`` or a mask, all rows are one sequence. Tokens that the mask leaves out are dropped.

The model's rule (``assembly.selection_table``), or ``--select`` and its companions, determine the choice; without
either, the file is refused. If every row sums to 1, the numbers are taken as softmaxed. If all numbers are between 0
and 1 but rows do not sum to 1, the file is refused: sigmoid scores are not logits.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from catalog import load_catalog
from catalog.errors import ForestageError
from traces.importers.assembly import torch_file
from traces.importers.assembly.array_file import is_safetensors
from traces.importers.assembly.builder import TraceBuilder
from traces.importers.assembly.logit_passes import NAME, LogitFile, read_passes
from traces.importers.assembly.models import RecordedModel, recorded_model
from traces.importers.assembly.selection import (
    SELECTION_OPTIONS,
    ChosenRule,
    check_named,
    check_shape,
    read_bias,
    selection_rule,
)
from traces.importers.assembly.selection_rule import Floats, SelectionRule, kept_as, select_experts
from traces.importers.assembly.values import token_identity
from traces.importers.importer import Importer
from traces.importers.options import ImportOptions
from traces.importers.report import Report
from traces.schema import DECODE, PREFILL
from traces.trace import RoutingTrace

SUM_TOLERANCE = 0.01
"""Softmaxed rows in bfloat16 differ from a sum of 1 by less."""

CHUNK_ROWS = 1 << 12

Kind = Literal["logits", "softmax", "unit"]
"""Kind of numbers: logits; probabilities of a row; or all between 0 and 1, which logits never are."""


@dataclass(frozen=True, eq=False)
class _Choices:
    """Ids and weights ``[rows, layers, top_k]`` of all rows of all passes."""

    ids: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32] | None


def sniff(path: Path, start: bytes) -> bool:
    """A PyTorch or safetensors file that names router logits, or a PyTorch file of several tensors without names."""
    if torch_file.is_torch_file(start):
        return NAME in torch_file.names_in(path) or torch_file.is_bare_list(path)
    names = (f"{NAME}.0", f"0.{NAME}.0", NAME, f"0.{NAME}")
    return is_safetensors(start) and any(f'"{name}"'.encode() in start for name in names)


def read(path: Path, options: ImportOptions, report: Report) -> RoutingTrace:
    """The choices that follow from the logits.

    Raises:
        ForestageError: if the file is damaged or in another layout, a logit is not finite, or the model's top-k or its
            rule is not known.
    """
    check_named(options, str(path))
    recorded = read_passes(path, options)
    if options.phase is not None and len(recorded.passes) > 1:
        raise ForestageError(f"{path}: --phase: the file has {len(recorded.passes)} passes, which tell; leave it out")
    model = recorded_model(
        options,
        report,
        origin=str(path),
        layers=recorded.layers,
        top_k=options.top_k,
        used_layers=recorded.used,
        experts=recorded.experts,
    )
    lacking = sorted(set(model.kept_layers) - set(recorded.used))
    if lacking:
        raise ForestageError(
            f"{path}: {NAME} of layer {lacking[0]}: none, but {model.name} has experts there; name the right model"
        )
    top_k = options.top_k or _catalogue_top_k(path, model.name)
    if top_k > recorded.experts:
        raise ForestageError(f"{path}: --top-k {top_k}: the file has {recorded.experts} experts")
    chosen = selection_rule(options, model.name, str(path), report)
    check_shape(chosen, model.name, recorded.experts, top_k, str(path))
    bias = _bias(options, chosen, model, recorded, report)
    choices = _choose(path, recorded, model, top_k, chosen, bias, report)
    if not recorded.batch_is_stated:
        report.warn(
            f"{path}: neither input_ids nor attention_mask: all {recorded.rows} rows are taken as one sequence; wrong "
            "of a batch"
        )
    elif recorded.batch > 1 and not recorded.padding_is_stated:
        report.warn(
            f"{path}: {recorded.batch} sequences without attention_mask: padding, if there is any, is taken as tokens"
        )
    return _trace(path, recorded, model, top_k, chosen.rule, choices, options, report)


def _trace(
    path: Path,
    recorded: LogitFile,
    model: RecordedModel,
    top_k: int,
    rule: SelectionRule,
    choices: _Choices,
    options: ImportOptions,
    report: Report,
) -> RoutingTrace:
    """Each sequence's tokens in the order in which they were processed."""
    layers = len(model.kept_layers)
    builder = TraceBuilder(
        path, layers=layers, top_k=top_k, weights=choices.weights is not None, hashes=recorded.has_tokens
    )
    single = DECODE if options.phase == "decode" else PREFILL
    for sequence in range(recorded.batch):
        start = 0
        for number, part in enumerate(recorded.passes):
            rows = start + sequence * part.width + np.flatnonzero(part.kept[sequence])
            start += recorded.batch * part.width
            token_hash = None
            if recorded.has_tokens and part.tokens is not None:
                token_hash = token_identity(part.tokens[sequence][part.kept[sequence]], str(path))
            builder.append(
                choices.ids[rows],
                phase=single if number < recorded.prompt_passes else DECODE,
                weights=None if choices.weights is None else choices.weights[rows],
                token_hash=token_hash,
                where=f"sequence {sequence}",
            )
        builder.end_sequence(options.domain or "unlabelled", options.dataset or "transformers")
    return builder.finish(
        replace(model, kept_layers=tuple(range(layers))),
        report,
        source=f"transformers router logits, from {path.name}",
        ranked=True,
        gate_weight_kind=rule.gate_weight_kind,
    )


def _bias(
    options: ImportOptions, chosen: ChosenRule, model: RecordedModel, recorded: LogitFile, report: Report
) -> Floats | None:
    """The bias of each kept layer, if the rule has one."""
    own_indices = (
        options.layers is not None
        or len(recorded.used) < recorded.layers
        or load_catalog().match_shape(model.name) is not None
    )
    return read_bias(options, chosen, model, own_indices, report)


def _choose(
    path: Path,
    recorded: LogitFile,
    model: RecordedModel,
    top_k: int,
    chosen: ChosenRule,
    bias: Floats | None,
    report: Report,
) -> _Choices:
    """The experts of every row and kept layer; a warning counts rows whose choice is ambiguous."""
    layers = len(model.kept_layers)
    ids = np.zeros((recorded.rows, layers, top_k), np.int32)
    weights = np.zeros(ids.shape, np.float32) if chosen.rule.weight is not None else None
    ties = below_zero = 0
    kinds: set[Kind] = set()
    rows = recorded.kept_rows()  # padding may have any value: attention over nothing gives NaN
    if not len(rows):
        raise ForestageError(f"{path}: attention_mask: leaves out every token")
    for column, layer in enumerate(report.counted(model.kept_layers)):
        logits = _rows(path, recorded, layer, rows)
        kind = _kind(logits)
        kinds.add(kind)
        if len(kinds) > 1 and "unit" not in kinds:
            raise ForestageError(f"{path}: {NAME}: some layers are logits, others sum to 1 as probabilities do")
        rule = _rule_for(kind, chosen.rule, f"{path}: {NAME} of layer {layer}")
        stored = "float32" if not (rule.coarse or rule.coarse_bias) else kept_as(logits)
        sparse = kind == "softmax"
        for start in range(0, len(rows), CHUNK_ROWS):
            into = rows[start : start + CHUNK_ROWS]
            part = _finite(path, recorded, logits[start : start + CHUNK_ROWS], layer, into)
            selection = select_experts(
                rule,
                part,
                top_k,
                None if bias is None else bias[column],
                values_are="softmax" if kind == "softmax" else "logits",
                kept_as=stored,
            )
            ids[into, column] = selection.ids
            if weights is not None:
                weights[into, column] = selection.weights
            ties += int(selection.open.sum())
            below_zero += int(selection.below_zero.sum())
            sparse = sparse and bool(((part > 0).sum(axis=1) <= top_k).all())
        if sparse and top_k < recorded.experts and rule.weight is not None and not rule.normalised:
            raise ForestageError(
                f"{path}: {NAME} of layer {layer}: only the chosen experts are above 0: their weights were divided by "
                "their sum, and what the model makes of them is lost; save the logits themselves"
            )
    if ties:
        report.warn(
            f"{path}: in {ties} rows (token, layer) the last chosen expert has the logit of one that was not, or a "
            "score that rounding may exchange: the model may have chosen the other"
        )
    if below_zero:
        report.warn(
            f"{path}: in {below_zero} rows (token, layer) a chosen expert's score is below 0: modelling code that "
            "gives experts of barred groups 0 in place of -inf, as older versions do, chose otherwise"
        )
    return _Choices(ids, weights)


def _rows(path: Path, recorded: LogitFile, layer: int, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """A layer's logits for some rows of all passes."""
    parts = []
    for part in recorded.passes:
        logits = part.logits(layer)
        if logits.dtype.kind != "f":
            raise ForestageError(f"{path}: {NAME} of layer {layer}: {logits.dtype}; expected floating-point logits")
        parts.append(logits)
    whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return whole if len(rows) == len(whole) else whole[rows]


def _finite(
    path: Path, recorded: LogitFile, logits: npt.NDArray[Any], layer: int, rows: npt.NDArray[np.int64]
) -> Floats:
    """The logits in float32; refused if one is not finite."""
    with np.errstate(over="ignore"):  # becomes inf, which is refused
        part = logits.astype(np.float32)
    if not np.isfinite(part).all():
        row, expert = (int(place) for place in np.argwhere(~np.isfinite(part))[0])
        raise ForestageError(
            f"{path}: {NAME} of layer {layer}, row {int(rows[row])} ({recorded.where(int(rows[row]))}): "
            f"{part[row, expert]} of expert {expert}, not finite: no choice follows from it; if the token is padding, "
            "save the attention_mask, with 0 there; else run the model again, in bfloat16 or float32"
        )
    return part


def _kind(logits: npt.NDArray[Any]) -> Kind:
    """The kind of numbers in all rows of a layer."""
    unit = sums = True
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, len(logits), CHUNK_ROWS):
            part = logits[start : start + CHUNK_ROWS]
            unit = bool((part >= 0).all() and (part <= 1 + SUM_TOLERANCE).all())
            if not unit:
                return "logits"
            sums = sums and bool((np.abs(part.sum(axis=1, dtype=np.float32) - 1) <= SUM_TOLERANCE).all())
    return "softmax" if sums else "unit"


def _rule_for(kind: Kind, rule: SelectionRule, place: str) -> SelectionRule:
    """The rule, adapted to numbers of that kind.

    Raises:
        ForestageError: if the choice or its weights do not follow from them.
    """
    if kind == "logits":
        return rule
    if kind == "unit":
        raise ForestageError(
            f"{place}: every number lies between 0 and 1, as sigmoid scores do; save the router's logits, before "
            "anything is made of them"
        )
    if rule.score == "logits" and not rule.bias and not rule.limits_groups:
        rule = rule.model_copy(update={"score": "softmax"})  # the same order
    if rule.score != "softmax" or rule.weight not in (None, "softmax"):
        raise ForestageError(
            f"{place}: every row sums to 1, as probabilities do, from which the model's choice or its weights do not "
            "follow; save the router's logits, before anything is made of them"
        )
    return rule


def _catalogue_top_k(path: Path, model: str) -> int:
    """The model's top-k, from the catalogue."""
    record = load_catalog().match_shape(model)
    if record is None:
        raise ForestageError(f"{path}: the catalogue does not know {model}; import it with --top-k")
    return record.top_k


IMPORTER = Importer(
    "hf_router_logits",
    "transformers' router logits, .pt or .safetensors",
    sniff,
    read,
    uses=frozenset({"model", "experts", "top_k", "layers", "phase", "domain", "dataset"}) | SELECTION_OPTIONS,
)
