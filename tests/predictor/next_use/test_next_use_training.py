"""Labels of next use, that training learns what can be learnt, and what it refuses."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.errors import ForestageError
from predictor.next_use.evaluate import compare_caches
from predictor.next_use.labels import NextUseHead
from predictor.next_use.predictor import NextUsePredictor
from predictor.next_use.recipes import NextUseConfig, NextUseRecipe, recipe_for
from predictor.row_network.file import EpochLog
from predictor.row_network.inputs import Examples
from tests.next_use_samples import cyclic_trace, random_trace
from tests.routing import trace_of
from traces import RoutingTrace
from traces.selection import select_sequences

torch = pytest.importorskip("torch", reason="needs the extra forestage[torch]")
from predictor.next_use.training import train  # noqa: E402

SHAPE = {"layers": 3, "experts": 6, "top_k": 2}


def examples_of(trace: RoutingTrace) -> Examples:
    plain = NextUseConfig(ngram_tables=(), decays=())
    return Examples.of(trace, plain, ranked=False, identity_tokens=np.empty(0, np.uint32))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 16), now=st.booleans(), tokens=st.integers(2, 25))
def test_wanted_within_is_what_follows(seed: int, now: bool, tokens: int) -> None:
    trace = random_trace(np.random.default_rng(seed), **SHAPE, tokens=tokens)
    recorded, horizons = trace.recorded(), (1, 3, 4)
    ends = np.repeat(trace.sequence_offsets[1:], np.diff(trace.sequence_offsets))
    order = np.random.default_rng(seed).permutation(tokens)
    wanted, known = NextUseHead(horizons, now).labels(examples_of(trace), order)
    for row, token in enumerate(order):
        first = token if now else token + 1
        for layer in range(3):
            for h, horizon in enumerate(horizons):
                if first + horizon > ends[token]:
                    assert not known[layer, row, h].any()
                    continue
                assert (known[layer, row, h] == 1).all()
                ahead = range(first, first + horizon)
                truth = {int(e) for t in ahead if recorded[t, layer] for e in trace.expert_ids[t, layer]}
                assert set(np.flatnonzero(wanted[layer, row, h])) == truth


def test_a_loss_is_of_what_is_known_alone() -> None:
    generator = np.random.default_rng(1)
    scores = generator.normal(size=(2, 500, 2, 6)).astype(np.float32)
    truth = (generator.random(scores.shape) < 0.3).astype(np.float32)
    known = np.broadcast_to((generator.random((500, 2)) < [0.2, 0.9])[None, :, :, None], scores.shape)
    known = known.astype(np.float32)
    each = np.log1p(np.exp(np.where(truth > 0, -scores, scores)))
    expected = float(each[known > 0].mean())
    head = NextUseHead((1, 3), False)
    ((name, (total, count)),) = head.figures(scores, truth, known).items()
    assert name == "log-likelihood"
    assert total / count == pytest.approx(-expected, rel=1e-5)
    loss = float(head.loss(*map(torch.from_numpy, (scores, truth, known))))
    assert loss == pytest.approx(2 * expected, rel=1e-5)  # of two layers
    assert expected != pytest.approx(float(each.mean()), abs=1e-4)


def setting(**changes: Any) -> NextUseRecipe:
    quick = {
        "hidden": 16, "horizons": (1, 2), "decays": ((2, 0),), "ngram_tables": (),
        "epochs": 12, "batch": 32, "learning_rate": 0.02,
    }  # fmt: skip
    return NextUseRecipe().replaced({**quick, **changes}, origin="test")


def trained(**changes: Any) -> NextUsePredictor:
    torch.set_num_threads(1)
    return train(cyclic_trace(), setting(**changes), trained_on="a test")


def test_training_finds_what_belady_knows() -> None:
    """Experts that come round in a circle: LRU never hits, the predictor finds nearly all that can be."""
    comparison = compare_caches(cyclic_trace(sequences=3), trained(), capacities=(4, 6), split="all")
    for point in comparison.points:
        if point.policy == "lru":
            assert point.hit_rate < 0.01
        if point.policy == "next use":
            assert point.share_closed is not None
            assert point.share_closed > 0.9


def test_a_small_trace_is_trained_in_small_batches_unless_told_otherwise() -> None:
    def batch(tokens: int, **given: int) -> int:
        return recipe_for(given, identity=True, tokens=tokens, origin="test").training.batch

    assert [batch(tokens) for tokens in (35_000, 65_535, 65_536, 140_000)] == [256, 256, 512, 512]
    assert batch(35_000, batch=512) == 512


@pytest.mark.parametrize("identity", [True, False])
def test_training_finds_what_followed(identity: bool) -> None:
    """Each sequence repeats a random passage once: nothing but its identities tells what comes again."""
    generator = np.random.default_rng(6)
    sequences, passage = 40, 24
    ids = generator.random((sequences, passage, 1, 8)).argsort(axis=-1)[..., :2]
    trace = trace_of(
        np.tile(ids, (1, 2, 1, 1)).reshape(-1, 1, 2), experts=8, lengths=[2 * passage] * sequences, model="repeated"
    )
    if identity:
        words = generator.integers(0, 1 << 32, (sequences, passage), dtype=np.uint32)
        trace = replace(trace, token_hash=np.tile(words, (1, 2)).reshape(-1))
    torch.set_num_threads(1)
    shape = {"hidden": 32, "horizons": (1, 2), "decays": ((2, 0),), "ngram_tables": (1,) * identity}
    how = {"epochs": 30, "patience": 30, "batch": 32, "learning_rate": 0.01}
    recipe = recipe_for({**shape, **how}, identity=identity, tokens=trace.tokens, origin="")
    predictor = train(select_sequences(trace, np.arange(32)), recipe)
    comparison = compare_caches(select_sequences(trace, np.arange(32, 40)), predictor, capacities=(4,), split="all")
    (share,) = (point.share_closed for point in comparison.points if point.policy == "next use")
    assert share is not None
    assert (share > 0.3) == identity


def test_integers_lose_little_and_the_seed_decides_everything() -> None:
    first, again, other = trained(epochs=1), trained(epochs=1), trained(epochs=1, seed=1)
    np.testing.assert_array_equal(first.network.tables.rows, again.network.tables.rows)
    assert (first.network.tables.rows != other.network.tables.rows).any()
    found = trained().provenance.validation
    ((_, whole),) = found.floating_point.items()
    ((_, integers),) = found.int8.items()
    assert whole > -0.1
    assert integers == pytest.approx(whole, abs=0.02)


def test_training_stops_early_and_logs() -> None:
    log: list[EpochLog] = []
    generator = np.random.default_rng(4)
    train(
        random_trace(generator, **SHAPE, tokens=120),  # nothing to learn: it soon only gets worse
        setting(hidden=32, epochs=50, patience=2, learning_rate=0.05, batch=16, validation=0.4),
        report=log.append,
    )
    figures = [entry.validation for entry in log]
    assert len(log) < 50
    assert max(figures) == figures[-3]  # two epochs without a better one
    assert {entry.figure for entry in log} == {"log-likelihood"}


def test_what_cannot_be_trained_on_is_refused() -> None:
    with pytest.raises(ForestageError, match="1 training sequence"):
        train(trace_of([[[0], [1]]] * 8, experts=4), setting())
    two = trace_of([[[0], [1]]] * 8, experts=4, lengths=[4, 4])
    with pytest.raises(ForestageError, match="lookahead: 2 for a model of 2 layers"):
        train(two, setting().at(0, 2, origin="test"))
    with pytest.raises(ForestageError, match=r"ngram_tables \(1, 2, 3\): the trace does not record the identity"):
        train(two, NextUseRecipe())


def test_what_would_teach_nothing_is_refused_before_it_is_trained() -> None:
    log: list[EpochLog] = []
    trace = trace_of([[[0, 1], [2, 3]]] * 12, experts=4, lengths=[4] * 3)
    for horizons, lookahead in (((4, 8), 0), ((5,), 1)):
        with pytest.raises(ForestageError, match="horizons: none ends within the 4 tokens of the longest sequence"):
            train(trace, setting(horizons=horizons, epochs=1).at(lookahead, lookahead, origin=""), report=log.append)
    assert not log
    train(trace, setting(horizons=(3, 8), epochs=1))
    train(trace, setting(horizons=(4,), epochs=1).at(1, 1, origin=""))


def test_a_training_that_diverges_is_refused() -> None:
    with pytest.raises(ForestageError, match=r"learning_rate: 1e\+30 makes the training diverge"):
        trained(learning_rate=1e30)


def test_an_interrupted_training_goes_on_where_it_was(tmp_path: Path) -> None:
    class Interrupt(Exception):
        pass

    def stop(entry: EpochLog) -> None:
        if entry.epoch == 2:
            raise Interrupt

    whole = trained(epochs=3)
    state = tmp_path / "state"
    with pytest.raises(Interrupt):
        train(cyclic_trace(), setting(epochs=3), trained_on="a test", state_path=state, report=stop)
    log: list[EpochLog] = []
    resumed = train(cyclic_trace(), setting(epochs=3), trained_on="a test", state_path=state, report=log.append)
    assert [entry.epoch for entry in log] == [2, 3]
    np.testing.assert_array_equal(resumed.network.tables.rows, whole.network.tables.rows)
    with pytest.raises(ForestageError, match="another trace or recipe"):
        train(cyclic_trace(), setting(epochs=4), state_path=state)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"horizons": ()}, "horizons"),
        ({"horizons": (4, 2)}, "ascending"),
        ({"horizons": (0, 2)}, "1 or more"),
        ({"hiden": 3}, "unknown key 'hiden'"),
    ],
)
def test_parameters_out_of_range_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ForestageError, match=message):
        NextUseConfig.parse(values, origin="test")
