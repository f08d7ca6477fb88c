"""How long a prediction takes: row networks on the host, a layer at a time, and on the device, all layers at once."""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gpu_reference.measuring.bench import Bench, Figures, WrongResultError
from gpu_reference.measuring.clock import each_time
from gpu_reference.measuring.device_network import DeviceNetwork
from gpu_reference.measuring.launches import capture
from gpu_reference.records.micro import MicroKind
from predictor.next_layer.recipes import RECIPES
from predictor.next_use.recipes import WITHOUT_IDENTITY, NextUseConfig
from predictor.row_network.config import NetworkConfig
from predictor.row_network.integers import CERTAIN, CHANCE_BINS, NetworkTables, expected_shapes
from predictor.row_network.kernels import State, add_text, routing_token
from predictor.row_network.twin import RowNetwork
from traces import DECODE, RoutingTrace, TraceMetadata, id_dtype

TOKENS = 24
"""On which results are compared, and which are gone through while times are taken."""

MOST_FP16_ERROR = 1e-2


def networks_of(bench: Bench) -> dict[str, tuple[RowNetwork, bool]]:
    """Name → network and whether it is trained: those given, and else of the default sizes with random integers."""
    given = {"next-layer": bench.predictors.next_layer, "next-use": bench.predictors.next_use}
    configs: dict[str, NetworkConfig] = {
        "next-layer": RECIPES["few-tokens"].predictor,
        "next-use": NextUseConfig.model_validate(WITHOUT_IDENTITY),
    }
    return {
        name: (random_network(bench, configs[name]), False) if predictor is None else (predictor.network, True)
        for name, predictor in given.items()
    }


def random_network(bench: Bench, config: NetworkConfig) -> RowNetwork:
    """A network of the model's shape with random integers, none of whose scores is always the same."""
    model, random = bench.model, np.random.default_rng(bench.seed)
    arrays: dict[str, Any] = {}
    for name, (dtype, shape) in expected_shapes(config, layers=model.moe_layers, experts=model.experts).items():
        arrays[name] = random.integers(-127, 128, shape, dtype=np.int8) if dtype is np.int8 else np.zeros(shape, dtype)
    arrays["hidden_shifts"][:] = 4
    arrays["score_shifts"][:] = 7
    arrays["identity_tokens"][:] = np.arange(len(arrays["identity_tokens"]))
    arrays["chances"][:] = np.linspace(0, CERTAIN, CHANCE_BINS).astype(np.uint16)
    tables = NetworkTables(**arrays)
    return RowNetwork(tables, config, top_k=model.top_k, ranked=bool(config.ranks) or config.ranks is None)


def host_predictions(bench: Bench) -> Figures:
    """One (token, layer) of each network's streaming form: its gate observed, and the chances asked of it."""
    for name, (network, trained) in networks_of(bench).items():
        trace = routing(bench, network)
        check_streaming(network, trace)
        walk = _Walk(network, trace)
        yield bench.micro(
            MicroKind.PREDICTION_HOST,
            walk.layer,
            queued=network.layers,
            error=0.0,
            network=name,
            hidden=network.config.hidden,
            trained=trained,
        )


def device_predictions(bench: Bench) -> Figures:
    """All layers of one token of each sequence: rows, ReLU and matrix, by arithmetic and batch."""
    for name, (network, trained) in networks_of(bench).items():
        trace = routing(bench, network)
        wanted, told = streamed(network, trace)
        arithmetics = ("int8", "fp16", "fp32") if bench.on_cuda else ("int8", "fp32")
        for batch, arithmetic in product((1, 4, 16) if bench.is_full else (1,), arithmetics):
            there = DeviceNetwork(network, bench.device, arithmetic=arithmetic, batch=batch)
            error = device_error(there, trace, wanted, told, bench.device)
            if not error <= (MOST_FP16_ERROR if arithmetic == "fp16" else 0):
                raise WrongResultError(f"{name} network on the device in {arithmetic}: wrong by {error:.1e}")
            ids = torch.from_numpy(trace.expert_ids[:batch].astype(np.int64)).to(bench.device)
            work = partial(there.token, ids)
            ways: list[tuple[str, Callable[[], object], bool]] = [("eager", work, False)]
            if bench.on_cuda:
                ways += [("eager", work, True), ("graph", capture(work).replay, False)]
            for launched, run, by_device in ways:
                yield bench.micro(
                    MicroKind.PREDICTION_DEVICE,
                    each_time(run),
                    queued=4 if bench.on_cuda else 1,
                    by_device=by_device,
                    error=error,
                    network=name,
                    hidden=network.config.hidden,
                    trained=trained,
                    layers=network.layers,
                    batch=batch,
                    arithmetic=arithmetic,
                    launched=launched,
                )


