"""Reading the shipped checkpoint's configuration and fixed weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from catalog.errors import ForestageError
from catalog.json_text import parse_json
from catalog.model_config import model_of_config
from gpu_reference.decoder.families import QWEN3_MOE
from gpu_reference.decoder.rotary import Rotary
from gpu_reference.decoder.shape import DecoderShape
from gpu_reference.small_moe import CONFIG_FILE, WEIGHTS_FILE

_COMPUTED = {
    "model_type": "qwen3_moe",
    "hidden_act": "silu",
    "use_sliding_window": False,
    "rope_parameters.rope_type": "default",
}
"""Settings of the configuration of which the decoder computes one value alone."""

_NEEDED = {
    "rope_parameters.rope_theta": (int, float),
    "rms_norm_eps": (float,),
    "norm_topk_prob": (bool,),
    "attention_bias": (bool,),
}
"""Settings that must be there, and their types."""


def read_checkpoint(folder: Path) -> tuple[DecoderShape, dict[str, torch.Tensor]]:
    """Shape and state dictionary (without routed experts) of the `Qwen3MoeForCausalLM` in ``folder``.

    Raises:
        ForestageError: if a file is missing or malformed, or the model computes what this decoder does not.
    """
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise ForestageError(f"{folder / name}: no such file; make it with `python -m gpu_reference.remake`")
    config = _config(folder / CONFIG_FILE)
    model = model_of_config(config, folder.name, origin=str(folder / CONFIG_FILE))
    family = replace(
        QWEN3_MOE,
        rotary=Rotary(base=float(config["rope_parameters"]["rope_theta"])),
        norm_epsilon=float(config["rms_norm_eps"]),
        normalised=bool(config["norm_topk_prob"]),
        attention_bias=bool(config["attention_bias"]),
    )
    return DecoderShape.of(model, model.layer_map, family), _fixed_state(folder / WEIGHTS_FILE)


def _config(path: Path) -> dict[str, Any]:
    """The configuration, if this decoder computes what it says."""
    try:
        config = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ForestageError(f"{path}: cannot be read ({error}); remake the checkpoint") from error
    if not isinstance(config, dict):
        raise ForestageError(f"{path}: no JSON object; remake the checkpoint")
    rotary = config.get("rope_parameters")
    values = {
        **config,
        **{f"rope_parameters.{key}": v for key, v in (rotary if isinstance(rotary, dict) else {}).items()},
    }
    for key, computed in _COMPUTED.items():
        if values.get(key) != computed:
            raise ForestageError(f"{path}: {key}: {values.get(key)!r}; the decoder computes {computed!r} alone")
    for key, kinds in _NEEDED.items():
        if type(values.get(key)) not in kinds:
            names = " or ".join(kind.__name__ for kind in kinds)
            raise ForestageError(f"{path}: {key}: {values.get(key)!r}; give a value of type {names}")
    return config


def _fixed_state(path: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the file but the routed experts'."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if ".mlp.experts." not in name}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ForestageError(f"{path}: cannot be read ({error}); remake the checkpoint") from error
