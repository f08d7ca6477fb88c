"""Hugging Face transformers' router logits, as ``output_router_logits=True`` returns them.

The library writes no file itself; two layouts are read, each of one forward pass:

* ``.pt``: ``torch.save(output.router_logits, path)``, the tuple of a tensor ``[batch · sequence, experts]`` a MoE
  layer, or a dictionary of that tuple as ``router_logits`` with, where wanted, ``input_ids [batch, sequence]`` and
  ``attention_mask [batch, sequence]``;
* ``.safetensors``: tensors ``router_logits.<n>`` (n the place in the tuple), and the same two.

Without ``input_ids`` or a mask, all rows are one sequence. Tokens that the mask leaves out are dropped. As the models
of transformers do, the k largest of the softmax are chosen; their weights are normalised over them or left as they are,
by the model (``NORMALISES``, or ``--gate-weights``). A file in which every row already sums to 1 is taken as softmaxed.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError
from traces.importers.assembly import torch_file
from traces.importers.assembly.builder import TraceBuilder
from traces.importers.assembly.models import recorded_model
from traces.importers.assembly.values import token_identity
from traces.importers.formats.own import is_safetensors
from traces.importers.importer import Importer
from traces.importers.options import ImportOptions
from traces.importers.report import Report
from traces.metadata import GateWeightKind
from traces.trace import PREFILL, RoutingTrace

NAME = "router_logits"
TENSOR = re.compile(r"router_logits\.(\d{1,6})")

NORMALISES = {
    "mixtral": True,
    "qwen3": True,
    "gpt-oss": True,
    "olmoe": False,
    "deepseek-v2-lite": False,
}
"""Start of a model's name → whether its routers divide the chosen weights by their sum. Source: ``modeling_*.py`` of
transformers 5 and ``norm_topk_prob`` of the published configurations; gpt-oss takes the softmax of the chosen logits,
which is the same as dividing."""

BEYOND_LOGITS = ("deepseek-v3", "deepseek-r1", "glm-4", "kimi")
"""Models whose choice needs more than the logits (sigmoid scores, a correction bias, groups of experts)."""

SUM_TOLERANCE = 0.01
"""Softmaxed rows in bfloat16 miss a sum of 1 by less."""

CHUNK_ROWS = 1 << 12


@dataclass(frozen=True, eq=False)
class _Pass:
    """A forward pass: each layer's logits, read when asked for, and what is known of the tokens."""

    layers: int
    rows: int
    experts: int
    logits: Callable[[int], npt.NDArray[Any]]
    input_ids: npt.NDArray[np.int64] | None
    mask: npt.NDArray[np.bool_] | None


def sniff(path: Path, start: bytes) -> bool:
    """A PyTorch or safetensors file that names router logits, or a PyTorch file of several tensors without names."""
    if torch_file.is_torch_file(start):
        return NAME in torch_file.names_in(path) or torch_file.is_bare_list(path)
    return is_safetensors(start) and f'"{NAME}.0"'.encode() in start


def read(path: Path, options: ImportOptions, report: Report) -> RoutingTrace:
    """The choices that follow from the logits.

    Raises:
        ForestageError: if the file is damaged or in no such layout, a logit is not finite, or the model, its top-k or
            what it makes of the weights is not known.
    """
    with path.open("rb") as file:
        start = file.read(64)
    recorded = _from_safetensors(path) if is_safetensors(start) else _from_torch(path)
    model = recorded_model(
        options,
        origin=str(path),
        layers=recorded.layers,
        top_k=options.top_k,
        used_layers=range(recorded.layers),
        experts=recorded.experts,
    )
    top_k = options.top_k or _catalogue_top_k(path, model.name)
    if top_k > recorded.experts:
        raise ForestageError(f"{path}: --top-k {top_k}: the file has {recorded.experts} experts")
    normalised = _normalises(path, options, model.name)
    ids, weights, ties = _choose(path, recorded, top_k, normalised, report)
    if ties:
        report.warn(
            f"{path}: in {ties} rows (token, layer) the last chosen expert has the logit of one that was not: the "
            "model may have chosen the other"
        )
    if recorded.input_ids is None and recorded.mask is None:
        report.warn(
            f"{path}: neither input_ids nor attention_mask: all {recorded.rows} rows are taken as one sequence; wrong "
            "of a batch"
        )
    builder = TraceBuilder(
        path, layers=recorded.layers, top_k=top_k, weights=True, hashes=recorded.input_ids is not None
    )
    for number, rows in enumerate(_sequences(recorded)):
        builder.append(
            ids[rows],
            phase=PREFILL,
            weights=weights[rows],
            token_hash=None
            if recorded.input_ids is None
            else token_identity(recorded.input_ids.reshape(-1)[rows], str(path)),
            where=f"sequence {number}",
        )
        builder.end_sequence(options.domain or "unlabelled", options.dataset or "transformers")
    kind: GateWeightKind = "normalised" if normalised else "softmax"
    return builder.finish(
        model, report, source=f"transformers router logits, from {path.name}", ranked=True, gate_weight_kind=kind
    )


