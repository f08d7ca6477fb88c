"""The evaluation document, and its figures on real routing."""

import dataclasses
import json

import numpy as np
import pytest

from catalog.catalogue import load_catalog
from catalog.errors import ForestageError
from predictor import registry
from predictor.measure.evaluate import evaluate
from predictor.measure.metrics import recall, tally_predictor
from tests.st_moe_samples import routing_trace
from traces import RoutingTrace, split
from traces.importers import import_trace
from traces.selection import select_sequences

LENGTHS = (4, 5, 6, 7, 8, 9, 10, 11, 12, 13)


@pytest.fixture(scope="module")
def gpt_oss(shared_file):
    return import_trace(shared_file("gpt_oss_20b_decode.npz"))


def test_document():
    result = evaluate(routing_trace(lengths=LENGTHS), "popularity", issue=(6, 2), trace_name="t")
    document = json.loads(result.model_dump_json())
    assert list(document["recall"]) == ["2", "6"]
    assert document["issued"] == {"2": 2.0, "6": 6.0}
    assert document["issued_per_layer"] == 6.0
    assert (document["predictor"], document["file"]) == ("popularity", None)
    assert document["split"] == "test"
    assert document["synthetic"] is True
    mean = np.mean([layer["recall"]["2"] for layer in document["by_layer"][1:]])
    assert document["recall"]["2"] == pytest.approx(mean)
    assert sum(domain["tokens"] for domain in document["by_domain"].values()) == document["tokens"]


def test_layers_below_the_lookahead_are_marked():
    result = evaluate(routing_trace(lengths=LENGTHS), "popularity", issue=(4,), lookahead=2)
    assert [row.early for row in result.by_layer] == [True, True, False, False]
    assert all(row.recall["4"] for row in result.by_layer)
    spatial = evaluate(routing_trace(lengths=LENGTHS), "markov-spatial", issue=(4,)).by_layer[0]
    assert (spatial.recall["4"], spatial.issued["4"], spatial.precision["4"]) == (0.0, 0.0, None)
    assert spatial.intervals.precision["4"] is None


def test_an_interval_holds_its_figure():
    result = evaluate(routing_trace(lengths=LENGTHS), "st-moe", issue=(2, 5), split="all")
    parts = [result, *result.by_layer[1:], *result.by_domain.values(), *result.by_dataset.values()]
    for part in parts:
        for name in ("recall", "precision", "issued"):
            for limit, value in getattr(part, name).items():
                low, high = getattr(part.intervals, name)[limit]
                assert low <= value <= high
        low, high = part.intervals.exact_set
        assert low <= part.exact_set <= high
    assert evaluate(routing_trace(lengths=LENGTHS), "st-moe", bootstrap={"resamples": 0}).intervals.exact_set is None


def labelled() -> RoutingTrace:
    trace = routing_trace(lengths=LENGTHS)
    domains, datasets = ("law", "code") * 5, ("x",) * 6 + ("y",) * 4
    return dataclasses.replace(trace, domains=domains, datasets=datasets)


def test_a_label_restricts_what_is_evaluated_and_not_what_is_profiled():
    trace = labelled()
    train, _ = split(trace)
    fitted = registry.fit("markov-spatial", select_sequences(trace, train))
    for settings, chosen in (
        ({"domains": ["law"]}, range(0, 10, 2)),
        ({"datasets": ["y"]}, range(6, 10)),
        ({"domains": ["law"], "datasets": ["y"]}, (6, 8)),
        ({"domains": ["code", "law"]}, range(10)),
    ):
        result = evaluate(trace, "markov-spatial", issue=(3,), split="all", **settings)
        tally = tally_predictor(fitted, select_sequences(trace, list(chosen)), (3,))
        assert result.sequences == len(chosen)
        assert result.recall["3"] == recall(tally.overall().over(0)).values()[0]
    with pytest.raises(ForestageError, match="domain: unknown name 'lwa'; the nearest known name is 'law'"):
        evaluate(trace, "popularity", domains=["lwa"])
    one = dataclasses.replace(trace, domains=("rare", *trace.domains[1:]))
    with pytest.raises(ForestageError, match=r"split: no sequence of the (test|train) part is of rare"):
        evaluate(one, "popularity", domains=["rare"], split="test" if 0 in train else "train")


def test_results_by_domain_and_dataset():
    trace = labelled()
    result = evaluate(trace, "popularity", issue=(3,), split="all")
    assert {name: group.sequences for name, group in result.by_dataset.items()} == {"x": 6, "y": 4}
    alone = evaluate(trace, "popularity", issue=(3,), split="all", datasets=["y"])
    assert result.by_dataset["y"].recall == alone.recall
    assert result.by_dataset["y"].intervals == alone.intervals
    assert sum(group.tokens for group in result.by_domain.values()) == trace.tokens


