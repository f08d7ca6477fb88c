"""A trace as the steps of a device that serves one request at a time."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from traces import DECODE, RoutingTrace


@dataclass(frozen=True, slots=True)
class SequenceStart:
    """A new request."""


@dataclass(frozen=True, slots=True)
class PromptPass:
    """Consecutive prompt tokens, layer by layer.

    Attributes:
        tokens: how many.
        chosen: for each layer the experts that any of the tokens chose, each once, in the order of first choice (as in
            `staging.events`); empty where nothing was recorded.
    """

    tokens: int
    chosen: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class DecodeStep:
    """One output token.

    Attributes:
        token: row of the trace.
        ids: for each layer the experts it uses, in the trace's order.
        context_tokens: tokens in the key-value cache, this one included.
    """

    token: int
    ids: tuple[tuple[int, ...], ...]
    context_tokens: int


def steps_of(trace: RoutingTrace) -> Iterator[SequenceStart | PromptPass | DecodeStep]:
    """The steps of ``trace`` in order."""
    for index in range(trace.sequences):
        yield SequenceStart()
        first = trace.sequence_slice(index).start
        part = trace.sequence(index)
        is_decode = part.phase == DECODE
        # A run begins where the phase changes; each decode token is a step of its own.
        begins = np.flatnonzero(np.diff(is_decode, prepend=~is_decode[:1])).tolist()
        for begin, end in zip(begins, [*begins[1:], part.tokens], strict=True):
            run = part.token_range(begin, end)
            if is_decode[begin]:
                contexts = (run.position.astype(np.int64) + 1).tolist()
                for row, (ids, context_tokens) in enumerate(zip(run.expert_ids.tolist(), contexts, strict=True)):
                    yield DecodeStep(first + begin + row, tuple(map(tuple, ids)), context_tokens)
            else:
                yield PromptPass(end - begin, _chosen(run))


def _chosen(prompt: RoutingTrace) -> tuple[tuple[int, ...], ...]:
    recorded = prompt.recorded()
    by_layer = (prompt.expert_ids[recorded[:, layer], layer].ravel().tolist() for layer in range(prompt.layers))
    return tuple(tuple(dict.fromkeys(ids)) for ids in by_layer)
