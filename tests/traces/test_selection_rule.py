"""What a router's rule chooses, beside a choice made by comparing scores one by one, and beside transformers' "
"routers."""

import importlib
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from traces.importers.assembly.selection_rule import (
    Floats,
    SelectionRule,
    round_to,
    score_experts,
    select_experts,
    weigh_experts,
)
from traces.importers.assembly.selection_table import FAMILIES, PUBLISHED, Family, known_model

EXPERTS, TOP_K, HIDDEN, ROWS = 16, 4, 12, 40


def scores_of(rule: SelectionRule, row: list[float]) -> list[float]:
    if rule.score == "logits":
        return row
    if rule.score == "sigmoid":
        return [1 / (1 + math.exp(-x)) for x in row]
    total = sum(math.exp(x - max(row)) for x in row)
    return [math.exp(x - max(row)) / total for x in row]


def brute_force(rule: SelectionRule, row: list[float], top_k: int, bias: list[float] | None) -> set[int]:
    """The chosen experts: each is taken if fewer than k others beat it; likewise each group."""
    scores = [score + (bias[n] if bias else 0) for n, score in enumerate(scores_of(rule, row))]
    size = len(row) // rule.groups
    values = []
    for group in range(rule.groups):
        members = sorted(scores[group * size : group * size + size])
        values.append(members[-1] if rule.group_score == "best" else sum(members[-2:]))
    kept = {group for group in range(rule.groups) if sum(v > values[group] for v in values) < rule.top_groups}
    allowed = [n for n in range(len(row)) if n // size in kept]
    return {n for n in allowed if sum(scores[other] > scores[n] for other in allowed) < top_k}


@st.composite
def rules(draw: st.DrawFn) -> tuple[SelectionRule, int, int]:
    """A rule, how many experts, and how many are chosen."""
    groups = draw(st.sampled_from([1, 2, 4]))
    top_groups = draw(st.integers(1, groups))
    size = draw(st.integers(2, 6))
    rule = SelectionRule(
        score=draw(st.sampled_from(["logits", "softmax", "sigmoid"])),
        bias=draw(st.booleans()),
        groups=groups,
        top_groups=top_groups,
        group_score=draw(st.sampled_from(["best", "best_two"])),
    )
    return rule, groups * size, draw(st.integers(1, top_groups * size))


@settings(max_examples=150, deadline=None)
@given(rules(), st.integers(0, 2**32 - 1), st.sampled_from([0.3, 2.0, 8.0]))
def test_every_rule_chooses_as_comparing_one_by_one_does(
    drawn: tuple[SelectionRule, int, int], seed: int, spread: float
) -> None:
    rule, experts, top_k = drawn
    assert rule.fault(experts, top_k) is None
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, spread, (6, experts)).astype(np.float32)
    bias = generator.normal(0, 0.5, experts).astype(np.float32) if rule.bias else None
    found = select_experts(rule, logits, top_k, bias)
    for row in range(6):
        expected = brute_force(rule, logits[row].tolist(), top_k, None if bias is None else bias.tolist())
        assert found.open[row] or set(found.ids[row].tolist()) == expected
        assert len(set(found.ids[row].tolist())) == top_k


def test_what_is_as_good_is_open() -> None:
    rule = SelectionRule(score="softmax")
    logits = np.array([[5, 4, 4, 0], [5, 5, 4, 0], [0, 0, -200, -300]], np.float32)
    assert select_experts(rule, logits, 2).open.tolist() == [True, False, False]
    # e^-200 and e^-300 are both 0 in float32: the model cannot tell the third from the fourth.
    assert select_experts(rule, logits, 3).open.tolist() == [False, False, True]
    assert select_experts(SelectionRule(score="logits"), logits, 3).open.tolist() == [False, False, False]
    sigmoid = SelectionRule(score="sigmoid")
    assert select_experts(sigmoid, np.array([[40, 30, 0]], np.float32), 1).open.tolist() == [True]
    groups = SelectionRule(score="sigmoid", groups=2, top_groups=1)
    equal = np.array([[1, 2, 2, 1], [1, 2, 2, 0]], np.float32)
    assert select_experts(groups, equal, 1).open.tolist() == [True, False]


