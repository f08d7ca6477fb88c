"""What the PIM expert unit runs: every weight in one column, in the stated order, and sizes by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog import ForestageError
from pim_model.dram.devices import find_device
from pim_model.unit.parameters import ACCUMULATORS, OCTET, UnitParameters
from pim_model.unit.program import (
    ColumnKind,
    ExpertKind,
    Phase,
    WeightFormat,
    expert_program,
    gemv_program,
    token_slots,
    weight_bytes,
)

UNITS = {name: UnitParameters(device=find_device(name), max_inputs=16384) for name in ("HBM2-PIM", "HBM3", "HBM4")}
HBM2 = UNITS["HBM2-PIM"]

shapes = st.tuples(st.integers(1, 400), st.integers(1, 300))


@st.composite
def products(draw: st.DrawFn) -> tuple[UnitParameters, int, int, WeightFormat, int, bool]:
    """A unit, rows, inputs, a format, tokens, and whether there is a bias."""
    weight_format = draw(st.sampled_from(WeightFormat))
    rows, inputs = draw(shapes)
    return (
        draw(st.sampled_from(list(UNITS.values()))),
        rows,
        inputs,
        weight_format,
        draw(st.integers(1, weight_format.most_tokens)),
        draw(st.booleans()),
    )


def covered(phase: Phase, blocks: int) -> np.ndarray:
    """How often each weight, filled-up ones included, is in a MAC column: ``[rows, inputs]``."""
    last = phase.tiles[-1]
    times = np.zeros((last.first_row + blocks * last.rows_per_block, 16 * phase.chunks), np.int64)
    columns = phase.columns()
    unit = phase.format.rows
    for kind, tile, chunk, index in zip(columns.kind, columns.tile, columns.chunk, columns.index, strict=True):
        if kind == ColumnKind.MAC:
            rows_per_block = phase.tiles[tile].rows_per_block
            assert (index + 1) * unit <= rows_per_block
            for block in range(blocks):
                first = phase.tiles[tile].first_row + block * rows_per_block + index * unit
                times[first : first + unit, 16 * chunk : 16 * chunk + 16] += 1
    return times


@settings(max_examples=40, deadline=None)
@given(products())
def test_every_weight_is_in_exactly_one_column(product: tuple) -> None:
    unit, rows, inputs, weight_format, tokens, bias = product
    (phase,) = gemv_program(unit, rows, inputs, weight_format, tokens=tokens, bias=bias).phases
    times = covered(phase, unit.blocks.blocks)
    assert np.all(times == 1)
    assert times.shape[0] >= rows
    assert times.shape[1] >= inputs
    # No tile lies all beyond the matrix, and inputs are filled up to the next unit only.
    assert phase.tiles[-1].first_row < rows
    assert times.shape[1] - inputs < weight_format.input_unit


@settings(max_examples=60, deadline=None)
@given(products())
def test_columns_go_chunk_by_chunk_with_scales_before_and_constants_after(product: tuple) -> None:
    unit, rows, inputs, weight_format, tokens, bias = product
    (phase,) = gemv_program(unit, rows, inputs, weight_format, tokens=tokens, bias=bias).phases
    columns = phase.columns()
    assert np.all(np.diff(columns.tile) >= 0)
    for number, tile in enumerate(phase.tiles):
        of_tile = columns.tile == number
        assert of_tile.sum() == phase.columns_of_tile(tile)
        expected = []
        for chunk in range(phase.chunks):
            if weight_format is WeightFormat.MXFP4 and chunk % 2 == 0:
                expected.append((ColumnKind.SCALES, chunk, 0))
            expected += [(ColumnKind.MAC, chunk, group) for group in range(tile.rows_per_block // weight_format.rows)]
        octets = -(-tile.rows_per_block // OCTET)
        if weight_format is WeightFormat.INT8:
            expected += [(ColumnKind.CONSTANTS, -1, octet) for octet in range(octets)]
        if bias:
            expected += [(ColumnKind.CONSTANTS, -1, 4 + octet) for octet in range(octets)]
        got = list(zip(columns.kind[of_tile], columns.chunk[of_tile], columns.index[of_tile], strict=True))
        assert got == expected
    assert phase.row_sets == -(-len(columns.kind) // unit.device.row_bursts)


@settings(max_examples=100, deadline=None)
@given(products())
def test_tiles_fit_the_accumulators_and_are_as_even_as_they_can_be(product: tuple) -> None:
    unit, rows, inputs, weight_format, tokens, _ = product
    (phase,) = gemv_program(unit, rows, inputs, weight_format, tokens=tokens).phases
    sizes = [tile.rows_per_block for tile in phase.tiles]
    assert max(sizes) * token_slots(tokens) <= ACCUMULATORS
    assert all(size % weight_format.row_unit == 0 for size in sizes)
    assert len(set(sizes[:-1])) <= 1
    assert sizes[-1] <= sizes[0]
    # Block after block, tile after tile.
    ends = [tile.first_row + unit.blocks.blocks * tile.rows_per_block for tile in phase.tiles]
    assert [tile.first_row for tile in phase.tiles] == [0, *ends[:-1]]
    assert 0 <= sum(sizes) * unit.blocks.blocks - rows < unit.blocks.blocks * weight_format.row_unit


def test_an_experts_phases_by_hand() -> None:
    # 96 gate and up rows over 8 blocks: 12 a block, one tile.  2048 inputs: 128 chunks of 12 columns: 1536 columns in
    # 48 row sets.  Down: 256 rows a block in 8 tiles of 32, each of 3 chunks of 32 columns: 768 columns, 24 row sets.
    program = expert_program(HBM2, 2048, 48, WeightFormat.BF16, ExpertKind.SWIGLU)
    up, down = program.phases
    assert [(tile.first_row, tile.rows_per_block) for tile in up.tiles] == [(0, 12)]
    assert (up.chunks, len(up.columns().kind), up.first_row_set, up.row_sets) == (128, 1536, 0, 48)
    assert [tile.rows_per_block for tile in down.tiles] == [32] * 8
    assert (down.chunks, len(down.columns().kind), down.first_row_set, down.row_sets) == (3, 768, 48, 24)
    # INT8 with biases: a column has two rows; 32 rows a tile need 4 columns of scales and 4 of biases.
    program = expert_program(HBM2, 2048, 48, WeightFormat.INT8, ExpertKind.GPT_OSS, down_bias=True)
    assert program.phases[1].columns_of_tile(program.phases[1].tiles[0]) == 3 * 16 + 4 + 4
    # MXFP4: four rows a column, one column of scales for two chunks; 48 inputs are filled up to 64.
    program = expert_program(HBM2, 2048, 48, WeightFormat.MXFP4, ExpertKind.SWIGLU)
    assert program.phases[1].columns_of_tile(program.phases[1].tiles[0]) == 4 * 8 + 2


def test_bytes_of_weights_by_hand() -> None:
    assert weight_bytes(10, 48, WeightFormat.BF16) == 960
    assert weight_bytes(10, 48, WeightFormat.INT8) == 480 + 40
    assert weight_bytes(10, 48, WeightFormat.MXFP4) == 10 * 24 + 10 * 2


def test_loads_of_a_chunk_follow_the_tokens_of_bf16_alone() -> None:
    # Three tokens have four places.
    for tokens, loads in ((1, 1), (2, 2), (3, 4), (4, 4)):
        assert gemv_program(HBM2, 64, 64, WeightFormat.BF16, tokens=tokens).loads_of_chunk == loads
    assert gemv_program(HBM2, 64, 64, WeightFormat.INT8, tokens=2).loads_of_chunk == 1
    assert gemv_program(HBM2, 64, 64, WeightFormat.MXFP4).loads_of_chunk == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gemv_program(HBM2, 0, 64, WeightFormat.BF16), "rows is 0"),
        (lambda: gemv_program(HBM2, 64, 0, WeightFormat.BF16), "inputs is 0"),
        (lambda: gemv_program(HBM2, 64, 64, WeightFormat.BF16, tokens=5), "tokens is 5"),
        (lambda: gemv_program(HBM2, 64, 64, WeightFormat.MXFP4, tokens=2), "run more in several passes"),
        (lambda: gemv_program(HBM2, 64, 16400, WeightFormat.BF16), "its buffer holds 16384"),
        (lambda: expert_program(HBM2, 64, 64, WeightFormat.BF16, ExpertKind.NONE), "kind is none"),
    ],
)
def test_programs_that_cannot_be_run_are_refused(call, message: str) -> None:
    with pytest.raises(ForestageError, match=message):
        call()
