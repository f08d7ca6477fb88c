"""Generate sequences from prompts with a key-value cache, and record the routing of every pass."""

from __future__ import annotations

from dataclasses import dataclass, field
from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np

from catalog.errors import ForestageError
from traces import DECODE, PREFILL, RoutingTrace, TraceMetadata, id_dtype

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from gpu_reference.routers import RoutingRecorder


@dataclass
class RecordedSequence:
    """One sequence: the processed tokens, the first ``prompt`` of them in one pass, and the routing of each pass.

    ``ids`` and ``weights`` hold one array ``[tokens of the pass, layers, top_k]`` per pass, ``early`` one array
    ``[tokens of the pass, layers, width]`` per lookahead and pass; the sequence is ``open`` until it ends.
    """

    tokens: list[int]
    prompt: int
    ids: list[np.ndarray] = field(default_factory=list)
    weights: list[np.ndarray] = field(default_factory=list)
    early: dict[int, list[np.ndarray]] = field(default_factory=dict)
    open: bool = True

    def ranked_early(self) -> dict[int, np.ndarray]:
        """The rankings of early gates: lookahead → u16 ``[tokens, layers, width]``."""
        return {lookahead: np.concatenate(parts) for lookahead, parts in self.early.items()}


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn.

    Attributes:
        temperature: 0 takes the likeliest token.
        ends: tokens that end a sequence; they are not processed, so they have no routing.
        vocabulary: only tokens below it may be drawn; ``None``: all.
    """

    temperature: float
    ends: frozenset[int]
    vocabulary: int | None = None

    def draw(self, logits: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """The next tokens, i64 ``[sequences, 1]``, from ``logits [sequences, vocabulary]``."""
        import torch

        usable = logits.float().cpu()[:, : self.vocabulary]
        if self.temperature == 0:
            return usable.argmax(dim=-1, keepdim=True)
        return torch.multinomial(torch.softmax(usable / self.temperature, dim=-1), 1, generator=generator)


def generate(
    model: Any,
    prompts: Sequence[np.ndarray],
    recorder: RoutingRecorder,
    *,
    decode: int,
    sampling: Sampling,
    generator: torch.Generator,
) -> list[RecordedSequence]:
    """Continue equally long ``prompts`` (i64 ``[prompt]`` each) together, by at most ``decode`` tokens.

    No token is drawn after the last pass, so exactly one pass processed every token kept.
    """
    import torch

    device = next(model.parameters()).device
    sequences = [RecordedSequence(prompt.tolist(), len(prompt)) for prompt in prompts]
    inputs = torch.from_numpy(np.stack(prompts))
    cache = None
    for step in range(decode + 1):
        with torch.no_grad():
            output = model(input_ids=inputs.to(device), past_key_values=cache, use_cache=True, **_last_only(model))
        cache = output.past_key_values
        routing = recorder.take()
        shape = (len(sequences), inputs.shape[1], *routing.ids.shape[1:])
        ids, weights = routing.ids.reshape(shape), routing.weights.reshape(shape)
        early = {far: ranked.reshape(*shape[:3], -1) for far, ranked in routing.early.items()}
        for row, sequence in enumerate(sequences):
            if sequence.open:
                sequence.ids.append(ids[row])
                sequence.weights.append(weights[row])
                for lookahead, ranked in early.items():
                    sequence.early.setdefault(lookahead, []).append(ranked[row])
        if step == decode:
            break
        inputs = sampling.draw(output.logits[:, -1], generator)
        for sequence, token in zip(sequences, inputs[:, 0].tolist(), strict=True):
            sequence.open = sequence.open and token not in sampling.ends
            if sequence.open:
                sequence.tokens.append(token)
        if not any(sequence.open for sequence in sequences):
            break
    return sequences


LEAST_AGREEMENT = 0.8
"""Share of a sequence's decoded experts that one pass without a cache must choose too. Rounding differs between passes
of different lengths and changes a few per cent in half precision; a wrongly handled cache changes most."""

FEW = 8
"""So many differing experts are always allowed, because a short sequence's share is coarse."""


def check_decode(model: Any, sequence: RecordedSequence, recorder: RoutingRecorder, origin: str) -> None:
    """Run ``sequence`` again in one pass without a cache, and compare the choices of its decode steps.

    Raises:
        ForestageError: naming ``origin``, if too many choices differ.
    """
    import torch

    if len(sequence.tokens) == sequence.prompt:
        return
    tokens = torch.tensor([sequence.tokens], device=next(model.parameters()).device)
    with torch.no_grad():
        model(input_ids=tokens, use_cache=False, **_last_only(model))
    whole = recorder.take().ids[sequence.prompt :]
    decoded = np.concatenate(sequence.ids)[sequence.prompt :]
    same = (decoded[..., :, None] == whole[..., None, :]).any(axis=-1)
    shared = float(same.mean())
    if shared < LEAST_AGREEMENT and same.size - same.sum() > FEW:
        raise ForestageError(
            f"{origin}: decode steps chose other experts than one pass over the same tokens ({shared:.0%} the same): "
            "this model's cache does not work so; give --new-tokens 0, or another version of transformers"
        )


def _last_only(model: Any) -> dict[str, int]:
    """The argument that makes a model compute only the last token's logits, if it has one."""
    return {"logits_to_keep": 1} if "logits_to_keep" in signature(model.forward).parameters else {}


def build_trace(
    sequences: Sequence[RecordedSequence],
    recorder: RoutingRecorder,
    hashes: np.ndarray,
    *,
    domains: Sequence[str],
    datasets: Sequence[str],
    metadata: dict[str, str],
) -> RoutingTrace:
    """Put finished sequences one after another into a `RoutingTrace`.

    ``hashes`` (u32 ``[vocabulary]``) identifies tokens; ``metadata`` holds ``model``, ``source`` and ``licence``.
    """
    lengths = [len(sequence.tokens) for sequence in sequences]
    ids = np.concatenate([part for sequence in sequences for part in sequence.ids])
    weights = np.concatenate([part for sequence in sequences for part in sequence.weights])
    if len(ids) != sum(lengths):
        raise RuntimeError(f"{len(ids)} recorded passes for {sum(lengths)} processed tokens")
    phases = [
        np.where(np.arange(length) < sequence.prompt, PREFILL, DECODE)
        for length, sequence in zip(lengths, sequences, strict=True)
    ]
    tokens = np.concatenate([np.asarray(sequence.tokens) for sequence in sequences])
    return RoutingTrace(
        expert_ids=ids.astype(id_dtype(recorder.experts)),
        gate_weights=weights.astype(np.float16),
        sequence_offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        position=np.concatenate([np.arange(n) for n in lengths]).astype(np.int32),
        phase=np.concatenate(phases).astype(np.uint8),
        token_hash=hashes[tokens],
        domains=tuple(domains),
        datasets=tuple(datasets),
        metadata=TraceMetadata.model_validate(
            {
                **metadata,
                "experts": recorder.experts,
                "top_k": int(ids.shape[2]),
                "layer_map": recorder.layer_map,
                "ranked": True,
                "gate_weight_kind": recorder.gate_weight_kind,
            }
        ),
    )
