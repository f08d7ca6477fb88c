"""The evaluation document, and its figures on real routing."""

import json

import numpy as np
import pytest
from st_moe_samples import routing_trace

from catalog.errors import ForestageError
from predictor import registry
from predictor.evaluate import evaluate
from predictor.metrics import recall, tally_predictor
from traces import split
from traces.importers import import_trace

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
    assert document["predictor"] == "popularity"
    assert document["split"] == "test"
    assert document["synthetic"] is True
    assert document["by_layer"][0] == {
        "layer": 0,
        "recall": {"2": None, "6": None},
        "precision": {"2": None, "6": None},
        "issued": {"2": None, "6": None},
    }
    mean = np.mean([layer["recall"]["2"] for layer in document["by_layer"][1:]])
    assert document["recall"]["2"] == pytest.approx(mean)
    assert sum(domain["tokens"] for domain in document["by_domain"].values()) == document["tokens"]


def test_own_threshold_is_reported_where_there_is_one():
    result = evaluate(routing_trace(lengths=LENGTHS), "st-moe", issue=(2,))
    assert list(result.recall) == ["2", "own"]
    assert result.issued_per_layer == result.issued["own"]
    assert result.parameters == registry.resolved_parameters("st-moe")


def test_the_profile_is_of_the_training_part_alone():
    trace = routing_trace(lengths=LENGTHS)
    train, test = split(trace)
    fitted = registry.fit("markov-spatial", trace.select_sequences(train))
    for name, part in (("test", test), ("train", train), ("all", range(trace.sequences))):
        tally = tally_predictor(fitted, trace.select_sequences(part), (3,)).over((0, 1))
        result = evaluate(trace, "markov-spatial", issue=(3,), split=name)
        assert result.recall["3"] == recall(tally)[0]
        assert result.sequences == len(part)


def test_faults_are_named():
    trace = routing_trace(lengths=LENGTHS)
    with pytest.raises(ForestageError, match="issue: 99 is not in 1…16"):
        evaluate(trace, "popularity", issue=(99,))
    with pytest.raises(ForestageError, match="issue: no limit given"):
        evaluate(trace, "popularity", issue=())
    with pytest.raises(ForestageError, match="split: unknown part 'tset'"):
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
