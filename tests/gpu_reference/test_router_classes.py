"""Every router class with a built-in rule, as transformers has it, on random hidden states."""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers

from gpu_reference.routers import check_routing
from gpu_reference.routers.architectures import TRANSFORMERS, DeepseekV4HashRule
from gpu_reference.routers.early_gate import EarlyGates

TOKENS, HIDDEN, EXPERTS = 300, 32, 16
MODELS = Path(transformers.__file__).parent / "models"

SETTINGS = {
    "hidden_size": HIDDEN, "num_experts": EXPERTS, "num_local_experts": EXPERTS, "n_routed_experts": EXPERTS,
    "num_experts_per_tok": 3, "top_k_experts": 3, "moe_topk": 3, "n_group": 4, "topk_group": 2,
    "routed_scaling_factor": 2.5, "router_scaling_factor": 1.5, "route_scale": 1.5, "scoring_func": "sqrtsoftplus",
    "topk_method": "group_limited_greedy", "moe_norm_min": 1e-12, "use_expert_bias": True, "vocab_size": 50,
    "router_jitter_noise": 0.05, "input_jitter_noise": 0.0, "rms_norm_eps": 1e-6, "moe_intermediate_size": 8,
}  # fmt: skip


@pytest.fixture(scope="module")
def classes() -> dict[str, Any]:
    """Router class by name, from whichever model of this version of transformers has it."""
    found = {}
    for file in sorted(MODELS.glob("*/modeling_*.py")):
        for name in re.findall(r"^class (\w+)\(", file.read_text(encoding="utf-8"), re.MULTILINE):
            if name in TRANSFORMERS:
                module = importlib.import_module(f"transformers.models.{file.parent.name}.{file.stem}")
                found[name] = getattr(module, name)
    return found


def arguments(name: str, hidden: torch.Tensor) -> Iterator[torch.Tensor]:
    """What the blocks of this class call their router with."""
    adapter = TRANSFORMERS[name]
    yield hidden[None] if name == "AfmoeTokenChoiceRouter" else hidden
    if isinstance(adapter, DeepseekV4HashRule):
        yield torch.arange(len(hidden)) % 50
    elif getattr(adapter, "bias", None) == 1:
        yield torch.randn(EXPERTS) * 0.3


@pytest.mark.parametrize("divided", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_the_rule_of_every_class_gives_what_it_chooses(
    name: str, dtype: torch.dtype, divided: bool, classes: dict[str, Any]
) -> None:
    if name not in classes:
        pytest.skip(f"transformers {transformers.__version__} has no {name}")
    torch.manual_seed(1)
    router = classes[name](SimpleNamespace(**SETTINGS, norm_topk_prob=divided)).to(dtype)
    with torch.no_grad():
        for key, value in [*router.named_parameters(), *router.named_buffers()]:
            if value.is_floating_point():
                value.normal_(std=0.3) if "per_expert" not in key else value.uniform_(0.5, 2.0)
            else:
                value.copy_(torch.stack([torch.randperm(EXPERTS)[:3] for _ in range(50)]))
        inputs = tuple(arguments(name, torch.randn(TOKENS, HIDDEN).to(dtype)))
        call = TRANSFORMERS[name].read(router.eval(), inputs, router(*inputs))
        routing = check_routing(TRANSFORMERS[name], router, call, name)
        early = EarlyGates((1,), width=EXPERTS)
        early.layer(router, TRANSFORMERS[name], call, 3)
        early.layer(router, TRANSFORMERS[name], call, 3)
    assert routing.ids.shape == (TOKENS, 2 if name == "PhimoeTopKRouter" else 3)
    assert len({tuple(row) for row in routing.ids.tolist()}) > 20
    # Given the same hidden state again, the early gate ranks first what was chosen (but for ties in half precision).
    ranked = early.take()[1][:, 1, : routing.ids.shape[1]]
    same = (routing.ids[:, :, None] == ranked[:, None, :]).any(-1).mean()
    assert same == 1 if dtype == torch.float32 else same > 0.97
