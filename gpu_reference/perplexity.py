"""What quantised experts cost a model: its perplexity on held-out text of both domains, beside that in floating point.

The text is what the small model's training held out (`gpu_reference.training.corpus.Document.held_out`), in the windows
of its validation (`gpu_reference.training.batches.validation_windows`): with 48 windows a domain, the loss in floating
point is the one that the model card states. Of another checkpoint the text is held out too only if
`gpu_reference.remake` trained it with the same seed and corpus.

Everything but the routed experts stays in float32: attention, routers, norms, embeddings. The routers see what the
quantised experts give them, so tokens may choose other experts than in floating point.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from catalog.config import StrictModel
from catalog.errors import SettingError, unknown_name
from catalog.progress import Progress
from gpu_reference.training.batches import TokenStream, available_windows, validation_starts, validation_windows
from gpu_reference.training.corpus import DOMAINS
from gpu_reference.training.options import TrainingOptions
from predictor.measure.bootstrap import Bootstrap, interval
from predictor.measure.metrics import Ratio

if TYPE_CHECKING:
    from gpu_reference.experts.layout import Format

CONTEXT = TrainingOptions().context
"""Tokens of a window; each is predicted from those of its window before it."""

BATCH = 8
"""Windows that the model reads together."""

ExpertFormat = Literal["float", "int8", "int8-activations", "mxfp4"]


class _Meaning(NamedTuple):
    """How experts of a format are stored and computed, and in words."""

    layout: Format
    kernel: str
    words: str


FORMATS: dict[ExpertFormat, _Meaning] = {
    "float": _Meaning("fp32", "torch", "float32"),
    "int8": _Meaning("int8", "torch", "weights in int8, a scale a row; products in float32"),
    "int8-activations": _Meaning("int8", "pim", "as the PIM unit: activations in int8 too, sums in int32"),
    "mxfp4": _Meaning("mxfp4", "torch", "weights in MXFP4 (E2M1, a scale for 32); products in float32"),
}


class DomainPerplexity(StrictModel):
    """Of one format on one domain's windows, or on both domains' (``domain`` "both").

    Attributes:
        domain: code, prose or both (as many windows of each).
        loss: mean nats a token.
        perplexity: e to the loss.
        ratio: the perplexity divided by that in floating point, on the same windows.
        low, high: 95 % interval of the ratio, over documents, paired; ``None`` if there is one document alone.
    """

    domain: str
    loss: float
    perplexity: float
    ratio: float
    low: float | None
    high: float | None


class FormatPerplexity(StrictModel):
    """Of one format.

    Attributes:
        format: its name.
        meaning: in words.
        expert_bytes: of one expert in the format.
        domains: code, prose and both.
    """

    format: ExpertFormat
    meaning: str
    expert_bytes: int
    domains: tuple[DomainPerplexity, ...]


class PerplexityReport(StrictModel):
    """The document of ``forestage reference perplexity``.

    Attributes:
        command: what remakes it.
        checkpoint: the folder.
        context: tokens of a window.
        tokens: predicted tokens of each domain.
        documents: documents that they lie in, of each domain; intervals resample these.
        bootstrap: how.
        formats: floating point first.
    """

    command: str
    checkpoint: str
    context: int
    tokens: dict[str, int]
    documents: dict[str, int]
    bootstrap: Bootstrap
    formats: tuple[FormatPerplexity, ...]


class Windows(NamedTuple):
    """A domain's windows: i64 ``[windows, context + 1]``, and which document each starts in, i64 ``[windows]``."""

    tokens: NDArray[np.int64]
    documents: NDArray[np.int64]


def chosen_formats(names: list[str]) -> tuple[ExpertFormat, ...]:
    """The formats to measure, floating point first, as everything is compared with it; all if none is named.

    Raises:
        ForestageError: an unknown one.
    """
    for name in names:
        if name not in FORMATS:
            raise unknown_name("format", name, FORMATS)
    return tuple(name for name in FORMATS if name == "float" or not names or name in names)


def check_tokens(tokens: int) -> None:
    """Refuse a number of tokens below 1.

    Raises:
        ForestageError: it is.
    """
    if tokens < 1:
        raise SettingError("tokens", "give 1 or more", value=tokens)


