"""The row network on a device computes the integer twin's scores, whatever it looks at."""

import numpy as np
import pytest

from catalog import ForestageError, find_model
from gpu_reference.measuring import networks
from gpu_reference.measuring.bench import Bench, WrongResultError
from gpu_reference.measuring.device_network import DeviceNetwork
from gpu_reference.measuring.networks import device_error, device_predictions, random_network, routing, streamed
from predictor.next_layer.recipes import NextLayerConfig
from predictor.next_use.recipes import NextUseConfig
from predictor.row_network.config import NetworkConfig
from predictor.row_network.integers import SCORE_MAX, SCORE_MIN, NetworkTables
from predictor.row_network.twin import RowNetwork

BENCH = Bench(device="cpu", suite="quick", model=find_model("forestage-small-moe"))

CONFIGS: dict[str, NetworkConfig] = {
    "plain": NextLayerConfig(
        hidden=16, ngram_tables=(), identity_rows=0, identities=0, previous=((1, 1), (0, 2)), decays=((2, 1), (4, 0))
    ),
    "nothing but this token": NextLayerConfig(
        hidden=16, ngram_tables=(), identity_rows=0, identities=0, previous=(), decays=()
    ),
    "text and identity": NextLayerConfig(hidden=16, identity_rows=8, continuation_windows=((1, 2),)),
    "text by routing": NextLayerConfig(hidden=16, identity_rows=0, identities=0, ngram_by="routing"),
    "two layers ahead": NextLayerConfig(hidden=16, nearest=2, farthest=3, ngram_tables=(), identity_rows=8),
    "next use": NextUseConfig(hidden=24),
}


def a_network(name: str) -> RowNetwork:
    """A random network; those of one question adapt in some of their layers."""
    network = random_network(BENCH, CONFIGS[name])
    tables = {field: getattr(network.tables, field) for field in NetworkTables.__dataclass_fields__}
    if CONFIGS[name].questions == 1:
        tables["adaptations"] = np.arange(network.layers, dtype=np.uint8) % 3 * 6
    random = np.random.default_rng(1)
    tables["source_shifts"] = random.integers(0, 2, tables["source_shifts"].shape).astype(np.uint8)
    tables["bias"] = random.integers(-500, 500, tables["bias"].shape).astype(np.int32)
    tables["output_bias"] = random.integers(-5000, 5000, tables["output_bias"].shape).astype(np.int32)
    return RowNetwork(NetworkTables(**tables), network.config, top_k=network.top_k, ranked=True)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(("arithmetic", "most"), [("int8", 0.0), ("fp32", 0.0), ("fp16", 5e-4)])
def test_the_device_has_the_twins_scores(name: str, arithmetic: str, most: float) -> None:
    network = a_network(name)
    trace = routing(BENCH, network)
    wanted, told = streamed(network, trace)
    assert np.array_equal(wanted, np.concatenate([scores for _, scores in network.score_chunks(trace)]))
    assert ((wanted > SCORE_MIN) & (wanted < SCORE_MAX)).mean() > 0.5  # they could differ
    there = DeviceNetwork(network, "cpu", arithmetic=arithmetic, batch=2)
    for _ in range(2):  # a second sequence begins anew
        assert device_error(there, trace, wanted, told, "cpu") <= most


def test_a_network_asked_farther_ahead_is_refused() -> None:
    network = a_network("two layers ahead")
    farther = RowNetwork(network.tables, network.config, top_k=network.top_k, ranked=True, lookahead=3)
    with pytest.raises(ForestageError, match="asked at lookahead 3; on the device it is asked at its nearest, 2"):
        DeviceNetwork(farther, "cpu", arithmetic="int8")


def test_an_unknown_arithmetic_is_refused() -> None:
    with pytest.raises(ForestageError, match="'fp8' is none of int8, fp16, fp32"):
        DeviceNetwork(a_network("plain"), "cpu", arithmetic="fp8")


def test_sums_that_float32_does_not_hold_are_refused() -> None:
    network = random_network(BENCH, NextLayerConfig(hidden=1024, ngram_tables=(), identity_rows=0, identities=0))
    with pytest.raises(ForestageError, match="beyond what float32 holds exactly; take int8"):
        DeviceNetwork(network, "cpu", arithmetic="fp32")


def test_wrong_scores_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "device_error", lambda *_: 1e-6)
    with pytest.raises(WrongResultError, match=r"next-layer network on the device in int8: wrong by 1\.0e-06"):
        next(device_predictions(BENCH))
