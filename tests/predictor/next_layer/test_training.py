"""Training finds what there is to find, goes on where it was interrupted, and loses little to integers."""

from dataclasses import replace

import numpy as np
import pytest

from catalog.errors import ForestageError
from predictor.measure.evaluate import evaluate
from predictor.measure.metrics import recall, tally_predictor
from predictor.next_layer.labels import NextLayerHead
from predictor.next_layer.recipes import RECIPES, NextLayerRecipe, read_recipe
from predictor.next_layer.selection import Selection
from predictor.row_network.file import EpochLog
from predictor.row_network.inputs import Examples, frequent_tokens
from predictor.row_network.integers import table_bytes
from tests.learned_samples import SMALL, identified_trace
from tests.routing import trace_of
from traces import RoutingTrace

torch = pytest.importorskip("torch", reason="needs the extra forestage[torch]")
from predictor.next_layer.losses import loss_of  # noqa: E402
from predictor.next_layer.training import train  # noqa: E402
from predictor.row_network import training as row_network_training  # noqa: E402
from predictor.row_network.twin import RowNetwork  # noqa: E402

QUICK = {
    "hidden": 24, "layers_back": 2, "previous": [[0, 0]], "decays": [[2, 0]], "identity_rows": 24,
    "ngram_tables": [],
    "epochs": 6, "batch": 64, "learning_rate": 2e-2, "dropout": 0.0, "hidden_dropout": 0.0, "validation": 0.1,
    "patience": 9,
}  # fmt: skip


def recipe(**changes: object) -> NextLayerRecipe:
    return NextLayerRecipe().replaced({**QUICK, **changes}, origin="test")


