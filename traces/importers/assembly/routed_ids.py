"""Read the ids of a ``routed_experts`` field, in every form that servers use.

* nested lists ``[tokens][layers][top_k]``;
* a NumPy file in base64 (vLLM: ``vllm/entrypoints/openai/*/protocol.py``, "base64-encoded .npy bytes");
* an object ``{data, shape}`` with optional ``dtype``, ``encoding`` and ``start`` (prime-rl's and
  dynamo's servers around vLLM): raw little-endian integers. Without ``dtype``, the number of bytes
  divided by the product of the shape is the width: 1 is unsigned (expert ids above 127 are common), 2, 4 and 8 are
  signed. Without ``encoding``, the data are base64, or int32 in base85 (prime-rl's first version), whichever fits the
  length of the text: never both.
"""

import base64
import binascii
import io
import math
import re
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError
from traces.importers.assembly.responses import LARGEST, decoded_bytes, short, whole_number

NUMPY_START = b"\x93NUMPY"

DTYPE = re.compile(r"(?:torch\.|numpy\.|np\.)?(u?int(?:8|16|32|64))|[<|=]?([iu][1248])")

RAW_DTYPES = ("|u1", "<i2", "<i4", "<i8")
"""Possible types of raw integers if no dtype is stated; their width decides."""

BASE85_DTYPES = ("<i4",)
"""Possible types of integers in a base85 text without a stated encoding."""

DECODERS = {"base64": lambda text: base64.b64decode(text, validate=True), "base85": base64.b85decode}


@dataclass(frozen=True, eq=False)
class RoutedIds:
    """The content of a field.

    Attributes:
        ids: i64 ``[tokens, layers, top_k]``.
        start: position of the first token, if the field states it.
        largest: the largest id that the field's integers can hold.
        dtype: type of these integers, for errors; empty if they are text.
    """

    ids: npt.NDArray[np.int64]
    start: int | None = None
    largest: int = LARGEST
    dtype: str = ""

    def without(self, tokens: int) -> "RoutedIds":
        """The same without its last ``tokens`` tokens."""
        return RoutedIds(self.ids[: len(self.ids) - tokens], self.start, self.largest, self.dtype)


@dataclass(frozen=True)
class Pieces:
    """Values that the events of a stream gave for one field, in order."""

    values: tuple[Any, ...]


def routed_ids(value: Any, field: str, place: str) -> RoutedIds | None:
    """The ids of a field; ``None`` if it is missing, null or has no token.

    Raises:
        ForestageError: naming ``place`` and ``field``, if it is in no known form, damaged or contradicts itself.
    """
    if value is None:
        return None
    if isinstance(value, Pieces):
        return _joined([routed_ids(part, field, place) for part in value.values], field, place)
    if isinstance(value, str):
        found = numpy_file(value, field, place)
    elif isinstance(value, dict):
        found = _described(value, field, place)
    else:
        found = RoutedIds(nested_ids(value, field, place))
    return found if len(found.ids) else None


def nested_ids(value: Any, field: str, place: str) -> npt.NDArray[np.int64]:
    """Nested lists ``[tokens][layers][top_k]`` of whole numbers as an array; an empty list has shape (0, 0, 0).

    Raises:
        ForestageError: naming ``place`` and ``field``, if the lists are not three deep, are ragged or have other
            values.
    """
    if not isinstance(value, list) or not all(isinstance(token, list) for token in value):
        raise ForestageError(f"{place}: {field}: expected lists [tokens][layers][top_k]")
    if not value:
        return np.zeros((0, 0, 0), np.int64)
    rows = list(chain.from_iterable(value))
    if not all(isinstance(row, list) for row in rows):
        raise ForestageError(f"{place}: {field}: expected lists [tokens][layers][top_k]")
    flat = list(chain.from_iterable(rows))
    tokens, layers = len(value), len(value[0])
    top_k = len(rows[0]) if rows else 0
    if {len(token) for token in value} != {layers} or {len(row) for row in rows} != {top_k} or not flat:
        raise ForestageError(f"{place}: {field}: tokens or layers differ in length, or are empty")
    # NumPy's conversion would take true for 1 and 2.0 for 2.
    if set(map(type, flat)) != {int} or not all(-1 <= number <= LARGEST for number in (min(flat), max(flat))):
        raise ForestageError(f"{place}: {field}: expected whole numbers from 0 on, or -1 where nothing was recorded")
    return np.array(flat, np.int64).reshape(tokens, layers, top_k)


def numpy_file(value: str, field: str, place: str) -> RoutedIds:
    """The array ``[tokens, layers, top_k]`` in a base64 text of a NumPy file.

    Raises:
        ForestageError: naming ``place`` and ``field``.
    """
    data = decoded_bytes(value, field, place)
    if not data.startswith(NUMPY_START):
        raise ForestageError(f"{place}: {field}: base64, but not of a NumPy array (.npy), which states its shape")
    try:
        stream = io.BytesIO(data)
        array = np.load(stream, allow_pickle=False)
    except Exception as error:  # its header is parsed as Python's literals, which can fail in many ways
        raise ForestageError(f"{place}: {field}: damaged NumPy array ({' '.join(str(error).split())})") from error
    if stream.read(1):
        raise ForestageError(f"{place}: {field}: bytes follow the NumPy array; was something joined to it?")
    return checked_array(array, field, place)


