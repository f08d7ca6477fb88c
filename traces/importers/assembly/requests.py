"""Whose tokens are whose, in a recording of forward passes that names no requests.

What is used, all of it how SGLang's scheduler works (source: its ``ForwardMode`` and recorder, sgl-project/sglang):

* an *extend* pass prefills; ``extend_seq_lens`` tells how many consecutive tokens each request has in it. One that
  begins at position 0 is a new request; one that begins where a prefill of the passes just before has ended is the next
  piece of that prefill (of several that ended there, nothing tells which); any other is a new request whose beginning
  was found in the prefix cache. A warning counts either;
* a *decode* pass has one token of each running request; a request without one has ended. A token belongs to the
  request that ended one position before it. Where several ended there and as many tokens have that position, they are
  paired in the order of the batch, which the scheduler keeps (a warning counts them); where the numbers differ, nothing
  tells which went on: those tokens begin new sequences, so that no sequence is wrong (a warning counts them too);
* a *mixed* pass is an extend pass in which running requests take part with one token each (a prefill whose next piece
  is a single token is taken for one of them);
* an *idle* pass has no tokens of a request.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError
from traces.importers.report import Report
from traces.schema import DECODE, PREFILL

MODES = {1: "extend", 2: "decode", 3: "mixed", 4: "idle"}
"""``forward_mode`` as recorded; the values above are of speculative decoding, disaggregation and the like."""


@dataclass(frozen=True, eq=False)
class ForwardPass:
    """The tokens of a forward pass, in the order of the batch.

    Attributes:
        place: file and record, for errors.
        mode: a value of ``MODES``.
        positions, input_ids: i64 ``[tokens]``.
        lengths: i64 ``[requests]``, tokens of each, in extend and mixed passes.
    """

    place: str
    mode: str
    positions: npt.NDArray[np.int64]
    input_ids: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64] | None

    @classmethod
    def joined(cls, parts: Sequence[Self], place: str) -> Self:
        """One pass of several parts (two half batches run in turns).

        Raises:
            ForestageError: if the parts are of different modes.
        """
        parts = [part for part in parts if part.mode != "idle"] or parts
        if len({part.mode for part in parts}) > 1:
            raise ForestageError(f"{place}: forward_mode: differs within forward pass")
        lengths = [part.lengths for part in parts if part.lengths is not None]
        return cls(
            place,
            parts[0].mode,
            np.concatenate([part.positions for part in parts]),
            np.concatenate([part.input_ids for part in parts]),
            np.concatenate(lengths) if lengths else None,
        )


@dataclass
class _Request:
    """A request that may go on: its number, the position after its last token, and whether it has begun to decode."""

    number: int
    following: int
    decoding: bool


@dataclass
class RequestChains:
    """Gives the tokens of one rank's passes, in their order, to requests numbered from ``requests`` on.

    Attributes:
        requests: the next new request's number.
        phase: u8 ``[tokens]`` of the pass given last.
    """

    requests: int
    phase: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    _live: list[_Request] = field(default_factory=list)
    _paired: int = 0
    _broken: int = 0
    _unbegun: int = 0
    _split: int = 0
    _cached: int = 0
    _cached_tokens: int = 0

    def assign(self, forward: ForwardPass) -> npt.NDArray[np.int32]:
        """i32 ``[tokens]``: the request of each token of the next pass.

        Raises:
            ForestageError: if a request's positions in an extend pass are not consecutive, or an idle pass has tokens.
        """
        if forward.mode == "idle" and len(forward.positions):
            raise ForestageError(f"{forward.place}: an idle pass with {len(forward.positions)} tokens")
        if not len(forward.positions):
            self.phase = np.zeros(0, np.uint8)
            return np.zeros(0, np.int32)
        if forward.mode == "decode":
            self.phase = np.full(len(forward.positions), DECODE, np.uint8)
            return self._decode(forward.positions, self._live)
        return self._extend(forward)

    def tell(self, path: Path, report: Report) -> None:
        """Warn of what rests on the order of the batch, and of sequences broken off or without their beginning."""
        if self._cached:
            report.warn(
                f"{path}: {self._cached_tokens} cached tokens at the beginning of {self._cached} requests have no "
                "rows: positions begin after them"
            )
        if self._split:
            report.warn(
                f"{path}: {self._split} prefills go on where several requests stand, and begin sequences of their own: "
                "nothing tells whose they are"
            )
        if self._paired:
            report.warn(
                f"{path}: {self._paired} decode tokens were given to requests of the same length by their order in the "
                "batch; the file names no requests"
            )
        if self._broken:
            report.warn(
                f"{path}: {self._broken} decode tokens begin sequences of their own: nothing tells which of several "
                "requests of the same length went on"
            )
        if self._unbegun:
            report.warn(
                f"{path}: {self._unbegun} decode tokens go on from a position where no request ended: what came before "
                "was not recorded, and each begins a sequence"
            )

    def _new(self, following: int, *, decoding: bool) -> _Request:
        """A new request."""
        self.requests += 1
        return _Request(self.requests - 1, following, decoding)

    def _extend(self, forward: ForwardPass) -> npt.NDArray[np.int32]:
        """Requests of an extend or mixed pass."""
        assert forward.lengths is not None
        numbers = np.zeros(len(forward.positions), np.int32)
        self.phase = np.full(len(forward.positions), PREFILL, np.uint8)
        before = list(self._live)
        prefilled: list[_Request] = []
        running: list[int] = []
        stop = 0
        for length in forward.lengths.tolist():
            tokens = slice(stop, stop + length)
            stop += length
            if not length:
                continue
            positions = forward.positions[tokens]
            if np.any(np.diff(positions) != 1):
                raise ForestageError(f"{forward.place}: positions: a request's must be consecutive in an extend pass")
            first, following = int(positions[0]), int(positions[-1]) + 1
            at_end = [request for request in before if request.following == first]
            if forward.mode == "mixed" and length == 1 and at_end:
                running.append(tokens.start)
                continue
            pieces = [request for request in at_end if not request.decoding]
            if len(pieces) == 1:
                before.remove(pieces[0])
                request = pieces[0]
                request.following = following
            else:
                request = self._new(following, decoding=False)
                self._split += len(pieces) > 1
                self._cached += first > 0 and not pieces
                self._cached_tokens += 0 if pieces else first
            prefilled.append(request)
            numbers[tokens] = request.number
        if running:
            self.phase[running] = DECODE
            numbers[running] = self._decode(forward.positions[running], before)
            before = self._live
        # The scheduler runs what was prefilled last after what was running.
        self._live = [*before, *prefilled]
        return numbers

    def _decode(self, positions: npt.NDArray[np.int64], live: list[_Request]) -> npt.NDArray[np.int32]:
        """Requests of tokens, one each, of the ``live`` ones; what has no token has ended."""
        waiting: dict[int, list[_Request]] = {}
        for request in live:
            waiting.setdefault(request.following, []).append(request)
        rows_at: dict[int, list[int]] = {}
        for row, position in enumerate(positions.tolist()):
            rows_at.setdefault(position, []).append(row)
        by_row: dict[int, _Request] = {}
        for position, rows in rows_at.items():
            candidates = waiting.get(position, [])
            if len(candidates) == len(rows):
                self._paired += len(rows) if len(rows) > 1 else 0
                by_row.update(zip(rows, candidates, strict=True))
            else:
                self._broken += len(rows) if candidates else 0
                self._unbegun += 0 if candidates else len(rows)
                by_row.update((row, self._new(position, decoding=True)) for row in rows)
        # Kept in the order of the batch, which the next pass keeps too.
        self._live = [by_row[row] for row in range(len(positions))]
        for request, position in zip(self._live, positions.tolist(), strict=True):
            request.following, request.decoding = position + 1, True
        return np.array([request.number for request in self._live], np.int32)
