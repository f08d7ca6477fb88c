"""Predictors side by side, files among them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from catalog.errors import ForestageError
from predictor import registry
from predictor.measure.compare import compare, hits_at
from predictor.measure.evaluate import evaluate
from predictor.measure.metrics import Tally
from predictor.next_layer.predictor import NextLayerPredictor
from tests.learned_samples import identified_trace, random_predictor
from tests.predictor.saved_samples import KeptPopularity, keep
from tests.st_moe_samples import routing_trace

LENGTHS = (4, 5, 6, 7, 8, 9, 10, 11, 12, 13)


@pytest.fixture(autouse=True)
def _kept_kind(monkeypatch):
    monkeypatch.setitem(registry._KINDS, "learned", KeptPopularity)


@pytest.fixture
def kept(tmp_path) -> Path:
    """Popularity of another trace than those that the tests evaluate."""
    return keep(tmp_path / "small.safetensors", routing_trace(seed=9, lengths=(40,)))


def test_each_is_evaluated_as_alone(kept):
    trace = routing_trace(lengths=LENGTHS)
    names = [*registry.profiled_names(), str(kept)]
    comparison = compare(trace, names, issue=(3, 5), expert_bytes=7)
    assert [e.predictor for e in comparison.evaluations] == [*registry.profiled_names(), "small"]
    for name, together in zip(names, comparison.evaluations, strict=True):
        assert together == evaluate(trace, name, issue=(3, 5), lookahead=1, expert_bytes=7)


def test_a_curve_passes_through_the_limits_and_stays_below_the_bound():
    trace = routing_trace(lengths=LENGTHS)
    comparison = compare(trace, registry.profiled_names(), issue=(1, 3, 8))
    for curve, evaluation in zip(comparison.curves, comparison.evaluations, strict=True):
        assert curve.predictor == evaluation.predictor
        assert len(curve.recall) == len(curve.issued) == trace.experts // 2
        for limit in (1, 3, 8):
            assert curve.recall[limit - 1] == evaluation.recall[str(limit)]
            assert curve.issued[limit - 1] == evaluation.issued[str(limit)]
            interval = (curve.low[limit - 1], curve.high[limit - 1])
            assert interval == pytest.approx(evaluation.intervals.recall[str(limit)])
            assert curve.recall[limit - 1] <= comparison.bounds.perfect[str(limit)]
        assert (np.diff(curve.recall) >= 0).all()
    assert comparison.bounds.perfect == {"1": 1 / 3, "3": 1.0, "8": 1.0}
    assert comparison.bounds.random == {"1": 1 / 16, "3": 3 / 16, "8": 8 / 16}


def test_all_are_compared_at_the_issue_of_one_threshold():
    trace = routing_trace(lengths=LENGTHS)
    comparison = compare(trace, ["popularity", "st-moe", "markov-spatial"], split="all")
    (equal,) = comparison.equal_traffic
    own = comparison.evaluations[1]
    assert (equal.reference, equal.issued) == ("st-moe", own.issued["own"])
    assert equal.recall["st-moe"] == own.recall["own"]
    popularity = [0.0, *comparison.curves[0].recall]
    assert equal.recall["popularity"] == pytest.approx(np.interp(equal.issued, range(len(popularity)), popularity))
    assert equal.gain["popularity"] == pytest.approx(equal.recall["popularity"] - own.recall["own"])
    low, high = equal.gain_intervals["popularity"]
    assert low < equal.gain["popularity"] < high
    assert equal.gain_intervals["st-moe"] == (0.0, 0.0)


def test_a_predictor_that_never_issues_so_many_has_no_recall_there():
    none = np.zeros(2, np.int64)
    hits, issued = np.array([[1, 2, 2], [0, 2, 2]]), np.array([[2, 3, 3], [2, 3, 3]])
    tally = Tally(
        rows=none + 2, exact=none, answered=none + 2, weighed=none, hits=hits, issued=issued, mass=0 * hits, top_k=2
    )
    assert hits_at(tally, 1.75) is None
    np.testing.assert_allclose(hits_at(tally, 1.5), [2, 2])
    np.testing.assert_allclose(hits_at(tally, 1.25), [1.5, 1])
    np.testing.assert_allclose(hits_at(tally, 0.5), [0.5, 0])
    np.testing.assert_allclose(hits_at(tally, 0.0), [0, 0])


def test_a_gain_is_resampled_in_pairs():
    """Of a predictor and its like the difference is none in every draw, however wide each one's interval."""
    trace = routing_trace(lengths=LENGTHS)
    whole = compare(trace, ["st-moe", "popularity"], split="all")
    width = np.subtract(*whole.equal_traffic[0].gain_intervals["popularity"][::-1])
    alone = sum(np.subtract(*e.intervals.recall["4"][::-1]) for e in whole.evaluations)
    assert width < alone


