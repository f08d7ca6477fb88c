"""The interface of every predictor: which experts does a coming layer choose?

Order of events. Tokens of a sequence come one after the other; within a token, layers ascend. With lookahead ``d``,
``predict(l)`` answers *when the gate of layer l − d is known*: it may use this token's layers up to ``l − d``, all of
the previous tokens of the sequence, the identity of the token being processed (``start_token``), and whatever the
predictor adapts online. For ``l < d`` no routing of this token is known yet; each predictor says what it scores there.

``predict(l)`` gives the same answer at any moment after ``observe(l − d)`` and before ``observe(l)`` of the same token
(for ``l < d``: from ``start_token`` on). The streaming and the batch form therefore agree however far a
caller runs ahead.

Scores are i32, larger is better, **0 means no evidence and is never issued**, and ties go to the smaller expert id.

A layer whose routing was not recorded is observed as ``None``: it is unknown, not empty. The history of that layer is
kept as it was (so it is older than one token), nothing is learnt or verified from it, and as this token's source layer
it contributes nothing.

State that adapts online (tables) persists across sequences unless the predictor documents otherwise;
``start_sequence`` forgets the previous sequence's history alone, ``reset`` returns to the state just after ``fit``.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from catalog.config import StrictModel
from catalog.errors import ForestageError, SettingError
from traces import RoutingTrace

Scores = NDArray[np.int32]
ExpertIds = NDArray[np.integer[Any]]

MAX_EXPERTS = 1 << 15  # an issued id is an i16
CHUNK_BYTES = 16 << 20  # of scores held at once by the batch form, where the caller names no size


def check_lookahead(lookahead: int, layers: int) -> None:
    """Raise unless a model of ``layers`` layers can be predicted ``lookahead`` layers ahead.

    Raises:
        SettingError: naming the range.
    """
    if layers == 1:
        raise SettingError(
            "lookahead",
            "a trace of one layer has no layer to predict ahead; give one of two or more",
            message=f"lookahead: {lookahead}: a trace of one layer has no layer to predict ahead; give one of two or "
            "more",
        )
    if not 1 <= lookahead < layers:
        raise SettingError(
            "lookahead",
            f"choose one in 1…{layers - 1}: the trace has {layers} layers",
            message=f"lookahead: {lookahead} is not in 1…{layers - 1} for a model of {layers} layers; choose one that "
            "is",
        )


class BatchPredictor(Protocol):
    """What the metrics ask: scores of a whole trace, from a fitted ``Predictor`` or from a file of predictions."""

    @property
    def layers(self) -> int:
        """Recorded layers of the model."""

    @property
    def experts(self) -> int:
        """Experts of a layer."""

    @property
    def lookahead(self) -> int:
        """Layers between the gate that is known and the target layer."""

    @property
    def threshold(self) -> int | None:
        """As ``Predictor.threshold``."""

    @property
    def issue_threshold(self) -> int:
        """The smallest score that may be issued at all."""

    @property
    def listed(self) -> int | None:
        """The largest issue limit that the scores answer; ``None``: any."""

    @property
    def far_bytes_per_token(self) -> int | None:
        """As ``Predictor.far_bytes_per_token``; ``None``: not stated."""

    def score_chunks(self, trace: RoutingTrace, *, chunk_tokens: int | None = None) -> Iterator[tuple[int, Scores]]:
        """As ``Predictor.score_chunks``."""


class Predictor(ABC):
    """A fitted predictor of one model's routing.

    Attributes:
        name: the kind's name in ``predictor.registry``.
        parameters_model: what ``fit`` takes besides the trace and the lookahead, a StrictModel with every default.
        lookahead: layers between the gate that is known and the target layer, ≥ 1.
        threshold: the smallest score that is issued of the predictor's own accord; ``None`` where a policy must say how
            many experts it wants (then every score above 0 may be issued).
        layers, experts, top_k: shape of the model it was fitted to.
        far_bytes_per_token: what the predictor itself reads from far memory and writes to it for each token.
        listed: ``None``: its scores answer any issue limit (unlike those of a file that lists so many experts a row).
    """

    name: ClassVar[str]
    parameters_model: ClassVar[type[StrictModel]]
    threshold: int | None = None
    far_bytes_per_token: int = 0
    listed: int | None = None

    def __init__(self, *, layers: int, experts: int, top_k: int, lookahead: int) -> None:
        check_lookahead(lookahead, layers)
        if experts > MAX_EXPERTS:
            raise ForestageError(f"experts: {experts} a layer; issue sets hold ids up to {MAX_EXPERTS - 1}")
        self.layers = layers
        self.experts = experts
        self.top_k = top_k
        self.lookahead = lookahead

    @classmethod
    @abstractmethod
    def fit(cls, trace: RoutingTrace, *, lookahead: int = 1, **parameters: Any) -> Self:
        """Profile on a training trace; ``parameters`` are the fields of the kind's ``parameters_model``, parsed by
        ``cls.parameters_model.parse(parameters, origin=f"predictor '{cls.name}'")``.

        Raises:
            ForestageError: for an unknown parameter or a value out of range.
        """

    # --- the streaming form, as the hardware sees it ---

    @abstractmethod
    def reset(self) -> None:
        """Return to the state just after ``fit``: no history, nothing adapted."""

    @abstractmethod
    def start_sequence(self) -> None:
        """Forget the previous sequence's history; what adapts online stays."""

    def start_token(self, identity: int | None) -> None:  # noqa: B027 – most kinds do not look at identity
        """The token about to be processed has the identity (``token_hash``) ``identity``; ``None``: not recorded.

        Called before layer 0 of every token, where there is something to know; most kinds have no use for it.
        """

    @abstractmethod
    def predict(self, layer: int) -> Scores:
        """Scores i32 ``[experts]`` of target ``layer`` of the current token; asking changes no later answer."""

    @abstractmethod
    def observe(self, layer: int, ids: ExpertIds | None) -> None:
        """The gate of ``layer`` chose ``ids`` ``[top_k]`` in rank order (``None``: not recorded).

        Called for every layer of every token, ascending; layer 0 begins a token, the last layer ends it.
        """

    # --- the batch form: the same algorithm over a whole trace ---

    @abstractmethod
    def score_chunks(self, trace: RoutingTrace, *, chunk_tokens: int | None = None) -> Iterator[tuple[int, Scores]]:
        """Yield ``(first_token, scores i32 [tokens of the chunk, layers, experts])`` in order.

        Equal to the streaming form over every sequence in turn, begun from the state just after ``fit``; neither reads
        nor changes the streaming state. A chunk's array may be reused for the next one: copy what you keep.

        Raises:
            ForestageError: if the trace's shape is not that of the model the predictor was fitted to.
        """

    def score_trace(self, trace: RoutingTrace) -> Scores:
        """Scores i32 ``[tokens, layers, experts]`` of the whole trace, for traces whose scores fit in memory."""
        scores = np.empty((trace.tokens, self.layers, self.experts), np.int32)
        for first, chunk in self.score_chunks(trace):
            scores[first : first + len(chunk)] = chunk
        return scores

    def check_trace(self, trace: RoutingTrace) -> None:
        """Raise ForestageError unless ``trace`` has the layers, experts and top-k this predictor was fitted to."""
        mine = (self.layers, self.experts, self.top_k)
        given = (trace.layers, trace.experts, trace.top_k)
        if mine != given:
            raise ForestageError(
                f"predictor '{self.name}': fitted to (layers, experts, top_k) = {mine}, the trace has {given}; "
                "fit it on a trace of the same model"
            )

    @property
    def issue_threshold(self) -> int:
        """The smallest score that may be issued at all: ``threshold``, or 1 where there is none."""
        return 1 if self.threshold is None else self.threshold


