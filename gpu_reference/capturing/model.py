"""Record the routing of a local Hugging Face model while it answers prompts."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field, field_validator

from catalog.config import StrictModel
from catalog.errors import ForestageError
from catalog.progress import Progress
from gpu_reference.capturing.folder import Dtype, ModelFolder
from gpu_reference.capturing.parts import CaptureParts
from gpu_reference.capturing.sequences import Sampling, build_trace, check_decode, generate
from gpu_reference.capturing.tokens import identity_hashes
from gpu_reference.devices import check_device
from gpu_reference.routers import EarlyGates, RoutingRecorder, register_from

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from gpu_reference.capturing.prompts import CapturePrompt


LEAST_TEMPERATURE = 1e-4
"""Smallest temperature above 0; logits divided by less would overflow single precision."""


class CaptureNames(StrictModel):
    """Metadata about the trace's origin, checked before the model runs."""

    model: str = Field(min_length=1)
    licence: str = Field(min_length=1)
    source: str = Field(min_length=1)


class ModelCaptureOptions(StrictModel):
    """How a local model is run.

    Attributes:
        new_tokens: tokens generated and processed after each prompt, unless the model ends the sequence earlier.
        max_prompt: a longer prompt is cut to its first ``max_prompt`` tokens.
        temperature: sampling temperature, at least ``LEAST_TEMPERATURE``; or 0: take the likeliest token.
        seed: seed of the sampling; each sequence has its own generator, so that none depends on the others.
        device: PyTorch's name of the device.
        dtype: type of the weights; ``auto``: as stored.
        early_gate: lookaheads at which the layers' gates also run early (`routers.early_gate`); empty: none.
        early_gate_width: experts that each early gate ranks; ``None``: four times the ``top_k``.
        trust_router: record the choice that an unknown router's experts are called with, even if no rule explains it.
        adapters: adapters to register for this capture, as "module:Name".
    """

    new_tokens: int = Field(default=128, ge=0)
    max_prompt: int = Field(default=1024, ge=1)
    temperature: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    seed: int = Field(default=0, ge=0)
    device: str = "cpu"
    dtype: Dtype = "auto"
    early_gate: tuple[Annotated[int, Field(ge=1)], ...] = ()
    early_gate_width: int | None = Field(default=None, ge=1)
    trust_router: bool = False
    adapters: tuple[str, ...] = ()

    @field_validator("early_gate")
    @classmethod
    def _distinct(cls, lookaheads: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(lookaheads)) < len(lookaheads):
            raise ValueError("names a lookahead twice")
        return lookaheads

    @field_validator("temperature")
    @classmethod
    def _drawable(cls, temperature: float) -> float:
        if 0 < temperature < LEAST_TEMPERATURE:
            raise ValueError(f"must be 0 (the likeliest token) or at least {LEAST_TEMPERATURE:g}")
        return temperature


def capture_model(
    path: Path,
    prompts: list[CapturePrompt],
    out: Path,
    *,
    options: ModelCaptureOptions,
    model_name: str | None = None,
    licence: str = "unknown",
    progress: Progress | None = None,
) -> list[Path]:
    """Run the model in folder ``path`` on every prompt and write the routing of every token processed to ``out``.

    A prompt takes one pass (prefill), then every generated token takes one (decode). The sequences run one at a time.
    Each finished sequence is kept in the folder ``OUT.parts``; after an interruption the same call continues there. The
    router's choice is recomputed from its logits at every token and layer (`routers.check`). Requests are checked
    before anything is written. Returns the files of predictions written beside ``out``, one per lookahead.

    Args:
        path: a folder with config.json, tokenizer.json and safetensors weights.
        prompts: at least one.
        out: the trace file.
        options: how the model is run.
        model_name: the model's name; by default the one that the folder gives.
        licence: licence of the recording.
        progress: called with (sequences done, sequences).

    Raises:
        ForestageError: if the folder, the device or a prompt cannot be used, the architecture's routers are unknown, a
            choice does not follow from the logits, or ``out`` was begun with other settings.
    """
    check_device(options.device)
    for place in options.adapters:
        register_from(place)
    folder = ModelFolder.open(path)
    tokenizer = folder.load_tokenizer()
    texts = [_encode(tokenizer, prompt.prompt, options.max_prompt, index) for index, prompt in enumerate(prompts)]
    names = {"model": model_name or folder.model_name(), "licence": licence, "source": _source(folder, options)}
    metadata = CaptureNames.parse_settings(names, origin="trace capture").model_dump()
    parts = CaptureParts(out, _settings(folder, prompts, options, metadata), options.early_gate)
    missing = [index for index in range(len(prompts)) if not parts.has(index)]
    if missing:
        _record(folder, tokenizer, prompts, texts, missing, parts, options, metadata, progress)
    parts.join(len(prompts))
    return parts.predictions


