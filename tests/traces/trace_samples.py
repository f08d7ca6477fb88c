"""Traces for tests: random but valid, of any shape."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from traces import DECODE, PREFILL, RoutingTrace, TraceMetadata, id_dtype


def make_trace(
    lengths: tuple[int, ...] = (5, 3, 4),
    layers: int = 3,
    experts: int = 8,
    top_k: int = 2,
    *,
    seed: int = 0,
    prompt: int = 1,
    weights: bool = True,
    hashes: bool = True,
    unrecorded: bool = False,
    datasets: tuple[str, ...] | None = None,
    domains: tuple[str, ...] | None = None,
    **metadata: Any,
) -> RoutingTrace:
    """A valid trace of sequences of the given lengths, the first ``prompt`` tokens of each prefill."""
    generator = np.random.default_rng(seed)
    tokens = sum(lengths)
    keys = generator.random((tokens, layers, experts))
    ids = np.argsort(keys, axis=-1)[..., :top_k].astype(id_dtype(experts))
    gate = np.sort(generator.dirichlet(np.ones(top_k), (tokens, layers)))[..., ::-1].astype(np.float16)
    if unrecorded:
        missing = generator.random((tokens, layers)) < 0.3
        ids[missing] = np.iinfo(ids.dtype).max
        gate[missing] = 0
    position = np.concatenate([np.arange(length) + generator.integers(5) for length in lengths]).astype(np.int32)
    phase = np.concatenate([np.where(np.arange(length) < prompt, PREFILL, DECODE) for length in lengths])
    facts: dict[str, Any] = {
        "model": "test",
        "experts": experts,
        "top_k": top_k,
        "layer_map": tuple(range(1, layers + 1)),
        "ranked": weights,
        "gate_weight_kind": "normalised" if weights else "none",
        "source": "made for a test",
        "licence": "Apache-2.0",
        "synthetic": True,
        "has_unrecorded": unrecorded,
    }
    return RoutingTrace(
        expert_ids=ids,
        gate_weights=gate if weights else None,
        sequence_offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        position=position,
        phase=phase.astype(np.uint8),
        token_hash=generator.integers(1 << 32, size=tokens, dtype=np.uint32) if hashes else None,
        domains=domains or tuple(f"domain {i % 2}" for i in range(len(lengths))),
        datasets=datasets or tuple(f"dataset {i % 3}" for i in range(len(lengths))),
        metadata=TraceMetadata(**{**facts, **metadata}),
    )


@st.composite
def traces(draw: st.DrawFn) -> RoutingTrace:
    """Valid traces of every kind: either id width, with and without weights, hashes and unrecorded rows."""
    experts = draw(st.sampled_from([1, 2, 5, 32, 255, 256, 600]))
    labels = st.text(st.characters(codec="utf-8"), max_size=6)
    lengths = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=5)))
    return make_trace(
        lengths,
        layers=draw(st.integers(1, 4)),
        experts=experts,
        top_k=draw(st.integers(1, min(experts, 5))),
        seed=draw(st.integers(0, 1000)),
        weights=draw(st.booleans()),
        hashes=draw(st.booleans()),
        unrecorded=draw(st.booleans()),
        domains=tuple(draw(st.lists(labels, min_size=len(lengths), max_size=len(lengths)))),
        datasets=tuple(draw(st.lists(labels, min_size=len(lengths), max_size=len(lengths)))),
    )
