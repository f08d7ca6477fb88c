"""The models whose selection rule is known from the modelling code of transformers 5.23.

A *family* is a module of transformers, named by its ``model_type``; settings that its code takes from ``config.json``
are ``None`` here. A *published model* adds the settings of its ``config.json``. A model in neither list is not known,
and nothing is inferred from a similar name: variants of one name choose differently (Qwen3-30B-A3B divides its weights
by their sum, Qwen1.5-MoE does not; GLM-4.5 has a bias, GLM-4-9B no experts).

Each family's ``_can_record_outputs`` (``OutputRecorder(router, index)``) and its router's ``forward`` show what
``output_router_logits=True`` returns: the unprocessed logits, except for Gemma 4, whose router returns probabilities.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import Literal

from pydantic import Field

from catalog.config import StrictModel
from traces.importers.assembly.selection_rule import Score


class Family(StrictModel):
    """The routers of a module of transformers.

    Attributes:
        model_type: its name in transformers and for ``--model``.
        score, group_score, weight, coarse, coarse_bias: as in ``SelectionRule``; no ``group_score``: no groups.
        bias: whether a bias is added for the choice; ``None``: the configuration decides.
        bias_at: name of the bias among the model's parameters and buffers.
        normalised: whether weights are divided by their sum; ``None``: the configuration decides.
        returns: what is recorded as router logits.
        router_bias: whether the router's linear layer has a bias; the logits include it, llama.cpp's ``ffn_moe_logits``
            do not.
        refusal: why the choice does not follow from the recorded numbers, if it does not.
    """

    model_type: str
    score: Score = "softmax"
    bias: bool | None = False
    bias_at: str | None = None
    group_score: Literal["best", "best_two"] | None = None
    weight: Literal["softmax", "sigmoid", "sparse_mixer"] | None = "softmax"
    normalised: bool | None = False
    coarse: bool = False
    coarse_bias: bool = False
    returns: Literal["logits", "softmax"] = "logits"
    router_bias: bool = False
    refusal: str | None = None


class PublishedModel(StrictModel):
    """A model, or several that differ only in size or tuning.

    Attributes:
        names: regular expression for the whole name, in lower case, without its owner, with ``-`` for ``_``.
        family: its family.
        groups, top_groups, normalised, bias: settings of its ``config.json`` that the family leaves open.
        evidence: ``P`` published configuration; ``B`` background knowledge, not looked up.
    """

    names: str
    family: str
    groups: int = Field(default=1, ge=1)
    top_groups: int = Field(default=1, ge=1)
    normalised: bool | None = None
    bias: bool | None = None
    evidence: Literal["P", "B"] = "P"


def _noaux(model_type: str, at: str = "model.layers.N.mlp.gate.e_score_correction_bias") -> Family:
    """A router copied from DeepSeek-V3's: ``n_group``, ``topk_group`` and ``norm_topk_prob`` are configured."""
    return Family(
        model_type=model_type,
        score="sigmoid",
        bias=True,
        bias_at=at,
        group_score="best_two",
        weight="sigmoid",
        normalised=None,
    )


