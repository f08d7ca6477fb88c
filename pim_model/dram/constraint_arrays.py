"""Timing constraints as arrays, for compiled code: made from the same table that `ChannelState` reads."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pim_model.dram.commands import Command, Scope, TimingConstraint
from pim_model.dram.devices import Geometry

COMMANDS = {command: number for number, command in enumerate(Command)}
"""Number of each command in arrays."""

_SCOPES = (Scope.COMMAND_BUS, Scope.CHANNEL, Scope.OTHER_STACK_ID, Scope.BANK_GROUP, Scope.BANK)


class ConstraintArrays(NamedTuple):
    """Constraints between commands; a *node* is a command bus, pseudo-channel, stack ID, bank group or bank.

    Attributes:
        nodes_of_bank: ``[banks, 5]`` the nodes that a bank lies in.
        constrained: ``[scopes, banks, width]`` nodes in which a command to a bank holds others back; −1 for none.
        scope: ``[constraints]`` index into ``constrained``.
        latency_ck: ``[constraints]``.
        window: ``[constraints]`` which preceding command counts.
        follows: ``[constraints, commands]`` whether the command is held back.
        of_command: ``[commands, constraints]`` constraints that a command starts; −1 for none.
        nodes: ``[1]`` number of nodes.
    """

    nodes_of_bank: NDArray[np.int64]
    constrained: NDArray[np.int64]
    scope: NDArray[np.int64]
    latency_ck: NDArray[np.int64]
    window: NDArray[np.int64]
    follows: NDArray[np.bool_]
    of_command: NDArray[np.int64]
    nodes: NDArray[np.int64]


def constraint_arrays(geometry: Geometry, constraints: Sequence[TimingConstraint[Command]]) -> ConstraintArrays:
    """The arrays of ``constraints`` between commands to the banks of ``geometry``."""
    nodes_of_bank, constrained, nodes = _nodes(geometry)
    follows = np.array([[command in one.following for command in Command] for one in constraints], np.bool_)
    of_command = np.full((len(COMMANDS), len(constraints)), -1, np.int64)
    for command, number in COMMANDS.items():
        started = [index for index, one in enumerate(constraints) if command in one.preceding]
        of_command[number, : len(started)] = started
    return ConstraintArrays(
        nodes_of_bank=nodes_of_bank,
        constrained=constrained,
        scope=np.array([_SCOPES.index(one.scope) for one in constraints], np.int64),
        latency_ck=np.array([one.latency_ck for one in constraints], np.int64),
        window=np.array([one.window for one in constraints], np.int64),
        follows=follows,
        of_command=of_command,
        nodes=np.array([nodes], np.int64),
    )


def _nodes(geometry: Geometry) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """``nodes_of_bank``, ``constrained`` and the number of nodes."""
    part_of = (
        geometry.command_bus_of,
        geometry.pseudo_channel_of,
        geometry.stack_id_of,
        geometry.bank_group_of,
        lambda bank: bank,
    )
    last = geometry.banks - 1
    sizes = [part(last) + 1 for part in part_of]
    first = np.cumsum([0, *sizes])
    nodes_of_bank = np.array(
        [[start + part(bank) for start, part in zip(first, part_of, strict=False)] for bank in range(geometry.banks)],
        np.int64,
    )
    constrained = np.full((len(_SCOPES), geometry.banks, max(1, geometry.stack_ids - 1)), -1, np.int64)
    constrained[:, :, 0] = nodes_of_bank.T
    stack_ids = _SCOPES.index(Scope.OTHER_STACK_ID)
    constrained[stack_ids] = -1
    for bank in range(geometry.banks):
        start = first[stack_ids] + geometry.pseudo_channel_of(bank) * geometry.stack_ids
        own = nodes_of_bank[bank, stack_ids]
        others = [node for node in range(start, start + geometry.stack_ids) if node != own]
        constrained[stack_ids, bank, : len(others)] = others
    return nodes_of_bank, constrained, int(first[-1])
