"""The next-use predictor: the chance that an expert is wanted within the next n tokens, in hardware's integers.

The arithmetic is defined in ``predictor.next_use.tables``, what it looks at in ``predictor.next_use.sources``. The
streaming form is written with NumPy, the batch form compiled; tests hold them equal. Nothing adapts online: both begin
each sequence from the same state.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from catalog.errors import ForestageError
from predictor.base import CHUNK_BYTES, ExpertIds, id_chunks
from predictor.next_use.kernel import score_tokens
from predictor.next_use.matches import UNKNOWN, context_key, find_matches, identities_of, no_matches
from predictor.next_use.sources import as_arrays, sources_of
from predictor.next_use.tables import CHANCES, FRACTION_BITS, NextUseTables
from traces import RoutingTrace


class NextUsePredictor:
    """A trained next-use predictor of one model.

    Asked once per (token, target layer): with lookahead 0 when the target's own gate is known, with ``d`` ≥ 1 when that
    of layer ``target − d`` is; targets below ``d`` are not predicted (priority 0).

    Attributes:
        tables: the integers.
        parameters: the shape.
        model: whose routing it was trained on.
        trained_on: which sequences of which trace, for a reader.
    """

    def __init__(self, tables: NextUseTables, *, model: str, trained_on: str) -> None:
        self.tables = tables
        self.parameters = tables.parameters
        self.model = model
        self.trained_on = trained_on
        self._sources = sources_of(tables.parameters)
        self._arrays = as_arrays(self._sources)
        self.start_sequence()

    # --- the streaming form ---

    def start_sequence(self) -> None:
        """Forget the past."""
        tables = self.tables
        self._position = -1
        self._identity: int | None = None
        self._newest: list[int] = []
        self._match = UNKNOWN
        contexts = self.parameters.contexts if self.parameters.looks_at_identity else ()
        self._contexts: dict[int, dict[int, tuple[int, int]]] = {length: {} for length in contexts}
        self._log: dict[int, list[NDArray[np.int64] | None]] = {}
        self._now: list[NDArray[np.int64] | None] = [None] * tables.layers
        self._before: list[NDArray[np.int64] | None] = [None] * tables.layers
        self._history = np.zeros((tables.layers, len(self._arrays.shifts), self.parameters.hidden), np.int32)
        self._scores = np.full((tables.layers, len(self.parameters.horizons), tables.experts), -128, np.int32)

    def start_token(self, identity: int | None) -> None:
        """The token about to be processed has this identity (``token_hash``); ``None``: not recorded.

        Called before layer 0; a token of which it is not told has none.
        """
        self._identity = identity

    def observe(self, layer: int, ids: ExpertIds | None) -> None:
        """The gate of ``layer`` chose ``ids`` ``[top_k]`` (``None``: not recorded).

        Called for every layer of every token, ascending; layer 0 begins a token.
        """
        if layer == 0:
            self._before = [before if now is None else now for now, before in zip(self._now, self._before, strict=True)]
            self._now = [None] * self.tables.layers
            self._begin_token()
        self._now[layer] = None if ids is None else np.asarray(ids, np.int64)
        target = layer + self.parameters.lookahead
        if target < self.tables.layers:
            self._scores[target] = self._score(target).reshape(self._scores.shape[1:])

    def chances(self, layer: int) -> NDArray[np.int32]:
        """Chance of each expert of ``layer`` by horizon, 255 being certainty: i32 ``[horizons, experts]``.

        Of the current token from ``observe(layer − lookahead)`` on.
        """
        if layer < self.parameters.lookahead:
            return np.zeros(self._scores.shape[1:], np.int32)
        return CHANCES[self._scores[layer] + 128]

    def priorities(self, layer: int) -> NDArray[np.int32]:
        """The sum of the chances over the horizons: i32 ``[experts]``."""
        return self.chances(layer).sum(axis=0, dtype=np.int32)

    def _begin_token(self) -> None:
        """Find where the text last stood as it does now, and take the token's place in tables and log."""
        self._position += 1
        identity = UNKNOWN if self._identity is None else int(self._identity)
        self._newest = [identity, *self._newest][: max(self._contexts, default=0)]
        self._identity = None
        self._match = UNKNOWN
        for length, table in self._contexts.items():
            key = UNKNOWN if len(self._newest) < length else context_key(np.array(self._newest, np.int64), length)
            if key == UNKNOWN:
                continue
            entry = key % self.parameters.context_entries
            if entry in table and table[entry][0] == key:
                self._match = table[entry][1]
            table[entry] = (key, self._position)
        self._log[self._position % self.parameters.log_tokens] = self._now

    def _followed(self, target: int, first: int, last: int) -> list[NDArray[np.int64]]:
        """What ``target`` chose in the tokens ``first … last`` after the match, of those that the log has."""
        if self._match == UNKNOWN:
            return []
        oldest = max(self._match + first, self._position - self.parameters.log_tokens + 1)
        places = range(oldest, min(self._match + last + 1, self._position))
        found = [self._log[place % self.parameters.log_tokens][target] for place in places]
        return [ids for ids in found if ids is not None]

    def _score(self, target: int) -> NDArray[np.int32]:
        """Logits i32 ``[horizons · experts]``; moves the target's history on by a token."""
        tables, arrays = self.tables, self._arrays
        history = self._history[target]
        history -= history >> arrays.shifts[:, None]
        z = tables.bias[target].copy()
        for number, (source, group) in enumerate(zip(self._sources, arrays.group.tolist(), strict=True)):
            layer = target + source.offset
            if not 0 <= layer < tables.layers:
                continue
            if source.window is not None:
                for followed in self._followed(target, *source.window):
                    z += tables.rows[target, number, followed].sum(axis=0, dtype=np.int32)
                continue
            now = layer <= target - self.parameters.lookahead and not source.previous
            ids = self._now[layer] if now else self._before[layer]
            if ids is None:
                continue
            rows = tables.rows[target, number, ids].sum(axis=0, dtype=np.int32)
            if group < 0:
                z += rows
            else:
                history[group] += rows << FRACTION_BITS
        drop = FRACTION_BITS + arrays.shifts - tables.gain[target]
        z += (history >> drop[:, None]).sum(axis=0, dtype=np.int32)
        active = np.minimum(np.maximum(z, 0) >> tables.activation_shift[target], 255)
        total = tables.output[target].astype(np.int32) @ active + tables.output_bias[target]
        return np.clip(total >> tables.output_shift[target], -128, 127).astype(np.int32)

    # --- the batch form ---

    def score_chunks(
        self, trace: RoutingTrace, *, chunk_tokens: int | None = None
    ) -> Iterator[tuple[int, NDArray[np.int8]]]:
        """Yield ``(first token, scores i8 [tokens, layers, horizons, experts])`` in order; see ``CHANCES``.

        A chunk's array is reused for the next one. Targets below the lookahead hold −128, whose chance is 0.

        Raises:
            ForestageError: if the trace is not of the model's shape.
        """
        self.check_trace(trace)
        tables, arrays = self.tables, self._arrays
        width = len(self.parameters.horizons) * tables.experts
        chunk_tokens = chunk_tokens or max(1, CHUNK_BYTES // (8 * tables.layers * width))
        before = np.empty((tables.layers, tables.top_k), np.int32)
        history = np.empty(self._history.shape, np.int32)
        records = self.parameters.log_tokens if self.parameters.looks_at_identity else 0
        log = np.empty((records, tables.layers, tables.top_k), np.int32)
        state = no_matches(self.parameters)
        scores = np.full((chunk_tokens, tables.layers, width), -128, np.int8)
        for first, ids, recorded, starts in id_chunks(trace, chunk_tokens):
            part = scores[: len(ids)]
            identities = identities_of(trace, first, first + len(ids))
            positions, matches = find_matches(identities, starts, self.parameters, state)
            score_tokens(
                ids, recorded, starts, positions, matches, self.parameters.lookahead,
                arrays.offset, arrays.previous, arrays.group, arrays.shifts, arrays.first, arrays.last,
                tables.rows, tables.bias, tables.gain, tables.activation_shift,
                tables.output, tables.output_bias, tables.output_shift,
                before, history, log, part,
            )  # fmt: skip
            yield first, part.reshape(len(ids), tables.layers, -1, tables.experts)

    def priority_chunks(
        self, trace: RoutingTrace, *, chunk_tokens: int | None = None
    ) -> Iterator[tuple[int, NDArray[np.int32]]]:
        """Yield ``(first token, priorities i32 [tokens, layers, experts])``; raises as ``score_chunks``."""
        for first, scores in self.score_chunks(trace, chunk_tokens=chunk_tokens):
            yield first, self.priorities_of(scores)

    def priorities_of(self, scores: NDArray[np.int8]) -> NDArray[np.int32]:
        """Priorities i32 ``[tokens, layers, experts]`` of a chunk of ``score_chunks``."""
        return CHANCES[scores.astype(np.int16) + 128].sum(axis=2, dtype=np.int32)

    def check_trace(self, trace: RoutingTrace) -> None:
        """Raise ForestageError unless ``trace`` has the layers, experts and top-k of the model trained on, and the
        identity of tokens where it is looked at."""
        mine = (self.tables.layers, self.tables.experts, self.tables.top_k)
        given = (trace.layers, trace.experts, trace.top_k)
        if mine != given:
            raise ForestageError(
                f"next-use predictor: trained on (layers, experts, top_k) = {mine}, the trace has {given}; "
                "train one on a trace of the same model"
            )
        if self.parameters.looks_at_identity and trace.token_hash is None:
            raise ForestageError(
                "next-use predictor: looks at the identity of tokens, which the trace does not record; "
                "train one with --set contexts=[]"
            )
