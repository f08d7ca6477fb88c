"""Waves of the whole engine: of every cycle and of the parts inside."""

from pathlib import Path

import pytest
from vcd.reader import TokenKind, tokenize

from catalog.errors import ForestageError
from cocotb_tests.prefetch_engine.replay import replay_engine
from cocotb_tests.prefetch_engine.run import build_bench
from predictor.engine.settings import Mode
from tests.cocotb_tests.prefetch_engine.small_engines import SMALL, Model, replay_of, skip_without_tools

MODEL = Model()
PERIOD_NS = 2
PS = {"ps": 1, "ns": 1000}


@pytest.mark.long  # its build takes a minute or more
def test_waves_are_of_every_cycle_and_of_the_parts_inside(tmp_path: Path) -> None:
    skip_without_tools()
    path = tmp_path / "engine.vcd"
    limits = SMALL.model_copy(update={"learned": False})
    result = replay_engine(
        replay_of(limits=limits, settings=MODEL.settings(Mode.OFF), events=MODEL.random_events(8, 1)), waves=path
    )
    assert result.mismatches == 0, result.first_mismatch
    scopes, signals, last, unit = set(), 0, 0, 0
    clock, rises = "", 0
    with path.open("rb") as file:
        for token in tokenize(file):
            if token.kind is TokenKind.TIMESCALE:
                unit = token.timescale.magnitude.value * PS[token.timescale.unit.value]
            elif token.kind is TokenKind.SCOPE:
                scopes.add(token.scope.ident)
            elif token.kind is TokenKind.VAR:
                signals += 1
                clock = clock or (token.var.id_code if token.var.reference == "clk" else "")
            elif token.kind is TokenKind.CHANGE_TIME:
                last = token.time_change
            elif token.kind is TokenKind.CHANGE_SCALAR and token.scalar_change.id_code == clock:
                rises += token.scalar_change.value == "1"
    assert rises > result.cycles
    assert last * unit == pytest.approx(rises * PERIOD_NS * 1000, abs=2 * PERIOD_NS * 1000)
    assert {"bench", "engine", "core", "stager", "far_memory"} <= scopes
    assert signals > 1000


def test_a_name_that_says_no_format_is_refused_at_once(tmp_path: Path) -> None:
    skip_without_tools()
    with pytest.raises(ForestageError, match=r"give a name that ends in \.vcd or \.fst"):
        build_bench(SMALL, waves=tmp_path / "engine.waves")
