"""SGLang's expert-distribution recorder in its mode ``per_token``: the experts of every token of every forward pass.

A ``torch.save`` dictionary ``{records, last_physical_to_logical_map}``, one file per rank. A record is one forward pass
(or a part of one: ``gatherer_key``) with ``forward_pass_id, rank, input_ids, positions, extend_seq_lens, forward_mode,
topk_ids_of_layer`` (int32 ``[layers, tokens, 8]``, padded with −1, or with 0 before the buffer's first use). The layers
are all of the model's; ids are physical. If SGLang fuses a model's shared experts with the routed ones, they have
separate columns after the chosen ones, with ids from the number of physical experts on; these are left out. Source:
``python/sglang/srt/eplb/expert_distribution.py`` (``_DetailSinglePassGatherer``) and pull request 4918.

The file does not name requests; ``traces.importers.assembly.requests`` separates them by their positions.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError
from traces.importers.assembly import torch_file
from traces.importers.assembly.builder import CHUNK_TOKENS, TraceBuilder
from traces.importers.assembly.expert_map import ExpertMap, check_map, read_expert_map
from traces.importers.assembly.models import recorded_model
from traces.importers.assembly.requests import MODES, ForwardPass, RequestChains
from traces.importers.assembly.spool import Spool
from traces.importers.assembly.values import token_identity
from traces.importers.importer import Importer
from traces.importers.options import ImportOptions
from traces.importers.report import Report
from traces.trace import RoutingTrace

RANK_FILE = re.compile(r".*_(\d+)\.pt")

LARGEST = 2**31 - 1


@dataclass(frozen=True, eq=False)
class _Recording:
    """One rank's file: its path, its records and its expert map."""

    path: Path
    records: list[dict[str, Any]]
    expert_map: ExpertMap | None


def sniff(path: Path, start: bytes) -> bool:
    """A PyTorch file with records of forward passes, or a folder of such files."""
    if path.is_dir():
        return any(torch_file.names_in(file) >= {"records", "forward_pass_id"} for file in _files(path)[:1])
    return torch_file.is_torch_file(start) and torch_file.names_in(path) >= {"records", "forward_pass_id"}


def read(path: Path, options: ImportOptions, report: Report) -> RoutingTrace:
    """The routing of every rank, request by request.

    Raises:
        ForestageError: if a file is damaged or not such a recording, a record contradicts itself, an id has no logical
            expert, or the model is not known.
    """
    files = _files(path) if path.is_dir() else [path]
    if not files:
        raise ForestageError(f"{path}: holds no .pt file")
    chosen = None if options.expert_map is None else read_expert_map(options.expert_map, options.experts)
    collected: _Collected | None = None
    seen: dict[bytes, Path] = {}
    for file in report.counted(files):
        recording = _load(file)
        content = _fingerprint(recording)
        if content in seen:
            report.warn(f"{file}: the same tokens as {seen[content].name} (tensor-parallel ranks see all); left out")
            continue
        seen[content] = file
        collected = collected or _Collected(path, _width(recording))
        collected.add(recording, chosen, report)
    assert collected is not None  # the first file is never a copy
    return collected.finish(options, report)


