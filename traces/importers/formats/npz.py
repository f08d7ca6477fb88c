"""Recordings kept as ``NAME.npz`` with ``NAME.sequences.jsonl`` beside it.

Arrays: ``expert_ids [tokens, layers, top_k]``, ``seq_offsets [sequences + 1]`` and, optionally,
``gate_weights [tokens, layers, top_k]``, ``token_pos [tokens]`` (absolute context position), ``token_crc32 [tokens]``.
A line of the jsonl a sequence: ``dataset``, ``category``, ``n_tokens`` and, optionally, ``n_prompt_tokens``.

A token at or beyond its sequence's ``n_prompt_tokens`` is decode; a sequence without that field is all of the phase
that the user names, else prefill. Without ``token_pos``, positions count from the sequence's start. The file names no
model: it is taken from the argument, from the name of a published recording, or from the one catalogue model with as
many MoE layers and the same top-k.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from catalog.config import describe_validation_error
from catalog.errors import ForestageError
from catalog.json_text import parse_json
from traces.importers.assembly.array_file import reason
from traces.importers.assembly.models import recorded_model
from traces.importers.assembly.recordings import model_of_name, published_recording
from traces.importers.assembly.torch_file import is_torch_file
from traces.importers.assembly.values import LARGEST_WEIGHT, are_ranked, narrow, pack_ids, weight_kind
from traces.importers.importer import Importer
from traces.importers.options import ImportOptions
from traces.importers.report import Report
from traces.metadata import TraceMetadata
from traces.schema import DECODE, PREFILL
from traces.trace import RoutingTrace

Arrays = dict[str, npt.NDArray[Any]]

REQUIRED = ("expert_ids", "seq_offsets")
OPTIONAL = ("gate_weights", "token_pos", "token_crc32")


class SequenceRecord(BaseModel):
    """A line of ``.sequences.jsonl``; further keys are the recording's own and are left alone."""

    model_config = ConfigDict(frozen=True, extra="allow")

    dataset: str
    category: str
    n_tokens: int = Field(ge=1)
    n_prompt_tokens: int | None = Field(default=None, ge=0)


def sniff(path: Path, start: bytes) -> bool:
    """A zip file that PyTorch did not write, or one named ``.npz``."""
    return (start.startswith(b"PK\x03\x04") and not is_torch_file(start)) or path.suffix == ".npz"


def read(path: Path, options: ImportOptions, report: Report) -> RoutingTrace:
    """Import ``path``; ``options.model`` overrides what the file's name or shape tells.

    Raises:
        ForestageError: if the archive is damaged, an array or label is missing or wrong, or the model is unknown.
    """
    arrays = _read_arrays(path)
    ids, offsets = arrays["expert_ids"], arrays["seq_offsets"].astype(np.int64)
    tokens, layers, top_k = ids.shape
    records = read_sequence_records(path)
    _check_lengths(path, records, offsets, tokens)
    named = model_of_name(path) if options.model is None else None
    model = recorded_model(
        options, report, origin=str(path), layers=layers, top_k=top_k, used_layers=range(layers), name=named
    )
    if len(model.kept_layers) != layers:
        dense = min(set(range(layers)) - set(model.kept_layers))
        raise ForestageError(f"{path}: expert_ids: layer {dense} is dense in {model.name}; name the right model")
    unrecorded = _unrecorded(path, ids, report)
    packed = pack_ids(np.where(unrecorded[:, :, None], 0, ids), model.experts, str(path))
    packed[unrecorded] = np.iinfo(packed.dtype).max
    recording = published_recording(packed)
    if named is not None and recording is None:
        report.warn(f"{path}: names no model; taken for {named} by the file's name (--model, if it is another)")
    starts = np.repeat(offsets[:-1], np.diff(offsets))
    position = arrays["token_pos"] if "token_pos" in arrays else np.arange(tokens) - starts
    weights, hashes = arrays.get("gate_weights"), arrays.get("token_crc32")
    if weights is not None:
        _check_weights(path, weights)
        weights = np.where(unrecorded[:, :, None], 0, weights).astype(np.float16)
    judged = None if weights is None else weights[~unrecorded]
    return RoutingTrace(
        expert_ids=packed,
        gate_weights=weights,
        sequence_offsets=offsets,
        position=narrow(position, np.int32, "token_pos", str(path)),
        phase=_phases(path, options, records, offsets, position),
        token_hash=hashes if hashes is None else narrow(hashes, np.uint32, "token_crc32", str(path)),
        domains=tuple(record.category for record in records),
        datasets=tuple(record.dataset for record in records),
        metadata=TraceMetadata.parse(
            {
                "model": model.name,
                "experts": model.experts,
                "top_k": top_k,
                "layer_map": model.layer_map,
                "ranked": judged is not None and are_ranked(judged),
                "gate_weight_kind": "none" if judged is None else weight_kind(judged),
                "has_unrecorded": bool(unrecorded.any()),
                "source": recording.source if recording else f"imported from {path.name}",
                "licence": recording.licence if recording else "not stated",
            },
            origin=str(path),
        ),
        origin=str(path),
    )


