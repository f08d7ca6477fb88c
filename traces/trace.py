"""The trace: which experts a model's routers chose, token by token."""

from collections.abc import Iterable, Iterator
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
from traces.schema import ARRAYS, TOKEN_ARRAYS

VALIDATE_ON_LOAD_BYTES = 256 << 20
"""``load`` checks the contents of files up to this size at once (well under a second), of larger ones by slice."""

CHUNK_TOKENS = 1 << 16

KEEP_MAPPED_BYTES = 32 << 20
"""In a larger mapped trace, ``token_range`` releases the pages read before (see ``traces.mapping``)."""

ContentState = Literal["unchecked", "checked", "lazy"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class RoutingTrace:
    """Recorded routing; arrays are read-only, C-contiguous and may be memory-mapped.

    Constructing a trace checks shapes, dtypes and contents (see ``traces.validation``), so every trace is valid. The
    exception is a large mapped file: its contents are checked slice by slice, when ``sequence``, ``token_range``,
    ``chunks`` and ``traces.selection`` return them, or all at once by ``validate``.

    Walking a trace of any size with ``chunks``, ``token_range`` or ``sequence`` needs constant memory; indexing the
    arrays of the whole trace keeps all pages that were used in memory.

    Attributes:
        expert_ids: u8 (fewer than 256 experts) or u16 ``[tokens, layers, top_k]``; distinct ids below ``experts``, in
            rank order if ``metadata.ranked``. A row whose ids are all the dtype's maximum was not recorded.
        gate_weights: f16 ``[tokens, layers, top_k]`` in the order of the ids, or ``None``.
        sequence_offsets: i64 ``[sequences + 1]``, strictly ascending from 0 to ``tokens``.
        position: i32 ``[tokens]``, absolute position in the sequence's context; ascends within a sequence.
        phase: u8 ``[tokens]``, ``PREFILL`` or ``DECODE``.
        token_hash: u32 ``[tokens]``, identity of the token that the step processes, or ``None``.
        domains: label of each sequence.
        datasets: dataset of each sequence, by which splits are stratified.
        metadata: facts about the whole trace.
        content: whether the contents were checked; set by this package only.
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
                # Mapped and built traces get the same layout and mutability, so that kernels are compiled once.
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
        """Experts chosen per token and layer."""
        return self.expert_ids.shape[2]

    @property
    def experts(self) -> int:
        """Routed experts per layer."""
        return self.metadata.experts

    @property
    def sequences(self) -> int:
        """Number of sequences."""
        return len(self.sequence_offsets) - 1

    @property
    def unrecorded_id(self) -> int:
        """The id that fills an unrecorded row."""
        return int(np.iinfo(self.expert_ids.dtype).max)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        arrays = (getattr(self, name) for name in ARRAYS)
        return sum(array.nbytes for array in arrays if array is not None)

    @property
    def token_bytes(self) -> int:
        """Bytes of one token's rows in all arrays."""
        arrays = (getattr(self, name) for name in TOKEN_ARRAYS)
        return sum(array.nbytes for array in arrays if array is not None) // self.tokens

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
        self.prepare([(start, stop)])
        return self.of_tokens(slice(start, stop), offsets, self.domains[first:last], self.datasets[first:last])

    def prepare(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Check the tokens ``[first, last)`` of each range unless already checked; first release pages of a large file.

        Call this before reading the arrays of a lazily opened trace, for the tokens that will be read.

        Raises:
            ForestageError: naming the origin, the field and the row of the first fault.
        """
        if self.nbytes > KEEP_MAPPED_BYTES:
            release(self.expert_ids)
        if self.content == "lazy":
            for first, last in ranges:
                validation.check_content(self, self.origin, first, last)

    def chunks(self, tokens: int = CHUNK_TOKENS) -> Iterator[Self]:
        """The trace in views of at most ``tokens`` tokens each (a sequence may be cut)."""
        return self.walk(slice(0, self.tokens), tokens)

    def walk(self, tokens: slice, step: int) -> Iterator[Self]:
        """The tokens ``tokens`` of the trace, in views of at most ``step`` tokens each."""
        for start in range(tokens.start, tokens.stop, step):
            yield self.token_range(start, min(start + step, tokens.stop))

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
        """This trace with its contents checked; call it before reading all of a lazily opened trace.

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
            validate: ``True`` checks contents and checksums at once; ``False`` leaves the contents to be checked slice
                by slice (see the class); ``None`` checks files up to ``VALIDATE_ON_LOAD_BYTES`` at once.

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

    def of_tokens(
        self,
        tokens: slice | npt.NDArray[np.int64],
        offsets: npt.NDArray[np.int64],
        domains: tuple[str, ...],
        datasets: tuple[str, ...],
    ) -> Self:
        """The trace of ``tokens``, which ``prepare`` checked: a view for a slice, a copy for indices.

        Args:
            tokens: the tokens, in order.
            offsets: i64 ``[sequences + 1]``, sequence offsets among ``tokens``.
            domains: labels of those sequences.
            datasets: datasets of those sequences.
        """
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
