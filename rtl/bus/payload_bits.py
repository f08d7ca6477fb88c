"""Payloads of the hardware's ports as bytes, many at once, by the layouts that the hardware is made with."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from amaranth.hdl import Shape
from amaranth.lib import data
from numpy.typing import NDArray

Layout = data.Layout
StructLayout = data.StructLayout


class Place(NamedTuple):
    """Where a field of a payload lies; ``path`` as in ``experts.3``."""

    path: str
    offset: int
    width: int
    signed: bool


def places(layout: data.Layout, path: str = "", offset: int = 0) -> Iterator[Place]:
    """Every number of a layout, those of structs and arrays within too."""
    for name, field in layout:
        here = f"{path}.{name}" if path else str(name)
        if isinstance(field.shape, data.Layout):
            yield from places(field.shape, here, offset + field.offset)
        else:
            shape = Shape.cast(field.shape)
            yield Place(here, offset + field.offset, shape.width, shape.signed)


def pack(layout: data.Layout, values: Mapping[str, NDArray[Any]], count: int) -> NDArray[np.uint8]:
    """Payloads u8 ``[count, bytes]``, little-endian, of the fields by path; those that are not given are 0.

    Raises:
        ValueError: for a field that the layout lacks, or a value beyond its bits.
    """
    known = {place.path: place for place in places(layout)}
    bits = np.zeros((count, -(-layout.size // 8) * 8), np.uint8)
    for path, column in values.items():
        if path not in known:
            raise ValueError(f"{path}: the payload has no such field")
        _, offset, width, _ = known[path]
        numbers = np.asarray(column).astype(np.int64)
        if (numbers < 0).any() or (numbers >> width).any():
            raise ValueError(f"{path}: a value does not fit {width} bits")
        bits[:, offset : offset + width] = numbers[:, None] >> np.arange(width) & 1
    return np.packbits(bits, axis=1, bitorder="little")


def unpack(layout: data.Layout, payloads: NDArray[np.uint8]) -> dict[str, NDArray[np.int64]]:
    """The fields by path, i64 each, of payloads u8 ``[n, bytes]``, little-endian.

    Raises:
        ValueError: for a field of more than 63 bits.
    """
    bits = np.unpackbits(payloads, axis=1, bitorder="little")
    found = {}
    for path, offset, width, signed in places(layout):
        if width > 63:
            raise ValueError(f"{path}: {width} bits; a number here has 63")
        numbers = bits[:, offset : offset + width].astype(np.int64) @ (1 << np.arange(width, dtype=np.int64))
        found[path] = np.where(numbers >> (width - 1), numbers - (1 << width), numbers) if signed else numbers
    return found


def array_of(fields: Mapping[str, NDArray[np.int64]], path: str) -> NDArray[np.int64]:
    """The elements of an array of numbers side by side: i64 ``[n, elements]``."""
    columns: list[NDArray[np.int64]] = []
    while (column := fields.get(f"{path}.{len(columns)}")) is not None:
        columns.append(column)
    return np.stack(columns, axis=1)
