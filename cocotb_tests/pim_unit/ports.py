"""The command buses as the unit's ports carry them, and as a log."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cocotb_tests.pim_unit.command_log import NONE, CommandLog
from pim_model.unit.parameters import UnitParameters
from pim_model.unit.schedule import UnitCommand
from rtl.pim.base_die.layouts import ColumnCommand, RowCommand, column_port_layout, row_port_layout

PORT_CK = 1
"""Clocks from the decision for a command to its standing on the bus."""

_ROW = np.array([UnitCommand[name] for name in RowCommand.__members__], np.int64)
_COLUMN = np.array([UnitCommand[name] for name in ColumnCommand.__members__], np.int64)


def bus_fields(parameters: UnitParameters) -> dict[str, dict[str, tuple[int, int]]]:
    """Lowest bit and width of every field of the ports ``row`` and ``column``."""
    layouts = {"row": row_port_layout(parameters), "column": column_port_layout(parameters)}
    return {name: {field: (place.offset, place.width) for field, place in layout} for name, layout in layouts.items()}


def first_refresh_ck(parameters: UnitParameters, first_cycle: int) -> int:
    """Clock, 0 in ``first_cycle`` after reset, in which the next refresh is due: one is every tREFI from reset on."""
    interval = parameters.device.trefi_ck
    return interval - first_cycle % interval


def log_of_ports(
    row: NDArray[np.int64], column: NDArray[np.int64], parameters: UnitParameters, first_cycle: int
) -> CommandLog:
    """The commands that stood on the ports.

    Args:
        row, column: For each cycle in which the port was valid, ``[n, 2]``: the cycle and the port's word.
        parameters: The unit.
        first_cycle: The cycle that is clock 0: the first in which the sequencer decides.

    Raises:
        AssertionError: a command that does not exist.
    """
    at_row, of_row = _unpack(row, row_port_layout(parameters), _ROW)
    at_column, of_column = _unpack(column, column_port_layout(parameters), _COLUMN)
    is_act, is_preh = of_row["command"] == UnitCommand.ACT, of_row["command"] == UnitCommand.PREH
    is_pim, is_load, is_readback = (
        of_column["command"] == code for code in (UnitCommand.PIM, UnitCommand.LDI, UnitCommand.RDA)
    )
    nothing = np.full(len(at_column), NONE)
    address = np.where(is_pim, of_column["column"], np.where(is_load, of_column["register"], NONE))
    return CommandLog(
        clock_ck=np.concatenate([at_row, at_column]) - first_cycle - PORT_CK,
        command=np.concatenate([of_row["command"], of_column["command"]]).astype(np.uint8),
        half=np.concatenate(
            [np.where(is_act | is_preh, of_row["half"], NONE), np.where(is_pim, of_column["half"], NONE)]
        ),
        block=np.concatenate(
            [np.where(is_act, of_row["block"], NONE), np.where(is_readback, of_column["block"], NONE)]
        ),
        row=np.concatenate([np.where(is_act, of_row["row"], NONE), nothing]),
        address=np.concatenate([np.full(len(at_row), NONE), address]),
    ).sorted()


def _unpack(
    words: NDArray[np.int64], layout: Any, codes: NDArray[np.int64]
) -> tuple[NDArray[np.int64], dict[str, NDArray[np.int64]]]:
    """Cycles, and the fields of the port's words; the command as `UnitCommand`."""
    cycle, word = words.reshape(-1, 2).T
    fields = {name: word >> place.offset & (1 << place.width) - 1 for name, place in layout}
    if np.any(fields["command"] >= len(codes)):
        raise AssertionError("PIM unit: a command on a bus that does not exist")
    fields["command"] = codes[fields["command"]]
    return cycle, fields
