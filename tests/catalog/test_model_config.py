"""Configurations against the truth: the models that transformers builds of them, on the meta device."""

import importlib
import inspect
import json
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from catalog import ForestageError
from catalog.families import FAMILIES, LAYER_RULE_KEYS
from catalog.family_defaults import DEFAULTS
from catalog.model_config import model_of_config, read_model_config
from catalog.models import ModelRecord

torch = pytest.importorskip("torch", reason="builds the models that the configurations are of")
transformers = pytest.importorskip("transformers", reason="its configuration classes are the truth")

TINY = {
    "vocab_size": 512, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 6, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "num_experts_per_tok": 2, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "moe_intermediate_size": 16,
}  # fmt: skip
LATENT = {
    "q_lora_rank": 24, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8,
    "num_key_value_heads": 4,
}  # fmt: skip
HALF = ["full_attention", "linear_attention"] * 3
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2_moe, step and dense layers": (
        "Qwen2MoeConfig",
        {"num_experts": 8, "shared_expert_intermediate_size": 40, "decoder_sparse_step": 2, "mlp_only_layers": [3]},
    ),
    "qwen2_moe, windows": (
        "Qwen2MoeConfig",
        {"num_experts": 8, "use_sliding_window": True, "sliding_window": 7, "max_window_layers": 2},
    ),
    "qwen3_moe": ("Qwen3MoeConfig", {"num_local_experts": 8, "mlp_only_layers": [0, 5]}),
    "qwen3_next": (
        "Qwen3NextConfig",
        {"num_experts": 8, "layer_types": HALF, "linear_num_key_heads": 2, "linear_num_value_heads": 4},
    ),
    "qwen3_next, types by default": ("Qwen3NextConfig", {"num_experts": 8, "mlp_only_layers": [1]}),
    "qwen3_5_moe_text": ("Qwen3_5MoeTextConfig", {"num_experts": 8, "shared_expert_intermediate_size": 16}),
    "deepseek_v2": ("DeepseekV2Config", {**LATENT, "n_routed_experts": 8, "first_k_dense_replace": 2}),
    "deepseek_v3": ("DeepseekV3Config", {**LATENT, "n_routed_experts": 16, "first_k_dense_replace": 3}),
    "deepseek_v3, no query rank": (
        "DeepseekV3Config",
        {**LATENT, "q_lora_rank": None, "n_routed_experts": 16, "first_k_dense_replace": 1},
    ),
    "deepseek_v32": (
        "DeepseekV32Config",
        {**LATENT, "n_routed_experts": 16, "index_n_heads": 2, "index_head_dim": 8, "index_topk": 4},
    ),
    "glm4_moe": ("Glm4MoeConfig", {"n_routed_experts": 8, "first_k_dense_replace": 2, "n_shared_experts": 3}),
    "glm4_moe_lite": ("Glm4MoeLiteConfig", {**LATENT, "n_routed_experts": 8}),
    "glm_moe_dsa": (
        "GlmMoeDsaConfig",
        {**LATENT, "n_routed_experts": 8, "first_k_dense_replace": 1, "index_n_heads": 2, "index_head_dim": 8},
    ),
    "dots1": (
        "Dots1Config",
        {"n_routed_experts": 8, "n_shared_experts": 2, "first_k_dense_replace": 1, "max_window_layers": 4},
    ),
    "minimax": ("MiniMaxConfig", {"num_local_experts": 8, "moe_intermediate_size": None}),
    "minimax_m2": ("MiniMaxM2Config", {"num_local_experts": 8, "moe_intermediate_size": None}),
    "granitemoe": ("GraniteMoeConfig", {"num_local_experts": 8, "moe_intermediate_size": None}),
    "granitemoeshared": (
        "GraniteMoeSharedConfig",
        {"num_local_experts": 8, "shared_intermediate_size": 50, "moe_intermediate_size": None},
    ),
    "granitemoehybrid": (
        "GraniteMoeHybridConfig",
        {
            "num_local_experts": 8,
            "layer_types": ["mamba", "attention"] * 3,
            "mamba_n_heads": 4,
            "mamba_d_state": 8,
            "moe_intermediate_size": None,
        },
    ),
    "phimoe": ("PhimoeConfig", {"num_local_experts": 8, "moe_intermediate_size": None}),
    "lfm2_moe": (
        "Lfm2MoeConfig",
        {"num_experts": 8, "num_dense_layers": 2, "layer_types": ["conv", "full_attention"] * 3},
    ),
    "ernie4_5_moe": (
        "Ernie4_5_MoeConfig",
        {
            "moe_num_experts": 8,
            "moe_k": 2,
            "moe_layer_start_index": 1,
            "moe_layer_end_index": 4,
            "moe_layer_interval": 2,
        },
    ),
    "ernie4_5_moe, to the end": (
        "Ernie4_5_MoeConfig",
        {"moe_num_experts": 8, "moe_k": 2, "moe_layer_start_index": 3, "moe_layer_end_index": -1},
    ),
    "hunyuan_v1_moe": ("HunYuanMoEV1Config", {"num_experts": 8, "moe_topk": [2] * 6, "moe_intermediate_size": None}),
    "flex_olmo": ("FlexOlmoConfig", {"num_experts": 8, "moe_intermediate_size": None}),
    "llama4_text": (
        "Llama4TextConfig",
        {
            "num_local_experts": 8,
            "interleave_moe_layer_step": 2,
            "intermediate_size_mlp": 40,
            "num_experts_per_tok": 1,
            "moe_intermediate_size": None,
        },
    ),
    "llama4_text, listed": (
        "Llama4TextConfig",
        {"num_local_experts": 8, "moe_layers": [0, 4], "intermediate_size_mlp": 40, "moe_intermediate_size": None},
    ),
    "jamba": (
        "JambaConfig",
        {
            "num_experts": 8,
            "attn_layer_period": 3,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "use_mamba_kernels": False,
            "moe_intermediate_size": None,
        },
    ),
    "mixtral": ("MixtralConfig", {"num_local_experts": 8, "sliding_window": 5, "moe_intermediate_size": None}),
    "gpt_oss": ("GptOssConfig", {"num_local_experts": 8, "moe_intermediate_size": None}),
    "olmoe": ("OlmoeConfig", {"num_experts": 8, "moe_intermediate_size": None}),
    "afmoe": ("AfmoeConfig", {"num_experts": 8, "num_dense_layers": 2, "num_shared_experts": 1}),
    "exaone_moe": ("ExaoneMoeConfig", {"num_experts": 8, "first_k_dense_replace": 2}),
    "hy_v3": ("HYV3Config", {"num_experts": 8}),
    "kimi_linear": ("KimiLinearConfig", {**LATENT, "num_experts": 8}),
    "bailing_hybrid": ("BailingHybridConfig", {**LATENT, "num_local_experts": 16, "first_k_dense_replace": 2}),
    "mimo_v2_flash": ("MiMoV2FlashConfig", {"n_routed_experts": 8}),
    "solar_open": ("SolarOpenConfig", {"n_routed_experts": 8}),
    "gemma4_text": (
        "Gemma4TextConfig",
        {
            "num_experts": 8,
            "top_k_experts": 2,
            "enable_moe_block": True,
            "hidden_size_per_layer_input": 0,
            "global_head_dim": 24,
            "num_global_key_value_heads": 1,
            "attention_k_eq_v": True,
        },
    ),
    "switch_transformers": (
        "SwitchTransformersConfig",
        {
            "d_model": 32,
            "d_ff": 48,
            "d_kv": 8,
            "num_heads": 4,
            "num_layers": 6,
            "num_decoder_layers": 4,
            "num_experts": 8,
            "num_sparse_encoder_layers": 3,
            "num_sparse_decoder_layers": 2,
        },
    ),
}
WITHOUT_ATTENTION = {"exaone_moe", "kimi_linear", "bailing_hybrid", "mimo_v2_flash"}
NOT_BY_DEFAULT = {"dbrx", "deepseek_v2", "dots1", "gemma4_text", "lfm2_moe"}
"""Families whose class leaves experts, top-k or kinds of layers open."""
UNCOUNTED = re.compile(r"bias$|shared_expert_gate|relative_attention_bias|e_score_correction")