FAMILIES: tuple[Family, ...] = (
    # Softmax over all experts; weights divided by their sum.
    Family(model_type="mixtral", normalised=True),
    Family(model_type="minimax", normalised=True),
    Family(model_type="qwen3_5_moe", normalised=True),
    Family(model_type="qwen3_5_moe_text", normalised=True),
    Family(model_type="qwen3_vl_moe", normalised=True),
    Family(model_type="qwen3_vl_moe_text", normalised=True),
    Family(model_type="hunyuan_v1_moe", normalised=True),
    # Softmax over all experts; weights divided by their sum if norm_topk_prob is set.
    Family(model_type="qwen2_moe", normalised=None),
    Family(model_type="qwen3_moe", normalised=None),
    Family(model_type="qwen3_next", normalised=None),
    Family(model_type="olmoe", normalised=None),
    Family(model_type="flex_olmo", normalised=None),
    # Softmax over all experts; weights unchanged.
    Family(model_type="jamba"),
    # The largest logits; weights the softmax of the chosen, which is the softmax of all over its sum.
    Family(model_type="gpt_oss", score="logits", normalised=True, router_bias=True),
    Family(model_type="granitemoe", score="logits", normalised=True),
    Family(model_type="granitemoehybrid", score="logits", normalised=True),
    Family(model_type="granitemoeshared", score="logits", normalised=True),
    Family(model_type="aria_text", score="logits", normalised=True),
    # The largest logit; its weight the sigmoid.
    Family(model_type="llama4", score="logits", weight="sigmoid"),
    Family(model_type="llama4_text", score="logits", weight="sigmoid"),
    # In evaluation the two largest logits, one after the other.
    Family(model_type="phimoe", score="logits", weight="sparse_mixer"),
    # topk_method: greedy (no groups), or group_limited_greedy.
    Family(model_type="deepseek_v2", group_score="best"),
    # The softmax in the model's own type.
    Family(model_type="mistral4", group_score="best_two", normalised=None, coarse=True),
    # Sigmoid and bias, groups.
    _noaux("deepseek_v3"),
    _noaux("deepseek_v32"),
    _noaux("kimi_linear"),
    _noaux("glm4_moe"),
    _noaux("glm4_moe_lite"),
    _noaux("glm4v_moe", "model.language_model.layers.N.mlp.gate.e_score_correction_bias"),
    _noaux("glm_moe_dsa"),
    _noaux("dots1"),
    _noaux("exaone_moe"),
    _noaux("solar_open"),
    _noaux("mimo_v2_flash"),
    _noaux("bailing_hybrid"),
    _noaux("nemotron_h", "model.layers.N.mixer.gate.e_score_correction_bias"),
    # Sigmoid and bias.
    Family(
        model_type="minimax_m2",
        score="sigmoid",
        bias=True,
        bias_at="model.layers.N.mlp.e_score_correction_bias",
        weight="sigmoid",
        normalised=True,
        coarse_bias=True,
    ),
    Family(
        model_type="lfm2_moe",
        score="sigmoid",
        bias=None,  # use_expert_bias
        bias_at="model.layers.N.feed_forward.expert_bias",
        weight="sigmoid",
        normalised=None,
        coarse=True,
    ),
    Family(
        model_type="afmoe",
        score="sigmoid",
        bias=True,
        bias_at="model.layers.N.mlp.expert_bias",
        weight="sigmoid",
        normalised=True,
    ),
    # Softmax and bias.
    Family(
        model_type="ernie4_5_moe",
        bias=True,
        bias_at="model.layers.N.mlp.gate.moe_statics.e_score_correction_bias",
        normalised=True,
    ),
    # The router returns probabilities; weights are multiplied by per_expert_scale, a parameter.
    Family(model_type="gemma4", weight=None, returns="softmax"),
    Family(model_type="gemma4_text", weight=None, returns="softmax"),
    # Families whose choice does not follow from the recorded numbers.
    Family(
        model_type="switch_transformers",
        refusal="experts have a capacity, beyond which tokens are dropped, and encoder and decoder are routed apart",
    ),
    Family(model_type="nllb_moe", refusal="experts have a capacity, beyond which tokens are dropped"),
    Family(model_type="jetmoe", refusal="the attention has experts too, whose logits stand among the others"),
    Family(model_type="ernie4_5_vl_moe", refusal="text and images have experts of their own"),
    Family(model_type="longcat_flash", refusal="some of the experts that the router knows do nothing"),
    Family(model_type="zaya", refusal="some of the experts that the router knows do nothing"),
    Family(model_type="deepseek_v4", refusal="some layers choose by the token, without a router"),
)
"""All known families."""

