"""Write a trace piece by piece, in constant memory."""

import shutil
import tempfile
import zlib
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError
from catalog.files import atomic_path
from traces.metadata import TraceMetadata
from traces.safetensors_file import WRITE_CHUNK_BYTES, byte_chunks, encode_header, stored_order
from traces.schema import ARRAYS, LABELS, TOKEN_ARRAYS
from traces.trace import RoutingTrace
from traces.trace_file import describe_tensors

CONTENT_FACTS = ("experts", "top_k", "layer_map", "ranked", "gate_weight_kind", "has_unrecorded")
"""Metadata that describe the arrays' contents, on which parts must agree; the writer's own give the rest."""


class TraceWriter:
    """Writes the file that ``RoutingTrace.save`` would, byte for byte, from parts appended one after the other.

    Use it as a context manager: the complete file appears when the block ends, and no file if the block raises or is
    interrupted. Until then the parts' rows are in unnamed temporary files beside the destination, so the folder needs
    room for the file and its largest tensor; memory holds one part, and 16 bytes per sequence.

    ::

        with TraceWriter(path, metadata) as writer:
            for part in parts:  # RoutingTrace
                writer.append(part)

    Args:
        path: the file to write.
        metadata: metadata of the whole trace; ``amend`` corrects what is known only at the end.

    Raises:
        ForestageError: if the folder of ``path`` cannot be written.
    """

    def __init__(self, path: str | Path, metadata: TraceMetadata) -> None:
        self.path = Path(path)
        self.metadata = metadata
        self._columns: dict[str, _Column] = {}
        self._offsets = array("q", [0])
        self._labels = {kind: _Labels() for kind in LABELS}
        self._last_position = -1
        self._amended = False
        self._open = True
        with _writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path.parent):
                pass  # an unwritable folder is an error before the work, not after it

    @property
    def tokens(self) -> int:
        """Number of tokens appended so far."""
        return self._offsets[-1]

    @property
    def sequences(self) -> int:
        """Number of sequences appended so far; the last may still be continued."""
        return len(self._offsets) - 1

    def append(self, part: RoutingTrace, *, continues: bool = False) -> None:
        """Append the sequences of ``part``.

        Args:
            part: a trace with the same dtypes, optional arrays and content metadata (``CONTENT_FACTS``) as the parts
                before it.
            continues: the first sequence of ``part`` continues the last one appended (with the same labels).

        Raises:
            ForestageError: if ``part`` does not fit, or cannot be written.
            ValueError: if the writer is closed.
        """
        self._require_open()
        part = part.checked()
        self._check_fit(part, continues)
        with _writing(self.path):
            for name in TOKEN_ARRAYS:
                rows = getattr(part, name)
                if rows is None:
                    continue
                if name not in self._columns:
                    self._columns[name] = _Column(self.path.parent, rows.dtype, rows.shape[1:])
                self._columns[name].append(rows)
        first = 1 if continues else 0
        base = self.tokens
        if continues:
            self._offsets.pop()
        self._offsets.extend((part.sequence_offsets[1:] + base).tolist())
        for kind, field in LABELS.items():
            self._labels[kind].extend(getattr(part, field)[first:])
        self._last_position = int(part.position[-1])

    def amend(self, **facts: Any) -> None:
        """Change fields of the metadata; if content metadata change, ``close`` reads the whole file again.

        Every part must have the content metadata valid when it is appended, so amend after the last part. If
        ``has_unrecorded``, ``gate_weight_kind`` or ``ranked`` becomes known only on the way, begin with the laxest
        value.

        Raises:
            ForestageError: for an unknown field or a value out of range.
            ValueError: if the writer is closed.
        """
        self._require_open()
        before = self.metadata
        self.metadata = TraceMetadata.parse({**before.model_dump(), **facts}, origin=f"{self.path}: metadata")
        self._amended |= any(getattr(self.metadata, name) != getattr(before, name) for name in CONTENT_FACTS)

    def close(self) -> None:
        """Put the file in its place; the end of a ``with`` block calls this.

        Raises:
            ForestageError: if nothing was appended, the amended metadata do not fit what was appended, or the file
                cannot be written.
            ValueError: if the writer is closed.
        """
        self._require_open()
        try:
            if not self.tokens:
                raise ForestageError(f"{self.path}: not written: no tokens were appended")
            with atomic_path(self.path) as temporary:
                self._assemble(temporary)
                if self._amended:
                    RoutingTrace.load(temporary, validate=False).validate(self.path)
        finally:
            self.discard()

    def discard(self) -> None:
        """Forget everything that was appended; ``path`` is not changed."""
        self._open = False
        for column in self._columns.values():
            column.file.close()
        self._columns.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self.discard()
        elif self._open:
            self.close()

    def _require_open(self) -> None:
        if not self._open:
            raise ValueError("the trace writer is closed")

    def _check_fit(self, part: RoutingTrace, continues: bool) -> None:
        """Raise unless ``part`` can follow what was appended."""
        for name in CONTENT_FACTS:
            mine, theirs = getattr(self.metadata, name), getattr(part.metadata, name)
            if mine != theirs:
                raise ForestageError(f"{self.path}: metadata.{name}: {theirs!r} in {part.origin}, {mine!r} in the file")
        for name in TOKEN_ARRAYS:
            rows, column = getattr(part, name), self._columns.get(name)
            here, there = (None if x is None else x.dtype for x in (rows, column))
            if self.tokens and here != there:
                raise ForestageError(f"{self.path}: {name}: {here} in {part.origin}, {there} in the parts before it")
        if not continues:
            return
        if not self.tokens:
            raise ForestageError(f"{self.path}: {part.origin} continues a sequence, but none was begun")
        for kind, field in LABELS.items():
            label = getattr(part, field)[0]
            if label != self._labels[kind].last:
                raise ForestageError(
                    f"{self.path}: {field}: {part.origin} continues a sequence of {self._labels[kind].last!r} as one "
                    f"of {label!r}"
                )
        if part.position[0] <= self._last_position:
            raise ForestageError(
                f"{self.path}: position[{self.tokens}]: {part.position[0]} after {self._last_position}; positions must "
                "ascend within a sequence"
            )

    def _assemble(self, temporary: Path) -> None:
        """Write header and tensors; delete each token array's temporary file as soon as it is copied."""
        small: dict[str, npt.NDArray[Any]] = {"sequence_offsets": np.frombuffer(self._offsets, np.int64)}
        small |= {f"{kind}_index": np.frombuffer(labels.index, np.uint32) for kind, labels in self._labels.items()}
        checksums = {name: column.checksum for name, column in self._columns.items()}
        for name, values in small.items():
            checksums[name] = zlib.crc32(values.tobytes())
        shapes = {name: (column.dtype, (self.tokens, *column.row_shape)) for name, column in self._columns.items()}
        shapes |= {name: (values.dtype, values.shape) for name, values in small.items()}
        order = [*ARRAYS, *(f"{kind}_index" for kind in LABELS)]
        described = describe_tensors(
            self.metadata,
            {kind: list(labels.table) for kind, labels in self._labels.items()},
            {name: checksums[name] for name in order if name in checksums},
        )
        with temporary.open("wb") as file:
            file.write(encode_header(shapes, described))
            for name in stored_order({name: dtype for name, (dtype, _) in shapes.items()}):
                if name in small:
                    file.write(small[name].data)
                else:
                    self._columns[name].move_to(file)