def lawful_trace(*, sequences: int = 30, length: int = 40, seed: int = 0) -> RoutingTrace:
    """Layer 0 follows from the token's identity (of 20), layer l from layer l − 1; top-2 of 8, 4 layers."""
    generator = np.random.default_rng(seed)
    law = np.random.default_rng(99)
    first = np.array([law.permutation(8)[:2] for _ in range(20)])
    steps = np.array([law.permutation(8) for _ in range(3)])
    tokens = generator.integers(0, 20, sequences * length)
    ids = np.empty((len(tokens), 4, 2), int)
    ids[:, 0] = first[tokens]
    for layer in range(3):
        ids[:, layer + 1] = steps[layer][ids[:, layer]]
    trace = trace_of(ids, experts=8, lengths=[length] * sequences, domains=["even", "odd"] * (sequences // 2))
    return replace(trace, token_hash=(1000 + 7 * tokens).astype(np.uint32))


@pytest.fixture(scope="module")
def trained():
    return train(lawful_trace(), recipe())


def test_a_law_is_found(trained):
    """Of 8 experts two are chosen: a blind choice of two has a recall of 0.25."""
    test = lawful_trace(seed=1)
    tally = tally_predictor(trained, test, (2,))
    found = recall(tally.by_layer).over(0).values()[:, 0]
    assert (found > 0.97).all(), found  # layer 0, from identity alone, included


def test_layer_0_rests_on_identity():
    """Without identity its choice, independent from token to token, cannot be known."""
    predictor = train(lawful_trace(), recipe(identity_rows=0, identities=0))
    found = recall(tally_predictor(predictor, lawful_trace(seed=1), (2,)).by_layer).over(0).values()[:, 0]
    assert found[0] < 0.45
    assert (found[1:] > 0.97).all()


def recurring_trace(*, sequences: int, seed: int) -> RoutingTrace:
    """What a layer chooses is drawn anew for each sequence and pair of consecutive tokens (of 4), and then recurs."""
    generator = np.random.default_rng(seed)
    length = 80
    tokens = generator.integers(0, 4, (sequences, length))
    ids = np.empty((sequences, length, 2, 2), int)
    for sequence in range(sequences):
        law = np.array([[generator.permutation(8)[:2] for _ in range(2)] for _ in range(16)])
        previous = np.roll(tokens[sequence], 1)
        ids[sequence] = law[tokens[sequence] * 4 + previous]
    trace = trace_of(ids.reshape(-1, 2, 2), experts=8, lengths=[length] * sequences)
    return replace(trace, token_hash=(70 + 9 * tokens.reshape(-1)).astype(np.uint32))


@pytest.mark.parametrize(("lengths", "low", "high"), [([], 0.0, 0.33), ([1], 0.33, 0.5), ([2], 0.75, 1.0)])
def test_a_law_of_the_sequence_is_found_by_its_ngram_table(lengths, low, high):
    """After 16 pairs are seen once, a table of pairs knows; one of single tokens is right a quarter of the time."""
    quick = recipe(ngram_tables=lengths, decays=[], previous=[], layers_back=0, adaptation=False, epochs=8)
    predictor = train(recurring_trace(sequences=60, seed=0), quick)
    tally = tally_predictor(predictor, recurring_trace(sequences=8, seed=1), (2,))
    found = recall(tally.by_layer).over(0).values()[:, 0]
    assert (low < found).all(), found
    assert (found < high).all(), found


@pytest.mark.parametrize(("lengths", "low", "high"), [([], 0.0, 0.35), ([1], 0.75, 1.0)])
def test_layer_0_can_stand_for_identity(lengths, low, high):
    """Of 8 tokens, each with two experts of its own in layer 0; layer 1 is drawn anew for each sequence and token."""
    generator = np.random.default_rng(3)
    first = np.array([[0, 1], [2, 3], [4, 5], [6, 7], [0, 2], [1, 3], [4, 6], [5, 7]])

    def made(sequences: int) -> RoutingTrace:
        tokens = generator.integers(0, 8, (sequences, 60))
        ids = np.empty((sequences, 60, 2, 2), int)
        ids[:, :, 0] = first[tokens]
        for sequence in range(sequences):
            ids[sequence, :, 1] = np.array([generator.permutation(8)[:2] for _ in range(8)])[tokens[sequence]]
        return trace_of(ids.reshape(-1, 2, 2), experts=8, lengths=[60] * sequences)

    quick = recipe(
        ngram_tables=lengths, ngram_by="routing", decays=[], previous=[[0, 0]], layers_back=0,
        identity_rows=0, identities=0, adaptation=False, epochs=8,
    )  # fmt: skip
    predictor = train(made(60), quick)
    found = recall(tally_predictor(predictor, made(8), (2,)).by_layer).over(0).values()[1, 0]
    assert low < found < high


def test_integers_lose_little(trained):
    found = trained.provenance.validation
    assert abs(found.int8["2"] - found.floating_point["2"]) < 0.01


def test_lookahead_2_sees_no_nearer_layer():
    """Layer 2 follows from layer 1 alone, which follows from layer 0: still found, through the law of two steps."""
    predictor = train(lawful_trace(), recipe().at(2, 2, origin="test"))
    found = recall(tally_predictor(predictor, lawful_trace(seed=1), (2,)).by_layer).over(0).values()[:, 0]
    assert predictor.lookahead == 2
    assert (found > 0.95).all()


def test_training_is_repeatable_and_resumes(tmp_path):
    """A run that is stopped after two epochs and begun again ends where an unbroken one does."""
    trace = lawful_trace(sequences=8)
    setting = recipe(epochs=4)
    unbroken = train(trace, setting)

    class Stopped(Exception):
        pass

    def stop(entry: EpochLog) -> None:
        if entry.epoch == 3:
            raise Stopped

    with pytest.raises(Stopped):
        train(trace, setting, state_path=tmp_path / "state", report=stop)
    epochs: list[int] = []
    resumed = train(trace, setting, state_path=tmp_path / "state", report=lambda entry: epochs.append(entry.epoch))
    assert epochs == [3, 4]
    for name in ("rows", "identity_rows", "output", "bias", "chances"):
        np.testing.assert_array_equal(getattr(resumed.tables, name), getattr(unbroken.tables, name), err_msg=name)


def test_the_state_of_another_training_is_refused(tmp_path):
    trace = lawful_trace(sequences=6)
    train(trace, recipe(epochs=1), state_path=tmp_path / "state")
    with pytest.raises(ForestageError, match="another trace or recipe"):
        train(trace, recipe(epochs=1, hidden=8), state_path=tmp_path / "state")
    (tmp_path / "state").write_bytes(b"no state")
    with pytest.raises(ForestageError, match="no readable training state"):
        train(trace, recipe(epochs=1), state_path=tmp_path / "state")


def test_training_stops_when_validation_no_longer_improves():
    """Random routing: nothing to learn, so that the first epochs are as good as any."""
    trace = identified_trace(layers=4, experts=8, top_k=2, lengths=(60,) * 6)
    log = train(trace, recipe(epochs=40, patience=2, batch=32)).provenance.log
    best = max(log, key=lambda entry: entry.validation)
    assert len(log) < 40
    assert len(log) == best.epoch + 2


def test_a_trace_without_identity_is_refused():
    with pytest.raises(ForestageError, match=r"identity_rows.*no-identity"):
        train(replace(lawful_trace(), token_hash=None), recipe())


def test_ranks_of_unranked_ids_are_refused():
    trace = lawful_trace()
    unranked = replace(trace, metadata=trace.metadata.model_copy(update={"ranked": False}))
    with pytest.raises(ForestageError, match="ranks"):
        train(unranked, recipe(ranks=True))
    assert not train(unranked, recipe(epochs=1)).ranked


def test_what_cannot_be_trained_is_refused():
    nothing = {"layers_back": 0, "previous": [], "decays": [], "identity_rows": 0, "identities": 0}
    with pytest.raises(ForestageError, match="nothing to predict from"):
        train(lawful_trace(), recipe(**nothing))
    with pytest.raises(ForestageError, match="all 2 experts"):
        train(trace_of(np.tile([0, 1], (8, 2, 1)), experts=2, lengths=[4, 4]), recipe(identity_rows=0, identities=0))
    with pytest.raises(ForestageError, match="learning_rate: 1e\\+30 makes the training diverge"):
        train(lawful_trace(sequences=4), recipe(learning_rate=1e30))


def test_a_layer_that_nothing_feeds_knows_what_is_popular():
    """With this token's layers alone nothing feeds layer 0; in integers it must say what it says in floating point."""
    alone = {"previous": [], "decays": [], "identity_rows": 0, "identities": 0, "adaptation": False}
    trace, setting = lawful_trace(), recipe(**alone)
    head = NextLayerHead.of(setting, experts=8, top_k=2)
    trained = row_network_training.train(trace, setting, head)
    network = RowNetwork(trained.tables, setting.predictor, top_k=2, ranked=trained.ranked)
    ((_, scores),) = network.score_chunks(trace.sequence(0))
    assert (scores[:, 0] == scores[0, 0]).all()
    weights = trained.weights
    log_odds = np.maximum(weights.bias[0, 0], 0) @ weights.output[0] + weights.output_bias[0]
    assert np.argsort(-scores[0, 0], kind="stable")[:2].tolist() == np.argsort(-log_odds, kind="stable")[:2].tolist()
    assert trained.provenance.validation.int8["2"] > 0.97


def test_one_bank_serves_every_lookahead():
    """Layer 3 follows from any layer before it; asked three layers ahead it rests on layer 0 alone."""
    setting = recipe(layers_back=3, identity_rows=0, identities=0, decays=[], previous=[], epochs=12)
    predictor = train(lawful_trace(), setting.at(1, 3, origin="test"))
    for lookahead in (1, 2, 3):
        asked = predictor.at(lookahead)
        found = recall(tally_predictor(asked, lawful_trace(seed=1), (2,)).by_layer).over(0).values()[:, 0]
        assert (found[lookahead:] > 0.95).all(), found
        assert (found[:lookahead] < 0.5).all(), found  # no gate was known
    chances = predictor.tables.chances
    assert (chances[3, 0] != chances[3, 2]).any()


def test_the_row_of_all_others_says_nothing_untrained():
    """20 tokens occur, each with a row of its own among 23."""
    predictor = train(lawful_trace(sequences=6), recipe(epochs=1))
    assert not predictor.tables.identity_rows[-1].any()
    assert predictor.tables.identity_rows[:-1].any()


def test_a_layer_that_was_not_recorded_lowers_no_recall():
    trace = lawful_trace(sequences=10)
    ids = trace.expert_ids.copy()
    ids[:, 2] = 255
    metadata = trace.metadata.model_copy(update={"has_unrecorded": True})
    found = train(replace(trace, expert_ids=ids, metadata=metadata), recipe()).provenance.validation
    assert found.floating_point["2"] > 0.8
    assert found.floating_point["2"] == pytest.approx(found.int8["2"], abs=0.05)


def test_one_sequence_is_too_few():
    with pytest.raises(ForestageError, match="at least 2"):
        train(lawful_trace(sequences=2).sequence(0), recipe())


@pytest.mark.parametrize("kind", ["bce", "softmax", "pairwise"])
def test_every_loss_falls_as_the_chosen_rise(kind):
    chosen = torch.zeros(1, 1, 1, 4)
    chosen[..., :2] = 1
    weight = torch.ones_like(chosen)
    losses = [float(loss_of(chosen * gap, chosen, weight, kind, 2)) for gap in (0.0, 1.0, 5.0)]
    assert losses[0] > losses[1] > losses[2] >= 0


def test_rows_that_were_not_recorded_are_not_learnt_from():
    trace = identified_trace(layers=4, experts=8, top_k=2, lengths=(20,), unrecorded=0.4)
    examples = Examples.of(trace, recipe().predictor, ranked=True, identity_tokens=np.array([9], np.uint32))
    chosen, weight = NextLayerHead((2,), 2).labels(examples, np.arange(20))
    recorded = trace.recorded().T
    assert not recorded.all()
    np.testing.assert_array_equal(weight[:, :, 0, 0] == 1, recorded)
    np.testing.assert_array_equal(chosen[:, :, 0].sum(2) == 2, recorded)


def test_gate_weights_weigh_the_chosen():
    ids = np.array([[[0, 1], [2, 3]]])
    gate = np.array([[[0.9, 0.1], [0.5, 0.5]]], np.float16)
    trace = trace_of(ids, experts=4, gate_weights=gate)
    settings = recipe(identity_rows=0, identities=0).predictor
    examples = Examples.of(trace, settings, ranked=True, identity_tokens=np.empty(0, np.uint32))
    chosen, weight = NextLayerHead((2,), 2, gate_weighting=0.5).labels(examples, np.arange(1))
    np.testing.assert_allclose(weight[0, 0, 0], [1.4, 0.6, 1, 1], atol=1e-3)
    np.testing.assert_allclose(weight[1, 0, 0], [1, 1, 1, 1], atol=1e-3)
    np.testing.assert_array_equal(chosen[:, 0, 0], [[1, 1, 0, 0], [0, 0, 1, 1]])


def test_recall_is_of_recorded_rows_from_the_lookahead_on():
    """Three layers, one token: two hits of two, none recorded, one hit of two; layer 0 lies below the lookahead."""
    head = NextLayerHead((1, 2), 2)
    truth = np.zeros((3, 1, 1, 4), np.float32)
    truth[0, 0, 0, :2] = truth[2, 0, 0, [0, 3]] = 1
    weight = np.ones_like(truth)
    weight[1] = 0
    scores = np.broadcast_to(np.array([4, 3, 2, 1], np.float32), truth.shape)
    assert head.figures(scores, truth, weight) == {"1": (1.0, 2.0), "2": (1.0, 2.0)}
    assert head.figures(-scores, truth, weight) == {"1": (1.0, 2.0), "2": (1.0, 2.0)}
    equal = head.figures(0 * scores, truth, weight)  # of equal scores the smaller id is issued
    assert equal == {"1": (1.0, 2.0), "2": (1.0, 2.0)}


def test_frequent_tokens_have_rows():
    trace = replace(trace_of(np.zeros((6, 1, 1), int), experts=2), token_hash=np.array([5, 9, 9, 2, 2, 2], np.uint32))
    assert frequent_tokens(trace, 3).tolist() == [2, 9]
    filled = frequent_tokens(trace, 6)
    assert set(filled[:3]) == {2, 5, 9}
    assert len(np.unique(filled)) == 5


def test_selections():
    trace = lawful_trace()
    odd = Selection(domains=("odd",)).indices(trace)
    without = Selection(without_domains=("even",)).indices(trace)
    assert {trace.domains[index] for index in odd} == {"odd"}
    np.testing.assert_array_equal(odd, without)
    assert len(Selection(part="all").indices(trace)) == 30
    half = Selection(share=0.5).indices(trace)
    assert len(half) == 12
    assert set(half) < set(Selection().indices(trace))
    with pytest.raises(ForestageError, match="none called 'od'; it has even, odd"):
        Selection(domains=("od",)).indices(trace)
    with pytest.raises(ForestageError, match="0 training"):
        Selection(domains=("odd",), without_domains=("odd",)).indices(trace)


def test_a_saved_predictor_is_evaluated(trained, tmp_path):
    trained.save(tmp_path / "p.safetensors")
    result = evaluate(lawful_trace(seed=1), tmp_path / "p.safetensors", issue=(2,), split="all")
    assert result.recall["2"] > 0.97
    assert result.predictor == "p"
    assert (
        result.traffic.predictor_bytes_per_token == 2 * 4 * 64
    )  # identities, layers, a row of 24 bytes in whole beats
    assert result.by_layer[0].early
    assert result.by_layer[0].recall["2"] > 0.97


def test_recipes(tmp_path):
    assert read_recipe("deployed") == RECIPES["deployed"]
    file = tmp_path / "mine.toml"
    file.write_text("[predictor]\nhidden = 7\n[training]\nepochs = 2\n")
    assert (read_recipe(str(file)).predictor.hidden, read_recipe(str(file)).training.epochs) == (7, 2)
    file.write_text("[predictor]\nhiden = 7\n")
    with pytest.raises(
        ForestageError, match=r"mine.toml: unknown key 'predictor.hiden'; the nearest known key is 'hidden'"
    ):
        read_recipe(str(file))
    with pytest.raises(ForestageError, match="deploid"):
        read_recipe("deploid")
    with pytest.raises(ForestageError, match="hiden"):
        NextLayerRecipe().replaced({"hiden": 3}, origin="--set")
    with pytest.raises(ForestageError, match="seed"):
        NextLayerRecipe().replaced({"seed": -1}, origin="--set")
    for wrong in ({"ngram_entries": 12}, {"ngram_tables": [0]}, {"ngram_tables": [9]}):
        with pytest.raises(ForestageError, match="ngram"):
            NextLayerRecipe().replaced(wrong, origin="--set")
    with pytest.raises(ForestageError, match="go together"):
        NextLayerRecipe().replaced({"identities": 0}, origin="--set")


@pytest.mark.parametrize(("nearness", "shares"), [(0.0, (1 / 3, 1 / 3, 1 / 3)), (1.0, (6 / 11, 3 / 11, 2 / 11))])
def test_nearer_lookaheads_are_asked_more_often(nearness: float, shares: tuple[float, ...]) -> None:
    """Of lookaheads 2 … 4, by weights of 1, 2^−nearness and 3^−nearness."""
    asked = recipe(nearest=2, farthest=4, layers_back=4, nearness=nearness)
    drawn = row_network_training.draw_lookaheads(np.random.default_rng(0), 60_000, asked)
    assert np.bincount(drawn, minlength=5)[2:] / 60_000 == pytest.approx(shares, abs=0.01)
    assert len(drawn) == 60_000 == np.isin(drawn, (2, 3, 4)).sum()


@pytest.mark.parametrize("name", ["deployed", "any-distance"])
def test_the_deployed_recipe_fits_its_budget(name):
    """64 KiB of SRAM a layer for gpt-oss-20b: 24 layers of 32 experts."""
    assert table_bytes(RECIPES[name].predictor, layers=24, experts=32, top_k=4, adapts=True).sram_largest <= 64 << 10
    assert SMALL["identities"] == 2  # what the samples exercise
