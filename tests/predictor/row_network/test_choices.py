"""What a training chooses: the epoch, the rows of identity, the integers; and whose kept state it takes."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from predictor.learned.config import LearnedConfig, Recipe
from predictor.learned.probability import calibrate, score_histogram
from predictor.learned.quantise import quantise
from predictor.learned.tables import ADAPTED_LIMIT, LearnedTables
from tests.learned_samples import PROVENANCE, identified_trace, random_predictor
from tests.routing import trace_of
from traces import RoutingTrace

torch = pytest.importorskip("torch", reason="needs the extra forestage[torch]")
from predictor.learned import integers, training  # noqa: E402
from predictor.learned.batches import Batches  # noqa: E402
from predictor.learned.dataset import Dataset, prepare  # noqa: E402
from predictor.learned.predictor import LearnedPredictor  # noqa: E402
from predictor.learned.training import Trained, _fingerprint, _parts, train  # noqa: E402

SHAPE = {"layers": 4, "experts": 8, "top_k": 2}
QUICK = {"hidden": 8, "layers_back": 1, "previous": [0], "decays": [2], "identity_rows": 24, "epochs": 3, "batch": 64}


def recipe(**changes: object) -> Recipe:
    return Recipe().replaced({**QUICK, **changes}, origin="test")


@pytest.fixture(scope="module")
def trace() -> RoutingTrace:
    """Random routing: nothing to learn, so that no epoch is as good as the best by right."""
    return identified_trace(**SHAPE, lengths=(60,) * 6)


@pytest.fixture(scope="module")
def trained(trace: RoutingTrace) -> Trained:
    return train(trace, recipe(epochs=20, patience=3, learning_rate=2e-2, dropout=0.1, hidden_dropout=0.1, tagged=[]))


def test_the_best_epoch_is_kept(trained: Trained) -> None:
    provenance = trained.predictor.provenance
    recalls = [entry.recall for entry in provenance.log]
    assert max(recalls) > recalls[-1]
    assert provenance.validation_recall.floating_point["2"] == pytest.approx(max(recalls))


def test_identities_of_the_validation_sequences_have_no_rows() -> None:
    """Else what stops the training and calibrates it would be better known than what comes."""
    ids = np.random.default_rng(1).random((50, 4, 8)).argsort(axis=-1)[..., :2]
    made = trace_of(ids, experts=8, lengths=[5] * 10)
    own = replace(made, token_hash=np.repeat(np.arange(100, 110), 5).astype(np.uint32))
    tables = train(own, recipe(epochs=1, validation=0.2)).predictor.tables
    assert np.isin(np.arange(100, 110), tables.identity_tokens).sum() == 8


def test_training_and_twin_mean_the_same_rows_of_identity(trace: RoutingTrace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The row of all others among them."""
    given: list[tuple[RoutingTrace, np.ndarray]] = []

    def prepared(part: RoutingTrace, *rest: Any, identity: np.ndarray, **named: Any) -> Dataset:
        given.append((part, identity))
        return prepare(part, *rest, identity=identity, **named)

    monkeypatch.setattr(training, "prepare", prepared)
    predictor = train(trace, recipe(epochs=1, identity_rows=3)).predictor
    assert len(given) == 2
    for part, identity in given:
        assert part.token_hash is not None
        assert set(identity) == {0, 1, 2}
        np.testing.assert_array_equal(identity, predictor.identity_index(np.asarray(part.token_hash).astype(np.int64)))


def test_scores_are_the_log_odds_of_the_weights(trained: Trained, trace: RoutingTrace) -> None:
    """In steps of which a unit has 96, up to the rounding of a shift; with 2,048 for even odds."""
    predictor, weights = trained.predictor, trained.weights
    config, tokens = predictor.config, np.arange(trace.tokens)
    assert trace.token_hash is not None
    identity = predictor.identity_index(np.asarray(trace.token_hash).astype(np.int64))
    batches = Batches(prepare(trace, config, ranked=True, identity=identity), config, 1)
    sums = batches.inputs(tokens).numpy() @ weights.rows.reshape(4, -1, config.hidden) + weights.bias[:, None]
    none = np.zeros((1, *weights.identity_rows.shape[1:]))
    rows = np.concatenate([weights.identity_rows, none])
    for age, index in enumerate(batches.identity(tokens)):
        sums += rows[index.numpy(), age].transpose(1, 0, 2)
    log_odds = (np.maximum(sums, 0) @ weights.output + weights.output_bias[:, None]).transpose(1, 0, 2)
    tables = quantise(weights, config, predictor.tables.identity_tokens, lookahead=1, ranked=True, clip=1.0)
    twin = LearnedPredictor(tables, config, top_k=2, lookahead=1, ranked=True, provenance=PROVENANCE)
    scores = twin.score_trace(trace)
    for layer in range(4):
        said, meant = scores[:, layer].ravel() - 2048.0, log_odds[:, layer].ravel()
        slope = said @ meant / (meant @ meant)
        assert 96 / 2**0.5 - 1 < slope < 96 * 2**0.5 + 1
        assert np.abs(said / slope - meant).mean() < 0.03 * meant.std()


