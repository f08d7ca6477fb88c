"""Weights in the banks: each byte where the contract puts it, and back."""

import struct
from math import ceil

import numpy as np
import pytest
from numpy.typing import NDArray

from catalog.catalogue import load_catalog
from catalog.errors import ForestageError
from pim_model.numerics import image
from pim_model.numerics.expert import Expert, Layer
from pim_model.numerics.formats import MATRICES, Bf16Matrix, Int8Matrix, Mxfp4Matrix, WeightMatrix
from pim_model.unit.parameters import UnitParameters
from pim_model.unit.program import ExpertKind, Phase, Program, WeightFormat, expert_program, gemv_program

PARAMETERS = {name: UnitParameters(device=load_catalog().dram.find(name)) for name in ("HBM2-PIM", "HBM3")}
BLOCKS = 8
HBM2_PIM = PARAMETERS["HBM2-PIM"]

formats = pytest.mark.parametrize("weight_format", WeightFormat)


def random_layer(rows: int, inputs: int, weight_format: WeightFormat, *, bias: bool, seed: int = 0) -> Layer:
    """Of any patterns, so that no two places are alike."""
    generator = np.random.default_rng(seed)
    matrix: WeightMatrix
    if weight_format is WeightFormat.BF16:
        matrix = Bf16Matrix(generator.integers(0, 2**16, (rows, inputs)).astype(np.uint16))
    elif weight_format is WeightFormat.INT8:
        scales = generator.normal(size=rows).astype(np.float32)
        matrix = Int8Matrix(generator.integers(-128, 128, (rows, inputs)).astype(np.int8), scales)
    else:
        codes = generator.integers(0, 16, (rows, inputs)).astype(np.uint8)
        matrix = Mxfp4Matrix(codes, generator.integers(0, 256, (rows, -(-inputs // 32))).astype(np.uint8))
    return Layer(matrix, generator.normal(size=rows).astype(np.float32) if bias else None)


def same(left: Layer, right: Layer) -> bool:
    a, b = left.matrix, right.matrix
    if type(a) is not type(b) or (left.bias is None) != (right.bias is None):
        return False
    if left.bias is not None and right.bias is not None and not np.array_equal(left.bias, right.bias):
        return False
    fields = {WeightFormat.BF16: ("weights",)}.get(a.format, ("codes", "scales"))
    return all(np.array_equal(getattr(a, field), getattr(b, field)) for field in fields)


def column_bytes(layer: Layer, phase: Phase, tokens: int) -> list[list[bytes]]:
    """A phase's columns written out one by one from the contract's words, ``[column][block]``."""
    matrix, weight_format = layer.matrix, phase.format
    rows, inputs = matrix.shape
    most = 32 // {1: 1, 2: 2, 3: 4, 4: 4}[tokens]
    unit = {WeightFormat.BF16: 2, WeightFormat.INT8: 2, WeightFormat.MXFP4: 4}[weight_format]
    of_block = ceil(ceil(rows / BLOCKS) / unit) * unit
    tiles = ceil(of_block / most)
    r = ceil(ceil(of_block / tiles) / unit) * unit
    tiles = ceil(of_block / r)
    chunks = -(-inputs // 16) if weight_format is not WeightFormat.MXFP4 else 2 * -(-inputs // 32)

    def weight(row: int, i: int) -> int:
        if row >= rows or i >= inputs:
            return 0
        if isinstance(matrix, Bf16Matrix):
            return int(matrix.weights[row, i])
        assert isinstance(matrix, Int8Matrix | Mxfp4Matrix)
        return int(matrix.codes[row, i]) & 0xFF

    columns = []
    first = 0
    for tile in range(tiles):
        size = r if tile < tiles - 1 else of_block - (tiles - 1) * r

        def row_of(block: int, j: int, first: int = first, size: int = size) -> int:
            return first + block * size + j

        def octet(values: NDArray[np.float32], block: int, index: int, size: int = size) -> bytes:
            numbers = [
                float(values[row_of(block, j)]) if j < size and row_of(block, j) < rows else 0.0
                for j in range(8 * index, 8 * index + 8)
            ]
            return struct.pack("<8f", *numbers)

        for c in range(chunks):
            if isinstance(matrix, Mxfp4Matrix) and c % 2 == 0:
                shared = [
                    bytes(
                        int(matrix.scales[row_of(b, j), c // 2]) if j < size and row_of(b, j) < rows else 0
                        for j in range(32)
                    )
                    for b in range(BLOCKS)
                ]
                columns.append(shared)
            of_column = {WeightFormat.BF16: 1, WeightFormat.INT8: 2, WeightFormat.MXFP4: 4}[weight_format]
            for g in range(size // of_column):
                contents = []
                for b in range(BLOCKS):
                    numbers = [
                        weight(row_of(b, g * of_column + p), 16 * c + i) for p in range(of_column) for i in range(16)
                    ]
                    if weight_format is WeightFormat.BF16:
                        contents.append(struct.pack("<16H", *numbers))
                    elif weight_format is WeightFormat.INT8:
                        contents.append(bytes(numbers))
                    else:
                        contents.append(bytes(numbers[k] | numbers[k + 1] << 4 for k in range(0, 64, 2)))
                columns.append(contents)
        for values in (matrix.scales if isinstance(matrix, Int8Matrix) else None, layer.bias):
            if values is not None:
                columns += [[octet(values, b, i) for b in range(BLOCKS)] for i in range(-(-size // 8))]
        first += BLOCKS * size
    return columns


@formats
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("rows", "inputs"), [(5, 7), (200, 40), (300, 33)])
def test_every_byte_is_where_the_contract_puts_it(
    weight_format: WeightFormat, bias: bool, rows: int, inputs: int
) -> None:
    layer = random_layer(rows, inputs, weight_format, bias=bias)
    for tokens in range(1, weight_format.most_tokens + 1):
        (phase,) = gemv_program(HBM2_PIM, rows, inputs, weight_format, tokens=tokens, bias=bias).phases
        columns = image.phase_columns(HBM2_PIM, phase, layer)
        expected = column_bytes(layer, phase, tokens)
        assert columns.shape == (len(expected), BLOCKS, 32)
        assert [[bytes(block) for block in column] for column in columns] == expected


@formats
@pytest.mark.parametrize("device", PARAMETERS)
def test_the_columns_give_the_layer_back(weight_format: WeightFormat, device: str) -> None:
    parameters = PARAMETERS[device]
    for rows, inputs, bias in ((1, 1, False), (2, 31, True), (129, 64, True), (515, 50, False), (1100, 17, True)):
        layer = random_layer(rows, inputs, weight_format, bias=bias)
        (phase,) = gemv_program(parameters, rows, inputs, weight_format, bias=bias).phases
        columns = image.phase_columns(parameters, phase, layer)
        assert same(image.layer_of_columns(parameters, phase, columns), layer)


def small_expert(weight_format: WeightFormat) -> tuple[Program, Expert]:
    gate_up, down = (
        random_layer(rows, inputs, weight_format, bias=True, seed=seed)
        for seed, (rows, inputs) in enumerate([(2 * 40, 70), (70, 40)])
    )
    program = expert_program(
        HBM2_PIM, 70, 40, weight_format, ExpertKind.GPT_OSS, gate_up_bias=True, down_bias=True, base_row=11
    )
    return program, Expert(ExpertKind.GPT_OSS, gate_up, down)


@formats
def test_the_banks_take_turns_and_each_phase_begins_a_row_set(weight_format: WeightFormat) -> None:
    program, expert = small_expert(weight_format)
    columns = image.expert_columns(HBM2_PIM, program, expert)
    banks = image.bank_contents(HBM2_PIM, program, columns)
    row_bursts = HBM2_PIM.device.row_bursts
    assert banks.shape == (2, -(-program.row_sets // 2), row_bursts, BLOCKS, 32)
    left = banks.copy()
    row_set = 0
    for contents in columns:
        for k, column in enumerate(contents):
            at = row_set + k // row_bursts
            np.testing.assert_array_equal(banks[at % 2, at // 2, k % row_bursts], column)
            left[at % 2, at // 2, k % row_bursts] = 0
        row_set += -(-len(contents) // row_bursts)
    assert not left.any()
    again = image.columns_of_banks(HBM2_PIM, program, banks)
    layers = [image.layer_of_columns(HBM2_PIM, p, c) for p, c in zip(program.phases, again, strict=True)]
    assert same(layers[0], expert.gate_up)
    assert same(layers[1], expert.down)


def test_a_layer_that_the_phase_is_not_for_is_refused() -> None:
    (phase,) = gemv_program(HBM2_PIM, 8, 16, WeightFormat.BF16).phases
    for layer in (
        random_layer(8, 17, WeightFormat.BF16, bias=False),
        random_layer(8, 16, WeightFormat.INT8, bias=False),
        random_layer(8, 16, WeightFormat.BF16, bias=True),
    ):
        with pytest.raises(ForestageError, match="give the same"):
            image.phase_columns(HBM2_PIM, phase, layer)
    program, expert = small_expert(WeightFormat.BF16)
    other = Expert(ExpertKind.SWIGLU, expert.gate_up, expert.down)
    with pytest.raises(ForestageError, match="give the same"):
        image.expert_columns(HBM2_PIM, program, other)


def test_mxfp4_of_float_weights_survives_the_banks() -> None:
    layer = Layer(MATRICES[WeightFormat.MXFP4].of(np.random.default_rng(0).normal(size=(40, 64))))
    program = gemv_program(HBM2_PIM, 40, 64, WeightFormat.MXFP4)
    banks = image.bank_contents(HBM2_PIM, program, [image.phase_columns(HBM2_PIM, program.phases[0], layer)])
    (columns,) = image.columns_of_banks(HBM2_PIM, program, banks)
    restored = image.layer_of_columns(HBM2_PIM, program.phases[0], columns).matrix.values()
    np.testing.assert_array_equal(restored, layer.matrix.values())
