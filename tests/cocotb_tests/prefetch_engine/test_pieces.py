"""A long replay in pieces goes on where it was interrupted, and mixes no two runs."""

from pathlib import Path

import pytest

from catalog.errors import ForestageError
from catalog.progress import Progress
from cocotb_tests.prefetch_engine.pieces import replay_pieces
from cocotb_tests.prefetch_engine.trace_replay import TraceReplayResult
from study.engine.replays import read_replays

RECORD = next(iter(read_replays(Path(__file__).parents[3] / "records" / "replays").values()))
INPUTS = {"trace": "a", "config": "b"}


class Replays:
    """Stands for the simulation: a committed result, of as many tokens as are asked for."""

    def __init__(self, *, stop_at: int | None = None, differs_at: int | None = None) -> None:
        self.asked: list[tuple[int, int]] = []
        self._stop_at, self._differs_at = stop_at, differs_at

    def __call__(self, first: int, last: int, progress: Progress | None) -> TraceReplayResult:
        if first == self._stop_at:
            raise KeyboardInterrupt
        self.asked.append((first, last))
        if progress is not None:
            progress(1, 2)
        differs = first == self._differs_at
        return RECORD.model_copy(
            update={
                "tokens": last - first,
                "steps": 10 * (last - first),
                "mismatches": int(differs),
                "first_mismatch": f"in {first}" if differs else "",
            }
        )


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    broken, after = Replays(stop_at=8), Replays()
    with pytest.raises(KeyboardInterrupt):
        replay_pieces(broken, 10, 4, tmp_path, INPUTS)
    result = replay_pieces(after, 10, 4, tmp_path, INPUTS)
    assert (broken.asked, after.asked) == ([(0, 4), (4, 8)], [(8, 10)])
    assert (result.pieces, result.kept, result.tokens, result.steps) == (3, 2, 10, 100)
    assert result.cycles == 3 * RECORD.cycles
    assert result.compared == {what: 3 * count for what, count in RECORD.compared.items()}


def test_more_tokens_of_the_same_run_go_on_behind_it(tmp_path: Path) -> None:
    replay_pieces(Replays(), 10, 4, tmp_path, INPUTS)
    more = Replays()
    assert replay_pieces(more, 16, 4, tmp_path, INPUTS).tokens == 16
    assert more.asked == [(8, 12), (12, 16)]  # the last piece was a shorter one


def test_a_difference_is_kept_and_told(tmp_path: Path) -> None:
    for _ in range(2):
        result = replay_pieces(Replays(differs_at=4), 12, 4, tmp_path, INPUTS)
        assert (result.mismatches, result.first_mismatch) == (1, "in 4")


def test_progress_is_in_tokens(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    replay_pieces(Replays(), 10, 4, tmp_path, INPUTS, progress=lambda done, of: told.append((done, of)))
    assert told == [(2, 10), (4, 10), (6, 10), (8, 10), (9, 10), (10, 10)]


def test_pieces_of_another_run_are_refused(tmp_path: Path) -> None:
    replay_pieces(Replays(), 8, 4, tmp_path, INPUTS)
    with pytest.raises(ForestageError, match=r"has pieces of another run \(config differ\); give another folder"):
        replay_pieces(Replays(), 8, 4, tmp_path, {**INPUTS, "config": "c"})
    with pytest.raises(ForestageError, match="piece_tokens differ"):
        replay_pieces(Replays(), 8, 2, tmp_path, INPUTS)
    (tmp_path / "run.json").unlink()
    with pytest.raises(ForestageError, match=r"has pieces, and no run\.json"):
        replay_pieces(Replays(), 8, 4, tmp_path, INPUTS)


def test_a_file_that_is_no_piece_is_refused(tmp_path: Path) -> None:
    replay_pieces(Replays(), 8, 4, tmp_path, INPUTS)
    (tmp_path / "piece-000000004.json").write_text("{}")
    with pytest.raises(ForestageError, match=r"piece-000000004\.json: is no piece of a replay; remove it"):
        replay_pieces(Replays(), 8, 4, tmp_path, INPUTS)


@pytest.mark.parametrize(("tokens", "piece"), [(0, 4), (4, 0)])
def test_no_tokens_are_refused(tmp_path: Path, tokens: int, piece: int) -> None:
    with pytest.raises(ForestageError, match="give 1 or more of each"):
        replay_pieces(Replays(), tokens, piece, tmp_path, INPUTS)
    assert not list(tmp_path.iterdir())
