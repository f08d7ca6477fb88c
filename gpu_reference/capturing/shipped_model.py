"""Record the routing of the shipped model while it generates from held-out prompts of its corpus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from catalog.config import StrictModel
from catalog.errors import ForestageError
from catalog.progress import Progress
from gpu_reference.capturing.sequences import RecordedSequence, Sampling, build_trace, generate
from gpu_reference.routers import RoutingRecorder
from gpu_reference.small_moe import END_OF_TEXT_ID
from gpu_reference.trace_tokens import token_hashes
from gpu_reference.training.corpus import DOMAINS, Document

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from traces import RoutingTrace

_PROMPT_SPACING = 800
"""Characters between the starts of two prompts of one document."""


class CaptureOptions(StrictModel):
    """How sequences are generated.

    Attributes:
        sequences_per_domain: number of sequences of each domain.
        prompt: tokens of a prompt, which is processed in one pass.
        decode: tokens of a sequence that are processed one at a time, unless the model ends it earlier.
        temperature: sampling temperature.
        batch: sequences generated together.
        seed: seed of the choice of prompts and of the sampling.
    """

    sequences_per_domain: int = Field(default=96, ge=1)
    prompt: int = Field(default=48, ge=1)
    decode: int = Field(default=192, ge=1)
    temperature: float = Field(default=0.9, gt=0)
    batch: int = Field(default=32, ge=1)
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class Prompt:
    """The beginning of a sequence: ``tokens`` (i64 ``[prompt]``) of a held-out document of ``domain``."""

    domain: str
    document: str
    tokens: np.ndarray


def choose_prompts(documents: list[Document], tokenizer: Tokenizer, options: CaptureOptions) -> list[Prompt]:
    """Draw prompts from held-out documents, each beginning at the start of a line; the domains alternate.

    Raises:
        ForestageError: if the held-out part is too small for that many prompts.
    """
    chosen: list[list[Prompt]] = []
    for number, domain in enumerate(DOMAINS):
        places = []
        for document in documents:
            if document.domain == domain and document.held_out:
                start = 0
                while start >= 0 and start + _PROMPT_SPACING <= len(document.text):
                    places.append((document, start))
                    start = document.text.find("\n", start + _PROMPT_SPACING) + 1 or -1
        order = np.random.default_rng([options.seed, number]).permutation(len(places))
        prompts: list[Prompt] = []
        for index in order:
            if len(prompts) == options.sequences_per_domain:
                break
            document, start = places[index]
            text = document.text[start : start + _PROMPT_SPACING].lstrip("\n")
            tokens = tokenizer.encode(text).ids[: options.prompt]
            if len(tokens) == options.prompt:
                prompts.append(Prompt(domain, document.name, np.asarray(tokens, dtype=np.int64)))
        if len(prompts) < options.sequences_per_domain:
            raise ForestageError(
                f"capture: the held-out {domain} gives {len(prompts)} prompts, "
                f"{options.sequences_per_domain} were asked for; ask for fewer"
            )
        chosen.append(prompts)
    return [prompt for group in zip(*chosen, strict=True) for prompt in group]


def capture(
    model: Any,
    tokenizer: Tokenizer,
    prompts: list[Prompt],
    *,
    options: CaptureOptions,
    metadata: dict[str, str],
    progress: Progress | None = None,
) -> RoutingTrace:
    """Generate from every prompt and return the routing as a trace.

    ``metadata`` holds ``model``, ``source`` and ``licence``. The rows of the trace are the tokens *processed*: the
    prompt (prefill) and every sampled token that was fed back (decode), each with the CRC-32 of its bytes. Ids are in
    rank order and are checked against the router's logits. ``progress`` is called with (sequences done,
    sequences).

    Raises:
        ForestageError: if the model's routers are unknown, or chose other experts than follow from their logits.
    """
    import torch

    generator = torch.Generator().manual_seed(options.seed)
    sampling = Sampling(options.temperature, frozenset({END_OF_TEXT_ID}))
    finished: list[RecordedSequence] = []
    with RoutingRecorder(model.eval()) as recorder:
        for start in range(0, len(prompts), options.batch):
            group = [prompt.tokens for prompt in prompts[start : start + options.batch]]
            finished += generate(model, group, recorder, decode=options.decode, sampling=sampling, generator=generator)
            if progress is not None:
                progress(len(finished), len(prompts))
    domains = [prompt.domain for prompt in prompts]
    hashes = token_hashes(tokenizer)
    return build_trace(finished, recorder, hashes, domains=domains, datasets=domains, metadata=metadata)
