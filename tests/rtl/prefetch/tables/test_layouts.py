"""Bits of rows: Amaranth's layouts against the twin's packing."""

import numpy as np
import pytest

from predictor.st_moe.parameters import EngineLimits
from predictor.st_moe.rows import RowFormat
from rtl.prefetch.tables.layouts import address_bits, row_layout

LIMITS = [EngineLimits(), EngineLimits(experts_max=128, layers_max=5, top_k_max=3, candidates_max=10)]


@pytest.mark.parametrize("limits", LIMITS)
def test_a_row_is_packed_as_the_twin_packs_it(limits: EngineLimits) -> None:
    generator = np.random.default_rng(4)
    ids = generator.integers(0, limits.experts_max, limits.candidates_max)
    confidences = generator.integers(0, 4, limits.candidates_max)
    layout, rows = row_layout(limits), RowFormat(limits)
    entries = [{"expert": e, "confidence": c} for e, c in zip(ids.tolist(), confidences.tolist(), strict=True)]
    assert layout.const({"entries": entries}).as_bits() == rows.pack(ids, confidences)
    assert layout.size == rows.bits
    assert rows.address(limits.layers_max - 1, limits.experts_max - 1).bit_length() == address_bits(limits)
