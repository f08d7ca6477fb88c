"""The bias that routers add to their scores for the choice alone, from a file of its own or the model's weights.

Read are, in any kind of file of arrays (``array_file``; of ``.safetensors``, every floating-point type):

* one array ``[layers, experts]``, a row a recorded layer, in their order. Of a model of the catalogue, also a row a MoE
  layer of the model's, or a row a layer of all of them, if those of the dense ones are empty (zeros or NaN; in a list
  of a ``.pt``, ``None``): the recorded layers' rows are then taken by the model's index;
* an array ``[experts]`` (or ``[1, experts]``) a layer, named as in the model, ``model.layers.3.mlp.gate.
  e_score_correction_bias``: the names end in one of ``NAMES`` and hold the model's own layer number. A checkpoint's
  ``.safetensors`` will do as it is, and so will the folder of its parts: only those tensors are read.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog import ModelRecord
from catalog.errors import ForestageError
from traces.importers.assembly import torch_file
from traces.importers.assembly.array_file import UNNAMED, is_safetensors, read_arrays
from traces.importers.assembly.text_file import starting_bytes

NAMES = ("e_score_correction_bias", "expert_bias", "exp_probs_b", "exp_probs_b.bias")
"""Ends of the biases' names: transformers' DeepSeek-V3 and its kin, LFM2 and AFMoE, and GGUF's."""

TENSOR = re.compile(r"(?:.*\.)?(?:layers|blk)\.(\d{1,5})\.(?:.*\.)?(?:" + "|".join(map(re.escape, NAMES)) + ")")

Floats = npt.NDArray[np.float32]


def read_selection_bias(
    path: Path,
    *,
    layers: Sequence[int] | None,
    count: int,
    experts: int,
    may_repeat: bool,
    record: ModelRecord | None = None,
) -> tuple[Floats, bool]:
    """The bias ``[count, experts]``, and whether one row stands for all layers.

    Args:
        path: a file, or a folder of ``.safetensors``.
        layers: the model's index of each recorded layer, where it is known; ``None``: not known, so that names must be
            as many as the recorded layers.
        count: recorded layers.
        experts: a layer's.
        may_repeat: one row may stand for all layers.
        record: the model's, where the catalogue has it.

    Raises:
        ForestageError: naming the file, and the array that is missing, of another shape or not finite.
    """
    if path.is_dir():
        named = _folder_biases(path)
    else:
        arrays = _arrays(path)
        named = {name: array for name, array in arrays.items() if TENSOR.fullmatch(name)}
        if not named:
            return _whole(path, arrays, layers, count, experts, may_repeat, record)
    return _by_layer(path, named, layers, count, experts), False


def _whole(
    path: Path,
    arrays: dict[str, npt.NDArray[Any]],
    layers: Sequence[int] | None,
    count: int,
    experts: int,
    may_repeat: bool,
    record: ModelRecord | None,
) -> tuple[Floats, bool]:
    """The one array of a file."""
    if len(arrays) != 1:
        raise ForestageError(
            f"{path}: holds {len(arrays)} arrays, and none is named like a router's bias "
            "(model.layers.3.mlp.gate.e_score_correction_bias); give one array [layers, experts], or arrays so named"
        )
    (name, array), *_ = arrays.items()
    what = f"{path}: {name}" if name else str(path)
    row = array.size == experts and array.shape in ((experts,), (1, experts))
    if row and count > 1 and not may_repeat:
        raise ForestageError(
            f"{what}: {list(array.shape)}, one row for {count} layers; every layer has a bias of its own: give "
            f"[{count}, {experts}]"
        )
    if not row and array.shape != (count, experts):
        return _recorded_rows(what, array, layers, count, experts, record), False
    values = _floats(what, array)
    return np.broadcast_to(values.reshape(-1, experts), (count, experts)), row and count > 1


def _recorded_rows(
    what: str,
    array: npt.NDArray[Any],
    layers: Sequence[int] | None,
    count: int,
    experts: int,
    record: ModelRecord | None,
) -> Floats:
    """The recorded layers' rows of an array that has others too.

    Raises:
        ForestageError: unless the number of rows is the model's MoE layers, or all of its layers and those of the dense
            ones are empty.
    """
    expected = f"expected [{count}, {experts}], a row a recorded layer"
    if array.ndim != 2 or array.shape[1] != experts or len(array) < count:
        raise ForestageError(f"{what}: {list(array.shape)}; {expected}")
    if record is None or layers is None or len(array) not in (record.layers, record.moe_layers):
        of_model = f" ({record.name} has {record.layers} layers, {record.moe_layers} with experts)" if record else ""
        raise ForestageError(
            f"{what}: {list(array.shape)}; {expected}: which rows these are, nothing tells{of_model}; leave the others "
            "out, or name an array by its layer: model.layers.3.mlp.gate.e_score_correction_bias"
        )
    if len(array) == record.moe_layers:
        return _rows_of(what, array, np.searchsorted(record.layer_map, layers).tolist())
    dense = sorted(set(range(record.layers)) - set(record.layer_map))
    with_values = [layer for layer in dense if not _is_empty(array[layer])]
    if with_values:
        raise ForestageError(
            f"{what}: {list(array.shape)}: row {with_values[0]} would be of a layer that is dense in {record.name}, "
            f"but is not empty; {expected}, in their order ({_ranges(layers)})"
        )
    return _rows_of(what, array, layers)


