"""Labels, features, integers from floating point, and that training learns what can be learnt."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.errors import ForestageError
from predictor.base import read_ids
from predictor.next_use import training
from predictor.next_use.evaluate import compare_caches
from predictor.next_use.features import features_of
from predictor.next_use.labels import wanted_within
from predictor.next_use.matches import matched_rows
from predictor.next_use.network import Network
from predictor.next_use.parameters import NextUseParameters, NextUseTraining
from predictor.next_use.progress_file import FinishedLayers
from predictor.next_use.quantise import FloatLayer, quantise_layer
from predictor.next_use.sources import Source, as_arrays, sources_of
from predictor.next_use.tables import ARRAYS, NextUseTables
from predictor.next_use.training import train
from predictor.next_use.twin import NextUsePredictor
from tests.predictor.next_use.next_use_samples import SMALL, cyclic_trace, random_trace
from tests.routing import trace_of
from traces.selection import select_sequences

SHAPE = {"layers": 3, "experts": 6, "top_k": 2}


def test_sources_are_named_in_order() -> None:
    found = sources_of(NextUseParameters(**SMALL, neighbours=1, neighbour_shifts=(3,), lookahead=2))
    assert found == (
        Source(-2, previous=False, shift=0),
        Source(-3, previous=False, shift=0),
        Source(-1, previous=True, shift=0),
        Source(0, previous=True, shift=0),
        Source(1, previous=True, shift=0),
        Source(0, previous=True, shift=0, window=(0, 1)),
        Source(0, previous=True, shift=0, window=(2, 4)),
        Source(0, previous=False, shift=1),
        Source(-1, previous=False, shift=3),
        Source(0, previous=False, shift=3),
        Source(1, previous=False, shift=3),
    )
    arrays = as_arrays(found)
    assert arrays.shifts.tolist() == [1, 3]
    assert arrays.group.tolist() == [-1] * 7 + [0, 1, 1, 1]
    assert arrays.first.tolist() == [0] * 6 + [2] + [0] * 4
    assert arrays.last.tolist() == [-1] * 5 + [1, 4] + [-1] * 4


def test_without_contexts_or_windows_identity_is_not_looked_at() -> None:
    for changed in ({"contexts": ()}, {"follow": ()}):
        parameters = NextUseParameters(**{**SMALL, **changed})
        assert not parameters.looks_at_identity
        assert not any(source.window for source in sources_of(parameters))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 16), now=st.booleans(), tokens=st.integers(2, 25))
def test_wanted_within_is_what_follows(seed: int, now: bool, tokens: int) -> None:
    trace = random_trace(np.random.default_rng(seed), **SHAPE, tokens=tokens)
    ids, recorded = read_ids(trace, 0, trace.tokens)
    offsets = trace.sequence_offsets
    ends = np.repeat(offsets[1:], np.diff(offsets))
    horizons = (1, 3, 4)
    wanted, known = wanted_within(ids[:, 1], recorded[:, 1], ends, 6, horizons, including_now=now)
    for token in range(trace.tokens):
        first = token if now else token + 1
        for h, horizon in enumerate(horizons):
            assert known[token, h] == (first + horizon <= ends[token])
            ahead = range(first, min(first + horizon, ends[token]))
            truth = {int(e) for t in ahead if recorded[t, 1] for e in ids[t, 1]}
            assert set(np.flatnonzero(wanted[token, h])) == truth


def test_features_by_hand() -> None:
    trace = trace_of([[[0], [1]], [[2], [1]], [[3], [255]], [[0], [2]]], experts=4, lengths=[3, 1])
    ids, recorded = read_ids(trace, 0, 4)
    starts = np.array([True, False, False, True])
    sources = as_arrays(
        (
            Source(-1, previous=False, shift=0),
            Source(0, previous=False, shift=0),
            Source(0, previous=True, shift=0),
            Source(0, previous=False, shift=1),
            Source(1, previous=False, shift=0),
        )
    )
    none = np.full(4, -1)
    features = features_of(ids, recorded, starts, 1, 0, sources, 4, none, 8).reshape(4, 5, 4).astype(float)
    assert features[:, 0].argmax(axis=1).tolist() == [0, 2, 3, 0]
    assert features[:, 1].tolist() == [[0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]
    assert features[:, 2].tolist() == [[0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert features[:, 3].tolist() == [[0, 0.5, 0, 0], [0, 0.75, 0, 0], [0, 0.375, 0, 0], [0, 0, 0.5, 0]]
    assert not features[:, 4].any()  # no layer above
    # With a lookahead of 1 the target's own layer is known from the token before alone.
    features = features_of(ids, recorded, starts, 1, 1, sources, 4, none, 8).reshape(4, 5, 4).astype(float)
    assert features[:, 0].argmax(axis=1).tolist() == [0, 2, 3, 0]
    assert features[:, 1].tolist() == features[:, 2].tolist()
    assert features[:, 3].tolist() == [[0, 0, 0, 0], [0, 0.5, 0, 0], [0, 0.75, 0, 0], [0, 0, 0, 0]]


def test_what_followed_by_hand() -> None:
    """One layer of 8 experts; windows of the matched token, of the next, and of the second and third after it."""
    ids = [[[e]] for e in (0, 1, 2, 3, 255, 5, 6, 7)]
    trace = trace_of(ids, experts=8, lengths=[7, 1])
    recorded_ids, recorded = read_ids(trace, 0, 8)
    starts = np.isin(np.arange(8), (0, 7))
    sources = as_arrays(tuple(Source(0, previous=True, shift=0, window=window) for window in ((0, 0), (1, 1), (2, 3))))
    matches = np.array([-1, -1, 0, 1, -1, 1, 5, -1])

    def followed(log_tokens: int) -> list[list[list[int]]]:
        features = features_of(recorded_ids, recorded, starts, 0, 0, sources, 8, matches, log_tokens)
        return [[np.flatnonzero(column).tolist() for column in token] for token in features.reshape(8, 3, 8)]

    # Token 4 was not recorded; what is not older than the token itself has not happened.
    none = [[], [], []]
    assert followed(8) == [none, none, [[0], [1], []], [[1], [2], []], none, [[1], [2], [3]], [[5], [], []], none]
    # A log of 4 holds this token and three before it.
    assert followed(4) == [none, none, [[0], [1], []], [[1], [2], []], none, [[], [2], [3]], [[5], [], []], none]


def test_an_expert_that_followed_twice_counts_twice() -> None:
    trace = trace_of([[[0]], [[1]], [[1]], [[2]]], experts=4)
    ids, recorded = read_ids(trace, 0, 4)
    sources = as_arrays((Source(0, previous=True, shift=0, window=(1, 2)),))
    matches = np.array([-1, -1, -1, 0])
    features = features_of(ids, recorded, np.arange(4) == 0, 0, 0, sources, 4, matches, 8)
    assert features[3].tolist() == [0, 2, 0, 0]


@pytest.mark.parametrize("lookahead", [0, 1])
def test_integers_follow_the_floating_point(lookahead: int) -> None:
    """Scores of the twin against the network's logits, on a trace with rows missing."""
    generator = np.random.default_rng(8)
    trace = random_trace(generator, **SHAPE, tokens=400)
    parameters = NextUseParameters(**{**SMALL, "hidden": 24}, lookahead=lookahead)
    sources = as_arrays(sources_of(parameters))
    ids, recorded = read_ids(trace, 0, trace.tokens)
    starts = np.isin(np.arange(trace.tokens), trace.sequence_offsets)
    matches = matched_rows(trace, starts, parameters)
    layers, logits = [], []
    for target in range(trace.layers):
        features = features_of(
            ids, recorded, starts, target, lookahead, sources, trace.experts, matches, parameters.log_tokens
        )
        scale = np.where(sources.group < 0, 0.1, 1.5)[:, None, None]  # averages vary less and weigh more
        layer = FloatLayer(
            rows=generator.normal(size=(len(scale), trace.experts, 24)) * scale,
            bias=generator.normal(size=24),
            # Of one sign, so that what every activation is rounded by adds up instead of cancelling.
            output=np.abs(generator.normal(size=(2 * trace.experts, 24))) * 0.2,
            output_bias=generator.normal(size=2 * trace.experts) - 4,
        )
        layers.append(quantise_layer(layer, sources, features))
        weights = layer.rows.reshape(-1, 24)
        hidden = np.maximum(features.astype(float) @ weights + layer.bias, 0)
        logits.append(hidden @ layer.output.T + layer.output_bias)
    arrays = {name: np.stack([layer[name] for layer in layers]).astype(dtype) for name, dtype in ARRAYS.items()}
    twin = NextUsePredictor(NextUseTables(parameters=parameters, **SHAPE, **arrays), model="", trained_on="")
    scores = np.concatenate([part.copy() for _, part in twin.score_chunks(trace)])
    scores = scores.reshape(trace.tokens, trace.layers, -1)[:, lookahead:] / 16
    truth = np.stack(logits, axis=1)[:, lookahead:]
    inside = np.abs(truth) < 7.5
    assert inside.mean() > 0.8
    assert truth.std() > 1
    assert min(int(layer["activation_shift"]) for layer in layers) > 0  # else its rounding is not seen
    assert np.abs(scores - truth)[inside].mean() < 0.05
    assert np.abs((scores - truth)[inside].mean()) < 0.02


