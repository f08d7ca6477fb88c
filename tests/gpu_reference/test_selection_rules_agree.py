"""What the importer of router logits and the capture say of a family's routers is the same: each is asked of the other.

Both are written from transformers' modelling code, in ``traces/importers/assembly/selection_table.py`` and
``gpu_reference/routers/architectures.py``; neither package may import the other's.
"""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers.models.auto.configuration_auto import model_type_to_module_name

from gpu_reference.routers import RouterOutput, check_routing
from gpu_reference.routers.architectures import TRANSFORMERS
from traces.importers import ImportOptions
from traces.importers.assembly.selection import known_rule
from traces.importers.assembly.selection_rule import round_to, select_experts
from traces.importers.assembly.selection_table import FAMILIES, Family, known_model

ROWS, EXPERTS = 300, 16
TOP_K = {"llama4": 1, "llama4_text": 1}
"""Of other families 4, but for the sparse mixer, which chooses two."""


def routers_of(family: Family) -> list[str]:
    """Class names of the family's routers that the capture knows, found in the text of its module."""
    name = model_type_to_module_name(family.model_type)
    if family.model_type.endswith("_text"):
        name = model_type_to_module_name(family.model_type.removesuffix("_text"))
    folder = Path(transformers.__file__).parent / "models" / name
    text = "".join(file.read_text(encoding="utf-8") for file in folder.glob("modeling_*.py"))
    return sorted(set(re.findall(r"^class (\w+)\(", text, re.MULTILINE)) & set(TRANSFORMERS))


BOTH = {family.model_type: routers_of(family) for family in FAMILIES if family.refusal is None}


CASES = [
    (family.model_type, groups)
    for family in FAMILIES
    for groups in ([(1, 1)] if family.group_score is None else [(1, 1), (4, 2)])
    if BOTH.get(family.model_type)
]


def test_both_know_every_family_whose_choice_follows_from_logits() -> None:
    """But for Aria's, whose router is a linear layer and no class of its own."""
    assert [name for name, routers in BOTH.items() if len(routers) != 1] == ["aria_text"]


def logits_of(kind: str) -> np.ndarray:
    """``[rows, experts]``: of few values, so that many tie, or all different."""
    logits = np.random.default_rng(11).normal(0, 1.5, (ROWS, EXPERTS)).astype(np.float32)
    if kind == "tied":
        return np.asarray(np.round(logits * 2) / 2, dtype=np.float32)
    return round_to(logits, "bfloat16") if kind == "bfloat16" else logits


@pytest.mark.parametrize("kind", ["different", "tied", "bfloat16"])
@pytest.mark.parametrize(("name", "groups"), CASES, ids=str)
def test_a_family_chooses_the_same_in_both(name: str, groups: tuple[int, int], kind: str) -> None:
    known = known_model(name)
    assert known is not None
    family = known.family
    top_k = TOP_K.get(name, 2 if family.weight == "sparse_mixer" else 4)
    adapter = TRANSFORMERS[BOTH[name][0]]
    for normalised in (True, False) if family.normalised is None else (family.normalised,):
        for biased in (True, False) if family.bias is None else (family.bias,):
            bias = np.random.default_rng(3).normal(0, 0.2, EXPERTS).astype(np.float32) if biased else None
            if bias is not None and kind != "different":
                bias = np.round(bias * 8).astype(np.float32) / 8
            rule = known_rule(
                ImportOptions(
                    groups=groups[0] if family.group_score else None,
                    top_groups=groups[1] if family.group_score else None,
                    gate_weights=("normalised" if normalised else family.weight) if family.normalised is None else None,  # type: ignore[arg-type]
                    selection_bias=Path("a file" if biased else "none") if family.bias is not False else None,
                ),
                known,
                name,
                "test",
            )
            logits = logits_of(kind)
            kept_as = "bfloat16" if kind == "bfloat16" else "float32"
            mine = select_experts(rule, logits, top_k, bias, kept_as=kept_as)
            router = router_like(groups, top_k, bias, normalised=normalised)
            tensor = torch.from_numpy(logits).to(getattr(torch, kept_as))
            inputs = (torch.zeros(ROWS, 8), None if bias is None else torch.from_numpy(bias))

            ids, weights = mine.ids.astype(np.int64), mine.weights
            if rule.weight == "sparse_mixer":  # whose weights depend on the order of the choice
                order = np.lexsort((ids, -np.take_along_axis(logits, ids, axis=1)), axis=1)
                ids, weights = np.take_along_axis(ids, order, axis=1), np.take_along_axis(weights, order, axis=1)
            chosen = np.zeros(logits.shape, np.bool_)
            np.put_along_axis(chosen, ids, True, axis=1)
            call = RouterOutput(tensor, torch.from_numpy(ids), torch.zeros(ROWS, top_k), inputs)
            scores = adapter.select(router, call, chosen)
            theirs = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
            # Scores in half precision are rounded by the one and given a margin by the other.
            sure = ~mine.open if kept_as == "float32" or not rule.coarse else np.zeros(ROWS, np.bool_)
            assert kind != "different" or sure.sum() > ROWS // 2
            np.testing.assert_array_equal(np.sort(ids[sure], axis=1), np.sort(theirs[sure], axis=1))

            # Where several choices are as good, the capture must take the importer's for right; and its weights.
            weights = adapter.weigh(router, call, ids) if weights is None else weights
            call = RouterOutput(tensor, call.ids, torch.from_numpy(np.asarray(weights)).to(tensor.dtype), inputs)
            routing = check_routing(adapter, router, call, name)
            assert (np.sort(routing.ids, axis=1) == np.sort(ids, axis=1)).all()
            if rule.weight is not None:
                assert adapter.gate_weight_kind(router) == rule.gate_weight_kind


def router_like(groups: tuple[int, int], top_k: int, bias: np.ndarray | None, *, normalised: bool) -> Any:
    """What the capture's rules read of a router, whatever its family."""
    tensor = torch.zeros(EXPERTS) if bias is None else torch.from_numpy(bias)
    return SimpleNamespace(
        top_k=top_k,
        num_group=groups[0],
        topk_group=groups[1],
        topk_method="greedy" if groups == (1, 1) else "group_limited_greedy",
        norm_topk_prob=normalised,
        norm_min=1e-12,
        use_expert_bias=bias is not None,
        e_score_correction_bias=tensor,
        moe_statics=SimpleNamespace(e_score_correction_bias=tensor),
        per_expert_scale=torch.ones(EXPERTS),
        routed_scaling_factor=1.0,
        route_scale=1.0,
        router_scaling_factor=1.0,
        router_jitter_noise=0.01,
    )
