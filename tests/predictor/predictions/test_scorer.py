"""Files of predictions measured as predictors are, beside them and alone."""

import dataclasses

import numpy as np
import pytest

from catalog.errors import ForestageError
from predictor import registry
from predictor.measure.compare import compare
from predictor.measure.evaluate import EvaluationSettings, evaluate, load_or_fit, select_parts
from predictor.predictions.export import export_predictions
from predictor.predictions.file import Predictions, open_predictions
from predictor.predictions.writer import write_predictions
from tests.learned_samples import identified_trace, random_predictor
from tests.st_moe_samples import routing_trace
from traces import RoutingTrace, split
from traces.selection import select_sequences

LENGTHS = (4, 5, 6, 7, 8, 9, 10, 11, 12, 13)
TRACE = routing_trace(lengths=LENGTHS)
DESCRIPTIVE = ("predictor", "file", "predictions", "trained_on", "parameters", "notes")


def exported(path, name, trace: RoutingTrace = TRACE, *, part: str = "test", lookahead: int | None = None, **how):
    """The file of what a predictor says on a part of ``trace``."""
    parts = select_parts(trace, EvaluationSettings(split=part, lookahead=lookahead))
    export_predictions(
        path, load_or_fit(parts, name), parts.evaluated, whole=trace, sequences=parts.chosen, source="ours", **how
    )
    return open_predictions(path)


def measured(result) -> dict:
    """Every figure of an evaluation."""
    return {name: value for name, value in result.model_dump().items() if name not in DESCRIPTIVE}


@pytest.mark.parametrize("container", ["npz", "safetensors", "parquet"])
@pytest.mark.parametrize("scores", [False, True])
@pytest.mark.parametrize("name", registry.profiled_names())
def test_what_was_written_is_measured_as_its_predictor(tmp_path, name, scores, container):
    kept = exported(tmp_path / f"p.{container}", name, scores=scores, lookahead=2)
    direct = evaluate(TRACE, name, issue=(2, 3, 9), lookahead=2, expert_bytes=7)
    result = evaluate(TRACE, kept, issue=(2, 3, 9), expert_bytes=7)
    assert measured(result) == measured(direct)
    assert ("own" in result.recall) == (name == "st-moe")


def test_a_trained_predictor_is_too(tmp_path):
    trace = identified_trace(layers=5, experts=9, lengths=LENGTHS)
    path = tmp_path / "random.safetensors"
    random_predictor(layers=5, experts=9).save(path)
    for scores in (False, True):
        kept = exported(tmp_path / "p.npz", path, trace, scores=scores)
        result, direct = (evaluate(trace, name, issue=(2, 4)) for name in (kept, path))
        assert measured(result) == measured(direct)
        assert result.traffic.predictor_bytes_per_token > 0


def test_a_cut_ranking_is_measured_up_to_where_it_was_cut(tmp_path):
    kept = exported(tmp_path / "p.npz", "st-moe", limit=3)
    result, direct = (evaluate(TRACE, name, issue=(1, 3)) for name in (kept, "st-moe"))
    for figure in ("recall", "precision", "issued"):
        own = getattr(direct, figure)
        assert getattr(result, figure) == {"1": own["1"], "3": own["3"]}  # its own accord went with the cut
    assert result.exact_set == direct.exact_set
    with pytest.raises(ForestageError, match=r"p\.npz: issue: 8, but the file lists at most 3 .* \(--issue 3\)"):
        evaluate(TRACE, kept)
    with pytest.raises(ForestageError, match=r"p\.npz: issue: 4, but the file lists at most 3"):
        compare(TRACE, ["popularity", kept], issue=(4,))
    short = exported(tmp_path / "short.npz", "st-moe", limit=2)
    assert evaluate(TRACE, short, issue=(2,)).exact_set is None  # of top-3, two ids tell nothing


def test_a_comparison_measures_each_as_alone_and_resamples_in_pairs(tmp_path):
    kept = exported(tmp_path / "mine.npz", "markov-spatial")
    comparison = compare(TRACE, ["markov-spatial", "st-moe", kept], issue=(2, 5))
    assert [curve.predictor for curve in comparison.curves] == ["markov-spatial", "st-moe", "mine"]
    assert comparison.evaluations[2] == evaluate(TRACE, kept, issue=(2, 5))
    assert measured(comparison.evaluations[2]) == measured(comparison.evaluations[0])
    assert comparison.curves[2].model_dump(exclude={"predictor"}) == comparison.curves[0].model_dump(
        exclude={"predictor"}
    )
    (equal,) = comparison.equal_traffic
    assert equal.gain_intervals["mine"] == equal.gain_intervals["markov-spatial"]


