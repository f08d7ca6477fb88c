"""Units of the synthesis are the circuits that are meant: nets that hold what was measured, no larger than it needs."""

import re

import numpy as np
import pytest

from catalog.errors import ForestageError
from predictor.next_layer.recipes import NextLayerConfig
from predictor.row_network.program import HeadProgram, head_program
from predictor.st_moe.parameters import EngineLimits
from rtl.synthesis.hierarchy import design_of
from rtl.synthesis.net_configurations import CONFIGURATIONS, EXPERTS, LAYERS, TOP_K
from rtl.synthesis.units import UNITS, Unit
from tests.learned_samples import random_tables


def program(config: NextLayerConfig, lanes: int) -> HeadProgram:
    generator = np.random.default_rng(0)
    small = config.model_copy(update={"identity_rows": min(2, config.identity_rows)})
    tables = random_tables(small, generator, layers=LAYERS, experts=EXPERTS, adaptation=True)
    return head_program(tables, small, top_k=TOP_K, ranked=True, distance=1, lanes=lanes, origin="test")


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_net_holds_its_size_and_no_word_more(name: str) -> None:
    configuration = CONFIGURATIONS[name]
    limits, head = configuration.limits, program(configuration.predictor, configuration.lanes)
    head.check_limits(limits, 0, origin=name)
    for field in ("row_words", "operations", "decays", "matched"):
        value = getattr(limits.next_layer, field)
        less = value // 2 if field == "operations" else value - 1
        smaller = limits.next_layer.model_copy(update={field: less})
        if value > (2 if field in ("row_words", "operations") else 1):
            with pytest.raises(ForestageError, match="the generated net holds at most"):
                head.check_limits(limits.model_copy(update={"next_layer": smaller}), 0, origin=name)


def test_banks_are_those_of_the_measured_sizes() -> None:
    sizes = {name: configuration.bank_bytes for name, configuration in CONFIGURATIONS.items()}
    assert sizes["net-1k"] == 912
    assert sizes["net-7k"] <= 8 * 1024
    assert round(sizes["net-57k"] / 1024, 1) == 57.1


def test_parts_that_are_shared_are_one_module() -> None:
    unit = UNITS["net-dot-product"]
    assert isinstance(unit, Unit)
    design = design_of(unit.make(EngineLimits()))
    counts = {name: n for name, n in design.instances.items() if name.startswith("net_")}
    assert counts == {
        "net_products_4": 32, "net_added_4x16": 32, "net_added_4x18": 8, "net_added_4x20": 2, "net_added_2x22": 1,
    }  # fmt: skip
    assert len(re.findall(r"^module \\net_products_4$", design.text, re.MULTILINE)) == 1
    assert design.labels["net_products_4"] == "net_products_4"
