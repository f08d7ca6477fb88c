"""What load entropy and the hottest expert's load are by chance alone."""

import itertools
import math

import numpy as np
import pytest

from tests.routing import trace_of
from traces.statistics import expert_load_nulls, statistics
from traces.statistics.expert_load_nulls import uniform_hottest_over_mean, uniform_load_entropy


def entropy(loads: np.ndarray) -> float:
    share = loads[loads > 0] / loads.sum()
    return -float(np.sum(share * np.log(share))) / math.log(len(loads))


@pytest.mark.parametrize(("tokens", "experts", "top_k"), [(1, 4, 1), (3, 4, 2), (4, 3, 1), (2, 5, 3), (3, 4, 4)])
def test_of_few_tokens_they_are_the_means_over_all_that_can_be(tokens: int, experts: int, top_k: int) -> None:
    rows = list(itertools.combinations(range(experts), top_k))
    loads = [np.bincount(np.ravel(chosen), minlength=experts) for chosen in itertools.product(rows, repeat=tokens)]
    assert uniform_load_entropy(tokens, experts, top_k) == pytest.approx(np.mean([entropy(load) for load in loads]))
    hottest = np.mean([load.max() * experts / (tokens * top_k) for load in loads])
    assert uniform_hottest_over_mean(tokens, experts, top_k) == pytest.approx(hottest, rel=0.02)


@pytest.mark.parametrize("tokens", [37, 700, 5_000])
@pytest.mark.parametrize(("experts", "top_k"), [(32, 4), (128, 8)])
def test_they_are_what_uniform_choices_have(tokens: int, experts: int, top_k: int) -> None:
    generator, draws = np.random.default_rng(7), max(8, 800_000 // tokens // top_k)
    loads = [
        np.bincount(np.argpartition(generator.random((tokens, experts)), top_k)[:, :top_k].ravel(), minlength=experts)
        for _ in range(min(draws, 40))
    ]
    assert uniform_load_entropy(tokens, experts, top_k) == pytest.approx(np.mean([*map(entropy, loads)]), rel=2e-3)
    excess = np.mean([load.max() for load in loads]) * experts / (tokens * top_k) - 1
    assert uniform_hottest_over_mean(tokens, experts, top_k) - 1 == pytest.approx(excess, rel=0.2)


@pytest.mark.parametrize(("experts", "top_k"), [(8, 2), (32, 4), (60, 4), (256, 8), (512, 10)])
def test_drawn_and_limit_meet(experts: int, top_k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = expert_load_nulls.SAMPLED_CHOICES // top_k
    drawn = uniform_hottest_over_mean(tokens, experts, top_k)
    assert drawn is not None
    limit = expert_load_nulls._normal_limit(tokens, experts, top_k)
    assert limit - 1 == pytest.approx(drawn - 1, rel=0.05)


def test_of_many_tokens_they_are_those_of_even_loads() -> None:
    assert uniform_load_entropy(10**9, 128, 8) == pytest.approx(1, abs=1e-6)
    hottest = uniform_hottest_over_mean(10**9, 128, 8)
    assert hottest is not None
    assert 1 < hottest < 1.001


def test_statistics_have_them_beside_the_figures() -> None:
    ids = np.random.default_rng(1).random((50, 2, 16)).argsort(axis=-1)[..., :3]
    found = statistics(trace_of(ids, experts=16, lengths=[20, 30], domains=["a", "b"]))
    assert found.overall.uniform_load_entropy == uniform_load_entropy(50, 16, 3)
    assert found.by_layer[1].uniform_hottest_over_mean == uniform_hottest_over_mean(50, 16, 3)
    assert found.by_domain["a"].uniform_hottest_over_mean == uniform_hottest_over_mean(20, 16, 3)
    assert found.overall.hottest_over_mean == pytest.approx(found.overall.uniform_hottest_over_mean, rel=0.3)