def config_of(name: str, own: dict[str, Any], **more: Any) -> Any:
    return getattr(transformers, name)(**({**TINY, **own, **more} if "d_model" not in own else own))


def document_of(config: Any) -> dict[str, Any]:
    """The configuration as a file has it."""
    return {**json.loads(config.to_json_string(use_diff=False)), "dtype": "bfloat16"}


def built(config: Any) -> tuple[tuple[int, ...], int]:
    """Layers that hold experts, an encoder's before a decoder's; and elements of all matrices."""
    with torch.device("meta"):
        kind = "AutoModelForSeq2SeqLM" if config.is_encoder_decoder else "AutoModelForCausalLM"
        model = getattr(transformers, kind).from_config(config)
    routed, total = set(), 0
    for name, parameter in model.named_parameters():
        if re.search(r"\.experts\.|block_sparse_moe\.(input|output)_linear", name):
            layer = int(re.search(r"(?:layers|block)\.(\d+)\.", name)[1])  # type: ignore[index]
            routed.add(layer + (config.num_layers if name.startswith("decoder.block") else 0))
        if parameter.dim() >= 2 and not UNCOUNTED.search(name):
            total += parameter.numel()
    return tuple(sorted(routed)), total


@pytest.mark.parametrize("case", MODELS)
def test_layers_with_experts_and_all_weights_are_those_of_the_model(case: str) -> None:
    name, own = MODELS[case]
    config = config_of(name, own)
    record = model_of_config(document_of(config), case, origin="config.json")
    routed, total = built(config)
    assert record.layer_map == routed
    if case in WITHOUT_ATTENTION:
        assert record.attention is None
    else:
        assert record.parameters() == total


