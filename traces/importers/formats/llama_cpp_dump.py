"""llama.cpp's routing tensors, written out by an eval callback: ``ffn_moe_topk-<l>`` and ``ffn_moe_weights-<l>``.

A folder of ``.npy`` or ``.bin`` files, or one ``.npz``, with those names; weights may be absent. Several evaluations
of the graph are told apart by a number before the name: ``<evaluation>/ffn_moe_topk-<l>`` (a folder each, or so named
in the ``.npz``), in ascending order. How the tensors stand (NumPy's axes are ggml's reversed):

* ``ffn_moe_topk-<l>``: integers ``[tokens, stride]``, of which the first k of a row are the chosen, best first. ggml
  makes the tensor a *view* into a sort of all experts, so that its row stride is that of all experts. A ``.bin`` holds
  the view's bytes as ``ggml_backend_tensor_get`` gives ``ggml_nbytes`` of them: i32, (tokens − 1) · experts + k
  numbers, the last row without its padding. Arrays may have the padding (stride = experts) or not (stride = k).
* ``ffn_moe_weights-<l>``: ``[tokens, k]``, a third axis of 1 allowed; a ``.bin`` of f32.

k comes from the weights, ``--top-k`` or the model. In the last layer of a prompt only the last token may be there.
Evaluations of several tokens are prefill, of one decode; ``ForwardPasses`` tells where sequences begin.

The log that ``llama-eval-callback`` prints is refused: it rounds, and leaves out all but the first and last values.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog import load_catalog
from catalog.errors import ForestageError
from traces.importers.assembly.array_file import UNNAMED, read_arrays
from traces.importers.assembly.builder import TraceBuilder
from traces.importers.assembly.forward_passes import ForwardPasses
from traces.importers.assembly.models import RecordedModel
from traces.importers.assembly.row_trace import ROW_OPTIONS, label, model_of_layers, source_of
from traces.importers.assembly.text_file import readable
from traces.importers.importer import Importer
from traces.importers.options import ImportOptions
from traces.importers.report import Report
from traces.trace import DECODE, PREFILL, RoutingTrace

NAME = "llama_cpp_dump"
TENSOR = re.compile(r"(?:([0-9]{1,9})/)?ffn_moe_(topk|weights)-([0-9]{1,5})")
LOG_MARKS = (b"ggml_debug:", b"common_debug_cb_eval:")

Array = npt.NDArray[Any]
Tensors = dict[tuple[str, int], tuple[str, Path | Array]]
"""Of one evaluation, by kind and layer: what to call it, and its file or contents."""


def sniff(path: Path, start: bytes) -> bool:
    """A folder or ``.npz`` with such a tensor, or the log of ``llama-eval-callback``."""
    if path.is_dir():
        return bool(_folder_files(path))
    if start.startswith(b"PK\x03\x04"):
        return b"ffn_moe_topk-" in start or b"ffn_moe_weights-" in start
    return _is_log(start)


def read(path: Path, options: ImportOptions, report: Report) -> RoutingTrace:
    """Import ``path``, a folder or an ``.npz``.

    Raises:
        ForestageError: naming the file and tensor that is not as described above, or what an option must say.
    """
    evaluations = _evaluations(path)
    first = evaluations[min(evaluations)]
    layers = tuple(sorted(layer for kind, layer in first if kind == "topk"))
    weighted = any(kind == "weights" for kind, _ in first)
    if weighted and (lacking := [layer for layer in layers if ("weights", layer) not in first]):
        raise ForestageError(f"{path}: lacks ffn_moe_weights-{lacking[0]}, which other layers have")
    top_k = _top_k(options, path, first)
    model = model_of_layers(options, path, layers, top_k)
    if top_k > model.experts:
        raise ForestageError(f"{path}: top-k {top_k} of {model.experts} experts; see --top-k and --experts")
    builder = TraceBuilder(path, layers=len(layers), top_k=top_k, weights=weighted)
    passes = ForwardPasses()
    ascending = True
    for done, (number, tensors) in enumerate(sorted(evaluations.items())):
        report.progress(done, len(evaluations))
        place = f"{path}: evaluation {number}"
        if number != min(evaluations) + done:
            raise ForestageError(f"{place}: the one before is missing; a sequence would have a gap that nothing shows")
        if set(tensors) != set(first):
            kind, layer = sorted(set(tensors) ^ set(first))[0]
            state = "has" if (kind, layer) in tensors else "lacks"
            raise ForestageError(f"{place}: {state} ffn_moe_{kind}-{layer}, unlike the first")
        ids, weights = _evaluation(tensors, layers, top_k, model)
        ascending = ascending and bool((np.diff(ids[-1], axis=1) > 0).all())
        if passes.begins(len(ids), place):
            builder.end_sequence(*label(options, NAME))
        phase = PREFILL if len(ids) > 1 else DECODE
        builder.append(ids, weights=weights if weighted else None, phase=phase, where=f"evaluation {number}")
    builder.end_sequence(*label(options, NAME))
    report.progress(len(evaluations), len(evaluations))
    return builder.finish(
        model,
        report,
        source=source_of(NAME, path),
        ranked=None if weighted else top_k == 1 or not ascending,
        missing_told=True,
    )


def _is_log(start: bytes) -> bool:
    """Whether a text is the log of ``llama-eval-callback``."""
    return any(mark in start for mark in LOG_MARKS)


def _folder_files(folder: Path) -> dict[str, Path]:
    """Tensor files by name (``0/ffn_moe_topk-1``) in a folder and the folders in it."""
    files: dict[str, Path] = {}
    for file in sorted([*folder.glob("ffn_moe_*"), *folder.glob("*/ffn_moe_*")]):
        name = file.relative_to(folder).with_suffix("").as_posix()
        if file.suffix not in (".npy", ".bin") or not TENSOR.fullmatch(name):
            continue
        if name in files:
            raise ForestageError(f"{file}: the tensor is also in {files[name].name}; remove one of them")
        files[name] = file
    return files


def _evaluations(path: Path) -> dict[int, Tensors]:
    """The tensors of every evaluation, by its number."""
    named: Mapping[str, Path | Array]
    if path.is_dir():
        named = _folder_files(path)
    else:
        with readable(path), path.open("rb") as file:
            start = file.read(1 << 16)
        if _is_log(start):
            raise ForestageError(
                f"{path}: the log of llama-eval-callback rounds and leaves out values (...); write the tensors' bytes "
                "into a folder instead, as docs/importing.md shows, and import that"
            )
        named = read_arrays(path)
    found: dict[int, Tensors] = {}
    numbered: set[bool] = set()
    for name, tensor in named.items():
        match = TENSOR.fullmatch(name)
        if match is None:
            continue
        numbered.add(match[1] is not None)
        if len(numbered) > 1:
            raise ForestageError(
                f"{path}: some tensors have an evaluation's number (0/ffn_moe_topk-0), others have not"
            )
        what = str(tensor) if isinstance(tensor, Path) else f"{path}: {name}"
        tensors = found.setdefault(int(match[1] or 0), {})
        key = (match[2], int(match[3]))
        if key in tensors:
            raise ForestageError(f"{what}: the tensor is also in {tensors[key][0]}; remove one of them")
        tensors[key] = (what, tensor)
    if not found or not any(kind == "topk" for kind, _ in found[min(found)]):
        raise ForestageError(f"{path}: holds no ffn_moe_topk-<layer>")
    return found


def _top_k(options: ImportOptions, path: Path, tensors: Tensors) -> int:
    """k, from the user, the weights or the catalogue."""
    if options.top_k is not None:
        return options.top_k
    for kind, layer in sorted(tensors):
        what, tensor = tensors[kind, layer]
        if kind == "weights" and not (isinstance(tensor, Path) and tensor.suffix == ".bin"):
            return int(_weights(what, tensor, None).shape[1])
    record = None if options.model is None else load_catalog().match_shape(options.model)
    if record is None:
        raise ForestageError(
            f"{path}: top-k: the tensors do not say how many experts a token uses; give --top-k, or name a model of "
            "the catalogue with --model"
        )
    return record.top_k


def _evaluation(
    tensors: Tensors, layers: tuple[int, ...], top_k: int, model: RecordedModel
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Ids (−1 where missing) and weights (0 without) of an evaluation, both ``[tokens, layers, top_k]``."""
    chosen = {layer: _chosen(*tensors["topk", layer], top_k, model.experts) for layer in layers}
    tokens = max(len(part) for part in chosen.values())
    ids = np.full((tokens, len(layers), top_k), -1, dtype=np.int64)
    weights = np.zeros(ids.shape)
    for column, layer in enumerate(layers):
        part = chosen[layer]
        if len(part) != tokens and (layer != layers[-1] or len(part) != 1):
            raise ForestageError(f"{tensors['topk', layer][0]}: {len(part)} tokens; another layer has {tokens}")
        ids[tokens - len(part) :, column] = part
        if ("weights", layer) in tensors:
            what, tensor = tensors["weights", layer]
            values = _weights(what, tensor, top_k)
            if values.shape != part.shape:
                raise ForestageError(f"{what}: {list(values.shape)}; the ids have {list(part.shape)}")
            weights[tokens - len(part) :, column] = values
    return ids, weights


