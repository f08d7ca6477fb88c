"""Commands as they stand on the command buses of the PIM unit's pseudo-channel."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from pim_model.unit.parameters import ACCUMULATORS, INPUT_REGISTERS, OCTET, UnitParameters
from pim_model.unit.program import ColumnKind, Phase, Program, WeightFormat
from pim_model.unit.schedule import UnitCommand, UnitSchedule

NONE = -1
"""A part that a command does not have."""

CONSTANTS_LINE = 8
"""Address of RDA: 0 … 7 eight accumulators of neighbouring rows (``bank · 4 + token · (4 / token slots) + octet``);
from here on the constants of an index."""


@dataclass(frozen=True, kw_only=True)
class CommandLog:
    """Commands in the order of their clocks, of two in one clock the row bus's first; arrays ``[commands]``.

    Attributes:
        clock_ck: When it is issued.
        command: `UnitCommand`.
        half: Of ACT, PREH and PIM; else `NONE`.
        block: Of ACT (the bank's) and RDA; else `NONE`.
        row: Of ACT; else `NONE`.
        address: Of PIM the column in the row, of LDI the input register, of RDA what is read (`CONSTANTS_LINE`), where
            the bus shows it; else `NONE`.
    """

    clock_ck: NDArray[np.int64]
    command: NDArray[np.uint8]
    half: NDArray[np.int64]
    block: NDArray[np.int64]
    row: NDArray[np.int64]
    address: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.clock_ck)

    @classmethod
    def of(cls, commands: Sequence[tuple[int, UnitCommand, int, int, int, int]]) -> "CommandLog":
        """From tuples of all attributes, in any order of clocks."""
        clock, command, half, block, row, address = np.array(commands, np.int64).reshape(-1, 6).T
        return cls(
            clock_ck=clock, command=command.astype(np.uint8), half=half, block=block, row=row, address=address
        ).sorted()

    def sorted(self) -> "CommandLog":
        """In order of clocks; of commands in one clock, those on the row bus first, else as they were."""
        order = np.lexsort((self.command >= UnitCommand.PIM, self.clock_ck))
        return self.take(order)

    def take(self, which: NDArray[np.int64]) -> "CommandLog":
        """These commands, in the order of ``which``."""
        return CommandLog(**{f.name: getattr(self, f.name)[which] for f in fields(self)})

    def describe(self, index: int) -> str:
        """A command in words."""
        parts = [UnitCommand(self.command[index]).name]
        for name in ("half", "block", "row", "address"):
            value = int(getattr(self, name)[index])
            if value != NONE:
                parts.append(f"{name} {value}")
        return " ".join(parts)


@dataclass(frozen=True, kw_only=True)
class Readbacks:
    """A program's RDAs in order; arrays ``[readbacks]``.

    Attributes:
        tile: Counted over the phases.
        block: That is read.
        address: As in `CommandLog`.
        inputs: Inputs of ``down``, of each token, that it completes.
    """

    tile: NDArray[np.int64]
    block: NDArray[np.int64]
    address: NDArray[np.int64]
    inputs: NDArray[np.int64]


def readbacks(program: Program, parameters: UnitParameters) -> Readbacks:
    """The RDAs of ``program``: by tile, block and octet first the octet's constants, then each token's sums."""
    parts = []
    first_tile = 0
    for number, phase in enumerate(program.phases):
        for tile in range(len(phase.tiles)):
            feeds = number + 1 < len(program.phases)
            parts.append(_tile_readbacks(program, phase, tile, first_tile, parameters.blocks.blocks, feeds))
        first_tile += len(phase.tiles)
    tile, block, address, inputs = np.concatenate(parts).T
    return Readbacks(tile=tile, block=block, address=address, inputs=inputs)


def _tile_readbacks(
    program: Program, phase: Phase, tile: int, first_tile: int, blocks: int, feeds: bool
) -> NDArray[np.int64]:
    """Rows (tile, block, address, inputs) of a tile's RDAs."""
    of_tile = phase.tiles[tile]
    bank = (first_tile + tile) % 2
    lines_of_token = ACCUMULATORS // OCTET // program.token_slots
    rows = []
    for block in range(blocks):
        for octet in range(of_tile.octets):
            addresses = []
            if phase.format is WeightFormat.INT8:
                addresses.append(CONSTANTS_LINE + octet)
            if phase.bias:
                addresses.append(CONSTANTS_LINE + ACCUMULATORS // OCTET + octet)
            addresses += [
                bank * (ACCUMULATORS // OCTET) + token * lines_of_token + octet for token in range(program.tokens)
            ]
            first_row = of_tile.first_row + block * of_tile.rows_per_block + octet * OCTET
            valid = min(OCTET, of_tile.rows_per_block - octet * OCTET, max(0, phase.rows - first_row))
            completes = [0] * (len(addresses) - 1) + [valid // 2 if feeds else 0]
            rows += [
                (first_tile + tile, block, address, inputs)
                for address, inputs in zip(addresses, completes, strict=True)
            ]
    return np.array(rows, np.int64)


@dataclass(frozen=True, kw_only=True)
class Places:
    """A program's columns in order, and where they lie; arrays ``[columns]``.

    Attributes:
        half, row, column: The place.
        kind: `ColumnKind`.
        tile: Counted over the phases.
        chunk: Of a MAC, counted over tiles and phases (each tile loads its chunks anew); else `NONE`.
        phase: Its matrix.
    """

    half: NDArray[np.int64]
    row: NDArray[np.int64]
    column: NDArray[np.int64]
    kind: NDArray[np.int64]
    tile: NDArray[np.int64]
    chunk: NDArray[np.int64]
    phase: NDArray[np.int64]


def places(program: Program, parameters: UnitParameters) -> Places:
    """Where the columns of ``program`` lie: row sets take turns in the halves; each phase begins a new one."""
    bursts = parameters.device.row_bursts
    parts = []
    first_set = first_tile = first_chunk = 0
    for number, phase in enumerate(program.phases):
        columns = phase.columns()
        count = np.arange(len(columns.kind), dtype=np.int64)
        row_set = first_set + count // bursts
        is_mac = columns.kind == ColumnKind.MAC
        parts.append(
            np.stack(
                [
                    row_set % 2,
                    program.base_row + row_set // 2,
                    count % bursts,
                    columns.kind.astype(np.int64),
                    first_tile + columns.tile,
                    np.where(is_mac, first_chunk + columns.tile * phase.chunks + columns.chunk, NONE),
                    np.full(len(count), number),
                ]
            )
        )
        first_set += -(-len(count) // bursts)
        first_tile += len(phase.tiles)
        first_chunk += len(phase.tiles) * phase.chunks
    half, row, column, kind, tile, chunk, of_phase = np.concatenate(parts, axis=1)
    return Places(half=half, row=row, column=column, kind=kind, tile=tile, chunk=chunk, phase=of_phase)


def log_of_schedule(schedule: UnitSchedule, program: Program, parameters: UnitParameters) -> CommandLog:
    """What the twin's schedule looks like on the buses."""
    command, number = schedule.command, schedule.number.astype(np.int64)
    row, address = np.full((2, len(number)), NONE, np.int64)
    act, pim, load, readback = (
        command == code for code in (UnitCommand.ACT, UnitCommand.PIM, UnitCommand.LDI, UnitCommand.RDA)
    )
    row[act] = program.base_row + number[act] // 2
    address[pim] = places(program, parameters).column[number[pim]]
    address[load] = number[load] % INPUT_REGISTERS
    address[readback] = readbacks(program, parameters).address[number[readback]]
    return CommandLog(
        clock_ck=schedule.clock_ck,
        command=command,
        half=schedule.half.astype(np.int64),
        block=schedule.block.astype(np.int64),
        row=row,
        address=address,
    )
