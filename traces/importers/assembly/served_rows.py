"""The rows of servers' answers, each counted once.

A server with a prefix cache does not process the tokens that an earlier request left in it, but may return their rows
all the same: vLLM and SGLang keep the rows by the cache's slots, so a later turn of a conversation brings the rows of
the turns before (`cached_tokens` says how many), and each of several texts for one prompt brings the prompt's. Such a
row is *repeated*. It is left out where another answer of the file has it as its own, or had it before; else it is
kept, because nothing else in the file has it, and both are told. A repeated row is known by its position and its ids in
all layers; an answer begins with the first row that is kept, so that its tokens stay neighbours.

Servers do not always say what they found in the cache (vLLM with ``--enable-prompt-tokens-details`` alone). Prompts
that begin with the rows of another answer are then told, though each keeps them.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError
from traces.importers.assembly.builder import CHUNK_TOKENS, TraceBuilder
from traces.importers.assembly.models import recorded_model
from traces.importers.assembly.spool import Spool
from traces.importers.assembly.values import token_identity
from traces.importers.options import ImportOptions
from traces.importers.report import Report
from traces.schema import DECODE, PREFILL
from traces.trace import RoutingTrace

KEY_SEED = 0x0F0E57A6E
"""Of the multipliers that make a row's key."""


TOLD_ROWS = 16
"""The least that vLLM finds in its cache: a block of as many tokens."""


@dataclass(frozen=True, eq=False)
class Answer:
    """The consecutive tokens of one text, as a server returned them.

    Attributes:
        ids: ``[tokens, layers, top_k]``.
        first: position of the first token.
        prompt: length of the prompt.
        repeated: leading rows that this request did not process.
        cached: how many of these rows the server says were in its cache (others repeat a prompt shared in one request).
        tokens: vocabulary indices ``[tokens]``, where known.
        place: in the file, for errors.
        counted: whether the server says how many tokens it had in its cache.
        largest: the largest id that the file's integers can hold.
        dtype: of these integers.
    """

    ids: npt.NDArray[Any]
    first: int
    prompt: int
    repeated: int
    cached: int
    tokens: npt.NDArray[np.int64] | None
    place: str
    counted: bool = False
    largest: int = 2**31 - 1
    dtype: str = ""


@dataclass
class _Kept:
    """What is remembered of an answer once its rows are in the spool."""

    length: int
    first: int
    prompt: int
    repeated: int
    cached: int
    place: str