class _Collected:
    """Tokens in the order in which they ran, and the request of each."""

    def __init__(self, origin: Path, shape: tuple[int, int]) -> None:
        self.origin = origin
        self.layers, self.width = shape
        self.ids = Spool(np.int32, (self.layers, self.width))
        self.position = Spool(np.int32)
        self.phase = Spool(np.uint8)
        self.token = Spool(np.uint32)
        self.request = Spool(np.int32)
        self.requests = 0
        self.used_columns = self.filled_columns = 0
        self.fused_columns = 0
        self.physical: int | None = None
        self.mapped: int | None = None

    def add(self, recording: _Recording, chosen: ExpertMap | None, report: Report) -> None:
        """Take the records of one rank."""
        expert_map = chosen or recording.expert_map
        if expert_map is None:
            report.warn(
                f"{recording.path}: physical ids without a map: taken as logical; import it with --expert-map if "
                "experts were replicated or moved"
            )
        else:
            if self.mapped not in (None, expert_map.experts):
                raise ForestageError(
                    f"{recording.path}: {expert_map.experts} logical experts, but {self.mapped} in other ranks' files"
                )
            self.mapped = expert_map.experts
        chains = RequestChains(self.requests)
        for records in _passes(recording):
            parts = [self._part(record, place, expert_map) for place, record in records]
            place = records[0][0]
            forward = ForwardPass.joined([part[0] for part in parts], place)
            self.request.append(chains.assign(forward))
            for part, ids in parts:
                self.ids.append(ids)
                self.position.append(part.positions.astype(np.int32))
                self.token.append(token_identity(part.input_ids, place))
            self.phase.append(chains.phase)
        self.requests = chains.requests
        chains.tell(recording.path, report)

    def _part(
        self, record: dict[str, Any], place: str, expert_map: ExpertMap | None
    ) -> tuple[ForwardPass, npt.NDArray[np.int32]]:
        """A record's tokens, and their ids ``[tokens, layers, width]``."""
        forward = _forward_pass(record, place)
        raw = record.get("topk_ids_of_layer")
        if not isinstance(raw, np.ndarray) or raw.dtype.kind not in "iu" or raw.ndim != 3:
            raise ForestageError(
                f"{place}: topk_ids_of_layer: missing or no integers [layers, tokens, 8]; record with the "
                "mode per_token"
            )
        tokens = len(forward.positions)
        if raw.shape != (self.layers, tokens, self.width):
            raise ForestageError(
                f"{place}: topk_ids_of_layer: {list(raw.shape)}; expected [{self.layers}, {tokens}, {self.width}]"
            )
        counts = record.get("global_physical_count")
        if isinstance(counts, np.ndarray) and counts.ndim == 2:
            self.physical = counts.shape[1]
            if expert_map is not None and expert_map.physical != self.physical:
                raise ForestageError(
                    f"{place}: {self.physical} physical experts, but the expert map {expert_map.origin} has "
                    f"{expert_map.physical}"
                )
        ids = np.ascontiguousarray(raw.transpose(1, 0, 2))
        if ids.size and (ids.min() < -1 or ids.max() > LARGEST):
            raise ForestageError(f"{place}: topk_ids_of_layer: {int(ids.min())}; expected ids, or -1 as padding")
        ids = ids.astype(np.int32)
        if self.width > 1:  # a dense layer, in a buffer filled with 0 instead of -1
            ids[(ids == 0).all(axis=2)] = -1
        physical = self.physical if expert_map is None else expert_map.physical
        if physical is not None:
            self.fused_columns = max(self.fused_columns, _without_fused(ids, physical))
        self.used_columns = max(self.used_columns, _columns(ids != -1))
        self.filled_columns = max(self.filled_columns, _columns(ids > 0))
        return forward, ids if expert_map is None else expert_map.apply(ids, place)

    def finish(self, options: ImportOptions, report: Report) -> RoutingTrace:
        """The trace: tokens sorted by request, without padding."""
        top_k = self._top_k(options)
        if self.fused_columns:
            report.warn(
                f"{self.origin}: {self.fused_columns} columns after the chosen hold ids beyond the physical experts: "
                "shared experts, which every token uses, fused with the routed ones; left out"
            )
        builder = TraceBuilder(self.origin, layers=self.layers, top_k=top_k, hashes=True)
        request, ids = self.request.array(), self.ids.array()
        position, phase, token = self.position.array(), self.phase.array(), self.token.array()
        order = np.argsort(request, kind="stable")
        bounds = np.flatnonzero(np.diff(request[order], prepend=-1, append=-1))
        for first, last in pairwise(bounds.tolist()):
            for start in range(first, last, CHUNK_TOKENS):
                rows = order[start : min(start + CHUNK_TOKENS, last)]
                builder.append(
                    ids[rows][:, :, :top_k],
                    position=position[rows],
                    phase=phase[rows],
                    token_hash=token[rows],
                    where=f"request {int(request[order[first]])}",
                )
            builder.end_sequence(options.domain or "unlabelled", options.dataset or "SGLang")
        if not builder.tokens:
            raise ForestageError(f"{self.origin}: no record has tokens")
        model = recorded_model(
            options,
            report,
            origin=str(self.origin),
            layers=self.layers,
            top_k=top_k,
            used_layers=builder.used_layers(),
            experts=self.mapped,
            has_dense=True,
        )
        physical = self.physical if self.physical is not None else max(model.experts, builder.largest_id() + 1)
        if self.mapped is None and physical != model.experts:
            raise ForestageError(
                f"{self.origin}: ids are of {physical} physical experts, but {model.name} has {model.experts}; "
                "import it with --expert-map"
            )
        source = f"SGLang expert-distribution recorder, mode per_token, from {self.origin.name}"
        return builder.finish(model, report, source=source, ranked=False)

    def _top_k(self, options: ImportOptions) -> int:
        """Ids per row without padding: from the user, or the number of columns used."""
        if options.top_k is None:
            # Two columns of zeros alone would name expert 0 twice in every row: the buffer's padding.
            return self.filled_columns if self.used_columns - self.filled_columns > 1 else self.used_columns
        if not self.filled_columns <= options.top_k <= self.width:
            raise ForestageError(f"{self.origin}: --top-k {options.top_k}: the rows hold {self.used_columns} ids")
        return options.top_k


def _without_fused(ids: npt.NDArray[np.int32], physical: int) -> int:
    """How many of the last used columns have ids beyond the experts in every row; they become −1 in ``ids``.

    The map or the model refuses any other id beyond the experts.
    """
    fused = 0
    recorded = (ids != -1).any(axis=2)
    for column in reversed(range(1, ids.shape[2])):
        used = ids[:, :, column] != -1
        if not used.any():
            continue
        if not np.array_equal(used, recorded) or (ids[:, :, column][used] < physical).any():
            break
        ids[:, :, column] = -1
        fused += 1
    return fused


