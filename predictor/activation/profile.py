"""The collection of activation matrices that training sequences left (arXiv 2401.14361, MoE-Infinity).

An *activation matrix* of a sequence counts, for each layer and expert, the tokens that chose it. What is known of the
published system, and how well (evidence as in docs/foresight.md):

* the running sequence's matrix is matched with those of earlier ones by cosine, and experts of coming layers are
  fetched by priority, which falls by 1/L with each layer of distance (S: a secondary summary);
* a matrix a sequence; the collection keeps few, found by clustering; the match is one minus the cosine, averaged over
  layers; the priority is (ratio + ε)(1 − (i − l)/L) of target i at layer l, and the cache gives up the least
  ratio · (1 − l/L), the ratio being the running matrix's (B: background knowledge).

Chosen here, as the source was not read: how many matrices; the clustering; ε; that a ratio is the share of the
sequence's *tokens* (at most 1), so that it reads as a chance; that values are told when a layer's gate is known, as all
values here are; that layers count from 0; that before layer 0 the gate counts as layer −1; what several sequences are
worth together; that all tokens of a sequence weigh the same, prompt or decoded.
"""

import json
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from catalog.compiled import njit
from catalog.config import StrictModel
from catalog.errors import ForestageError
from predictor.activation.kernels import NO_MATCH, Collection, Running
from predictor.base import MAX_EXPERTS, id_chunks
from traces import RoutingTrace
from traces.safetensors_file import crc32, open_tensors, write_tensors

FORMAT = "forestage-activation-profile"
VERSION = "1"
ROUNDS = 50
"""Of the clustering, at most; it ends sooner where nothing changes any more."""


class ActivationSettings(StrictModel):
    """What the source leaves open, or what proved weak.

    Defaults make the strongest rival: they were chosen on training sequences of gpt-oss-20b that were not profiled, in
    one cache of all layers that holds a quarter and a half of the experts.

    Attributes:
        matrices: of the collection, at most; 16, 64 and 256 differ little.
        epsilon: added to every ratio, so that what was never chosen is ordered by its layer.
        values_of: the matrix whose ratios are what residents are worth: the ``running`` one (better by 3.2 and 2.2
            points of hit rate), or the ``matched`` one.
        depth: how much less an expert of the last layers is worth than one of the first. Published is 1, as deep layers
            can be fetched ahead in time; it costs 9.5 and 3.4 points of hit rate, and is slower than LRU.
    """

    matrices: int = Field(default=64, ge=1, le=4096)
    epsilon: float = Field(default=1 / 1024, ge=0, le=1)
    depth: float = Field(default=0.0, ge=0, le=1)
    values_of: Literal["matched", "running"] = "running"


