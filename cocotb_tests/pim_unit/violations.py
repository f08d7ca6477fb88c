"""What a checker of commands reports."""

from dataclasses import dataclass

from cocotb_tests.pim_unit.command_log import CommandLog

MOST = 10_000
"""Violations of a kind of rule that are kept; a run that breaks more is described by these."""


@dataclass(frozen=True, kw_only=True)
class Violation:
    """A broken rule.

    Attributes:
        rule: The constraint's name in the device's table, or the rule's.
        clock_ck: When the command came that broke it, or when one was missing.
        command: That command in words; what was missing.
        earlier_ck: Clock of the earlier command that the rule speaks of, if there is one.
        earlier: That command in words; else empty.
    """

    rule: str
    clock_ck: int
    command: str
    earlier_ck: int | None = None
    earlier: str = ""

    def __str__(self) -> str:
        after = f", {self.clock_ck - self.earlier_ck} after {self.earlier}" if self.earlier_ck is not None else ""
        return f"clock {self.clock_ck}: {self.rule}: {self.command}{after}"

    @classmethod
    def between(cls, rule: str, log: CommandLog, index: int, earlier: int | None = None) -> "Violation":
        """Command ``index`` of ``log`` broke ``rule``, for the sake of command ``earlier``."""
        return cls(
            rule=rule,
            clock_ck=int(log.clock_ck[index]),
            command=log.describe(index),
            earlier_ck=None if earlier is None else int(log.clock_ck[earlier]),
            earlier="" if earlier is None else log.describe(earlier),
        )