def test_probabilities_are_those_of_the_validation_sequences(trace: RoutingTrace) -> None:
    setting = recipe(epochs=1, adaptation=False, validation=0.3)
    predictor = train(trace, setting).predictor
    fitted, kept = _parts(trace, setting.training)
    assert (fitted.sequences, kept.sequences) == (4, 2)
    ours = predictor.tables.probabilities
    np.testing.assert_array_equal(ours, calibrate(*score_histogram(predictor, kept)))
    assert (ours != calibrate(*score_histogram(predictor, fitted))).any()


def test_a_kept_state_is_of_one_trace_and_one_task(trace: RoutingTrace) -> None:
    ids = trace.expert_ids.copy()
    ids[-1, -1] = ids[-1, -1, ::-1]
    assert trace.token_hash is not None
    others = [
        (replace(trace, expert_ids=ids), recipe(), 1),
        (replace(trace, token_hash=trace.token_hash + np.uint32(1)), recipe(), 1),
        (replace(trace, sequence_offsets=trace.sequence_offsets[[0, 2, 3, 4, 5, 6]], **_labels(5)), recipe(), 1),
        (trace, recipe(seed=3), 1),
        (trace, recipe(), 2),
    ]
    prints = [_fingerprint(*case) for case in ((trace, recipe(), 1), *others)]
    assert len(set(prints)) == len(prints)
    assert _fingerprint(trace, recipe(), 1) == prints[0]


def _labels(sequences: int) -> dict[str, tuple[str, ...]]:
    return {"domains": ("a",) * sequences, "datasets": ("a",) * sequences}


def habitual_trace() -> RoutingTrace:
    """Each sequence and layer has four experts that it draws from: who adapts while decoding finds them."""
    generator = np.random.default_rng(6)
    own = generator.random((6, 1, 4, 8)).argsort(axis=-1)[..., :4]
    drawn = generator.random((6, 60, 4, 4)).argsort(axis=-1)[..., :2]
    ids = np.take_along_axis(np.broadcast_to(own, (6, 60, 4, 4)), drawn, axis=-1).reshape(360, 4, 2)
    made = trace_of(ids, experts=8, lengths=[60] * 6)
    return replace(made, token_hash=generator.integers(8, 16, 360).astype(np.uint32))


def test_integers_are_chosen_by_the_twin(trained: Trained) -> None:
    """Every clip and every adaptation tried here too; probabilities are those of what is used."""
    predictor, trace = trained.predictor, habitual_trace()
    config: LearnedConfig = predictor.config
    kind = {"lookahead": 1, "ranked": True}

    def assemble(tables: LearnedTables) -> LearnedPredictor:
        return LearnedPredictor(tables, config, top_k=2, provenance=PROVENANCE, **kind)

    def found(tables: LearnedTables) -> float:
        return integers.twin_recall(assemble(tables), trace, (2,))["2"]

    def calibrated(tables: LearnedTables) -> np.ndarray:
        return calibrate(*score_histogram(assemble(tables), trace))

    tokens = predictor.tables.identity_tokens
    fixed, used = integers.choose_integers(trained.weights, config, tokens, trace, assemble, **kind)
    clipped = [quantise(trained.weights, config, tokens, clip=clip, **kind) for clip in integers.CLIPS]
    recalls = [found(tables) for tables in clipped]
    assert max(recalls) > min(recalls)
    np.testing.assert_array_equal(fixed.rows, clipped[int(np.argmax(recalls))].rows)
    np.testing.assert_array_equal(fixed.probabilities, calibrated(fixed))

    adapting = [replace(fixed, adaptations=np.full(4, shift, np.uint8)) for shift in integers.ADAPTATIONS]
    recalls = [found(tables) for tables in adapting]
    assert max(recalls) > recalls[0] + 0.1
    best = adapting[int(np.argmax(recalls))]
    np.testing.assert_array_equal(used.adaptations, best.adaptations)
    np.testing.assert_array_equal(used.probabilities, calibrated(best))
    assert (used.probabilities != fixed.probabilities).any()


def test_an_adapted_bias_goes_so_far_and_no_farther() -> None:
    """Chances of one half that never come true, 600 times, then always do: as if only the limit had been reached."""
    predictor = random_predictor(layers=2, experts=4, top_k=1)
    half = np.full_like(predictor.tables.probabilities, 32768)
    predictor = LearnedPredictor(
        replace(predictor.tables, probabilities=half), predictor.config, top_k=1, lookahead=1, ranked=True,
        provenance=PROVENANCE,
    )  # fmt: skip
    for expert, reached in ((0, -ADAPTED_LIMIT), (3, -ADAPTED_LIMIT + 600 * 32767)):
        for _ in range(600):
            for layer in range(2):
                predictor.observe(layer, np.array([expert]))
        assert predictor._state.adapted[:, 3].tolist() == [reached] * 2
    assert predictor._state.adapted[:, 1].tolist() == [-ADAPTED_LIMIT] * 2
    assert predictor._state.adapted[:, 0].tolist() == [ADAPTED_LIMIT - 600 * 32768] * 2
