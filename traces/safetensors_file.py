"""Read and write safetensors files without holding them in memory.

The format is an unsigned 64-bit little-endian header length, a JSON header and the tensors' bytes
(https://github.com/huggingface/safetensors, "Format"). The ``safetensors`` library is not used here for two
reasons: ``safe_open(...).get_slice`` copies every slice and is not an array, so a mapped trace could not be used like a
loaded one; and ``save_file`` needs each tensor twice in memory. The tests read these files with the library, and the
library's files with this module.
"""

import json
import math
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError
from catalog.files import atomic_path
from traces.mapping import release

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "I8": np.dtype("<i1"),
    "U8": np.dtype("<u1"),
    "I16": np.dtype("<i2"),
    "U16": np.dtype("<u2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}
"""safetensors' names of the dtypes that our files use; others are refused."""

MAX_HEADER_BYTES = 100_000_000
"""Longest header, in bytes; the library's own limit."""

WRITE_CHUNK_BYTES = 16 << 20


@dataclass(frozen=True)
class TensorFile:
    """A mapped file: read-only arrays, of which only the parts that are used are read from disk."""

    tensors: dict[str, npt.NDArray[Any]]
    metadata: dict[str, str]


def open_tensors(path: Path) -> TensorFile:
    """Map every tensor of ``path``; only the header is read.

    Raises:
        ForestageError: if the file is missing, truncated, longer than its header says or not a safetensors file; the
            line names the file and the field.
    """
    try:
        size = path.stat().st_size
        header, data_start = _read_header(path, size)
        entries, metadata = _check_header(path, header, size - data_start)
        if size == data_start:
            raise ForestageError(f"{path}: holds no tensors")
        raw = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))
    except OSError as error:
        raise ForestageError(f"{path}: cannot read ({error.strerror})") from error
    tensors = {
        name: raw[data_start + start : data_start + stop].view(dtype).reshape(shape)
        for name, (dtype, shape, start, stop) in entries.items()
    }
    return TensorFile(tensors, metadata)


def write_tensors(path: Path, tensors: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str]) -> None:
    """Write ``tensors`` to ``path`` atomically and in chunks; widest dtype first, so that every tensor is aligned.

    Raises:
        ForestageError: if the file cannot be written.
    """
    header = encode_header({name: (array.dtype, array.shape) for name, array in tensors.items()}, metadata)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(header)
        for name in stored_order({name: array.dtype for name, array in tensors.items()}):
            for chunk in byte_chunks(tensors[name]):
                file.write(chunk)


def stored_order(dtypes: Mapping[str, np.dtype[Any]]) -> list[str]:
    """Names of the tensors in the order of a file: widest dtype first, then by name."""
    return sorted(dtypes, key=lambda name: (-dtypes[name].itemsize, name))


def encode_header(tensors: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]], metadata: Mapping[str, str]) -> bytes:
    """Everything before the first tensor's bytes, for tensors of these dtypes and shapes in ``stored_order``."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    offset = 0
    for name in stored_order({name: dtype for name, (dtype, _) in tensors.items()}):
        dtype, shape = tensors[name]
        end = offset + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": names[dtype], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format requires data to start on a multiple of 8
    return struct.pack("<Q", len(text)) + text


def crc32(array: npt.NDArray[Any]) -> int:
    """CRC-32 (zlib's) of an array's bytes in C order."""
    value = 0
    for chunk in byte_chunks(array):
        value = zlib.crc32(chunk, value)
    return value


def byte_chunks(array: npt.NDArray[Any]) -> Iterator[memoryview]:
    """The bytes of a C-contiguous array, a few MiB at a time; memory never holds more of a mapped array."""
    flat = array.reshape(-1).view(np.uint8)
    for start in range(0, flat.size, WRITE_CHUNK_BYTES):
        yield flat[start : start + WRITE_CHUNK_BYTES].data
        release(array)


def _read_header(path: Path, size: int) -> tuple[dict[str, Any], int]:
    """The JSON header of a file of ``size`` bytes and the offset of its data."""
    with path.open("rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            raise ForestageError(f"{path}: truncated: {size} bytes, but a safetensors header needs at least 8")
        (length,) = struct.unpack("<Q", prefix)
        if length > MAX_HEADER_BYTES:
            raise ForestageError(f"{path}: not a safetensors file (its first 8 bytes are no header length)")
        if 8 + length > size:
            raise ForestageError(
                f"{path}: truncated: its header takes {8 + length} bytes, the file has {size}; fetch or import it again"
            )
        text = file.read(length)
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise ForestageError(f"{path}: header: not valid JSON ({error})") from error
    if not isinstance(header, dict):
        raise ForestageError(f"{path}: header: must be a JSON object")
    return header, 8 + length


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a JSON object in which a key appears twice."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key appears twice")
    return result


Entry = tuple[np.dtype[Any], tuple[int, ...], int, int]


def _check_header(path: Path, header: dict[str, Any], data_bytes: int) -> tuple[dict[str, Entry], dict[str, str]]:
    """Tensor entries (dtype, shape, start, stop) and metadata; the entries must cover the data without a gap."""
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ForestageError(f"{path}: header: __metadata__ must map names to strings")
    entries = {name: _check_entry(path, name, entry) for name, entry in header.items() if name != "__metadata__"}
    end = 0
    for name, (_, _, start, stop) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if start != end:
            raise ForestageError(f"{path}: {name}: data_offsets start at {start}, expected {end} (a gap or an overlap)")
        end = stop
    if end > data_bytes:
        raise ForestageError(
            f"{path}: truncated: its header promises {end} bytes of tensors, the file holds {data_bytes}; "
            "fetch or import it again"
        )
    if end < data_bytes:
        raise ForestageError(f"{path}: {data_bytes - end} bytes follow the last tensor; fetch or import it again")
    return entries, metadata


def _check_entry(path: Path, name: str, entry: Any) -> Entry:
    """One tensor's header entry, with types and byte count checked."""
    if not name.isprintable():
        raise ForestageError(f"{path}: header: {name!r} is no tensor's name")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ForestageError(f"{path}: {name}: a tensor's header entry must hold dtype, shape and data_offsets")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in DTYPES:
        raise ForestageError(f"{path}: {name}: dtype {entry['dtype']!r} is not one of {', '.join(DTYPES)}")
    if _are_sizes(shape) and 0 in shape:
        raise ForestageError(f"{path}: {name}: shape {shape} holds nothing")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise ForestageError(f"{path}: {name}: shape and data_offsets must be lists of whole numbers ≥ 0")
    dtype = DTYPES[entry["dtype"]]
    if offsets[1] - offsets[0] != math.prod(shape) * dtype.itemsize:
        raise ForestageError(
            f"{path}: {name}: shape {shape} of {entry['dtype']} takes {math.prod(shape) * dtype.itemsize} bytes, "
            f"data_offsets give {offsets[1] - offsets[0]}"
        )
    return dtype, tuple(shape), offsets[0], offsets[1]


def _are_sizes(values: Any) -> bool:
    """Whether ``values`` is a list of integers ≥ 0 (JSON's true and false are not integers)."""
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)
