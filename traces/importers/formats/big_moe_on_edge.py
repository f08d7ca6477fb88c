"""BigMoeOnEdge ``route_trace v1``: a CSV of every expert use, plain or gzipped, with residency and bytes.

A ``#`` preamble gives the model, ``n_layer``, ``n_expert``, ``n_expert_used`` and a line a layer with its
``expert_bytes`` and ``dense_bytes``; then ``turn,phase,step,layer,slot,expert,weight,residency,expert_bytes``, a row an
expert use (phase 0 prefill, 1 decode; residency 0 miss, 1 hit, 2 speculative hit; ``expert_bytes`` is what was read, 0
on a hit). A turn becomes a sequence and a step a token. Where the last layer of a prefill computed only its last token,
the other tokens' rows of that layer are unrecorded; any other missing event is told, and a turn whose last token lacks
one is refused: that is what a file cut off looks like.
"""

import gzip
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog import load_catalog
from catalog.errors import ForestageError
from traces.importers.assembly.number_table import number_table
from traces.importers.assembly.recordings import published_recording
from traces.importers.assembly.stated import called, check_stated
from traces.importers.assembly.values import LARGEST_WEIGHT, are_ranked, pack_ids, weight_kind
from traces.importers.importer import Importer
from traces.importers.options import ImportOptions
from traces.importers.report import Report
from traces.metadata import TraceMetadata
from traces.schema import DECODE
from traces.trace import RoutingTrace

COLUMNS = ("turn", "phase", "step", "layer", "slot", "expert", "weight", "residency", "expert_bytes")
MAGIC = "# route_trace v1"

LARGEST = 2**31 - 1
"""Of every whole column: positions are i32, and no expert has 2 GiB."""

RESIDENCY_MISS, RESIDENCY_HIT, RESIDENCY_SPECULATIVE_HIT, RESIDENCY_UNRECORDED = 0, 1, 2, 255


