"""Making a trace from tokens that arrive piece by piece, in memory that does not grow with them.

The readers give the ids as they stand in the file. What only the whole file tells (which layers are dense, whether ids
are ranked, what the weights are) is settled at the end, in chunks; large traces lie in temporary files by then.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError
from traces.importers.assembly.models import RecordedModel
from traces.importers.assembly.spool import Spool
from traces.importers.assembly.values import are_ranked, narrow, weight_kind
from traces.importers.report import Report
from traces.metadata import MAX_EXPERTS, GateWeightKind, TraceMetadata
from traces.schema import id_dtype
from traces.trace import RoutingTrace
from traces.validation import counted_from_one, names_first

CHUNK_TOKENS = 1 << 13

RAW_UNRECORDED = MAX_EXPERTS
"""What a row that was not recorded is kept as until the end; readers give it as −1."""


class TraceBuilder:
    """Collects the tokens of one file or folder.

    Args:
        origin: what is being read, for errors.
        layers: of the rows that will be given; dense ones may be among them.
        top_k: ids a row.
        weights, hashes: whether gate weights and token identities will be given.
    """

    def __init__(self, origin: Path, *, layers: int, top_k: int, weights: bool = False, hashes: bool = False) -> None:
        if layers < 1 or top_k < 1:
            raise ForestageError(f"{origin}: {layers} layers of {top_k} ids a row; nothing was recorded")
        self.origin = origin
        self.layers, self.top_k = layers, top_k
        self._ids = Spool(np.uint16, (layers, top_k))
        self._weights = Spool(np.float16, (layers, top_k)) if weights else None
        self._position = Spool(np.int32)
        self._phase = Spool(np.uint8)
        self._hashes = Spool(np.uint32) if hashes else None
        self._last_position = -1
        self._offsets = [0]
        self._domains: list[str] = []
        self._datasets: list[str] = []

    @property
    def tokens(self) -> int:
        """Tokens given so far."""
        return self._ids.rows

    @property
    def is_open(self) -> bool:
        """Whether tokens were given since the last sequence ended."""
        return self.tokens > self._offsets[-1]

    def append(
        self,
        ids: npt.NDArray[Any],
        *,
        position: npt.NDArray[Any] | None = None,
        phase: int | npt.NDArray[Any],
        weights: npt.NDArray[Any] | None = None,
        token_hash: npt.NDArray[Any] | None = None,
        where: str = "",
    ) -> None:
        """Add tokens to the open sequence.

        Args:
            ids: integers ``[tokens, layers, top_k]``; a row of −1 was not recorded.
            position: ``[tokens]``, absolute in the context; ``None`` counts on from the sequence's last token, or 0.
            phase: ``PREFILL`` or ``DECODE``, of all or ``[tokens]``.
            weights: ``[tokens, layers, top_k]``, required where the builder was made with ``weights``.
            token_hash: u32 ``[tokens]``, required where it was made with ``hashes``.
            where: place in the file (``line 7``), for errors.

        Raises:
            ForestageError: naming the origin, the place and the field that is wrong.
        """
        place = f"{self.origin}: {where}" if where else str(self.origin)
        tokens = len(ids)
        if ids.dtype.kind not in "iu" or ids.shape[1:] != (self.layers, self.top_k):
            raise ForestageError(
                f"{place}: ids {ids.dtype} {list(ids.shape)}; expected integers [tokens, {self.layers}, {self.top_k}], "
                "as before"
            )
        if not tokens:
            return
        if position is None:
            last = self._last_position + 1 if self.is_open else 0
            position = np.arange(last, last + tokens)
        for name, array, spool in (("weights", weights, self._weights), ("token_hash", token_hash, self._hashes)):
            if (array is None) != (spool is None):
                change = "missing here, but given" if array is None else "given here, but missing"
                raise ForestageError(f"{place}: {name}: {change} before")
        self._ids.append(_raw_ids(ids, place))
        self._position.append(narrow(np.asarray(position), np.int32, "position", place))
        self._last_position = int(position[-1])
        self._phase.append(np.full(tokens, phase, dtype=np.uint8) if isinstance(phase, int) else phase.astype(np.uint8))
        if self._weights is not None and weights is not None:
            with np.errstate(over="ignore"):  # an overflow becomes inf, which the trace refuses
                self._weights.append(weights.astype(np.float16))
        if self._hashes is not None and token_hash is not None:
            self._hashes.append(token_hash.astype(np.uint32))

    def end_sequence(self, domain: str, dataset: str) -> None:
        """Close the open sequence; one without tokens is left out."""
        if self.is_open:
            self._offsets.append(self.tokens)
            self._domains.append(domain)
            self._datasets.append(dataset)

    def used_layers(self) -> tuple[int, ...]:
        """Layers in which some row holds distinct ids or an id other than 0: the others are dense or were not run."""
        used = np.zeros(self.layers, dtype=np.bool_)
        for part in _pieces(self._ids.array()):
            used |= ((part != 0) & (part != RAW_UNRECORDED)).any(axis=(0, 2))
        return tuple(np.flatnonzero(used).tolist())

    def largest_id(self) -> int:
        """The largest id of any recorded row, −1 where there is none."""
        largest = -1
        for part in _pieces(self._ids.array()):
            recorded = part[part != RAW_UNRECORDED]
            largest = max(largest, int(recorded.max())) if recorded.size else largest
        return largest

    def finish(
        self,
        model: RecordedModel,
        report: Report,
        *,
        source: str,
        licence: str = "not stated",
        ranked: bool | None = None,
        gate_weight_kind: GateWeightKind | None = None,
        missing_told: bool = False,
    ) -> RoutingTrace:
        """The trace; every sequence must have been ended.

        A row that names an expert twice is no top-k choice: it counts as not recorded, and a warning says so.

        Args:
            model: what was recorded, and which of the given layers are kept.
            report: takes the warnings.
            source, licence: as in the metadata.
            ranked: whether ids are in rank order; ``None``: where every row's weights descend (never without weights).
            gate_weight_kind: what the weights are; ``None``: as their sums tell.
            missing_told: the reader gave the rows of −1 itself, and has said why; else a warning counts them.

        Raises:
            ForestageError: if nothing was recorded, an id is out of range or a weight or position is wrong.
        """
        if self.is_open:
            raise ValueError("a sequence is open")
        if not self.tokens:
            raise ForestageError(f"{self.origin}: holds no token")
        ids, has_unrecorded = self._settle_ids(model, report, missing_told)
        weights = self._settle_weights(model, ids)
        if ranked is None:
            ranked = weights is not None and all(are_ranked(part) for part in _pieces(weights))
        if gate_weight_kind is None:
            gate_weight_kind = "none" if weights is None else self._kind(weights, ids)
        metadata = TraceMetadata.parse(
            {
                "model": model.name,
                "experts": model.experts,
                "top_k": self.top_k,
                "layer_map": model.layer_map,
                "ranked": ranked,
                "gate_weight_kind": gate_weight_kind,
                "source": source,
                "licence": licence,
                "has_unrecorded": has_unrecorded,
            },
            origin=str(self.origin),
        )
        return RoutingTrace(
            expert_ids=ids,
            gate_weights=weights,
            sequence_offsets=np.array(self._offsets, dtype=np.int64),
            position=self._position.array(),
            phase=self._phase.array(),
            token_hash=None if self._hashes is None else self._hashes.array(),
            domains=tuple(self._domains),
            datasets=tuple(self._datasets),
            metadata=metadata,
            origin=str(self.origin),
        )

    def _settle_ids(self, model: RecordedModel, report: Report, missing_told: bool) -> tuple[npt.NDArray[Any], bool]:
        """The kept layers' ids in the trace's dtype, and whether any row is unrecorded."""
        dtype = id_dtype(model.experts)
        settled = Spool(dtype, (len(model.kept_layers), self.top_k))
        raw = self._ids.array()
        start = missing = recorded_rows = empty = zeros = repeated = 0
        first_repeat: str | None = None
        for part in _pieces(raw):
            kept = part[:, model.kept_layers, :]
            unrecorded = (kept == RAW_UNRECORDED).all(axis=2)
            empty += int(unrecorded.sum())
            beyond = (kept >= model.experts) & ~unrecorded[:, :, None]
            if beyond.any():
                token, layer, choice = (int(i) for i in np.argwhere(beyond)[0])
                raise ForestageError(
                    f"{self.origin}: token {start + token}, layer {model.layer_map[layer]}: id "
                    f"{int(kept[token, layer, choice])}; {model.name} has experts 0 to {model.experts - 1}"
                    + counted_from_one(
                        self.largest_id(),
                        model.experts,
                        has_first=any(names_first(piece[:, model.kept_layers]) for piece in _pieces(raw)),
                    )
                )
            ordered = np.sort(kept, axis=2)
            doubled = (ordered[:, :, 1:] == ordered[:, :, :-1]).any(axis=2) & ~unrecorded
            nought = doubled & (kept == 0).all(axis=2)
            zeros += int(nought.sum())
            repeated += int(doubled.sum() - nought.sum())
            if first_repeat is None and (doubled & ~nought).any():
                token, layer = (int(i) for i in np.argwhere(doubled & ~nought)[0])
                first_repeat = f"token {start + token}, layer {model.layer_map[layer]}: {kept[token, layer].tolist()}"
            unrecorded |= doubled
            missing += int(unrecorded.sum())
            recorded_rows += int((~unrecorded).sum())
            out = kept.astype(dtype)
            out[unrecorded] = np.iinfo(dtype).max
            settled.append(out)
            start += len(part)
        if empty and not missing_told:
            report.warn(f"{self.origin}: {empty} rows (token, layer) hold only -1; they count as not recorded")
        if zeros:
            report.warn(f"{self.origin}: {zeros} rows (token, layer) hold only zeros; they count as not recorded")
        if repeated:
            report.warn(
                f"{self.origin}: {repeated} rows (token, layer) name an expert twice, which no top-k does; they count "
                f"as not recorded (first: {first_repeat})"
            )
        if not recorded_rows:
            raise ForestageError(f"{self.origin}: no row holds {self.top_k} distinct experts; nothing was recorded")
        return settled.array(), missing > 0

    def _settle_weights(self, model: RecordedModel, ids: npt.NDArray[Any]) -> npt.NDArray[np.float16] | None:
        """The kept layers' weights, 0 in unrecorded rows."""
        if self._weights is None:
            return None
        settled = Spool(np.float16, (len(model.kept_layers), self.top_k))
        start = 0
        for part in _pieces(self._weights.array()):
            kept = part[:, model.kept_layers, :]
            unrecorded = ids[start : start + len(part), :, 0] == np.iinfo(ids.dtype).max
            settled.append(np.where(unrecorded[:, :, None], np.float16(0), kept))
            start += len(part)
        return settled.array()

    def _kind(self, weights: npt.NDArray[np.float16], ids: npt.NDArray[Any]) -> GateWeightKind:
        """What the recorded rows' weights are: the weakest claim that any piece allows."""
        kinds: set[GateWeightKind] = set()
        unrecorded_id = np.iinfo(ids.dtype).max
        for start in range(0, len(weights), CHUNK_TOKENS):
            rows = slice(start, start + CHUNK_TOKENS)
            recorded = ids[rows, :, 0] != unrecorded_id
            if recorded.any():
                kinds.add(weight_kind(weights[rows][recorded]))
        order: tuple[GateWeightKind, ...] = ("unknown", "softmax", "normalised")
        return next((kind for kind in order if kind in kinds), "unknown")


def _raw_ids(ids: npt.NDArray[Any], place: str) -> npt.NDArray[np.uint16]:
    """Ids as u16, a row of −1 as ``RAW_UNRECORDED``."""
    missing = (ids == -1).all(axis=2) if ids.dtype.kind == "i" else np.zeros(ids.shape[:2], dtype=np.bool_)
    bad = ((ids < 0) | (ids >= MAX_EXPERTS)) & ~missing[:, :, None]
    if bad.any():
        token, layer, choice = (int(i) for i in np.argwhere(bad)[0])
        raise ForestageError(
            f"{place}: ids[{token}, {layer}]: {int(ids[token, layer, choice])}; expected 0 to {MAX_EXPERTS - 1}, or a "
            "row of -1 where nothing was recorded"
        )
    return np.where(missing[:, :, None], RAW_UNRECORDED, ids).astype(np.uint16)


def _pieces(array: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """``array`` in views of at most ``CHUNK_TOKENS`` rows."""
    for start in range(0, len(array), CHUNK_TOKENS):
        yield array[start : start + CHUNK_TOKENS]