def _unrecorded(path: Path, ids: npt.NDArray[Any], report: Report) -> npt.NDArray[np.bool_]:
    """bool ``[tokens, layers]``: rows of −1, or of zeros where a row has several ids, which are no choice; told.

    Raises:
        ForestageError: if there is no other row.
    """
    first = ids[:, :, 0]
    missing = (first == -1) & (ids == -1).all(axis=2)
    zeros = (first == 0) & (ids == 0).all(axis=2) if ids.shape[2] > 1 else np.zeros_like(missing)
    for rows, what in ((missing, "-1"), (zeros, "zeros")):
        if rows.any():
            report.warn(f"{path}: {int(rows.sum())} rows (token, layer) hold only {what}; they count as not recorded")
    if (missing | zeros).all():
        raise ForestageError(f"{path}: expert_ids: every row holds only -1 or zeros; nothing was recorded")
    return missing | zeros


def read_sequence_records(path: Path) -> tuple[SequenceRecord, ...]:
    """The lines of ``NAME.sequences.jsonl`` beside ``NAME.npz``, with the recording's own keys as extra attributes.

    Raises:
        ForestageError: if the file is missing or a line is no such record.
    """
    beside = path.with_name(path.name.removesuffix(".npz") + ".sequences.jsonl")
    try:
        lines = beside.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ForestageError(
            f"{beside}: cannot read ({reason}); it must lie beside {path.name} with a line a sequence: "
            "dataset, category, n_tokens"
        ) from error
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(SequenceRecord.model_validate(parse_json(line)))
        except ValidationError as error:
            raise ForestageError(
                f"{beside}: line {number}: {describe_validation_error(SequenceRecord, error)}"
            ) from error
        except (ValueError, RecursionError) as error:
            raise ForestageError(f"{beside}: line {number}: not valid JSON ({error})") from error
    return tuple(records)


