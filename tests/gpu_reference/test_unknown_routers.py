"""Routers of unknown classes: read through their experts where a rule explains them, else named; own adapters."""

import re
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from catalog.errors import ForestageError
from gpu_reference.capturing.model import ModelCaptureOptions, capture_model
from gpu_reference.capturing.prompts import CapturePrompt
from gpu_reference.routers import EarlyGates, RoutingRecorder, TopKRule, register_from, register_router, registry
from tests.gpu_reference.current_models import save
from traces import RoutingTrace

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = [CapturePrompt(prompt="The quick brown fox", domain="prose")]
OPTIONS = ModelCaptureOptions(new_tokens=4, dtype="float32", temperature=1.0)


@pytest.fixture(autouse=True)
def _nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTERED", {})


class Experts(nn.Module):
    """Takes (hidden, ids, weights), as a keyword where ``named``."""

    num_experts = 8

    def forward(self, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return hidden * weights.sum(-1, keepdim=True)


class StrangeRouter(nn.Module):
    """Chooses by ``rule``, and returns what ``returns`` says."""

    def __init__(self, rule: str, returns: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 16))
        self.correction_bias = nn.Buffer(torch.randn(8) * 0.3)
        self.routed_scaling_factor = 2.5
        self.rule, self.returns = rule, returns

    def forward(self, hidden: torch.Tensor) -> Any:
        logits = hidden @ self.weight.T
        if self.rule == "softmax":
            best = logits.softmax(-1).topk(2)
            ids, weights = best.indices, best.values
        elif self.rule == "biased sigmoid":
            scores = logits.sigmoid()
            ids = (scores + self.correction_bias).topk(2).indices
            weights = scores.gather(1, ids)
            weights = weights / weights.sum(-1, keepdim=True) * self.routed_scaling_factor
        elif self.rule == "softmax over chosen":
            best = logits.topk(2)
            ids, weights = best.indices, best.values.softmax(-1)
        else:  # the two worst
            worst = logits.topk(2, largest=False)
            ids, weights = worst.indices, worst.values.softmax(-1)
        answers = {"ids first": (ids, weights, logits), "weights first": (weights, logits, ids), "logits": logits}
        self.chosen = ids, weights
        return answers[self.returns]


class Block(nn.Module):
    def __init__(self, rule: str, returns: str) -> None:
        super().__init__()
        self.strange_router = StrangeRouter(rule, returns)
        self.experts = Experts()

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        self.strange_router(hidden)
        ids, weights = self.told = self.strange_router.chosen
        result: torch.Tensor = self.experts(hidden, weights=weights, ids=ids)
        return result


class Model(nn.Module):
    def __init__(self, rule: str, returns: str = "ids first") -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.ModuleList([Block(rule, returns) for _ in range(3)])

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden


