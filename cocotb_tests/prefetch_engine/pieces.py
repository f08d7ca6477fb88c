"""A long replay in pieces: each is kept as soon as it is done, so that an interrupted run goes on where it stopped."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import ValidationError

from catalog.errors import ForestageError
from catalog.files import atomic_path
from catalog.progress import Progress
from cocotb_tests.prefetch_engine.coverage import sources
from cocotb_tests.prefetch_engine.replay import ComparedRun
from cocotb_tests.prefetch_engine.trace_replay import TraceReplayResult

_RUN = "run.json"


class PiecesResult(ComparedRun):
    """All pieces together: what they have in common, and sums.

    Attributes:
        model: whose routing it is.
        pieces: how many; ``kept`` of them were there before.
        tokens, steps: replayed.
        tokens_per_s: simulated, comparison aside; ``checked_share`` of that speed is left with it.
    """

    model: str
    pieces: int
    kept: int
    tokens: int
    steps: int
    tokens_per_s: float
    checked_share: float


def replay_pieces(
    replay: Callable[[int, int, Progress | None], TraceReplayResult],
    tokens: int,
    piece_tokens: int,
    folder: Path,
    inputs: Mapping[str, str],
    *,
    progress: Progress | None = None,
) -> PiecesResult:
    """Replay ``tokens`` tokens, ``piece_tokens`` at a time, each from a reset; what the folder has already is kept.

    Args:
        replay: replays the tokens [first, last) and calls with (events done, events in all).
        tokens: in all.
        piece_tokens: of a piece; the last may be shorter.
        folder: ``piece-FIRST.json`` for each piece, and what the run is of.
        inputs: what the run is of: trace, predictors, configuration. The sources are always part of it.
        progress: called with (tokens done, tokens in all).

    Raises:
        ForestageError: the folder has pieces of another run, or cannot be read or written.
    """
    if piece_tokens < 1 or tokens < 1:
        raise ForestageError(f"pieces: {tokens} tokens, {piece_tokens} a piece: give 1 or more of each")
    _claim(folder, {**inputs, "piece_tokens": str(piece_tokens), "sources": sources()})
    found, kept = [], 0
    for first in range(0, tokens, piece_tokens):
        last = min(first + piece_tokens, tokens)
        path = folder / f"piece-{first:09d}.json"
        result = _read(path)
        if result is None or result.tokens != last - first:
            result = replay(first, last, _within(progress, first, last, tokens))
            with atomic_path(path) as temporary:
                temporary.write_text(result.model_dump_json(indent=1) + "\n", encoding="utf-8")
        else:
            kept += 1
        found.append(result)
        if progress is not None:
            progress(last, tokens)
    return _sum(found, kept)


def _within(progress: Progress | None, first: int, last: int, tokens: int) -> Progress | None:
    """The progress of the tokens [first, last), told as that of all."""
    if progress is None:
        return None
    return lambda done, of: progress(first + (last - first) * done // max(of, 1), tokens)


def _claim(folder: Path, of: Mapping[str, str]) -> None:
    """The folder is of this run, or of none yet.

    Raises:
        ForestageError: it is of another.
    """
    path = folder / _RUN
    if path.exists():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ForestageError(f"{path}: cannot be read ({error}); give another folder") from error
        if before != dict(of):
            differs = sorted(name for name in {*before, *of} if before.get(name) != of.get(name))
            raise ForestageError(
                f"{folder}: has pieces of another run ({', '.join(differs)} differ); give another folder"
            )
        return
    if any(folder.glob("piece-*.json")):
        raise ForestageError(f"{folder}: has pieces, and no {_RUN} that says of what; give another folder")
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(dict(of), indent=1) + "\n", encoding="utf-8")


def _read(path: Path) -> TraceReplayResult | None:
    """A piece that was done before; ``None`` where it was not.

    Raises:
        ForestageError: the file is something else.
    """
    if not path.exists():
        return None
    try:
        return TraceReplayResult.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ForestageError(f"{path}: is no piece of a replay; remove it") from error


def _sum(pieces: list[TraceReplayResult], kept: int) -> PiecesResult:
    compared: dict[str, int] = {}
    for piece in pieces:
        for what, count in piece.compared.items():
            compared[what] = compared.get(what, 0) + count
    running_s, checked_s = sum(piece.running_s for piece in pieces), sum(piece.checked_s for piece in pieces)
    tokens = sum(piece.tokens for piece in pieces)
    return PiecesResult(
        model=pieces[0].model,
        mode=pieces[0].mode,
        pieces=len(pieces),
        kept=kept,
        tokens=tokens,
        steps=sum(piece.steps for piece in pieces),
        events=sum(piece.events for piece in pieces),
        commands=sum(piece.commands for piece in pieces),
        start_cycles=pieces[0].start_cycles,
        compared=compared,
        mismatches=sum(piece.mismatches for piece in pieces),
        first_mismatch=next((piece.first_mismatch for piece in pieces if piece.first_mismatch), ""),
        breaches=sum(piece.breaches for piece in pieces),
        cycles=sum(piece.cycles for piece in pieces),
        running_s=running_s,
        checked_s=checked_s,
        tokens_per_s=tokens / running_s,
        checked_share=running_s / checked_s,
    )