def test_folded_weights_take_features_as_they_are() -> None:
    """The scaling of features, rare and frequent ones, is all in the weights that are made integers."""
    generator = np.random.default_rng(2)
    frequency = np.array([0.02, 0.5, 0.9])[:, None]  # of three sources
    features = (generator.random((500, 3, 4)) < frequency).reshape(500, 12).astype(np.float16)
    torch.manual_seed(0)
    network = Network(torch.from_numpy(features), 4, NextUseParameters(hidden=6, horizons=(1, 3)))
    folded = network.folded()
    hidden = np.maximum(features.astype(float) @ folded.rows.reshape(12, 6) + folded.bias, 0)
    logits = (hidden @ folded.output.T + folded.output_bias).reshape(500, 2, 4)
    assert np.ptp(logits) > 1
    assert logits == pytest.approx(network(torch.from_numpy(features)).detach().numpy(), abs=1e-5)


def trained(
    *, log: Callable[[dict[str, Any]], None] = lambda record: None, resume: Path | None = None, **settings: Any
) -> NextUsePredictor:
    parameters = NextUseParameters(hidden=16, horizons=(1, 2), neighbours=0, history_shifts=(2,), contexts=())
    torch.set_num_threads(1)
    return train(
        cyclic_trace(),
        parameters=parameters,
        training=NextUseTraining(**{"epochs": 12, "batch_tokens": 32, "learning_rate": 0.02, **settings}),
        trained_on="a test",
        log=log,
        resume=resume,
    )