DERIVED = ("moe_layers", "mlp_layer_types", "layer_types", "no_rope_layers", "per_layer_config", "layers_block_type")
"""What transformers' classes make of other fields, and older files therefore lack."""


@pytest.mark.parametrize("case", MODELS)
def test_a_file_without_what_the_class_derives_is_read_alike(case: str) -> None:
    name, own = MODELS[case]
    whole = document_of(config_of(name, own))
    given = {key: value for key, value in own.items() if key in DERIVED or key not in whole}
    terse = {**{key: value for key, value in whole.items() if key not in DERIVED}, **given}
    record = model_of_config(whole, case, origin="config.json")
    again = model_of_config(terse, case, origin="config.json")
    assert (again.layer_map, again.attention) == (record.layer_map, record.attention)


def class_of(family: str) -> Any:
    """The configuration class of a family; ``None`` where transformers has none."""
    for root in (family, family.removesuffix("_text"), family.replace("-", "_")):
        try:
            module = importlib.import_module(f"transformers.models.{root}.configuration_{root}")
        except ModuleNotFoundError:
            continue
        classes = [c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == module.__name__]
        return next(c for c in classes if getattr(c, "model_type", None) == family)
    return None


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_defaults_are_those_of_the_configuration_class(family: str) -> None:
    config = class_of(family)
    if config is None:
        assert family not in DEFAULTS
        return
    fields = {name: field.default for name, field in config.__dataclass_fields__.items()}
    for key, value in DEFAULTS[family].items():
        assert fields.get(key, getattr(config, key, None)) == value, key


@pytest.mark.parametrize("family", sorted(DEFAULTS))
def test_a_default_configuration_is_read_as_the_model_is_built(family: str) -> None:
    """What a file leaves out is taken from the class: a file of the type alone is the class's default model."""
    config = class_of(family)()
    document = {"model_type": family, "dtype": "bfloat16"}
    if family in NOT_BY_DEFAULT:
        with pytest.raises(ForestageError, match=r"missing|no layer of this"):
            model_of_config(document, family, origin="config.json")
        return
    record = model_of_config(document, family, origin="config.json")
    whole = model_of_config(document_of(config), family, origin="config.json")
    assert record.layer_map == whole.layer_map
    assert (record.experts, record.top_k, record.hidden) == (whole.experts, whole.top_k, whole.hidden)
    assert record.parameters() == whole.parameters()
    assert "defaults of the configuration class" in record.source


SWITCHED_ON = {"qwen2_moe": {"use_sliding_window": True}, "qwen3_moe": {"use_sliding_window": True}}
"""What the class leaves off by default, so that the fields it needs are not read."""

MAY_BE_NONE = {
    "attn_layer_offset", "expert_layer_offset", "first_k_dense_replace", "max_window_layers", "moe_layer_start_index",
    "moe_num_shared_experts", "n_shared_experts", "num_dense_layers", "num_shared_experts",
    "num_sparse_decoder_layers", "num_sparse_encoder_layers", "q_lora_rank", "shared_expert_intermediate_size",
    "shared_intermediate_size", "sliding_window",
}  # fmt: skip
"""Fields of which a model may have none, or that count from 0."""