def test_a_barred_choice_below_zero_is_told() -> None:
    rule = SelectionRule(score="sigmoid", bias=True, groups=2, top_groups=1)
    logits = np.zeros((1, 4), np.float32)
    bias = np.array([-1, -2, -3, -4], np.float32)
    assert select_experts(rule, logits, 2, bias).below_zero.tolist() == [True]
    assert select_experts(rule, logits, 2, np.abs(bias)).below_zero.tolist() == [False]


@pytest.mark.parametrize(
    ("rule", "experts", "top_k", "fault"),
    [
        ({}, 4, 5, "top-5 of 4 experts"),
        ({"groups": 3}, 8, 2, "do not stand in 3 groups"),
        ({"groups": 4, "top_groups": 1}, 8, 3, "top-3 of 1 groups of 2"),
        ({"groups": 8, "top_groups": 2}, 8, 2, "have one each"),
        ({"weight": "sparse_mixer"}, 8, 3, "the sparse mixer chooses two"),
    ],
)
def test_a_rule_that_cannot_hold_says_why(rule: dict[str, Any], experts: int, top_k: int, fault: str) -> None:
    assert fault in str(SelectionRule(score="logits", **rule).fault(experts, top_k))


@pytest.mark.parametrize(
    "values",
    [{"groups": 2, "top_groups": 3}, {"normalised": True}, {"weight": "sparse_mixer", "normalised": True}],
)
def test_a_rule_that_contradicts_itself_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SelectionRule(score="softmax", **values)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_rounding_to_bfloat16_is_torchs(values: list[float]) -> None:
    torch = pytest.importorskip("torch", reason="has bfloat16")
    array = np.array([values], np.float32)
    np.testing.assert_array_equal(round_to(array, "bfloat16"), torch.from_numpy(array).bfloat16().float().numpy())


# transformers' routers

ROUTERS: dict[str, tuple[str, str]] = {
    # family → module, class
    "mixtral": ("mixtral", "MixtralTopKRouter"),
    "minimax": ("minimax", "MiniMaxTopKRouter"),
    "qwen3_5_moe": ("qwen3_5_moe", "Qwen3_5MoeTopKRouter"),
    "qwen3_vl_moe": ("qwen3_vl_moe", "Qwen3VLMoeTextTopKRouter"),
    "hunyuan_v1_moe": ("hunyuan_v1_moe", "HunYuanMoEV1Gate"),
    "qwen2_moe": ("qwen2_moe", "Qwen2MoeTopKRouter"),
    "qwen3_moe": ("qwen3_moe", "Qwen3MoeTopKRouter"),
    "qwen3_next": ("qwen3_next", "Qwen3NextTopKRouter"),
    "olmoe": ("olmoe", "OlmoeTopKRouter"),
    "flex_olmo": ("flex_olmo", "FlexOlmoTopKRouter"),
    "jamba": ("jamba", "JambaTopKRouter"),
    "gpt_oss": ("gpt_oss", "GptOssTopKRouter"),
    "granitemoe": ("granitemoe", "GraniteMoeTopKRouter"),
    "granitemoehybrid": ("granitemoehybrid", "GraniteMoeHybridTopKRouter"),
    "granitemoeshared": ("granitemoeshared", "GraniteMoeSharedTopKRouter"),
    "aria_text": ("aria", "AriaTextTopKRouter"),
    "llama4": ("llama4", "Llama4Router"),
    "phimoe": ("phimoe", "PhimoeTopKRouter"),
    "deepseek_v2": ("deepseek_v2", "DeepseekV2TopkRouter"),
    "mistral4": ("mistral4", "Mistral4TopkRouter"),
    "deepseek_v3": ("deepseek_v3", "DeepseekV3TopkRouter"),
    "deepseek_v32": ("deepseek_v32", "DeepseekV32TopkRouter"),
    "kimi_linear": ("kimi_linear", "KimiLinearTopkRouter"),
    "glm4_moe": ("glm4_moe", "Glm4MoeTopkRouter"),
    "glm4_moe_lite": ("glm4_moe_lite", "Glm4MoeLiteTopkRouter"),
    "glm4v_moe": ("glm4v_moe", "Glm4vMoeTextTopkRouter"),
    "glm_moe_dsa": ("glm_moe_dsa", "GlmMoeDsaTopkRouter"),
    "dots1": ("dots1", "Dots1TopkRouter"),
    "exaone_moe": ("exaone_moe", "ExaoneMoeTopkRouter"),
    "solar_open": ("solar_open", "SolarOpenTopkRouter"),
    "mimo_v2_flash": ("mimo_v2_flash", "MiMoV2FlashTopkRouter"),
    "bailing_hybrid": ("bailing_hybrid", "BailingHybridTopkRouter"),
    "nemotron_h": ("nemotron_h", "NemotronHTopkRouter"),
    "minimax_m2": ("minimax_m2", "MiniMaxM2TopKRouter"),
    "lfm2_moe": ("lfm2_moe", "Lfm2MoeTopKRouter"),
    "afmoe": ("afmoe", "AfmoeTokenChoiceRouter"),
    "ernie4_5_moe": ("ernie4_5_moe", "Ernie4_5_MoeTopKRouter"),
    "gemma4": ("gemma4", "Gemma4TextRouter"),
}
SAME = {"qwen3_5_moe_text": "qwen3_5_moe", "qwen3_vl_moe_text": "qwen3_vl_moe", "llama4_text": "llama4"} | {
    "gemma4_text": "gemma4"
}
"""Families under two names."""


