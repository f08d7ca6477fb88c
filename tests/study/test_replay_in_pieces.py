"""``forestage rtl replay --pieces``: what all pieces share is made once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cocotb_tests.prefetch_engine import trace_replay
from predictor.st_moe.tables import StMoeTables
from study.engine.replays import read_replays
from tests.study.conftest import Outcome

RECORD = next(iter(read_replays(Path(__file__).parents[2] / "records" / "replays").values()))


def test_tables_are_profiled_once_for_all_pieces(
    forestage: Callable[..., Outcome], small_trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The simulation is left out: a committed result stands for each piece's."""
    profiled: list[StMoeTables] = []
    given: list[StMoeTables] = []
    original = trace_replay.profiled_tables

    def profiled_tables(*arguments: Any) -> StMoeTables:
        profiled.append(original(*arguments))
        return profiled[-1]

    def replay_trace(_: object, tokens: int, *__: object, tables: StMoeTables, **___: object) -> Any:
        given.append(tables)
        return RECORD.model_copy(update={"tokens": tokens})

    monkeypatch.setattr(trace_replay, "profiled_tables", profiled_tables)
    monkeypatch.setattr(trace_replay, "replay_trace", replay_trace)
    done = forestage(
        *("rtl", "replay", "--trace", small_trace, "--mode", "tables", "--tokens", 6),
        *("--pieces", tmp_path / "pieces", "--piece-tokens", 2),
    )
    assert done.status == int(RECORD.mismatches > 0), done.err
    assert len(profiled) == 1
    assert len(given) == 3
    assert all(tables is profiled[0] for tables in given)
