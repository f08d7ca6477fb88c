from typing import Any

import numpy as np
import pytest
import torch

from catalog.errors import ForestageError
from gpu_reference.routers import RouterOutput, RoutingRecorder, TopKRule, check_routing, register_router, registry


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(1, 300, (2, 7), generator=torch.Generator().manual_seed(0))


def test_records_every_layer_in_rank_order(tiny_model: Any, tokens: torch.Tensor) -> None:
    with RoutingRecorder(tiny_model) as recorder, torch.no_grad():
        output = tiny_model(input_ids=tokens, output_router_logits=True)
        routing = recorder.take()
    assert recorder.layer_map == (0, 1, 2)
    assert routing.ids.shape == routing.weights.shape == (14, 3, 2)
    for layer, logits in enumerate(output.router_logits):
        best = torch.softmax(logits, dim=-1).topk(2, dim=-1)
        assert np.array_equal(routing.ids[:, layer], best.indices.numpy())
        weights = best.values / best.values.sum(dim=-1, keepdim=True)
        np.testing.assert_allclose(routing.weights[:, layer], weights.numpy(), atol=1e-6)
    assert (np.diff(routing.weights, axis=-1) <= 0).all()


def test_hooks_are_removed(tiny_model: Any, tokens: torch.Tensor) -> None:
    with RoutingRecorder(tiny_model) as recorder:
        pass
    with torch.no_grad():
        tiny_model(input_ids=tokens)
    with pytest.raises(RuntimeError, match=r"\[0, 0, 0\] times"):
        recorder.take()


def test_two_passes_without_take_are_an_error(tiny_model: Any, tokens: torch.Tensor) -> None:
    with RoutingRecorder(tiny_model) as recorder, torch.no_grad():
        tiny_model(input_ids=tokens)
        tiny_model(input_ids=tokens)
        with pytest.raises(RuntimeError, match=r"\[2, 2, 2\] times"):
            recorder.take()


def _output(ids: list[int], weights: list[float]) -> RouterOutput:
    return RouterOutput(torch.tensor([[0.0, 3.0, 2.0, 1.0]]), torch.tensor([ids]), torch.tensor([weights]))


SOFTMAX = TopKRule(normalised="norm_topk_prob")


class _Router:
    norm_topk_prob = True


_FIRST, _SECOND = float(1 / (1 + np.exp(-1.0))), float(1 / (1 + np.exp(1.0)))


def test_a_right_choice_passes_and_is_put_in_rank_order() -> None:
    routing = check_routing(SOFTMAX, _Router(), _output([2, 1], [_SECOND, _FIRST]), "gate")
    assert routing.ids.tolist() == [[1, 2]]
    np.testing.assert_allclose(routing.weights, [[_FIRST, _SECOND]], atol=1e-6)


@pytest.mark.parametrize(
    ("ids", "weights", "message"),
    [
        ([1, 3], [_FIRST, _SECOND], r"gate, row 0: the router chose \[1, 3\], its logits say \[1, 2\]"),
        ([1, 1], [0.5, 0.5], "the router chose"),
        ([1, 2], [0.9, 0.1], "gate weights differ by"),
    ],
)
def test_a_wrong_choice_is_an_error(ids: list[int], weights: list[float], message: str) -> None:
    with pytest.raises(ForestageError, match=message):
        check_routing(SOFTMAX, _Router(), _output(ids, weights), "gate")


def test_ties_may_be_broken_either_way() -> None:
    logits = torch.tensor([[1.0, 1.0, 0.0]])
    output = RouterOutput(logits, torch.tensor([[1]]), torch.tensor([[1.0]]))
    assert check_routing(SOFTMAX, _Router(), output, "gate").ids.tolist() == [[1]]


def test_a_model_whose_router_lies_is_caught(
    tiny_model: Any, tokens: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = tiny_model.model.layers[1].mlp.gate
    honest = gate.forward

    def lying(hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        logits, weights, ids = honest(hidden)
        return logits, weights, (ids + 1) % 8

    monkeypatch.setattr(gate, "forward", lying)
    with pytest.raises(ForestageError, match=r"layers\.1\.mlp\.gate"), RoutingRecorder(tiny_model), torch.no_grad():
        tiny_model(input_ids=tokens)


def test_a_model_without_known_routers_is_an_error() -> None:
    with pytest.raises(ForestageError, match="Linear: no router of a known class"):
        RoutingRecorder(torch.nn.Linear(2, 2))


def test_another_architecture_plugs_in(monkeypatch: pytest.MonkeyPatch) -> None:
    class SigmoidRouter(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> Any:
            logits = super().forward(x)
            best = logits.sigmoid().topk(2, dim=-1)
            return {"logits": logits, "ids": best.indices, "weights": best.values}

    class SigmoidAdapter(TopKRule):
        def read(self, router: Any, inputs: tuple[Any, ...], output: Any) -> RouterOutput:
            return RouterOutput(**output, inputs=inputs)

    monkeypatch.setattr(registry, "_REGISTERED", {})
    register_router("SigmoidRouter", SigmoidAdapter("sigmoid"))
    torch.manual_seed(0)
    layers = torch.nn.ModuleList([torch.nn.ModuleDict({"gate": SigmoidRouter(4, 8)}) for _ in range(2)])
    with RoutingRecorder(layers) as recording:
        for layer in layers:
            layer["gate"](torch.randn(5, 4))  # type: ignore[index]
        routing = recording.take()
    assert (recording.layer_map, recording.gate_weight_kind, routing.ids.shape) == ((0, 1), "sigmoid", (5, 2, 2))