def test_every_family_whose_choice_follows_is_compared_with_its_router() -> None:
    assert {family.model_type for family in FAMILIES if family.refusal is None} == set(ROUTERS) | set(SAME)


def router_of(family: str, *, normalised: bool, groups: int, top_groups: int, top_k: int) -> tuple[Any, Any]:
    """A router of transformers with random weights, and its bias for the choice, or ``None``."""
    torch = pytest.importorskip("torch", reason="runs transformers' routers")
    pytest.importorskip("transformers", reason="runs transformers' routers")
    module, name = ROUTERS[family]
    try:
        modelling = importlib.import_module(f"transformers.models.{module}.modeling_{module}")
    except ImportError:
        pytest.skip(f"this version of transformers has no {module}")
    config = SimpleNamespace(
        hidden_size=HIDDEN, num_experts=EXPERTS, num_local_experts=EXPERTS, n_routed_experts=EXPERTS, moe_topk=top_k,
        moe_num_experts=EXPERTS, num_experts_per_tok=top_k, top_k_experts=top_k, norm_topk_prob=normalised,
        n_group=groups, topk_group=top_groups, routed_scaling_factor=1.0, route_scale=1.0, router_jitter_noise=0.01,
        input_jitter_noise=0.0, use_expert_bias=True, moe_norm_min=1e-12, rms_norm_eps=1e-6,
        topk_method="group_limited_greedy" if groups > 1 else "greedy",
    )  # fmt: skip
    torch.manual_seed(0)
    router = getattr(modelling, name)(config).eval()
    for key, value in [*router.named_parameters(), *router.named_buffers()]:
        value.data.normal_(std=0.2 if "correction" in key else 1.0)
    bias = getattr(router, "e_score_correction_bias", None)
    if hasattr(router, "moe_statics"):
        bias = router.moe_statics.e_score_correction_bias
    if family in ("minimax_m2", "lfm2_moe", "afmoe"):
        bias = torch.randn(EXPERTS) * 0.3
    return router, bias


