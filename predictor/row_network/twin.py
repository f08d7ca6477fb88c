"""A row network's integer twin: the specification of the hardware, streaming and batch."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from catalog.errors import ForestageError
from predictor.base import CHUNK_BYTES, ExpertIds, Scores, id_chunks
from predictor.row_network import kernels
from predictor.row_network.config import NetworkConfig
from predictor.row_network.integers import CHANCE_SHIFT, NetworkTables, check_shapes, check_widths, table_bytes
from predictor.row_network.kernels import UNKNOWN, Rules, State, Tables
from predictor.row_network.sources import rank_shifts, source_arrays
from traces import RoutingTrace


class RowNetwork:
    """A trained network, asked at one of the lookaheads that it serves.

    Calls of a token: ``start_token`` (where there is an identity to tell), then ``observe`` for every layer, ascending.
    ``scores(l)`` answers at any moment after ``observe(l − lookahead)``, for ``l < lookahead`` from ``start_token`` on,
    until the next token begins; it is always the answer of the earliest such moment, and asking changes nothing.

    Attributes:
        tables: every integer.
        config: context and size.
        top_k: experts a gate chooses.
        ranked: whether the rows of better ranks weigh more.
        lookahead: layers between the known gate and the target.
        rules, compiled_tables: what its kernels read.
        bytes: memory it takes.
        accumulator_bits: width of the widest accumulator.

    Raises:
        ForestageError: for tables that do not fit the configuration, sums beyond 32 bits, or a lookahead not served.
    """

    def __init__(
        self,
        tables: NetworkTables,
        config: NetworkConfig,
        *,
        top_k: int,
        ranked: bool,
        lookahead: int | None = None,
        origin: str = "row network",
    ) -> None:
        check_shapes(tables, config, origin=origin)
        self.accumulator_bits = check_widths(tables, config, top_k=top_k, ranked=ranked, origin=origin)
        self.lookahead = config.nearest if lookahead is None else lookahead
        config.check_serves(self.lookahead, origin)
        self.tables = tables
        self.config = config
        self.layers, self.experts, self.top_k, self.ranked = tables.layers, tables.experts, top_k, ranked
        self.bytes = table_bytes(
            config, layers=self.layers, experts=self.experts, top_k=top_k, adapts=bool(tables.adaptations.any())
        )
        fields = source_arrays(config)
        self.rules = Rules(
            ages=fields.ages,
            offsets=fields.offsets,
            indices=fields.indices,
            firsts=fields.firsts,
            lasts=fields.lasts,
            rank_shifts=np.array(rank_shifts(top_k, ranked), np.int64),
            decay_shifts=np.array([shift for shift, _ in config.decays], np.int64),
            lengths=np.array(config.ngram_tables if config.looks_for_matches else (), np.int64),
            by_routing=config.ngram_by == "routing",
            nearest=config.nearest,
        )
        self.compiled_tables = Tables(*(np.ascontiguousarray(getattr(tables, name)) for name in Tables._fields))
        self.start_sequence()

    # --- the streaming form ---

    def start_sequence(self) -> None:
        """Forget everything: a new sequence begins."""
        if not hasattr(self, "_state"):
            self._state = self.new_state(1)
        kernels.start_sequence(self._state)
        self._scores = np.zeros((self.layers, self.config.questions * self.experts), np.int32)
        self._scored = np.zeros(self.layers, np.bool_)
        self._begun = False

    def start_token(self, identity: int | None) -> None:
        """The token about to be processed has this identity (``token_hash``); ``None``: not recorded."""
        token = UNKNOWN if identity is None else int(identity)
        row = int(self.identity_index(np.array([token]))[0])
        kernels.begin_token(self.rules, self.compiled_tables, self._state, token, row)
        self._scored[:] = False
        self._begun = True

    def observe(self, layer: int, ids: ExpertIds | None) -> None:
        """The gate of ``layer`` chose ``ids`` ``[top_k]`` in rank order (``None``: not recorded).

        Layer 0 begins a token, which has no identity unless ``start_token`` told one; the last layer ends it.
        """
        if not self._begun:
            self.start_token(None)
        for target in range(min(self.lookahead, self.layers) if layer == 0 else 0):
            self.scores(target)
        recorded = ids is not None
        chosen = self._state.last_ids[layer] if ids is None else np.asarray(ids, np.int16)
        shared = (self.rules, self.compiled_tables, self._state)
        if self.lookahead:
            kernels.adapt(*shared, 0, layer, self.lookahead, chosen, recorded, self._scores[layer])
        kernels.observe(*shared, layer, chosen, recorded)
        target = layer + self.lookahead
        if target < self.layers:
            self._score(target)
        if layer == self.layers - 1:
            kernels.end_token(self.rules, self._state)
            self._begun = False

    def scores(self, layer: int) -> NDArray[np.int32]:
        """Scores i32 ``[questions, experts]`` of target ``layer``."""
        if layer < self.lookahead and not self._begun:
            self.start_token(None)
        if not self._scored[layer]:
            self._score(layer)
        return self._scores[layer].reshape(self.config.questions, self.experts).copy()

    def chances(self, layer: int) -> NDArray[np.uint16]:
        """Chances u16 ``[questions, experts]`` of target ``layer``, ``CERTAIN`` being certainty."""
        return self.chances_of(layer, self.scores(layer))

    def _score(self, target: int) -> None:
        shared = (self.rules, self.compiled_tables, self._state)
        kernels.score_layer(*shared, 0, target, self.lookahead, self._scores[target])
        self._scored[target] = True

    # --- the batch form ---

    def score_chunks(self, trace: RoutingTrace, *, chunk_tokens: int | None = None) -> Iterator[tuple[int, Scores]]:
        """Yield ``(first token, scores i32 [tokens, layers, questions · experts])`` in order.

        Equal to the streaming form over every sequence in turn; neither reads nor changes its state.
        """
        answers = self.config.questions * self.experts
        chunk_tokens = chunk_tokens or max(1, CHUNK_BYTES // (4 * self.layers * answers))
        state = self.new_state(1)
        for first, ids, recorded, starts in id_chunks(trace, chunk_tokens):
            tokens = self._tokens(trace, first, len(ids))
            scores = np.zeros((len(ids), self.layers, answers), np.int32)
            kernels.score_tokens(
                self.rules, self.compiled_tables, state, self.lookahead, ids.astype(np.int16), recorded, starts,
                tokens, self.identity_index(tokens), scores,
            )  # fmt: skip
            yield first, scores

    def chances_of(self, layer: int, scores: Scores) -> NDArray[np.uint16]:
        """Chances of scores ``[…, questions, experts]`` of ``layer``, of the same shape."""
        table = self.tables.chances[layer, kernels.distance_of(layer, self.lookahead, self.config.nearest)]
        question = np.arange(self.config.questions)[:, None]
        return table[question, scores >> CHANCE_SHIFT]

    def check_trace(self, trace: RoutingTrace, *, origin: str, without_identity: str) -> None:
        """Raise unless ``trace`` is of the model's shape and records what the network looks at.

        Args:
            trace: that is to be scored.
            origin: what is asked, for the error.
            without_identity: how to train one that does not look at identity.

        Raises:
            ForestageError: naming what is missing, and the remedy.
        """
        mine = (self.layers, self.experts, self.top_k)
        given = (trace.layers, trace.experts, trace.top_k)
        if mine != given:
            raise ForestageError(
                f"{origin}: trained on (layers, experts, top_k) = {mine}, the trace has {given}; "
                "train one on a trace of the same model"
            )
        if self.config.looks_at_identity and trace.token_hash is None:
            raise ForestageError(
                f"{origin}: looks at the identity of tokens, which the trace does not record; "
                f"train one {without_identity}"
            )
        if self.ranked and not trace.metadata.ranked:
            raise ForestageError(
                f"{origin}: trained on ids in rank order, the trace's are in none; train one with --set ranks=false"
            )

    def identity_index(self, hashes: NDArray[np.int64]) -> NDArray[np.int64]:
        """The identity row of each token hash (that of all others where it has none of its own); −1: no identity."""
        if not self.config.identities:
            return np.full(len(hashes), UNKNOWN, np.int64)
        return identity_rows(self.tables.identity_tokens, hashes)

    def _tokens(self, trace: RoutingTrace, first: int, count: int) -> NDArray[np.int64]:
        """Token hashes i64 ``[count]`` from ``first`` on; −1 where the trace has none or they are not looked at."""
        hashes = trace.token_range(first, first + count).token_hash if self.config.looks_at_identity else None
        return np.full(count, UNKNOWN, np.int64) if hashes is None else np.asarray(hashes).astype(np.int64)

    def new_state(self, lookaheads: int) -> State:
        """What one sequence slot holds that is asked at so many lookaheads; nothing is known yet."""
        config = self.config
        sums = (self.layers, config.hidden)
        entries = (len(self.rules.lengths), config.ngram_entries)
        return State(
            now=np.zeros(sums, np.int32),
            later=np.zeros((len(config.previous), *sums), np.int32),
            fresh=np.zeros((len(config.decays), *sums), np.int32),
            decayed=np.zeros((len(config.decays), *sums), np.int32),
            last_ids=np.zeros((self.layers, self.top_k), np.int16),
            known=np.zeros(self.layers, np.bool_),
            recent=np.full(config.identities, UNKNOWN, np.int64),
            adapted=np.zeros((lookaheads, self.layers, self.experts), np.int32),
            tokens=np.full(max(self.rules.lengths, default=0), UNKNOWN, np.int64),
            keys=np.full(entries, UNKNOWN, np.int64),
            places=np.zeros(entries, np.int64),
            log=np.full((config.log_tokens if entries[0] else 0, self.layers, self.top_k), UNKNOWN, np.int16),
            position=np.full(1, -1, np.int64),
        )


def identity_rows(tokens: NDArray[np.uint32], hashes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index of each hash in ``tokens`` (ascending), ``len(tokens)`` where it is not there; −1 where it is −1."""
    found = np.minimum(np.searchsorted(tokens, hashes), len(tokens) - 1)
    return np.where(hashes < 0, UNKNOWN, np.where(tokens[found] == hashes, found, len(tokens)))
