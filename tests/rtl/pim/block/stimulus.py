"""Tiles for a block: what arrives in each clock, and what it must then show, by the twin's arithmetic."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from amaranth.lib import data
from numpy.typing import NDArray

from pim_model.numerics import floats
from pim_model.numerics.dot_products import bf16_sums, int8_sums, mxfp4_sums
from pim_model.numerics.formats import Bf16Matrix, Int8Matrix, Mxfp4Matrix
from pim_model.unit.parameters import ACCUMULATORS, INPUT_REGISTERS, LANES, OCTET, PASSES
from pim_model.unit.program import ColumnKind, WeightFormat
from rtl.pim.block.block import BankBlock
from rtl.pim.block.layouts import COLUMN_COMMAND, READOUT_SELECT, REGISTER_LOAD


@dataclass(frozen=True)
class TileShape:
    """A tile to make up; ``special``: with numbers that arithmetic goes wrong at."""

    weight_format: WeightFormat
    log2_tokens: int
    rows: int
    chunks: int
    special: bool = False


@dataclass
class Script:
    """Bit patterns by port and clock, and what ``readout`` must be in the clocks in which it is looked at."""

    generator: np.random.Generator
    ports: dict[str, dict[int, int]] = field(default_factory=lambda: {name: {} for name in PORTS})
    expected: dict[int, NDArray[np.uint32]] = field(default_factory=dict)
    clock: int = INPUT_REGISTERS
    register: int = 0
    bank: int = 0
    read_until: list[int] = field(default_factory=lambda: [0, 0])

    def set(self, clock: int, **patterns: int) -> None:
        """Give ports their patterns in one clock."""
        for name, value in patterns.items():
            assert clock not in self.ports[name]
            self.ports[name][clock] = value

    def rows(self) -> dict[str, NDArray[np.uint8]]:
        """Every port in each clock, as bytes."""
        clocks = 1 + max(max(values, default=0) for values in self.ports.values())
        rows = {}
        for name, width in PORTS.items():
            octets = -(-width // 8)
            values = (self.ports[name].get(clock, 0).to_bytes(octets, "little") for clock in range(clocks))
            rows[name] = np.frombuffer(b"".join(values), np.uint8).reshape(clocks, octets)
        return rows

    def column(self, contents: NDArray[Any], **fields: int) -> None:
        """A column, and now and then a pause."""
        self.set(self.clock, column=pattern(COLUMN_COMMAND, valid=1, **fields), column_data=word(contents))
        self.clock += PASSES
        if self.generator.random() < 0.1:
            self.clock += int(self.generator.integers(1, 9))

    def tile(self, shape: TileShape) -> None:
        """The columns of a random tile, and its readout as early as can be."""
        registers = 1 << shape.log2_tokens if shape.weight_format is WeightFormat.BF16 else 1
        self.clock = max(self.clock, self.read_until[self.bank])
        every: dict[str, list[NDArray[Any]]] = {"columns": [], "inputs": [], "scales": []}
        for chunk in range(shape.chunks):
            if shape.weight_format is WeightFormat.MXFP4 and chunk % 2 == 0:
                every["scales"].append(self.scales(shape))
                self.column(every["scales"][-1], kind=ColumnKind.SCALES)
            inputs = self.inputs(shape)
            for number in range(registers):
                # The last one in the clock in which the chunk's first column arrives.
                load = pattern(
                    REGISTER_LOAD,
                    valid=1,
                    register=(self.register + number) % INPUT_REGISTERS,
                    data=word(inputs if registers == 1 else inputs[number]),
                )
                self.set(self.clock - registers + 1 + number, load=load)
            weights = self.weights(shape)
            for group, contents in enumerate(weights):
                last = self.clock
                self.column(
                    contents,
                    kind=ColumnKind.MAC,
                    weight_format=shape.weight_format,
                    log2_tokens=shape.log2_tokens,
                    first=chunk == 0,
                    index=group,
                    bank=self.bank,
                    register=self.register,
                )
            self.register = (self.register + registers) % INPUT_REGISTERS
            every["columns"].append(weights)
            every["inputs"].append(inputs)
        sums = sums_of(shape, **{name: np.array(values) for name, values in every.items()})
        self.read(shape, sums, last + PASSES + BankBlock.LATENCY)
        self.bank ^= 1

    def read(self, shape: TileShape, sums: NDArray[np.uint32], clock: int) -> None:
        """Look at all rows of a tile, ``sums`` ``[tokens, rows]``."""
        of_token = ACCUMULATORS // OCTET >> shape.log2_tokens
        for token, rows in enumerate(sums):
            for octet in range(-(-shape.rows // OCTET)):
                line = self.bank * ACCUMULATORS // OCTET + token * of_token + octet
                self.set(clock, select=pattern(READOUT_SELECT, valid=1, line=line))
                self.expected[clock] = rows[octet * OCTET : (octet + 1) * OCTET]
                clock += 1
        self.read_until[self.bank] = clock

    def constants(self) -> None:
        """All constants, each read in the clock after it came; the tiles before are read out by then."""
        self.clock = max(self.clock, *self.read_until)
        for index in range(8):
            contents = self.generator.integers(0, 256, 32).astype(np.uint8)
            clock = self.clock
            self.column(contents, kind=ColumnKind.CONSTANTS, index=index)
            self.set(clock + 1, select=pattern(READOUT_SELECT, valid=1, constants=1, line=index))
            self.expected[clock + 1] = contents.view(np.uint32)

    def inputs(self, shape: TileShape) -> NDArray[Any]:
        """INT8: codes ``[2, lanes]``; else BF16 ``[tokens, lanes]``."""
        if shape.weight_format is WeightFormat.INT8:
            return self.generator.integers(-127, 128, (2, LANES)).astype(np.int8)
        return self.bf16(shape, (1 << shape.log2_tokens, LANES))

    def weights(self, shape: TileShape) -> NDArray[Any]:
        """A chunk's columns: BF16 ``[rows, lanes]``, or bytes ``[rows / rows of a column, 32]``."""
        columns = shape.rows // shape.weight_format.rows
        if shape.weight_format is WeightFormat.BF16:
            return self.bf16(shape, (columns, LANES))
        if shape.special and shape.weight_format is WeightFormat.INT8:
            return np.full((columns, 32), -128, np.int8)
        return self.generator.integers(0, 256, (columns, 32)).astype(np.uint8).view(np.int8)

    def bf16(self, shape: TileShape, size: tuple[int, int]) -> NDArray[np.uint16]:
        """Numbers of like magnitude; special: any pattern now and then, and much cancellation."""
        values = floats.bf16_from_float(self.generator.normal(size=size).astype(np.float32))
        if shape.special:
            any_pattern = self.generator.integers(0, 1 << 16, size, dtype=np.uint16)
            huge = (values & np.uint16(0x80FF)) | np.uint16(0x5F00)
            tiny = (values & np.uint16(0x80FF)) | np.uint16(0x2000)
            kind = self.generator.choice(5, size, p=[0.4, 0.01, 0.09, 0.4, 0.1])
            values = np.select([kind == 1, kind == 2, kind == 3], [any_pattern, huge, tiny], values).astype(np.uint16)
        return values

    def scales(self, shape: TileShape) -> NDArray[np.uint8]:
        """E8M0 of 32 rows."""
        near = self.generator.integers(120, 135, 32)
        far = self.generator.choice([0, 1, 2, 60, 200, 253, 254, 255], 32)
        scales = np.where(self.generator.random(32) < (0.5 if shape.special else 0.02), far, near).astype(np.uint8)
        if shape.special:
            scales[self.generator.integers(shape.rows)] = 255  # NaN
        return scales