def _from_torch(path: Path) -> _Pass:
    """A pass in a ``.pt``."""
    value = torch_file.load(path)
    named = value if isinstance(value, dict) else {NAME: value}
    layers = named.get(NAME)
    if not isinstance(layers, (tuple, list)) or not layers or not all(isinstance(part, np.ndarray) for part in layers):
        raise ForestageError(f"{path}: {NAME}: expected a tuple of a tensor [batch · sequence, experts] a MoE layer")
    return _checked(path, [part.shape for part in layers], lambda layer: layers[layer], named)


def _from_safetensors(path: Path) -> _Pass:
    """A pass in a ``.safetensors``."""
    from safetensors import SafetensorError, safe_open

    def tensor(name: str) -> npt.NDArray[Any]:
        try:
            with safe_open(path, framework="np") as file:
                if file.get_slice(name).get_dtype() == "BF16":
                    return torch_file.load_safetensors(path, name)
                return np.asarray(file.get_tensor(name))
        except (SafetensorError, OSError, TypeError, ValueError) as error:
            raise ForestageError(f"{path}: {name}: cannot read ({' '.join(str(error).split())})") from error

    try:
        with safe_open(path, framework="np") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ForestageError(f"{path}: damaged or no safetensors file ({' '.join(str(error).split())})") from error
    numbers = sorted(int(match[1]) for name in shapes if (match := TENSOR.fullmatch(name)))
    if not numbers or numbers != list(range(len(numbers))):
        raise ForestageError(f"{path}: expected tensors {NAME}.0, {NAME}.1, … without a gap; found {numbers}")
    names = [f"{NAME}.{number}" for number in numbers]
    others = {name: tensor(name) for name in ("input_ids", "attention_mask") if name in shapes}
    return _checked(path, [shapes[name] for name in names], lambda layer: tensor(names[layer]), others)


def _checked(
    path: Path,
    shapes: list[tuple[int, ...]],
    logits: Callable[[int], npt.NDArray[Any]],
    others: dict[str, Any],
) -> _Pass:
    """A pass whose shapes fit each other."""
    if len(shapes[0]) != 2 or 0 in shapes[0]:
        raise ForestageError(f"{path}: {NAME} of layer 0: {list(shapes[0])}; expected [batch · sequence, experts]")
    for layer, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise ForestageError(f"{path}: {NAME} of layer {layer}: {list(shape)}, but layer 0 has {list(shapes[0])}")
    rows, experts = shapes[0]
    grids = {}
    for name in ("input_ids", "attention_mask"):
        grid = others.get(name)
        if grid is None:
            continue
        if not isinstance(grid, np.ndarray) or grid.ndim != 2 or grid.dtype.kind not in "iub" or grid.size != rows:
            raise ForestageError(f"{path}: {name}: expected integers [batch, sequence], {rows} in all")
        grids[name] = grid.astype(np.int64)
    mask = grids.get("attention_mask")
    if mask is not None and not np.isin(mask, (0, 1)).all():
        raise ForestageError(f"{path}: attention_mask: expected 0 or 1")
    if len(grids) == 2 and grids["input_ids"].shape != grids["attention_mask"].shape:
        raise ForestageError(f"{path}: attention_mask: its shape differs from that of input_ids")
    return _Pass(len(shapes), rows, experts, logits, grids.get("input_ids"), None if mask is None else mask == 1)


