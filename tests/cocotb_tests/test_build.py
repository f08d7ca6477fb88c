"""The Verilator infrastructure, on a counter: build, cache, run, and every way to fail."""

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cocotb_tools", reason="needs the extra 'hardware'")

from catalog.errors import ForestageError
from catalog.user_cache import UNUSED_DAYS
from cocotb_tests import build as build_module
from cocotb_tests import build_cache
from cocotb_tests.build import BuildOptions, BuiltModel, build, build_recipe, require_fst
from cocotb_tests.simulation import SimulationError, run

COUNTER = """
module counter(input clk, input rst, input [7:0] step, output reg [7:0] count);
  wire [7:0] hidden = count ^ 8'h55;
  inner inner(.clk(clk), .value(count));
  kept kept(.clk(clk), .value(count));
  always @(posedge clk) if (rst) count <= 0; else count <= count + step;
endmodule
module inner(input clk, input [7:0] value);
  reg [7:0] previous;
  always @(posedge clk) previous <= value;
endmodule
module kept(input clk, input [7:0] value);
  reg [7:0] previous, older;
  always @(posedge clk) begin previous <= value; older <= previous; end
endmodule
"""

PUBLIC = [("inner", "value"), ("kept", "prev*")]

BENCH = """
import os, random, signal
import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from cocotb_tests import exchange

async def count_up(dut, steps):
    Clock(dut.clk, 1, unit="ns").start()
    dut.rst.value = 1
    await RisingEdge(dut.clk)
    dut.rst.value = 0
    seen = []
    for step in steps:
        dut.step.value = int(step)
        await RisingEdge(dut.clk)
        seen.append(dut.count.value.to_unsigned())
        exchange.report_progress(len(seen))
    return seen

@cocotb.test()
async def counts(dut):
    stimulus = exchange.read_stimulus()
    seen = await count_up(dut, stimulus["steps"])
    exchange.write_results({"seen": np.array(seen), "label": stimulus["label"], "random": random.random()})

@cocotb.test()
async def visible_signals(dut):
    paths = {"hidden": dut, "inner.previous": dut.inner, "kept.previous": dut.kept, "kept.older": dut.kept}
    exchange.write_results({path: hasattr(module, path.split(".")[-1]) for path, module in paths.items()})

@cocotb.test()
async def wrong(dut):
    assert (await count_up(dut, [1]))[0] == 77, "the count is not 77"

@cocotb.test()
async def crash(dut):
    print("about to crash", flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)

@cocotb.test()
async def endless(dut):
    await count_up(dut, iter(int, 1))
"""


@pytest.fixture(scope="module")
def model() -> BuiltModel:
    return build(COUNTER, "counter", BuildOptions(public=PUBLIC))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An importable test module; the simulator sees the same sys.path."""
    (tmp_path / "counter_bench.py").write_text(BENCH)
    monkeypatch.syspath_prepend(tmp_path)
    return "counter_bench"


def test_run_hands_over_stimulus_results_and_progress(model: BuiltModel, bench: str) -> None:
    progress: list[int] = []
    stimulus = {"steps": np.array([3, 5, 250], np.uint8), "label": "α"}
    result, other = (
        run(model, bench, tests=["counts"], stimulus=stimulus, seed=seed, progress=progress.append) for seed in (9, 10)
    )
    assert result.values["seen"].tolist() == [0, 3, 8]
    assert result.values["label"] == "α"
    assert result.values["random"] != other.values["random"]
    assert [name.rsplit(".")[-1] for name in result.tests] == ["counts"]
    assert progress[-1] == 3


def test_only_the_top_modules_signals_and_those_asked_for_are_kept(model: BuiltModel, bench: str) -> None:
    visible = {"hidden": True, "inner.previous": False, "kept.previous": True, "kept.older": False}
    assert run(model, bench, tests=["visible_signals"]).values == visible


@pytest.mark.parametrize(
    ("test", "options", "message"),
    [
        ("wrong", {}, "the count is not 77"),
        ("crash", {}, r"signal 11(.|\n)*about to crash"),
        ("endless", {"timeout_s": 1.0}, "longer than 1 s"),
        ("absent", {}, "no"),
    ],
)
def test_a_failed_run_raises_with_its_last_lines(
    model: BuiltModel,
    bench: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    test: str,
    options: dict[str, float],
    message: str,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(SimulationError, match=message):
        run(model, bench, tests=[test], **options)
    assert not list(tmp_path.glob("forestage-run-*"))


def test_waves_need_a_model_built_for_them(model: BuiltModel, bench: str, tmp_path: Path) -> None:
    with pytest.raises(ForestageError, match="trace_waves=True"):
        run(model, bench, waves=tmp_path / "none.vcd")


@pytest.mark.long  # compiles Verilator's library once more, with tracing
def test_waves_are_written_on_request(bench: str, tmp_path: Path) -> None:
    traced = build(COUNTER, "counter", BuildOptions(public=PUBLIC, trace_waves=True))
    run(traced, bench, tests=["visible_signals"], waves=tmp_path / "counter.vcd")
    assert "$var" in (tmp_path / "counter.vcd").read_text()
    with pytest.raises(SimulationError, match="wrong failed"):
        run(traced, bench, tests=["wrong"], waves=tmp_path / "wrong.vcd")
    assert "$var" in (tmp_path / "wrong.vcd").read_text()


def test_a_build_is_found_again(model: BuiltModel) -> None:
    again = build(COUNTER, "counter", BuildOptions(public=PUBLIC))
    assert again.cached
    assert again.executable == model.executable


def test_everything_that_shapes_a_build_is_in_its_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "counter.v"
    file.write_text(COUNTER)
    assert build_recipe(file, "counter").key == build_recipe(COUNTER, "counter").key
    recipes = [
        build_recipe(COUNTER, "counter"),
        build_recipe(COUNTER + "// changed\n", "counter"),
        build_recipe(COUNTER, "inner"),
        build_recipe(COUNTER, "counter", BuildOptions(trace_waves=True)),
        build_recipe(COUNTER, "counter", BuildOptions(public=[("inner", "value")])),
        build_recipe(COUNTER, "counter", BuildOptions(lint_off=["LATCH"])),
        build_recipe(COUNTER, "counter", BuildOptions(verilator_arguments=["-O1"])),
    ]
    monkeypatch.setenv("CXXFLAGS", "-O1")
    recipes.append(build_recipe(COUNTER, "counter"))
    assert len({recipe.key for recipe in recipes}) == len(recipes)


def test_two_processes_build_once(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import time
        from cocotb_tests import build_cache

        def make(folder):
            folder.mkdir()
            time.sleep(1)
            (folder / build_cache.MANIFEST).touch()

        print(build_cache.obtain("key", make)[1])
    """)
    environment = {**os.environ, "FORESTAGE_CACHE": str(tmp_path)}
    processes = [
        subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert sorted(process.communicate()[0].strip() for process in processes) == ["False", "True", "True"]
    assert sorted(path.name for path in (tmp_path / "verilator").iterdir()) == ["key", "key.lock"]


def test_refused_verilog_is_an_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORESTAGE_CACHE", str(tmp_path))
    with pytest.raises(ForestageError, match=r"verilator_bin failed(.|\n)*syntax error"):
        build("module broken(input clk; endmodule", "broken")
    # A latch is a warning of a class that is not off.
    latch = "module latch(input a, input b, output reg c); always @(*) if (a) c = b; endmodule"
    with pytest.raises(ForestageError, match="LATCH"):
        build(latch, "latch")
    assert {path.suffix for path in (tmp_path / "verilator").iterdir()} == {".lock"}


def test_missing_tools_are_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ForestageError, match=r"^g\+\+ not found: [^\n]*$"):
        build(COUNTER, "counter")


