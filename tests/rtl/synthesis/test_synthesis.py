"""What a synthesis counts, on circuits whose figures are known by hand; its records and how they compare."""

from dataclasses import replace
from pathlib import Path

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from catalog.errors import ForestageError
from predictor.st_moe.parameters import EngineLimits
from rtl.prefetch.net.scores.best import BestExperts
from rtl.ram import Ram
from rtl.synthesis import synthesise as module
from rtl.synthesis.cells import map_to_cells, timed
from rtl.synthesis.comparison import changes
from rtl.synthesis.ecp5 import ONE_PLACEMENT, Options, place, read_report, target
from rtl.synthesis.figures import Block, LongestPath, Memory, Synthesis, read_record, total_of
from rtl.synthesis.hierarchy import design_of, plainly_named
from rtl.synthesis.liberty import Library, read_libraries
from rtl.synthesis.units import UNITS, Sum, Unit, is_limited, unit_of
from tests.rtl.synthesis.tiny_library import Accumulator, Mask, Pair, Toggle, library


def silent(done: int, total: int) -> None:
    assert 0 <= done <= total


@pytest.fixture
def tiny(tmp_path: Path) -> Library:
    (tmp_path / "tiny.lib").write_text(library())
    return read_libraries([tmp_path / "tiny.lib"], tmp_path)


def test_a_flip_flop_and_an_inverter(tiny: Library, tmp_path: Path) -> None:
    found = map_to_cells(design_of(Toggle()), tiny, tmp_path, silent)
    (block,) = found.blocks
    # The reset is synchronous: q becomes !(q or rst), an inverter and a NAND more or less, behind the flip-flop.
    assert block.figures["flip_flop_area_um2"] == 10.0
    assert block.figures["cells"] >= 2
    assert found.path is not None
    assert (found.path.start in ("q", "rst"), found.path.end) == (True, "q")
    assert 0.1 <= found.path.ns < 1
    assert found.memories == ()


def test_alike_parts_are_one_block_and_memories_are_sorted(tiny: Library, tmp_path: Path) -> None:
    design = design_of(Pair())
    assert design.instances == {"top": 1, "top.toggle0": 2}
    found = map_to_cells(design, tiny, tmp_path, silent)
    blocks = {block.name: block for block in found.blocks}
    assert set(blocks) == {"", "toggle0"}
    assert blocks["toggle0"].instances == 2
    memories = {memory.name: memory for memory in found.memories}
    assert (memories["many"].depth, memories["many"].width, memories["many"].flip_flops) == (256, 8, False)
    assert (memories["few"].bits, memories["few"].flip_flops) == (32, True)
    # 32 bits of the small memory and the 8 read from it, perhaps a kept address; not the 2,048 of the large one.
    assert 400 <= blocks[""].figures["flip_flop_area_um2"] <= 600


def test_a_memory_with_a_module_of_its_own_is_a_block_without_cells(tiny: Library, tmp_path: Path) -> None:
    design = design_of(Ram(16, 512, granule=8))
    assert design.instances == {"top": 1, "ram_512x16_by_8": 1}
    found = map_to_cells(design, tiny, tmp_path, silent)
    (memory,) = found.memories
    assert (memory.block, memory.depth, memory.width, memory.flip_flops) == ("ram_512x16_by_8", 512, 16, False)
    assert (memory.read_ports, memory.write_ports) == (1, 1)
    assert {block.figures["cells"] for block in found.blocks} == {0}


def test_an_adder_is_a_tree_of_carries(tiny: Library, tmp_path: Path) -> None:
    found = {}
    for bits in (8, 64):
        (tmp_path / str(bits)).mkdir()
        path = map_to_cells(design_of(Accumulator(bits)), tiny, tmp_path / str(bits), silent).path
        assert path is not None
        found[bits] = path.ns
    # Three times the levels at most, where a chain would have eight times as many.
    assert found[64] < 3 * found[8]