def _columns(held: npt.NDArray[np.bool_]) -> int:
    """Number of columns of ``held [tokens, layers, width]`` up to the last that is true anywhere."""
    columns = np.flatnonzero(held.any(axis=(0, 1)))
    return int(columns[-1]) + 1 if len(columns) else 0


def _files(folder: Path) -> list[Path]:
    """The ``.pt`` files of a folder, in the order of their ranks, then names."""
    files = [file for file in folder.iterdir() if file.suffix == ".pt" and file.is_file()]

    def rank(file: Path) -> int:
        match = RANK_FILE.fullmatch(file.name)
        return int(match[1]) if match else LARGEST

    return sorted(files, key=lambda file: (rank(file), file.name))


def _load(path: Path) -> _Recording:
    """One rank's file."""
    value = torch_file.load(path)
    records = value.get("records") if isinstance(value, dict) else None
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise ForestageError(f"{path}: records: missing; expected SGLang's recording in the mode per_token")
    if not records:
        raise ForestageError(f"{path}: records: empty; nothing was recorded")
    stated = value.get("last_physical_to_logical_map")
    if stated is not None and not isinstance(stated, np.ndarray):
        raise ForestageError(f"{path}: last_physical_to_logical_map: expected a tensor [layers, physical]")
    place = f"{path}: last_physical_to_logical_map"
    return _Recording(path, records, None if stated is None else check_map(stated, place))


def _width(recording: _Recording) -> tuple[int, int]:
    """Layers and columns of the first record's ids."""
    ids = recording.records[0].get("topk_ids_of_layer")
    if not isinstance(ids, np.ndarray) or ids.ndim != 3 or 0 in (ids.shape[0], ids.shape[2]):
        raise ForestageError(
            f"{recording.path}: record 0: topk_ids_of_layer: missing or not [layers, tokens, 8]; record with the mode "
            "per_token"
        )
    return ids.shape[0], ids.shape[2]


def _passes(recording: _Recording) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """The records of each forward pass, each with its place for errors; passes in order."""
    passes: dict[int, list[tuple[str, dict[str, Any]]]] = {}
    for number, record in enumerate(recording.records):
        place = f"{recording.path}: record {number}"
        identity = record.get("forward_pass_id")
        if type(identity) is not int:
            raise ForestageError(f"{place}: forward_pass_id: {identity!r}; expected a whole number")
        passes.setdefault(identity, []).append((place, record))
    for identity in sorted(passes):
        yield passes[identity]


def _forward_pass(record: dict[str, Any], place: str) -> ForwardPass:
    """The checked tokens of a record."""
    mode = record.get("forward_mode")
    if type(mode) is not int or mode not in MODES:
        known = ", ".join(f"{value} {name}" for value, name in MODES.items())
        raise ForestageError(
            f"{place}: forward_mode: {mode!r}; read are {known} (speculative decoding runs tokens that it then rejects)"
        )
    positions = _whole_numbers(record, "positions", place)
    input_ids = _whole_numbers(record, "input_ids", place)
    if len(positions) != len(input_ids):
        raise ForestageError(f"{place}: {len(positions)} positions, but {len(input_ids)} input_ids")
    lengths = None
    if MODES[mode] in ("extend", "mixed"):
        lengths = _whole_numbers(record, "extend_seq_lens", place)
        if int(lengths.sum()) != len(positions):
            raise ForestageError(f"{place}: extend_seq_lens add up to {int(lengths.sum())} of {len(positions)} tokens")
    return ForwardPass(place, MODES[mode], positions, input_ids, lengths)


def _whole_numbers(record: dict[str, Any], name: str, place: str) -> npt.NDArray[np.int64]:
    """A field of whole numbers from 0 to 2³¹ − 1, a list or a tensor."""
    value = record.get(name)
    if isinstance(value, list) and set(map(type, value)) <= {int} and all(0 <= v <= LARGEST for v in value):
        return np.array(value, dtype=np.int64)
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind in "iu":
        whole = value.astype(np.int64)
        if ((whole >= 0) & (whole <= LARGEST)).all():
            return whole
    raise ForestageError(f"{place}: {name}: expected a list of whole numbers from 0 to {LARGEST}")


def _fingerprint(recording: _Recording) -> bytes:
    """A digest of a recording's tokens and ids, which need not be checked yet."""
    digest = hashlib.sha256()
    for record in recording.records:
        for name in ("forward_pass_id", "gatherer_key", "positions", "input_ids", "topk_ids_of_layer"):
            value = record.get(name)
            if isinstance(value, np.ndarray):
                digest.update(f"{value.dtype}{value.shape}".encode() + np.ascontiguousarray(value).tobytes())
            else:
                digest.update(repr(value).encode(errors="backslashreplace"))
    return digest.digest()


IMPORTER = Importer(
    "sglang_per_token",
    "SGLang's recorder, mode per_token: a rank's .pt, or a folder of them",
    sniff,
    read,
    uses=frozenset({"model", "experts", "top_k", "layers", "expert_map", "domain", "dataset"}),
    folders=True,
)