@pytest.mark.parametrize(
    ("mine", "noted"), [("openai/gpt-oss-20b", False), ("gpt_oss_20b", False), ("openai/gpt-oss-120b", True)]
)
def test_another_model_is_noted_and_another_spelling_is_not(kept, monkeypatch, mine, noted):
    trace = routing_trace(lengths=LENGTHS)
    spelt = replace(trace, metadata=trace.metadata.model_copy(update={"model": "gpt-oss-20b"}))
    monkeypatch.setattr(KeptPopularity, "model", mine)
    notes = evaluate(spelt, str(kept), split="all").notes
    assert any("was trained on routing of" in note for note in notes) == noted


def test_a_file_is_loaded_and_not_fitted(kept):
    trace = routing_trace(lengths=LENGTHS)
    result = evaluate(trace, str(kept), split="all")
    assert (result.predictor, result.file, result.trained_on) == ("small", str(kept), KeptPopularity.trained_on)
    assert result.parameters == {"sram_bytes_per_layer": 123}
    assert f"{kept} was trained on routing of elsewhere, the trace is of test" in result.notes
    assert result.recall != evaluate(trace, "popularity", split="all").recall
    assert result.sequences == trace.sequences
    with pytest.raises(ForestageError, match="trained for lookahead 1, not 2"):
        evaluate(trace, str(kept), lookahead=2)
    with pytest.raises(ForestageError, match="fill cannot be set"):
        evaluate(trace, str(kept), parameters={"fill": "none"})
    with pytest.raises(ForestageError, match="no such file; give a predictor that was trained, or one of popularity,"):
        evaluate(trace, "missing/p.safetensors")


def test_a_file_needs_no_training_sequences(kept):
    assert evaluate(routing_trace(lengths=(6,)), str(kept), split="all").sequences == 1


def test_what_a_name_means(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("popularity", "weights"):
        Path(name).touch()
    meant = {
        "popularity": False,
        "weights": True,
        "wights": False,
        "a/b": True,
        "x.safetensors": True,
        "./st-moe": True,
    }
    assert {name: registry.is_saved(name) for name in meant} == meant
    assert registry.is_saved(Path("weights"))
    with pytest.raises(ForestageError, match=r"predictor: unknown name 'populraity'; the nearest .* 'popularity'"):
        evaluate(routing_trace(lengths=LENGTHS), "populraity")


def test_files_of_one_lookahead_are_compared_at_theirs(tmp_path):
    trace = routing_trace(lengths=LENGTHS)
    two = keep(tmp_path / "two.safetensors", trace, lookahead=2)
    three = keep(tmp_path / "three.safetensors", trace, lookahead=3)
    comparison = compare(trace, ["markov-spatial", two])
    assert comparison.lookahead == 2
    assert comparison.evaluations[0].recall == evaluate(trace, "markov-spatial", lookahead=2).recall
    with pytest.raises(ForestageError, match=r"lookahead: the files were made for different ones \(.*two.*three"):
        compare(trace, [two, three])


def test_requests_that_cannot_be_met(kept):
    trace = routing_trace(lengths=LENGTHS)
    with pytest.raises(ForestageError, match="predictors: none to compare"):
        compare(trace, [])
    with pytest.raises(ForestageError, match="predictors: two are called 'small'"):
        compare(trace, [kept, kept])


def test_progress_counts_tokens_over_all(kept):
    trace = routing_trace(lengths=LENGTHS)
    seen = []
    tokens = compare(trace, ["popularity", kept], progress=lambda *done: seen.append(done)).tokens
    assert seen == [(tokens, 2 * tokens), (2 * tokens, 2 * tokens)]


def test_a_learned_file_covers_the_layers_below_the_lookahead(tmp_path, monkeypatch):
    monkeypatch.setitem(registry._KINDS, "learned", NextLayerPredictor)
    trace = identified_trace(layers=5, experts=9, lengths=LENGTHS)
    path = tmp_path / "random.safetensors"
    random_predictor(layers=5, experts=9).save(path)
    comparison = compare(trace, ["st-moe", path], issue=(3,))
    tables, learned = (e.by_layer[0] for e in comparison.evaluations)
    assert (tables.issued["3"], learned.issued["3"]) == (0.0, 3.0)
    assert learned.early
    assert comparison.evaluations[1].trained_on == "nothing: random tables"
    assert comparison.evaluations[1].parameters["sram_bytes_per_layer"] > 0
