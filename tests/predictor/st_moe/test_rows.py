"""Packing of table rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictor.st_moe.parameters import EngineLimits
from predictor.st_moe.rows import RowFormat

SHAPES = [(64, 32, 8, 8, 2), (8, 3, 4, 4, 1), (128, 4, 8, 10, 3)]


@pytest.mark.parametrize(("experts", "layers", "top_k", "candidates", "words"), SHAPES)
@given(data=st.data())
def test_rows_and_image_agree(
    experts: int, layers: int, top_k: int, candidates: int, words: int, data: st.DataObject
) -> None:
    banks = data.draw(st.sampled_from((1, 4)))
    rows = RowFormat(
        EngineLimits(
            experts_max=experts, layers_max=layers, top_k_max=top_k, candidates_max=candidates, domains_max=banks
        )
    )
    assert rows.words == words
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    ids = generator.integers(0, experts, (layers, banks, experts, candidates)).astype(np.int16)
    confidences = generator.integers(0, 4, ids.shape).astype(np.int8)
    image = rows.image(ids, confidences)
    assert image.shape == (layers * banks * experts, words)
    restored = rows.tables(image)
    assert (restored[0] == ids).all()
    assert (restored[1] == confidences).all()
    layer, expert = data.draw(st.integers(0, layers - 1)), data.draw(st.integers(0, experts - 1))
    bank = data.draw(st.integers(0, banks - 1))
    row = rows.pack(ids[layer, bank, expert], confidences[layer, bank, expert])
    address = rows.address(layer, expert, bank)
    assert address < 1 << rows.address_bits
    assert row == sum(int(word) << 32 * nth for nth, word in enumerate(image[address]))
    unpacked = rows.unpack(row)
    assert (unpacked[0] == ids[layer, bank, expert]).all()
    assert (unpacked[1] == confidences[layer, bank, expert]).all()


def test_bits_of_a_row() -> None:
    rows = RowFormat(EngineLimits())
    # Entry 0: expert 5 at confidence 3; entry 1: expert 63 at 0.
    assert rows.pack(np.array([5, 63, 0, 0, 0, 0, 0, 0]), np.array([3, 0, 0, 0, 0, 0, 0, 0])) == 0x3F_C5
    assert rows.address(31, 63) == 2047
