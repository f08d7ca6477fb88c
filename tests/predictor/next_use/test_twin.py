"""The next-use predictor's integers: streaming against batch, its file, and what it refuses."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from catalog.errors import ForestageError
from predictor.next_use import file
from predictor.next_use.parameters import NextUseParameters
from predictor.next_use.tables import ARRAYS, CERTAIN, CHANCES, FarMemory, NextUseTables
from predictor.next_use.twin import NextUsePredictor
from tests.predictor.next_use.next_use_samples import random_predictor, random_trace
from tests.routing import trace_of
from traces import RoutingTrace


def streamed(predictor: NextUsePredictor, trace: RoutingTrace) -> np.ndarray:
    """Priorities of every target, each asked at the earliest moment."""
    priorities = np.zeros((trace.tokens, trace.layers, trace.experts), np.int32)
    recorded = trace.recorded()
    for token in range(trace.tokens):
        if token in trace.sequence_offsets:
            predictor.start_sequence()
        predictor.start_token(None if trace.token_hash is None else int(trace.token_hash[token]))
        for layer in range(trace.layers):
            predictor.observe(layer, trace.expert_ids[token, layer] if recorded[token, layer] else None)
            target = layer + predictor.parameters.lookahead
            if target < trace.layers:
                priorities[token, target] = predictor.priorities(target)
    return priorities


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1 << 16),
    layers=st.integers(1, 4),
    top_k=st.integers(1, 3),
    tokens=st.integers(2, 60),
    lookahead=st.integers(0, 2),
    chunk=st.integers(1, 12),
)
def test_streaming_equals_batch(seed: int, layers: int, top_k: int, tokens: int, lookahead: int, chunk: int) -> None:
    """Of sequences longer than the log, whose keys share entries."""
    generator = np.random.default_rng(seed)
    shape = {"layers": layers, "experts": 6, "top_k": top_k}
    predictor = random_predictor(generator, **shape, lookahead=lookahead)
    trace = random_trace(generator, **shape, tokens=tokens)
    batch = np.concatenate([part.copy() for _, part in predictor.priority_chunks(trace, chunk_tokens=chunk)])
    assert batch.tolist() == streamed(predictor, trace).tolist()


def test_a_token_of_which_nothing_is_told_has_no_identity() -> None:
    generator = np.random.default_rng(4)
    predictor = random_predictor(generator, layers=1, experts=6, top_k=2)

    def last(identities: list[int | None]) -> list[int]:
        predictor.start_sequence()
        for token, identity in enumerate(identities):
            if identity is not None:
                predictor.start_token(identity)
            predictor.observe(0, np.array([token % 3, 5]))
        return predictor.priorities(0).tolist()

    unmatched = last([1, 2, 3, 4])
    assert last([1, 2, 3, None]) == last([1, None, 3, None]) == unmatched
    assert last([1, 2, 3, 2]) != unmatched
    # A pair in which one is unknown is not met again, its known word alone is.
    assert last([1, None, 3, 1]) == last([1, 7, 3, 1]) != unmatched


def test_random_tables_say_something() -> None:
    """So that the equality above is of more than constants."""
    generator = np.random.default_rng(5)
    predictor = random_predictor(generator, layers=3, experts=6, top_k=2)
    trace = random_trace(generator, layers=3, experts=6, top_k=2, tokens=200)
    scores = np.concatenate([part.copy() for _, part in predictor.score_chunks(trace)])
    assert len(np.unique(scores)) > 60
    assert ((scores > -128) & (scores < 127)).mean() > 0.2


def test_asking_changes_nothing() -> None:
    predictor = random_predictor(np.random.default_rng(1), layers=2, experts=6, top_k=2)
    predictor.observe(0, np.array([1, 2]))
    first = predictor.chances(0)
    assert predictor.chances(0).tolist() == first.tolist()
    assert predictor.priorities(0).tolist() == first.sum(axis=0).tolist()


def test_a_target_below_the_lookahead_has_no_priority() -> None:
    predictor = random_predictor(np.random.default_rng(1), layers=3, experts=6, top_k=2, lookahead=2)
    predictor.observe(0, np.array([1, 2]))
    assert not predictor.priorities(0).any()
    assert not predictor.priorities(1).any()
    assert predictor.priorities(2).any()


def test_a_sequence_begins_from_nothing() -> None:
    predictor = random_predictor(np.random.default_rng(1), layers=2, experts=6, top_k=2)
    trace = trace_of([[[0, 1], [2, 3]], [[4, 5], [0, 1]], [[0, 1], [2, 3]]], experts=6, lengths=[2, 1])
    priorities = streamed(predictor, trace)
    assert priorities[0].tolist() == priorities[2].tolist()
    assert priorities[0].tolist() != priorities[1].tolist()


def test_chances_are_the_logistic_function() -> None:
    assert CHANCES[128] == 128  # of 255, rounded to even
    assert CHANCES[128 + 16] == round(CERTAIN * 0.7310586)
    assert (CHANCES[0], CHANCES[255]) == (0, 255)
    assert (np.diff(CHANCES) >= 0).all()


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    predictor = random_predictor(np.random.default_rng(2), layers=3, experts=6, top_k=2, lookahead=1)
    file.save(predictor, tmp_path / "p.safetensors")
    loaded = file.load(tmp_path / "p.safetensors")
    assert loaded.parameters == predictor.parameters
    assert (loaded.model, loaded.trained_on) == ("test", "nothing")
    for name in ARRAYS:
        assert (getattr(loaded.tables, name) == getattr(predictor.tables, name)).all()
    for again in range(8):  # the library's own order of the header is another each time
        file.save(loaded, tmp_path / f"{again}.safetensors")
        assert (tmp_path / f"{again}.safetensors").read_bytes() == (tmp_path / "p.safetensors").read_bytes()


def test_a_file_that_holds_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    with pytest.raises(ForestageError, match=r"p\.safetensors: cannot read"):
        file.load(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(ForestageError, match=r"p\.safetensors: no safetensors file"):
        file.load(path)
    save_file({"rows": np.zeros(3, np.int8)}, path)
    with pytest.raises(ForestageError, match=r"p\.safetensors: no next-use predictor"):
        file.load(path)
    save_file({"rows": np.zeros(3, np.int8)}, path, metadata={"kind": file.EARLIER_KIND})
    with pytest.raises(ForestageError, match=r"p\.safetensors: a next-use predictor of an earlier version; train anew"):
        file.load(path)
    save_file({"rows": np.zeros(3, np.int8)}, path, metadata={"kind": file.KIND})
    with pytest.raises(ForestageError, match=r"p\.safetensors: activation_shift is missing"):
        file.load(path)
    arrays = {name: np.zeros(3, dtype) for name, dtype in ARRAYS.items()}
    save_file(arrays, path, metadata={"kind": file.KIND})
    with pytest.raises(ForestageError, match=r"p\.safetensors: 'parameters': the header is damaged"):
        file.load(path)
    header = {"kind": file.KIND, "model": "m", "trained_on": "t", "layers": "2", "experts": "4", "top_k": "1"}
    save_file(arrays, path, metadata={**header, "parameters": '{"hiden": 3}'})
    with pytest.raises(ForestageError, match="unknown key 'hiden'; the nearest known key is 'hidden'"):
        file.load(path)
    save_file(arrays, path, metadata={**header, "parameters": "{}"})
    with pytest.raises(ForestageError, match=r"p\.safetensors: rows: int8 \[3\], not int8 \[2, 25, 4, 64\]"):
        file.load(path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("gain", 9, "gain: outside -16…8"),
        ("activation_shift", -1, "activation_shift: outside 0…24"),
        ("output_shift", 31, "output_shift: outside 0…30"),
        ("bias", 1 << 30, "bias: outside"),
        ("output_bias", -(1 << 30), "output_bias: outside"),
    ],
)
def test_integers_out_of_range_are_refused(name: str, value: int, message: str) -> None:
    tables = random_predictor(np.random.default_rng(2), layers=2, experts=4, top_k=1).tables
    array = getattr(tables, name).copy()
    array.flat[-1] = value
    with pytest.raises(ForestageError, match=message):
        replace(tables, **{name: array})


def test_a_history_that_would_overflow_is_refused() -> None:
    tables = random_predictor(np.random.default_rng(2), layers=2, experts=4, top_k=1).tables
    parameters = NextUseParameters(**{**tables.parameters.model_dump(), "neighbour_shifts": (3, 10)})
    shape = tables.shapes(parameters, 2, 4)
    arrays = {name: np.zeros(shape[name], dtype) for name, dtype in ARRAYS.items()}
    replace(tables, parameters=parameters, **arrays)
    with pytest.raises(ForestageError, match="history shift 10: rows of 80 experts a token overflow"):
        replace(tables, parameters=parameters, top_k=20, **arrays)


def test_another_models_trace_is_refused() -> None:
    predictor = random_predictor(np.random.default_rng(2), layers=2, experts=6, top_k=2)
    trace = trace_of([[[0, 1], [2, 3]]], experts=7)
    with pytest.raises(ForestageError, match=r"trained on \(layers, experts, top_k\) = \(2, 6, 2\), the trace has"):
        next(predictor.priority_chunks(trace))


def test_a_trace_without_identity_is_refused_where_it_is_looked_at() -> None:
    shape = {"layers": 2, "experts": 6, "top_k": 2}
    trace = trace_of([[[0, 1], [2, 3]]], experts=6)
    with pytest.raises(ForestageError, match="looks at the identity of tokens, which the trace does not record"):
        random_predictor(np.random.default_rng(2), **shape).check_trace(trace)
    random_predictor(np.random.default_rng(2), **shape, contexts=()).check_trace(trace)


def test_memory_is_that_of_what_is_held() -> None:
    shape = {"layers": 24, "experts": 32, "top_k": 4}
    windows = {"contexts": (1, 2, 3), "context_entries": 4096, "log_tokens": 1024, "follow": ((1, 1), (4, 8))}
    tables, bare = (
        random_predictor(np.random.default_rng(2), **shape, **changed).tables for changed in (windows, {"contexts": ()})
    )
    # Records of 96 bytes in two beats, eight of them read; three entries read and written.
    assert tables.far_memory == FarMemory(
        held_bytes=3 * 4096 * 16 + 1024 * 128, read_bytes=3 * 64 + 8 * 128, written_bytes=3 * 64 + 128
    )
    assert bare.far_memory == FarMemory(0, 0, 0)
    # Two windows of rows, and eight tokens of four ids.
    assert tables.layer_bytes - bare.layer_bytes == 2 * 32 * 5 + 8 * 4


def test_the_default_keeps_to_its_limit() -> None:
    """64 KiB a layer of gpt-oss-20b, and as much without identity."""
    for identity in (True, False):
        parameters = NextUseParameters.for_trace({}, identity=identity, origin="test")
        shapes = NextUseTables.shapes(parameters, 24, 32)
        arrays = {name: np.zeros(shapes[name], dtype) for name, dtype in ARRAYS.items()}
        tables = NextUseTables(parameters=parameters, layers=24, experts=32, top_k=4, **arrays)
        assert parameters.looks_at_identity == identity
        assert 60_000 < tables.layer_bytes <= 1 << 16


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"horizons": ()}, "horizons"),
        ({"horizons": (4, 2)}, "ascending"),
        ({"horizons": (0, 2)}, "1 or more"),
        ({"history_shifts": (3, 11)}, r"history_shifts \(3, 11\): give ascending numbers in 1…10"),
        ({"neighbour_shifts": (0,)}, "neighbour_shifts"),
        ({"hidden": 0}, "hidden"),
        ({"contexts": (2, 1)}, r"contexts \(2, 1\): give ascending numbers in 1…8"),
        ({"contexts": (9,)}, r"contexts \(9,\): give ascending numbers in 1…8"),
        ({"context_entries": 3}, "context_entries 3: give a power of two"),
        ({"log_tokens": 12}, "log_tokens 12: give a power of two"),
        ({"follow": ((2, 1),)}, r"follow \(2, 1\): give the first and the last token, in 0…64"),
        ({"follow": ((1, 65),)}, r"follow \(1, 65\): give"),
    ],
)
def test_parameters_out_of_range_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ForestageError, match=message):
        NextUseParameters.parse(values, origin="test")