def test_own_accord_is_kept_and_a_reference(tmp_path):
    kept = exported(tmp_path / "tables.parquet", "st-moe")
    comparison = compare(TRACE, ["st-moe", kept])
    assert [equal.reference for equal in comparison.equal_traffic] == ["st-moe", "tables"]
    assert comparison.equal_traffic[1].gain["st-moe"] == 0
    assert comparison.evaluations[1].issued_per_layer == comparison.evaluations[0].issued["own"]


def test_a_cut_curve_ends_where_it_was_cut(tmp_path):
    kept = exported(tmp_path / "cut.npz", "markov-spatial", limit=4)
    comparison = compare(TRACE, ["markov-spatial", "st-moe", kept], issue=(2, 4))
    whole, _, cut = comparison.curves
    assert (len(whole.recall), len(cut.recall)) == (8, 4)
    assert cut.recall == whole.recall[:4]
    (equal,) = comparison.equal_traffic
    assert equal.issued > 4
    assert equal.recall["cut"] is None
    assert equal.recall["markov-spatial"] is not None


def unlike(predictions: Predictions, path, **changed) -> Predictions:
    """The file again with a change."""
    arrays, header = predictions.arrays, predictions.header
    facts = {**arrays.present(), "lookahead": header.lookahead, "source": "s", "trace": TRACE, **changed}
    write_predictions(path, **facts)
    return open_predictions(path)


def test_lookaheads_must_agree(tmp_path):
    one = exported(tmp_path / "one.npz", "popularity")
    two = exported(tmp_path / "two.npz", "markov-spatial", lookahead=2)
    assert compare(TRACE, ["markov-spatial", two]).lookahead == 2
    with pytest.raises(ForestageError, match=r"made for different ones \(.*one\.npz: 1, .*two\.npz: 2\); compare them"):
        compare(TRACE, [one, two])
    for refused in (lambda: evaluate(TRACE, two, lookahead=1), lambda: compare(TRACE, [two], lookahead=1)):
        with pytest.raises(ForestageError, match=r"two\.npz: predictions at lookahead 2, not 1"):
            refused()
    with pytest.raises(ForestageError, match="fill cannot be set; predictions are as they were made"):
        evaluate(TRACE, one, parameters={"fill": "none"})


