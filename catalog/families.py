"""Families of mixture-of-experts models: which layers have experts, how wide the parts are, which attention they use.

Each rule is that of the family's configuration and modelling code in transformers 5.23 (``model_type`` names the
module), or, for the families that transformers does not have (marked), of their publishers' code. tests/catalog builds
every family's model and compares.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from catalog.attention import FixedState, GroupedQueryAttention, HybridAttention, LatentAttention
from catalog.config_fields import ConfigFields

Layers = tuple[int, ...]
AnyAttention = GroupedQueryAttention | LatentAttention | FixedState | HybridAttention

SPARSE = ("sparse", "moe", "hash_moe")
"""Words of ``mlp_layer_types`` for a layer with experts."""

LAYER_RULE_KEYS = (
    "mlp_layer_types", "first_k_dense_replace", "moe_layer_freq", "mlp_only_layers", "decoder_sparse_step",
    "moe_layer_start_index", "moe_layer_end_index", "moe_layer_interval", "num_dense_layers", "moe_layers",
    "interleave_moe_layer_step", "expert_layer_period", "expert_layer_offset", "moe_layer_num_skipped",
    "hybrid_override_pattern", "layers_block_type", "encoder_sparse_step", "moe_layers_enum", "moe_every_n_layers",
    "dense_layers", "use_moe", "is_moe", "enable_moe_block", "n_dense_layers", "num_dense_layers_before_moe",
)  # fmt: skip
"""Every key that says which layers have experts, in any family."""


# Which layers have experts: functions of the fields and the number of layers.


def all_layers(fields: ConfigFields, layers: int) -> Layers:
    """Every layer (mixtral, olmoe, gpt_oss, granitemoe …)."""
    return tuple(range(layers))


def by_mlp_layer_types(fields: ConfigFields, layers: int) -> Layers | None:
    """The layers that ``mlp_layer_types`` calls sparse; ``None`` if the file has no such list."""
    kinds = fields.words("mlp_layer_types", layers, ("dense", *SPARSE))
    return None if kinds is None else tuple(layer for layer, kind in enumerate(kinds) if kind in SPARSE)


def after_first(fields: ConfigFields, layers: int) -> Layers:
    """All but the first ``first_k_dense_replace`` (deepseek_v2, deepseek_v3, glm4_moe, dots1 …)."""
    found = tuple(range(fields.integer("first_k_dense_replace", least=0), layers))
    frequency = fields.get("moe_layer_freq")
    if isinstance(frequency, list):
        listed = by_frequency_list(fields, layers)
        if listed != found:
            raise fields.refuse("moe_layer_freq", "contradicts first_k_dense_replace; correct the file")
    elif frequency not in (None, 1):
        # DeepSeek's own code skips layers by it, transformers ignores it; every published model has 1.
        raise fields.refuse("moe_layer_freq", f"{frequency!r} is read differently by different code; only 1 is sure")
    return found


def typed_or_after_first(fields: ConfigFields, layers: int) -> Layers:
    """``mlp_layer_types``, else all but the first ``first_k_dense_replace`` (deepseek_v32, exaone_moe …)."""
    found = by_mlp_layer_types(fields, layers)
    return after_first(fields, layers) if found is None else found


def typed_or_after_first_or_one(fields: ConfigFields, layers: int) -> Layers:
    """``mlp_layer_types``, else all but the first ``first_k_dense_replace`` (default 1: kimi_linear)."""
    found = by_mlp_layer_types(fields, layers)
    if found is not None:
        return found
    return after_first(fields, layers) if fields.has("first_k_dense_replace") else tuple(range(1, layers))


def typed_or_all_but_first(fields: ConfigFields, layers: int) -> Layers:
    """``mlp_layer_types`` or a list ``moe_layer_freq``, else all but layer 0 (glm4_moe_lite, mimo_v2_flash, hy_v3)."""
    found = by_mlp_layer_types(fields, layers)
    if found is None and fields.has("moe_layer_freq") and isinstance(fields.get("moe_layer_freq"), list):
        found = by_frequency_list(fields, layers)
    if found is not None:
        return found
    if fields.has("first_k_dense_replace") and fields.integer("first_k_dense_replace", least=0) != 1:
        raise fields.refuse("first_k_dense_replace", "transformers makes layer 0 alone dense; give mlp_layer_types")
    return tuple(range(1, layers))


def by_frequency_list(fields: ConfigFields, layers: int) -> Layers:
    """``moe_layer_freq`` as a list with 0 or 1 per layer."""
    flags = fields.get("moe_layer_freq")
    if len(flags) != layers or any(flag not in (0, 1) for flag in flags):
        raise fields.refuse("moe_layer_freq", f"not a list of {layers} times 0 or 1")
    return tuple(layer for layer, flag in enumerate(flags) if flag)


def by_sparse_step(fields: ConfigFields, layers: int) -> Layers:
    """Every ``decoder_sparse_step``-th, counted from 1, without ``mlp_only_layers`` (qwen2_moe, qwen3_moe …)."""
    step = fields.integer("decoder_sparse_step")
    dense = fields.indices("mlp_only_layers", layers) or ()
    return tuple(layer for layer in range(layers) if layer not in dense and (layer + 1) % step == 0)


def by_interval(fields: ConfigFields, layers: int) -> Layers:
    """Between ``moe_layer_start_index`` and ``…_end_index``, every ``moe_layer_interval``-th from 1 (ernie4_5_moe)."""
    start, end = fields.integer("moe_layer_start_index", least=0), fields.integer("moe_layer_end_index", least=-1)
    step, stop = fields.integer("moe_layer_interval"), layers if end == -1 else min(end + 1, layers)
    return tuple(layer for layer in range(start, stop) if (layer + 1) % step == 0)


def after_dense(fields: ConfigFields, layers: int) -> Layers:
    """All but the first ``num_dense_layers`` (lfm2_moe, afmoe)."""
    return tuple(range(fields.integer("num_dense_layers", least=0), layers))


def interleaved(fields: ConfigFields, layers: int) -> Layers:
    """``moe_layers``, else every ``interleave_moe_layer_step``-th, counted from 1 (llama4_text)."""
    listed = fields.indices("moe_layers", layers)
    if listed is not None:
        return listed
    step = fields.integer("interleave_moe_layer_step")
    return tuple(range(step - 1, layers, step))


def by_period(fields: ConfigFields, layers: int) -> Layers:
    """Every ``expert_layer_period``-th from ``expert_layer_offset`` (jamba)."""
    period, offset = fields.integer("expert_layer_period"), fields.integer("expert_layer_offset", least=0)
    return tuple(layer for layer in range(layers) if layer % period == offset)


def where_enabled(fields: ConfigFields, layers: int) -> Layers:
    """All, or none without ``enable_moe_block`` (gemma4_text)."""
    return tuple(range(layers)) if fields.flag("enable_moe_block") else ()


def of_both_stacks(first: Callable[[int, int], bool]) -> Callable[[ConfigFields, int], Layers]:
    """``first`` for each layer of the encoder, then of the decoder, numbered through (switch_transformers …)."""

    def rule(fields: ConfigFields, layers: int) -> Layers:
        encoder, decoder = stacks(fields)
        steps = (sparse_step(fields, "encoder", encoder), sparse_step(fields, "decoder", decoder))
        found = [layer for layer in range(encoder) if first(layer, steps[0])]
        found += [encoder + layer for layer in range(decoder) if first(layer, steps[1])]
        assert encoder + decoder == layers
        return tuple(found)

    return rule


def stacks(fields: ConfigFields) -> tuple[int, int]:
    """Layers of the encoder and of the decoder."""
    if fields.family == "switch_transformers":
        encoder = fields.integer("num_layers")
        return encoder, (fields.integer("num_decoder_layers") if fields.has("num_decoder_layers") else encoder)
    return fields.integer("encoder_layers"), fields.integer("decoder_layers")


def sparse_step(fields: ConfigFields, stack: str, layers: int) -> int:
    """The n such that one in n layers of a stack has experts."""
    if fields.family != "switch_transformers":
        return fields.integer(f"{stack}_sparse_step")
    sparse = fields.integer(f"num_sparse_{stack}_layers", least=0)
    return layers // sparse if sparse else layers


def switch_layer(layer: int, step: int) -> bool:
    """Whether a layer of Switch Transformers has experts."""
    return step > 0 and (step == 1 or layer % step == 1)


def nllb_layer(layer: int, step: int) -> bool:
    """Whether a layer of NLLB-MoE has experts."""
    return step > 0 and (layer + 1) % step == 0


# Total width of all shared experts; 0: there are none.


def no_shared(fields: ConfigFields, width: int) -> int:
    """There are no shared experts."""
    return 0


def counted_shared(fields: ConfigFields, width: int) -> int:
    """A number of shared experts, each as wide as a routed one (deepseek_v3, glm4_moe, ernie4_5_moe …)."""
    return (fields.optional("shared", least=0) or 0) * width


def wide_shared(fields: ConfigFields, width: int) -> int:
    """One shared expert with a width of its own (qwen2_moe, qwen3_next, granitemoeshared …)."""
    return fields.optional("shared_width", least=0) or 0


def one_shared(fields: ConfigFields, width: int) -> int:
    """One shared expert as wide as ``intermediate_size`` (llama4_text, hunyuan_v1_moe; gemma4_text's dense part)."""
    count = fields.same_in_all_layers("shared", fields.integer("layers"), least=0)
    if count not in (None, 1):
        raise fields.refuse("num_shared_expert", f"{count}, but transformers builds one; which holds is not known")
    return fields.integer("intermediate_size")


# Attention: functions of the fields and the number of layers; None if a record cannot express it.


def grouped(fields: ConfigFields, layers: int) -> AnyAttention:
    """The same grouped-query attention in every layer, or windows and chunks by ``layer_types``."""
    plain = _grouped(fields)
    kinds = fields.get("layer_types")
    if kinds is None:
        return _windowed(fields, plain)
    known = ("full_attention", "sliding_attention", "chunked_attention", "global", "attention")
    names = fields.words("layer_types", layers, known)
    assert names is not None
    variants: dict[str, Any] = dict.fromkeys(names, plain)
    if "sliding_attention" in variants:
        variants["sliding_attention"] = plain.model_copy(update={"window": fields.integer("sliding_window")})
    if "chunked_attention" in variants:
        variants["chunked_attention"] = plain.model_copy(update={"chunk": fields.integer("attention_chunk_size")})
    return hybrid(variants, names)


def _grouped(fields: ConfigFields, **more: Any) -> GroupedQueryAttention:
    heads = fields.integer("query_heads")
    dim = fields.optional("head_dim")
    if dim is None:
        dim = fields.integer("hidden") // heads  # rounded down, as transformers does
    kv_heads = fields.optional("num_key_value_heads") or heads
    return GroupedQueryAttention(query_heads=heads, kv_heads=kv_heads, head_dim=dim, **more)


def _windowed(fields: ConfigFields, plain: GroupedQueryAttention) -> GroupedQueryAttention:
    """``plain`` with the ``sliding_window``, if the family's masks use it and it is switched on."""
    if fields.family not in {"mixtral", "phimoe", "qwen3_moe"} or fields.get("use_sliding_window") is False:
        return plain
    window = fields.optional("sliding_window", least=0)
    return plain.model_copy(update={"window": window}) if window else plain


def hybrid(variants: Mapping[str, Any], names: tuple[str, ...]) -> AnyAttention:
    """Layers of the kinds ``names``, stored as their shortest repeating pattern."""
    used = {name: variants[name] for name in names}
    if len(set(used.values())) == 1:
        only: AnyAttention = next(iter(used.values()))
        return only
    length = next(n for n in range(1, len(names) + 1) if all(names[i] == names[i % n] for i in range(len(names))))
    return HybridAttention(kind="hybrid", kinds=used, pattern=names[:length])


Rule = Callable[[ConfigFields, int], AnyAttention | None]


def generated(pattern: Callable[[ConfigFields, int], str], attention: Rule) -> Rule:
    """``attention`` with the ``layer_types`` that the configuration class makes if the file has none."""

    def rule(fields: ConfigFields, layers: int) -> AnyAttention | None:
        if not fields.has("layer_types"):
            fields.defaulted.add("layer_types")
            made = [pattern(fields, layer) for layer in range(layers)]
            fields = replace(fields, values={**fields.values, "layer_types": made})
        return attention(fields, layers)

    return rule


def every_fourth_full(fields: ConfigFields, layer: int) -> str:
    """Linear attention but for every fourth layer (qwen3_next, qwen3_5_moe)."""
    interval = fields.optional("full_attention_interval") or 4
    return "linear_attention" if (layer + 1) % interval else "full_attention"


def sliding_first(fields: ConfigFields, layer: int) -> str:
    """A window in every second layer (gpt_oss)."""
    return "sliding_attention" if (layer + 1) % 2 else "full_attention"


def every_nth_full(key: str) -> Callable[[ConfigFields, int], str]:
    """A window but for every n-th layer (afmoe: ``global_attn_every_n_layers``)."""

    def pattern(fields: ConfigFields, layer: int) -> str:
        return "sliding_attention" if (layer + 1) % fields.integer(key) else "full_attention"

    return pattern


def qwen2_windows(fields: ConfigFields, layer: int) -> str:
    """A window in every second layer below ``max_window_layers``, if it is switched on (qwen2_moe)."""
    if not fields.flag("use_sliding_window") or not fields.optional("sliding_window", least=0):
        return "full_attention"
    below = layer < fields.integer("max_window_layers", least=0)
    return "sliding_attention" if below and layer % 2 == 0 else "full_attention"


def dots_windows(fields: ConfigFields, layer: int) -> str:
    """A window in the layers from ``max_window_layers`` on, if there is one (dots1)."""
    window = fields.get("sliding_window")
    last = fields.integer("max_window_layers", least=0)
    return "sliding_attention" if window is not None and layer >= last else "full_attention"


def llama4_chunks(fields: ConfigFields, layer: int) -> str:
    """Chunks in the layers with rotary positions (llama4_text)."""
    rotates = fields.get("no_rope_layers")
    if isinstance(rotates, list) and rotates:
        chunked = bool(rotates[layer]) if layer < len(rotates) else None
        if chunked is None:
            raise fields.refuse("no_rope_layers", f"has no entry for layer {layer}")
    else:
        chunked = bool((layer + 1) % (fields.optional("no_rope_layer_interval") or 4))
    return "chunked_attention" if chunked else "full_attention"


def gemma4_windows(fields: ConfigFields, layer: int) -> str:
    """A window but for every sixth layer (gemma4_text)."""
    return "sliding_attention" if (layer + 1) % 6 else "full_attention"


def gemma4(fields: ConfigFields, layers: int) -> AnyAttention | None:
    """Windows and whole-context layers, which have heads of different shapes (gemma4_text)."""
    if fields.optional("num_kv_shared_layers", least=0):
        return None
    names = list(fields.words("layer_types", layers, ("full_attention", "sliding_attention")) or ())
    names[-1] = "full_attention"  # as the class forces it
    shared = fields.flag("attention_k_eq_v")
    plain = _grouped(fields)
    if fields.has("per_layer_config"):  # transformers 5 writes per-layer values here
        given = fields.get("per_layer_config")
        full_layers = {str(layer) for layer, name in enumerate(names) if name == "full_attention"}
        if not isinstance(given, dict) or set(given) != full_layers or len({str(own) for own in given.values()}) != 1:
            return None
        own = next(iter(given.values()))
        if not isinstance(own, dict) or not set(own) <= {"head_dim", "num_key_value_heads"}:
            return None
        head_dim, kv_heads = own.get("head_dim"), own.get("num_key_value_heads")
    else:
        head_dim = fields.optional("global_head_dim") or 512
        kv_heads = fields.optional("num_global_key_value_heads") if shared else None
    full = {
        "head_dim": head_dim or plain.head_dim,
        "kv_heads": kv_heads or plain.kv_heads,
        "key_is_value": shared,
    }
    window = plain.model_copy(update={"window": fields.integer("sliding_window")})
    return hybrid({"sliding_attention": window, "full_attention": plain.model_copy(update=full)}, tuple(names))


def gated_delta(fields: ConfigFields, layers: int) -> AnyAttention:
    """Gated delta nets and gated attention (qwen3_next, qwen3_5_moe_text)."""
    names = fields.words("layer_types", layers, ("full_attention", "linear_attention"))
    assert names is not None
    linear = FixedState.gated_delta_net(
        hidden=fields.integer("hidden"),
        key_heads=fields.integer("linear_num_key_heads"),
        value_heads=fields.integer("linear_num_value_heads"),
        key_dim=fields.integer("linear_key_head_dim"),
        value_dim=fields.integer("linear_value_head_dim"),
        kernel=fields.integer("linear_conv_kernel_dim"),
    )
    return hybrid({"full_attention": _grouped(fields, output_gate=True), "linear_attention": linear}, names)


def gated_windows(fields: ConfigFields, layers: int) -> AnyAttention:
    """Windows and the whole context, each with a gate (afmoe)."""
    names = fields.words("layer_types", layers, ("full_attention", "sliding_attention"))
    assert names is not None
    plain = _grouped(fields, output_gate=True)
    window = plain.model_copy(update={"window": fields.integer("sliding_window")})
    return hybrid({"full_attention": plain, "sliding_attention": window}, names)


def jamba(fields: ConfigFields, layers: int) -> AnyAttention:
    """Mamba, and attention every ``attn_layer_period``-th layer from ``attn_layer_offset``."""
    hidden = fields.integer("hidden")
    rank = fields.get("mamba_dt_rank")
    mamba = FixedState.mamba(
        hidden=hidden,
        inner=fields.integer("mamba_expand") * hidden,
        state=fields.integer("mamba_d_state"),
        rank=-(-hidden // 16) if rank in (None, "auto") else fields.integer("mamba_dt_rank"),
        kernel=fields.integer("mamba_d_conv"),
    )
    period, offset = fields.integer("attn_layer_period"), fields.integer("attn_layer_offset", least=0)
    names = tuple("attention" if layer % period == offset else "mamba" for layer in range(layers))
    return hybrid({"attention": _grouped(fields), "mamba": mamba}, names)


def granite_hybrid(fields: ConfigFields, layers: int) -> AnyAttention:
    """Mamba-2, and attention where ``layer_types`` says so (granitemoehybrid)."""
    own = "layers_block_type" if fields.has("layers_block_type") else "layer_types"
    names = fields.words(own, layers, ("mamba", "linear_attention", "attention", "full_attention"))
    if names is None:
        fields.defaulted.add("layer_types")
        names = ("mamba",) * layers
    hidden, heads = fields.integer("hidden"), fields.integer("mamba_n_heads")
    dim = fields.get("mamba_d_head")
    mamba = FixedState.mamba2(
        hidden=hidden,
        heads=heads,
        head_dim=fields.integer("mamba_expand") * hidden // heads
        if dim in (None, "auto")
        else fields.integer("mamba_d_head"),
        groups=fields.integer("mamba_n_groups"),
        state=fields.integer("mamba_d_state"),
        kernel=fields.integer("mamba_d_conv"),
    )
    kinds = tuple("attention" if name in ("attention", "full_attention") else "mamba" for name in names)
    return hybrid({"attention": _grouped(fields), "mamba": mamba}, kinds)


def lfm2(fields: ConfigFields, layers: int) -> AnyAttention:
    """Short convolutions, and attention where ``layer_types`` says so (lfm2_moe)."""
    names = fields.words("layer_types", layers, ("conv", "full_attention"))
    if names is None:
        raise fields.refuse("layer_types", "missing, and the class has no default; add it to the file")
    kernel = fields.integer("conv_L_cache")
    convolution = FixedState.short_convolution(hidden=fields.integer("hidden"), kernel=kernel)
    return hybrid({"full_attention": _grouped(fields), "conv": convolution}, names)


def minimax(fields: ConfigFields, layers: int) -> AnyAttention:
    """Lightning attention, and attention where ``layer_types`` says so (minimax)."""
    names = fields.words("layer_types", layers, ("full_attention", "linear_attention"))
    assert names is not None
    plain = _grouped(fields)
    linear = FixedState.lightning(hidden=fields.integer("hidden"), heads=plain.query_heads, head_dim=plain.head_dim)
    return hybrid({"full_attention": plain, "linear_attention": linear}, names)


def alternating(fields: ConfigFields, layer: int) -> str:
    """The whole context in every second layer, from the first (minimax)."""
    return "linear_attention" if layer % 2 else "full_attention"


def latent(fields: ConfigFields, layers: int) -> AnyAttention:
    """Multi-head latent attention (deepseek_v2, deepseek_v3, glm4_moe_lite, mistral4)."""
    return LatentAttention(kind="mla", **_latent(fields))


def indexed_latent(fields: ConfigFields, layers: int) -> AnyAttention:
    """Multi-head latent attention behind an indexer (deepseek_v32, glm_moe_dsa)."""
    index = {
        "index_heads": fields.integer("index_n_heads"),
        "index_dim": fields.integer("index_head_dim"),
        "index_top_k": fields.integer("index_topk"),
    }
    return LatentAttention(kind="mla", **_latent(fields), **index)


def _latent(fields: ConfigFields) -> dict[str, int]:
    return {
        "query_heads": fields.integer("query_heads"),
        "query_rank": fields.optional("q_lora_rank", least=0) or 0,
        "kv_rank": fields.integer("kv_lora_rank"),
        "nope_dim": fields.integer("qk_nope_head_dim"),
        "rope_dim": fields.integer("qk_rope_head_dim"),
        "value_dim": fields.integer("v_head_dim"),
    }


def two_stacks(fields: ConfigFields, layers: int) -> AnyAttention:
    """An encoder's self-attention, then a decoder's self- and cross-attention (switch_transformers, nllb-moe)."""
    encoder, decoder = stacks(fields)
    if fields.family == "switch_transformers":
        heads, dim = fields.integer("query_heads"), fields.integer("d_kv")
        shapes = [(heads, dim), (heads, dim)]
    else:
        width = fields.integer("hidden")
        shapes = [
            (fields.integer(f"{stack}_attention_heads"), width // fields.integer(f"{stack}_attention_heads"))
            for stack in ("encoder", "decoder")
        ]
    kinds = {
        name: GroupedQueryAttention(query_heads=heads, kv_heads=heads, head_dim=dim, cross=name == "decoder")
        for name, (heads, dim) in zip(("encoder", "decoder"), shapes, strict=True)
    }
    return hybrid(kinds, ("encoder",) * encoder + ("decoder",) * decoder)


def unknown(fields: ConfigFields, layers: int) -> None:
    """Attention of a kind that a record cannot express yet."""
    return


@dataclass(frozen=True)
class Family:
    """How to read the configuration of one ``model_type``.

    Attributes:
        layers: which layers have experts.
        attention: which attention the layers use.
        width: field of an expert's width.
        dense: field of the width of a layer without experts.
        shared: width of all shared experts together.
        matrices: number of matrices in an expert.
        bias: every expert matrix has a bias.
        activation: the experts' activation, if the family has only one.
        source: the code from which the rule was taken.
    """

    layers: Callable[[ConfigFields, int], Layers]
    attention: Rule
    width: str = "moe_intermediate_size"
    dense: str | None = "intermediate_size"
    shared: Callable[[ConfigFields, int], int] = no_shared
    matrices: int = 3
    bias: bool = False
    activation: str | None = None
    source: str = "transformers 5.23"


_DEEPSEEK = Family(after_first, latent, shared=counted_shared)
_QWEN = Family(by_sparse_step, grouped)
_LING = Family(after_first, grouped, shared=counted_shared, source="inclusionAI's modelling code of Ling")

FAMILIES: dict[str, Family] = {
    "afmoe": Family(
        after_dense, generated(every_nth_full("global_attn_every_n_layers"), gated_windows), shared=counted_shared
    ),
    "bailing_hybrid": Family(typed_or_after_first, unknown, shared=counted_shared),
    "bailing_moe": _LING,
    "bailing_moe_v2": _LING,
    "dbrx": Family(all_layers, grouped, width="intermediate_size", dense=None, activation="swiglu"),
    "deepseek_v2": _DEEPSEEK,
    "deepseek_v3": _DEEPSEEK,
    "deepseek_v32": Family(typed_or_after_first, indexed_latent, shared=counted_shared),
    "dots1": Family(after_first, generated(dots_windows, grouped), shared=counted_shared),
    "ernie4_5_moe": Family(by_interval, grouped, shared=counted_shared),
    "exaone_moe": Family(typed_or_after_first, unknown, shared=counted_shared),
    "flex_olmo": Family(all_layers, grouped, width="intermediate_size", dense=None),
    "gemma4_text": Family(where_enabled, generated(gemma4_windows, gemma4), shared=one_shared, dense=None),
    "glm4_moe": Family(after_first, grouped, shared=counted_shared),
    "glm4_moe_lite": Family(typed_or_all_but_first, latent, shared=counted_shared),
    "glm4v_moe_text": Family(after_first, grouped, shared=counted_shared),
    "glm_moe_dsa": Family(typed_or_after_first, indexed_latent, shared=counted_shared),
    "gpt_oss": Family(
        all_layers, generated(sliding_first, grouped), width="intermediate_size", dense=None, bias=True,
        activation="gpt_oss_swiglu",
    ),
    "granitemoe": Family(all_layers, grouped, width="intermediate_size", dense=None),
    "granitemoehybrid": Family(all_layers, granite_hybrid, width="intermediate_size", dense=None, shared=wide_shared),
    "granitemoeshared": Family(all_layers, grouped, width="intermediate_size", dense=None, shared=wide_shared),
    "hunyuan_v1_moe": Family(all_layers, grouped, width="intermediate_size", dense=None, shared=one_shared),
    "hy_v3": Family(typed_or_all_but_first, grouped, shared=counted_shared),
    "jamba": Family(by_period, jamba, width="intermediate_size"),
    "kimi_k2": Family(after_first, latent, shared=counted_shared, source="Moonshot's configuration (DeepSeek-V3's)"),
    "kimi_linear": Family(typed_or_after_first_or_one, unknown, shared=counted_shared),
    "lfm2_moe": Family(after_dense, lfm2, activation="swiglu"),
    "llama4_text": Family(
        interleaved, generated(llama4_chunks, grouped), width="intermediate_size", dense="intermediate_size_mlp",
        shared=one_shared,
    ),
    "mimo_v2_flash": Family(typed_or_all_but_first, unknown),
    "minimax": Family(all_layers, generated(alternating, minimax), width="intermediate_size", dense=None),
    "minimax_m2": Family(all_layers, grouped, width="intermediate_size", dense=None),
    "mistral4": Family(after_first, latent, shared=counted_shared),
    "mixtral": Family(all_layers, grouped, width="intermediate_size", dense=None),
    "nllb-moe": Family(
        of_both_stacks(nllb_layer), two_stacks, width="encoder_ffn_dim", dense="encoder_ffn_dim", matrices=2, bias=True
    ),
    "olmoe": Family(all_layers, grouped, width="intermediate_size", dense=None),
    "phimoe": Family(all_layers, grouped, width="intermediate_size", dense=None),
    "qwen2_moe": Family(by_sparse_step, generated(qwen2_windows, grouped), shared=wide_shared),
    "qwen3_5_moe_text": Family(all_layers, generated(every_fourth_full, gated_delta), shared=wide_shared, dense=None),
    "qwen3_moe": _QWEN,
    "qwen3_next": Family(by_sparse_step, generated(every_fourth_full, gated_delta), shared=wide_shared),
    "qwen3_omni_moe_text": _QWEN,
    "qwen3_vl_moe_text": _QWEN,
    "solar_open": Family(all_layers, grouped, shared=counted_shared, dense=None),
    "switch_transformers": Family(
        of_both_stacks(switch_layer), two_stacks, width="d_ff", dense="d_ff", matrices=2
    ),
}  # fmt: skip
"""``model_type`` of the (nested) text model → how to read its configuration."""

NESTED_FIELDS = {
    "dbrx": {
        "ffn_config": {
            "ffn_hidden_size": "intermediate_size", "moe_num_experts": "num_experts",
            "moe_top_k": "num_experts_per_tok",
        },
        "attn_config": {"kv_n_heads": "num_key_value_heads"},
    },
}  # fmt: skip
"""``model_type`` → nested parts of its configuration, and the usual names of their fields (DbrxConfig's
``DbrxFFNConfig`` and ``DbrxAttentionConfig`` in transformers)."""

SYNONYMS = {
    "qwen3_5_moe": "qwen3_5_moe_text", "qwen3_vl_moe": "qwen3_vl_moe_text", "qwen3_omni_moe": "qwen3_omni_moe_text",
    "llama4": "llama4_text", "gemma4": "gemma4_text", "glm4v_moe": "glm4v_moe_text", "kimi_k25": "kimi_k2",
    "kimi_vl": "deepseek_v3",
}  # fmt: skip
"""Outer ``model_type`` → the nested text model's, where that does not name itself."""