def configurations(family: Family) -> list[tuple[bool, int, int]]:
    """What the family's configuration leaves open: normalised, groups and chosen groups."""
    normalised = [True, False] if family.normalised is None else [family.normalised]
    groups = [(1, 1)] if family.group_score is None else [(1, 1), (4, 2)]
    return [(one, *two) for one in normalised for two in groups]


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", ROUTERS)
def test_the_table_chooses_as_transformers_does(name: str, half: bool) -> None:
    torch = pytest.importorskip("torch", reason="runs transformers' routers")
    family = next(family for family in FAMILIES if family.model_type == name)
    top_k = {"phimoe": 2, "llama4": 1}.get(name, TOP_K)
    for normalised, groups, top_groups in configurations(family):
        if half and groups > 1 and family.coarse:
            continue  # groups of scores rounded to bfloat16 tie by the dozen
        router, bias = router_of(name, normalised=normalised, groups=groups, top_groups=top_groups, top_k=top_k)
        hidden = torch.randn(ROWS, HIDDEN) * 0.3
        if half:
            router, hidden = router.bfloat16(), hidden.bfloat16()
        with torch.no_grad():
            given_bias = name in ("minimax_m2", "lfm2_moe", "afmoe")
            hidden = hidden[None] if name == "afmoe" else hidden
            output = router(hidden, bias) if given_bias else router(hidden)
        logits, ids, weights = read_output(name, output, top_k)
        rule = SelectionRule(
            score=family.score, bias=bias is not None, groups=groups, top_groups=top_groups, weight=family.weight,
            group_score=family.group_score or "best_two", normalised=normalised, coarse=family.coarse,
            coarse_bias=family.coarse_bias,
        )  # fmt: skip
        assert rule.bias == (family.bias is not False)
        found = select_experts(
            rule,
            logits.float().numpy(),
            top_k,
            None if bias is None else bias.detach().float().numpy().reshape(-1),
            values_are=family.returns,
            kept_as="bfloat16" if logits.dtype is torch.bfloat16 else "float32",
        )
        same = (np.sort(found.ids, axis=1) == np.sort(ids, axis=1)).all(axis=1)
        assert (same | found.open).all()
        assert same.mean() > 0.9
        if family.weight is not None:
            expected = -np.sort(-weights[same], axis=1)
            assert found.weights is not None
            np.testing.assert_allclose(found.weights[same], expected, atol=0.02 if half else 1e-5)


def read_output(name: str, output: Any, top_k: int) -> tuple[Any, Any, Any]:
    """What a router returns: logits as ``output_router_logits`` gives them, ids, and weights."""
    if name == "llama4":  # the scores of all experts, 0 of those that are not chosen
        scores, logits = output
        best = scores.float().topk(top_k, dim=-1)
        return logits, best.indices.numpy(), best.values.numpy()
    logits, weights, ids = output
    return logits, ids.numpy(), weights.float().numpy()


def test_scores_of_a_bfloat16_router_are_rounded_before_the_bias() -> None:
    """LFM2 takes the sigmoid in the model's type: what float32 tells apart is equal there, and the bias decides."""
    logits = np.array([[2.015625, 2.03125, -9, -9]], np.float32)  # neighbours in bfloat16, of equal sigmoids
    bias = np.array([0.001, 0, 0, 0], np.float32)
    rule = SelectionRule(score="sigmoid", bias=True)
    fine = select_experts(rule, logits, 1, bias, kept_as="bfloat16")
    coarse = select_experts(rule.model_copy(update={"coarse": True}), logits, 1, bias, kept_as="bfloat16")
    assert (fine.ids.tolist(), coarse.ids.tolist()) == ([[1]], [[0]])


def test_weights_of_a_choice_that_is_known() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    ids = np.array([[1, 2]] * 5)
    chances: Floats = score_experts("softmax", logits)
    raw = SelectionRule(score="softmax", weight="softmax")
    np.testing.assert_array_equal(weigh_experts(raw, logits, "logits", ids), chances[:, 1:3])
    np.testing.assert_array_equal(weigh_experts(raw, chances, "softmax", ids), chances[:, 1:3])
    divided = weigh_experts(raw.model_copy(update={"normalised": True}), logits, "logits", ids)
    np.testing.assert_allclose(divided, chances[:, 1:3] / chances[:, 1:3].sum(axis=1, keepdims=True), rtol=1e-6)
    with pytest.raises(ValueError, match="weights of sigmoid do not follow from the softmax"):
        weigh_experts(SelectionRule(score="softmax", weight="sigmoid"), chances, "softmax", ids)


# The table