def read_ids(trace: RoutingTrace, first: int, last: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Tokens ``first … last − 1``: ids i32 ``[n, layers, top_k]`` and recorded bool ``[n, layers]``.

    One dtype, whatever the file's, so that compiled kernels exist once; checked, so that they stay inside their tables.
    """
    part = trace.token_range(first, last)
    return part.expert_ids.astype(np.int32), part.recorded()


def read_weights(trace: RoutingTrace, first: int, last: int) -> NDArray[np.float16] | None:
    """Gate weights f16 ``[n, layers, top_k]`` of tokens ``first … last − 1``; ``None`` where the trace has none."""
    return None if trace.gate_weights is None else trace.token_range(first, last).gate_weights


def id_chunks(
    trace: RoutingTrace, chunk_tokens: int | None = None
) -> Iterator[tuple[int, NDArray[np.int32], NDArray[np.bool_], NDArray[np.bool_]]]:
    """Walk a trace in chunks of tokens.

    Yields ``(first_token, ids i32 [n, layers, top_k], recorded bool [n, layers], starts bool [n])``; ``starts`` marks
    the first token of each sequence. Without ``chunk_tokens`` a chunk's scores take ``CHUNK_BYTES``.
    """
    if chunk_tokens is None:
        chunk_tokens = max(1, CHUNK_BYTES // (4 * trace.layers * trace.experts))
    offsets = np.asarray(trace.sequence_offsets)
    for first in range(0, trace.tokens, chunk_tokens):
        ids, recorded = read_ids(trace, first, min(first + chunk_tokens, trace.tokens))
        starts = np.zeros(len(ids), np.bool_)
        starts[offsets[(offsets >= first) & (offsets < first + len(ids))] - first] = True
        yield first, ids, recorded, starts


def stream_trace(predictor: Predictor, trace: RoutingTrace) -> Scores:
    """Drive the streaming form over a whole trace: scores i32 ``[tokens, layers, experts]``.

    Each target is asked at the earliest legal moment. Slow; it is what the batch form is checked against.
    """
    predictor.check_trace(trace)
    predictor.reset()
    depth = predictor.lookahead
    scores = np.zeros((trace.tokens, trace.layers, trace.experts), np.int32)
    for first, ids, recorded, starts in id_chunks(trace):
        for row in range(len(ids)):
            if starts[row]:
                predictor.start_sequence()
            predictor.start_token(None if trace.token_hash is None else int(trace.token_hash[first + row]))
            for target in range(min(depth, trace.layers)):
                scores[first + row, target] = predictor.predict(target)
            for layer in range(trace.layers):
                predictor.observe(layer, ids[row, layer] if recorded[row, layer] else None)
                if layer + depth < trace.layers:
                    scores[first + row, layer + depth] = predictor.predict(layer + depth)
    return scores
