"""The routers of the supported architectures, from the modelling code of `transformers` 5.23 (``modeling_*.py``).

Constants that multiply the weights (``routed_scaling_factor``, Gemma's ``per_expert_scale``) are checked and not
recorded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_reference.routers.adapter import RouterAdapter, RouterOutput, sigmoid, softmax, three_tensors
from gpu_reference.routers.rule import TopKRule

if TYPE_CHECKING:
    from traces import GateWeightKind


@dataclass(frozen=True)
class PhimoeRule(TopKRule):
    """SparseMixer (arXiv:2409.12136) in evaluation mode: the largest logit, then the largest of the others.

    Each chosen expert's weight is its share in a softmax over only those experts whose logits are within
    ``2 · router_jitter_noise`` of its logit, relative to its size; the two weights do not sum to 1.
    """

    def weigh(self, router: Any, call: RouterOutput, ids: np.ndarray) -> np.ndarray:
        """The two shares; where rounding may decide which logits are within reach, those nearer to the router's."""
        import torch

        given = call.weights.detach().double().cpu().numpy()
        step = 2 * float(torch.finfo(call.logits.dtype).eps)
        readings = [self._shares(router, call.logits_f64(), ids, slack) for slack in (0.0, -step, step)]
        weights = readings[0]
        for other in readings[1:]:
            weights = np.where(np.abs(other - given) < np.abs(weights - given), other, weights)
        return weights

    def gate_weight_kind(self, router: Any) -> GateWeightKind:
        """``unknown``: the trace format has no name for them."""
        return "unknown"

    @staticmethod
    def _shares(router: Any, logits: np.ndarray, ids: np.ndarray, slack: float) -> np.ndarray:
        """The shares ``[tokens, 2]``, with a reach that is ``slack`` wider."""
        reach = 2 * router.router_jitter_noise + slack
        rest = logits.copy()
        shares = []
        for column in ids.T:
            best = rest.max(axis=-1, keepdims=True)
            near = (best - logits) / np.maximum(np.abs(logits), best) <= reach
            pool = softmax(np.where(near, rest, -np.inf))
            shares.append(np.take_along_axis(pool, column[:, None], axis=-1))
            np.put_along_axis(rest, column[:, None], -np.inf, axis=-1)
        return np.concatenate(shares, axis=-1)


@dataclass(frozen=True)
class Llama4Rule(TopKRule):
    """The largest logits; the weights are their sigmoids, which multiply the experts' inputs.

    The router returns the weights of all experts (0 for those not chosen) and the logits; every expert then gets every
    token multiplied by its weight.
    """

    def gate_weight_kind(self, router: Any) -> GateWeightKind:
        """``sigmoid``: each weight depends on its own logit only."""
        return "sigmoid"

    def read(self, router: Any, inputs: tuple[Any, ...], output: Any) -> RouterOutput:
        """The ``top_k`` largest of the returned weights."""
        weights, logits = output
        best = weights.topk(router.top_k, dim=-1)
        return RouterOutput(logits, best.indices, best.values, inputs)

    def weigh(self, router: Any, call: RouterOutput, ids: np.ndarray) -> np.ndarray:
        """The sigmoids of the chosen logits."""
        return sigmoid(np.take_along_axis(call.logits_f64(), ids, axis=-1))

    def agrees(self, call: RouterOutput, received: tuple[Any, ...]) -> bool | None:
        """Whether each expert got the tokens that chose it, multiplied by their weights, and zeros for all others."""
        import torch

        hidden = call.inputs[0]
        tokens, experts = call.logits.shape
        if len(received) != 1 or received[0].shape != (experts * tokens, hidden.shape[-1]):
            return None
        weights = torch.zeros_like(call.logits).scatter(1, call.ids, call.weights)
        parts = received[0].view(experts, tokens, -1)
        return all(torch.equal(part, hidden * weights[:, expert, None]) for expert, part in enumerate(parts))


@dataclass(frozen=True)
class Gemma4Rule(TopKRule):
    """Chosen softmax probabilities over their sum, times a constant per expert. The router returns no logits."""

    def read(self, router: Any, inputs: tuple[Any, ...], output: Any) -> RouterOutput:
        """Use the logarithms of the returned probabilities as logits."""
        probabilities, weights, ids = three_tensors(router, output)
        return RouterOutput(probabilities.log(), ids, weights, inputs)

    def weigh(self, router: Any, call: RouterOutput, ids: np.ndarray) -> np.ndarray:
        """The weights, multiplied by the constants."""
        shares = np.take_along_axis(softmax(call.logits_f64()), ids, axis=-1)
        return shares / shares.sum(axis=-1, keepdims=True) * self.scale(router)[ids]

    def scale(self, router: Any) -> Any:
        """``per_expert_scale``."""
        return router.per_expert_scale.detach().double().cpu().numpy()


