from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers

from catalog.catalogue import load_catalog
from catalog.errors import ForestageError
from gpu_reference.decoder import Decoder
from gpu_reference.decoder.families import DEEPSEEK_V2, GPT_OSS, MIXTRAL, OLMOE, QWEN3_MOE, Family
from gpu_reference.decoder.rotary import Rotary
from gpu_reference.decoder.shape import DecoderShape
from tests.gpu_reference.decoder.whole_models import TINY, TINY_LATENT, experts_of, forward, of_transformers, tiny
from tests.gpu_reference.tiny_models import LAYER_MAPS, LAYERS, build

LITE = {"q_lora_rank": None, "routed_scaling_factor": 1.0, "n_shared_experts": 2, "rope_parameters": {
    "rope_type": "yarn", "rope_theta": 10000.0, "factor": 40, "beta_fast": 32, "beta_slow": 1, "mscale": 0.707,
    "mscale_all_dim": 0.707, "original_max_position_embeddings": 4096}}  # fmt: skip
"""What DeepSeek-V2-Lite's config.json has beside the tests' tiny one."""

FAMILIES: dict[str, tuple[str, Family, dict[str, Any]]] = {
    "gpt-oss: windows, sinks, biases": ("gpt_oss", GPT_OSS, {}),
    "qwen3: norms by head": (
        "qwen3_moe_raw",
        QWEN3_MOE,
        {"norm_topk_prob": True, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
    ),
    "qwen3: a dense layer between": (
        "qwen3_moe",
        replace(QWEN3_MOE, rotary=Rotary(base=1e4)),
        {"num_key_value_heads": 1},
    ),
    "olmoe: norms of all heads": ("olmoe", OLMOE, {}),
    "mixtral": ("mixtral", MIXTRAL, {"rms_norm_eps": 1e-5}),
    "deepseek-v2-lite: latent, shared, dense": ("deepseek_v2", DEEPSEEK_V2, LITE),
    "deepseek-v2: low-rank queries": (
        "deepseek_v2",
        replace(DEEPSEEK_V2, rotary=Rotary(base=1e4, pairs=True)),
        {},
    ),
}


def whole(name: str, changes: dict[str, Any]) -> Any:
    """A tiny model in which every weight matters."""
    model = build(name, **changes)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if "norm" in key:
                weight.copy_(1 + 0.3 * torch.randn(weight.shape, generator=generator))
            else:
                scale = weight.shape[-1] ** -0.5 if weight.ndim > 1 else 1.0
                weight.copy_(scale * torch.randn(weight.shape, generator=generator))
    return model


@pytest.mark.parametrize("case", FAMILIES)
def test_logits_are_those_of_transformers_over_prefill_and_decode(case: str) -> None:
    name, family, changes = FAMILIES[case]
    model = whole(name, changes)
    decoder = of_transformers(model, family)
    experts = experts_of(model, LAYER_MAPS.get(name, range(LAYERS)))
    tokens = torch.randint(0, 320, (2, 40), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = model(input_ids=tokens).logits
    found = torch.zeros_like(expected)
    found[0, :13] = forward(decoder, tokens[0, :13], range(13), [0] * 13, experts)
    found[1, :5] = forward(decoder, tokens[1, :5], range(5), [1] * 5, experts)
    found[0, 13:16] = forward(decoder, tokens[0, 13:16], range(13, 16), [0] * 3, experts)
    for position in range(5, 29):  # both sequences at once, 11 tokens apart
        now = torch.stack((tokens[1, position], tokens[0, position + 11]))
        slots, positions = [1, 0], [position, position + 11]
        found[slots, positions] = forward(decoder, now, positions, slots, experts)
    found[1, 29:] = forward(decoder, tokens[1, 29:], range(29, 40), [1] * 11, experts)
    assert torch.isfinite(found).all()
    assert float((found - expected).abs().max()) < 2e-4 * float(expected.abs().max())


@pytest.mark.parametrize("name", ["gpt-oss-20b", "Qwen3-30B-A3B", "DeepSeek-V2-Lite", "OLMoE-1B-7B"])
def test_a_catalogue_models_own_shapes_run_and_take_the_bytes_foreseen(name: str) -> None:
    record = load_catalog().find_model(name)
    layer_map = record.layer_map[:2]
    model = record.model_copy(update={"vocabulary": 64})
    decoder = Decoder.random(model, layer_map, device="cpu", dtype=torch.bfloat16, slots=2, max_context=300, seed=1)
    decoder.reset(1, context=270)
    logits = forward(decoder, [3, 4], [0, 270], [0, 1])
    assert logits.shape == (2, 64)
    assert torch.isfinite(logits).all()
    shape = DecoderShape.of(model, layer_map)
    table = 300 * 2 * shape.blocks[0].rotary_width * 2
    padding = sum(2 * 7 * 64 for block in shape.blocks if name == "gpt-oss-20b")
    assert decoder.fixed_bytes == shape.fixed_bytes(torch.bfloat16) + table + padding
    assert decoder.cache_bytes == shape.cache_bytes(torch.bfloat16, slots=2, max_context=300)
    per_token = sum(
        attention.cache_elements(300)
        for attention in map(model.attention_of, [block.index for block in shape.blocks])
        if attention is not None
    )
    assert decoder.cache_bytes == 2 * 2 * per_token


@pytest.mark.parametrize("model", [TINY, TINY_LATENT], ids=["gqa", "mla"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_random_decoders_stay_finite_and_of_one_scale_over_many_layers_and_tokens(
    model: Any, dtype: torch.dtype
) -> None:
    deep = model.model_copy(update={"layers": 32, "dense_layers": model.dense_layers})
    decoder = Decoder.random(deep, deep.layer_map, device="cpu", dtype=dtype, max_context=200, seed=0)
    hidden = decoder.embed(torch.arange(180) % 100)
    for layer in range(decoder.layers):
        gate = decoder.before_gate(layer, hidden, range(180), [0] * 180)
        assert 0.2 < float(gate.router_logits.float().std()) < 3
        hidden = decoder.after_experts(
            layer, gate.residual, torch.zeros_like(gate.residual), decoder.shared(layer, gate.normed)
        )
    assert 0.3 < float(hidden.float().std()) < 3
    assert 0.3 < float(decoder.logits(hidden).float().std()) < 3


def test_layers_that_were_not_recorded_are_left_out_and_dense_ones_between_are_kept() -> None:
    shape = DecoderShape.of(TINY_LATENT, (3,))
    assert [(block.index, block.dense) for block in shape.blocks] == [(0, True), (2, True), (3, False)]
    assert shape.moe == (2,)
    windows = DecoderShape.of(TINY, (1, 2))
    assert [block.window for block in windows.blocks] == [None, 8]


def test_models_that_the_decoder_does_not_compute_are_refused_in_one_line() -> None:
    catalogue = load_catalog()
    cases = {
        "GLM-4.5": "norms, rotary embedding and router rule are not known here",
        "DeepSeek-V3": "not known here",
        "Jamba-v0.1": "not known here",
    }
    for name, told in cases.items():
        model = catalogue.find_model(name)
        with pytest.raises(ForestageError, match=told) as caught:
            DecoderShape.of(model, model.layer_map)
        assert "\n" not in str(caught.value)
    with pytest.raises(ForestageError, match="vocabulary: not known"):
        DecoderShape.of(TINY.model_copy(update={"vocabulary": None}), (0,))
    unknown = TINY.model_copy(update={"attention": None})
    with pytest.raises(ForestageError, match="gpt-oss-20b: attention: not known"):
        DecoderShape.of(unknown, (0,))
    kinds = TINY.attention.kinds  # type: ignore[union-attr]
    chunked = kinds["full"].model_copy(update={"chunk": 4})
    with pytest.raises(ForestageError, match="layer 0: chunk: the decoder does not compute"):
        DecoderShape.of(TINY.model_copy(update={"attention": chunked}), (0,))
    indexed = TINY_LATENT.attention.model_copy(update={"index_heads": 2})  # type: ignore[union-attr]
    with pytest.raises(ForestageError, match="index_heads"):
        DecoderShape.of(TINY_LATENT.model_copy(update={"attention": indexed}), (1,))
    with pytest.raises(ForestageError, match="last layer has no experts"):
        DecoderShape.of(TINY_LATENT.model_copy(update={"dense_layers": (3,)}), (0,))
    with pytest.raises(ForestageError, match="dense layers and shared experts need swiglu"):
        DecoderShape.of(TINY.model_copy(update={"shared_experts": 1}), (0,))


@pytest.mark.parametrize("layer_map", [(), (2, 1), (1, 1), (0,), (9,)])
def test_a_layer_map_that_does_not_fit_the_model_is_refused(layer_map: tuple[int, ...]) -> None:
    with pytest.raises(ForestageError, match="layer_map"):
        DecoderShape.of(TINY_LATENT, layer_map)


@pytest.mark.parametrize(
    ("family", "config"),
    [
        (GPT_OSS, transformers.GptOssConfig),
        (QWEN3_MOE, transformers.Qwen3MoeConfig),
        (OLMOE, transformers.OlmoeConfig),
        (MIXTRAL, transformers.MixtralConfig),
        (DEEPSEEK_V2, transformers.DeepseekV2Config),
    ],
)
def test_norms_and_rotary_bases_are_those_of_the_configuration_classes(family: Family, config: Any) -> None:
    defaults = config()
    assert family.name == defaults.model_type
    assert family.norm_epsilon == defaults.rms_norm_eps
    if family is not QWEN3_MOE:  # its published models have another base than the class
        assert family.rotary.base == defaults.rope_parameters["rope_theta"]


def test_deepseeks_router_computes_in_float32_and_others_in_the_decoders_type() -> None:
    for model, dtype in ((TINY_LATENT, torch.float32), (TINY, torch.bfloat16)):
        decoder = tiny(model, dtype=torch.bfloat16)
        gate = decoder.before_gate(0, decoder.embed(torch.tensor([1])), [0], [0])
        assert (gate.residual.dtype, gate.normed.dtype) == (torch.bfloat16, torch.bfloat16)
        assert gate.router_logits.dtype == dtype
        assert decoder.choose(0, gate.router_logits)[1].dtype == dtype


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    logits = [forward(tiny(seed=seed), range(6), range(6), [0] * 6) for seed in (1, 1, 2)]
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])