@pytest.mark.parametrize("family", sorted(set(DEFAULTS) - set(NOT_BY_DEFAULT)))
def test_a_number_that_no_model_has_is_refused_wherever_it_is_read(family: str) -> None:
    sound = {"model_type": family, "dtype": "bfloat16", **SWITCHED_ON.get(family, {})}

    def read(document: dict[str, Any]) -> dict[str, Any]:
        return model_of_config(document, family, origin="config.json").model_dump(exclude={"source"})

    expected = read(sound)
    numbers = [name for name, value in DEFAULTS[family].items() if type(value) is int]
    assert numbers
    for name in numbers:
        for bad in (
            -2,
            "8",
            1.5,
            *(() if name in MAY_BE_NONE else (0,)),
            *(() if name.endswith("end_index") else (-1,)),
        ):
            with suppress(ForestageError):
                assert read({**sound, name: bad}) == expected, f"{name} = {bad!r} is read as something"


@pytest.mark.parametrize("entry", [True, "1", 1.0, None, -1])
def test_what_is_no_index_is_refused_in_a_list_of_them(entry: Any) -> None:
    document = {"model_type": "qwen3_moe", "dtype": "bfloat16", "mlp_only_layers": [0, entry]}
    with pytest.raises(ForestageError, match="mlp_only_layers: not a list of layer indices from 0 to"):
        model_of_config(document, "m", origin="config.json")


@pytest.mark.parametrize("entry", [True, 1, None])
def test_what_is_no_word_is_refused_in_a_list_of_them(entry: Any) -> None:
    types = ["sliding_attention", "full_attention"] * 2
    document = {
        "model_type": "gpt_oss",
        "dtype": "bfloat16",
        "num_hidden_layers": 4,
        "layer_types": [*types[:3], entry],
    }
    with pytest.raises(ForestageError, match="layer_types: not a list of 4 words, one a layer"):
        model_of_config(document, "m", origin="config.json")


def test_every_tiny_model_met_in_the_field_is_read_right(field_case: Callable[[str], Path]) -> None:
    folders = sorted(path for path in field_case("models").iterdir() if path.is_dir())
    assert len(folders) == 14
    for folder in folders:
        record = read_model_config(folder)
        routed, total = built(transformers.AutoConfig.from_pretrained(folder))
        assert (record.name, record.layer_map, record.parameters()) == (folder.name, routed, total)
        assert (record.experts, record.expert_weight_format) == (8, "fp32")


# What files in the wild look like


QWEN = {
    "model_type": "qwen3_moe", "hidden_size": 64, "num_hidden_layers": 4, "num_experts": 8, "num_experts_per_tok": 2,
    "moe_intermediate_size": 16, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 16, "decoder_sparse_step": 1, "mlp_only_layers": [], "hidden_act": "silu", "torch_dtype": "bfloat16",
    "vocab_size": 512, "tie_word_embeddings": False,
}  # fmt: skip


@pytest.mark.parametrize("experts", [4, 16])
def test_a_configuration_in_parts_is_read(experts: int) -> None:
    parts = {
        "ffn_config": {"ffn_hidden_size": 96, "moe_num_experts": experts, "moe_top_k": 2},
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 10000.0},
    }
    config = transformers.DbrxConfig(d_model=64, n_heads=4, n_layers=3, vocab_size=512, **parts)
    record = model_of_config(config.to_dict() | {"dtype": "bfloat16"}, "m", origin="config.json")
    with torch.device("meta"):
        model = transformers.DbrxForCausalLM(config)
    total = sum(parameter.numel() for parameter in model.parameters() if parameter.dim() >= 2)
    assert (record.layer_map, record.experts, record.top_k) == ((0, 1, 2), experts, 2)
    assert record.parameters() == total
    document = {"model_type": "dbrx", "n_layers": 3, "d_model": 64, "n_heads": 4}
    with pytest.raises(
        ForestageError, match="ffn_config: missing; a configuration of 'dbrx' has ffn_hidden_size, moe_"
    ):
        model_of_config(document, "m", origin="config.json")
    with pytest.raises(ForestageError, match=r"num_experts: missing"):
        model_of_config({**document, "ffn_config": {}, "attn_config": {}}, "m", origin="config.json")


