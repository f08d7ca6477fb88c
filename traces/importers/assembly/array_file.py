"""Read files of a few named arrays (``.pt``, ``.npz``, ``.npy``, ``.safetensors``, JSON), recognised by content."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError
from catalog.json_text import parse_json
from traces.importers.assembly import torch_file
from traces.importers.assembly.text_file import open_text, starting_bytes
from traces.safetensors_file import open_tensors

UNNAMED = ""
"""The name given to a file's only array if the file has no names."""

MAX_JSON_CHARACTERS = 1 << 28

MAX_REASON_CHARACTERS = 200


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays of ``path`` by name; in JSON, nested lists of numbers; other values are left out.

    An ``.npz`` may contain Python objects (``None``, lists of unequal length), which are pickles and are not loaded: an
    array of type ``object`` stands in their place.

    Raises:
        ForestageError: if the file cannot be read, is damaged or in none of those formats.
    """
    named = _read_named(path)
    if isinstance(named, np.ndarray):
        return {UNNAMED: named}
    if UNNAMED in named:
        raise ForestageError(f"{path}: an array whose name is empty; name it")
    return named


def _read_named(path: Path) -> dict[str, npt.NDArray[Any]] | npt.NDArray[Any]:
    """The arrays by name, or the only array of a file without names."""
    start = starting_bytes(path, 1 << 10)
    if torch_file.is_torch_file(start):
        value = torch_file.load(path)
        if isinstance(value, np.ndarray):
            return value
        return (
            {str(name): part for name, part in value.items() if isinstance(part, np.ndarray)}
            if isinstance(value, dict)
            else {}
        )
    if start.startswith((b"PK\x03\x04", b"\x93NUMPY")):
        return _numpy_arrays(path)
    if is_safetensors(start):
        return dict(open_tensors(path).tensors)
    if start.lstrip()[:1] in (b"{", b"["):
        return _json_arrays(path)
    raise ForestageError(f"{path}: no file of arrays; give a .pt, .npz, .npy, .safetensors or .json")


def is_safetensors(start: bytes) -> bool:
    """Whether a file that starts so is safetensors: a header length below 2⁴⁸, then JSON."""
    return len(start) > 8 and start[8:9] == b"{" and start[6:8] == b"\0\0"


def reason(error: Exception) -> str:
    """NumPy's message about a damaged file, on one line of bounded length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= MAX_REASON_CHARACTERS else text[: MAX_REASON_CHARACTERS - 3] + "..."


def _numpy_arrays(path: Path) -> dict[str, npt.NDArray[Any]] | npt.NDArray[Any]:
    """The arrays of an ``.npz`` or ``.npy``."""
    try:
        with path.open("rb") as stream:
            loaded = np.load(stream, allow_pickle=False)
            if isinstance(loaded, np.lib.npyio.NpzFile):
                return {name: _member(loaded, name) for name in loaded.files}
            return np.asarray(loaded)
    except OSError as error:
        raise ForestageError(f"{path}: cannot read ({error.strerror or error})") from error
    except Exception as error:  # a header is parsed as Python's literals, which can fail in many ways
        raise ForestageError(f"{path}: damaged or truncated ({reason(error)}); fetch it again") from error


def _member(archive: np.lib.npyio.NpzFile, name: str) -> npt.NDArray[Any]:
    """An array of an ``.npz``; an array with ``None`` in place of Python objects, which are not loaded."""
    try:
        return np.asarray(archive[name])
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        return np.array(None)


def _json_arrays(path: Path) -> dict[str, npt.NDArray[Any]] | npt.NDArray[Any]:
    """The arrays of a JSON document: an object of nested lists, or one nested list."""
    with open_text(path) as (text, _):
        document = text.read(MAX_JSON_CHARACTERS)
    try:
        value = parse_json(document)
    except (ValueError, RecursionError) as error:
        raise ForestageError(f"{path}: not valid JSON ({error})") from error
    if isinstance(value, dict):
        return {name: _array(path, name, part) for name, part in value.items() if isinstance(part, list)}
    return _array(path, "the list", value)


def _why_no_array(value: Any, otherwise: str) -> str:
    """What is wrong with nested lists that are no array: the first row that is not as long as the first."""
    lengths = [len(row) if isinstance(row, list) else 0 for row in value] if isinstance(value, list) else []
    odd = next((row for row, length in enumerate(lengths) if length != lengths[0]), None)
    if odd is not None:
        return f"row {odd} has {lengths[odd]} numbers, but row 0 has {lengths[0]}; expected rows of one length"
    return f"no array of numbers ({otherwise})"


def _array(path: Path, name: str, value: Any) -> npt.NDArray[Any]:
    """A nested list as an array."""
    try:
        return np.array(value)
    except (ValueError, OverflowError) as error:
        raise ForestageError(f"{path}: {name}: {_why_no_array(value, reason(error))}") from error