@dataclass(frozen=True, eq=False)
class Residency:
    """What a ``RoutingTrace`` cannot hold of such a file; tokens and layers as in the imported trace.

    Attributes:
        residency: u8 ``[tokens, layers, top_k]``: 0 miss, 1 hit, 2 speculative hit, 255 not recorded.
        read_bytes: i64 ``[tokens, layers, top_k]``: bytes read for the use, 0 on a hit.
        expert_bytes: i64 ``[layers]``: bytes of one expert of the layer.
        dense_bytes: i64 ``[layers]``: bytes of the layer's other weights.
    """

    residency: npt.NDArray[np.uint8]
    read_bytes: npt.NDArray[np.int64]
    expert_bytes: npt.NDArray[np.int64]
    dense_bytes: npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Grid:
    """A parsed file: its columns, and for each row its place in ``[tokens, layers, top_k]``."""

    preamble: dict[str, str]
    layer_bytes: dict[int, tuple[int, int]]
    columns: dict[str, npt.NDArray[np.float64]]
    token: npt.NDArray[np.int64]
    layer: npt.NDArray[np.int64]
    slot: npt.NDArray[np.int64]
    shape: tuple[int, int, int]
    token_turn: npt.NDArray[np.int64]
    token_step: npt.NDArray[np.int64]
    layer_map: tuple[int, ...]

    def place(self, values: npt.NDArray[Any], fill: float, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """``values`` a row as an array ``[tokens, layers, top_k]``, ``fill`` where there is no row."""
        grid = np.full(self.shape, fill, dtype=dtype)
        grid[self.token, self.layer, self.slot] = values
        return grid


def sniff(path: Path, start: bytes) -> bool:
    """A text that begins with the format's first line, or a name ending in ``.route.csv[.gz]``."""
    return path.name.endswith((".route.csv", ".route.csv.gz")) or start.startswith(b"# route_trace")


def read(path: Path, options: ImportOptions, report: Report) -> RoutingTrace:
    """Import ``path``; ``options.model`` overrides the name in the preamble.

    Raises:
        ForestageError: if the file is damaged, a column is missing or rows do not form whole events.
    """
    grid = _read_grid(path)
    experts = int(grid.preamble["n_expert"])
    stated = Path(grid.preamble["model"]).name.removesuffix(".gguf")
    check_stated(
        options,
        report,
        origin=str(path),
        model=stated,
        experts=experts,
        top_k=grid.shape[2],
        layer_map=grid.layer_map,
    )
    _check_shape(path, options, grid)
    ids = pack_ids(grid.place(grid.columns["expert"], 0, np.int64), experts, str(path))
    phase = np.zeros(grid.shape[0], dtype=np.uint8)
    phase[grid.token] = grid.columns["phase"]
    recorded = grid.place(np.ones(len(grid.token)), 0, np.bool_)
    has_unrecorded = not bool(recorded.all())
    if has_unrecorded:
        ids[~recorded] = np.iinfo(ids.dtype).max
    missing = ~recorded[:, :, 0]
    missing[:, -1] &= phase == DECODE
    if missing.any():
        report.warn(f"{path}: {int(missing.sum())} rows (token, layer) are missing; they count as not recorded")
    weights = grid.place(grid.columns["weight"], 0.0, np.float16)
    rows = grid.place(grid.columns["weight"], 0.0, np.float64)[recorded[:, :, 0]]
    starts = np.flatnonzero(np.diff(grid.token_turn, prepend=grid.token_turn[0] - 1))
    recording = published_recording(ids)
    return RoutingTrace(
        expert_ids=ids,
        gate_weights=weights,
        sequence_offsets=np.append(starts, grid.shape[0]).astype(np.int64),
        position=grid.token_step.astype(np.int32),
        phase=phase,
        token_hash=None,
        domains=(options.domain or "chat",) * len(starts),
        datasets=(options.dataset or "BigMoeOnEdge",) * len(starts),
        metadata=TraceMetadata.parse(
            {
                "model": called(options, stated),
                "experts": experts,
                "top_k": grid.shape[2],
                "layer_map": grid.layer_map,
                "ranked": are_ranked(rows),
                "gate_weight_kind": weight_kind(rows),
                "source": recording.source if recording else f"BigMoeOnEdge route_trace v1, from {path.name}",
                "licence": recording.licence if recording else "not stated",
                "has_unrecorded": has_unrecorded,
            },
            origin=str(path),
        ),
        origin=str(path),
    )


def _check_shape(path: Path, options: ImportOptions, grid: _Grid) -> None:
    """Refuse a model named by the user that has not the preamble's shape.

    A run may be cut to fewer experts a token than the model's, as recorded runs were.
    """
    record = None if options.model is None else load_catalog().match_shape(options.model)
    if record is None:
        return
    for key, ours in (("n_expert", record.experts), ("n_layer", record.layers)):
        if key in grid.preamble and int(grid.preamble[key]) != ours:
            raise ForestageError(
                f"{path}: preamble: {key}={grid.preamble[key]}, but {record.name} (--model) has {ours}; name the "
                "right model"
            )
    if grid.shape[2] > record.top_k:
        raise ForestageError(
            f"{path}: preamble: n_expert_used={grid.shape[2]}, but {record.name} (--model) uses {record.top_k}; name "
            "the right model"
        )


def read_residency(path: str | Path) -> Residency:
    """The cache residency and bytes of a recorded run.

    Raises:
        ForestageError: as for ``read``, and if a layer's bytes are not in the preamble.
    """
    path = Path(path)
    grid = _read_grid(path)
    for layer in grid.layer_map:
        if layer not in grid.layer_bytes:
            raise ForestageError(f"{path}: preamble: no line gives the bytes of layer {layer}")
    layer_bytes = np.array([grid.layer_bytes[layer] for layer in grid.layer_map], dtype=np.int64)
    return Residency(
        residency=grid.place(grid.columns["residency"], RESIDENCY_UNRECORDED, np.uint8),
        read_bytes=grid.place(grid.columns["expert_bytes"], 0, np.int64),
        expert_bytes=layer_bytes[:, 0].copy(),
        dense_bytes=layer_bytes[:, 1].copy(),
    )


def _read_lines(path: Path) -> list[str]:
    """The text lines of a plain or gzipped file; they end in bare numbers, so the last must be ended as well."""
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        data = gzip.decompress(path.read_bytes()) if zipped else path.read_bytes()
        text = data.decode("utf-8")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ForestageError(f"{path}: damaged or truncated gzip file ({error}); fetch it again") from error
    except UnicodeDecodeError as error:
        raise ForestageError(f"{path}: not a text file ({error.reason})") from error
    except OSError as error:
        raise ForestageError(f"{path}: cannot read ({error.strerror})") from error
    lines = text.splitlines()
    if lines and not text.endswith("\n"):
        raise ForestageError(f"{path}: line {len(lines)}: has no line end; was the file cut off? If not, end the line")
    return lines


def _read_grid(path: Path) -> _Grid:
    """Parse and check a whole file."""
    lines = _read_lines(path)
    if not lines or lines[0].strip() != MAGIC:
        raise ForestageError(f"{path}: line 1: expected '{MAGIC}'")
    body = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    preamble, layer_bytes = _read_preamble(path, lines[:body])
    columns = _read_columns(path, lines, body)
    return _place_rows(path, preamble, layer_bytes, columns, body + 2)


def _read_preamble(path: Path, lines: list[str]) -> tuple[dict[str, str], dict[int, tuple[int, int]]]:
    """The preamble's ``key=value`` pairs, and (expert, dense) bytes by layer."""
    preamble: dict[str, str] = {}
    layer_bytes: dict[int, tuple[int, int]] = {}
    for line in lines[1:]:
        layer = re.fullmatch(r"#\s*layer=([0-9]{1,9}) expert_bytes=([0-9]{1,18}) dense_bytes=([0-9]{1,18})\s*", line)
        if layer:
            layer_bytes[int(layer[1])] = (int(layer[2]), int(layer[3]))
        else:
            # A model's path may hold spaces: a value reaches to the next " key=" or the end.
            preamble.update(re.findall(r"(\w+)=(.*?)(?=\s+\w+=|\s*$)", line))
    for key in ("model", "n_expert", "n_expert_used"):
        if key not in preamble:
            raise ForestageError(f"{path}: preamble: '{key}=' is missing")
    for key in ("n_expert", "n_expert_used", "n_layer"):
        if key in preamble and not re.fullmatch(r"0*[1-9][0-9]{0,8}", preamble[key]):
            raise ForestageError(f"{path}: preamble: {key}={preamble[key]}; expected a whole number ≥ 1")
    return preamble, layer_bytes


def _read_columns(path: Path, lines: list[str], body: int) -> dict[str, npt.NDArray[np.float64]]:
    """The known columns by name; every field must be a number and all but the weight whole and ≥ 0."""
    names = lines[body].strip().split(",") if body < len(lines) else []
    for column in COLUMNS:
        if column not in names:
            raise ForestageError(f"{path}: line {body + 1}: column '{column}' is missing from the heading")
    rows = lines[body + 1 :]
    if not rows:
        raise ForestageError(f"{path}: no rows after the heading")
    table = number_table(path, rows, names, body + 2)
    columns = {column: table[:, names.index(column)] for column in COLUMNS}
    for column, values in columns.items():
        good = (values >= 0) & (values <= (LARGEST_WEIGHT if column == "weight" else LARGEST))
        if column != "weight":
            good &= values == np.floor(values)
        if not good.all():
            row = int(np.argmin(good))
            kind = (
                f"a number from 0 to {LARGEST_WEIGHT:g}"
                if column == "weight"
                else f"a whole number from 0 to {LARGEST}"
            )
            raise ForestageError(f"{path}: line {body + 2 + row}: {column}: {values[row]:g}; expected {kind}")
    return columns


def _place_rows(
    path: Path,
    preamble: dict[str, str],
    layer_bytes: dict[int, tuple[int, int]],
    columns: dict[str, npt.NDArray[np.float64]],
    first_line: int,
) -> _Grid:
    """Give every row its place and check that events are whole: k slots, one phase a token."""
    whole = {name: columns[name].astype(np.int64) for name in COLUMNS if name != "weight"}
    top_k = int(preamble["n_expert_used"])
    _refuse(path, whole["slot"] >= top_k, first_line, f"slot: the preamble says n_expert_used={top_k}")
    _refuse(path, whole["phase"] > 1, first_line, "phase: must be 0 (prefill) or 1 (decode)")
    _refuse(path, whole["residency"] > 2, first_line, "residency: must be 0, 1 or 2")
    experts = int(preamble["n_expert"])
    _refuse(path, whole["expert"] >= experts, first_line, f"expert: the preamble says n_expert={experts}")
    if "n_layer" in preamble:
        layers_stated = int(preamble["n_layer"])
        _refuse(path, whole["layer"] >= layers_stated, first_line, f"layer: the preamble says n_layer={layers_stated}")
    keys, token = np.unique(np.stack([whole["turn"], whole["step"]], axis=1), axis=0, return_inverse=True)
    token = token.reshape(-1)
    layers, layer = np.unique(whole["layer"], return_inverse=True)
    shape = (len(keys), len(layers), top_k)
    flat = np.ravel_multi_index((token, layer, whole["slot"]), shape)
    _, first = np.unique(flat, return_index=True)
    repeated = np.ones(len(flat), dtype=np.bool_)
    repeated[first] = False
    _refuse(path, repeated, first_line, "turn, step, layer and slot appeared before")
    uses = np.bincount(token * len(layers) + layer, minlength=shape[0] * shape[1])
    partial = np.isin(token * len(layers) + layer, np.flatnonzero((uses > 0) & (uses < top_k)))
    _refuse(path, partial, first_line, f"the event has fewer rows than n_expert_used={top_k}; is the file cut off?")
    last = np.append(keys[1:, 0] != keys[:-1, 0], True)
    lacking = last & (uses.reshape(len(keys), len(layers)) == 0).any(axis=1)
    fault = "the last step of its turn lacks a layer; if the file was cut off, remove that step's rows"
    _refuse(path, lacking[token], first_line, fault)
    phase = np.zeros(len(keys), dtype=np.int64)
    phase[token] = whole["phase"]
    _refuse(path, phase[token] != whole["phase"], first_line, "phase: differs within a step")
    return _Grid(
        preamble=preamble,
        layer_bytes=layer_bytes,
        columns=columns,
        token=token,
        layer=layer,
        slot=whole["slot"],
        shape=shape,
        token_turn=keys[:, 0],
        token_step=keys[:, 1],
        layer_map=tuple(layers.tolist()),
    )


def _refuse(path: Path, bad: npt.NDArray[np.bool_], first_line: int, fault: str) -> None:
    """Raise for the first row marked ``bad``, by its line."""
    if bad.any():
        raise ForestageError(f"{path}: line {first_line + int(np.argmax(bad))}: {fault}")


IMPORTER = Importer(
    "big_moe_on_edge",
    "BigMoeOnEdge route_trace v1 CSV, plain or .gz",
    sniff,
    read,
    uses=frozenset({"model", "experts", "top_k", "layers", "domain", "dataset"}),
)