def test_a_dense_model_is_called_one() -> None:
    dense = {
        key: value
        for key, value in QWEN.items()
        if "expert" not in key and key not in ("mlp_only_layers", "decoder_sparse_step", "moe_intermediate_size")
    }
    for model_type in ("llama", "mine"):
        with pytest.raises(ForestageError, match=rf"^config.json: model_type: '{model_type}' is a dense model"):
            model_of_config({**dense, "model_type": model_type}, "m", origin="config.json")


def test_parts_of_an_unknown_family_are_named() -> None:
    document = {"model_type": "mine", "num_hidden_layers": 2, "ffn": {"moe_num_experts": 4}}
    with pytest.raises(ForestageError, match=r"ffn\.moe_num_experts: is in a part of its own, and model_type 'mine'"):
        model_of_config(document, "m", origin="config.json")


def read(document: dict[str, Any], **changes: Any) -> ModelRecord:
    changed = {key: value for key, value in {**document, **changes}.items() if value is not ...}
    return model_of_config(changed, "m", origin="config.json")


def test_a_nested_text_model_is_found() -> None:
    outer = {"model_type": "qwen3_vl_moe", "text_config": {**QWEN, "model_type": "qwen3_vl_moe_text"}}
    assert read(outer).layer_map == (0, 1, 2, 3)
    assert read({"model_type": "qwen3_omni_moe", "thinker_config": {"text_config": QWEN}}).experts == 8
    silent = {
        key: value for key, value in QWEN.items() if key not in ("model_type", "torch_dtype", "tie_word_embeddings")
    }
    outer = {"model_type": "qwen3_vl_moe", "text_config": silent, "dtype": "float16", "tie_word_embeddings": True}
    record = read(outer)
    assert (record.expert_weight_format, record.tied_embeddings) == ("fp16", True)


@pytest.mark.parametrize(
    ("quantisation", "expected"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, ("fp8", 8 + 32 / 16384)),
        ({"quant_method": "fp8"}, ("fp8", 8.0)),
        ({"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]}, ("mxfp4", 4.25)),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, ("int4", 4 + 20 / 128)),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, ("int8", 8.0)),
        (
            {"quant_method": "compressed-tensors", "ignore": ["lm_head", "re:.*shared_experts.*"],
             "config_groups": {"0": {"weights": {"num_bits": 4, "type": "int", "group_size": 32}}}},
            ("int4", 4.5),
        ),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, ("nvfp4", 4.5)),
    ],
)  # fmt: skip
def test_weight_formats(quantisation: dict[str, Any], expected: tuple[str, float]) -> None:
    record = read(QWEN, quantization_config=quantisation)
    assert (record.expert_weight_format, record.bits_per_weight) == expected


MLX = {"group_size": 64, "bits": 4}


def test_formats_that_other_keys_state() -> None:
    """A key of another writer must not leave a quantised model with the size of an unquantised one."""
    record = read(QWEN, quantization=MLX, quantization_config=MLX)
    assert (record.expert_weight_format, record.bits_per_weight) == ("int4", 4.5)
    weights = {"num_bits": 4, "type": "int", "group_size": 128}
    older = {"quant_method": "compressed-tensors", "config_groups": {"0": {"weights": weights}}}
    assert read(QWEN, compression_config=older).bits_per_weight == 4 + 16 / 128
    for mixed in ({"model.layers.0.mlp": {"bits": 8}}, {"lm_head": False}, {"mode": "mxfp4"}, {"bits": 3}):
        with pytest.raises(ForestageError, match="quantization: its bits are not known, or differ"):
            read(QWEN, quantization={**MLX, **mixed})
    gptq = {"quant_method": "gptq", "bits": 4, "group_size": 128, "dynamic": {"-:.*experts.*": {}}}
    with pytest.raises(ForestageError, match="dynamic: bits that differ between modules"):
        read(QWEN, quantization_config=gptq)


