"""Greedy generation, one sequence at a time, by a model whose experts are offloaded; the router's own choice counts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from catalog.errors import ForestageError
from catalog.progress import Progress
from gpu_reference.offload.foresight import ListeningForesight
from gpu_reference.offload.passing import AnyDecoder, AnyExperts, through_layers


@dataclass(frozen=True, eq=False, kw_only=True)
class GeneratedSequence:
    """A sequence: its prompt, and what the model added.

    Attributes:
        prompt, added: token ids. The last of ``added`` was drawn and not processed.
        prefill_s: of the prompt's pass, until its first token is known.
        step_s: f64 ``[decode steps]``, from one token's id on the host to the next one's.
    """

    prompt: list[int]
    added: list[int]
    prefill_s: float
    step_s: NDArray[np.float64]


def generate(
    decoder: AnyDecoder,
    experts: AnyExperts,
    prompts: Sequence[Sequence[int]],
    *,
    new_tokens: int,
    end: int | None = None,
    identities: NDArray[np.integer] | None = None,
    listening: ListeningForesight | None = None,
    speculate: bool = False,
    progress: Progress | None = None,
) -> list[GeneratedSequence]:
    """Continue each prompt by the likeliest tokens.

    A prompt is one untimed step, each token after it a timed one; steps are numbered over all sequences, as
    `staging.steps.decode_steps` numbers those of the recorded sequences.

    Args:
        decoder, experts: of the model; the experts are not closed.
        prompts: token ids of each.
        new_tokens: that are added, at most.
        end: the token that ends a sequence; it is not kept.
        identities: of each token of the vocabulary, what predictors know it by.
        listening: foresight that is to hear of each step.
        speculate: see `passing.through_layers`.
        progress: called with (sequences done, sequences).

    Raises:
        ForestageError: for an empty prompt, or one that does not fit the decoder's context.
    """
    found, step = [], 0
    with torch.inference_mode():
        for number, prompt in enumerate(prompts):
            if not prompt:
                raise ForestageError(f"prompt {number + 1}: has no token; give some text")
            if len(prompt) + new_tokens - 1 > decoder.max_context:
                raise ForestageError(
                    f"prompt {number + 1}: {len(prompt)} tokens and {new_tokens} new ones do not fit the context of "
                    f"{decoder.max_context}; give a shorter prompt, or fewer tokens"
                )
            decoder.reset(0)
            added: list[int] = []
            times: list[float] = []
            tokens = list(prompt)
            while len(added) < new_tokens:
                is_pass = not added
                if listening is not None:
                    assert identities is not None, "predictors know tokens by them"
                    listening.announce([int(identities[token]) for token in tokens], starts=is_pass, is_pass=is_pass)
                first = 0 if is_pass else len(prompt) + len(added) - 1
                begun_s = time.perf_counter()
                experts.begin_step(step, timed=not is_pass)
                hidden = through_layers(
                    decoder,
                    experts,
                    torch.tensor(tokens),
                    list(range(first, first + len(tokens))),
                    [0] * len(tokens),
                    speculate=speculate,
                )
                experts.end_step()
                (likeliest,) = experts.read(decoder.logits(hidden[-1:]).argmax(dim=-1))
                times.append(time.perf_counter() - begun_s)
                step += 1
                if likeliest == end:
                    break
                added.append(likeliest)
                tokens = [likeliest]
            found.append(
                GeneratedSequence(
                    prompt=list(prompt), added=added, prefill_s=times[0], step_s=np.array(times[1:], np.float64)
                )
            )
            if progress is not None:
                progress(number + 1, len(prompts))
    return found
