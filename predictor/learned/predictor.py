"""The learned predictor's integer twin: the specification of the hardware, streaming and batch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from catalog.config import StrictModel
from catalog.errors import ForestageError
from predictor.base import ExpertIds, Predictor, Scores, id_chunks
from predictor.learned import kernels, model_file
from predictor.learned.config import LearnedConfig
from predictor.learned.context import TAGGED, rank_shifts, sources
from predictor.learned.model_file import Provenance
from predictor.learned.tables import (
    ADAPTED_LIMIT,
    FRACTION_BITS,
    HIDDEN_MAX,
    KEY_ROTATION,
    PROBABILITY_ONE,
    PROBABILITY_SHIFT,
    SCORE_MAX,
    SCORE_MIN,
    SCORE_ZERO,
    TOKEN_MULTIPLIER,
    LearnedTables,
    check_shapes,
    check_widths,
    table_bytes,
)
from traces import RoutingTrace


class _State(NamedTuple):
    """What one slot holds, in the order in which the kernels take it; see ``kernels`` and ``tables`` for the rules."""

    now: NDArray[np.int32]
    later: NDArray[np.int32]
    fresh: NDArray[np.int32]
    decayed: NDArray[np.int32]
    last_ids: NDArray[np.int16]
    known: NDArray[np.bool_]
    recent: NDArray[np.int64]
    adapted: NDArray[np.int32]
    tokens: NDArray[np.int64]
    keys: NDArray[np.int64]
    choices: NDArray[np.int16]
    entries: NDArray[np.int64]


class LearnedParameters(StrictModel):
    """A learned predictor takes no parameters where it is used: they are part of its file (see ``Recipe``)."""


class LearnedPredictor(Predictor):
    """Scores are a calibrated scale's: a larger score is a larger ``probabilities`` entry; every expert has one ≥ 1.

    Layers below the lookahead are predicted from token identity and previous tokens. ``start_token`` tells the
    identity; where it is told none, no identity row enters the sums.

    Attributes:
        config: context and size.
        tables: every integer.
        ranked: whether the rows of better ranks weigh more.
        provenance: what it was trained on.
        bytes: memory it takes.
        accumulator_bits: width of the widest accumulator.
    """

    name: ClassVar[str] = "learned"
    parameters_model: ClassVar[type[StrictModel]] = LearnedParameters

    def __init__(
        self,
        tables: LearnedTables,
        config: LearnedConfig,
        *,
        top_k: int,
        lookahead: int,
        ranked: bool,
        provenance: Provenance,
        origin: str = "learned predictor",
    ) -> None:
        super().__init__(layers=tables.layers, experts=tables.experts, top_k=top_k, lookahead=lookahead)
        check_shapes(tables, config, layers=self.layers, experts=self.experts, lookahead=lookahead, origin=origin)
        self.accumulator_bits = check_widths(
            tables, config, top_k=top_k, ranked=ranked, lookahead=lookahead, origin=origin
        )
        self.tables = tables
        self.config = config
        self.bytes = table_bytes(config, layers=self.layers, experts=self.experts, top_k=top_k, lookahead=lookahead)
        self.far_bytes_per_token = self.bytes.far_per_token
        self.ranked = ranked
        self.provenance = provenance
        every = sources(config, lookahead)
        self._rank_shifts = np.array(rank_shifts(top_k, ranked), np.int64)
        self._ages = np.array([source.age for source in every], np.int64)
        self._indices = np.array([source.index for source in every], np.int64)
        self._offsets = np.array([source.offset for source in every], np.int64)
        self._decay_shifts = np.array(config.decays, np.int64)
        self._lengths = np.array(config.tagged, np.int64)
        self.reset()

    # --- from training, from a file ---

    @classmethod
    @override
    def fit(cls, trace: RoutingTrace, *, lookahead: int = 1, **parameters: Any) -> Self:
        """Refused: training takes minutes, PyTorch and a recipe (``predictor.learned.training.train``).

        Raises:
            ForestageError: always, saying so.
        """
        raise ForestageError(
            "learned: is trained once: run `forestage predictor train`, then give the file that it writes"
        )

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The predictor in a file that ``save`` wrote.

        Raises:
            ForestageError: if the file is missing, damaged or of another kind.
        """
        stored = model_file.read(Path(path))
        return cls(
            stored.tables,
            stored.document.config,
            top_k=stored.document.top_k,
            lookahead=stored.document.lookahead,
            ranked=stored.document.ranked,
            provenance=stored.document.provenance,
            origin=str(path),
        )

    def save(self, path: str | Path) -> None:
        """Write tables and provenance to ``path`` (safetensors), atomically."""
        document = model_file.Document(
            config=self.config,
            lookahead=self.lookahead,
            top_k=self.top_k,
            ranked=self.ranked,
            provenance=self.provenance,
        )
        model_file.write(Path(path), self.tables, document)

    @property
    def trained_on(self) -> str:
        """Which sequences of which trace it was trained on."""
        return self.provenance.trained_on

    @property
    def model(self) -> str:
        """The model whose routing it was trained on."""
        return self.provenance.model

    def describe(self) -> dict[str, Any]:
        """Configuration and size in bytes, as JSON values."""
        size = self.bytes
        return {
            **self.config.model_dump(mode="json"),
            "ranks": self.ranked,
            "sram_bytes_per_layer": size.sram_largest,
            "state_bytes_per_slot_layer": size.state_per_slot_layer,
            "identity_bytes": size.identity_bytes,
            "identity_burst_bytes": size.burst_bytes,
            "tagged_bytes_per_slot": size.tagged_per_slot,
            "far_bytes_per_token": size.far_per_token,
            "accumulator_bits": self.accumulator_bits,
        }

    def probabilities(self, layer: int, scores: Scores) -> NDArray[np.float64]:
        """Calibrated chance that each expert is chosen, from scores of ``layer`` of any shape."""
        return self.tables.probabilities[layer][scores >> PROBABILITY_SHIFT] / PROBABILITY_ONE

    # --- the streaming form ---

    @override
    def reset(self) -> None:
        self._state = self._start()

    def _start(self) -> "_State":
        """The state at the start of a sequence."""
        sums = (self.layers, self.config.hidden)
        decayed = (len(self.config.decays), *sums)
        entries = (len(self.config.tagged), self.config.tagged_entries)
        state = _State(
            now=np.empty(sums, np.int32),
            later=np.empty((len(self.config.previous), *sums), np.int32),
            fresh=np.empty(decayed, np.int32),
            decayed=np.empty(decayed, np.int32),
            last_ids=np.zeros((self.layers, self.top_k), np.int16),
            known=np.empty(self.layers, np.bool_),
            recent=np.empty(self.config.identities, np.int64),
            adapted=np.empty((self.layers, self.experts), np.int32),
            tokens=np.empty(max(self.config.tagged, default=0), np.int64),
            keys=np.empty(entries, np.int64),
            choices=np.empty((*entries, self.layers, self.top_k), np.int16),
            entries=np.full(len(self.config.tagged), -1, np.int64),
        )
        self._clear(state)
        return state

    def _clear(self, state: "_State") -> None:
        kernels.start_sequence(
            state.now, state.later, state.fresh, state.decayed, state.known, state.recent, state.adapted,
            state.tokens, state.keys, self.tables.bias,
        )  # fmt: skip

    @override
    def start_sequence(self) -> None:
        self._clear(self._state)

    @override
    def start_token(self, identity: int | None) -> None:
        token = -1 if identity is None else identity
        row = int(self.identity_index(np.array([token]))[0])
        state, tables = self._state, self.tables
        kernels.add_identities(state.now, state.recent, row, tables.identity_rows, tables.identity_shifts)
        if self.config.tagged_by == "identity":
            self._add_tagged(token, 0)

    def _add_tagged(self, token: int, first: int) -> None:
        """Tagged tables feed targets from ``first`` on; ``token`` stands for the one being processed, −1: nothing."""
        state, tables = self._state, self.tables
        kernels.add_tagged(
            token, first, state.now, tables.rows, tables.source_shifts, self._rank_shifts, self._ages, self._indices,
            TAGGED, state.tokens, self._lengths, KEY_ROTATION, state.keys, state.choices, state.entries,
        )  # fmt: skip

    @override
    def predict(self, layer: int) -> Scores:
        tables = self.tables
        scores = np.empty(self.experts, np.int32)
        kernels.score_layer(
            self._state.now[layer], tables.hidden_shifts[layer], HIDDEN_MAX, tables.output[layer],
            tables.output_bias[layer], tables.score_shifts[layer], self._state.adapted[layer],
            tables.adaptations[layer], SCORE_ZERO, SCORE_MIN, SCORE_MAX, scores,
        )  # fmt: skip
        return scores

    @override
    def observe(self, layer: int, ids: ExpertIds | None) -> None:
        state = self._state
        chosen = state.last_ids[layer] if ids is None else np.asarray(ids, np.int16)
        if ids is not None and self.tables.adaptations[layer]:
            kernels.adapt(
                state.adapted[layer], self.predict(layer), chosen, self.tables.probabilities[layer],
                PROBABILITY_SHIFT, PROBABILITY_ONE, ADAPTED_LIMIT,
            )  # fmt: skip
        if layer == 0 and self.config.tagged_by == "routing":
            self._add_tagged(kernels.routing_token(chosen, ids is not None, TOKEN_MULTIPLIER), self.lookahead)
        kernels.observe(
            layer, chosen, ids is not None, state.last_ids, state.known, state.now, state.later, state.fresh,
            self.tables.rows, self.tables.source_shifts, self._rank_shifts, self._ages, self._indices, self._offsets,
            TAGGED, state.choices, state.entries,
        )  # fmt: skip
        if layer == self.layers - 1:
            kernels.end_token(
                state.now, state.later, state.fresh, state.decayed, self.tables.bias, self._decay_shifts, FRACTION_BITS,
                state.entries,
            )  # fmt: skip

    # --- the batch form ---

    @override
    def check_trace(self, trace: RoutingTrace) -> None:
        super().check_trace(trace)
        if self.config.looks_at_identity and trace.token_hash is None:
            raise ForestageError(
                "predictor 'learned': trained with token identity, which the trace does not record; "
                "train one with the recipe no-identity"
            )
        if self.ranked and not trace.metadata.ranked:
            raise ForestageError(
                "predictor 'learned': trained on ids in rank order, the trace's are in none; train one with ranks=false"
            )

    def identity_index(self, hashes: NDArray[np.int64]) -> NDArray[np.int64]:
        """The identity row of each token hash (that of all others where it has none of its own); −1: no identity."""
        tokens = self.tables.identity_tokens
        if not self.config.identities:
            return np.full(len(hashes), -1, np.int64)
        found = np.minimum(np.searchsorted(tokens, hashes), len(tokens) - 1)
        return np.where(hashes < 0, -1, np.where(tokens[found] == hashes, found, len(tokens)))

    def _hashes(self, trace: RoutingTrace, first: int, count: int) -> NDArray[np.int64]:
        """Token hashes i64 ``[count]`` from ``first`` on; −1 where the trace has none or they are not looked at."""
        hashes = trace.token_range(first, first + count).token_hash if self.config.looks_at_identity else None
        return np.full(count, -1, np.int64) if hashes is None else np.asarray(hashes).astype(np.int64)

    @override
    def score_chunks(self, trace: RoutingTrace, *, chunk_tokens: int | None = None) -> Iterator[tuple[int, Scores]]:
        self.check_trace(trace)
        tables = self.tables
        state = self._start()
        for first, ids, recorded, starts in id_chunks(trace, chunk_tokens):
            hashes = self._hashes(trace, first, len(ids))
            scores = np.empty((len(ids), self.layers, self.experts), np.int32)
            kernels.score_tokens(
                ids.astype(np.int16), recorded, starts, self.identity_index(hashes), hashes, self.lookahead,
                tables.rows, tables.source_shifts, tables.bias, tables.identity_rows, tables.identity_shifts,
                tables.hidden_shifts, tables.output, tables.output_bias, tables.score_shifts,
                self._rank_shifts, self._ages, self._indices, self._offsets, self._decay_shifts, FRACTION_BITS,
                TAGGED, self.config.tagged_by == "routing", TOKEN_MULTIPLIER, self._lengths, KEY_ROTATION,
                tables.adaptations, tables.probabilities, PROBABILITY_SHIFT, PROBABILITY_ONE, ADAPTED_LIMIT,
                HIDDEN_MAX, SCORE_ZERO, SCORE_MIN, SCORE_MAX, *state, scores,
            )  # fmt: skip
            yield first, scores