def test_training_finds_what_belady_knows() -> None:
    """Experts that come round in a circle: LRU never hits, the predictor finds nearly all that can be."""
    comparison = compare_caches(cyclic_trace(sequences=3), trained(), capacities=(4, 6), split="all")
    for point in comparison.points:
        if point.policy == "lru":
            assert point.hit_rate < 0.01
        if point.policy == "next use":
            assert point.share_closed is not None
            assert point.share_closed > 0.9


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
    shape = {"hidden": 32, "horizons": (1, 2), "neighbours": 0, "history_shifts": (2,), "contexts": (1,)}
    predictor = train(
        select_sequences(trace, np.arange(32)),
        parameters=NextUseParameters.for_trace({**shape, "contexts": (1,) * identity}, identity=identity, origin=""),
        training=NextUseTraining(epochs=30, patience=30, batch_tokens=32, learning_rate=0.01),
        trained_on="a test",
    )
    comparison = compare_caches(select_sequences(trace, np.arange(32, 40)), predictor, capacities=(4,), split="all")
    (share,) = (point.share_closed for point in comparison.points if point.policy == "next use")
    assert share is not None
    assert (share > 0.3) == identity


def test_the_seed_decides_everything() -> None:
    first, again, other = trained(epochs=1), trained(epochs=1), trained(epochs=1, seed=1)
    assert (first.tables.rows == again.tables.rows).all()
    assert (first.tables.rows != other.tables.rows).any()


def test_training_stops_early_and_logs() -> None:
    records: list[dict[str, Any]] = []
    steps: list[tuple[int, int]] = []
    generator = np.random.default_rng(4)
    train(
        random_trace(generator, **SHAPE, tokens=120),  # nothing to learn: it soon only gets worse
        parameters=NextUseParameters(hidden=32),
        training=NextUseTraining(epochs=50, patience=2, learning_rate=0.05, batch_tokens=16, validation_share=0.4),
        trained_on="a test",
        log=records.append,
        progress=lambda done, total: steps.append((done, total)),
    )
    by_layer = [[r["validation_loss"] for r in records if r["layer"] == layer] for layer in range(3)]
    for losses in by_layer:
        assert len(losses) < 50
        assert min(losses) == losses[-3]  # two epochs without a better one
    assert all(total == 150 for _, total in steps)
    assert steps == sorted(steps)


def test_the_integers_are_of_the_best_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([3.0, 1.0, 2.0, 5.0] * 2)
    folded: list[FloatLayer] = []
    quantised: list[FloatLayer] = []

    def fold(network: Network, original: Callable[[Network], FloatLayer] = Network.folded) -> FloatLayer:
        folded.append(original(network))
        return folded[-1]

    def quantise(layer: FloatLayer, *rest: Any) -> Any:
        quantised.append(layer)
        return quantise_layer(layer, *rest)

    monkeypatch.setattr(Network, "folded", fold)
    monkeypatch.setattr(training, "quantise_layer", quantise)
    monkeypatch.setattr(training, "_validation_loss", lambda *_: next(losses))
    trained(epochs=9, patience=2)
    # Each layer's weights before training, after the first epoch and after the second, the best.
    assert [id(layer) for layer in quantised] == [id(folded[2]), id(folded[5])]


