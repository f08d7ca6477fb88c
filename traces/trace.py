"""The trace: which experts a model's routers chose, token by token."""

import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError
from traces import trace_file, validation
from traces.mapping import release
from traces.metadata import TraceMetadata
from traces.safetensors_file import byte_chunks, open_tensors, write_tensors
from traces.trace_file import ARRAYS, TOKEN_ARRAYS

PREFILL = 0
DECODE = 1

PhaseName = Literal["prefill", "decode"]
PHASES: dict[PhaseName, int] = {"prefill": PREFILL, "decode": DECODE}
"""Phases as files and users name them."""

VALIDATE_ON_LOAD_BYTES = 256 << 20
"""``load`` checks the content of smaller files at once (well under a second); of larger ones, what is sliced."""

CHUNK_TOKENS = 1 << 16

KEEP_MAPPED_BYTES = 32 << 20
"""Of a larger mapped trace, ``token_range`` lets go of the pages that were read before (see ``traces.mapping``)."""

GATHER_IN_MEMORY_BYTES = 64 << 20
"""A larger selection of tokens is a mapped temporary file (see ``traces.gather``)."""

GATHER_PART_BYTES = 8 << 20
"""Copied to that file at a time, at most."""

ContentState = Literal["unchecked", "checked", "lazy"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class RoutingTrace:
    """Recorded routing; arrays are read-only, C-contiguous and may be memory-mapped.

    A trace is valid once it exists: constructing one checks shapes, dtypes and contents (see ``traces.validation``).
    The exception is a large mapped file, whose contents are checked slice by slice, as ``sequence``,
    ``token_range``, ``select_sequences`` and ``chunks`` hand them out, or all at once by ``validate``.

    Whoever walks a trace of any size with ``chunks``, ``token_range`` or ``sequence`` holds a steady memory; whoever
    indexes the arrays of the whole trace holds what was touched.

    Attributes:
        expert_ids: u8 (fewer than 256 experts) or u16 ``[tokens, layers, top_k]``; distinct ids below ``experts``, in
            rank order where ``metadata.ranked``. A row whose ids are all the dtype's maximum was not recorded.
        gate_weights: f16 ``[tokens, layers, top_k]`` in the order of the ids, or ``None``.
        sequence_offsets: i64 ``[sequences + 1]``, strictly ascending from 0 to ``tokens``.
        position: i32 ``[tokens]``, absolute position in the sequence's context; ascends within a sequence.
        phase: u8 ``[tokens]``, ``PREFILL`` or ``DECODE``.
        token_hash: u32 ``[tokens]``, identity of the token that the step processes, or ``None``.
        domains: label of each sequence.
        datasets: what each sequence is stratified by.
        metadata: what holds of the whole trace.
        content: whether the contents were checked; leave it alone.
        origin: the file the arrays come from, for errors.
    """

    expert_ids: npt.NDArray[np.uint8 | np.uint16]
    gate_weights: npt.NDArray[np.float16] | None
    sequence_offsets: npt.NDArray[np.int64]
    position: npt.NDArray[np.int32]
    phase: npt.NDArray[np.uint8]
    token_hash: npt.NDArray[np.uint32] | None
    domains: tuple[str, ...]
    datasets: tuple[str, ...]
    metadata: TraceMetadata
    content: ContentState = field(default="unchecked")
    origin: str = "trace"

    def __post_init__(self) -> None:
        for name in ARRAYS:
            array = getattr(self, name)
            if array is not None:
                # One layout and mutability for mapped and built traces: compiled consumers specialise once.
                view = np.ascontiguousarray(array).view()
                view.flags.writeable = False
                object.__setattr__(self, name, view)
        object.__setattr__(self, "domains", tuple(self.domains))
        object.__setattr__(self, "datasets", tuple(self.datasets))
        if self.content == "unchecked":
            self.validate()
            object.__setattr__(self, "content", "checked")

    @property
    def tokens(self) -> int:
        """Number of tokens, of all phases."""
        return self.expert_ids.shape[0]

    @property
    def layers(self) -> int:
        """Number of recorded MoE layers."""
        return self.expert_ids.shape[1]

    @property
    def top_k(self) -> int:
        """Experts chosen a token and layer."""
        return self.expert_ids.shape[2]

    @property
    def experts(self) -> int:
        """Routed experts a layer."""
        return self.metadata.experts

    @property
    def sequences(self) -> int:
        """Number of sequences."""
        return len(self.sequence_offsets) - 1

    @property
    def unrecorded_id(self) -> int:
        """The id that fills a row that was not recorded."""
        return int(np.iinfo(self.expert_ids.dtype).max)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        arrays = (getattr(self, name) for name in ARRAYS)
        return sum(array.nbytes for array in arrays if array is not None)

    def __repr__(self) -> str:
        return (
            f"RoutingTrace({self.metadata.model}: {self.sequences} sequences, {self.tokens} tokens, "
            f"{self.layers} layers, top-{self.top_k} of {self.experts})"
        )

    def recorded(self) -> npt.NDArray[np.bool_]:
        """bool ``[tokens, layers]``: whether the row was recorded."""
        if not self.metadata.has_unrecorded:
            return np.ones((self.tokens, self.layers), dtype=np.bool_)
        return self.expert_ids[:, :, 0] != self.unrecorded_id

    def sequence_index(self) -> npt.NDArray[np.int64]:
        """i64 ``[tokens]``: the sequence of each token."""
        return np.repeat(np.arange(self.sequences), np.diff(self.sequence_offsets))

    def sequence_slice(self, index: int) -> slice:
        """The tokens of sequence ``index`` (negative counts from the end).

        Raises:
            ForestageError: if there is no such sequence.
        """
        if not -self.sequences <= index < self.sequences:
            raise ForestageError(f"sequence {index}: the trace has sequences 0 to {self.sequences - 1}")
        index %= self.sequences
        return slice(int(self.sequence_offsets[index]), int(self.sequence_offsets[index + 1]))

    def sequence(self, index: int) -> Self:
        """Sequence ``index`` as a trace of its own, without copying."""
        tokens = self.sequence_slice(index)
        return self.token_range(tokens.start, tokens.stop)

    def token_range(self, start: int, stop: int) -> Self:
        """Tokens ``[start, stop)`` as a trace, without copying; sequences that reach outside are cut.

        Raises:
            ForestageError: if the range is empty or reaches outside the trace.
        """
        if not 0 <= start < stop <= self.tokens:
            raise ForestageError(f"tokens {start} to {stop}: choose a non-empty range within 0 to {self.tokens}")
        first = int(np.searchsorted(self.sequence_offsets, start, side="right")) - 1
        last = int(np.searchsorted(self.sequence_offsets, stop, side="left"))
        offsets = np.clip(self.sequence_offsets[first : last + 1], start, stop) - start
        if self.nbytes > KEEP_MAPPED_BYTES:
            release(self.expert_ids)
        if self.content == "lazy":
            validation.check_content(self, self.origin, start, stop)
        return self._part(slice(start, stop), offsets, self.domains[first:last], self.datasets[first:last])

    def select_sequences(self, indices: Sequence[int] | npt.NDArray[np.integer]) -> Self:
        """The sequences ``indices``, in that order, copied (to a temporary file where they are large).

        Raises:
            ForestageError: if ``indices`` is empty or names a sequence that is not there.
        """
        chosen = np.array([operator.index(index) for index in indices], np.int64)
        if not len(chosen):
            raise ForestageError("selection of sequences is empty; the trace has too few sequences for it")
        for bound in (chosen.min(), chosen.max()):
            self.sequence_slice(int(bound))  # which refuses what is not there
        chosen %= self.sequences
        lengths = np.diff(self.sequence_offsets)[chosen]
        if int(lengths.sum()) * self._token_bytes > GATHER_IN_MEMORY_BYTES:
            return self._gathered(self._walk_sequences(chosen, lengths))
        return self._sequences_in_memory(chosen)

    def select_phase(self, phase: int) -> Self:
        """The tokens of one phase (``PREFILL`` or ``DECODE``), copied (to a temporary file where they are large).

        Sequences without any are left out.

        Raises:
            ForestageError: if no token is of that phase.
        """
        if self.content == "lazy":
            return self.checked().select_phase(phase)
        if self.nbytes > GATHER_IN_MEMORY_BYTES:
            return self._gathered(self._walk_phase(phase))
        return self._phase_in_memory(phase)

    def chunks(self, tokens: int = CHUNK_TOKENS) -> Iterator[Self]:
        """The trace in views of at most ``tokens`` tokens each (a sequence may be cut in several)."""
        return self._walk(slice(0, self.tokens), tokens)

    def equals(self, other: "RoutingTrace") -> bool:
        """Whether every array (dtype and bits), label and the metadata are the same."""
        for name in ARRAYS:
            mine, theirs = getattr(self, name), getattr(other, name)
            if (mine is None) != (theirs is None):
                return False
            if mine is not None:
                if mine.dtype != theirs.dtype or mine.shape != theirs.shape:
                    return False
                if any(a != b for a, b in zip(byte_chunks(mine), byte_chunks(theirs), strict=True)):
                    return False
        labels = (self.domains, self.datasets, self.metadata)
        return labels == (other.domains, other.datasets, other.metadata)

    def validate(self, origin: str | Path | None = None) -> None:
        """Check structure and contents, in chunks; ``origin`` (the trace's own, if ``None``) is named in the error.

        Raises:
            ForestageError: naming the origin, the field and the row of the first fault.
        """
        named = self.origin if origin is None else str(origin)
        validation.check_structure(self, named)
        validation.check_content(self, named)

    def checked(self) -> Self:
        """This trace with its contents checked: what must be called before all of a lazily opened one is read.

        Raises:
            ForestageError: as ``validate``.
        """
        if self.content == "checked":
            return self
        self.validate()
        return replace(self, content="checked")

    @classmethod
    def load(cls, path: str | Path, *, validate: bool | None = None) -> Self:
        """Map the trace file ``path``.

        Args:
            path: a file that ``save`` wrote.
            validate: ``True`` checks the contents and checksums at once; ``False`` leaves them to be checked slice by
                slice (see the class); ``None`` checks at once up to ``VALIDATE_ON_LOAD_BYTES``.

        Raises:
            ForestageError: naming the file, the field and the row of the first fault.
        """
        path = Path(path)
        file = open_tensors(path)
        trace = cls(**trace_file.parse(path, file), content="lazy", origin=str(path))
        validation.check_structure(trace, str(path))
        if validate if validate is not None else trace.nbytes <= VALIDATE_ON_LOAD_BYTES:
            validation.check_content(trace, str(path))
            trace_file.check_checksums(path, file)
            return replace(trace, content="checked")
        return trace

    def save(self, path: str | Path) -> None:
        """Write the trace to ``path`` (safetensors, see ``docs/traces.md``), atomically.

        Raises:
            ForestageError: if it cannot be written, or a lazily opened trace turns out invalid.
        """
        tensors, metadata = trace_file.compose(self.checked())
        write_tensors(Path(path), tensors, metadata)

    @property
    def _token_bytes(self) -> int:
        """Bytes of a token's rows in every array."""
        arrays = (getattr(self, name) for name in TOKEN_ARRAYS)
        return sum(array.nbytes for array in arrays if array is not None) // self.tokens

    def _walk(self, tokens: slice, step: int) -> Iterator[Self]:
        """The trace of ``tokens`` in views of at most ``step`` tokens each."""
        for start in range(tokens.start, tokens.stop, step):
            yield self.token_range(start, min(start + step, tokens.stop))

    @property
    def _part_tokens(self) -> int:
        """Tokens that are copied to a temporary file at a time."""
        return max(1, min(CHUNK_TOKENS, GATHER_PART_BYTES // self._token_bytes))

    def _sequences_in_memory(self, chosen: npt.NDArray[np.int64]) -> Self:
        """``select_sequences`` of indices ≥ 0 that are there, whose tokens fit in memory."""
        ends = np.flatnonzero(np.diff(chosen, append=-1) != 1)  # of runs of neighbours
        firsts = self.sequence_offsets[chosen[np.concatenate([[0], ends[:-1] + 1])]].tolist()
        lasts = self.sequence_offsets[chosen[ends] + 1].tolist()
        if self.nbytes > KEEP_MAPPED_BYTES:
            release(self.expert_ids)
        if self.content == "lazy":
            for first, last in zip(firsts, lasts, strict=True):
                validation.check_content(self, self.origin, first, last)
        tokens = np.concatenate([np.arange(first, last) for first, last in zip(firsts, lasts, strict=True)])
        offsets = np.concatenate([[0], np.cumsum(np.diff(self.sequence_offsets)[chosen])])
        domains = tuple(self.domains[index] for index in chosen)
        return self._part(tokens, offsets, domains, tuple(self.datasets[index] for index in chosen))

    def _walk_sequences(
        self, chosen: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
    ) -> Iterator[tuple[Self, bool]]:
        """The sequences ``chosen`` in pieces: several short ones, or a part of a long one; flags as ``_walk_phase``."""
        ends = np.cumsum(lengths)
        first = 0
        while first < len(chosen):
            begin = ends[first] - lengths[first]
            last = int(np.searchsorted(ends, begin + self._part_tokens, side="right"))
            if last > first:
                yield self._sequences_in_memory(chosen[first:last]), False
            else:
                last = first + 1
                pieces = self._walk(self.sequence_slice(int(chosen[first])), self._part_tokens)
                yield from ((piece, number > 0) for number, piece in enumerate(pieces))
            first = last

    def _phase_in_memory(self, phase: int) -> Self:
        """``select_phase`` of a trace whose tokens fit in memory."""
        tokens = np.flatnonzero(self.phase == phase)
        if not len(tokens):
            raise ForestageError(f"the trace of {self.metadata.model} has no {phase_name(phase)} tokens")
        counts = np.bincount(self.sequence_index()[tokens], minlength=self.sequences)
        kept = np.flatnonzero(counts)
        offsets = np.concatenate([[0], np.cumsum(counts[kept])])
        domains = tuple(self.domains[index] for index in kept)
        return self._part(tokens, offsets, domains, tuple(self.datasets[index] for index in kept))

    def _walk_phase(self, phase: int) -> Iterator[tuple[Self, bool]]:
        """The tokens of one phase in pieces; whether each goes on with the sequence that the one before it ended in."""
        begun = -1
        for start in range(0, self.tokens, self._part_tokens):
            part = self.token_range(start, min(start + self._part_tokens, self.tokens))
            inside = np.flatnonzero(part.phase == phase)
            if not len(inside):
                continue
            first, last = np.searchsorted(self.sequence_offsets, start + inside[[0, -1]], side="right") - 1
            yield part._phase_in_memory(phase), bool(first == begun)
            begun = last
        if begun < 0:
            raise ForestageError(f"the trace of {self.metadata.model} has no {phase_name(phase)} tokens")

    def _gathered(self, parts: Iterable[tuple[Self, bool]]) -> Self:
        """The parts of this trace as one, in a temporary file."""
        from traces.gather import gather_in_file  # which needs this module

        return gather_in_file(parts, self)

    def _part(
        self,
        tokens: slice | npt.NDArray[np.int64],
        offsets: npt.NDArray[np.int64],
        domains: tuple[str, ...],
        datasets: tuple[str, ...],
    ) -> Self:
        """The trace of some tokens, which are known to be valid: a view for a slice, a copy for indices."""
        whole = {name: getattr(self, name) for name in TOKEN_ARRAYS}
        arrays: dict[str, Any] = {name: None if array is None else array[tokens] for name, array in whole.items()}
        return replace(
            self,
            **arrays,
            sequence_offsets=offsets.astype(np.int64),
            domains=domains,
            datasets=datasets,
            content="checked",
        )


def phase_name(phase: int) -> PhaseName:
    """``prefill`` or ``decode``."""
    return next(name for name, value in PHASES.items() if value == phase)


def id_dtype(experts: int) -> np.dtype[Any]:
    """dtype of ``expert_ids``: u8 below 256 experts, else u16 (the maximum marks an unrecorded row)."""
    return np.dtype(np.uint8 if experts < 256 else np.uint16)
