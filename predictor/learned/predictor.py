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
from predictor.learned.context import rank_shifts, sources
from predictor.learned.model_file import Provenance
from predictor.learned.tables import (
    ADAPTED_LIMIT,
    FRACTION_BITS,
    HIDDEN_MAX,
    PROBABILITY_ONE,
    PROBABILITY_SHIFT,
    SCORE_MAX,
    SCORE_MIN,
    SCORE_ZERO,
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
    last_ids: NDArray[np.int32]
    known: NDArray[np.bool_]
    recent: NDArray[np.int64]
    adapted: NDArray[np.int32]


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
        self.bytes = table_bytes(config, layers=self.layers, experts=self.experts, lookahead=lookahead)
        self.fetched_bytes_per_token = self.bytes.burst_bytes
        self.ranked = ranked
        self.provenance = provenance
        every = sources(config, lookahead)
        self._rank_shifts = np.array(rank_shifts(top_k, ranked), np.int64)
        self._ages = np.array([source.age for source in every], np.int64)
        self._decays = np.array([source.decay for source in every], np.int64)
        self._offsets = np.array([source.offset for source in every], np.int64)
        self._decay_shifts = np.array(config.decays, np.int64)
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
        state = _State(
            now=np.empty(sums, np.int32),
            later=np.empty((len(self.config.previous), *sums), np.int32),
            fresh=np.empty(decayed, np.int32),
            decayed=np.empty(decayed, np.int32),
            last_ids=np.zeros((self.layers, self.top_k), np.int32),
            known=np.empty(self.layers, np.bool_),
            recent=np.empty(self.config.identities, np.int64),
            adapted=np.empty((self.layers, self.experts), np.int32),
        )
        self._clear(state)
        return state

    def _clear(self, state: "_State") -> None:
        kernels.start_sequence(
            state.now, state.later, state.fresh, state.decayed, state.known, state.recent, state.adapted,
            self.tables.bias,
        )  # fmt: skip

    @override
    def start_sequence(self) -> None:
        self._clear(self._state)

    @override
    def start_token(self, identity: int | None) -> None:
        row = -1 if identity is None else int(self.identity_index(np.array([identity], np.uint32))[0])
        kernels.start_token(self._state[0], self._state[6], row, self.tables.identity_rows, self.tables.identity_shifts)

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
        chosen = state.last_ids[layer] if ids is None else np.asarray(ids, np.int32)
        if ids is not None and self.tables.adaptations[layer]:
            kernels.adapt(
                state.adapted[layer], self.predict(layer), chosen, self.tables.probabilities[layer],
                PROBABILITY_SHIFT, PROBABILITY_ONE, ADAPTED_LIMIT,
            )  # fmt: skip
        kernels.observe(
            layer, chosen, ids is not None, state.last_ids, state.known, state.now, state.later, state.fresh,
            self.tables.rows, self.tables.source_shifts, self._rank_shifts, self._ages, self._decays, self._offsets,
        )  # fmt: skip
        if layer == self.layers - 1:
            kernels.end_token(
                state.now, state.later, state.fresh, state.decayed, self.tables.bias, self._decay_shifts, FRACTION_BITS
            )

    # --- the batch form ---

    @override
    def check_trace(self, trace: RoutingTrace) -> None:
        super().check_trace(trace)
        if self.config.identities and trace.token_hash is None:
            raise ForestageError(
                "predictor 'learned': trained with token identity, which the trace does not record; "
                "train one with identity_rows=0 and identities=0"
            )
        if self.ranked and not trace.metadata.ranked:
            raise ForestageError(
                "predictor 'learned': trained on ids in rank order, the trace's are in none; train one with ranks=false"
            )

    def identity_index(self, hashes: NDArray[np.uint32]) -> NDArray[np.int64]:
        """The identity row of each token hash (that of all others where it has none of its own); −1: no identity."""
        tokens = self.tables.identity_tokens
        if not self.config.identities:
            return np.full(len(hashes), -1, np.int64)
        found = np.minimum(np.searchsorted(tokens, hashes), len(tokens) - 1)
        return np.where(tokens[found] == hashes, found, len(tokens)).astype(np.int64)

    @override
    def score_chunks(self, trace: RoutingTrace, *, chunk_tokens: int | None = None) -> Iterator[tuple[int, Scores]]:
        self.check_trace(trace)
        tables = self.tables
        state = self._start()
        for first, ids, recorded, starts in id_chunks(trace, chunk_tokens):
            if self.config.identities:
                hashes = np.asarray(trace.token_range(first, first + len(ids)).token_hash)
                identities = self.identity_index(hashes)
            else:
                identities = np.full(len(ids), -1, np.int64)
            scores = np.empty((len(ids), self.layers, self.experts), np.int32)
            kernels.score_tokens(
                ids, recorded, starts, identities, self.lookahead,
                tables.rows, tables.source_shifts, tables.bias, tables.identity_rows, tables.identity_shifts,
                tables.hidden_shifts, tables.output, tables.output_bias, tables.score_shifts,
                self._rank_shifts, self._ages, self._decays, self._offsets, self._decay_shifts, FRACTION_BITS,
                tables.adaptations, tables.probabilities, PROBABILITY_SHIFT, PROBABILITY_ONE, ADAPTED_LIMIT,
                HIDDEN_MAX, SCORE_ZERO, SCORE_MIN, SCORE_MAX, *state, scores,
            )  # fmt: skip
            yield first, scores