HIDDEN = torch.randn(20, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("returns", ["ids first", "weights first", "logits"])
@pytest.mark.parametrize(
    ("rule", "kind"),
    [("softmax", "softmax"), ("biased sigmoid", "normalised"), ("softmax over chosen", "normalised")],
)
def test_an_unknown_router_is_read_where_a_rule_explains_it(rule: str, kind: str, returns: str) -> None:
    model = Model(rule, returns)
    with RoutingRecorder(model, early=EarlyGates((1,))) as recorder, torch.no_grad():
        model(HIDDEN)
        routing = recorder.take()
    for place, layer in enumerate(model.layers):
        ids, weights = layer.told  # type: ignore[misc]
        assert np.array_equal(np.sort(routing.ids[:, place]), np.sort(ids.numpy()))
        scale = 2.5 if rule == "biased sigmoid" else 1.0
        np.testing.assert_allclose(np.sort(routing.weights[:, place]), np.sort(weights.numpy() / scale), atol=1e-6)
    assert recorder.gate_weight_kind == kind
    assert recorder.notes == ["StrangeRouter read from its experts' calls, its choice explained by a known rule"]
    assert (routing.early[1][:, 1:] < 8).all()


def test_a_choice_that_no_rule_explains_is_refused_or_trusted() -> None:
    model = Model("worst")
    with (
        pytest.raises(ForestageError, match=r"layers\.0\.strange_router .*no known rule explains.*--trust-router"),
        RoutingRecorder(model),
    ):
        model(HIDDEN)
    with RoutingRecorder(model, trust=True) as recorder, torch.no_grad():
        model(HIDDEN)
        routing = recorder.take()
    assert np.array_equal(np.sort(routing.ids[:, 0]), np.sort(model.layers[0].told[0].numpy()))  # type: ignore[index]
    assert recorder.gate_weight_kind == "unknown"
    assert recorder.notes == ["StrangeRouter read from its experts' calls, trusted without a rule"]
    with pytest.raises(ForestageError, match="early gate: a trusted router's rule is not known"):
        RoutingRecorder(model, trust=True, early=EarlyGates((1,)))


def test_logits_of_more_than_the_experts_that_are_there_are_refused() -> None:
    """As where some places stand for "no expert": they would be counted as experts whose weights are moved."""
    model = Model("softmax")
    for layer in model.layers:
        layer.experts.weights = nn.Parameter(torch.zeros(6, 4, 4))  # type: ignore[union-attr]
    with (
        pytest.raises(ForestageError, match=r"layers\.0\.strange_router: returned 0 matrices \[tokens, 6\]"),
        RoutingRecorder(model),
    ):
        model(HIDDEN)


def test_a_rule_must_explain_every_token_of_every_pass() -> None:
    model = Model("softmax")
    with RoutingRecorder(model) as recorder, torch.no_grad():
        model(HIDDEN)
        recorder.take()
        model.layers[1].strange_router.rule = "softmax over chosen"  # type: ignore[union-attr]
        with pytest.raises(ForestageError, match="no known rule explains"):
            model(HIDDEN)


def test_experts_that_are_told_other_ids_than_the_router_returned_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model("softmax")
    router = model.layers[2].strange_router  # type: ignore[union-attr]
    honest = router.forward

    def lying(hidden: torch.Tensor) -> Any:
        ids, weights, logits = honest(hidden)  # type: ignore[operator]
        return (ids + 1) % 8, weights, logits

    monkeypatch.setattr(router, "forward", lying)
    with pytest.raises(ForestageError, match="called with other ids than it returned"), RoutingRecorder(model):
        model(HIDDEN)


def test_a_known_router_whose_experts_are_told_something_else_is_caught() -> None:
    class Swapping(Block):
        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            self.strange_router(hidden)
            ids, weights = self.strange_router.chosen
            result: torch.Tensor = self.experts(hidden, ids.flip(-1), weights)
            return result

    class Reading(TopKRule):
        def read(self, router: Any, inputs: tuple[Any, ...], output: Any) -> Any:
            ids, weights, logits = output
            return super().read(router, inputs, (logits, weights, ids))

    register_router("StrangeRouter", Reading())
    model = Model("softmax")
    model.layers[1] = Swapping("softmax", "ids first")
    with (
        pytest.raises(ForestageError, match=r"layers\.1\.strange_router: its experts are called with another choice"),
        RoutingRecorder(model),
    ):
        model(HIDDEN)


def test_what_looks_like_a_router_is_named_with_what_to_do() -> None:
    class Mystery(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.topk_gating = nn.Linear(4, 8)
            self.experts = nn.ModuleList([nn.Linear(4, 4) for _ in range(8)])

    model = nn.ModuleDict({"layers": nn.ModuleList([Mystery() for _ in range(3)])})
    with pytest.raises(ForestageError) as caught:
        RoutingRecorder(model)
    message = str(caught.value)
    assert "Linear at layers.0.topk_gating and 2 more" in message
    assert "--adapter module:Name (docs/capture.md, 'A router of your own')" in message
    with pytest.raises(ForestageError, match="it may be a dense model"):
        RoutingRecorder(nn.Sequential(nn.Linear(4, 4)))


def test_layers_are_not_dropped_where_only_some_routers_are_known() -> None:
    register_router("StrangeRouter", TopKRule())
    model = Model("softmax", "weights first")

    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList([nn.Linear(4, 4) for _ in range(8)])

    model.layers.append(Other())
    with pytest.raises(ForestageError, match=r"first block with experts: layers\.3"):
        RoutingRecorder(model)


def _example() -> str:
    """The complete example of docs/capture.md: a file my_router.py."""
    text = (ROOT / "docs" / "capture.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n# my_router\.py\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found.group(1)


@pytest.fixture
def foreign(tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model folder whose router class is unknown; the guide's my_router.py is in the current folder."""
    save("qwen2_moe", tokenizer, tmp_path / "model")
    monkeypatch.setattr(registry, "TRANSFORMERS", {})
    (tmp_path / "my_router.py").write_text(_example())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_router", raising=False)
    return tmp_path / "model"


def test_the_example_of_the_guide_works_as_an_option(foreign: Path) -> None:
    options = OPTIONS.model_copy(update={"adapters": ("my_router:MyRouter",)})
    capture_model(foreign, PROMPTS, Path("t.safetensors"), options=options)
    metadata = RoutingTrace.load("t.safetensors").metadata
    assert (metadata.gate_weight_kind, metadata.experts) == ("softmax", 8)
    assert metadata.source.endswith("; Qwen2MoeTopKRouter read by an adapter of its own (my_router.MyRouter)")


def test_the_example_of_the_guide_works_as_an_entry_point(foreign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sys.path.insert(0, str(Path.cwd()))
    points = [EntryPoint("Qwen2MoeTopKRouter", "my_router:MyRouter", "forestage.routers")]
    monkeypatch.setattr(registry, "entry_points", lambda group: [point for point in points if point.group == group])
    capture_model(foreign, PROMPTS, Path("t.safetensors"), options=OPTIONS)
    assert "read from its experts' calls" not in RoutingTrace.load("t.safetensors").metadata.source
    points[:] = [EntryPoint("Other", "my_router:Nothing", "forestage.routers")]
    with pytest.raises(ForestageError, match=r"entry point Other = my_router:Nothing .*mend or remove that package"):
        capture_model(foreign, PROMPTS, Path("u.safetensors"), options=OPTIONS)


def test_without_it_the_model_is_read_by_inference_and_says_so(foreign: Path) -> None:
    capture_model(foreign, PROMPTS, Path("t.safetensors"), options=OPTIONS)
    trace = RoutingTrace.load("t.safetensors")
    assert trace.metadata.gate_weight_kind == "softmax"
    assert (
        "Qwen2MoeTopKRouter read from its experts' calls, its choice explained by a known rule" in trace.metadata.source
    )


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("my_router", "write module:Name"),
        ("no_such_module:X", "cannot be imported .*ModuleNotFoundError"),
        ("my_router:Nothing", "cannot be imported .*AttributeError"),
        ("pathlib:Path", "lacks gate_weight_kind, read, select"),
        ("gpu_reference.routers:TopKRule", r"lacks routers = "),
    ],
)
def test_an_adapter_that_will_not_do_is_one_line(place: str, message: str, foreign: Path) -> None:
    before = sorted(Path.cwd().iterdir())
    with pytest.raises(ForestageError, match=message) as caught:
        register_from(place)
    assert "\n" not in str(caught.value)
    assert [path for path in sorted(Path.cwd().iterdir()) if path.name != "__pycache__"] == before
