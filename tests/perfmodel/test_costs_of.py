"""Whose sizes a simulation uses, and how it refuses what does not fit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog.errors import ForestageError
from perfmodel.costs_of import resolve_costs
from tests.perfmodel.micro import make_catalog, make_config, make_trace

TRACE = make_trace([[[0, 1], [2, 3]], [[1, 2], [3, 0]], [[1, 3], [2, 0]]], experts=4)


@pytest.fixture
def catalog(tmp_path: Path) -> Any:
    return make_catalog(tmp_path, layers=2, experts=4, top_k=2)


def sizes(catalog: Any, trace: Any, **config: Any) -> tuple[str, int]:
    costs, _ = resolve_costs(trace, make_config(**config), catalog)
    return costs.model.name, costs.expert_bytes


def test_a_traces_own_model_and_the_machines_link_are_used(catalog: Any) -> None:
    costs, layers = resolve_costs(TRACE, make_config(), catalog)
    assert (costs.model.name, costs.machine.name, costs.link_bytes_per_s) == ("micro", "micro", 10**9)
    assert (layers.routed, layers.dense) == ((0, 1), ())
    assert resolve_costs(TRACE, make_config(link_gb_per_s=2), catalog)[0].link_bytes_per_s == 2 * 10**9


def test_sizes_of_another_model_of_the_same_shape_are_used(catalog: Any) -> None:
    trace = make_trace(np.tile([0, 1, 2, 3], (2, 3, 1)), experts=32)
    assert sizes(catalog, trace, sizes_of="gpt-oss-20b") == ("gpt-oss-20b", 13_236_480)


def test_sizes_of_another_shape_are_used_only_on_request(catalog: Any) -> None:
    with pytest.raises(ForestageError, match=r"the trace has \(experts, top_k\) = \(4, 2\), gpt-oss-20b has \(32, 4\)"):
        sizes(catalog, TRACE, sizes_of="gpt-oss-20b")
    assert sizes(catalog, TRACE, sizes_of="gpt-oss-20b", allow_other_shape=True)[0] == "gpt-oss-20b"


def test_a_model_that_was_run_with_another_top_k_keeps_its_own_sizes(catalog: Any) -> None:
    cut = make_trace([[[0], [2]], [[1], [3]]], experts=4)
    assert sizes(catalog, cut)[0] == "micro"
    with pytest.raises(ForestageError, match=r"\(4, 1\), micro has \(4, 2\)"):
        sizes(catalog, cut, sizes_of="micro")
    with pytest.raises(ForestageError, match=r"\(5, 2\), micro has \(4, 2\)"):
        sizes(catalog, make_trace([[[0, 4], [2, 1]]], experts=5))


@pytest.mark.parametrize(
    ("model", "values", "message"),
    [
        ("micro", {"sizes_of": "micor"}, "the nearest known is 'micro'"),
        ("micro", {"machine": "mircro"}, "machine 'mircro' is not in the catalogue; the nearest known is"),
        ("nobody's", {}, "sizes_of: the trace's model 'nobody's' is not"),
    ],
)
def test_unknown_names_are_refused_in_one_line(catalog: Any, model: str, values: Any, message: str) -> None:
    with pytest.raises(ForestageError, match=message) as caught:
        sizes(catalog, make_trace([[[0, 1], [2, 3]]], experts=4, model=model), **values)
    assert "\n" not in str(caught.value)
