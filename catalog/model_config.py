"""A Hugging Face ``config.json`` → a `ModelRecord`.

Each family of ``catalog.families`` is read by its own rules; a key that the file lacks takes the default of the
family's configuration class, and the record says so. Any other ``model_type`` is read by the keys that mean the same
everywhere; if one is missing or ambiguous, the file is refused: a wrong guess (above all of the number of layers with
experts) would make everything that follows wrong.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from catalog.config_fields import ALIASES, ConfigFields
from catalog.errors import ForestageError
from catalog.families import (
    FAMILIES,
    LAYER_RULE_KEYS,
    NESTED_FIELDS,
    SYNONYMS,
    Family,
    by_frequency_list,
    by_interval,
    by_mlp_layer_types,
    by_sparse_step,
    counted_shared,
    grouped,
    latent,
    no_shared,
    stacks,
    wide_shared,
)  # fmt: skip
from catalog.family_defaults import DEFAULTS
from catalog.json_text import parse_json
from catalog.models import ModelRecord
from catalog.weight_formats import expert_format

NESTED = ("text_config", "thinker_config", "language_config", "llm_config")
"""Keys under which configurations of several modalities keep the text model."""

ACTIVATIONS = {
    "silu": "swiglu", "swish": "swiglu", "gelu": "geglu", "gelu_pytorch_tanh": "geglu", "gelu_new": "geglu",
    "relu": "relu", "relu2": "relu2",
}  # fmt: skip
"""A configuration's activation function → the record's name for it; ``relu`` and ``relu2`` have no gate matrix."""

MAX_LAYERS = 10_000


def read_model_config(path: Path | str, name: str | None = None) -> ModelRecord:
    """The record of the model that the ``config.json`` at ``path`` configures.

    Args:
        path: the file, or the folder that holds it.
        name: the model's name; else ``_name_or_path`` in the file, else the name of its folder.

    Raises:
        ForestageError: one line naming the file and the field that is missing, ambiguous or unknown.
    """
    path = Path(path)
    file = path / "config.json" if path.is_dir() else path
    try:
        document = parse_json(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ForestageError(f"{file}: cannot read the configuration ({error.strerror})") from error
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ForestageError(f"{file}: no JSON ({type(error).__name__}); give a model's config.json") from error
    if not isinstance(document, dict):
        raise ForestageError(f"{file}: no JSON object; give a model's config.json")
    return model_of_config(document, name or _own_name(document, file), origin=str(file))


def model_of_config(document: Mapping[str, Any], name: str, *, origin: str) -> ModelRecord:
    """As ``read_model_config``, for a configuration that was already read from ``origin``."""
    text, model_type = _text_model(document)
    if model_type is None:
        raise ForestageError(f"{origin}: model_type: missing; give a model's config.json")
    if "tie_word_embeddings" in document and "tie_word_embeddings" not in text:
        text = {**text, "tie_word_embeddings": document["tie_word_embeddings"]}
    text = _flat(text, model_type, origin)
    fields = ConfigFields(text, DEFAULTS.get(model_type, {}), origin, model_type)
    if fields.get("zero_expert_num"):
        raise fields.refuse(
            "zero_expert_num", "experts that compute nothing take part in the choice; no record can say"
        )
    for key in ("moe_latent_size", "moe_num_experts_vision"):
        if fields.get(key):
            raise fields.refuse(key, "experts of another width than the residual stream; no record can say")
    family = FAMILIES.get(model_type)
    try:
        values = _known(fields, family) if family is not None else _unknown(fields)
    except ValidationError as error:  # an impossible attention
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise ForestageError(f"{origin}: attention: {where}{': ' if where else ''}{fault['msg']}") from error
    weight_format, bits = expert_format(document, text, origin)
    rule = family.source if family is not None else "keys whose meaning no family disputes"
    source = f"{Path(origin).name} of {name}, model_type {model_type}, read by the rules of {rule}"
    if fields.defaulted:
        source += (
            f"; not in the file, so the defaults of the configuration class: {', '.join(sorted(fields.defaulted))}"
        )
    values |= {"name": name, "source": source, "evidence": "P", "architecture": model_type,
               "expert_weight_format": weight_format, "bits_per_weight": bits}  # fmt: skip
    return ModelRecord.parse(values, origin=origin)


def _text_model(document: Mapping[str, Any]) -> tuple[Mapping[str, Any], str | None]:
    """The (nested) text model and its ``model_type``."""
    text, outer = document, document.get("model_type")
    model_type = outer
    while nested := next((text[key] for key in NESTED if isinstance(text.get(key), dict) and text[key]), None):
        text = nested
        model_type = text.get("model_type") or SYNONYMS.get(str(outer), outer)
    return text, None if model_type is None else SYNONYMS.get(str(model_type), str(model_type))


def _flat(text: Mapping[str, Any], model_type: str, origin: str) -> Mapping[str, Any]:
    """``text`` with the fields of its ``NESTED_FIELDS`` parts moved to the top, under their usual names.

    Raises:
        ForestageError: if a part is missing, since the model's shape stands there.
    """
    parts = NESTED_FIELDS.get(model_type, {})
    found: dict[str, Any] = {}
    for part, names in parts.items():
        if not isinstance(text.get(part), dict):
            raise ForestageError(
                f"{origin}: {part}: missing; a configuration of '{model_type}' has {', '.join(names)} in it"
            )
        found |= {usual: text[part][own] for own, usual in names.items() if own in text[part]}
    return {**text, **found}


def _speaks_of_experts(values: Mapping[str, Any]) -> list[str]:
    """Keys that mention experts; those inside a part with the part's name before them."""
    found = []
    for name, value in values.items():
        if isinstance(value, dict):
            found += [f"{name}.{inner}" for inner in _speaks_of_experts(value)]
        elif value is not None and ("expert" in name.lower() or "moe" in name.lower().split("_")):
            found.append(name)
    return found