def test_what_is_not_answered_is_missed_and_told(tmp_path):
    whole = exported(tmp_path / "whole.npz", "markov-spatial")
    ids = np.array(whole.arrays.ids)
    ids[::2, 2] = -1
    result = evaluate(TRACE, unlike(whole, tmp_path / "holes.npz", ids=ids), issue=(4,))
    before = evaluate(TRACE, whole, issue=(4,))
    assert before.answered == 1
    assert result.answered == pytest.approx(1 - (len(ids) + 1) // 2 / (3 * len(ids)))
    assert result.recall["4"] < before.recall["4"]
    assert result.by_layer[1].recall == before.by_layer[1].recall
    assert result.by_layer[2].answered == pytest.approx(0.5, abs=0.02)


def test_rows_shorter_than_the_limit_are_told(tmp_path):
    whole = exported(tmp_path / "whole.npz", "popularity", limit=6)
    ids = np.array(whole.arrays.ids)
    ids[3, 1, 2:] = -1
    short = unlike(whole, tmp_path / "short.npz", ids=ids)
    told = f"1 of the {3 * len(ids)} rows that it predicts list fewer than 6"
    assert any(told in note for note in evaluate(TRACE, short, issue=(6,)).notes)
    assert not any("list fewer" in note for note in evaluate(TRACE, short, issue=(2,)).notes)
    assert not any("list fewer" in note for note in evaluate(TRACE, whole, issue=(6,)).notes)


def test_sequences_without_predictions_are_refused_or_left_out_for_everyone(tmp_path):
    test = split(TRACE)[1]
    first = TRACE.sequence_slice(int(test[0]))
    ids = np.zeros((first.stop - first.start, TRACE.layers, 1), np.int16)
    keys = {"sequence": TRACE.sequence_index()[first], "position": TRACE.position[first]}
    write_predictions(tmp_path / "part.npz", ids=ids, lookahead=1, source="s", trace=TRACE, **keys)
    part = open_predictions(tmp_path / "part.npz")
    with pytest.raises(ForestageError, match=r"part\.npz: has rows for .* evaluate the 1 sequences .* --only-covered"):
        evaluate(TRACE, part, issue=(1,))
    comparison = compare(TRACE, ["popularity", part], issue=(1,), only_covered=True)
    alone = select_sequences(TRACE, [int(test[0])])
    assert [e.sequences for e in comparison.evaluations] == [1, 1]
    assert [e.tokens for e in comparison.evaluations] == [alone.tokens] * 2
    needed = (alone.expert_ids[:, 1:] == 0).any(axis=-1).sum()
    assert comparison.evaluations[1].recall["1"] == needed / (alone.tokens * 3 * 3)
    for evaluation in comparison.evaluations:
        assert any("sequences that the predictions cover whole" in note for note in evaluation.notes)
    with pytest.raises(ForestageError, match="only_covered: no predictions are given"):
        evaluate(TRACE, "popularity", only_covered=True)
    other = TRACE.sequence_slice(int(split(TRACE)[0][0]))
    keys = {"sequence": TRACE.sequence_index()[other], "position": TRACE.position[other]}
    ids = np.zeros((other.stop - other.start, TRACE.layers, 1), np.int16)
    write_predictions(tmp_path / "part.npz", ids=ids, lookahead=1, source="s", trace=TRACE, **keys)
    with pytest.raises(ForestageError, match="no sequence of the part evaluated is covered whole"):
        evaluate(TRACE, open_predictions(tmp_path / "part.npz"), issue=(1,), only_covered=True)


def test_a_label_restricts_predictions_as_it_does_predictors(tmp_path):
    labelled = dataclasses.replace(TRACE, domains=("law", "code") * 5)
    kept = exported(tmp_path / "p.npz", "markov-temporal", labelled, part="all")
    for asked in ({"domains": ["law"]}, {"domains": ["code"], "split": "train"}, {"split": "test"}):
        settings = {"issue": (3,), "split": "all", **asked}
        result, direct = (evaluate(labelled, name, **settings) for name in (kept, "markov-temporal"))
        assert measured(result) == measured(direct)


def test_rows_that_lie_a_token_or_a_layer_off_are_told(tmp_path):
    trace = routing_trace(lengths=(40, 50, 60), layers=5, seed=4)
    ids = trace.expert_ids.astype(np.int16)
    at_source = np.roll(ids, -2, axis=1)
    for moved, neighbour in (
        (ids, None),
        (np.roll(ids, 1, axis=0), None),  # what a repeater of the previous token says
        (np.roll(ids, -1, axis=0), "the next token"),
        (np.roll(ids, -1, axis=1), "the layer above"),
        (np.roll(ids, 1, axis=1), "the layer below"),
        (at_source, "2 layers above"),
    ):
        write_predictions(
            tmp_path / "p.npz", ids=moved, lookahead=2 if moved is at_source else 1, source="s", trace=trace
        )
        notes = evaluate(trace, open_predictions(tmp_path / "p.npz"), issue=(3,), split="all").notes
        told = [note for note in notes if "its rows seem misplaced" in note]
        assert [f"1.000 of those of {neighbour};" in note for note in told] == ([True] if neighbour else [])


@pytest.mark.parametrize("name", registry.profiled_names())
def test_rows_in_their_place_are_not_told(tmp_path, name):
    trace = routing_trace(lengths=(40, 50, 60, 30, 40), seed=4)
    kept = exported(tmp_path / "p.npz", name, trace, part="all")
    assert not any("misplaced" in note for note in evaluate(trace, kept, split="all").notes)


def test_another_model_is_noted_where_nothing_proves_the_trace(tmp_path):
    ids = TRACE.expert_ids.astype(np.int16)
    facts = {"ids": ids, "lookahead": 1, "source": "s", "model": "elsewhere"}
    write_predictions(tmp_path / "p.npz", **facts)
    notes = evaluate(TRACE, open_predictions(tmp_path / "p.npz"), issue=(3,)).notes
    assert any("states routing of elsewhere, the trace is of test" in note for note in notes)
    write_predictions(tmp_path / "p.npz", **facts, trace=TRACE)
    notes = evaluate(TRACE, open_predictions(tmp_path / "p.npz"), issue=(3,)).notes
    assert not any("elsewhere" in note for note in notes)


def test_what_a_predictor_reads_itself_is_unknown_unless_stated(tmp_path):
    whole = exported(tmp_path / "whole.npz", "popularity")
    assert evaluate(TRACE, unlike(whole, tmp_path / "p.npz")).traffic.predictor_bytes_per_token is None
    stated = unlike(whole, tmp_path / "p.npz", far_bytes_per_token=12)
    assert evaluate(TRACE, stated).traffic.predictor_bytes_per_token == 12