def test_the_same_input_gives_the_same_figures(tiny: Library, tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        found.append(map_to_cells(design_of(Pair()), tiny, tmp_path / name, silent))
    assert found[0] == found[1]


def test_a_unit_on_the_fpga(tmp_path: Path) -> None:
    found = place(design_of(Pair()), tmp_path, silent, ONE_PLACEMENT)
    total = total_of(found.blocks)
    assert total["block_rams"] == found.used["block_rams"] == 1
    assert found.used["flip_flops"] == total["flip_flops"] >= 2
    assert found.path is not None
    assert found.fmax_mhz is not None
    assert found.fmax_mhz > 50
    assert found.path.ns == pytest.approx(1000 / found.fmax_mhz, rel=0.05)


def test_the_fastest_of_several_placements_is_kept(tmp_path: Path) -> None:
    steps: list[tuple[int, int | None]] = []
    found = place(design_of(BestExperts(2, 8)), tmp_path, lambda *step: steps.append(step), Options(seeds=3))
    of_seeds = found.fmax_of_seeds_mhz
    assert len(of_seeds) == 3
    assert len(set(of_seeds)) > 1
    assert found.fmax_mhz == max(of_seeds)
    assert found.path is not None
    assert found.path.ns == pytest.approx(1000 / found.fmax_mhz, rel=0.05)
    assert steps == [(0, 7), (1, 7), (3, 7), (5, 7), (7, 7)]


def test_a_unit_without_registers_has_no_clock_on_the_fpga(tmp_path: Path) -> None:
    class Sum(wiring.Component):
        a: In(4)
        b: Out(4)

        def elaborate(self, platform: object) -> Module:
            m = Module()
            m.d.comb += self.b.eq(self.a + 3)
            return m

    found = place(design_of(Sum()), tmp_path, silent, ONE_PLACEMENT)
    assert (found.path, found.fmax_mhz, found.fmax_of_seeds_mhz) == (None, None, ())
    assert found.used["luts"] > 0


def test_a_report_of_the_placement_is_read() -> None:
    step = '{"delay": %s, "from": {"cell": "%s"}, "to": {"cell": "%s"}}'
    steps = ", ".join((step % (1.5, "a_TRELLIS_FF_Q_3", "b_LUT4_Z"), step % (2.5, "b_LUT4_Z", "c.d_TRELLIS_FF_Q")))
    inside = '{"from": "posedge clk", "to": "posedge clk", "path": [' + steps + "]}"
    outside = '{"from": "<async>", "to": "posedge clk", "path": [%s]}' % (step % (9, "x", "y"))
    names = ("TRELLIS_COMB", "TRELLIS_FF", "MULT18X18D", "DP16KD")
    used = ", ".join(f'"{name}": {{"used": {n}}}' for n, name in enumerate(names, 1))
    text = '{"critical_paths": [%s, %s], "fmax": {"clk": {"achieved": 250.004}}, "utilization": {%s}}'
    resources, path, clock = read_report(text % (inside, outside, used))
    assert resources == {"luts": 1, "flip_flops": 2, "multipliers": 3, "block_rams": 4}
    assert (path, clock) == (LongestPath(ns=4.0, start="a", end="c.d"), 250.0)


def record(**changed: object) -> Synthesis:
    block = {"name": "a", "instances": 2, "figures": {"area_um2": 3.0}}
    fields = {
        "unit": "u", "target": "t", "blocks": [block], "total": {"area_um2": 6.0}, "not_counted": "wires", "tools": {},
        "path": {"ns": 1.5, "start": "x", "end": "y"},
    }  # fmt: skip
    return Synthesis.model_validate(fields | changed)


def test_what_changed_is_told_per_block() -> None:
    now = record(
        blocks=[
            {"name": "a", "instances": 2, "figures": {"area_um2": 2.0}},
            {"name": "b", "instances": 1, "figures": {"area_um2": 3.0}},
        ],
        total={"area_um2": 7.0},
    )
    told = [(c.total, c.block, c.figure, c.before, c.after, c.sign) for c in changes(record(), now, "r.json")]
    assert told == [
        (True, "", "area_um2", 6.0, 7.0, "▲"),
        (False, "a", "area_um2", 3.0, 2.0, "▼"),
        (False, "b", "area_um2", None, 3.0, "▲"),
        (False, "b", "instances", None, 1.0, "▲"),
    ]
    assert changes(now, now, "r.json") == []


@pytest.mark.parametrize(("field", "value"), [("unit", "v"), ("target", "s"), ("parameters", {"experts_max": 8})])
def test_only_the_same_is_compared(field: str, value: object) -> None:
    with pytest.raises(ForestageError, match=f"r.json: {field}: is of"):
        changes(record(), record(**{field: value}), "r.json")


def test_records_are_files(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(record().text())
    assert read_record(path) == record()
    path.write_text('{"unit": "u", "targt": "t"}')
    with pytest.raises(ForestageError, match="no record of a synthesis: unknown key 'targt'"):
        read_record(path)
    with pytest.raises(ForestageError, match="cannot read the record"):
        read_record(tmp_path / "absent.json")


def test_a_sum_is_of_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(block="m", name="x", depth=64, width=32, read_ports=1, write_ports=1)
    parts = {
        "p": record(unit="p", memories=[memory.model_dump()], sram_bits=2048, path={"ns": 2, "start": "x", "end": "y"}),
        "q": record(unit="q"),
    }
    monkeypatch.setattr(module, "_synthesise", lambda name, *_: parts[name])
    monkeypatch.setitem(UNITS, "p", Unit(what="p", make=lambda _: Toggle()))
    monkeypatch.setitem(UNITS, "q", Unit(what="q", make=lambda _: Toggle()))
    monkeypatch.setitem(UNITS, "s", Sum(what="s", parts={"p": 3, "q": 1}))
    found = module.synthesise("s", EngineLimits(), [], silent)
    assert found.total == {"area_um2": 24.0} == total_of(found.blocks)
    assert found.blocks[0] == Block(name="p.a", instances=6, figures={"area_um2": 3.0})
    assert (found.sram_bits, found.memories[0].block, found.memories[0].instances) == (6144, "p.m", 3)
    assert found.path == LongestPath(ns=2, start="p: x", end="p: y")


def test_every_part_of_a_sum_is_a_unit() -> None:
    for unit in UNITS.values():
        if isinstance(unit, Sum):
            assert all(isinstance(UNITS[part], Unit) for part in unit.parts)
    assert is_limited("table-scorer")
    assert not is_limited("pim-unit")
    with pytest.raises(ForestageError, match="'table-engine'"):
        unit_of("table-engin")


def test_a_constant_drives_no_wire(tiny: Library, tmp_path: Path) -> None:
    gates = "\n".join(f".gate NAND A=$false B=a{n} Y=y{n}" for n in range(3))
    outputs, inputs = (" ".join(f"{name}{n}" for n in range(3)) for name in "ya")
    (tmp_path / "logic.blif").write_text(f".model logic\n.inputs {inputs}\n.outputs {outputs}\n{gates}\n.end\n")
    (tmp_path / "registers.il").write_text("")
    (tmp_path / "drive.constr").write_text(f"set_driving_cell {tiny.driver}\nset_load 0\n")
    path = timed(tiny, tmp_path)
    (ports,) = [line for line in (tmp_path / "timed.blif").read_text().splitlines() if line.startswith(".inputs")]
    assert ports.split()[1:] == ["$false$0", "$false$1", "$false$2", "a0", "a1", "a2"]
    assert path.end.startswith("y")


def test_a_net_of_many_loads_gets_buffers(tiny: Library, tmp_path: Path) -> None:
    (tmp_path / "registers.il").write_text("")
    (tmp_path / "drive.constr").write_text(f"set_driving_cell {tiny.driver}\nset_load 0\n")
    lengths = []
    for loads in (4, 40):
        gates = "\n".join(f".gate INV A=a Y=y{n}" for n in range(loads))
        outputs = " ".join(f"y{n}" for n in range(loads))
        (tmp_path / "logic.blif").write_text(f".model logic\n.inputs a\n.outputs {outputs}\n{gates}\n.end\n")
        lengths.append(timed(tiny, tmp_path).ns)
    assert lengths[1] >= lengths[0] + 0.1  # a buffer's delay


def test_gates_are_not_made_of_cells_that_are_not_to_be_used(tmp_path: Path) -> None:
    """As a net gets buffers, its gates are sized: the weak cells are the smallest."""
    lengths = []
    for weak in (False, True):
        folder = tmp_path / str(weak)
        folder.mkdir()
        (folder / "tiny.lib").write_text(library(weak=weak))
        found = replace(read_libraries([folder / "tiny.lib"], folder), driver="BUF", dont_use=("WEAK*",))
        assert found.excluded == (("WEAKBUF", "WEAKINV") if weak else ())
        (folder / "registers.il").write_text("")
        (folder / "drive.constr").write_text("set_driving_cell BUF\nset_load 0\n")
        gates = "\n".join(f".gate INV A=a Y=y{n}" for n in range(40))
        outputs = " ".join(f"y{n}" for n in range(40))
        (folder / "logic.blif").write_text(f".model logic\n.inputs a\n.outputs {outputs}\n{gates}\n.end\n")
        lengths.append(timed(found, folder).ns)
    assert lengths[0] == lengths[1]


def test_no_name_is_that_of_a_bit() -> None:
    text = plainly_named("  wire width 16 \\x.y[7]\n  connect \\z \\x.y[7] [3:0]\n  connect \\x.y [7] 1'1\n")
    assert text == "  wire width 16 \\x.y<7>\n  connect \\z \\x.y<7> [3:0]\n  connect \\x.y [7] 1'1\n"
    assert "[" not in "".join(word for word in design_of(BestExperts(2, 3)).text.split() if word.startswith("\\"))


def test_a_speed_grade_is_a_target() -> None:
    assert [target(grade) for grade in (6, 8)] == ["ecp5-lfe5u-85f", "ecp5-lfe5u-85f-8"]


def test_constants_told_by_cases_are_logic(tiny: Library, tmp_path: Path) -> None:
    found = map_to_cells(design_of(Mask()), tiny, tmp_path, silent)
    assert found.memories == ()
    assert found.blocks[0].figures["cells"] > 63
