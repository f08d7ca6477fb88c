"""Predictions as a Parquet table: one row per (token, layer).

Columns: ``sequence`` and ``position`` (or ``token``), ``layer`` (the model's, as in the trace's ``layer_map``),
``ids`` or ``scores`` (a list) and, optionally, ``token_hash``. An empty list or a null predicts nothing. The schema's
metadata contain the header's fields as texts.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from catalog.errors import ForestageError
from predictor.predictions.arrays import KEYS, NOTHING, PredictionArrays, plain_ids
from predictor.predictions.content import predicted_rows, row_chunks
from predictor.predictions.header import FORMAT, PredictionsHeader, parse_texts


def write(
    path: Path, arrays: PredictionArrays, header: PredictionsHeader, layer_map: tuple[int, ...], late_from: int
) -> None:
    """Write ``arrays``, whose columns are the model's layers ``layer_map``; early columns are below ``late_from``."""
    writer = None
    stated = header.model_copy(update={"layer_map": None, "limit": None if arrays.ids is None else arrays.width})
    texts = {"format": FORMAT, **stated.texts()}
    try:
        for rows in row_chunks(arrays):
            table = _table(arrays, rows, layer_map, late_from)
            if writer is None:
                writer = pq.ParquetWriter(
                    path, table.schema.with_metadata(texts), compression="zstd", write_page_checksum=True
                )
            writer.write_table(table.replace_schema_metadata(texts))
            arrays.release()
    finally:
        if writer is not None:
            writer.close()


def _table(arrays: PredictionArrays, rows: slice, layer_map: tuple[int, ...], late_from: int) -> pa.Table:
    """The table of ``rows``."""
    count, layers = rows.stop - rows.start, arrays.layers
    keys = {name: array for name in KEYS if (array := getattr(arrays, name)) is not None}
    columns = {name: pa.array(np.repeat(np.asarray(array[rows]), layers)) for name, array in keys.items()}
    if not {"token", "sequence"} & set(keys):
        columns["token"] = pa.array(np.repeat(np.arange(rows.start, rows.stop), layers))
    columns["layer"] = pa.array(np.tile(np.array(layer_map, np.int32), count))
    if arrays.ids is not None:
        ids = plain_ids(arrays.ids[rows]).reshape(count * layers, -1)
        held = ids >= 0
        name, lengths, values = "ids", held.sum(axis=1), ids[held].astype(np.int32)
    else:
        assert arrays.scores is not None, "a file has ids or scores"
        scores = np.asarray(arrays.scores[rows]).reshape(count * layers, -1)
        chosen = predicted_rows(arrays, late_from, rows).ravel()
        name, lengths, values = "scores", chosen * arrays.width, scores[chosen].ravel()
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    columns[name] = pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))
    return pa.table(columns)