PORTS = {
    "column": len(data.Layout.cast(COLUMN_COMMAND).const({}).as_value()),
    "column_data": 256,
    "load": len(data.Layout.cast(REGISTER_LOAD).const({}).as_value()),
    "select": len(data.Layout.cast(READOUT_SELECT).const({}).as_value()),
}
"""Width of each port."""


def pattern(layout: Any, **fields: int) -> int:
    """The bits of ``layout`` with ``fields``, the others zero."""
    members = data.Layout.cast(layout)
    return sum(int(value) << members[name].offset for name, value in fields.items())


def word(contents: NDArray[Any]) -> int:
    """Bytes as an integer, the first lowest."""
    return int.from_bytes(contents.tobytes(), "little")


def sums_of(
    shape: TileShape, columns: NDArray[Any], inputs: NDArray[Any], scales: NDArray[np.uint8]
) -> NDArray[np.uint32]:
    """Bits of a tile's sums ``[tokens, rows]``.

    ``columns`` ``[chunks, groups, …]``, ``inputs`` ``[chunks, tokens, lanes]``, ``scales`` ``[chunks / 2, 32]``.
    """
    # [chunks, rows, bytes of 16 weights]
    packed = columns.view(np.uint8).reshape(shape.chunks, shape.rows, -1)
    x = np.concatenate(inputs, axis=-1)
    if shape.weight_format is WeightFormat.INT8:
        codes = np.concatenate(packed.view(np.int8), axis=-1)
        matrix = Int8Matrix(codes, np.ones(shape.rows, np.float32))
        return int8_sums(matrix, x[: 1 << shape.log2_tokens]).view(np.uint32)
    if shape.weight_format is WeightFormat.MXFP4:
        codes = np.stack([packed & 15, packed >> 4], axis=-1).reshape(shape.chunks, shape.rows, LANES)
        return floats.float_bits(mxfp4_sums(Mxfp4Matrix(np.concatenate(codes, axis=-1), scales.T[: shape.rows]), x))
    return floats.float_bits(bf16_sums(Bf16Matrix(np.concatenate(packed.view(np.uint16), axis=-1)), x))