def windows_of(streams: dict[str, TokenStream], tokens: int) -> dict[str, Windows]:
    """At least ``tokens`` tokens of held-out text in whole windows, as many of each domain, spread over all of it.

    Raises:
        ForestageError: the text has fewer, or ``tokens`` is below 1.
    """
    count = -(-tokens // (CONTEXT * len(DOMAINS)))
    most = min(available_windows(streams[domain], CONTEXT) for domain in DOMAINS)
    check_tokens(tokens)
    if count > most:
        raise SettingError(
            "tokens", f"give {most * CONTEXT * len(DOMAINS)} at most, as the held-out text has no more", value=tokens
        )
    found = {}
    for domain in DOMAINS:
        stream = streams[domain]
        starts = validation_starts(stream, context=CONTEXT, count=count)
        documents = np.searchsorted(stream.document_starts, starts, side="right") - 1
        found[domain] = Windows(validation_windows(stream, context=CONTEXT, count=count), documents)
    return found


def read_held_out(checkpoint: Path) -> dict[str, TokenStream]:
    """Each domain's held-out text in the checkpoint's tokens, documents in the order of the validation.

    Raises:
        ForestageError: the checkpoint has no tokenizer, or the corpus cannot be fetched.
    """
    from gpu_reference.small_moe import load_tokenizer
    from gpu_reference.training.batches import tokenise
    from gpu_reference.training.corpus import load_corpus

    tokenizer = load_tokenizer(checkpoint)
    held_out = [document for document in load_corpus() if document.held_out]
    return tokenise(held_out, tokenizer, TrainingOptions().seed)


def measure_perplexity(
    model: Any,
    windows: dict[str, Windows],
    formats: tuple[ExpertFormat, ...],
    *,
    checkpoint: str,
    command: str,
    bootstrap: Bootstrap | None = None,
    progress: Progress | None = None,
) -> PerplexityReport:
    """Measure each of ``formats``, the first of which is ``float``, on ``windows``.

    Args:
        model: a `Qwen3MoeForCausalLM` in float32 in evaluation mode; its experts are replaced, and put back at the end.
        windows: of each domain, as many.
        formats: names in `FORMATS`.
        checkpoint: for the report.
        command: for the report.
        bootstrap: how intervals are resampled.
        progress: called in windows.

    Raises:
        ForestageError: a layer's experts do not fit a format.
    """
    resampling = Bootstrap() if bootstrap is None else bootstrap
    total = len(formats) * sum(len(part.tokens) for part in windows.values())
    done = 0

    def advance(number: int) -> None:
        nonlocal done
        done += number
        if progress is not None:
            progress(done, total)

    results: list[FormatPerplexity] = []
    exact: dict[str, NDArray[np.float64]] = {}
    own = [layer.mlp.experts for layer in model.model.layers]
    try:
        for name in formats:
            size = _replace_experts(model, own, name)
            losses = {domain: _losses(model, part.tokens, advance) for domain, part in windows.items()}
            exact = exact or losses
            domains = tuple(_compared(domain, windows, losses, exact, resampling) for domain in (*windows, "both"))
            results.append(
                FormatPerplexity(format=name, meaning=FORMATS[name].words, expert_bytes=size, domains=domains)
            )
    finally:
        for layer, experts in zip(model.model.layers, own, strict=True):
            layer.mlp.experts = experts
    return PerplexityReport(
        command=command,
        checkpoint=checkpoint,
        context=CONTEXT,
        tokens={domain: len(part.tokens) * CONTEXT for domain, part in windows.items()},
        documents={domain: len(np.unique(part.documents)) for domain, part in windows.items()},
        bootstrap=resampling,
        formats=tuple(results),
    )


def _replace_experts(model: Any, own: list[Any], name: ExpertFormat) -> int:
    """Put the model's ``own`` experts, in a format, into its layers; return the bytes of one expert."""
    from gpu_reference.experts.blocks import BlockExperts
    from gpu_reference.experts.layout import ExpertLayout
    from gpu_reference.experts.shape import ExpertShape

    size = 0
    for layer, experts in zip(model.model.layers, own, strict=True):
        _, hidden, intermediate = experts.down_proj.shape
        shape = ExpertShape(hidden=hidden, intermediate=intermediate, matrices=3, activation="swiglu")
        layout = ExpertLayout(shape, FORMATS[name].layout)
        layer.mlp.experts = BlockExperts.of(experts, layout, FORMATS[name].kernel)
        size = layout.nbytes
    return size


def _losses(model: Any, tokens: NDArray[np.int64], advance: Callable[[int], None]) -> NDArray[np.float64]:
    """Each window's sum of nats over its predicted tokens, f64 ``[windows]``."""
    import torch
    from torch.nn import functional

    sums = []
    with torch.inference_mode():
        for first in range(0, len(tokens), BATCH):
            part = torch.from_numpy(tokens[first : first + BATCH])
            logits = model(input_ids=part[:, :-1]).logits.float()
            each = functional.cross_entropy(logits.transpose(1, 2), part[:, 1:], reduction="none")
            sums.append(each.double().sum(dim=1).numpy())
            advance(len(part))
    return np.concatenate(sums)


def _compared(
    domain: str,
    windows: dict[str, Windows],
    losses: dict[str, NDArray[np.float64]],
    exact: dict[str, NDArray[np.float64]],
    bootstrap: Bootstrap,
) -> DomainPerplexity:
    """A format's figures on one domain, or on all of them together."""
    parts = tuple(windows) if domain == "both" else (domain,)
    total = sum(len(losses[part]) for part in parts) * CONTEXT
    loss = float(sum(losses[part].sum() for part in parts)) / total
    differences, tokens = [], []
    for part in parts:
        # Windows of one document resemble each other, so documents are what is resampled.
        _, document = np.unique(windows[part].documents, return_inverse=True)
        differences.append(np.bincount(document, weights=losses[part] - exact[part]))
        tokens.append(np.bincount(document) * CONTEXT)
    # The ratio of two perplexities is e to the difference of the mean losses.
    difference = Ratio(np.concatenate(differences), np.concatenate(tokens))
    ratio = float(np.exp(difference.over(0).values()))
    low, high = (float(np.exp(end)) for end in interval(difference, bootstrap))
    return DomainPerplexity(
        domain=domain,
        loss=loss,
        perplexity=float(np.exp(loss)),
        ratio=ratio,
        low=None if np.isnan(low) else low,
        high=None if np.isnan(high) else high,
    )
