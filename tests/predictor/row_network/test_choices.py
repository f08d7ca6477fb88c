"""What a training chooses: the epoch, the rows of identity, the integers; and whose kept state it takes."""

from dataclasses import replace

import numpy as np
import pytest

from predictor.next_layer.labels import ADAPTATIONS, NextLayerHead
from predictor.next_layer.predictor import NextLayerPredictor
from predictor.next_layer.recipes import NextLayerRecipe
from predictor.next_use.labels import NextUseHead
from predictor.next_use.recipes import NextUseConfig, NextUseRecipe
from predictor.row_network.chances import calibrate, score_histogram
from predictor.row_network.inputs import Examples
from predictor.row_network.integers import ADAPTED_LIMIT, NetworkTables
from predictor.row_network.quantise import CLIPS, Quantised, Weights, choose_integers, quantise, twin_figures
from predictor.row_network.twin import RowNetwork
from tests.learned_samples import PROVENANCE, identified_trace, random_predictor
from tests.next_use_samples import random_trace
from tests.routing import trace_of
from traces import RoutingTrace

torch = pytest.importorskip("torch", reason="needs the extra forestage[torch]")
from predictor.row_network.training import Trained, divide, fingerprint, train  # noqa: E402

SHAPE = {"layers": 4, "experts": 8, "top_k": 2}
QUICK = {
    "hidden": 8,
    "layers_back": 1,
    "previous": [[0, 0]],
    "decays": [[2, 0]],
    "identity_rows": 24,
    "epochs": 3,
    "batch": 64,
}


HEAD = NextLayerHead((2, 3, 4), 2)


def recipe(**changes: object) -> NextLayerRecipe:
    return NextLayerRecipe().replaced({**QUICK, **changes}, origin="test")


def trained_on(trace: RoutingTrace, setting: NextLayerRecipe) -> Trained:
    return train(trace, setting, NextLayerHead.of(setting, experts=trace.experts, top_k=trace.top_k))


@pytest.fixture(scope="module")
def trace() -> RoutingTrace:
    """Random routing: nothing to learn, so that no epoch is as good as the best by right."""
    return identified_trace(**SHAPE, lengths=(60,) * 6)


SETTING = recipe(epochs=20, patience=3, learning_rate=2e-2, dropout=0.1, hidden_dropout=0.1, ngram_tables=[])


@pytest.fixture(scope="module")
def trained(trace: RoutingTrace) -> Trained:
    return trained_on(trace, SETTING)


def test_the_best_epoch_is_kept(trained: Trained) -> None:
    provenance = trained.provenance
    recalls = [entry.validation for entry in provenance.log]
    assert max(recalls) > recalls[-1]
    assert provenance.validation.floating_point["2"] == pytest.approx(max(recalls))


def test_identities_of_the_validation_sequences_have_no_rows() -> None:
    """Else what stops the training and calibrates it would be better known than what comes."""
    ids = np.random.default_rng(1).random((50, 4, 8)).argsort(axis=-1)[..., :2]
    made = trace_of(ids, experts=8, lengths=[5] * 10)
    own = replace(made, token_hash=np.repeat(np.arange(100, 110), 5).astype(np.uint32))
    tables = trained_on(own, recipe(epochs=1, validation=0.2)).tables
    assert np.isin(np.arange(100, 110), tables.identity_tokens).sum() == 8


def test_scores_are_the_log_odds_of_the_weights(trained: Trained, trace: RoutingTrace) -> None:
    """In steps of which a unit has 128 up to the rounding of a shift, as told; with 2,048 for even odds."""
    weights, config, tokens = trained.weights, SETTING.predictor, np.arange(trace.tokens)
    examples = Examples.of(trace, config, ranked=True, identity_tokens=trained.tables.identity_tokens)
    inputs = examples.inputs(tokens, np.ones(trace.tokens, np.int64)).reshape(4, trace.tokens, -1)
    sums = inputs @ weights.rows.reshape(4, -1, config.hidden) + weights.bias
    none = np.zeros((1, *weights.identity_rows.shape[1:]))
    rows = np.concatenate([weights.identity_rows, none])
    for age, index in enumerate(examples.identities(tokens)):
        sums += rows[index, age].transpose(1, 0, 2)
    log_odds = (np.maximum(sums, 0) @ weights.output + weights.output_bias[:, None]).transpose(1, 0, 2)
    made = quantise(weights, config, trained.tables.identity_tokens, ranked=True, clip=1.0)
    ((_, scores),) = RowNetwork(made.tables, config, top_k=2, ranked=True).score_chunks(trace)
    for layer in range(4):
        said, meant = scores[:, layer].ravel() - 2048.0, log_odds[:, layer].ravel()
        slope = said @ meant / (meant @ meant)
        assert 128 / 2**0.5 - 1 < slope < 128 * 2**0.5 + 1
        assert slope == pytest.approx(made.steps[layer], rel=0.02)
        assert np.abs(said / slope - meant).mean() < 0.03 * meant.std()


