"""Compiled kernels of ST-MoE's tables: the profile of a training trace and the scores of a whole trace.

The scores equal those of ``StMoeTables`` event by event (tested); nothing here is a second definition.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit
from predictor.base import Scores, check_lookahead, id_chunks
from predictor.st_moe.parameters import CONFIDENCE_MAX, REPLACEMENT_CODES, EngineConfiguration
from traces import RoutingTrace

_COUNT_CHUNK_TOKENS = 8192
_NONE, _REVERSED = REPLACEMENT_CODES["none"], REPLACEMENT_CODES["reversed"]  # compiled in

Ids = NDArray[np.integer[Any]]


class Profile(NamedTuple):
    """The correlation table after training, indexed by source layer; the last ``lookahead`` layers are never used.

    Attributes:
        candidates: i16 ``[layers, experts, candidates]``, most often co-selected first, ties to the smaller id.
        confidences: i8 of the same shape.
    """

    candidates: NDArray[np.int16]
    confidences: NDArray[np.int8]


def profile_trace(trace: RoutingTrace, *, lookahead: int, candidates: int, initial_confidence: int) -> Profile:
    """Count co-selections of layers ``l`` and ``l + lookahead`` and keep each expert's best ``candidates``.

    A candidate that was never co-selected (an expert rarely or never seen in training) starts at confidence 0: it is
    there to be replaced.

    Raises:
        ForestageError: if ``lookahead`` is not in 1 … layers − 1.
    """
    check_lookahead(lookahead, trace.layers)  # it indexes memory in compiled code
    counts = np.zeros((trace.layers, trace.experts, trace.experts), np.int64)
    for _, ids, recorded, _ in id_chunks(trace, _COUNT_CHUNK_TOKENS):
        _count_pairs(ids, recorded, lookahead, counts)
    best = np.argsort(-counts, axis=2, kind="stable")[:, :, :candidates]
    seen = np.take_along_axis(counts, best, axis=2) > 0
    return Profile(best.astype(np.int16), np.where(seen, initial_confidence, 0).astype(np.int8))


class BatchState:
    """Tables and history that the batch form carries from chunk to chunk."""

    def __init__(self, profile: Profile, configuration: EngineConfiguration) -> None:
        self.candidates = profile.candidates.copy()
        self.confidences = profile.confidences.copy()
        self.history = np.full((configuration.layers, configuration.top_k), -1, np.int16)
        self.configuration = configuration

    def score(self, ids: Ids, recorded: NDArray[np.bool_], starts: NDArray[np.bool_], scores: Scores) -> None:
        """Fill ``scores`` i32 ``[tokens, layers, experts]`` for ids ``[tokens, layers, top_k]`` and adapt."""
        configuration = self.configuration
        _score_tokens(
            ids,
            recorded,
            starts,
            self.candidates,
            self.confidences,
            self.history,
            configuration.lookahead,
            configuration.aggregation == "sum",
            configuration.ht_confidence,
            REPLACEMENT_CODES[configuration.replacement],
            configuration.replacement_confidence,
            scores,
        )


@njit()
def _count_pairs(ids: Ids, recorded: NDArray[np.bool_], lookahead: int, counts: NDArray[np.int64]) -> None:
    tokens, layers, top_k = ids.shape
    for token in range(tokens):
        for layer in range(layers - lookahead):
            if recorded[token, layer] and recorded[token, layer + lookahead]:
                for i in range(top_k):
                    for j in range(top_k):
                        counts[layer, ids[token, layer, i], ids[token, layer + lookahead, j]] += 1


@njit()
def _score_tokens(
    ids: Ids,
    recorded: NDArray[np.bool_],
    starts: NDArray[np.bool_],
    candidates: NDArray[np.int16],
    confidences: NDArray[np.int8],
    history: NDArray[np.int16],
    lookahead: int,
    add: bool,
    ht_confidence: int,
    replacement: int,
    replacement_confidence: int,
    scores: Scores,
) -> None:
    tokens, layers, top_k = ids.shape
    needed = np.zeros(candidates.shape[1], np.bool_)
    scores[:] = 0
    for token in range(tokens):
        if starts[token]:
            history[:] = -1
        for layer in range(layers):
            source = layer - lookahead
            if source >= 0 and recorded[token, source]:
                for i in range(top_k):
                    expert = ids[token, source, i]
                    for entry in range(candidates.shape[2]):
                        candidate = candidates[source, expert, entry]
                        confidence = np.int32(confidences[source, expert, entry])
                        before = scores[token, layer, candidate]
                        scores[token, layer, candidate] = before + confidence if add else max(before, confidence)
                if history[layer, 0] >= 0:
                    for i in range(top_k):
                        scores[token, layer, history[layer, i]] += ht_confidence
            if not recorded[token, layer]:
                continue
            chosen = ids[token, layer]
            if source >= 0 and recorded[token, source]:
                needed[:] = False
                for i in range(top_k):
                    needed[chosen[i]] = True
                for i in range(top_k):
                    expert = ids[token, source, i]
                    _verify_row(
                        candidates[source, expert],
                        confidences[source, expert],
                        chosen,
                        needed,
                        replacement,
                        replacement_confidence,
                    )
            for i in range(top_k):
                history[layer, i] = chosen[i]


@njit()
def _verify_row(
    candidates: NDArray[np.int16],
    confidences: NDArray[np.int8],
    chosen: Ids,
    needed: NDArray[np.bool_],
    replacement: int,
    replacement_confidence: int,
) -> None:
    """One row ``[candidates]`` against the experts ``chosen``, in place; ``replacement`` is a code."""
    for entry in range(len(candidates)):
        if needed[candidates[entry]]:
            confidences[entry] = min(confidences[entry] + 1, CONFIDENCE_MAX)
        elif confidences[entry] > 0:
            confidences[entry] -= 1
        elif replacement != _NONE:
            # A replacement made in an earlier entry is listed by now, so the next entry gets the next expert.
            for nth in range(len(chosen)):
                expert = chosen[len(chosen) - 1 - nth if replacement == _REVERSED else nth]
                if not _lists(candidates, expert):
                    candidates[entry] = expert
                    confidences[entry] = replacement_confidence
                    break


@njit()
def _lists(candidates: NDArray[np.int16], expert: int) -> bool:
    for candidate in candidates:  # noqa: SIM110 (numba compiles the loop, not a generator)
        if candidate == expert:
            return True
    return False