def routing(bench: Bench, network: RowNetwork) -> RoutingTrace:
    """`TOKENS` tokens of random routing of the network's shape, with identities, as a trace."""
    random = np.random.default_rng(bench.seed)
    shape = (TOKENS, network.layers, network.experts)
    ids = random.random(shape).argsort(axis=2)[:, :, : network.top_k].astype(id_dtype(network.experts))
    identities = random.integers(0, 8, TOKENS).astype(np.uint32)  # few, so that the text repeats itself
    ids[:, 0] = ids[identities, 0]  # and where layer 0's choice stands for them, too
    return RoutingTrace(
        expert_ids=ids,
        gate_weights=None,
        sequence_offsets=np.array([0, TOKENS]),
        position=np.arange(TOKENS, dtype=np.int32),
        phase=np.full(TOKENS, DECODE, np.uint8),
        token_hash=identities,
        domains=("random",),
        datasets=("random",),
        metadata=TraceMetadata(
            model=bench.model.name,
            experts=network.experts,
            top_k=network.top_k,
            layer_map=tuple(range(network.layers)),
            ranked=True,
            gate_weight_kind="none",
            source="random, to measure with",
            licence="Apache-2.0",
            synthetic=True,
            has_unrecorded=False,
        ),
    )


def check_streaming(network: RowNetwork, trace: RoutingTrace) -> None:
    """Raise unless the streaming form's scores are the batch form's.

    Raises:
        WrongResultError: if one is not.
    """
    wanted = np.concatenate([scores for _, scores in network.score_chunks(trace)])
    found, _ = streamed(network, trace)
    if not np.array_equal(found, wanted):
        raise WrongResultError("network: streaming and batch form differ")


def streamed(network: RowNetwork, trace: RoutingTrace) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Of every token: scores i32 ``[tokens, layers, answers]`` asked as early as the network can be, and what text and
    identity add to its sums, i32 ``[tokens, layers, hidden]``."""
    assert trace.token_hash is not None
    scores = np.zeros((trace.tokens, network.layers, network.config.questions * network.experts), np.int32)
    told = np.zeros((trace.tokens, network.layers, network.config.hidden), np.int32)
    network.start_sequence()
    for token in range(trace.tokens):
        before = network._state.now.copy()
        network.start_token(int(trace.token_hash[token]))
        told[token] = network._state.now - before
        for target in range(min(network.lookahead, network.layers)):
            scores[token, target] = network.scores(target).ravel()
        for layer in range(network.layers):
            if layer == 0 and network.config.ngram_by == "routing":
                # Targets that were asked before this gate know nothing of it.
                text = _text_by_routing(network, trace.expert_ids[token, 0].astype(np.int16))
                told[token, network.lookahead :] += text[network.lookahead :]
            network.observe(layer, trace.expert_ids[token, layer])
            if layer + network.lookahead < network.layers:
                scores[token, layer + network.lookahead] = network.scores(layer + network.lookahead).ravel()
    return scores, told


def _text_by_routing(network: RowNetwork, ids: NDArray[np.int16]) -> NDArray[np.int32]:
    """What the text adds to the sums once layer 0's choice, which stands for the token, is known."""
    state = State._make(array.copy() for array in network._state)
    add_text(network.rules, network.compiled_tables, state, routing_token(ids, True))
    return state.now - network._state.now


def device_error(
    there: DeviceNetwork, trace: RoutingTrace, wanted: NDArray[np.int32], told: NDArray[np.int32], device: str
) -> float:
    """The relative error of the device's scores of all tokens, every sequence of the batch being this one."""
    there.start()
    found = []
    for token in range(trace.tokens):
        ids = torch.from_numpy(trace.expert_ids[token].astype(np.int64)).to(device).expand(there.batch, -1, -1)
        added = torch.from_numpy(told[token]).to(device).expand(there.batch, -1, -1)
        found.append(there.token(ids.contiguous(), added))
    scores = torch.stack(found, 1).double().cpu().numpy()  # [batch, tokens, L, answers]
    exact = np.broadcast_to(wanted.astype(np.float64), scores.shape)
    return float(np.linalg.norm(scores - exact) / np.linalg.norm(exact))


class _Walk:
    """The streaming form, token after token, over the same routing again and again."""

    def __init__(self, network: RowNetwork, trace: RoutingTrace) -> None:
        self.network, self.ids = network, [[*map(np.asarray, token)] for token in trace.expert_ids.astype(np.int16)]
        assert trace.token_hash is not None
        self.identities = trace.token_hash.tolist()
        network.start_sequence()

    def layer(self, piece: int) -> None:
        """The next (token, layer)."""
        network = self.network
        token, layer = piece // network.layers % len(self.ids), piece % network.layers
        if layer == 0:
            if token == 0:
                network.start_sequence()
            network.start_token(self.identities[token])
        network.observe(layer, self.ids[token][layer])
        network.chances(min(layer + network.lookahead, network.layers - 1))
