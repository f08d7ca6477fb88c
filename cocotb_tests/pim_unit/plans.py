"""What the planner makes of a program: the sequencer's plan."""

from typing import Any

from pim_model.unit.program import Phase, Program


def plan_of(program: Program) -> dict[str, Any]:
    """The plan, by the names of ``rtl.pim.base_die.layouts.plan_layout``."""
    phases = [_phase_plan(phase) for phase in program.phases]
    return {
        "format": program.format,
        "kind": program.kind,
        "last_token": program.tokens - 1,
        "log2_slots": program.token_slots.bit_length() - 1,
        "base_row": program.base_row,
        "row_sets": program.row_sets,
        "two_phases": len(phases) > 1,
        "phases": phases,
    }


def _phase_plan(phase: Phase) -> dict[str, int]:
    """A matrix, by the names of ``phase_layout``."""
    return {
        "rows": phase.rows,
        "inputs": phase.inputs,
        "bias": phase.bias,
        "last_chunk": phase.chunks - 1,
        "last_tile": len(phase.tiles) - 1,
        "tile_rows": phase.tiles[0].rows_per_block,
        "last_tile_rows": phase.tiles[-1].rows_per_block,
    }
