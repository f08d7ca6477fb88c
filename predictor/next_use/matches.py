"""Where did this text last stand as it stands now?

*Context tables* in far memory answer, one for each length ``n`` of ``contexts``. With ``t`` the identities of the
tokens (u32), the newest being ``t[0]``:

    key = 0;  for age = n − 1 … 0:  key = rotate_left(key, KEY_ROTATION) ^ t[age]
    entry = key mod context_entries

An entry holds a key and the position, in its sequence, of the newest token that had it. If it was written in this
sequence under the very key that is looked up, the token *matches* that position; of several tables that match, the one
of the longest context counts. Then the token takes its entry in every table. A sequence of fewer than n tokens, or with
one of unknown identity among the last n, looks nothing up and writes nothing.

The keys are those of the learned predictor's tagged tables; tests hold both equal. What is compiled here calls nothing
compiled elsewhere: numba's cache on disk does not notice a change in another file.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from predictor.next_use.parameters import NextUseParameters
from traces import RoutingTrace
from traces.compiled import njit

KEY_ROTATION = 7
UNKNOWN = -1
"""The identity of a token that has none, and the position of a token that matches none."""


class MatchState(NamedTuple):
    """What the batch form carries from chunk to chunk.

    Attributes:
        latest: i64 ``[longest context]``, identities of the last tokens, the newest first.
        keys: i64 ``[contexts, context_entries]``; ``UNKNOWN``: not written in this sequence.
        places: i64 ``[contexts, context_entries]``, the position that each entry holds.
        position: i64 ``[1]``, of the newest token in its sequence.
    """

    latest: NDArray[np.int64]
    keys: NDArray[np.int64]
    places: NDArray[np.int64]
    position: NDArray[np.int64]


def no_matches(parameters: NextUseParameters) -> MatchState:
    """The state before the first sequence."""
    contexts = parameters.contexts if parameters.looks_at_identity else ()
    entries = (len(contexts), parameters.context_entries)
    return MatchState(
        latest=np.full(max(contexts, default=0), UNKNOWN, np.int64),
        keys=np.full(entries, UNKNOWN, np.int64),
        places=np.zeros(entries, np.int64),
        position=np.zeros(1, np.int64),
    )


def identities_of(trace: RoutingTrace, first: int, last: int) -> NDArray[np.int64]:
    """Identities i64 ``[last − first]`` of tokens from ``first`` on; ``UNKNOWN`` where the trace records none."""
    recorded = trace.token_range(first, last).token_hash
    return np.full(last - first, UNKNOWN, np.int64) if recorded is None else np.asarray(recorded).astype(np.int64)


def find_matches(
    identities: NDArray[np.int64], starts: NDArray[np.bool_], parameters: NextUseParameters, state: MatchState
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions i64 ``[tokens]`` of consecutive tokens in their sequences, and those that they match.

    Args:
        identities: i64 ``[tokens]``.
        starts: bool ``[tokens]``, the first token of each sequence.
        parameters: the contexts.
        state: of the tokens before; moved on.
    """
    positions = np.empty(len(identities), np.int64)
    matches = np.full(len(identities), UNKNOWN, np.int64)
    contexts = np.array(parameters.contexts[: len(state.keys)], np.int64)
    _find(identities, starts, contexts, *state, positions, matches)
    return positions, matches


def matched_rows(trace: RoutingTrace, starts: NDArray[np.bool_], parameters: NextUseParameters) -> NDArray[np.int64]:
    """For each token of ``trace`` the token that it matches, i64 ``[tokens]`` counted from the first of all."""
    identities = identities_of(trace, 0, trace.tokens)
    positions, matches = find_matches(identities, starts, parameters, no_matches(parameters))
    return np.where(matches < 0, UNKNOWN, np.arange(trace.tokens) - positions + matches)


@njit()
def context_key(latest: NDArray[np.int64], length: int) -> int:
    """The key of the ``length`` newest identities of ``latest``; ``UNKNOWN`` where one is missing."""
    key = 0
    for age in range(length - 1, -1, -1):
        if latest[age] < 0:
            return UNKNOWN
        key = (((key << KEY_ROTATION) | (key >> (32 - KEY_ROTATION))) & 0xFFFFFFFF) ^ latest[age]
    return key


@njit()
def _find(
    identities: NDArray[np.int64],
    starts: NDArray[np.bool_],
    contexts: NDArray[np.int64],
    latest: NDArray[np.int64],
    keys: NDArray[np.int64],
    places: NDArray[np.int64],
    position: NDArray[np.int64],
    positions: NDArray[np.int64],
    matches: NDArray[np.int64],
) -> None:
    for token in range(len(identities)):
        position[0] += 1
        if starts[token]:
            position[0] = 0
            latest[:] = UNKNOWN
            keys[:] = UNKNOWN
        positions[token] = position[0]
        for age in range(len(latest) - 1, 0, -1):
            latest[age] = latest[age - 1]
        if len(latest):
            latest[0] = identities[token]
        for table in range(len(contexts)):  # ascending, so that the longest has the last word
            key = context_key(latest, contexts[table])
            if key < 0:
                continue
            entry = key & (keys.shape[1] - 1)
            if keys[table, entry] == key:
                matches[token] = places[table, entry]
            keys[table, entry] = key
            places[table, entry] = position[0]