@pytest.mark.parametrize("of_identity", [False, True])
def test_a_clip_cuts_outliers_and_gives_the_others_its_steps(of_identity: bool) -> None:
    """Rows of experts and of identity alike: one weight of 10 among ones of 1, cut at 4.5 by a clip of 0.45."""
    config = recipe(layers_back=1, previous=[], decays=[], ngram_tables=[], hidden=8).predictor
    generator = np.random.default_rng(0)
    rows = {
        "rows": generator.uniform(-1, 1, (2, 1, 4, 8)).astype(np.float32),
        "identity_rows": generator.uniform(-1, 1, (24, 2, 2, 8)).astype(np.float32),
    }
    name = "identity_rows" if of_identity else "rows"
    rows[name].reshape(-1)[-1] = 10.0  # of layer 1, in both
    weights = Weights(
        **rows, bias=np.zeros((2, 1, 8), np.float32), output=np.ones((2, 8, 4), np.float32),
        output_bias=np.zeros((2, 4), np.float32), hidden_high=np.ones(2, np.float32),
    )  # fmt: skip
    tokens = np.arange(23, dtype=np.uint32)
    made = (quantise(weights, config, tokens, ranked=False, clip=clip) for clip in (1.0, 0.45))
    whole, clipped = (each.tables for each in made)
    for tables, largest in ((whole, 10.0), (clipped, 4.5)):
        found = getattr(tables, name).reshape(-1)
        assert found[-1] == 127
        shift = int((tables.identity_shifts if of_identity else tables.source_shifts)[1, -1])
        assert shift == 3
        expected = np.round(rows[name].reshape(-1)[-8:-1] * 127 / largest)
        np.testing.assert_array_equal(found[-8:-1], expected)


def test_probabilities_are_those_of_the_validation_sequences(trace: RoutingTrace) -> None:
    setting = recipe(epochs=1, adaptation=False, validation=0.3)
    tables = trained_on(trace, setting).tables
    fitted, kept = divide(trace, setting.training)
    assert (fitted.sequences, kept.sequences) == (4, 2)
    network = RowNetwork(tables, setting.predictor, top_k=2, ranked=True)
    np.testing.assert_array_equal(tables.chances, calibrate(*score_histogram(network, HEAD, kept)))
    assert (tables.chances != calibrate(*score_histogram(network, HEAD, fitted))).any()


def test_a_kept_state_is_of_one_trace_and_one_task(trace: RoutingTrace) -> None:
    ids = trace.expert_ids.copy()
    ids[-1, -1] = ids[-1, -1, ::-1]
    assert trace.token_hash is not None
    others = [
        (replace(trace, expert_ids=ids), recipe()),
        (replace(trace, token_hash=trace.token_hash + np.uint32(1)), recipe()),
        (replace(trace, sequence_offsets=trace.sequence_offsets[[0, 2, 3, 4, 5, 6]], **_labels(5)), recipe()),
        (trace, recipe(seed=3)),
        (trace, recipe(farthest=2)),
        (trace, NextUseRecipe()),
    ]
    prints = [fingerprint(*case) for case in ((trace, recipe()), *others)]
    assert len(set(prints)) == len(prints)
    assert fingerprint(trace, recipe()) == prints[0]


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
    """Every clip and every adaptation tried here too; chances are those of what is used."""
    trace, config = habitual_trace(), SETTING.predictor
    tokens = trained.tables.identity_tokens
    examples = Examples.of(trace, config, ranked=True, identity_tokens=tokens)

    def network(tables: NetworkTables) -> RowNetwork:
        return RowNetwork(tables, config, top_k=2, ranked=True)

    def found(tables: NetworkTables) -> float:
        steps = np.full(4, 128.0)  # recall is of ranks alone
        return twin_figures(network(tables), steps, HEAD, trace, examples)["2"]

    def calibrated(tables: NetworkTables) -> np.ndarray:
        return calibrate(*score_histogram(network(tables), HEAD, trace))

    chosen = choose_integers(trained.weights, config, HEAD, tokens, trace, ranked=True)
    fixed, used = (each.tables for each in chosen)
    clipped = [quantise(trained.weights, config, tokens, clip=clip, ranked=True).tables for clip in CLIPS]
    recalls = [found(tables) for tables in clipped]
    assert max(recalls) > min(recalls)
    np.testing.assert_array_equal(fixed.rows, clipped[int(np.argmax(recalls))].rows)
    np.testing.assert_array_equal(fixed.chances, calibrated(fixed))

    adapting = [replace(fixed, adaptations=np.full(4, shift, np.uint8)) for shift in ADAPTATIONS]
    recalls = [found(tables) for tables in adapting]
    assert max(recalls) > recalls[0] + 0.1
    best = adapting[int(np.argmax(recalls))]
    np.testing.assert_array_equal(used.adaptations, best.adaptations)
    np.testing.assert_array_equal(used.chances, calibrated(best))
    assert (used.chances != fixed.chances).any()


