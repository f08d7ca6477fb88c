"""Decode with a checkpoint whose experts are offloaded, and with all of them on the device as the check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from catalog.progress import Progress
from gpu_reference.decoder.decoder import Decoder
from gpu_reference.experts.layout import Format
from gpu_reference.offload.foresight import (
    ArrayForesight,
    Foresight,
    ListeningForesight,
    NoForesight,
    SpeculativeForesight,
)
from gpu_reference.offload.generate import GeneratedSequence, generate
from gpu_reference.offload.host_store import HostExperts
from gpu_reference.offload.opened import offloaded_experts, resident_experts
from gpu_reference.offload.recorded import recorded_trace
from gpu_reference.offload.statistics import Statistics
from predictor.foresight.arrays import Predictions, Values
from predictor.foresight.online import OnlineForesight
from predictor.policies.online import online_foresight
from predictor.policies.parts import Predictors, part_of
from predictor.policies.plan import Plan
from predictor.policies.policy import Eviction, Policy, Prefetch, plan_of
from staging.results import Scope
from staging.static import hottest
from staging.steps import decode_steps


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How to decode.

    Attributes:
        policy: what moves and what gives way.
        speculate: fetch what the next layer's router would choose now (`foresight.SpeculativeForesight`).
        capacity: experts that the device holds, of each layer or of all, by ``scope``.
        scope: ``layer`` or ``global``.
        format: of the experts.
        dtype: of the decoder's other weights and of activations.
        device: where it runs.
        kernel: name of the device's expert kernel; ``None``: its first.
        link_gb_per_s: of a slower link than there is; ``None``: none.
        new_tokens: of a sequence, at most.
        check: also run with all experts on the device.
    """

    policy: Policy
    speculate: bool = False
    capacity: int
    scope: Scope
    format: Format
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str
    kernel: str | None = None
    link_gb_per_s: float | None = None
    new_tokens: int
    check: bool = True


@dataclass(frozen=True, eq=False, kw_only=True)
class Decoded:
    """What came of it.

    Attributes:
        sequences: with offloaded experts.
        statistics: of their decode steps.
        resident: the same with all experts on the device; ``None``: not asked for.
        places: experts held, over all layers.
        expert_bytes: of one.
    """

    sequences: list[GeneratedSequence]
    statistics: Statistics
    resident: list[GeneratedSequence] | None
    places: int
    expert_bytes: int


def decode(
    checkpoint: Path,
    prompts: Sequence[Sequence[int]],
    settings: Decoding,
    *,
    predictors: Predictors,
    uses: NDArray[np.int64],
    identities: NDArray[np.integer],
    end: int | None,
    progress: Progress | None = None,
) -> Decoded:
    """Continue ``prompts`` with the model in ``checkpoint``.

    An oracle knows the routing of the run with all experts on the device, which then comes first and is the trace.

    Args:
        checkpoint: a folder with the shipped model's files.
        prompts: token ids of each.
        settings: how.
        predictors: that the policy asks.
        uses: i64 ``[layers, experts]``, of the training sequences: the most used are on the device at the start.
        identities: of each token of the vocabulary.
        end: the token that ends a sequence.
        progress: called with (sequences done, sequences), of each run anew.

    Raises:
        ForestageError: where a file, the device, or a predictor is missing or does not fit.
    """
    context = max(map(len, prompts)) + settings.new_tokens
    device, dtype = torch.device(settings.device), getattr(torch, settings.dtype)
    decoder = Decoder.shipped(checkpoint, device=device, dtype=dtype, max_context=context)
    host = HostExperts.of_checkpoint(checkpoint, settings.format, pinned=device.type == "cuda")
    layers, experts = decoder.layers, decoder.experts
    source: OnlineForesight | None = None
    if not settings.policy.is_oracle:  # before the resident run: it refuses predictors that do not fit
        source = online_foresight(settings.policy, predictors, layers=layers, experts=experts)
    resident: list[GeneratedSequence] | None = None
    heard: list[list[int]] | None = None
    if settings.check or settings.policy.is_oracle:
        everything = resident_experts(host, device, kernel=settings.kernel)
        everything.heard = heard = []
        resident = generate(decoder, everything, prompts, new_tokens=settings.new_tokens, end=end, progress=progress)
        del everything
    share = settings.capacity
    places = share * layers if settings.scope == "layer" else share
    foresight: Foresight
    values: Mapping[Eviction, Values] = {}
    predictions: Mapping[Prefetch, Predictions] = {}
    if settings.policy.is_oracle:
        assert resident is not None
        assert heard is not None
        trace = recorded_trace(
            resident, heard, identities, model=decoder.shape.model.name, layers=layers, experts=experts,
            top_k=decoder.top_k,
        )  # fmt: skip
        part = part_of(trace, decode_steps(trace), predictors, only=settings.policy)
        values, predictions = part.values, part.predictions
        foresight = ArrayForesight(
            layers, values.get(settings.policy.eviction), predictions.get(settings.policy.prefetch)
        )
    else:
        if source is not None:
            foresight = ListeningForesight(source, layers, decoder.top_k)
        else:
            foresight = SpeculativeForesight(layers) if settings.speculate else NoForesight()
    plan = _plan(settings, values, predictions, source, uses, layers=layers, experts=experts, places=places)
    with offloaded_experts(
        plan,
        host,
        device,
        foresight=foresight,
        kernel=settings.kernel,
        link_gb_per_s=settings.link_gb_per_s,
        most_tokens=max(map(len, prompts)),
        dtype=dtype,
    ) as offloaded:
        sequences = generate(
            decoder,
            offloaded,
            prompts,
            new_tokens=settings.new_tokens,
            end=end,
            identities=identities,
            listening=foresight if isinstance(foresight, ListeningForesight) else None,
            speculate=settings.speculate,
            progress=progress,
        )
    host.close()
    return Decoded(
        sequences=sequences,
        statistics=offloaded.timed,
        resident=resident if settings.check else None,
        places=places,
        expert_bytes=host.layout.nbytes,
    )


def _plan(
    settings: Decoding,
    values: Mapping[Eviction, Values],
    predictions: Mapping[Prefetch, Predictions],
    source: OnlineForesight | None,
    uses: NDArray[np.int64],
    *,
    layers: int,
    experts: int,
    places: int,
) -> Plan:
    """The policy, resolved; where predictors listen, for values and predictions that are still to come."""
    policy = settings.policy
    if source is not None:
        coming = np.empty((0, layers, experts), np.int32)
        values = {policy.eviction: Values(rows=coming, at_step_end=False, most=source.most)}
        nothing = np.empty((0, layers, 1, 1), np.int32)
        predictions = {policy.prefetch: Predictions(distances=(1,), experts=nothing.astype(np.int16), chances=nothing)}
        if policy.eviction is Eviction.LRU:
            values = {}
    return plan_of(
        policy,
        layers=layers,
        experts=experts,
        most_needed=experts,  # a prompt's pass may need all
        places=places,
        scope=settings.scope,
        hottest=hottest(uses, settings.capacity, settings.scope),
        values=values,
        predictions=predictions,
    )