def test_bytes_are_issued_experts_at_their_size():
    trace = routing_trace(lengths=LENGTHS)
    given = evaluate(trace, "st-moe", issue=(2,), expert_bytes=10).traffic
    result = evaluate(trace, "st-moe", issue=(2,), lookahead=1)
    layers = trace.layers - 1
    for limit in ("2", "own"):
        moved = given.moved_bytes_per_token[limit]
        assert moved == pytest.approx(10 * layers * result.issued[limit])
        hits = result.recall[limit] * trace.top_k
        assert given.wasted_bytes_per_token[limit] == pytest.approx(10 * layers * (result.issued[limit] - hits))
        low, high = given.wasted_intervals[limit]
        assert low <= given.wasted_bytes_per_token[limit] <= high
        assert given.moved_intervals[limit] == pytest.approx(
            [10 * layers * end for end in result.intervals.issued[limit]]
        )
    assert result.traffic.size.expert_bytes is None
    assert result.traffic.moved_bytes_per_token == {"2": None, "own": None}
    assert result.notes == (
        "no bytes moved: the catalogue has no model 'test'; give --expert-bytes, or add a record of the model",
    )
    with pytest.raises(ForestageError, match="expert_bytes: 0 is no size of an expert"):
        evaluate(trace, "popularity", expert_bytes=0)


def test_the_size_of_an_expert_is_the_catalogue_s():
    trace = routing_trace(lengths=LENGTHS)
    named = dataclasses.replace(trace, metadata=trace.metadata.model_copy(update={"model": "openai/gpt-oss-20b"}))
    size = evaluate(named, "popularity").traffic.size
    assert size.expert_bytes == load_catalog().find_model("gpt-oss-20b").expert_bytes
    assert "gpt-oss-20b" in size.source


def test_own_threshold_is_reported_where_there_is_one():
    result = evaluate(routing_trace(lengths=LENGTHS), "st-moe", issue=(2,))
    assert list(result.recall) == ["2", "own"]
    assert result.issued_per_layer == result.issued["own"]
    assert result.parameters == registry.resolved_parameters("st-moe")


def test_the_profile_is_of_the_training_part_alone():
    trace = routing_trace(lengths=LENGTHS)
    train, test = split(trace)
    fitted = registry.fit("markov-spatial", select_sequences(trace, train))
    for name, part in (("test", test), ("train", train), ("all", range(trace.sequences))):
        tally = tally_predictor(fitted, select_sequences(trace, part), (3,)).overall().over(0)
        result = evaluate(trace, "markov-spatial", issue=(3,), split=name)
        assert result.recall["3"] == recall(tally).values()[0]
        assert result.sequences == len(part)


def test_faults_are_named():
    trace = routing_trace(lengths=LENGTHS)
    with pytest.raises(ForestageError, match="issue: 99 is not in 1…16"):
        evaluate(trace, "popularity", issue=(99,))
    with pytest.raises(ForestageError, match=r"evaluation: issue: .* at least 1 item"):
        evaluate(trace, "popularity", issue=())
    with pytest.raises(
        ForestageError, match="evaluation: unknown key 'lookahaed'; the nearest known key is 'lookahead'"
    ):
        evaluate(trace, "popularity", lookahaed=2)
    with pytest.raises(ForestageError, match="evaluation: split: Input should be 'train', 'test' or 'all'"):
        evaluate(trace, "popularity", split="tset")
    with pytest.raises(ForestageError, match=r"split: the test part of 1 sequence\(s\) is empty"):
        evaluate(routing_trace(lengths=(5,)), "popularity")


# Recall@4/6/8 measured by others on an 80/20 split of their own. On sixteen random splits popularity's recall@4 lies
# between 0.278 and 0.305 and the previous token's between 0.437 and 0.454; the tolerance is that spread.
PUBLISHED = {"popularity": (0.282, 0.396, 0.496), "previous-token": (0.445, 0.540, 0.629)}


@pytest.mark.parametrize("name", PUBLISHED)
def test_gpt_oss_recall_is_as_measured_by_others(gpt_oss, name):
    result = evaluate(gpt_oss, name)
    assert list(result.recall.values()) == pytest.approx(PUBLISHED[name], abs=0.02)


def test_gpt_oss_tables_are_as_measured_by_others(gpt_oss):
    result = evaluate(gpt_oss, "st-moe", parameters={"aggregation": "max", "ht_confidence": 1})
    assert result.recall["own"] == pytest.approx(0.764, abs=0.02)
    assert result.precision["own"] == pytest.approx(0.499, abs=0.02)
    assert result.issued_per_layer == pytest.approx(6.1, abs=0.3)


def test_gpt_oss_markov_lies_between_its_rivals(gpt_oss):
    """The linear predictor on the same inputs, trained by gradient, is the better one: 0.637/0.763/0.837."""
    spatial = list(evaluate(gpt_oss, "markov-spatial").recall.values())
    assert np.all(np.array(spatial) > PUBLISHED["previous-token"])
    assert np.all(np.array(spatial) < (0.637, 0.763, 0.837))