def test_a_likelihood_is_of_the_log_odds_that_each_layers_scores_stand_for() -> None:
    """A step of the score is 1/90 to 1/181 of a unit, as the shift rounds: with 1/128 another clip looks the best."""
    generator = np.random.default_rng(5)
    config = NextUseConfig(
        hidden=6, layers_back=1, previous=(), decays=(), ngram_tables=(), horizons=(1, 2), log_tokens=8
    )
    trace = random_trace(generator, layers=3, experts=6, top_k=2, tokens=200)
    weights = Weights(
        rows=generator.normal(size=(3, 1, 6, 6)).astype(np.float32),
        bias=np.zeros((3, 1, 6), np.float32),
        identity_rows=np.empty((0, 0, 3, 6), np.float32),
        output=(generator.normal(size=(3, 6, 12)) * 0.4).astype(np.float32),
        output_bias=generator.normal(size=(3, 12)).astype(np.float32),
        hidden_high=np.full(3, 3, np.float32),
    )
    head, tokens = NextUseHead.of(config), np.empty(0, np.uint32)
    truth, known = head.labels(Examples.of(trace, config, ranked=False, identity_tokens=tokens), np.arange(200))

    def likelihood(made: Quantised, steps: np.ndarray) -> float:
        ((_, scores),) = RowNetwork(made.tables, config, top_k=2, ranked=False).score_chunks(trace)
        log_odds = (scores.reshape(200, 3, 2, 6).transpose(1, 0, 2, 3) - 2048) / steps[:, None, None, None]
        return float((-np.logaddexp(0, np.where(truth > 0, -log_odds, log_odds)) * known).sum() / known.sum())

    made = [quantise(weights, config, tokens, ranked=False, clip=clip) for clip in CLIPS]
    assert all((each.steps > 90).all() and (each.steps < 182).all() for each in made)
    exact = [likelihood(each, each.steps) for each in made]
    assert int(np.argmax(exact)) != int(np.argmax([likelihood(each, np.full(3, 128.0)) for each in made]))
    used = choose_integers(weights, config, head, tokens, trace, ranked=False)[1]
    np.testing.assert_array_equal(used.tables.rows, made[int(np.argmax(exact))].tables.rows)
    examples = Examples.of(trace, config, ranked=False, identity_tokens=tokens)
    network = RowNetwork(used.tables, config, top_k=2, ranked=False)
    assert twin_figures(network, used.steps, head, trace, examples)["log-likelihood"] == pytest.approx(max(exact))


def test_chances_are_calibrated_at_each_lookahead(trace: RoutingTrace) -> None:
    """Each table by what the bank says at that lookahead; those of layers below it stay those of the layer itself."""
    setting = recipe(epochs=1, farthest=3, layers_back=3, adaptation=False, validation=0.3)
    tables = trained_on(trace, setting).tables
    kept = divide(trace, setting.training)[1]
    for lookahead in (1, 2, 3):
        network = RowNetwork(tables, setting.predictor, top_k=2, ranked=True, lookahead=lookahead)
        expected = calibrate(*score_histogram(network, HEAD, kept))
        for layer in range(lookahead, 4):
            np.testing.assert_array_equal(tables.chances[layer, lookahead - 1], expected[layer, lookahead - 1])


def test_an_adapted_bias_goes_so_far_and_no_farther() -> None:
    """Chances of one half that never come true, 600 times, then always do: as if only the limit had been reached."""
    predictor = random_predictor(layers=2, experts=4, top_k=1)
    half = np.full_like(predictor.tables.chances, 32768)
    predictor = NextLayerPredictor(
        replace(predictor.tables, chances=half), predictor.config, top_k=1, ranked=True, provenance=PROVENANCE
    )
    for expert, reached in ((0, -ADAPTED_LIMIT), (3, -ADAPTED_LIMIT + 600 * 32767)):
        for _ in range(600):
            for layer in range(2):
                predictor.observe(layer, np.array([expert]))
        assert predictor.network._state.adapted[0, :, 3].tolist() == [reached] * 2
    assert predictor.network._state.adapted[0, :, 1].tolist() == [-ADAPTED_LIMIT] * 2
    assert predictor.network._state.adapted[0, :, 0].tolist() == [ADAPTED_LIMIT - 600 * 32768] * 2