KNOWN = {
    "mistralai/Mixtral-8x22B-Instruct-v0.1": ("mixtral", 1, True),
    "Qwen/Qwen3-30B-A3B-Instruct-2507": ("qwen3_moe", 1, True),
    "Qwen/Qwen3-Coder-480B-A35B-Instruct-FP8": ("qwen3_moe", 1, True),
    "Qwen3-30B-A3B-Q4_K_M": ("qwen3_moe", 1, True),
    "Qwen/Qwen3-Next-80B-A3B-Thinking": ("qwen3_next", 1, True),
    "Qwen/Qwen3-Coder-Next": ("qwen3_next", 1, True),
    "Qwen/Qwen3.6-35B-A3B": ("qwen3_5_moe", 1, True),
    "Qwen/Qwen1.5-MoE-A2.7B-Chat": ("qwen2_moe", 1, False),
    "allenai/OLMoE-1B-7B-0924": ("olmoe", 1, False),
    "deepseek-ai/DeepSeek-V2-Lite-Chat": ("deepseek_v2", 1, False),
    "deepseek-ai/DeepSeek-V2.5-1210": ("deepseek_v2", 8, False),
    "deepseek-ai/DeepSeek-V3-0324": ("deepseek_v3", 8, True),
    "deepseek-ai/DeepSeek-V3.1-Terminus": ("deepseek_v3", 8, True),
    "deepseek-ai/DeepSeek-V3.2-Exp": ("deepseek_v32", 8, True),
    "deepseek-ai/DeepSeek-R1-0528": ("deepseek_v3", 8, True),
    "moonshotai/Kimi-K2-Instruct-0905": ("deepseek_v3", 1, True),
    "zai-org/GLM-4.5-Air-FP8": ("glm4_moe", 1, True),
    "zai-org/GLM-4.7-Flash": ("glm4_moe_lite", 1, True),
    "rednote-hilab/dots.llm1.inst": ("dots1", 1, True),
    "MiniMaxAI/MiniMax-M2.1": ("minimax_m2", 1, True),
    "LiquidAI/LFM2-8B-A1B": ("lfm2_moe", 1, True),
    "baidu/ERNIE-4.5-21B-A3B-PT": ("ernie4_5_moe", 1, True),
    "openai/gpt-oss-120b": ("gpt_oss", 1, True),
    "microsoft/Phi-3.5-MoE-instruct": ("phimoe", 1, False),
    "meta-llama/Llama-4-Scout-17B-16E-Instruct": ("llama4", 1, False),
    "ibm-granite/granite-3.1-1b-a400m-instruct": ("granitemoe", 1, True),
}


@pytest.mark.parametrize("name", KNOWN)
def test_published_models_are_known_by_name(name: str) -> None:
    family, groups, normalised = KNOWN[name]
    known = known_model(name)
    assert known is not None
    assert (known.family.model_type, known.groups, known.normalised) == (family, groups, normalised)


@pytest.mark.parametrize(
    "name",
    [
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B", "deepseek-ai/DeepSeek-R1-0528-Qwen3-8B", "our/own-2",
        "zai-org/GLM-4-9B", "zai-org/GLM-4.5V", "Qwen/Qwen3-8B", "Qwen/Qwen3.9-90B-A9B", "our/own", "mixtral-like-8x7b",
        "ai21labs/AI21-Jamba-Reasoning-3B", "ibm-granite/granite-4.0-h-1b", "inclusionAI/Ling-flash-2.0", "qwen3",
    ],
)  # fmt: skip
def test_nothing_is_concluded_from_a_name_that_is_alike(name: str) -> None:
    assert known_model(name) is None


def test_the_table_is_consistent() -> None:
    families = {family.model_type: family for family in FAMILIES}
    assert len(families) == len(FAMILIES)
    for family in FAMILIES:
        assert (family.bias is False) == (family.bias_at is None), family
    for model in PUBLISHED:
        family = families[model.family]
        assert (model.normalised is None) == (family.normalised is not None), model
        assert (model.bias is None) == (family.bias is not None), model
        assert model.groups == 1 or family.group_score is not None, model
    published, family = known_model("DeepSeek-V2"), known_model("deepseek_v2")
    assert published is not None
    assert family is not None
    assert (published.groups, family.groups) == (8, None)
    named = known_model("glm4_moe")
    assert named is not None
    assert (named.groups, named.normalised, named.bias, named.is_published) == (None, None, True, False)