UNKNOWN = {**QWEN, "model_type": "brand_new_moe", "decoder_sparse_step": ..., "mlp_only_layers": ...}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"first_k_dense_replace": 1}, (1, 2, 3)),
        ({"first_k_dense_replace": 1, "moe_layer_freq": 1}, (1, 2, 3)),
        ({"mlp_layer_types": ["dense", "sparse", "dense", "sparse"]}, (1, 3)),
        ({"moe_layer_freq": [0, 0, 1, 1]}, (2, 3)),
        ({"decoder_sparse_step": 2, "mlp_only_layers": [1]}, (3,)),
        ({"moe_layer_start_index": 1, "moe_layer_end_index": 2, "moe_layer_interval": 1}, (1, 2)),
    ],
)
def test_an_unknown_family_is_read_by_keys_that_leave_no_doubt(keys: dict[str, Any], expected: tuple[int, ...]) -> None:
    record = read(UNKNOWN, **keys)
    assert record.layer_map == expected
    assert record.attention is not None
    assert read(UNKNOWN, **keys, sliding_window=9).attention is None


@pytest.mark.parametrize("key", sorted(LAYER_RULE_KEYS))
def test_an_unknown_family_with_half_a_rule_or_two_is_refused(key: str) -> None:
    if key != "mlp_layer_types":
        for also in ({"num_dense_layers": 1}, {"expert_layer_period": 2}):
            with pytest.raises(ForestageError, match="cannot be relied on which layers have experts; add a list of 4"):
                read(UNKNOWN, **{key: 3, **also})


