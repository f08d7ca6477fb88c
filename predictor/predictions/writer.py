"""Write predictions: whole arrays at once, or rows as they come."""

import json
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from catalog.errors import ForestageError
from catalog.files import atomic_path
from predictor.predictions import parquet_file
from predictor.predictions.alignment import align
from predictor.predictions.arrays import NAMES, PredictionArrays, check_arrays, check_header
from predictor.predictions.content import check_content
from predictor.predictions.digest import trace_digest
from predictor.predictions.header import CHECKSUMS, FORMAT, PredictionsHeader, parse_values
from traces import RoutingTrace
from traces.safetensors_file import byte_chunks, crc32, write_tensors

SUFFIXES = (".npz", ".safetensors", ".parquet")
"""Allowed endings of a file's name, one per container."""


def check_suffix(path: Path) -> None:
    """Raise ForestageError unless the name of ``path`` has the ending of a container of predictions."""
    if path.suffix not in SUFFIXES:
        raise ForestageError(f"{path}: predictions are written as {', '.join(SUFFIXES)}; end the name with one of them")


def write_predictions(
    path: str | Path,
    *,
    lookahead: int,
    source: str,
    ids: NDArray[np.integer[Any]] | None = None,
    scores: NDArray[np.number] | None = None,
    predicted: NDArray[np.bool_] | None = None,
    trace: RoutingTrace | None = None,
    model: str | None = None,
    experts: int | None = None,
    layer_map: tuple[int, ...] | None = None,
    token: NDArray[np.integer[Any]] | None = None,
    sequence: NDArray[np.integer[Any]] | None = None,
    position: NDArray[np.integer[Any]] | None = None,
    token_hash: NDArray[np.integer[Any]] | None = None,
    minimum_score: float | None = None,
    own_accord: bool = False,
    far_bytes_per_token: int | None = None,
) -> None:
    """Write predictions to ``path`` (``.npz``, ``.safetensors`` or ``.parquet``), atomically, checked as on reading.

    Args:
        path: the file.
        lookahead: layers between the last gate that a prediction used and its target; 1: the previous layer.
        source: who predicted, and how, for readers.
        ids: ``[rows, layers, m]``, best first, then −1 where nothing more is predicted. Give either ``ids`` or
            ``scores``.
        scores: ``[rows, layers, experts]``, larger is better.
        predicted: bool ``[rows, layers]``, where ``scores`` are predictions. Without it: in every layer from the
            lookahead on.
        trace: the predicted trace, if available; it gives model, experts and the digest that proves the alignment. If
            neither ``token`` nor ``sequence`` is given, the rows are all its tokens in order and the file says so.
        model, experts: the trace's, if ``trace`` is not given.
        layer_map: the model's layer of each column, if the columns are not the recorded layers of the trace.
        token: ``[rows]``, index of each row's token in the trace; or
        sequence, position: ``[rows]``, index of its sequence in the trace and its position there.
        token_hash: ``[rows]``, identity of each row's token, as in the trace.
        minimum_score: an expert with a lower score is never issued.
        own_accord: whether the predictor itself chose how many ids a row lists (how many scores reach
            ``minimum_score``).
        far_bytes_per_token: bytes that the predictor itself reads from and writes to far memory for each token.

    Raises:
        ForestageError: naming the array and the row of the first fault; nothing is written then.
    """
    path = Path(path)
    check_suffix(path)
    if trace is not None:
        model = trace.metadata.model if model is None else model
        experts = trace.experts if experts is None else experts
        if token is None and sequence is None:
            ranking = ids if ids is not None else scores
            if ranking is not None and len(ranking) == trace.tokens:
                sequence, position = trace.sequence_index(), np.asarray(trace.position)
    stated = {
        "lookahead": lookahead, "source": source, "model": model, "experts": experts, "layer_map": layer_map,
        "trace_digest": None if trace is None else trace_digest(trace), "minimum_score": minimum_score,
        "own_accord": own_accord, "far_bytes_per_token": far_bytes_per_token,
    }  # fmt: skip
    header = parse_values(stated, path)
    arrays = PredictionArrays(
        ids=ids, scores=scores, predicted=predicted, token=token, sequence=sequence, position=position,
        token_hash=token_hash,
    )  # fmt: skip
    check_arrays(arrays, path)
    check_header(header, arrays, path)
    late_from = lookahead
    if path.suffix == ".parquet" and layer_map is None:
        if trace is None:
            raise ForestageError(
                f"{path}: layer_map: a row of a table names the model's layer; give trace or layer_map"
            )
        layer_map = trace.metadata.layer_map
    if trace is not None:
        late_from = align(arrays, header, trace, path).first_late_column(lookahead)
    if experts is None:
        experts = arrays.width if scores is not None else int(ids.max()) + 1  # type: ignore[union-attr]
    check_content(arrays, header, experts, late_from, path)
    _store(path, arrays, header, layer_map, late_from)


