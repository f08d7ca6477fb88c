"""Waves of the whole engine: of every cycle and of the parts inside."""

from pathlib import Path
from typing import NamedTuple

import pytest

from catalog.errors import ForestageError
from cocotb_tests.prefetch_engine.replay import replay_engine
from cocotb_tests.prefetch_engine.run import build_bench
from predictor.engine.settings import Mode
from tests.cocotb_tests.prefetch_engine.small_engines import SMALL, Model, replay_of, skip_without_tools

MODEL = Model()
PERIOD_PS = 2000
PS = {"ps": 1, "ns": 1000}


class Waves(NamedTuple):
    """Of a file of waves: names of its scopes, how many signals, when it ends, rising edges of the top's clock."""

    scopes: set[str]
    signals: int
    last_ps: int
    rises: int


def read(path: Path) -> Waves:
    """Read a VCD (IEEE 1364); pyvcd's reader refuses Verilator's, whose outermost scope is ``$rootio``."""
    scopes: set[str] = set()
    signals = last = rises = 0
    unit, clock = 0, ""
    with path.open() as file:
        for line in file:
            match line.split():
                case ["$timescale", scale, "$end"]:
                    unit = PS[scale.lstrip("0123456789")] * int(scale.rstrip("nps"))
                case ["$scope", "module", name, "$end"]:
                    scopes.add(name)
                case ["$var", _, _, code, name, *_]:
                    signals += 1
                    clock = clock or (code if name == "clk" else "")
                case [word] if word.startswith("#"):
                    last = int(word[1:])
                case [word] if word == f"1{clock}":
                    rises += 1
    return Waves(scopes, signals, last * unit, rises)


@pytest.mark.long  # its build takes a minute or more
def test_waves_are_of_every_cycle_and_of_the_parts_inside(tmp_path: Path) -> None:
    skip_without_tools()
    path = tmp_path / "engine.vcd"
    limits = SMALL.model_copy(update={"learned": False})
    result = replay_engine(
        replay_of(limits=limits, settings=MODEL.settings(Mode.OFF), events=MODEL.random_events(8, 1)), waves=path
    )
    assert result.mismatches == 0, result.first_mismatch
    found = read(path)
    assert found.rises > result.cycles
    assert found.last_ps == pytest.approx(found.rises * PERIOD_PS, abs=2 * PERIOD_PS)
    assert {"bench", "engine", "core", "stager", "far_memory"} <= found.scopes
    assert found.signals > 1000


def test_a_name_that_says_no_format_is_refused_at_once(tmp_path: Path) -> None:
    skip_without_tools()
    with pytest.raises(ForestageError, match=r"give a name that ends in \.vcd or \.fst"):
        build_bench(SMALL, waves=tmp_path / "engine.waves")