def _chosen(what: str, tensor: Path | Array, top_k: int, experts: int) -> npt.NDArray[np.int64]:
    """The chosen experts ``[tokens, top_k]`` of a tensor ``ffn_moe_topk``."""
    if isinstance(tensor, Path) and tensor.suffix == ".bin":
        numbers = _from_bytes(tensor, np.dtype("<i4"))
        rows, rest = divmod(len(numbers) - top_k, experts)
        if rows < 0 or rest:
            raise ForestageError(
                f"{what}: {len(numbers)} numbers; expected (tokens - 1) · {experts} + {top_k}, the view's bytes (see "
                "--experts, --top-k)"
            )
        padding = np.zeros(experts - top_k, dtype=numbers.dtype)
        array: Array = np.concatenate([numbers, padding]).reshape(-1, experts)
    else:
        array = _array(tensor)
    if array.dtype.kind not in "iu" or array.ndim != 2 or array.shape[1] not in (top_k, experts) or not len(array):
        raise ForestageError(
            f"{what}: {array.dtype} {list(array.shape)}; expected integers [tokens, {experts}] or [tokens, {top_k}]"
        )
    chosen = array[:, :top_k].astype(np.int64)
    ordered = np.sort(chosen, axis=1)
    bad = (chosen < 0).any(axis=1) | (chosen >= experts).any(axis=1) | (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
    if bad.any():
        token = int(np.argmax(bad))
        raise ForestageError(
            f"{what}: token {token}: {chosen[token].tolist()}; expected distinct experts from 0 to {experts - 1} (was "
            "the row stride kept?)"
        )
    return chosen


def _weights(what: str, tensor: Path | Array, top_k: int | None) -> npt.NDArray[np.float64]:
    """The weights ``[tokens, k]`` of a tensor ``ffn_moe_weights``."""
    if isinstance(tensor, Path) and tensor.suffix == ".bin":
        numbers = _from_bytes(tensor, np.dtype("<f4"))
        if top_k is None or not len(numbers) or len(numbers) % top_k:
            raise ForestageError(f"{what}: {len(numbers)} numbers, which is no multiple of the top-k {top_k}")
        array: Array = numbers.reshape(-1, top_k)
    else:
        array = _array(tensor)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.dtype.kind != "f" or array.ndim != 2 or 0 in array.shape:
        raise ForestageError(f"{what}: {array.dtype} {list(array.shape)}; expected floats [tokens, k]")
    values = array.astype(np.float64)
    bad = np.argwhere(~(np.isfinite(values) & (values >= 0)))
    if len(bad):
        token, slot = (int(place) for place in bad[0])
        raise ForestageError(f"{what}: token {token}: weight {values[token, slot]}; must be finite and not negative")
    return values


def _array(tensor: Path | Array) -> Array:
    """The array itself, read where it is a file."""
    if not isinstance(tensor, Path):
        return tensor
    arrays = read_arrays(tensor)
    if UNNAMED not in arrays:
        raise ForestageError(f"{tensor}: holds no single array; expected .npy")
    return arrays[UNNAMED]


def _from_bytes(file: Path, dtype: np.dtype[Any]) -> Array:
    """The numbers of a ``.bin``."""
    with readable(file):
        data = file.read_bytes()
    if len(data) % dtype.itemsize:
        raise ForestageError(f"{file}: {len(data)} bytes, which is no multiple of {dtype.itemsize}; was it cut off?")
    return np.frombuffer(data, dtype=dtype)


IMPORTER = Importer(
    NAME,
    "llama.cpp's ffn_moe_topk-<l> and ffn_moe_weights-<l>, a folder (.npy, .bin) or .npz",
    sniff,
    read,
    ROW_OPTIONS,
    folders=True,
)
