"""What a model's name says: which model, which tuning, which weight format.

``key`` makes two spellings of one name equal. Endings that name a tuning, a version or a date change neither shape nor
bytes; endings that name a weight format change the bytes. They are dropped one at a time, because one may belong to
the model's own name (DeepSeek-V3). Unknown endings (``-REAP-82B``, ``-Distill-Qwen-32B``) are never dropped, since
they may name another shape.
"""

import re
from collections.abc import Iterator

OWNERS = (
    "qwen", "google", "openai", "deepseek-ai", "mistralai", "meta-llama", "microsoft", "ibm-granite", "zai-org",
    "thudm", "moonshotai", "minimaxai", "baidu", "tencent", "inclusionai", "ai21labs", "allenai", "liquidai",
    "rednote-hilab", "unsloth", "bartowski", "nvidia", "lmstudio-community", "mlx-community",
)  # fmt: skip
"""Owners that some people prefix to a model's name with ``_`` (bartowski's files: ``Qwen_Qwen3-30B-A3B``)."""

VARIANT = re.compile(
    r"-(?:instruct|chat|thinking|think|base|it|hf|pt|paddle|sft|dpo|preview|v\d+(?:\.\d+)?|\d{4}|\d{6}|\d{8})$"
)
"""An ending that names a tuning, a version or a date."""

FORMAT = re.compile(
    r"[-.](?:"
    r"gguf|i1|imatrix|ud|unsloth|mlx|exl[23]|bnb|autoround|auto-round|hqq|dwq|marlin|quantized|quant|ct|"
    r"awq|gptq|int[248]|int-?[48]mix|w\d+a\d+|fp8|fp16|fp4|f16|f32|fp32|bf16|nvfp4|mxfp[48](?:-moe)?|dynamic|block|"
    r"(?:\d(?:\.\d+)?-?)?bits?|\d(?:\.\d+)?bpw|g\d{2,3}|gs\d{2,3}|"
    r"i?q\d(?:-(?:\d|k|k-[sml]|k-xl|xxs|xs|s|m|nl|xl))?|tq\d-\d"
    r")$"
)
"""An ending that names a weight format, or a part of its name."""

EITHER = re.compile(f"(?:{VARIANT.pattern}|{FORMAT.pattern})")

FILE = re.compile(r"(?:-\d{5}-of-\d{5})?\.(?:gguf|safetensors|bin|pt|json)$")
CACHED = re.compile(r"(?:^|/)models--[^/]*?--([^/]+)")
SNAPSHOT = re.compile(r"^[0-9a-f]{40}$")


def key(name: str) -> str:
    """The form in which names are compared: the last part in lower case, with ``-`` for ``_``, spaces and ``:``.

    A path of the download cache (``models--OWNER--NAME/snapshots/HASH``) gives NAME; another path that ends in a hash
    gives the part before it; a file's extension is dropped.
    """
    text = name.strip().replace("\\", "/").rstrip("/")
    cached = CACHED.search(text)
    if cached is not None:
        last = cached.group(1)
    else:
        parts = [part for part in text.split("/") if part not in ("", ".", "..")]
        while len(parts) > 1 and (SNAPSHOT.match(parts[-1]) or parts[-1] in ("snapshots", "main")):
            parts.pop()
        last = parts[-1] if parts else ""
    last = FILE.sub("", last.lower())
    for owner in OWNERS:
        if last.startswith(f"{owner}_"):
            last = last[len(owner) + 1 :]
            break
    return re.sub(r"[_\s:]+", "-", last)


def tunings_of(name: str) -> Iterator[str]:
    """A name's ``key``, then the same without its last tuning, version or date ending, and so on."""
    return _shorter(key(name), VARIANT)


def formats_of(name: str) -> Iterator[str]:
    """As ``tunings_of``, for endings that name weight formats."""
    return _shorter(key(name), FORMAT)


def stems_of(name: str) -> Iterator[str]:
    """As ``tunings_of``, for both kinds of endings: names of the same shape, the longest first."""
    return _shorter(key(name), EITHER)


def _shorter(text: str, ending: re.Pattern[str]) -> Iterator[str]:
    """``text``, then ``text`` with ever more such endings removed; never empty."""
    yield text
    while (found := ending.search(text)) is not None and found.start() > 0:
        text = text[: found.start()]
        yield text
