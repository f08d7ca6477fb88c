"""The interface of every predictor: which experts will a coming layer choose?

Order of events: tokens of a sequence come one after the other; within a token, layers ascend. With lookahead ``d``,
``predict(l)`` answers *when the gate of layer l − d is known*: it may use this token's layers up to ``l − d``, all
previous tokens of the sequence, the identity of the token being processed (``start_token``), and whatever the predictor
adapts online. For ``l < d`` no routing of this token is known yet; each predictor documents what it scores there.

``predict(l)`` gives the same answer at any moment after ``observe(l − d)`` and before ``observe(l)`` of the same token
(for ``l < d``: from ``start_token`` on). Therefore the streaming and the batch form agree however early a caller asks.

Scores are i32, larger is better, **0 means no evidence and is never issued**, and ties go to the smaller expert id.

A layer whose routing was not recorded is observed as ``None``: it is unknown, not empty. Its history stays as it was
(so it is older than one token), the predictor learns and verifies nothing from it, and it contributes nothing as this
token's source layer.

State that adapts online (tables) persists across sequences unless the predictor documents otherwise; ``start_sequence``
forgets only the previous sequence's history, ``reset`` returns to the state just after ``fit``.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from catalog.config import StrictModel
from catalog.errors import ForestageError, SettingError
from traces import RoutingTrace

Scores = NDArray[np.int32]
ExpertIds = NDArray[np.integer[Any]]

MAX_EXPERTS = 1 << 15  # an issued id is an i16
CHUNK_BYTES = 16 << 20  # of scores that the batch form holds at once by default

IssueLimit = Annotated[int, Field(ge=1, description="Most experts issued for one token and layer")]
"""The field of every configuration that limits what is issued; the engine's register alone also takes 0."""


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
    """What the metrics need: scores of a whole trace, from a fitted ``Predictor`` or from a file of predictions."""

    @property
    def layers(self) -> int:
        """Number of recorded layers."""

    @property
    def experts(self) -> int:
        """Number of experts in a layer."""

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
        """The largest issue limit for which the scores suffice; ``None``: any."""

    @property
    def far_bytes_per_token(self) -> int | None:
        """As ``Predictor.far_bytes_per_token``; ``None``: not stated."""

    def score_chunks(self, trace: RoutingTrace, *, chunk_tokens: int | None = None) -> Iterator[tuple[int, Scores]]:
        """As ``Predictor.score_chunks``."""


class Predictor(ABC):
    """A fitted predictor of one model's routing.

    Attributes:
        name: the kind's name in ``predictor.registry``.
        parameters_model: the other parameters of ``fit``, a StrictModel with a default for each.
        lookahead: layers between the gate that is known and the target layer, ≥ 1.
        threshold: uncapped, every score at or above it is issued; ``None`` if a policy must limit the number of experts
            (then every score above 0 may be issued).
        layers, experts, top_k: shape of the model to which it was fitted.
        far_bytes_per_token: bytes that the predictor itself reads from and writes to far memory for each token.
        listed: ``None``: its scores suffice for any issue limit (unlike those of a file that lists few experts per
            row).
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

    # --- the streaming form, as in the hardware ---

    @abstractmethod
    def reset(self) -> None:
        """Return to the state just after ``fit``: no history, nothing adapted."""

    @abstractmethod
    def start_sequence(self) -> None:
        """Forget the previous sequence's history; state that adapts online stays."""

    def start_token(self, identity: int | None) -> None:  # noqa: B027 – most kinds ignore the identity
        """Take note of the identity (``token_hash``) of the token about to be processed; ``None``: not recorded.

        The caller calls this before layer 0 of every token; most kinds ignore it.
        """

    @abstractmethod
    def predict(self, layer: int) -> Scores:
        """Scores i32 ``[experts]`` of target ``layer`` for the current token; asking changes no later answer."""

    @abstractmethod
    def observe(self, layer: int, ids: ExpertIds | None) -> None:
        """Take note that the gate of ``layer`` chose ``ids`` ``[top_k]``, in rank order (``None``: not recorded).

        The caller calls this for every layer of every token, ascending; layer 0 begins a token, the last layer ends it.
        """

    # --- the batch form: the same algorithm over a whole trace ---

    @abstractmethod
    def score_chunks(self, trace: RoutingTrace, *, chunk_tokens: int | None = None) -> Iterator[tuple[int, Scores]]:
        """Yield ``(first_token, scores i32 [tokens of the chunk, layers, experts])`` in order.

        The scores equal those of the streaming form over every sequence in turn from the state just after ``fit``. The
        streaming state is neither read nor changed. A chunk's array may be reused for the next one: copy what you keep.

        Raises:
            ForestageError: if the trace's shape is not the one to which the predictor was fitted.
        """

    def score_trace(self, trace: RoutingTrace) -> Scores:
        """Scores i32 ``[tokens, layers, experts]`` of the whole trace, if they fit in memory."""
        scores = np.empty((trace.tokens, self.layers, self.experts), np.int32)
        for first, chunk in self.score_chunks(trace):
            scores[first : first + len(chunk)] = chunk
        return scores

    def check_trace(self, trace: RoutingTrace) -> None:
        """Raise ForestageError unless ``trace`` has the shape (layers, experts, top-k) to which it was fitted."""
        mine = (self.layers, self.experts, self.top_k)
        given = (trace.layers, trace.experts, trace.top_k)
        if mine != given:
            raise ForestageError(
                f"predictor '{self.name}': fitted to (layers, experts, top_k) = {mine}, the trace has {given}; "
                "fit it on a trace of the same model"
            )

    @property
    def issue_threshold(self) -> int:
        """The smallest score that may be issued at all: ``threshold``, or 1 if there is none."""
        return 1 if self.threshold is None else self.threshold


def read_ids(trace: RoutingTrace, first: int, last: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Tokens ``first … last − 1``: ids i32 ``[n, layers, top_k]`` and recorded bool ``[n, layers]``.

    The dtype does not depend on the file, so that kernels are compiled once; contents are checked, so that kernels stay
    inside their tables.
    """
    part = trace.token_range(first, last)
    return part.expert_ids.astype(np.int32), part.recorded()


def read_weights(trace: RoutingTrace, first: int, last: int) -> NDArray[np.float16] | None:
    """Gate weights f16 ``[n, layers, top_k]`` of tokens ``first … last − 1``; ``None`` if the trace has none."""
    return None if trace.gate_weights is None else trace.token_range(first, last).gate_weights


def id_chunks(
    trace: RoutingTrace, chunk_tokens: int | None = None
) -> Iterator[tuple[int, NDArray[np.int32], NDArray[np.bool_], NDArray[np.bool_]]]:
    """Walk a trace in chunks of tokens.

    Yields ``(first_token, ids i32 [n, layers, top_k], recorded bool [n, layers], starts bool [n])``; ``starts`` marks
    the first token of each sequence. By default a chunk's scores take ``CHUNK_BYTES``.
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
    """Run the streaming form over a whole trace: scores i32 ``[tokens, layers, experts]``.

    It asks for each target at the earliest allowed moment. It is slow; tests compare the batch form with it.
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
