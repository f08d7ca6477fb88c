"""The state of a channel: which rows are open, and when each command may come next."""

from collections import deque
from collections.abc import Sequence

from pim_model.dram.commands import Command, Scope, TimingConstraint
from pim_model.dram.devices import Geometry

_COMMANDS = {command: index for index, command in enumerate(Command)}


class ChannelState:
    """Earliest time of each command, kept as Ramulator does: every issued command pushes later ones back.

    Args:
        geometry: The banks.
        constraints: Minimum distances between commands.
    """

    def __init__(self, geometry: Geometry, constraints: Sequence[TimingConstraint[Command]]) -> None:
        self._geometry = geometry
        self._open: list[int | None] = [None] * geometry.banks
        last = geometry.banks - 1
        sizes = {
            Scope.COMMAND_BUS: geometry.command_bus_of(last) + 1,
            Scope.CHANNEL: geometry.pseudo_channels,
            Scope.OTHER_STACK_ID: geometry.stack_id_of(last) + 1,
            Scope.BANK_GROUP: geometry.bank_group_of(last) + 1,
            Scope.BANK: geometry.banks,
        }
        # For each scope and node, the earliest time of each command.
        self._ready = {scope: [[0] * len(_COMMANDS) for _ in range(size)] for scope, size in sizes.items()}
        self._rules: list[list[_Rule]] = [[] for _ in _COMMANDS]
        for constraint in constraints:
            rule = _Rule(constraint, sizes[constraint.scope])
            for command in constraint.preceding:
                self._rules[_COMMANDS[command]].append(rule)

    def open_row(self, bank: int) -> int | None:
        """The row open in ``bank``, or None."""
        return self._open[bank]

    @property
    def open_banks(self) -> list[int]:
        """The banks that have an open row."""
        return [bank for bank, row in enumerate(self._open) if row is not None]

    def earliest_ck(self, command: Command, bank: int) -> int:
        """First clock in which the commands issued so far allow ``command`` to ``bank``."""
        index = _COMMANDS[command]
        return max(ready[node][index] for ready, node in self._nodes(bank))

    def issue(self, command: Command, bank: int, at_ck: int, *, row: int = 0) -> None:
        """Issue ``command``; those of all banks (PREab, REFab) go to the pseudo-channel of ``bank``.

        Raises:
            ValueError: the command comes too early, or the bank is not in the state that it needs.
        """
        earliest = self.earliest_ck(command, bank)
        if at_ck < earliest:
            raise ValueError(f"{command} to bank {bank} at {at_ck}: not before {earliest}")
        self._change_state(command, bank, row)
        for rule in self._rules[_COMMANDS[command]]:
            for node in self._constrained(rule.scope, bank):
                rule.note(node, at_ck, self._ready[rule.scope][node])

    def _nodes(self, bank: int) -> list[tuple[list[list[int]], int]]:
        """The tables of earliest times that apply to ``bank``, one per scope, with its index in each."""
        return [
            (self._ready[Scope.COMMAND_BUS], self._geometry.command_bus_of(bank)),
            (self._ready[Scope.CHANNEL], self._geometry.pseudo_channel_of(bank)),
            (self._ready[Scope.OTHER_STACK_ID], self._geometry.stack_id_of(bank)),
            (self._ready[Scope.BANK_GROUP], self._geometry.bank_group_of(bank)),
            (self._ready[Scope.BANK], bank),
        ]

    def _constrained(self, scope: Scope, bank: int) -> Sequence[int]:
        """The nodes of ``scope`` that a command to ``bank`` pushes back."""
        if scope is Scope.COMMAND_BUS:
            return (self._geometry.command_bus_of(bank),)
        if scope is Scope.CHANNEL:
            return (self._geometry.pseudo_channel_of(bank),)
        if scope is Scope.BANK_GROUP:
            return (self._geometry.bank_group_of(bank),)
        if scope is Scope.BANK:
            return (bank,)
        own = self._geometry.stack_id_of(bank)
        first = self._geometry.pseudo_channel_of(bank) * self._geometry.stack_ids
        return [stack_id for stack_id in range(first, first + self._geometry.stack_ids) if stack_id != own]

    def _banks_beside(self, bank: int) -> range:
        """The banks of the pseudo-channel of ``bank``."""
        size = self._geometry.banks_per_pseudo_channel
        first = self._geometry.pseudo_channel_of(bank) * size
        return range(first, first + size)

    def _change_state(self, command: Command, bank: int, row: int) -> None:
        is_open = self._open[bank] is not None
        if command in (Command.RD, Command.WR, Command.PRE) and not is_open:
            raise ValueError(f"{command} to bank {bank}: no row is open")
        if command in (Command.ACT, Command.REFPB) and is_open:
            raise ValueError(f"{command} to bank {bank}: row {self._open[bank]} is open")
        still_open = [other for other in self._banks_beside(bank) if self._open[other] is not None]
        if command is Command.REFAB and still_open:
            raise ValueError(f"REFab: rows are open in banks {still_open}")
        if command is Command.ACT:
            self._open[bank] = row
        elif command is Command.PRE:
            self._open[bank] = None
        elif command is Command.PREAB:
            for other in still_open:
                self._open[other] = None


class _Rule:
    """A constraint, with the times it must remember for each node of its scope."""

    def __init__(self, constraint: TimingConstraint[Command], nodes: int) -> None:
        self.scope = constraint.scope
        self._latency = constraint.latency_ck
        self._following = [_COMMANDS[command] for command in constraint.following]
        self._window = constraint.window
        self._history: list[deque[int]] = [deque(maxlen=constraint.window) for _ in range(nodes)]

    def note(self, node: int, at_ck: int, ready: list[int]) -> None:
        """A preceding command was issued: push the following ones back in ``ready``."""
        history = self._history[node]
        history.append(at_ck)
        if len(history) == self._window:
            earliest = history[0] + self._latency
            for index in self._following:
                ready[index] = max(ready[index], earliest)