REFUSALS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no type": (QWEN, {"model_type": ...}, "model_type: missing"),
    "no rule": (UNKNOWN, {}, "mlp_layer_types: .*nothing in the file says which layers have experts; add a list of 4"),
    "no width": (
        UNKNOWN,
        {"first_k_dense_replace": 0, "moe_intermediate_size": ...},
        "intermediate_size may be another",
    ),
    "unknown, no experts": (UNKNOWN, {"first_k_dense_replace": 0, "num_experts": ...}, "num_experts: missing"),
    "unknown, no layers": (UNKNOWN, {"num_hidden_layers": ...}, "num_hidden_layers.*: missing"),
    "aliases differ": (QWEN, {"num_local_experts": 9}, "ambiguous: num_experts is 8, num_local_experts is 9"),
    "no dtype": (QWEN, {"torch_dtype": ...}, 'dtype: missing; .*"dtype": "bfloat16"'),
    "dtype": (QWEN, {"torch_dtype": "float8"}, "dtype: 'float8' is none of"),
    "text": (QWEN, {"hidden_size": "64"}, "hidden_size: '64' is no whole number"),
    "true": (QWEN, {"num_experts_per_tok": True}, "num_experts_per_tok: True is no whole number"),
    "negative": (QWEN, {"num_hidden_layers": -1}, "num_hidden_layers: -1 is no whole number"),
    "huge": (QWEN, {"num_hidden_layers": 10**9}, "no model has 1000000000 layers"),
    "top-k": (QWEN, {"num_experts_per_tok": 9}, r"top_k \(9\) exceeds experts \(8\)"),
    "all dense": (QWEN, {"mlp_only_layers": [0, 1, 2, 3]}, "no layer of this 'qwen3_moe' has experts"),
    "layers that are none": (
        QWEN,
        {"mlp_only_layers": [4]},
        "mlp_only_layers: not a list of layer indices from 0 to 3",
    ),
    "activation": (QWEN, {"hidden_act": "mish"}, "hidden_act: 'mish' is none of silu"),
    "nothing's experts": (QWEN, {"zero_expert_num": 3}, "zero_expert_num: experts that compute nothing"),
    "quantisation": (
        QWEN,
        {"quantization_config": {"quant_method": "odd"}},
        "quant_method 'odd' are not known; delete",
    ),
    "quantisation of no name": (QWEN, {"quantization_config": {"bits": 3}}, "quant_method 'none' are not known"),
    "experts left out": (
        QWEN,
        {"quantization_config": {"quant_method": "fp8", "ignore": ["model.layers.0.mlp.experts"]}},
        "leaves experts out",
    ),
    "list of another length": (
        {**QWEN, "model_type": "hunyuan_v1_moe", "moe_intermediate_size": ..., "num_experts_per_tok": ...},
        {"moe_topk": [2, 2]},
        "moe_topk: a list of 2 for 4 layers",
    ),
    "list that varies": (
        {**QWEN, "model_type": "hunyuan_v1_moe", "moe_intermediate_size": ..., "num_experts_per_tok": ...},
        {"moe_topk": [2, 2, 1, 2]},
        "moe_topk: differs from layer to layer",
    ),
    "two widths": (
        {**QWEN, "model_type": "mixtral"},
        {},
        r"moe_intermediate_size: is 16, but .* intermediate_size \(96\)",
    ),
    "frequency": (
        {**QWEN, "model_type": "glm4_moe"},
        {"moe_layer_freq": 2, "first_k_dense_replace": 1},
        "moe_layer_freq: 2 is read",
    ),
    "frequency against first": (
        {**QWEN, "model_type": "glm4_moe"},
        {"moe_layer_freq": [0, 0, 1, 1], "first_k_dense_replace": 1},
        "contradicts",
    ),
    "types": (
        {**QWEN, "model_type": "exaone_moe"},
        {"mlp_layer_types": ["dense", "odd", "sparse", "sparse"]},
        "'odd' is unknown",
    ),
    "types of another length": (
        {**QWEN, "model_type": "exaone_moe"},
        {"mlp_layer_types": ["dense"]},
        "mlp_layer_types: not a list of 4 words",
    ),
    "two shared": (
        UNKNOWN,
        {"first_k_dense_replace": 0, "n_shared_experts": 2, "shared_expert_intermediate_size": 32},
        "of all shared experts or of one",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_missing_or_in_doubt_is_refused_in_one_line(case: str) -> None:
    document, changes, message = REFUSALS[case]
    with pytest.raises(ForestageError, match=message) as caught:
        read(document, **changes)
    assert str(caught.value).startswith("config.json: ")
    assert "\n" not in str(caught.value)


ODD: tuple[Any, ...] = (None, True, 0, -1, 3, 1.5, "x", "", [], [1], ["x"], {}, {"a": 1}, 10**30, [[]], float("nan"))


EVERYTHING = {
    **QWEN,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "num_dense_layers": 1,
    "layer_types": ["full_attention"] * 4,
    "sliding_window": 3,
    "moe_layer_start_index": 0,
    "moe_layer_end_index": 2,
    "moe_layer_interval": 1,
    "num_layers": 2,
    "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
    "kv_lora_rank": 4,
    "qk_nope_head_dim": 4,
    "d_ff": 16,
    "qk_rope_head_dim": 4,
    "v_head_dim": 4,
    "q_lora_rank": 4,
    "no_rope_layers": [1, 1, 1, 1],
    "enable_moe_block": True,
    "text_config": None,
    "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128], "ignore": ["x"]},
}
"""The keys of many families at once."""


@pytest.mark.parametrize("family", [*sorted(FAMILIES), "unheard_of"])
def test_an_odd_value_anywhere_is_read_or_refused_in_one_line(family: str) -> None:
    document = {**EVERYTHING, "model_type": family}
    quantised = [
        {"quant_method": method, key: odd}
        for key in ("weight_block_size", "ignore", "bits", "group_size", "config_groups", "quant_method")
        for method in ("fp8", "awq", "compressed-tensors", "mxfp4")
        for odd in ODD
    ]
    changes = [{key: odd} for key in document for odd in ODD]
    changes += [{"quantization_config": given} for given in quantised] if family == "qwen3_moe" else []
    for change in changes:
        try:
            model_of_config({**document, **change}, "m", origin="config.json")
        except ForestageError as error:
            line = str(error)
            assert line.startswith("config.json: ") and "\n" not in line  # noqa: PT018


def test_files_and_names(tmp_path: Path) -> None:
    folder = tmp_path / "models--Qwen--Qwen9-1B-A1B" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(QWEN))
    assert read_model_config(folder).name == "Qwen/Qwen9-1B-A1B"
    assert read_model_config(folder / "config.json", "mine").name == "mine"
    own = tmp_path / "My-Model"
    own.mkdir()
    (own / "config.json").write_text(json.dumps(QWEN))
    assert read_model_config(own).name == "My-Model"
    (own / "config.json").write_text(json.dumps({**QWEN, "_name_or_path": "org/Name"}))
    assert read_model_config(own).name == "org/Name"
    for text, message in (("[1]", "no JSON object"), ("{", "no JSON"), ("[" * 100_000, "no JSON"), ("\xff", "no JSON")):
        (own / "config.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(ForestageError, match=rf"config\.json: {message}.*give a model's config\.json"):
            read_model_config(own)
    with pytest.raises(ForestageError, match=r"config\.json: cannot read the configuration"):
        read_model_config(tmp_path)