def _read_arrays(path: Path) -> Arrays:
    """The known arrays of the archive, their kinds and shapes checked."""
    try:
        with path.open("rb") as stream:
            start = stream.read(6)
        # NumPy would take anything else for a pickle, and advise to load that.
        if start and not start.startswith((b"PK", b"\x93NUMPY")):
            raise ForestageError(f"{path}: not an .npz archive; leave --format out or choose another")
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ForestageError(f"{path}: a single array; expected an .npz archive of {', '.join(REQUIRED)}")
            arrays = {name: archive[name] for name in (*REQUIRED, *OPTIONAL) if name in archive.files}
            found = ", ".join(archive.files)
    except OSError as error:
        raise ForestageError(f"{path}: cannot read ({error.strerror or error})") from error
    except ForestageError:
        raise
    except Exception as error:  # a header is parsed as Python's literals, which can fail in many ways
        raise ForestageError(f"{path}: damaged or truncated .npz ({reason(error)}); fetch it again") from error
    for name in REQUIRED:
        if name not in arrays:
            logits = "router_logits" in found
            raise ForestageError(
                f"{path}: {name}: missing array; the archive holds {found or 'nothing'}"
                + ("; router logits are imported from a .pt or .safetensors: docs/router-logits.md" if logits else "")
            )
    ids = arrays["expert_ids"]
    if ids.dtype.kind not in "iu" or ids.ndim != 3 or 0 in ids.shape:
        raise ForestageError(
            f"{path}: expert_ids: {ids.dtype} {list(ids.shape)}; expected integers [tokens, layers, k]"
        )
    expected = {
        "seq_offsets": ("iu", None),
        "gate_weights": ("f", ids.shape),
        "token_pos": ("iu", ids.shape[:1]),
        "token_crc32": ("iu", ids.shape[:1]),
    }
    for name, (kinds, shape) in expected.items():
        array = arrays.get(name)
        if array is not None and (array.dtype.kind not in kinds or (shape is not None and array.shape != shape)):
            raise ForestageError(
                f"{path}: {name}: {array.dtype} {list(array.shape)} does not fit expert_ids {list(ids.shape)}"
            )
    return arrays


def _check_weights(path: Path, weights: npt.NDArray[np.floating]) -> None:
    """Refuse what a trace's f16 cannot hold; the trace itself tells of NaN."""
    bad = np.argwhere(weights > LARGEST_WEIGHT)
    if len(bad):
        token, layer, choice = (int(i) for i in bad[0])
        raise ForestageError(
            f"{path}: gate_weights[{token}, {layer}, {choice}]: {weights[token, layer, choice]:g}; expected at most "
            f"{LARGEST_WEIGHT:g}"
        )


def _check_lengths(
    path: Path, records: tuple[SequenceRecord, ...], offsets: npt.NDArray[np.int64], tokens: int
) -> None:
    """One record a sequence, of the same length; offsets from 0 to ``tokens``."""
    if (
        offsets.ndim != 1
        or len(offsets) < 2
        or offsets[0] != 0
        or offsets[-1] != tokens
        or np.any(np.diff(offsets) < 1)
    ):
        raise ForestageError(f"{path}: seq_offsets: must ascend from 0 to the number of tokens ({tokens})")
    if len(records) != len(offsets) - 1:
        raise ForestageError(
            f"{path}: the archive has {len(offsets) - 1} sequences, its .sequences.jsonl {len(records)} lines"
        )
    for number, (record, length) in enumerate(zip(records, np.diff(offsets).tolist(), strict=True), start=1):
        if record.n_tokens != length:
            raise ForestageError(
                f"{path}: .sequences.jsonl line {number}: n_tokens is {record.n_tokens}, seq_offsets give {length}"
            )


def _phases(
    path: Path,
    options: ImportOptions,
    records: tuple[SequenceRecord, ...],
    offsets: npt.NDArray[np.int64],
    position: npt.NDArray[Any],
) -> npt.NDArray[np.uint8]:
    """u8 ``[tokens]``: decode from ``n_prompt_tokens`` on; ``options.phase``, or prefill, where that is not stated."""
    if options.phase is not None and all(record.n_prompt_tokens is not None for record in records):
        raise ForestageError(f"{path}: --phase: every sequence states its n_prompt_tokens; leave it out")
    silent = 0 if options.phase == "decode" else np.iinfo(np.int64).max
    prompts = np.array([silent if r.n_prompt_tokens is None else r.n_prompt_tokens for r in records], dtype=np.int64)
    is_decode = position >= np.repeat(prompts, np.diff(offsets))
    return np.where(is_decode, DECODE, PREFILL).astype(np.uint8)


IMPORTER = Importer(
    "npz",
    "NAME.npz with NAME.sequences.jsonl beside it",
    sniff,
    read,
    uses=frozenset({"model", "experts", "top_k", "layers", "phase"}),
)
