"""What servers' responses have in common: nested lists or base64 of ids, and the numbers of tokens beside them."""

import base64
import binascii
import io
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError

LARGEST = 2**31 - 1

NUMPY_START = b"\x93NUMPY"


def whole_number(value: Any, field: str, place: str) -> int:
    """``value`` as a whole number from 0 on.

    Raises:
        ForestageError: naming ``place`` and ``field``.
    """
    if type(value) is not int or not 0 <= value <= LARGEST:
        raise ForestageError(f"{place}: {field}: {short(value)}; expected a whole number from 0 on")
    return value


def nested_ids(value: Any, field: str, place: str) -> npt.NDArray[np.int64]:
    """Nested lists ``[tokens][layers][top_k]`` of whole numbers as an array; an empty list has shape (0, 0, 0).

    Raises:
        ForestageError: naming ``place`` and ``field``, if they are not three deep, ragged or of other values.
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
    # Not by NumPy's conversion, which takes true for 1 and 2.0 for 2.
    if set(map(type, flat)) != {int} or not all(-1 <= number <= LARGEST for number in (min(flat), max(flat))):
        raise ForestageError(f"{place}: {field}: expected whole numbers from 0 on, or -1 where nothing was recorded")
    return np.array(flat, np.int64).reshape(tokens, layers, top_k)


def decoded_bytes(value: str, field: str, place: str) -> bytes:
    """The bytes of a base64 text.

    Raises:
        ForestageError: naming ``place`` and ``field``.
    """
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ForestageError(f"{place}: {field}: not base64 ({error}); was the response cut off?") from error


def decoded_array(value: str, field: str, place: str) -> npt.NDArray[np.int64]:
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
    if array.ndim != 3 or array.dtype.kind not in "iu" or stream.read(1):
        raise ForestageError(
            f"{place}: {field}: {array.dtype} {list(array.shape)}; expected integers [tokens, layers, top_k]"
        )
    if array.size and (array.min() < -1 or array.max() > LARGEST):
        raise ForestageError(f"{place}: {field}: expected whole numbers from 0 on, or -1 where nothing was recorded")
    return array.astype(np.int64)


def token_ids(value: Any, field: str, place: str) -> npt.NDArray[np.int64] | None:
    """A list of vocabulary indices, or ``None`` where there is none.

    Raises:
        ForestageError: naming ``place`` and ``field``.
    """
    if value is None:
        return None
    if not isinstance(value, list) or not all(type(token) is int and 0 <= token <= LARGEST for token in value):
        raise ForestageError(f"{place}: {field}: expected a list of whole numbers from 0 on")
    return np.array(value, np.int64)


def objects(value: Any, field: str, place: str) -> list[dict[str, Any]]:
    """A list of JSON objects with at least one.

    Raises:
        ForestageError: naming ``place`` and ``field``.
    """
    if not isinstance(value, list) or not value or not all(isinstance(part, dict) for part in value):
        raise ForestageError(f"{place}: {field}: expected a list of objects; is it a server's whole response?")
    return value


def model_name(response: dict[str, Any], place: str) -> str | None:
    """The model that a response names, if it does.

    Raises:
        ForestageError: if it is no text.
    """
    name = response.get("model")
    if name is not None and (not isinstance(name, str) or not name):
        raise ForestageError(f"{place}: model: {short(name)}; expected a name")
    return name


def short(value: Any) -> str:
    """A value as it can stand in an error."""
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
