"""An oracle of short sight: the next n tokens known exactly, beyond them the decayed frequency.

As priorities for ``staging.simulate.run_priorities``: an expert wanted within the next ``horizon`` tokens of its layer
outranks all others, and the sooner it is wanted, the higher it ranks; the others rank by the counters of
``staging.frequency``. No policy that foresees at most ``horizon`` tokens does much better, so the curve over
``horizon`` says how far ahead a predictor must see to come near Belady's bound.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit
from catalog.errors import SettingError
from staging.frequency import COUNTER_BITS, DEFAULT_SHIFT, count_event, increment
from traces import RoutingTrace

CHUNK_TOKENS = 2048
MAX_HORIZON = 1 << 12


def oracle_chunks(
    trace: RoutingTrace, horizon: int, *, ema_shift: int = DEFAULT_SHIFT
) -> Iterator[tuple[int, NDArray[np.int32], None]]:
    """Yield ``(first token, priorities i32 [tokens, layers, experts], None)`` over the trace.

    Tokens are counted across the ends of sequences, as a cache meets them.

    Raises:
        SettingError: for a horizon outside 1 … ``MAX_HORIZON``.
    """
    if not 1 <= horizon <= MAX_HORIZON:
        raise SettingError("oracle", f"choose 1 to {MAX_HORIZON} tokens", value=horizon)
    step = increment(ema_shift)
    counters = np.zeros((trace.layers, trace.experts), np.int32)
    for first in range(0, trace.tokens, CHUNK_TOKENS):
        last = min(first + CHUNK_TOKENS, trace.tokens)
        seen = trace.token_range(first, min(last + horizon, trace.tokens))
        priorities = np.empty((last - first, trace.layers, trace.experts), np.int32)
        _fill(seen.expert_ids.astype(np.int32), seen.recorded(), horizon, ema_shift, step, counters, priorities)
        yield first, priorities, None


@njit()
def _fill(
    ids: NDArray[np.int32],
    recorded: NDArray[np.bool_],
    horizon: int,
    shift: int,
    step: int,
    counters: NDArray[np.int32],
    priorities: NDArray[np.int32],
) -> None:
    """Of the first tokens of ``ids``; those after them are only looked at."""
    tokens, layers, experts = priorities.shape
    top_k = ids.shape[2]
    for layer in range(layers):
        counter = counters[layer]
        for token in range(tokens):
            if recorded[token, layer]:
                count_event(counter, ids[token, layer], 0, shift, step)
            priorities[token, layer] = counter
        upcoming = np.full(experts, len(ids) + horizon, np.int64)
        for token in range(len(ids) - 1, -1, -1):
            if token < tokens:
                for expert in range(experts):
                    distance = upcoming[expert] - token
                    if distance <= horizon:
                        priorities[token, layer, expert] = (1 << COUNTER_BITS) + horizon - distance
            if recorded[token, layer]:
                for i in range(top_k):
                    upcoming[ids[token, layer, i]] = token
