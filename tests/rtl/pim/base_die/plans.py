"""Programs for tests, and what the planner makes of them."""

import math
from typing import Any

from pim_model.unit.parameters import UnitParameters
from pim_model.unit.program import Phase, Program


def plan_of(program: Program, parameters: UnitParameters) -> dict[str, Any]:
    """The plan, by the names of ``plan_layout``."""
    phases = [_phase_plan(phase) for phase in program.phases]
    return {
        "format": program.format,
        "kind": program.kind,
        "last_token": program.tokens - 1,
        "log2_slots": int(math.log2(program.token_slots)),
        "base_row": program.base_row,
        "row_sets": program.row_sets,
        "two_phases": len(phases) > 1,
        "phases": phases,
    }


def _phase_plan(phase: Phase) -> dict[str, int]:
    return {
        "rows": phase.rows,
        "inputs": phase.inputs,
        "bias": phase.bias,
        "last_chunk": phase.chunks - 1,
        "last_tile": len(phase.tiles) - 1,
        "tile_rows": phase.tiles[0].rows_per_block,
        "last_tile_rows": phase.tiles[-1].rows_per_block,
    }