class ActivationProfile:
    """A collection, fitted to one model.

    Attributes:
        counts: i32 ``[matrices, layers, experts]``.
        tokens: i32 ``[matrices, layers]``, recorded.
        top_k: experts a gate chooses.
        model: whose routing it is.
        settings: see `ActivationSettings`.
    """

    def __init__(
        self,
        counts: NDArray[np.int32],
        tokens: NDArray[np.int32],
        *,
        top_k: int,
        model: str,
        settings: ActivationSettings,
    ) -> None:
        self.counts = counts
        self.tokens = tokens
        self.top_k = top_k
        self.model = model
        self.settings = settings
        self.layers, self.experts = counts.shape[1:]
        units = _units(counts).reshape(counts.shape)
        self.collection = Collection(
            units=np.ascontiguousarray(units.transpose(1, 2, 0)),
            ratios=counts / np.maximum(tokens, 1)[:, :, None],
            epsilon=settings.epsilon,
            depth=settings.depth,
            by_match=settings.values_of == "matched",
        )

    @classmethod
    def fit(cls, trace: RoutingTrace, settings: ActivationSettings | None = None) -> Self:
        """The collection of a training trace: the medoids of its sequences' clusters.

        Raises:
            ForestageError: for a trace of which nothing is recorded, or with more experts than ids hold.
        """
        settings = ActivationSettings() if settings is None else settings
        if trace.experts > MAX_EXPERTS:
            raise ForestageError(f"experts: {trace.experts} a layer; the profile holds ids up to {MAX_EXPERTS - 1}")
        counts = np.zeros((trace.sequences, trace.layers, trace.experts), np.int32)
        tokens = np.zeros((trace.sequences, trace.layers), np.int32)
        sequence = -1
        for _, ids, recorded, starts in id_chunks(trace):
            sequence = _count(ids, recorded, starts, sequence, counts, tokens)
        known = np.flatnonzero(tokens.sum(axis=1))
        if not len(known):
            raise ForestageError(f"{trace.origin}: nothing is recorded; give a trace with routing to profile")
        chosen = known[_medoids(_units(counts[known]), settings.matrices)]
        return cls(counts[chosen], tokens[chosen], top_k=trace.top_k, model=trace.metadata.model, settings=settings)

    def running(self, slots: int) -> Running:
        """So many empty slots."""
        layers, matrices = (slots, self.layers), (slots, self.layers, len(self.counts))
        return Running(
            counts=np.zeros((*layers, self.experts), np.int64),
            tokens=np.zeros(layers, np.int64),
            squares=np.zeros(layers, np.int64),
            products=np.zeros(matrices, np.float64),
            cosines=np.zeros(matrices, np.float64),
            match=np.full(slots, NO_MATCH, np.int64),
            live=np.zeros(slots, np.bool_),
            now=np.zeros(slots, np.int64),
        )

    def check_trace(self, trace: RoutingTrace) -> None:
        """Raise ForestageError unless ``trace`` has the layers, experts and top-k that were profiled."""
        mine, given = (self.layers, self.experts, self.top_k), (trace.layers, trace.experts, trace.top_k)
        if mine != given:
            raise ForestageError(
                f"activation profile: of (layers, experts, top_k) = {mine}, the trace has {given}; "
                "fit one on a trace of the same model"
            )

    def save(self, path: str | Path) -> None:
        """Write it, atomically; the same one gives the same bytes.

        Raises:
            ForestageError: if it cannot be written.
        """
        arrays = {"counts": self.counts, "tokens": self.tokens}
        about = {"top_k": self.top_k, "model": self.model, "settings": self.settings.model_dump(mode="json")}
        checksums = {name: f"{crc32(array):08x}" for name, array in arrays.items()}
        write_tensors(
            Path(path),
            arrays,
            {"format": FORMAT, "version": VERSION, "profile": json.dumps(about), "checksums": json.dumps(checksums)},
        )

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The profile in a file that ``save`` wrote.

        Raises:
            ForestageError: naming the file and what is wrong with it.
        """
        file = open_tensors(Path(path))
        if (file.metadata.get("format"), file.metadata.get("version")) != (FORMAT, VERSION):
            raise ForestageError(f"{path}: no activation profile of this version; fit it again")
        about, checksums = (_document(path, file.metadata.get(key, "")) for key in ("profile", "checksums"))
        header = _Header.parse(about, origin=f"{path}: profile")
        for name, dimensions in (("counts", 3), ("tokens", 2)):
            array = file.tensors.get(name)
            if array is None or array.dtype != np.int32 or array.ndim != dimensions:
                raise ForestageError(f"{path}: {name}: missing, or not what a profile holds; fit it again")
            if checksums.get(name) != f"{crc32(array):08x}":
                raise ForestageError(f"{path}: {name}: checksum differs; the file is damaged, copy or fit it again")
        counts, tokens = file.tensors["counts"], file.tensors["tokens"]
        if counts.shape[:2] != tokens.shape or (counts < 0).any() or (counts > tokens[:, :, None]).any():
            raise ForestageError(f"{path}: counts: do not fit the tokens; the file is damaged, fit it again")
        return cls(counts, tokens, top_k=header.top_k, model=header.model, settings=header.settings)


class _Header(StrictModel):
    """What a file's header says beside the tables."""

    top_k: int = Field(ge=1)
    model: str
    settings: ActivationSettings


def _document(path: str | Path, text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise ForestageError(f"{path}: header: not readable; the file is damaged, fit it again")
    return document


@njit()
def _count(
    ids: NDArray[np.int32],
    recorded: NDArray[np.bool_],
    starts: NDArray[np.bool_],
    sequence: int,
    counts: NDArray[np.int32],
    tokens: NDArray[np.int32],
) -> int:
    """Add a chunk to the sequences' matrices; ``sequence`` ran before it, and that which runs after it is returned."""
    for token in range(len(ids)):
        sequence += starts[token]
        for layer in range(ids.shape[1]):
            if recorded[token, layer]:
                tokens[sequence, layer] += 1
                for expert in ids[token, layer]:
                    counts[sequence, layer, expert] += 1
    return sequence


def _units(counts: NDArray[np.int32]) -> NDArray[np.float64]:
    """Matrices with rows of length 1 (or all 0), f64 ``[matrices, layers · experts]``."""
    squares = np.square(counts.astype(np.int64)).sum(axis=2)
    units: NDArray[np.float64] = counts / np.sqrt(np.maximum(squares, 1))[:, :, None]
    return units.reshape(len(counts), -1)


def _medoids(units: NDArray[np.float64], most: int) -> NDArray[np.int64]:
    """Of ``units [sequences, …]`` the ``most`` that stand for all, ascending: of each cluster the nearest to its mean.

    Clustering by cosine. It begins with the sequence nearest to the mean of all, then that which is least like those
    taken, and so on: nothing is drawn by chance.
    """
    if len(units) <= most:
        return np.arange(len(units))
    chosen = [int(np.argmax(units @ units.mean(axis=0)))]
    likeness = units @ units[chosen[0]]
    while len(chosen) < most:
        chosen.append(int(np.argmin(likeness)))
        likeness = np.maximum(likeness, units @ units[chosen[-1]])
    centres = units[chosen]
    member = np.full(len(units), -1)
    for _ in range(ROUNDS):
        before, member = member, np.argmax(units @ centres.T, axis=1)
        if (before == member).all():
            break
        for cluster in np.unique(member):
            mean = units[member == cluster].mean(axis=0)
            centres[cluster] = mean / max(float(np.sqrt(mean @ mean)), 1e-300)
    found = [
        members[int(np.argmax(units[members] @ centres[cluster]))]
        for cluster in range(most)
        if len(members := np.flatnonzero(member == cluster))
    ]
    return np.sort(np.array(found, np.int64))