def checked_array(array: npt.NDArray[Any], field: str, place: str, start: int | None = None) -> RoutedIds:
    """An array of ids ``[tokens, layers, top_k]``.

    Raises:
        ForestageError: naming ``place`` and ``field``, if it has other values or another shape.
    """
    if array.ndim != 3 or array.dtype.kind not in "iu":
        raise ForestageError(
            f"{place}: {field}: {array.dtype} {list(array.shape)}; expected integers [tokens, layers, top_k]"
        )
    if array.size and (array.min() < -1 or array.max() > LARGEST):
        raise ForestageError(f"{place}: {field}: expected whole numbers from 0 on, or -1 where nothing was recorded")
    return RoutedIds(array.astype(np.int64), start, min(LARGEST, int(np.iinfo(array.dtype).max)), str(array.dtype))


def _described(value: dict[str, Any], field: str, place: str) -> RoutedIds:
    """The array of an object that describes its bytes."""
    data, shape = value.get("data"), value.get("shape")
    if not isinstance(data, str):
        raise ForestageError(f"{place}: {field}.data: {short(data)}; expected a text in base64")
    if (
        not isinstance(shape, list)
        or len(shape) != 3
        or not all(type(size) is int and 0 <= size <= LARGEST for size in shape)
    ):
        raise ForestageError(f"{place}: {field}.shape: {short(shape)}; expected [tokens, layers, top_k]")
    start = value.get("start")
    start = None if start is None else whole_number(start, f"{field}.start", place)
    numbers = math.prod(shape)
    width = _stated_width(value.get("dtype"), field, place)
    decodings = _decodings(data, value.get("encoding"), field, place)
    for decoded, possible in decodings:
        if width is not None:
            possible = (width,) if possible is RAW_DTYPES or width in possible else ()
        for dtype in possible:
            if len(decoded) == numbers * np.dtype(dtype).itemsize:
                return checked_array(np.frombuffer(decoded, dtype).reshape(shape), field, place, start)
    found = " or ".join(str(len(decoded)) for decoded, _ in decodings)
    stated = f" of {width}" if width else ""
    raise ForestageError(
        f"{place}: {field}: data of {found} bytes, but shape {shape}{stated} needs another number of them"
    )


def _stated_width(dtype: Any, field: str, place: str) -> str | None:
    """The NumPy name of a stated dtype; ``None`` if none is stated."""
    if dtype is None:
        return None
    match = DTYPE.fullmatch(dtype) if isinstance(dtype, str) else None
    if match is None:
        raise ForestageError(f"{place}: {field}.dtype: {short(dtype)}; expected an integer type, as int16 or uint8")
    return np.dtype(match[1] or match[2]).newbyteorder("<").str


def _decodings(data: str, encoding: Any, field: str, place: str) -> list[tuple[bytes, tuple[str, ...]]]:
    """The possible bytes of a text, each with its possible dtypes: in the stated encoding, or in either."""
    if encoding not in (None, *DECODERS):
        raise ForestageError(f"{place}: {field}.encoding: {short(encoding)}; read are {', '.join(DECODERS)}")
    if encoding == "base64":
        return [(decoded_bytes(data, f"{field}.data", place), RAW_DTYPES)]
    decoded: list[tuple[bytes, tuple[str, ...]]] = []
    for name, decode in DECODERS.items():
        if encoding in (None, name):
            try:
                decoded.append((decode(data), RAW_DTYPES if encoding or name == "base64" else BASE85_DTYPES))
            except (binascii.Error, ValueError):
                continue
    if not decoded:
        raise ForestageError(f"{place}: {field}.data: not {encoding or 'base64 or base85'}; was the response cut off?")
    return decoded


def _joined(parts: list[RoutedIds | None], field: str, place: str) -> RoutedIds | None:
    """The pieces of a stream as one: the last if each begins with the one before, else all concatenated."""
    given = [part for part in parts if part is not None]
    if not given:
        return None
    if len({part.ids.shape[1:] for part in given}) > 1:
        raise ForestageError(f"{place}: {field}: layers or ids a row differ between the events of the stream")
    longer = all(
        len(after.ids) >= len(before.ids) and np.array_equal(after.ids[: len(before.ids)], before.ids)
        for before, after in pairwise(given)
    )
    narrowest = min(given, key=lambda part: part.largest)
    if not longer and given[0].start is not None:
        following = given[0].start
        for part in given:
            if part.start != following:
                raise ForestageError(f"{place}: {field}.start: {part.start} in an event that goes on at {following}")
            following += len(part.ids)
    ids = given[-1].ids if longer else np.concatenate([part.ids for part in given])
    return RoutedIds(ids, given[0].start, narrowest.largest, narrowest.dtype)