class _Column:
    """The rows of one token array, in an unnamed temporary file, and their CRC-32 so far."""

    def __init__(self, folder: Path, dtype: np.dtype[Any], row_shape: tuple[int, ...]) -> None:
        self.dtype = dtype
        self.row_shape = row_shape
        self.checksum = 0
        self.file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by the writer

    def append(self, rows: npt.NDArray[Any]) -> None:
        for chunk in byte_chunks(rows):
            self.checksum = zlib.crc32(chunk, self.checksum)
            self.file.write(chunk)

    def move_to(self, file: IO[bytes]) -> None:
        self.file.seek(0)
        shutil.copyfileobj(self.file, file, WRITE_CHUNK_BYTES)
        self.file.close()


class _Labels:
    """One kind of label: the table of different labels, and an index per sequence."""

    def __init__(self) -> None:
        self.table: dict[str, int] = {}
        self.index = array("I")
        self.last: str | None = None

    def extend(self, labels: tuple[str, ...]) -> None:
        self.index.extend(self.table.setdefault(label, len(self.table)) for label in labels)
        if labels:
            self.last = labels[-1]


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn an operating system's error into a ``ForestageError`` that names the file to be written."""
    try:
        yield
    except OSError as error:
        raise ForestageError(
            f"{path}: cannot write ({error.strerror}); choose a writable folder with room for it"
        ) from error
