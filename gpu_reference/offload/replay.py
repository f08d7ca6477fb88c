"""Replay a part of a trace in a decoder whose experts are offloaded: real costs, and the trace's routing.

Each layer's attention, router and experts run; the router's choice comes to the host as in earnest, and then the
trace's takes its place. What the tokens are does not matter to the time, so ids are drawn where the trace's are not
known. Where a trace begins in the middle of a sequence, the cache holds as many random keys and values before: its
content is not the model's, its length is real.

A step's time is from its token ids on the host to the next ones there.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from catalog.errors import ForestageError
from catalog.progress import Progress
from gpu_reference.offload.passing import AnyDecoder, AnyExperts, through_layers
from gpu_reference.offload.routing import Call, ReplayPlan
from gpu_reference.offload.runtime import ForcedRouting
from gpu_reference.offload.statistics import Statistics
from predictor.policies.parts import Part


@dataclass(frozen=True, eq=False, kw_only=True)
class ReplayRun:
    """What a replay gave.

    Attributes:
        step_s: f64 ``[timed steps]``.
        tokens: of all timed steps.
        statistics: of the timed steps.
        digest: SHA-256 of the last layer's output at every step, timed or not.
    """

    step_s: NDArray[np.float64]
    tokens: int
    statistics: Statistics
    digest: str


def replay(
    part: Part,
    decoder: AnyDecoder,
    experts: AnyExperts,
    *,
    token_ids: NDArray[np.int64] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> ReplayRun:
    """Run all steps of ``part``.

    Args:
        part: of a trace.
        decoder: with as many layers, experts and choices as the trace, and with slots and context for it
            (`routing.ReplayPlan`).
        experts: its experts; they are not closed.
        token_ids: i64 ``[tokens of the trace]``; ``None``: drawn with ``seed``.
        progress: called with (steps done, steps).

    Raises:
        ForestageError: if the decoder does not fit the trace.
    """
    trace, plan = part.trace, ReplayPlan(part)
    check_fits(part, plan, decoder)
    if token_ids is None:
        token_ids = np.random.default_rng(seed).integers(0, decoder.shape.model.vocabulary, trace.tokens)
    digest, step_s, tokens = hashlib.sha256(), [], 0
    with torch.inference_mode():
        for step, calls in enumerate(plan.steps()):
            timed = bool(part.steps.timed[step])
            for call in calls:
                for slot, context in call.starts:
                    decoder.reset(slot, context=context)
                forced = plan.forced(call, decoder.device)
                ids = torch.from_numpy(token_ids[call.rows])
                _finish(decoder.device)
                begun_s = time.perf_counter()
                hidden = _run(decoder, experts, step, call, ids, forced, timed=timed)
                if timed:
                    step_s.append(time.perf_counter() - begun_s)
                    tokens += len(call.rows)
                digest.update(hidden.cpu().contiguous().view(torch.uint8).numpy().tobytes())
            if progress is not None:
                progress(step + 1, len(part.steps))
    return ReplayRun(step_s=np.array(step_s), tokens=tokens, statistics=experts.timed, digest=digest.hexdigest())


def check_fits(part: Part, plan: ReplayPlan, decoder: AnyDecoder) -> None:
    """Refuse a decoder that does not fit the trace.

    Raises:
        ForestageError: naming what does not fit.
    """
    trace = part.trace
    for name, has, needed in (
        ("layers with experts", decoder.layers, trace.layers),
        ("experts", decoder.experts, trace.experts),
        ("experts a token", decoder.top_k, trace.top_k),
    ):
        if has != needed:
            raise ForestageError(f"replay: the decoder has {has} {name}, the trace {needed}; choose the trace's model")
    for name, has, needed in (
        ("slots", decoder.slots, plan.slots),
        ("max_context", decoder.max_context, plan.max_context),
    ):
        if has < needed:
            raise ForestageError(f"replay: the decoder has {name} {has}, the trace's steps need {needed}; give that")


def _run(
    decoder: AnyDecoder,
    experts: AnyExperts,
    step: int,
    call: Call,
    ids: torch.Tensor,
    forced: list[ForcedRouting],
    *,
    timed: bool,
) -> torch.Tensor:
    """One call: the last layer's output ``[n, hidden]``, when the host knows the next tokens."""
    experts.begin_step(step, timed=timed)
    hidden = through_layers(decoder, experts, ids, call.positions, call.slots, forced=forced)
    experts.end_step()
    experts.read(decoder.logits(hidden if timed else hidden[-1:]).argmax(dim=-1))
    return hidden


def _finish(device: torch.device) -> None:
    """Before a step's time begins, what made its inputs is done."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