def test_a_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(build_module, "import_module", absent)
    with pytest.raises(ForestageError, match=r"^[^\n]*pip install 'forestage\[hardware\]'$"):
        build(COUNTER, "counter")


def test_an_unreadable_file_and_an_unwritable_cache_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_file: Callable[[], Path]
) -> None:
    with pytest.raises(ForestageError, match=r"absent\.v: cannot read"):
        build(tmp_path / "absent.v", "counter")
    monkeypatch.setenv("FORESTAGE_CACHE", str(make_file()))
    with pytest.raises(ForestageError, match="set FORESTAGE_CACHE"):
        build(COUNTER, "counter")


@pytest.fixture
def make_file(tmp_path: Path) -> Callable[[], Path]:
    """A file where a folder is wanted: root may write anywhere else."""

    def make() -> Path:
        path = tmp_path / "file"
        path.touch()
        return path

    return make


def test_models_long_unused_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORESTAGE_CACHE", str(tmp_path))

    def make(folder: Path) -> None:
        folder.mkdir()
        (folder / build_cache.MANIFEST).touch()

    old, _ = build_cache.obtain("old", make)
    used, _ = build_cache.obtain("used", make)
    long_ago = time.time() - (UNUSED_DAYS + 1) * 86400
    for folder in (old, used):
        os.utime(folder / build_cache.MANIFEST, (long_ago, long_ago))
    assert build_cache.obtain("used", make) == (used, True)
    new, found = build_cache.obtain("new", make)
    assert not found
    assert new.exists()
    assert used.exists()
    assert not old.exists()


def test_objects_of_the_library_are_kept_once_and_taken_from_then_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORESTAGE_CACHE", str(tmp_path / "cache"))
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    for folder, content in ((first, "1"), (second, "2"), (third, "")):
        folder.mkdir()
        if content:
            (folder / "verilated.o").write_text(content)
            (folder / "Vtop.o").write_text(content)
    build_cache.take_library(third, "library-1")
    assert not list(third.iterdir())
    shared = build_cache.cache_folder() / "library-1"
    for folder in (first, second):
        build_cache.keep_library(folder, "library-1")
        assert [(path.name, path.read_text()) for path in shared.iterdir()] == [("verilated.o", "1")]
    assert [path.name for path in shared.parent.iterdir()] == ["library-1"]
    build_cache.take_library(third, "library-1")
    assert [(path.name, path.read_text()) for path in third.iterdir()] == [("verilated.o", "1")]


def test_what_waves_in_fst_lack_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(ForestageError, match=r"lz4\.h not found: waves in FST .* \(Debian: liblz4-dev\)"):
        require_fst()