def _known(fields: ConfigFields, family: Family) -> dict[str, Any]:
    """The record's values by a family's rules."""
    two = fields.family in ("switch_transformers", "nllb-moe")
    layers = _checked_layers(fields, sum(stacks(fields)) if two else fields.integer("layers"))
    routed = family.layers(fields, layers)
    if not routed:
        raise fields.refuse("model_type", f"no layer of this '{fields.family}' has experts")
    experts = fields.same_in_all_layers("experts", layers)
    if experts is None:
        raise fields.refuse(ALIASES["experts"][0], "missing, and the class has no default; add it to the file")
    width = _width(fields, family, layers)
    shared = family.shared(fields, width)
    return {
        "layers": layers,
        "dense_layers": tuple(layer for layer in range(layers) if layer not in routed),
        "experts": experts,
        "top_k": _top_k(fields, layers),
        "hidden": fields.integer("hidden"),
        "expert_intermediate": width,
        "expert_matrices": family.matrices,
        "expert_bias": family.bias,
        "activation": family.activation or _activation(fields),
        **_shared(shared, width),
        "dense_intermediate": fields.optional(family.dense) if family.dense is not None else None,
        "attention": family.attention(fields, layers),
        "vocabulary": fields.optional("vocab_size"),
        "tied_embeddings": fields.flag("tie_word_embeddings"),
    }


def _width(fields: ConfigFields, family: Family, layers: int) -> int:
    """Width of an expert; refused if a second field contradicts the first."""
    width = fields.same_in_all_layers(family.width, layers)
    if width is None:
        raise fields.refuse(family.width, "missing, and the class has no default; add it to the file")
    if family.width == "intermediate_size" and fields.has("moe_intermediate_size"):
        other = fields.same_in_all_layers("moe_intermediate_size", layers)
        if other != width:
            raise fields.refuse(
                "moe_intermediate_size", f"is {other}, but experts of '{fields.family}' are intermediate_size "
                f"({width}) wide; correct the file"
            )  # fmt: skip
    return width


def _top_k(fields: ConfigFields, layers: int) -> int:
    """Experts a token uses."""
    if fields.family in ("switch_transformers", "nllb-moe"):
        return 1 if fields.family == "switch_transformers" else 2  # the modelling code fixes it; no field gives it
    top_k = fields.same_in_all_layers("top_k", layers)
    if top_k is None:
        raise fields.refuse(ALIASES["top_k"][0], "missing, and the class has no default; add it to the file")
    return top_k