PUBLISHED: tuple[PublishedModel, ...] = (
    PublishedModel(names=r"(open-)?mixtral-8x(7|22)b.*", family="mixtral"),
    PublishedModel(names=r"minimax-(text-01|m1).*", family="minimax"),
    PublishedModel(names=r"qwen3\.[56]-\d+b-a\d+b.*", family="qwen3_5_moe"),
    PublishedModel(names=r"qwen3-vl-(30b-a3b|235b-a22b).*", family="qwen3_vl_moe"),
    PublishedModel(names=r"hunyuan-a13b.*", family="hunyuan_v1_moe"),
    PublishedModel(names=r"qwen(1\.5-moe-a2\.7b|2-57b-a14b).*", family="qwen2_moe", normalised=False),
    PublishedModel(
        names=r"qwen3-(30b-a3b|235b-a22b|coder-30b-a3b|coder-480b-a35b).*", family="qwen3_moe", normalised=True
    ),
    PublishedModel(names=r"forestage-small-moe", family="qwen3_moe", normalised=True),  # gpu_reference/small_moe.py
    PublishedModel(names=r"qwen3-(next-80b-a3b|coder-next).*", family="qwen3_next", normalised=True),
    PublishedModel(names=r"olmoe-1b-7b.*", family="olmoe", normalised=False),
    PublishedModel(names=r"(ai21-)?jamba-(v0\.1|tiny|(1\.[5-7]-)?(mini|large)).*", family="jamba", evidence="B"),
    PublishedModel(names=r"gpt-oss-(safeguard-)?(20|120)b.*", family="gpt_oss"),
    PublishedModel(names=r"granite-3\.[0-3]-(1b-a400m|3b-a800m).*", family="granitemoe"),
    PublishedModel(names=r"granite-4\.0-(h-)?(tiny|small).*", family="granitemoehybrid", evidence="B"),
    PublishedModel(names=r"llama-4-(scout-17b-16e|maverick-17b-128e).*", family="llama4"),
    PublishedModel(names=r"phi-(3\.5-moe|mini-moe|tiny-moe).*", family="phimoe"),
    PublishedModel(names=r"(deepseek-(coder-)?v2-lite|esft-.*-lite).*", family="deepseek_v2"),
    PublishedModel(
        names=r"deepseek-(coder-)?v2(\.5)?(-(chat|base|instruct|\d+))*", family="deepseek_v2", groups=8, top_groups=3
    ),
    PublishedModel(
        names=r"deepseek-(v3|v3\.1|r1)(?!.*(distill|qwen|llama))(-.*)?",
        family="deepseek_v3",
        groups=8,
        top_groups=4,
        normalised=True,
    ),
    PublishedModel(names=r"deepseek-v3\.2.*", family="deepseek_v32", groups=8, top_groups=4, normalised=True),
    PublishedModel(names=r"kimi-k2(\.\d+)?(-.*)?", family="deepseek_v3", normalised=True),
    PublishedModel(names=r"moonlight-16b-a3b.*", family="deepseek_v3", normalised=True, evidence="B"),
    PublishedModel(names=r"kimi-linear-48b-a3b.*", family="kimi_linear", normalised=True, evidence="B"),
    PublishedModel(names=r"glm-4\.7-flash.*", family="glm4_moe_lite", normalised=True, evidence="B"),
    PublishedModel(names=r"glm-4\.[567](-(air|base|fp8|awq|gguf|i?q\d.*|\d+bit))*", family="glm4_moe", normalised=True),
    PublishedModel(names=r"dots\.llm1.*", family="dots1", normalised=True),
    PublishedModel(names=r"minimax-m2(\.\d)?(-.*)?", family="minimax_m2"),
    PublishedModel(names=r"lfm2(\.5)?-(8b-a1b|24b-a2b).*", family="lfm2_moe", normalised=True, bias=True),
    PublishedModel(names=r"ernie-4\.5-(21b-a3b|300b-a47b).*", family="ernie4_5_moe"),
    PublishedModel(names=r"(google-)?gemma-4-26b-a4b.*", family="gemma4"),
    PublishedModel(names=r"switch-(base|large|xxl|c)-.*", family="switch_transformers"),
)
"""Models by name. Published ``config.json``: ``norm_topk_prob``, ``n_group``, ``topk_group``, ``use_expert_bias``."""


@dataclass(frozen=True)
class KnownModel:
    """A family, with the known settings of its configuration.

    Attributes:
        family: the family.
        groups, top_groups: ``None`` if not known.
        normalised, bias: ``None`` if not known.
        is_published: whether a model, not a family, was named, so that its configuration is known.
    """

    family: Family
    groups: int | None
    top_groups: int | None
    normalised: bool | None
    bias: bool | None
    is_published: bool


def known_model(name: str) -> KnownModel | None:
    """The known settings of a model by its name, or of a family by its ``model_type``; ``None``: unknown.

    ``deepseek_v2`` is the family, ``DeepSeek-V2`` the published model, whose configuration is known too.
    """
    own = name.rsplit("/", 1)[-1].lower()
    families = _families()
    family = families.get(own)
    key = own.replace("_", "-")
    published = next((model for model in PUBLISHED if re.fullmatch(model.names, key)), None)
    if family is None and published is not None:
        family = families[published.family]
        return KnownModel(
            family,
            published.groups,
            published.top_groups,
            published.normalised if family.normalised is None else family.normalised,
            published.bias if family.bias is None else family.bias,
            is_published=True,
        )
    if family is None:
        return None
    groups = 1 if family.group_score is None else None
    return KnownModel(family, groups, groups, family.normalised, family.bias, is_published=False)


@cache
def _families() -> dict[str, Family]:
    """Families by ``model_type``."""
    return {family.model_type: family for family in FAMILIES}
