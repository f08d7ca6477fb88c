"""What the hardware did beside what its twin says."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cocotb_tests.pim_unit.command_log import NONE, CommandLog
from pim_model.unit.schedule import UnitCommand


class Comparison:
    """Counts every difference and describes the first."""

    def __init__(self) -> None:
        self.mismatches = 0
        self.first = ""

    def note(self, count: int, what: str) -> None:
        """So many differences, of which the first in words."""
        if count:
            self.mismatches += count
            self.first = self.first or what

    def equal(self, what: str, twin: Any, hardware: Any) -> None:
        """One value of each."""
        self.note(int(twin != hardware), f"{what}: twin {twin}, hardware {hardware}")

    def equal_arrays(self, what: str, twin: NDArray[Any], hardware: NDArray[Any]) -> None:
        """Items in order, along the first axis; one missing or too many is a difference too."""
        both = min(len(twin), len(hardware))
        differs = (twin[:both] != hardware[:both]).reshape(both, -1).any(axis=1)
        for number in np.flatnonzero(differs)[:1]:
            self.note(1, f"{what} {number}: twin {twin[number]}, hardware {hardware[number]}")
        self.note(max(0, int(differs.sum()) - 1), "")
        longer = abs(len(twin) - len(hardware))
        self.note(longer, f"{what}: twin has {len(twin)}, hardware {len(hardware)}")


def compare_logs(comparison: Comparison, twin: CommandLog, hardware: CommandLog) -> None:
    """Every command and its clock; what an RDA reads only where the bus shows it."""
    both = min(len(twin), len(hardware))
    unseen = (hardware.command[:both] == UnitCommand.RDA) & (hardware.address[:both] == NONE)
    differs = np.zeros(both, np.bool_)
    for name in ("clock_ck", "command", "half", "block", "row", "address"):
        differs |= (getattr(twin, name)[:both] != getattr(hardware, name)[:both]) & ~(unseen & (name == "address"))
    for number in np.flatnonzero(differs)[:1]:
        what = [f"{log.describe(number)} in clock {log.clock_ck[number]}" for log in (twin, hardware)]
        comparison.note(1, f"command {number}: twin {what[0]}, hardware {what[1]}")
    comparison.note(max(0, int(differs.sum()) - 1), "")
    comparison.note(abs(len(twin) - len(hardware)), f"commands: twin {len(twin)}, hardware {len(hardware)}")