def _choose(
    path: Path, recorded: _Pass, top_k: int, normalised: bool, report: Report
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32], int]:
    """Ids and weights ``[rows, layers, top_k]``, best first, and the rows whose last choice was a tie."""
    ids = np.zeros((recorded.rows, recorded.layers, top_k), np.int32)
    weights = np.zeros((recorded.rows, recorded.layers, top_k), np.float32)
    ties = 0
    softmaxed: set[bool] = set()
    for layer in range(recorded.layers):
        logits = recorded.logits(layer)
        if logits.dtype.kind != "f":
            raise ForestageError(f"{path}: {NAME} of layer {layer}: {logits.dtype}; expected floating-point logits")
        softmaxed.add(_is_softmaxed(logits))
        for start in range(0, recorded.rows, CHUNK_ROWS):
            with np.errstate(over="ignore"):  # becomes inf, which is refused
                part = logits[start : start + CHUNK_ROWS].astype(np.float32)
            if not np.isfinite(part).all():
                row = start + int(np.argwhere(~np.isfinite(part))[0, 0])
                raise ForestageError(f"{path}: {NAME} of layer {layer}, row {row}: not finite")
            order = np.argsort(-part, axis=1, kind="stable")
            best = order[:, :top_k]
            values = np.take_along_axis(part, order[:, : top_k + 1], axis=1)
            ties += int((values[:, top_k - 1] == values[:, top_k]).sum()) if top_k < recorded.experts else 0
            chances = part if True in softmaxed else _softmax(part)
            chosen = np.take_along_axis(chances, best, axis=1)
            if normalised:
                chosen = chosen / chosen.sum(axis=1, keepdims=True)
            ids[start : start + CHUNK_ROWS, layer] = best
            weights[start : start + CHUNK_ROWS, layer] = chosen
        report.progress(layer + 1, recorded.layers)
    if len(softmaxed) > 1:
        raise ForestageError(f"{path}: {NAME}: some layers are logits, others sum to 1 as probabilities do")
    return ids, weights, ties


def _is_softmaxed(logits: npt.NDArray[Any]) -> bool:
    """Whether every row is of probabilities."""
    with np.errstate(over="ignore", invalid="ignore"):
        return all(
            bool((part >= 0).all() and (np.abs(part.sum(axis=1, dtype=np.float32) - 1) <= SUM_TOLERANCE).all())
            for part in (logits[start : start + CHUNK_ROWS] for start in range(0, len(logits), CHUNK_ROWS))
        )


def _softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Softmax over the last axis."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True), dtype=np.float32)


def _sequences(recorded: _Pass) -> list[npt.NDArray[np.int64]]:
    """The rows of each sequence that has any."""
    grid = recorded.mask if recorded.mask is not None else recorded.input_ids
    batch = 1 if grid is None else grid.shape[0]
    rows = np.arange(recorded.rows).reshape(batch, -1)
    kept = np.ones_like(rows, dtype=np.bool_) if recorded.mask is None else recorded.mask
    return [row[keep] for row, keep in zip(rows, kept, strict=True) if keep.any()]


def _catalogue_top_k(path: Path, model: str) -> int:
    """The model's top-k, from the catalogue."""
    from catalog import load_catalog

    record = load_catalog().match_model(model)
    if record is None:
        raise ForestageError(f"{path}: the catalogue does not know {model}; import it with --top-k")
    return record.top_k


def _normalises(path: Path, options: ImportOptions, model: str) -> bool:
    """Whether the model normalises the chosen weights."""
    name = model.rsplit("/", 1)[-1].lower().replace("_", "-")
    if name.startswith(BEYOND_LOGITS):
        raise ForestageError(
            f"{path}: {model} chooses by more than the logits (a bias, groups of experts), which the file does not "
            "have; capture its routing with `forestage trace capture`"
        )
    if options.gate_weights is not None:
        return options.gate_weights == "normalised"
    for start, normalises in NORMALISES.items():
        if name.startswith(start):
            return normalises
    raise ForestageError(
        f"{path}: whether {model} normalises the chosen experts' weights is not known; import it with --gate-weights "
        "normalised or softmax (norm_topk_prob in its config.json)"
    )


IMPORTER = Importer(
    "hf_router_logits",
    "transformers' router logits, .pt or .safetensors",
    sniff,
    read,
    uses=frozenset({"model", "experts", "top_k", "layers", "gate_weights", "domain", "dataset"}),
)
