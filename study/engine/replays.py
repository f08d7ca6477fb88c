"""Committed records of the whole engine's replays: what ``forestage rtl replay --json`` printed."""

from pathlib import Path

from pydantic import ValidationError

from catalog.config import describe_validation_error
from catalog.errors import ForestageError
from cocotb_tests.prefetch_engine.trace_replay import TraceReplayResult


def read_replays(folder: Path) -> dict[str, TraceReplayResult]:
    """By name, all records ``*.json`` of a folder, in order of name; none where there is no such folder.

    Raises:
        ForestageError: a file cannot be read, or is no such document.
    """
    found = {}
    for path in sorted(folder.glob("*.json")):
        try:
            found[path.stem] = TraceReplayResult.model_validate_json(path.read_bytes())
        except OSError as error:
            raise ForestageError(f"{path}: cannot read the record ({error.strerror}); write it anew") from error
        except ValidationError as error:
            raise ForestageError(
                f"{path}: no document of a replay: {describe_validation_error(TraceReplayResult, error)}; write it "
                "anew with `forestage rtl replay --json`"
            ) from error
    return found