def _rows_of(what: str, array: npt.NDArray[Any], rows: Sequence[int]) -> Floats:
    """Some rows, checked; errors name them as the file has them."""
    return np.stack([_floats(f"{what}[{row}]", array[row]) for row in rows])


def _is_empty(row: npt.NDArray[Any]) -> bool:
    """Whether a row says that there is no bias."""
    return not row.any() or (row.dtype.kind == "f" and bool(np.isnan(row).all()))


def _ranges(layers: Sequence[int]) -> str:
    """Layer numbers, in short."""
    whole = len(layers) == layers[-1] - layers[0] + 1
    return f"layers {layers[0]} to {layers[-1]}" if whole else "layers " + ", ".join(map(str, layers))


def _by_layer(
    path: Path, named: dict[str, npt.NDArray[Any]], layers: Sequence[int] | None, count: int, experts: int
) -> Floats:
    """Arrays named by the model's layers."""
    found: dict[int, tuple[str, npt.NDArray[Any]]] = {}
    for name, array in named.items():
        match = TENSOR.fullmatch(name)
        assert match is not None
        layer = int(match[1])
        if layer in found:
            raise ForestageError(f"{path}: {name}: layer {layer} also has {found[layer][0]}; leave one of them out")
        found[layer] = (name, array)
    if layers is None:
        if len(found) != count:
            raise ForestageError(
                f"{path}: has the biases of {len(found)} layers ({_some(found)}), the recording has {count} layers; "
                "say which they are with --layers"
            )
        layers = sorted(found)
    lacking = [layer for layer in layers if layer not in found]
    if lacking:
        raise ForestageError(
            f"{path}: lacks the bias of layer {lacking[0]}; has {_some(found)} (the recorded layers, by the model's "
            "index: see --layers)"
        )
    rows = []
    for layer in layers:
        name, array = found[layer]
        if array.shape not in ((experts,), (1, experts)):
            raise ForestageError(f"{path}: {name}: {list(array.shape)}; expected [{experts}]")
        rows.append(_floats(f"{path}: {name}", array).reshape(experts))
    return np.stack(rows)


def _some(layers: dict[int, Any]) -> str:
    """Layer numbers, in short."""
    numbers = sorted(layers)
    return f"layers {numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else f"layer {numbers[0]}"


def _floats(what: str, array: npt.NDArray[Any]) -> Floats:
    """The numbers, checked."""
    if array.dtype.kind not in "fiu":
        raise ForestageError(f"{what}: {array.dtype}; expected numbers")
    with np.errstate(over="ignore"):  # becomes inf, which is refused
        values = array.astype(np.float32)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        raise ForestageError(f"{what}{[int(place) for place in bad[0]]}: not finite")
    return values


def _folder_biases(folder: Path) -> dict[str, npt.NDArray[Any]]:
    """The biases in the parts of a checkpoint."""
    named: dict[str, npt.NDArray[Any]] = {}
    for part in sorted(folder.glob("*.safetensors")):
        named |= _safetensors(part, only_biases=True)
    if not named:
        raise ForestageError(
            f"{folder}: no .safetensors in it has a router's bias (such as model.layers.3.mlp.gate."
            "e_score_correction_bias)"
        )
    return named


def _arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a file; of a safetensors file with biases, these alone."""
    start = starting_bytes(path, 1 << 10)
    if is_safetensors(start):
        return _safetensors(path, only_biases=True) or _safetensors(path, only_biases=False)
    if torch_file.is_torch_file(start):
        value = torch_file.load(path)
        if isinstance(value, (list, tuple)):
            return _listed(path, value)
        value = value if isinstance(value, dict) else {UNNAMED: value}
        return {str(name): part for name, part in value.items() if isinstance(part, np.ndarray)}
    return read_arrays(path)


def _listed(path: Path, rows: Sequence[Any]) -> dict[str, npt.NDArray[Any]]:
    """A list of rows as one array; ``None`` becomes a row of NaN.

    Raises:
        ForestageError: if it is of other things, or its rows differ in length.
    """
    given = [row for row in rows if row is not None]
    shapes = {row.shape if isinstance(row, np.ndarray) else None for row in given}
    if len(shapes) != 1 or None in shapes or given[0].ndim != 1:
        raise ForestageError(f"{path}: a list; expected the bias [experts] of a layer in each place, or None")
    none = np.full(given[0].shape, np.nan, np.float32)
    return {UNNAMED: np.stack([none if row is None else row.astype(np.float32) for row in rows])}


def _safetensors(path: Path, *, only_biases: bool) -> dict[str, npt.NDArray[Any]]:
    """Tensors by name; a checkpoint's other tensors are not read."""
    from safetensors import SafetensorError, safe_open

    arrays: dict[str, npt.NDArray[Any]] = {}
    try:
        with safe_open(path, framework="np") as file:
            names = list(file.keys())
            if not only_biases and len(names) > 1:
                return {name: np.empty(0) for name in names}
            for name in names:
                if only_biases and not TENSOR.fullmatch(name):
                    continue
                if file.get_slice(name).get_dtype() == "BF16":
                    arrays[name] = torch_file.load_safetensors(path, name)
                else:
                    arrays[name] = np.asarray(file.get_tensor(name))
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise ForestageError(f"{path}: damaged or no safetensors file ({' '.join(str(error).split())})") from error
    return arrays
