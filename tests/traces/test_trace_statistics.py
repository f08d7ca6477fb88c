"""Statistics and descriptions against figures worked out by hand or by plain loops."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from tests.traces.trace_samples import make_trace, traces
from traces import RoutingTrace
from traces.describe import describe
from traces.importers import import_trace
from traces.schema import TOKEN_ARRAYS
from traces.statistics import statistics
from traces.trace import CHUNK_TOKENS


def from_rows(rows: list[list[int]], lengths: tuple[int, ...], experts: int = 4) -> RoutingTrace:
    """A trace of one layer with the given ids a token."""
    template = make_trace(lengths, layers=1, experts=experts, top_k=len(rows[0]), weights=False)
    return replace(template, expert_ids=np.array(rows, dtype=np.uint8)[:, None, :], content="unchecked")


def test_figures_by_hand() -> None:
    # Two sequences; overlaps 1 and 2 in the first, 0 in the second; the pair across them does not count.
    trace = from_rows([[0, 1], [1, 2], [2, 1], [2, 1], [0, 3]], (3, 2))
    result = statistics(trace)
    assert result.uniform_overlap == 1.0
    layer = result.by_layer[0]
    assert layer.temporal_overlap == pytest.approx((1 + 2 + 0) / 3)
    assert layer.over_uniform == pytest.approx(1.0)
    loads = np.array([2, 4, 3, 1]) / 10
    assert layer.load_entropy == pytest.approx(-(loads * np.log(loads)).sum() / math.log(4))
    assert layer.hottest_over_mean == pytest.approx(4 / 2.5)
    assert result.by_domain["domain 0"].temporal_overlap == pytest.approx(1.5)
    assert result.by_domain["domain 1"].temporal_overlap == 0
    assert (result.by_domain["domain 1"].sequences, result.by_domain["domain 1"].tokens) == (1, 2)


def test_even_load_has_entropy_1_and_a_single_expert_0() -> None:
    even = statistics(from_rows([[0], [1], [2], [3]], (4,))).overall
    assert (even.load_entropy, even.hottest_over_mean) == (pytest.approx(1.0), 1.0)
    one = statistics(from_rows([[2], [2], [2]], (3,))).overall
    assert one.load_entropy == pytest.approx(0.0)
    assert (one.hottest_over_mean, one.temporal_overlap) == (4.0, 1.0)


def test_a_gap_in_the_positions_is_no_pair() -> None:
    trace = from_rows([[0], [0], [0]], (3,))
    gap = replace(trace, position=np.array([0, 1, 5], dtype=np.int32), content="unchecked")
    assert statistics(trace).overall.temporal_overlap == 1.0
    alone = replace(trace, position=np.array([0, 2, 5], dtype=np.int32), content="unchecked")
    assert statistics(gap).overall.temporal_overlap == 1.0
    assert statistics(alone).overall.temporal_overlap is None


def plain_statistics(trace: RoutingTrace) -> tuple[list[list[int]], list[int], list[int]]:
    """Loads, shared experts and pairs by layer, by plain loops over sets."""
    loads = [[0] * trace.experts for _ in range(trace.layers)]
    shared, pairs = [0] * trace.layers, [0] * trace.layers
    for index in range(trace.sequences):
        tokens = trace.sequence_slice(index)
        for layer in range(trace.layers):
            previous: set[int] | None = None
            for token in range(tokens.start, tokens.stop):
                chosen = {int(i) for i in trace.expert_ids[token, layer] if i < trace.experts}
                for expert in chosen:
                    loads[layer][expert] += 1
                if chosen and previous:
                    pairs[layer] += 1
                    shared[layer] += len(chosen & previous)
                previous = chosen
    return loads, shared, pairs


@settings(max_examples=40, deadline=None)
@given(trace=traces())
def test_every_layer_agrees_with_plain_loops(trace: RoutingTrace) -> None:
    loads, shared, pairs = plain_statistics(trace)
    result = statistics(trace)
    for layer, figures in enumerate(result.by_layer):
        uses = sum(loads[layer])
        expected = max(loads[layer]) * trace.experts / uses if uses else None
        assert figures.hottest_over_mean == (None if expected is None else pytest.approx(expected))
        overlap = shared[layer] / pairs[layer] if pairs[layer] else None
        assert figures.temporal_overlap == (None if overlap is None else pytest.approx(overlap))
    assert list(result.by_domain) == list(dict.fromkeys(trace.domains))
    assert sum(domain.tokens for domain in result.by_domain.values()) == trace.tokens
    assert json.loads(result.model_dump_json())["uniform_overlap"] == trace.top_k**2 / trace.experts


def test_progress_counts_domains() -> None:
    seen: list[tuple[int, int]] = []
    statistics(make_trace(), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]


def test_gpt_oss_is_above_chance(shared_file: Callable[[str], Path]) -> None:
    trace = import_trace(shared_file("gpt_oss_20b_decode.npz"))
    result = statistics(trace)
    # seed-systems.md: recall@4 of "previous token" is 0.445 on the test split, so about 1.78 of 4 experts recur.
    assert result.overall.temporal_overlap == pytest.approx(4 * 0.445, abs=0.08)
    assert result.uniform_overlap == 0.5


class OnlySlices:
    """An array that hands out ``CHUNK_TOKENS`` rows at a time, as one that does not fit in memory."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array
        self.dtype, self.shape, self.nbytes = array.dtype, array.shape, array.nbytes

    def __getitem__(self, rows: slice) -> np.ndarray:
        assert rows.stop - rows.start <= CHUNK_TOKENS
        return self._array[rows]


def test_a_trace_of_any_size_is_described_in_chunks() -> None:
    trace = make_trace((40_000, 40_000), layers=1, experts=4, top_k=1, unrecorded=True)
    expected = describe(trace)
    for name in TOKEN_ARRAYS:
        object.__setattr__(trace, name, OnlySlices(getattr(trace, name)))
    assert describe(trace) == expected
    assert (expected.decode_tokens, expected.tokens) == (80_000 - 2, 80_000)


def test_describe(tmp_path: Path) -> None:
    trace = make_trace(lengths=(5, 3, 4), prompt=2, unrecorded=True)
    trace.save(tmp_path / "trace.safetensors")
    info = describe(trace, tmp_path / "trace.safetensors")
    assert (info.tokens, info.prefill_tokens, info.decode_tokens) == (12, 6, 6)
    assert (info.shortest, info.median, info.longest) == (3, 4.0, 5)
    assert info.longest_context == int(trace.position.max()) + 1
    assert info.unrecorded_rows == int((~trace.recorded()).sum()) > 0
    assert {name: (c.sequences, c.tokens) for name, c in info.domains.items()} == {
        "domain 0": (2, 9),
        "domain 1": (1, 3),
    }
    assert info.file_bytes == (tmp_path / "trace.safetensors").stat().st_size > info.array_bytes
    assert describe(trace).file_bytes is None
    (tmp_path / "other").write_bytes(b"12345")
    assert describe(trace, tmp_path).file_bytes == info.file_bytes + 5  # of a folder: its files
    assert json.loads(info.model_dump_json())["metadata"]["model"] == "test"