@dataclass
class ServedRows:
    """Collects the answers of one file or folder.

    Attributes:
        path: what is read.
        options: what the user says.
        dataset: label of sequences for which the user says none.
    """

    path: Path
    options: ImportOptions
    dataset: str
    _answers: list[_Kept] = field(default_factory=list)
    _ids: Spool | None = None
    _keys: Spool = field(default_factory=lambda: Spool(np.uint64))
    _tokens: Spool = field(default_factory=lambda: Spool(np.uint32))
    _unidentified: int = 0
    _narrowest: Answer | None = None
    _multipliers: npt.NDArray[np.uint64] | None = None
    _cache_is_told: bool = False

    @property
    def sequences(self) -> int:
        """Answers given so far."""
        return len(self._answers)

    def append(self, answer: Answer) -> None:
        """Add an answer; one without tokens is left out.

        Raises:
            ForestageError: if its layers or ids a row are others than before.
        """
        if not len(answer.ids):
            return
        shape = answer.ids.shape[1:]
        if self._ids is None or self._multipliers is None:
            self._ids = Spool(np.int32, shape)
            size = int(np.prod(shape)) + 1
            self._multipliers = np.random.Generator(np.random.PCG64(KEY_SEED)).integers(
                0, 2**64, size=size, dtype=np.uint64
            ) | np.uint64(1)
        if shape != self._ids.row_shape:
            raise ForestageError(
                f"{answer.place}: {shape[0]} layers of {shape[1]} ids, but {self._ids.row_shape[0]} of "
                f"{self._ids.row_shape[1]} before; import models one by one"
            )
        for start in range(0, len(answer.ids), CHUNK_TOKENS):
            rows = answer.ids[start : start + CHUNK_TOKENS].astype(np.int32)
            self._ids.append(rows)
            self._keys.append(self._row_keys(rows, answer.first + start))
        if answer.tokens is None:
            self._unidentified += 1
            self._tokens.append(np.zeros(len(answer.ids), np.uint32))
        else:
            self._tokens.append(token_identity(answer.tokens, answer.place))
        if self._narrowest is None or answer.largest < self._narrowest.largest:
            self._narrowest = answer
        repeated = min(answer.repeated, len(answer.ids))
        self._cache_is_told |= answer.counted
        self._answers.append(_Kept(len(answer.ids), answer.first, answer.prompt, repeated, answer.cached, answer.place))

    def finish(self, report: Report, *, source: str, name: str | None) -> RoutingTrace:
        """The trace of every answer given; at least one must have been.

        Args:
            report: takes the warnings.
            source: as in the metadata.
            name: the model's name in the file, if there is one.

        Raises:
            ForestageError: if an id is out of range, or the model is not known.
        """
        assert self._ids is not None
        ids, tokens = self._ids.array(), self._tokens.array()
        identified = self._unidentified == 0
        if not identified and self._unidentified < len(self._answers):
            report.warn(
                f"{self.path}: {self._unidentified} of {len(self._answers)} sequences have no token ids: tokens are "
                "left without identity"
            )
        skipped = self._skipped(report)
        self._tell_same_beginnings(report)
        builder = TraceBuilder(
            self.path, layers=self._ids.row_shape[0], top_k=self._ids.row_shape[1], hashes=identified
        )
        stop = 0
        for answer, skip in zip(self._answers, skipped, strict=True):
            begin, stop = stop + skip, stop + answer.length
            for start in range(begin, stop, CHUNK_TOKENS):
                rows = slice(start, min(start + CHUNK_TOKENS, stop))
                position = answer.first + skip + np.arange(rows.start - begin, rows.stop - begin)
                builder.append(
                    ids[rows],
                    position=position,
                    phase=np.where(position < answer.prompt, PREFILL, DECODE),
                    token_hash=tokens[rows] if identified else None,
                    where=answer.place.removeprefix(str(self.path)).lstrip(": /"),
                )
            builder.end_sequence(self.options.domain or "unlabelled", self.options.dataset or self.dataset)
        model = recorded_model(
            self.options,
            report,
            origin=str(self.path),
            layers=builder.layers,
            top_k=builder.top_k,
            used_layers=builder.used_layers(),
            name=name,
        )
        narrowest = self._narrowest
        if narrowest is not None and narrowest.largest < model.experts - 1:
            raise ForestageError(
                f"{narrowest.place}: ids in {narrowest.dtype}, which cannot hold those of {model.experts} experts "
                f"({model.name}); name the right model with --model, or record with a wider type"
            )
        return builder.finish(model, report, source=source, ranked=False)

    def _row_keys(self, rows: npt.NDArray[np.int32], first: int) -> npt.NDArray[np.uint64]:
        """A key of each row and its position: a sum of products with odd numbers, modulo 2⁶⁴."""
        assert self._multipliers is not None
        flat = rows.reshape(len(rows), -1).astype(np.uint64)
        position = (first + np.arange(len(rows))).astype(np.uint64)
        keys: npt.NDArray[np.uint64] = flat @ self._multipliers[:-1] + position * self._multipliers[-1]
        return keys

    def _skipped(self, report: Report) -> list[int]:
        """How many leading rows of each answer are left out, because they stand elsewhere in the file."""
        if not any(answer.repeated for answer in self._answers):
            return [0] * len(self._answers)
        keys = self._keys.array()
        starts = np.cumsum([0, *(answer.length for answer in self._answers)])
        repeated = np.zeros(len(keys), np.bool_)
        for start, answer in zip(starts.tolist(), self._answers, strict=False):
            repeated[start : start + answer.repeated] = True
        wanted = np.flatnonzero(repeated)
        distinct, first, which = np.unique(keys[wanted], return_index=True, return_inverse=True)
        is_own = np.zeros(len(distinct), np.bool_)
        for begin in range(0, len(keys), CHUNK_TOKENS):
            part = slice(begin, begin + CHUNK_TOKENS)
            own = keys[part][~repeated[part]]
            place = np.minimum(np.searchsorted(distinct, own), len(distinct) - 1)
            is_own[place[distinct[place] == own]] = True
        stands_elsewhere = np.ones(len(wanted), np.bool_)
        stands_elsewhere[first] = False
        stands_elsewhere |= is_own[which.reshape(-1)]
        skipped, shared, gone, kept = [], 0, 0, 0
        stop = 0
        for answer in self._answers:
            found = stands_elsewhere[stop : stop + answer.repeated]
            stop += answer.repeated
            skip = len(found) if found.all() else int(np.argmin(found))
            skipped.append(skip)
            from_cache = min(answer.cached, answer.repeated)
            gone += min(skip, from_cache)
            shared += skip - min(skip, from_cache)
            kept += max(from_cache - skip, 0)
        self._tell(report, gone, shared, kept)
        return skipped

    def _tell_same_beginnings(self, report: Report) -> None:
        """Warn of prompts that begin with the rows of another answer, where no answer says what was in the cache.

        (A server that says so may leave the number out where it is 0.)
        """
        if self._cache_is_told or len(self._answers) < 2:
            return
        keys = self._keys.array()
        _, first = np.unique(keys, return_index=True)
        came_before = np.ones(len(keys), np.bool_)
        came_before[first] = False
        stop = sequences = tokens = 0
        for answer in self._answers:
            start, stop = stop, stop + answer.length
            prompt = came_before[start : min(stop, start + max(0, answer.prompt - answer.first))]
            same = len(prompt) if prompt.all() else int(np.argmin(prompt))
            if same >= TOLD_ROWS and not answer.repeated:
                sequences += 1
                tokens += same
        if sequences:
            report.warn(
                f"{self.path}: {sequences} prompts begin with the rows of another answer ({tokens} tokens in all) and "
                "count them again: where the server found them in its cache, they were processed once alone (vLLM says "
                "so with --enable-prompt-tokens-details)"
            )

    def _tell(self, report: Report, gone: int, shared: int, kept: int) -> None:
        """Warn of rows that were not processed where they stand."""
        if gone:
            report.warn(
                f"{self.path}: {gone} cached tokens have their rows in another answer of the file too: left out where "
                "they were not processed, so that each counts once"
            )
        if shared:
            report.warn(
                f"{self.path}: {shared} rows of prompts are repeated for each of a request's texts; they count once"
            )
        if kept:
            report.warn(
                f"{self.path}: {kept} cached tokens have rows that no other answer of the file has: kept, though an "
                "earlier request processed them"
            )