def _store(
    path: Path, arrays: PredictionArrays, header: PredictionsHeader, layer_map: tuple[int, ...] | None, late_from: int
) -> None:
    """Write the arrays and the header in the container that the ending of ``path`` selects."""
    present = {name: np.ascontiguousarray(array) for name, array in arrays.present().items()}
    if path.suffix == ".safetensors":
        checksums = json.dumps({name: f"{crc32(array):08x}" for name, array in present.items()})
        write_tensors(path, present, {"format": FORMAT, **header.texts(), CHECKSUMS: checksums})
        return
    with atomic_path(path) as temporary:
        if path.suffix == ".parquet":
            assert layer_map is not None, "known for a table"
            parquet_file.write(temporary, arrays, header, layer_map, late_from)
            return
        stated = header.model_dump(mode="json", exclude_none=True)
        with temporary.open("wb") as file:
            members: dict[str, Any] = present | {name: np.array(value) for name, value in stated.items()}
            np.savez(file, **members)


class PredictionsWriter:
    """Writes predictions whose rows come in pieces; memory holds one piece.

    Use it as a context manager: the complete file appears when the block ends, and no file if the block raises.

    ::

        with PredictionsWriter(path, lookahead=1, source="gate run early", trace=trace) as writer:
            for first, ids in pieces:
                writer.append(ids=ids)

    Args:
        path: the file, as ``write_predictions`` writes it.
        facts: all arguments of ``write_predictions`` except the arrays. If the trace is recorded in the same run, give
            it at the end by setting ``writer.facts["trace"]``.
    """

    def __init__(self, path: str | Path, **facts: Any) -> None:
        self.path = Path(path)
        check_suffix(self.path)
        self.facts = facts
        self._columns: dict[str, tuple[IO[bytes], np.dtype[Any], tuple[int, ...]]] = {}
        self._rows = 0

    @property
    def rows(self) -> int:
        """Rows appended so far."""
        return self._rows

    def append(self, **arrays: NDArray[Any]) -> None:
        """Append rows: arrays that ``write_predictions`` takes, the same ones each time.

        Raises:
            ForestageError: if names, dtypes or shapes of the arrays differ from those before, or the rows cannot be
                written.
        """
        counts = {len(array) for array in arrays.values()}
        if set(arrays) - set(NAMES) or len(counts) != 1 or (self._columns and set(arrays) != set(self._columns)):
            raise ForestageError(
                f"{self.path}: rows come with {', '.join(sorted(arrays))}; give the same arrays each time"
            )
        try:
            for name, array in arrays.items():
                if name not in self._columns:
                    self.path.parent.mkdir(parents=True, exist_ok=True)
                    made: IO[bytes] = tempfile.TemporaryFile(dir=self.path.parent)  # noqa: SIM115 - closed by discard
                    self._columns[name] = (made, array.dtype, array.shape[1:])
                file, dtype, shape = self._columns[name]
                if (array.dtype, array.shape[1:]) != (dtype, shape):
                    raise ForestageError(
                        f"{self.path}: {name}: {array.dtype} {list(array.shape[1:])} after {dtype} {list(shape)}"
                    )
                for chunk in byte_chunks(np.ascontiguousarray(array)):
                    file.write(chunk)
        except OSError as error:
            raise ForestageError(f"{self.path}: cannot write ({error.strerror}); choose a writable folder") from error
        self._rows += counts.pop()

    def close(self) -> None:
        """Put the file in its place; the end of a ``with`` block calls this.

        Raises:
            ForestageError: as ``write_predictions``, or if nothing was appended.
        """
        try:
            if not self._rows:
                raise ForestageError(f"{self.path}: not written: nothing was predicted")
            arrays: dict[str, Any] = {}
            for name, (file, dtype, shape) in self._columns.items():
                file.flush()
                arrays[name] = np.asarray(np.memmap(file, dtype=dtype, mode="r", shape=(self._rows, *shape)))
            write_predictions(self.path, **arrays, **self.facts)
        finally:
            self.discard()

    def discard(self) -> None:
        """Forget everything that was appended; ``path`` is not changed."""
        for file, _, _ in self._columns.values():
            file.close()
        self._columns.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()
