"""Parse what servers' responses have in common: base64 texts, and the numbers of tokens beside them."""

import base64
import binascii
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError

LARGEST = 2**31 - 1

SGLANG_FIELDS = ("meta_info", "sgl_ext", "sglext")
VLLM_FIELDS = ("routed_experts", "prompt_routed_experts")
"""What an answer of one server has, at its top or in a choice, and one of the other never."""


def whole_number(value: Any, field: str, place: str) -> int:
    """``value`` as a whole number ≥ 0.

    Raises:
        ForestageError: naming ``place`` and ``field``.
    """
    if type(value) is not int or not 0 <= value <= LARGEST:
        raise ForestageError(f"{place}: {field}: {short(value)}; expected a whole number from 0 to {LARGEST}")
    return value


def decoded_bytes(value: str, field: str, place: str) -> bytes:
    """The bytes of a base64 text.

    Raises:
        ForestageError: naming ``place`` and ``field``.
    """
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ForestageError(f"{place}: {field}: not base64 ({error}); was the response cut off?") from error


def token_ids(value: Any, field: str, place: str) -> npt.NDArray[np.int64] | None:
    """A list of vocabulary indices, or ``None`` if there is none.

    Raises:
        ForestageError: naming ``place`` and ``field``.
    """
    if value is None:
        return None
    if not isinstance(value, list) or not all(type(token) is int and 0 <= token <= LARGEST for token in value):
        raise ForestageError(f"{place}: {field}: expected a list of whole numbers from 0 to {LARGEST}")
    return np.array(value, np.int64)


def objects(value: Any, field: str, place: str) -> list[dict[str, Any]]:
    """A list of at least one JSON object.

    Raises:
        ForestageError: naming ``place`` and ``field``.
    """
    if not isinstance(value, list) or not value or not all(isinstance(part, dict) for part in value):
        raise ForestageError(f"{place}: {field}: expected a list of objects; is it a server's whole response?")
    return value


def model_name(response: dict[str, Any], place: str) -> str | None:
    """The model that a response names, if any.

    Raises:
        ForestageError: if it is not a text.
    """
    name = response.get("model")
    if name is not None and (not isinstance(name, str) or not name):
        raise ForestageError(f"{place}: model: {short(name)}; expected a name")
    return name


def refuse_other_server(response: dict[str, Any], server: str, place: str) -> None:
    """Refuse an answer of vLLM among those of SGLang, or the other way round.

    Args:
        response: the answer.
        server: whose answers the file is read as, ``vLLM`` or ``SGLang``.
        place: for the error.

    Raises:
        ForestageError: naming ``place``.
    """
    choices = response.get("choices")
    holders = (
        [response, *(part for part in choices if isinstance(part, dict))] if isinstance(choices, list) else [response]
    )
    fields = SGLANG_FIELDS if server == "vLLM" else VLLM_FIELDS
    found = next((name for name in fields if any(holder.get(name) is not None for holder in holders)), None)
    if found is not None:
        other = "SGLang" if server == "vLLM" else "vLLM"
        raise ForestageError(
            f"{place}: {found}: an answer of {other} among those of {server}; put each server's answers into a file of "
            "their own"
        )


def short(value: Any) -> str:
    """A value as a short text for an error."""
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
