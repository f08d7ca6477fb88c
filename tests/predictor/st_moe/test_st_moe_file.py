from pathlib import Path

import numpy as np
import pytest

from catalog.errors import ForestageError
from predictor.st_moe.file import digest, load, save
from predictor.st_moe.predictor import StMoePredictor
from tests.routing import trace_of
from traces.safetensors_file import open_tensors, write_tensors


def fitted(seed: int = 0, **parameters: object) -> StMoePredictor:
    ids = np.random.default_rng(seed).permuted(np.tile(np.arange(6), (40, 3, 1)), axis=2)[:, :, :2]
    return StMoePredictor.fit(trace_of(ids, experts=6), **parameters)


def test_a_loaded_predictor_scores_as_the_one_that_was_saved(tmp_path: Path) -> None:
    kept = fitted(threshold=3, aggregation="sum")
    save(kept, tmp_path / "tables")
    loaded = load(tmp_path / "tables")
    trace = trace_of(np.random.default_rng(9).permuted(np.tile(np.arange(6), (30, 3, 1)), axis=2)[:, :, :2], experts=6)
    assert np.array_equal(loaded.score_trace(trace), kept.score_trace(trace))
    assert (loaded.threshold, loaded.lookahead, loaded.top_k) == (3, 1, 2)
    assert digest(loaded) == digest(kept)


def test_the_digest_tells_tables_and_choices_apart() -> None:
    assert len({digest(fitted()), digest(fitted(1)), digest(fitted(threshold=3))}) == 3


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    save(fitted(), tmp_path / "tables")
    held = open_tensors(tmp_path / "tables")
    candidates = np.array(held.tensors["candidates"])
    candidates[0, 0, 0] = 6
    write_tensors(tmp_path / "outside", {**held.tensors, "candidates": candidates}, held.metadata)
    with pytest.raises(ForestageError, match="outside: candidates: names experts outside 0 to 5"):
        load(tmp_path / "outside")
    write_tensors(tmp_path / "short", {"candidates": held.tensors["candidates"]}, held.metadata)
    with pytest.raises(ForestageError, match="short: confidences: missing"):
        load(tmp_path / "short")
    write_tensors(tmp_path / "other", held.tensors, {"format": "forestage-predictor"})
    with pytest.raises(ForestageError, match="other: no tables of ST-MoE"):
        load(tmp_path / "other")
