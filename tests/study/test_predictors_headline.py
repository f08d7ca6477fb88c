"""The headline of the predictors' section: what is learned, beside the best of what is not."""

from typing import Any

from study.subjects.predictors import _facts


def evaluation(name: str, recall: dict[str, float], *, file: str | None = None) -> dict[str, Any]:
    return {"predictor": name, "file": file, "recall": recall, "issued_per_layer": 6.5}


TABLES = evaluation("st-moe", {"6": 0.526, "own": 0.576})
MARKOV = evaluation("markov-spatial", {"6": 0.643})


def test_what_is_learned_leads_with_the_best_of_the_others_beside_it() -> None:
    (fact,) = _facts([TABLES, MARKOV, evaluation("learned", {"6": 0.887}, file="learned.safetensors")], "6")
    assert fact.value == "0.887"
    assert fact.label == "recall@6 of the learned predictor; markov-spatial, the best of the others: 0.643"


def test_without_training_each_predictors_own_threshold_is_told() -> None:
    (fact,) = _facts([TABLES, MARKOV], "6")
    assert (fact.value, fact.label) == ("0.576", "recall of st-moe at its own 6.5 experts issued a layer")