def _shared(width: int, expert: int) -> dict[str, int]:
    """Record fields for shared experts with a total width of ``width``."""
    if not width:
        return {}
    if width % expert == 0:
        return {"shared_experts": width // expert}
    return {"shared_experts": 1, "shared_intermediate": width}


def _activation(fields: ConfigFields) -> str:
    """The record's name of the experts' activation."""
    inner = fields.get("activation")
    if not isinstance(inner, str) or inner not in ACTIVATIONS:
        said = "missing" if inner is None else f"'{inner}' is none of {', '.join(ACTIVATIONS)}"
        raise fields.refuse(ALIASES["activation"][0], said)
    return ACTIVATIONS[inner]


def _checked_layers(fields: ConfigFields, layers: int) -> int:
    """``layers``; refused if no model may have so many."""
    if layers > MAX_LAYERS:
        raise fields.refuse("num_hidden_layers", f"no model has {layers} layers")
    return layers


def _unknown(fields: ConfigFields) -> dict[str, Any]:
    """The record's values for a family without rules: only what the file says unambiguously."""
    experts = _speaks_of_experts(fields.values)
    if not experts:
        raise fields.refuse(
            "model_type", f"'{fields.family}' is a dense model, as no field speaks of experts; give the configuration "
            "of a mixture-of-experts model"
        )  # fmt: skip
    nested = [name for name in experts if "." in name]
    if nested and fields.given("experts") is None:
        raise fields.refuse(
            nested[0], f"is in a part of its own, and model_type '{fields.family}' is unknown, so what the parts mean "
            f"is too; write num_experts, num_experts_per_tok and moe_intermediate_size beside "
            "model_type, or a record of the model by hand (docs/catalogue.md) and name its file in FORESTAGE_CATALOG"
        )  # fmt: skip
    layers = _checked_layers(fields, fields.integer("layers"))
    routed = _routed_of_unknown(fields, layers)
    family = Family(
        layers=lambda *_: routed, attention=_attention_of_unknown(fields), shared=_shared_of_unknown(fields)
    )
    if not fields.has(family.width):
        raise fields.refuse(
            family.width, f"missing, and model_type '{fields.family}' is unknown, so intermediate_size may be another "
            "width; add it to the file"
        )  # fmt: skip
    return _known(fields, family)


def _routed_of_unknown(fields: ConfigFields, layers: int) -> tuple[int, ...]:
    """Layers with experts, by the only rule whose keys the file has."""
    given = sorted(key for key in LAYER_RULE_KEYS if fields.has(key))
    if "mlp_layer_types" in given:
        found = by_mlp_layer_types(fields, layers)
        assert found is not None
        return found
    frequency = fields.get("moe_layer_freq")
    if isinstance(frequency, list) and set(given) <= {"moe_layer_freq", "first_k_dense_replace"}:
        found = by_frequency_list(fields, layers)
        first = fields.optional("first_k_dense_replace", least=0)
        if first is None or found == tuple(range(first, layers)):
            return found
    elif given == ["first_k_dense_replace"] or (
        given == ["first_k_dense_replace", "moe_layer_freq"] and frequency == 1
    ):
        return tuple(range(fields.integer("first_k_dense_replace", least=0), layers))
    elif given == ["decoder_sparse_step", "mlp_only_layers"]:
        return by_sparse_step(fields, layers)
    elif given == ["moe_layer_end_index", "moe_layer_interval", "moe_layer_start_index"]:
        return by_interval(fields, layers)
    said = f"{' and '.join(given)} cannot be relied on" if given else "nothing in the file says"
    raise fields.refuse(
        "mlp_layer_types", f"model_type '{fields.family}' is unknown, and {said} which layers have experts; add a list "
        f"of {layers} times 'dense' or 'sparse' to the file"
    )  # fmt: skip


def _attention_of_unknown(fields: ConfigFields) -> Any:
    """Plain attention if no key hints at another kind; else ``None``."""
    if fields.has("kv_lora_rank"):
        keys = ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "num_attention_heads")
        return latent if all(map(fields.has, keys)) and not fields.has("index_topk") else lambda *_: None
    doubtful = ("layer_types", "sliding_window", "attention_chunk_size", "linear_attn_config", "attn_type_list",
                "full_attention_interval", "v_head_dim", "hybrid_layer_pattern", "layer_group_size",
                "linear_num_key_heads", "mamba_d_state", "ssm_state_size", "index_topk")  # fmt: skip
    plain = fields.has("num_attention_heads") and fields.has("num_key_value_heads") and fields.has("head_dim")
    return grouped if plain and not any(map(fields.has, doubtful)) else lambda *_: None


def _shared_of_unknown(fields: ConfigFields) -> Any:
    """The rule for the shared experts' width, chosen by the keys that the file has."""
    if fields.given("shared") and fields.given("shared_width"):
        raise fields.refuse(
            next(key for key in ALIASES["shared_width"] if fields.has(key)),
            f"of all shared experts or of one? model_type '{fields.family}' is unknown; leave out the number of them",
        )
    if fields.given("shared_width"):
        return wide_shared
    return counted_shared if fields.given("shared") else no_shared


def _own_name(document: Mapping[str, Any], file: Path) -> str:
    """The model's name in the file, else its folder's name (in a download cache, the repository's)."""
    stated = document.get("_name_or_path")
    if isinstance(stated, str) and stated.strip(" ./\\"):
        return stated
    folder = file.absolute().parent
    cached = next((part for part in folder.parts if part.startswith("models--")), None)
    if cached is not None:
        return cached.removeprefix("models--").replace("--", "/")
    return folder.name or file.stem
