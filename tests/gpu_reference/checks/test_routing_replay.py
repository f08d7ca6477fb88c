"""Any trace's routing through PyTorch, against NumPy."""

import numpy as np
import pytest

from catalog.errors import ForestageError
from gpu_reference.checks import routing_replay
from gpu_reference.checks.routing_replay import replay_routing
from gpu_reference.files import SHIPPED_CHECKPOINT
from tests.routing import trace_of


def random_ids(*, experts: int, tokens: int = 12, layers: int = 10, top_k: int = 3) -> np.ndarray:
    return np.random.default_rng(1).random((tokens, layers, experts)).argsort(axis=-1)[..., :top_k]


@pytest.mark.parametrize(("experts", "weights"), [(32, "checkpoint"), (8, "random")])
def test_replays_what_was_recorded(experts: int, weights: str) -> None:
    trace = trace_of(random_ids(experts=experts), experts=experts)
    replay = replay_routing(trace, 9, SHIPPED_CHECKPOINT, tokens=5)
    assert (replay.tokens, replay.experts, replay.gates) == (5, weights, "equal")
    assert replay.relative_error < 1e-5


def test_recorded_gates_are_used() -> None:
    gates = np.random.default_rng(2).dirichlet(np.ones(3), (12, 10)).astype(np.float16)
    trace = trace_of(random_ids(experts=8), experts=8, gate_weights=gates)
    replay = replay_routing(trace, 0, SHIPPED_CHECKPOINT)
    assert replay.gates == "recorded"
    assert replay.relative_error < 1e-5


def test_another_sum_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = routing_replay._plain
    monkeypatch.setattr(routing_replay, "_plain", lambda moe, x, ids, gates: plain(moe, x, (ids + 1) % 8, gates))
    trace = trace_of(random_ids(experts=8), experts=8)
    assert replay_routing(trace, 0, SHIPPED_CHECKPOINT).relative_error > 0.1


def test_rows_that_were_not_recorded_are_left_out() -> None:
    ids = random_ids(experts=8)
    ids[:4, 2] = 255
    assert replay_routing(trace_of(ids, experts=8), 2, SHIPPED_CHECKPOINT).tokens == 8
    ids[:, 2] = 255
    with pytest.raises(ForestageError, match="layer 2 has no recorded token"):
        replay_routing(trace_of(ids, experts=8), 2, SHIPPED_CHECKPOINT)


def test_a_layer_that_is_not_there() -> None:
    with pytest.raises(ForestageError, match="layer 10 is outside 0 to 9"):
        replay_routing(trace_of(random_ids(experts=8), experts=8), 10, SHIPPED_CHECKPOINT)