def read(path: Path) -> tuple[PredictionsHeader, PredictionArrays]:
    """The table as arrays: a row per token, in order of first appearance; a column per layer, ascending.

    The ranking is in an unnamed temporary file (in the folder that ``TMPDIR`` names), so memory holds only the keys and
    a part of the ranking.

    Raises:
        ForestageError: if the file is damaged, a column is missing, unknown or of a wrong type, or two rows have the
            same (token, layer).
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return _read(path, file)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise ForestageError(f"{path}: not a Parquet file, or a damaged one ({reason}); write it again") from error


def _read(path: Path, file: pq.ParquetFile) -> tuple[PredictionsHeader, PredictionArrays]:
    schema = file.schema_arrow
    name = _check_columns(path, schema)
    try:
        texts = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
    except UnicodeDecodeError as error:
        raise ForestageError(f"{path}: the schema's metadata are not UTF-8; write it again") from error
    if texts.get("layer_map"):
        raise ForestageError(f"{path}: layer_map: the column layer names each row's layer; leave it out")
    header = parse_texts(texts, path)
    keys = [key for key in KEYS if key in schema.names]
    whole = file.read(columns=[*keys, "layer"])
    if not whole.num_rows:
        raise ForestageError(f"{path}: the table has no rows")
    columns = {key: _whole_numbers(path, key, whole[key]) for key in (*keys, "layer")}
    named = columns["token"] if "token" in columns else _pairs(path, columns["sequence"], columns["position"])
    _, first, token = np.unique(named, return_index=True, return_inverse=True)
    layers, column = np.unique(columns["layer"], return_inverse=True)
    place = token * len(layers) + column
    seen = np.bincount(place, minlength=len(first) * len(layers))
    if seen.max() > 1:
        again = np.flatnonzero(place == seen.argmax())[:2].tolist()
        raise ForestageError(f"{path}: rows {again[0]} and {again[1]} are of one token and layer; keep one of them")
    if "token_hash" in columns:
        differs = np.flatnonzero(columns["token_hash"] != columns["token_hash"][first][token])
        if len(differs):
            raise ForestageError(f"{path}: token_hash: row {differs[0]}: another identity than the token's first row")
    ranking, predicted = _ranking(path, file, name, place, (len(first), len(layers)), header.limit)
    parts = {key: columns[key][first] for key in keys}
    mapped = header.model_copy(update={"layer_map": tuple(layers.tolist())})
    if name == "ids":
        mapped = mapped.model_copy(update={"limit": ranking.shape[2]})
        return mapped, PredictionArrays(ids=ranking, **parts)
    return mapped, PredictionArrays(scores=ranking, predicted=predicted, **parts)


def _check_columns(path: Path, schema: pa.Schema) -> str:
    """The name of the ranking column; raises if the table holds something other than predictions."""
    names = schema.names
    ranking = [name for name in ("ids", "scores") if name in names]
    if len(ranking) != 1:
        raise ForestageError(f"{path}: columns {', '.join(names)}: give one list column, ids or scores")
    known = {*KEYS, "layer", *ranking}
    if strange := [name for name in names if name not in known]:
        raise ForestageError(f"{path}: {strange[0]}: unknown column; known are {', '.join(sorted(known))}")
    if (
        "layer" not in names
        or ("token" in names) == ("sequence" in names)
        or (("sequence" in names) != ("position" in names))
    ):
        raise ForestageError(
            f"{path}: columns {', '.join(names)}: a row names its token by sequence and position (or by token) and the "
            "model's layer by layer"
        )
    kind = schema.field(ranking[0]).type
    inner = kind.value_type if _is_list(kind) else None
    if inner is None or not (pa.types.is_integer(inner) or (ranking[0] == "scores" and pa.types.is_floating(inner))):
        raise ForestageError(f"{path}: {ranking[0]}: {kind}; expected a list of numbers a row")
    return ranking[0]


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _whole_numbers(path: Path, name: str, column: pa.ChunkedArray) -> NDArray[np.int64]:
    """A key column as i64."""
    if not pa.types.is_integer(column.type):
        raise ForestageError(f"{path}: {name}: {column.type}; expected whole numbers")
    if column.null_count:
        raise ForestageError(f"{path}: {name}: {column.null_count} rows are null; every row names its token and layer")
    values = column.to_numpy().astype(np.int64)
    if values.min() < 0:
        raise ForestageError(f"{path}: {name}: row {int(values.argmin())}: {values.min()}; must not be negative")
    return values


def _pairs(path: Path, sequence: NDArray[np.int64], position: NDArray[np.int64]) -> NDArray[np.int64]:
    """One number for each (sequence, position)."""
    for name, values in (("sequence", sequence), ("position", position)):
        if values.max() >= 1 << 31:
            raise ForestageError(f"{path}: {name}: row {int(values.argmax())}: {values.max()} is too large")
    return sequence << 31 | position


def _ranking(
    path: Path, file: pq.ParquetFile, name: str, place: NDArray[np.int64], shape: tuple[int, int], limit: int | None
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """The lists as an array ``[tokens, layers, width]`` (ids filled up with ``NOTHING``), and where there is a list."""
    width = limit or 1
    for batch in file.iter_batches(columns=[name]):
        longest = pc.max(pc.list_value_length(batch.column(0))).as_py() or 0
        if limit is not None and longest > limit:
            raise ForestageError(f"{path}: {name}: a row of {longest}, but the file states limit {limit}")
        width = max(width, longest)
    dtype = np.dtype(np.int32) if name == "ids" else file.schema_arrow.field(name).type.value_type.to_pandas_dtype()
    with tempfile.TemporaryFile() as room:
        room.truncate(shape[0] * shape[1] * width * np.dtype(dtype).itemsize)
        ranking = np.memmap(room, dtype, "r+", 0, (shape[0] * shape[1], width))
    if name == "ids":
        for begin in range(0, len(ranking), 1 << 16):
            ranking[begin : begin + (1 << 16)] = NOTHING
    predicted = np.zeros(shape[0] * shape[1], np.bool_)
    row = 0
    for batch in file.iter_batches(columns=[name]):
        lists = batch.column(0)
        lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        values = lists.flatten()  # leaves out the lists that are null
        if values.null_count:
            raise ForestageError(f"{path}: {name}: a list holds a null; leave the expert out, or give an empty list")
        here = place[row : row + len(lengths)]
        if name == "scores" and (wrong := np.flatnonzero((lengths != 0) & (lengths != width))).size:
            raise ForestageError(
                f"{path}: scores: row {row + wrong[0]}: {lengths[wrong[0]]} scores, others have {width}; give one for "
                "each expert, or none"
            )
        inside = np.arange(width) < lengths[:, None]
        block = np.full((len(lengths), width), NOTHING, dtype)
        numbers = values.to_numpy(zero_copy_only=False)
        if name == "ids" and len(numbers) and (numbers.min() < 0 or numbers.max() > np.iinfo(np.int32).max):
            raise ForestageError(f"{path}: ids: {numbers.min()}…{numbers.max()}; every id must be an expert's")
        block[inside] = numbers
        ranking[here] = block
        predicted[here] = lengths > 0
        row += len(lengths)
    ranking.flush()
    return ranking.reshape(*shape, width), predicted.reshape(shape)