def _record(
    folder: ModelFolder,
    tokenizer: Tokenizer,
    prompts: list[CapturePrompt],
    texts: list[np.ndarray],
    missing: list[int],
    parts: CaptureParts,
    options: ModelCaptureOptions,
    metadata: dict[str, str],
    progress: Progress | None,
) -> None:
    """Generate the sequences ``missing``, one after the other, into ``parts``."""
    import torch

    model = folder.load_model(dtype=options.dtype, device=options.device)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    largest = max(int(text.max()) for text in texts)
    if largest >= vocabulary:
        raise ForestageError(
            f"{folder.path}: tokenizer.json gives token {largest}, the model has {vocabulary}; "
            "they do not belong together"
        )
    hashes = identity_hashes(tokenizer, vocabulary)
    # An embedding may be padded beyond the tokenizer's vocabulary; ids without a text must not be drawn.
    last = min(vocabulary, max(tokenizer.get_vocab().values()) + 1)
    sampling = Sampling(options.temperature, _end_tokens(model), last)
    done = len(prompts) - len(missing)
    early = EarlyGates(options.early_gate, options.early_gate_width) if options.early_gate else None
    with RoutingRecorder(model, trust=options.trust_router, early=early) as recorder:
        metadata = {**metadata, "source": "; ".join([metadata["source"], *recorder.notes])}
        for index in missing:
            seed = int(np.random.SeedSequence([options.seed, index]).generate_state(1, np.uint64)[0] >> 1)
            sequences = generate(
                model,
                [texts[index]],
                recorder,
                decode=options.new_tokens,
                sampling=sampling,
                generator=torch.Generator().manual_seed(seed),
            )
            if index == missing[0] and options.new_tokens:
                check_decode(model, sequences[0], recorder, str(folder.path))
            prompt = prompts[index]
            domain, dataset = prompt.domain, prompt.dataset or prompt.domain
            trace = build_trace(sequences, recorder, hashes, domains=[domain], datasets=[dataset], metadata=metadata)
            parts.add(index, trace, sequences[0].ranked_early())
            done += 1
            if progress is not None:
                progress(done, len(prompts))


def _encode(tokenizer: Tokenizer, text: str, longest: int, index: int) -> np.ndarray:
    """Tokens of a prompt, i64 ``[prompt]``."""
    tokens = tokenizer.encode(text).ids[:longest]
    if not tokens:
        raise ForestageError(f"prompts: prompt {index + 1} ({text[:40]!r}) has no token; leave it out")
    return np.asarray(tokens, dtype=np.int64)


def _end_tokens(model: Any) -> frozenset[int]:
    """Tokens that end a sequence, from the folder's generation configuration, else from the model's configuration."""
    ends = getattr(model.generation_config, "eos_token_id", None)
    if ends is None:
        ends = getattr(model.config, "eos_token_id", None)
    return frozenset([ends] if isinstance(ends, int) else ends or [])


def _source(folder: ModelFolder, options: ModelCaptureOptions) -> str:
    """Where the trace comes from, without this machine's paths."""
    import transformers

    how = "greedy" if options.temperature == 0 else f"temperature {options.temperature:g}, seed {options.seed}"
    return (
        f"forestage trace capture of {folder.path.resolve().name} ({folder.fingerprint()}) by transformers "
        f"{transformers.__version__}, {options.dtype} on {options.device.split(':')[0]}, {how}, at most "
        f"{options.max_prompt} prompt and {options.new_tokens} new tokens"
    )


def _settings(
    folder: ModelFolder, prompts: list[CapturePrompt], options: ModelCaptureOptions, metadata: dict[str, str]
) -> dict[str, str]:
    """Name → value, for everything that determines what is recorded."""
    import transformers

    text = "\n".join(prompt.model_dump_json() for prompt in prompts)
    return {
        **{name: str(value) for name, value in options},
        "model": metadata["model"],
        "licence": metadata["licence"],
        "transformers": transformers.__version__,
        "model folder": folder.fingerprint(),
        "prompts file": hashlib.sha256(text.encode()).hexdigest()[:16],
    }
