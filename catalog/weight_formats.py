"""Read how experts are stored from a configuration: ``dtype``, and ``quantization_config`` if there is one."""

import json
import re
from collections.abc import Mapping
from typing import Any

from catalog.errors import ForestageError

DTYPES = {"bfloat16": ("bf16", 16.0), "float16": ("fp16", 16.0), "float32": ("fp32", 32.0)}

SCALE_BITS = 16
"""Bits of a group's scale in AWQ, GPTQ and compressed-tensors."""


QUANTISATIONS = ("quantization_config", "compression_config")
"""Keys of the quantisation; the second is compressed-tensors' older name."""


def expert_format(document: Mapping[str, Any], text: Mapping[str, Any], origin: str) -> tuple[str, float]:
    """Format of the experts, and bits per weight with scales included.

    Args:
        document: the whole configuration.
        text: the configuration's text model (may be ``document`` itself).
        origin: the file, for errors.

    Raises:
        ForestageError: if the configuration gives neither, or the bits of its quantisation are not known.
    """
    quantisation = next(
        (part[key] for key in QUANTISATIONS for part in (document, text) if part.get(key) is not None), None
    )
    mlx = next((part["quantization"] for part in (document, text) if part.get("quantization") is not None), None)
    if mlx is not None:
        return _mlx(mlx, origin)
    if quantisation is not None:
        if not isinstance(quantisation, dict):
            raise ForestageError(f"{origin}: quantization_config: not an object")
        try:
            return _quantised(quantisation, origin)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise ForestageError(
                f"{origin}: quantization_config: not in the layout of its quant_method; delete the field from a copy "
                "of the file to take the unquantised size"
            ) from error
    dtype = next(
        (part[key] for part in (text, document) for key in ("dtype", "torch_dtype") if part.get(key) is not None), None
    )
    if dtype is None:
        raise ForestageError(f'{origin}: dtype: missing; add the weights\' type to the file, as "dtype": "bfloat16"')
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise ForestageError(f"{origin}: dtype: '{name}' is none of {', '.join(DTYPES)}")
    return DTYPES[name]


def _quantised(given: Mapping[str, Any], origin: str) -> tuple[str, float]:
    method = str(given.get("quant_method") or given.get("quant_algo") or "").lower()
    skipped = given.get("modules_to_not_convert") or given.get("ignored_layers") or given.get("ignore") or []
    if any(_is_expert(str(name)) for name in skipped):
        raise ForestageError(
            f"{origin}: quantization_config: leaves experts out, so they have no one size; delete the field from a "
            "copy of the file to take the unquantised size"
        )
    if method == "mxfp4":
        return "mxfp4", 4.25  # E2M1 with one E8M0 scale per block of 32 (OCP Microscaling 1.0)
    if method == "fp8":
        block = given.get("weight_block_size")
        if block is None:
            return "fp8", 8.0  # one scale a matrix
        rows, columns = block
        return "fp8", 8 + 32 / (rows * columns)  # FP32 scales (DeepSeek-V3's weight_scale_inv)
    if given.get("dynamic"):
        raise ForestageError(
            f"{origin}: quantization_config: dynamic: bits that differ between modules, so that experts have no one "
            "size; delete the field from a copy of the file to take the unquantised size"
        )
    bits, group = given.get("bits") or given.get("w_bit"), given.get("group_size") or given.get("q_group_size")
    if method in ("awq", "gptq") and bits in (4, 8):
        # A scale and a zero point per group; GPTQ's and AWQ's zero points are as wide as the weights. -1: a whole row.
        return f"int{bits}", bits + ((SCALE_BITS + bits) / group if group and group > 0 else 0.0)
    if method == "compressed-tensors":
        return _compressed_tensors(given, origin)
    if "nvfp4" in json.dumps(given).lower():
        return "nvfp4", 4.5  # E2M1 with one E4M3 scale per block of 16; the matrix's FP32 scale is not counted
    raise ForestageError(
        f"{origin}: quantization_config: the bits of quant_method '{method or 'none'}' are not known; delete the field "
        "from a copy of the file to take the unquantised size"
    )


def _mlx(given: Any, origin: str) -> tuple[str, float]:
    """MLX's ``quantization``: ``bits``, and a scale and an offset of 16 bits each per group (``mlx.core.quantize``)."""
    odd = not isinstance(given, dict) or given.get("mode", "affine") != "affine" or any(map(_is_part, given.values()))
    bits, group = (None, None) if odd else (given.get("bits"), given.get("group_size"))
    if bits not in (4, 8) or not isinstance(group, int) or group < 1:
        raise ForestageError(
            f"{origin}: quantization: its bits are not known, or differ between modules; delete the field from a copy "
            "of the file to take the unquantised size"
        )
    return f"int{bits}", bits + 2 * SCALE_BITS / group


def _is_part(value: Any) -> bool:
    """Whether a value describes a single module: an object, or ``false`` for one that is not quantised."""
    return isinstance(value, dict) or value is False


def _compressed_tensors(given: Mapping[str, Any], origin: str) -> tuple[str, float]:
    groups = [group.get("weights") for group in (given.get("config_groups") or {}).values()]
    sizes = set()
    for weights in groups:
        if not isinstance(weights, dict) or weights.get("num_bits") not in (4, 8):
            break
        bits, kind, group = weights["num_bits"], weights.get("type"), weights.get("group_size")
        block = weights.get("block_structure")
        zero = 0 if weights.get("symmetric", True) else bits
        if kind == "float" and bits == 8:
            sizes.add(("fp8", 8 + SCALE_BITS / (block[0] * block[1]) if block else 8.0))
        elif kind == "float" and group == 16:
            sizes.add(("nvfp4", 4.5))
        elif kind == "int":
            sizes.add((f"int{bits}", bits + ((SCALE_BITS + zero) / group if group and group > 0 else 0.0)))
    if len(sizes) != 1:
        raise ForestageError(
            f"{origin}: quantization_config: its config_groups give no one number of bits; delete the field from a "
            "copy of the file to take the unquantised size"
        )
    return sizes.pop()


def _is_expert(name: str) -> bool:
    """Whether the module name ``name`` is one of routed experts."""
    return re.search(r"(?<!shared_)experts?\b", name) is not None and "shared" not in name
