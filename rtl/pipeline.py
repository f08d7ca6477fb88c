"""Registers in a row."""

from typing import Any

from amaranth.hdl import Module, Signal


def stages(m: Module, name: str, value: Any, clocks: int, *, reset_less: bool = True) -> list[Any]:
    """``value`` (a signal or a view), and what it was 1, 2, … ``clocks`` clocks ago.

    ``reset_less``: the registers are not reset; what says whether something is valid needs a reset.
    """
    values = [value]
    for clock in range(clocks):
        register = Signal(value.shape(), name=f"{name}_{clock + 1}", reset_less=reset_less)
        m.d.sync += register.eq(values[-1])
        values.append(register)
    return values


def delayed(m: Module, name: str, value: Any, clocks: int, *, reset_less: bool = True) -> Any:
    """What ``value`` was ``clocks`` clocks ago; see `stages`."""
    return stages(m, name, value, clocks, reset_less=reset_less)[-1]
