"""From areas, toggles and accesses to an energy."""

import pytest

from catalog import load_catalog
from rtl.synthesis.cell_energy import CellEnergy
from rtl.synthesis.energy import Access, Energy, sram_energy, unit_energy
from rtl.synthesis.figures import Block, Synthesis, total_of
from rtl.synthesis.saif import Nets

CELLS = CellEnergy(
    volts=2.0,
    flip_flop="DFF",
    flip_flop_um2=10,
    clock_fj=6,
    flip_flop_input_ff=0.25,
    flip_flop_toggle_fj=4,
    input_ff_per_um2=1.5,
    toggle_fj_per_um2=2.25,
    flip_flop_leakage_nw=5,
    leakage_nw_per_um2=1.25,
)


def record(*blocks: Block) -> Synthesis:
    return Synthesis(unit="u", target="t", blocks=blocks, total=total_of(blocks), not_counted="", tools={})


def block(name: str, instances: int, area: float, flip_flops: float) -> Block:
    figures = {"area_um2": area, "flip_flop_area_um2": flip_flops, "cells": 1.0}
    return Block(name=name, instances=instances, figures=figures)


def close(energy: Energy, **expected: float) -> bool:
    return energy.model_dump() == pytest.approx(Energy(**expected).model_dump())


def test_clock_runs_whatever_toggles_and_the_rest_in_proportion() -> None:
    unit = record(block("", 1, 100, 20))  # two flip-flops, 80 of logic
    still = unit_energy(unit, {"": [Nets(10, 0)]}, CELLS, cycles=1000, clock_ns=0.5)
    assert close(still, clock=2 * 6 * 1000 / 1e3, leakage=(80 * 1.25 + 2 * 5) * 500 / 1e6)
    assert still.idle == pytest.approx(still.total)
    # A net toggles every fourth cycle: pins at ½ C V², and what is inside.
    moving = unit_energy(unit, {"": [Nets(10, 2500)]}, CELLS, cycles=1000, clock_ns=0.5)
    pins, inside = 80 * 1.5 + 2 * 0.25, 80 * 2.25 + 2 * 4
    assert close(moving, clock=still.clock, leakage=still.leakage, logic=0.25 * 1000 * (pins * 4 / 2 + inside) / 1e3)


def test_a_block_toggles_as_its_own_nets_and_one_without_any_as_all() -> None:
    quick, slow, bare = block("quick", 2, 50, 0), block("slow", 1, 30, 0), block("bare", 1, 7, 0)
    nets = {"quick": [Nets(10, 900), Nets(10, 100)], "slow": [Nets(20, 0)], "elsewhere": [Nets(10, 0)]}
    found = unit_energy(record(quick, slow, bare), nets, CELLS, cycles=100, clock_ns=1)
    of_area = (1.5 * 2 + 2.25) / 1e3  # a toggle of a µm² of logic, pJ
    assert found.logic == pytest.approx(100 * of_area * (2 * 50 * 0.5 + 0 + 7 * 1000 / (50 * 100)))


def test_sram_is_what_the_synthesis_leaves_out_at_the_energy_of_its_capacity() -> None:
    figures = load_catalog().sram.find("7nm-bit-cell")
    small, large = (next(a.pj_per_bit for a in figures.accesses if a.bytes == size) for size in (8192, 1048576))
    accesses = [
        Access(name="small", depth=64, width=32, bits=320, clocked=True),
        Access(name="large", depth=10240, width=512, bits=1024, clocked=True),
        Access(name="flip-flops", depth=32, width=32, bits=9999, clocked=True),
        Access(name="unclocked", depth=64, width=32, bits=9999, clocked=False),
    ]
    assert close(sram_energy(accesses, figures), sram=320 * small + 1024 * large)
    with pytest.raises(ValueError, match="no energy"):
        sram_energy(accesses, load_catalog().sram.find("openram-sky130"))