@dataclass(frozen=True)
class DeepseekV4HashRule(TopKRule):
    """A table gives the token's experts; their scores weigh them, as in the layers with a choosing router."""

    def select(self, router: Any, call: RouterOutput, chosen: np.ndarray) -> np.ndarray:
        """1 for the token's experts in the table, 0 for others."""
        named = router.tid2eid[call.inputs[1].reshape(-1)].cpu().numpy().astype(np.int64)
        scores = np.zeros(chosen.shape)
        np.put_along_axis(scores, named, 1.0, axis=-1)
        return scores

    def margin(self, router: Any, call: RouterOutput) -> np.ndarray:
        """0: no scores tie."""
        return np.zeros(tuple(call.logits.shape))


_SOFTMAX = TopKRule(normalised="norm_topk_prob")
_NORMALISED_SOFTMAX = TopKRule(normalised=True)
_SOFTMAX_OVER_CHOSEN = TopKRule("logits", over_chosen=True)
_DEEPSEEK_V2 = TopKRule(
    groups="maximum", groups_if=("topk_method", "group_limited_greedy"), scale_by="routed_scaling_factor"
)
_MISTRAL_4 = TopKRule(
    normalised="norm_topk_prob", groups="best two", scale_by="routed_scaling_factor", added=1e-20, in_logits_type=True
)
_DEEPSEEK_V3 = TopKRule(
    "sigmoid",
    normalised="norm_topk_prob",
    bias="e_score_correction_bias",
    groups="best two",
    scale_by="routed_scaling_factor",
    added=1e-20,
)
_DEEPSEEK_V4 = {"normalised": True, "scale_by": "routed_scaling_factor", "added": 1e-20, "in_logits_type": True}
_SIGMOID_OWN_BIAS = TopKRule("sigmoid", normalised=True, bias="e_score_correction_bias")

_RULES: list[tuple[RouterAdapter, str]] = [
    (
        _SOFTMAX,
        "FlexOlmoTopKRouter MellumTopKRouter OlmoeTopKRouter Qwen2MoeTopKRouter Qwen3MoeTopKRouter Qwen3NextTopKRouter"
        " Qwen3OmniMoeThinkerTextTopKRouter",
    ),
    (
        _NORMALISED_SOFTMAX,
        "HunYuanMoEV1Gate MiniMaxTopKRouter MixtralTopKRouter Qwen3_5MoeTopKRouter Qwen3VLMoeTextTopKRouter",
    ),
    (TopKRule(), "JambaTopKRouter"),
    (
        _SOFTMAX_OVER_CHOSEN,
        "GptOssTopKRouter GraniteMoeTopKRouter GraniteMoeHybridTopKRouter GraniteMoeSharedTopKRouter"
        " GraniteMoeSWATopKRouter",
    ),
    (TopKRule(normalised=True, bias="moe_statics.e_score_correction_bias", least="norm_min"), "Ernie4_5_MoeTopKRouter"),
    (_DEEPSEEK_V2, "DeepseekV2TopkRouter"),
    (_MISTRAL_4, "Mistral4TopkRouter"),
    (
        _DEEPSEEK_V3,
        "AXK1TopkRouter BailingHybridTopkRouter DeepseekV3TopkRouter DeepseekV32TopkRouter Dots1TopkRouter"
        " ExaoneMoeTopkRouter Glm4MoeTopkRouter Glm4MoeLiteTopkRouter Glm4vMoeTextTopkRouter GlmMoeDsaTopkRouter"
        " HYV4TopkRouter KimiLinearTopkRouter MiMoV2FlashTopkRouter NemotronHTopkRouter SolarOpenTopkRouter",
    ),
    (TopKRule("sqrt_softplus", bias="e_score_correction_bias", **_DEEPSEEK_V4), "DeepseekV4TopKRouter"),  # type: ignore[arg-type]
    (DeepseekV4HashRule("sqrt_softplus", **_DEEPSEEK_V4), "DeepseekV4HashRouter"),  # type: ignore[arg-type]
    (TopKRule("sigmoid", normalised=True, bias=1), "MiniMaxM2TopKRouter"),
    (_SIGMOID_OWN_BIAS, "MiniMaxM3VLTopKRouter Step3p7TopKRouter"),
    (
        TopKRule("sigmoid", normalised=True, bias=1, scale_by="router_scaling_factor", added=1e-20),
        "HYV3TopKRouter",
    ),
    (TopKRule("sigmoid", normalised=True, bias=1, scale_by="route_scale", added=1e-20), "AfmoeTokenChoiceRouter"),
    (
        TopKRule(
            "sigmoid",
            normalised="norm_topk_prob",
            bias=1,
            bias_if="use_expert_bias",
            scale_by="routed_scaling_factor",
            added=1e-6,
            in_logits_type=True,
        ),
        "Lfm2MoeTopKRouter",
    ),
    (PhimoeRule("logits"), "PhimoeTopKRouter"),
    (Llama4Rule("logits"), "Llama4Router"),
    (Gemma4Rule(normalised=True), "Gemma4TextRouter"),
]

TRANSFORMERS: dict[str, RouterAdapter] = {name: rule for rule, names in _RULES for name in names.split()}
"""Class name of a router → its rule."""