def test_a_loss_is_of_what_is_known_alone() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn((5000, 2, 6), generator=generator)
    wanted = torch.rand((5000, 2, 6), generator=generator) < 0.3
    known = torch.rand((5000, 2), generator=generator) < torch.linspace(0.1, 1, 5000)[:, None]
    each = torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted.float(), reduction="none")
    expected = float(each[known].mean())
    assert float(training._loss(logits, wanted, known)) == pytest.approx(expected)
    network: Any = torch.nn.Identity()
    assert training._validation_loss(network, logits, wanted, known) == pytest.approx(expected)
    assert expected != pytest.approx(float(each.mean()), abs=1e-4)


def test_no_more_tokens_than_asked_are_trained_on() -> None:
    few = trained(epochs=1, most_tokens=120)
    many = trained(epochs=1)
    assert (few.tables.rows != many.tables.rows).any()


def test_what_cannot_be_trained_on_is_refused() -> None:
    one = trace_of([[[0], [1]]] * 8, experts=4)
    with pytest.raises(ForestageError, match="one sequence"):
        train(one, trained_on="")
    two = trace_of([[[0], [1]]] * 8, experts=4, lengths=[4, 4])
    with pytest.raises(ForestageError, match="lookahead: 2 for a model of 2 layers"):
        train(two, parameters=NextUseParameters(lookahead=2), trained_on="")
    with pytest.raises(ForestageError, match=r"contexts \(1, 2, 3\): the trace does not record the identity of tokens"):
        train(two, parameters=NextUseParameters(), trained_on="")


def test_what_would_teach_nothing_is_refused_before_a_layer_is_trained() -> None:
    records: list[dict[str, Any]] = []
    trace = trace_of([[[0, 1], [2, 3]]] * 12, experts=4, lengths=[4] * 3)

    def run(**parameters: Any) -> NextUsePredictor:
        small = NextUseParameters(hidden=3, contexts=(), **parameters)
        return train(trace, parameters=small, training=NextUseTraining(epochs=1), trained_on="", log=records.append)

    for parameters in ({"horizons": (4, 8)}, {"horizons": (5,), "lookahead": 1}):
        with pytest.raises(ForestageError, match="horizons: none ends within the 4 tokens of the longest sequence"):
            run(**parameters)
    with pytest.raises(ForestageError, match="history shift 10: rows of 82 experts a token overflow"):
        run(neighbours=20, neighbour_shifts=(10,), history_shifts=(10,))
    assert not records
    run(horizons=(3, 8))
    run(horizons=(4,), lookahead=1)


def test_a_training_that_diverges_is_refused() -> None:
    with pytest.raises(ForestageError, match=r"learning_rate: 1e\+30 makes the training of layer 0 diverge"):
        trained(learning_rate=1e30)


def test_an_interrupted_training_goes_on_where_it_was(tmp_path: Path) -> None:
    class Interrupt(Exception):
        pass

    def stop(record: dict[str, Any]) -> None:
        if record["layer"] == 1:
            raise Interrupt

    whole = trained(epochs=1)
    with pytest.raises(Interrupt):
        trained(epochs=1, log=stop, resume=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    records: list[dict[str, Any]] = []
    resumed = trained(epochs=1, log=records.append, resume=tmp_path)
    assert [record["layer"] for record in records] == [1]
    assert (resumed.tables.rows == whole.tables.rows).all()
    assert not tmp_path.exists()


def test_other_settings_do_not_go_on(tmp_path: Path) -> None:
    told = replace(cyclic_trace(), token_hash=np.arange(cyclic_trace().tokens, dtype=np.uint32))
    layers = FinishedLayers(tmp_path, cyclic_trace(), NextUseParameters(), NextUseTraining())
    arrays = {name: np.zeros(3, dtype) for name, dtype in ARRAYS.items()}
    layers.save(0, arrays)
    assert layers.load(0) is not None
    assert layers.load(1) is None
    for other in (
        (cyclic_trace(), NextUseParameters(hidden=5), NextUseTraining()),
        (cyclic_trace(), NextUseParameters(), NextUseTraining(seed=1)),
        (cyclic_trace(experts=6), NextUseParameters(), NextUseTraining()),
        (told, NextUseParameters(), NextUseTraining()),
    ):
        assert FinishedLayers(tmp_path, *other).load(0) is None
    next(tmp_path.iterdir()).write_bytes(b"torn")
    assert layers.load(0) is None
