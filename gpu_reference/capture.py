"""Recording the routing of a model while it generates: prompt phase and decode phase, from held-out prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from catalog.config import StrictModel
from catalog.errors import ForestageError
from gpu_reference.corpus import DOMAINS, Document
from gpu_reference.routers import RoutingRecorder
from gpu_reference.small_moe import END_OF_TEXT_ID
from gpu_reference.trace_tokens import token_hashes
from traces import DECODE, PREFILL, RoutingTrace, TraceMetadata, id_dtype

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from tokenizers import Tokenizer

_PROMPT_SPACING = 800
"""Characters between the starts of two prompts of one document."""


class CaptureOptions(StrictModel):
    """How sequences are generated.

    Attributes:
        sequences_per_domain: sequences of each domain.
        prompt: tokens of a prompt, processed in one pass.
        decode: tokens of a sequence processed one at a time, unless it ends earlier by itself.
        temperature: of the sampling.
        batch: sequences generated side by side.
        seed: of the choice of prompts and of the sampling.
    """

    sequences_per_domain: int = Field(default=96, ge=1)
    prompt: int = Field(default=48, ge=1)
    decode: int = Field(default=192, ge=1)
    temperature: float = Field(default=0.9, gt=0)
    batch: int = Field(default=32, ge=1)
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class Prompt:
    """The beginning of a sequence: ``tokens`` i64 ``[prompt]`` of a held-out document of ``domain``."""

    domain: str
    document: str
    tokens: np.ndarray


@dataclass
class _Sequence:
    """What is known of one sequence while it is being generated."""

    prompt: Prompt
    tokens: list[int]
    ids: list[np.ndarray]
    weights: list[np.ndarray]
    open: bool = True


def choose_prompts(documents: list[Document], tokenizer: Tokenizer, options: CaptureOptions) -> list[Prompt]:
    """Draw prompts from held-out documents, each beginning at the start of a line; the domains alternate.

    Raises:
        ForestageError: if the held-out part is too small for so many prompts.
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


def generate(
    model: Any, prompts: list[Prompt], recorder: RoutingRecorder, options: CaptureOptions, generator: torch.Generator
) -> list[_Sequence]:
    """Continue equally long ``prompts`` side by side with a key-value cache, recording the routing of every pass.

    A sequence stays open until it draws the end of text, which is never processed and so has no routing. Nothing is
    drawn after the last pass: every token kept was processed by exactly one pass.
    """
    import torch

    device = next(model.parameters()).device
    sequences = [_Sequence(prompt, prompt.tokens.tolist(), [], []) for prompt in prompts]
    inputs = torch.from_numpy(np.stack([prompt.tokens for prompt in prompts]))
    cache = None
    for step in range(options.decode + 1):
        with torch.no_grad():
            output = model(input_ids=inputs.to(device), past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = output.past_key_values
        routing = recorder.take()
        shape = (len(sequences), inputs.shape[1], *routing.ids.shape[1:])
        ids, weights = routing.ids.reshape(shape), routing.weights.reshape(shape)
        for row, sequence in enumerate(sequences):
            if sequence.open:
                sequence.ids.append(ids[row])
                sequence.weights.append(weights[row])
        if step == options.decode:
            break
        scaled = output.logits[:, -1].float().cpu() / options.temperature
        inputs = torch.multinomial(torch.softmax(scaled, dim=-1), 1, generator=generator)
        for sequence, token in zip(sequences, inputs[:, 0].tolist(), strict=True):
            sequence.open = sequence.open and token != END_OF_TEXT_ID
            if sequence.open:
                sequence.tokens.append(token)
        if not any(sequence.open for sequence in sequences):
            break
    return sequences


def capture(
    model: Any,
    tokenizer: Tokenizer,
    prompts: list[Prompt],
    *,
    options: CaptureOptions,
    metadata: dict[str, str],
    progress: Callable[[int, int], None] | None = None,
) -> RoutingTrace:
    """Generate from every prompt and return the routing as a trace.

    ``metadata`` holds ``model``, ``source`` and ``licence``. The rows of the trace are the tokens *processed*: the
    prompt (prefill) and every drawn token that was fed back (decode), each with the CRC-32 of its bytes. Ids are in
    rank order and have been checked against the router's logits. ``progress`` is called with (sequences done,
    sequences).

    Raises:
        ForestageError: if the model's routers are unknown, or chose other experts than their logits say.
    """
    import torch

    generator = torch.Generator().manual_seed(options.seed)
    finished: list[_Sequence] = []
    with RoutingRecorder(model.eval()) as recorder:
        for start in range(0, len(prompts), options.batch):
            group = prompts[start : start + options.batch]
            finished += generate(model, group, recorder, options, generator)
            if progress is not None:
                progress(len(finished), len(prompts))
    return build_trace(finished, recorder, token_hashes(tokenizer), experts=model.config.num_experts, metadata=metadata)


def build_trace(
    sequences: list[_Sequence],
    recorder: RoutingRecorder,
    hashes: np.ndarray,
    *,
    experts: int,
    metadata: dict[str, str],
) -> RoutingTrace:
    """Lay finished sequences one after another as a `RoutingTrace`."""
    lengths = [len(sequence.tokens) for sequence in sequences]
    ids = np.concatenate([part for sequence in sequences for part in sequence.ids])
    weights = np.concatenate([part for sequence in sequences for part in sequence.weights])
    if len(ids) != sum(lengths):
        raise RuntimeError(f"{len(ids)} recorded passes for {sum(lengths)} processed tokens")
    phases = [
        np.where(np.arange(length) < len(sequence.prompt.tokens), PREFILL, DECODE)
        for length, sequence in zip(lengths, sequences, strict=True)
    ]
    tokens = np.concatenate([np.asarray(sequence.tokens) for sequence in sequences])
    domains = tuple(sequence.prompt.domain for sequence in sequences)
    return RoutingTrace(
        expert_ids=ids.astype(id_dtype(experts)),
        gate_weights=weights.astype(np.float16),
        sequence_offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        position=np.concatenate([np.arange(n) for n in lengths]).astype(np.int32),
        phase=np.concatenate(phases).astype(np.uint8),
        token_hash=hashes[tokens],
        domains=domains,
        datasets=domains,
        metadata=TraceMetadata.model_validate(
            {
                **metadata,
                "experts": experts,
                "top_k": int(ids.shape[2]),
                "layer_map": recorder.layer_map,
                "ranked": True,
                "gate_weight_kind": recorder.gate_weight_kind,
            }
        ),
    )
