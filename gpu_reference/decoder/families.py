"""What a decoder's fixed parts need to compute and the catalogue lacks: norms, rotary embedding, router rule.

Each family is that of transformers 5.23's code (`models/<name>/modeling_<name>.py`). Figures marked *recalled* are from
the publishers' configurations, not looked up; none of them changes how long anything takes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from catalog.errors import ForestageError
from catalog.models import ModelRecord
from gpu_reference.decoder.rotary import Rotary, Yarn

RouterRule = Literal["softmax", "softmax_over_chosen"]
"""``softmax``: the best of the softmax over all experts; ``softmax_over_chosen``: the softmax over the best logits."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """How the models of one family compute what surrounds their experts.

    Attributes:
        name: the ``model_type`` in transformers.
        rotary: the rotary embedding.
        norm_epsilon: added to the mean square in each norm of the residual stream.
        inner_norm_epsilon: the same for the norms of the low-rank parts of latent attention.
        query_key_norm: a norm of queries and keys before the rotation: of each ``head``, of all heads together
            (``all``), or none.
        attention_bias: the projections of queries, keys, values and output have biases.
        sinks: each head has a logit that takes part in the softmax and has no value (gpt-oss).
        router_bias: the router has a bias.
        router_in_float: the router computes in float32, whatever the decoder's type.
        rule: how gate weights come from logits.
        normalised: gate weights are divided by their sum.
    """

    name: str
    rotary: Rotary
    norm_epsilon: float
    inner_norm_epsilon: float = 1e-6
    query_key_norm: Literal["head", "all"] | None = None
    attention_bias: bool = False
    sinks: bool = False
    router_bias: bool = False
    router_in_float: bool = False
    rule: RouterRule = "softmax"
    normalised: bool = False


GPT_OSS = Family(
    name="gpt_oss",
    # GptOssConfig: default_theta, rope_parameters; the published models have the same.
    rotary=Rotary(base=150_000.0, yarn=Yarn(factor=32.0, original_context=4096, truncate=False)),
    norm_epsilon=1e-5,
    attention_bias=True,
    sinks=True,
    router_bias=True,
    rule="softmax_over_chosen",
)
QWEN3_MOE = Family(
    name="qwen3_moe",
    rotary=Rotary(base=1_000_000.0),  # recalled: Qwen3-30B-A3B's rope_theta; the class's default is 10,000
    norm_epsilon=1e-6,
    query_key_norm="head",
    normalised=True,  # recalled: norm_topk_prob of the published models; the class's default is false
)
DEEPSEEK_V2 = Family(
    name="deepseek_v2",
    # Recalled: rope_theta and rope_scaling of DeepSeek-V2-Lite's config.json.
    rotary=Rotary(
        base=10_000.0, pairs=True, yarn=Yarn(factor=40.0, original_context=4096, scale=0.707, scale_all=0.707)
    ),
    norm_epsilon=1e-6,
    router_in_float=True,  # DeepseekV2TopkRouter; greedy choice, weights not normalised, routed_scaling_factor 1
)
OLMOE = Family(
    name="olmoe",
    rotary=Rotary(base=10_000.0),  # transformers' default, which OlmoeConfig takes
    norm_epsilon=1e-5,
    query_key_norm="all",
)
MIXTRAL = Family(name="mixtral", rotary=Rotary(base=1_000_000.0), norm_epsilon=1e-5, normalised=True)

_OF_ARCHITECTURE = {family.name: family for family in (GPT_OSS, QWEN3_MOE, OLMOE, MIXTRAL)}
"""DeepSeek-V2 is not among them: the larger ones choose among groups of experts, which a record does not state."""

_OF_MODEL = {
    "forestage-small-moe": replace(QWEN3_MOE, rotary=Rotary(base=10_000.0)),
    "gpt-oss-20b": GPT_OSS,
    "gpt-oss-120b": GPT_OSS,
    "Qwen3-30B-A3B": QWEN3_MOE,
    "Qwen3-30B-A3B-Q4_K_M": QWEN3_MOE,
    "Qwen3-235B-A22B": QWEN3_MOE,
    "Qwen3-Coder-480B-A35B": QWEN3_MOE,
    "DeepSeek-V2-Lite": DEEPSEEK_V2,
    "OLMoE-1B-7B": OLMOE,
    "Mixtral-8x7B": MIXTRAL,
    "Mixtral-8x22B": MIXTRAL,
}


def family_of(model: ModelRecord) -> Family:
    """The family of ``model``, by its catalogue name, else by its ``architecture``.

    Raises:
        ForestageError: if the family is none of those known here.
    """
    family = _OF_MODEL.get(model.name) or _OF_ARCHITECTURE.get(model.architecture or "")
    if family is None:
        raise ForestageError(
            f"{model.name}: no decoder: its norms, rotary embedding and router rule are not known here; choose one of "
            f"{', '.join(_OF_MODEL)}, or a model of architecture {', '.join(_OF_ARCHITECTURE)}"
        )
    return family
