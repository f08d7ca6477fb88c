"""Names in the wild: which record's bytes they mean, which record's shape, or none's."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog import load_catalog
from catalog.names import formats_of, key, stems_of, tunings_of

CATALOG = load_catalog()

SAME_BYTES = {
    "openai/gpt-oss-20b": "gpt-oss-20b",
    "gpt_oss_120b": "gpt-oss-120b",
    "deepseek-ai/DeepSeek-V2-Lite-Chat": "DeepSeek-V2-Lite",
    "deepseek-ai/DeepSeek-Coder-V2-Lite-Instruct": "DeepSeek-V2-Lite",
    "deepseek-ai/DeepSeek-V3-0324": "DeepSeek-V3",
    "deepseek-ai/DeepSeek-R1-0528": "DeepSeek-V3",
    "deepseek-ai/DeepSeek-V3.1": "DeepSeek-V3",
    "deepseek-ai/DeepSeek-V3.1-Base": "DeepSeek-V3",
    "deepseek-ai/DeepSeek-V3.1-Terminus": "DeepSeek-V3",
    "deepseek-ai/DeepSeek-V3.2-Exp": "DeepSeek-V3.2",
    "deepseek-ai/DeepSeek-V2-Chat-0628": "DeepSeek-V2",
    "Qwen/Qwen3-30B-A3B": "Qwen3-30B-A3B",
    "Qwen/Qwen3-30B-A3B-Instruct-2507": "Qwen3-30B-A3B",
    "Qwen/Qwen3-30B-A3B-Thinking-2507": "Qwen3-30B-A3B",
    "Qwen/Qwen3-30B-A3B-Base": "Qwen3-30B-A3B",
    "Qwen/Qwen3-Coder-30B-A3B-Instruct": "Qwen3-30B-A3B",
    "unsloth/Qwen3-Coder-30B-A3B-Instruct": "Qwen3-30B-A3B",
    "Qwen/Qwen3-235B-A22B-Instruct-2507": "Qwen3-235B-A22B",
    "Qwen/Qwen3-Coder-480B-A35B-Instruct": "Qwen3-Coder-480B-A35B",
    "Qwen/Qwen3-Next-80B-A3B-Thinking": "Qwen3-Next-80B-A3B",
    "Qwen/Qwen3.5-35B-A3B-Base": "Qwen3.5-35B-A3B",
    "Qwen/Qwen3.6-35B-A3B": "Qwen3.5-35B-A3B",
    "Qwen/Qwen1.5-MoE-A2.7B-Chat": "Qwen1.5-MoE-A2.7B",
    "Qwen/Qwen2-57B-A14B-Instruct": "Qwen2-57B-A14B",
    "mistralai/Mixtral-8x7B-Instruct-v0.1": "Mixtral-8x7B",
    "mistralai/Mixtral-8x22B-v0.3": "Mixtral-8x22B",
    "mistralai/mixtral_8x22b_instruct_v0.1": "Mixtral-8x22B",
    "zai-org/GLM-4.5": "GLM-4.5",
    "zai-org/GLM-4.7": "GLM-4.5",
    "zai-org/GLM-4.5-Air-Base": "GLM-4.5-Air",
    "moonshotai/Kimi-K2-Instruct-0905": "Kimi-K2",
    "moonshotai/Kimi-K2-Thinking": "Kimi-K2-Thinking",
    "moonshotai/Moonlight-16B-A3B-Instruct": "Moonlight-16B-A3B",
    "MiniMaxAI/MiniMax-M2": "MiniMax-M2",
    "ibm-granite/granite-3.1-1b-a400m-instruct": "granite-3.1-1b-a400m",
    "ibm-granite/granite-4.0-h-small-base": "granite-4.0-h-small",
    "microsoft/Phi-3.5-MoE-instruct": "Phi-3.5-MoE",
    "ai21labs/AI21-Jamba-1.5-Mini": "Jamba-v0.1",
    "meta-llama/Llama-4-Scout-17B-16E-Instruct": "Llama-4-Scout-17B-16E",
    "baidu/ERNIE-4.5-21B-A3B-PT": "ERNIE-4.5-21B-A3B",
    "baidu/ERNIE-4.5-300B-A47B-Base-Paddle": "ERNIE-4.5-300B-A47B",
    "tencent/Hunyuan-A13B-Instruct": "Hunyuan-A13B",
    "allenai/OLMoE-1B-7B-0125-Instruct": "OLMoE-1B-7B",
    "LiquidAI/LFM2-8B-A1B": "LFM2-8B-A1B",
    "rednote-hilab/dots.llm1.inst": "dots.llm1",
    "/data/models/Qwen3-30B-A3B/": "Qwen3-30B-A3B",
    "./Mixtral-8x7B-v0.1": "Mixtral-8x7B",
    "C:\\models\\OLMoE-1B-7B-0924": "OLMoE-1B-7B",
    "/models/hub/models--Qwen--Qwen3-30B-A3B/snapshots/ad44e777bcd18fa416d9da3bd8f70d33ebb85d39":
        "Qwen3-30B-A3B",
    "models--deepseek-ai--DeepSeek-R1-0528/snapshots/0123456789012345678901234567890123456789": "DeepSeek-V3",
    "mirror/Qwen3-30B-A3B/main": "Qwen3-30B-A3B",
    "mirror/Qwen3-30B-A3B/snapshots/ad44e777bcd18fa416d9da3bd8f70d33ebb85d39": "Qwen3-30B-A3B",
    "qwen3 30b a3b": "Qwen3-30B-A3B",
    "qwen3:30b-a3b": None,
    "Qwen3-30B-A3B-Q4_K_M.gguf": "Qwen3-30B-A3B-Q4_K_M",
}  # fmt: skip
"""Name → the record whose experts have the same bytes."""

SAME_SHAPE = {
    "Qwen/Qwen3-30B-A3B-FP8": "Qwen3-30B-A3B",
    "Qwen/Qwen3-30B-A3B-GPTQ-Int4": "Qwen3-30B-A3B",
    "unsloth/Qwen3-30B-A3B-Instruct-2507-GGUF": "Qwen3-30B-A3B",
    "Qwen3-30B-A3B-Instruct-2507-UD-Q4_K_XL.gguf": "Qwen3-30B-A3B",
    "mlx-community/Qwen3-30B-A3B-4bit": "Qwen3-30B-A3B",
    "lmstudio-community/Qwen3-30B-A3B-MLX-4bit": "Qwen3-30B-A3B",
    "bartowski/Qwen_Qwen3-30B-A3B-Instruct-2507-GGUF": "Qwen3-30B-A3B",
    "Qwen_Qwen3-235B-A22B-Q2_K-00001-of-00002.gguf": "Qwen3-235B-A22B",
    "TheBloke/Mixtral-8x7B-Instruct-v0.1-AWQ": "Mixtral-8x7B",
    "TheBloke/Mixtral-8x7B-v0.1-GPTQ": "Mixtral-8x7B",
    "cpatonn/GLM-4.5-Air-AWQ-4bit": "GLM-4.5-Air",
    "zai-org/GLM-4.5-FP8": "GLM-4.5",
    "nvidia/DeepSeek-R1-0528-NVFP4": "DeepSeek-V3",
    "deepseek-ai/DeepSeek-V3-bf16": "DeepSeek-V3",
    "unsloth/gpt-oss-20b-BF16": "gpt-oss-20b",
    "gpt-oss-120b-MXFP4-MoE": "gpt-oss-120b",
    "google/gemma-4-26B-A4B-it": "gemma-4-26B-A4B",
    "neuralmagic/Mixtral-8x22B-Instruct-v0.1-quantized.w4a16": "Mixtral-8x22B",
    "RedHatAI/Qwen3-30B-A3B-FP8-dynamic": "Qwen3-30B-A3B",
    "Qwen1.5-MoE-A2.7B-Chat-GPTQ-Int4": "Qwen1.5-MoE-A2.7B",
}
"""Name → the record of the same layers, experts and top-k, most with other bytes."""

NONE = (
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B",
    "deepseek-ai/DeepSeek-V4-Flash",
    "deepseek-ai/deepseek-moe-16b-base",
    "cerebras/GLM-4.5-Air-REAP-82B-A12B",
    "cerebras/Qwen3-Coder-REAP-25B-A3B",
    "kalomaze/Qwen3-16B-A3B",
    "Qwen/Qwen3-32B",
    "Qwen/Qwen3-30B",
    "DavidAU/Qwen3-30B-A1.5B-High-Speed",
    "mistralai/Mixtral-8x7",
    "mistralai/Mistral-7B-Instruct-v0.1",
    "cognitivecomputations/dolphin-2.5-mixtral-8x7b",
    "zai-org/GLM-4.5V",
    "zai-org/GLM-4-9B",
    "openai/gpt-oss",
    "openai/gpt-oss-safeguard-40b",
    "moonshotai/Kimi-Linear-48B-A3B-Instruct",
    "mfarisadip/Kimi-K2-Mini",
    "google/gemma-4-31B-it",
    "meta-llama/Llama-4-Behemoth",
    "google/switch-base-8",
    "xai-org/grok-1",
    "instruct",
    "-gguf",
    "",
)


@pytest.mark.parametrize("name", [name for name, record in SAME_BYTES.items() if record is not None])
def test_a_name_means_the_bytes_of_one_record(name: str) -> None:
    found = CATALOG.match_model(name)
    assert found is not None
    assert found.name == SAME_BYTES[name]
    assert CATALOG.match_shape(name) is found


@pytest.mark.parametrize("name", SAME_SHAPE)
def test_another_weight_format_has_the_shape_of_its_model_and_not_its_bytes(name: str) -> None:
    found = CATALOG.match_shape(name)
    assert found is not None
    assert found.name == SAME_SHAPE[name]
    if name != "google/gemma-4-26B-A4B-it":  # its bytes are its own
        assert CATALOG.match_model(name) is None


@pytest.mark.parametrize("name", NONE)
def test_what_no_record_is_of_matches_none(name: str) -> None:
    assert CATALOG.match_model(name) is None
    assert CATALOG.match_shape(name) is None


def test_an_alias_means_its_own_record_and_no_other() -> None:
    for record in CATALOG.models:
        for name in (record.name, *record.aliases):
            for spelt in (
                name,
                name.lower(),
                name.upper(),
                f"someone/{name}",
                name.replace("-", "_"),
                f"{name}-Instruct",
            ):
                assert CATALOG.match_model(spelt) is record, spelt
            shape = CATALOG.match_shape(f"someone/{name}-GGUF")
            assert shape is not None
            assert (shape.layers, shape.dense_layers, shape.experts, shape.top_k) == (
                record.layers, record.dense_layers, record.experts, record.top_k
            )  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([record.name for record in CATALOG.models]),
    st.lists(st.sampled_from(["-Instruct", "-it", "-2507", "-v0.1", "-GGUF", "-FP8", "-4bit", "-Q4_K_M"]), max_size=4),
    st.sampled_from(["", "org/", "/mnt/x/", "models--a--"]),
)  # fmt: skip
def test_endings_never_lead_to_another_shape(name: str, endings: list[str], before: str) -> None:
    record, found = CATALOG.models.find(name), CATALOG.match_shape(before + name + "".join(endings))
    assert found is not None
    assert (found.layers, found.dense_layers, found.experts, found.top_k) == (
        record.layers, record.dense_layers, record.experts, record.top_k
    )  # fmt: skip
    exact = CATALOG.match_model(before + name + "".join(endings))
    if exact is not None and exact is not record:  # the bytes of a record that names the format
        assert key(exact.name) in (key(record.name), *(f"{stem}-q4-k-m" for stem in formats_of(record.name)))


@given(st.text(max_size=40))
def test_any_text_is_a_name(text: str) -> None:
    assert next(tunings_of(text)) == next(stems_of(text)) == key(text)
    assert CATALOG.match_model(text) in (None, CATALOG.match_shape(text))
