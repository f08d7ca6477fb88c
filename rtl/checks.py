"""What must never be, said inside the circuits: assertions that every simulation checks.

Amaranth's own simulator checks them always. In the Verilog they stand between ``ifdef FORESTAGE_CHECKS`` and ``endif``
(``rtl.verilog``), each as a condition that stops the simulation; ``cocotb_tests.build`` defines the macro. A register
that only a check reads drives nothing else, so that synthesis removes it.

Most checks are of what a circuit guarantees; a few are of its inputs, where a breach would otherwise pass silently.

With ``claim=Assume`` the same rules are what a proof takes for granted of a circuit's inputs (``rtl.formal``).
"""

from collections.abc import Callable, Sequence
from typing import Any

from amaranth.hdl import Assert, Cat, Module, Signal, Value

Claim = Callable[[Value, str], Any]
"""Amaranth's ``Assert``, or its ``Assume``."""


def always(m: Module, holds: Value, message: str, *, claim: Claim = Assert) -> None:
    """Check that ``holds`` is true at every clock edge."""
    m.d.sync += claim(holds, f"{message}\n")


def always_within(
    m: Module,
    value: Value,
    least: int,
    most: int,
    message: str,
    *,
    where: Value | None = None,
    claim: Claim = Assert,
) -> None:
    """Check that ``value`` is in ``least`` … ``most`` where ``where`` holds, as far as its bits do not ensure it."""
    bounds = []
    if least > 0:
        bounds.append(value >= least)
    if most < (1 << len(value)) - 1:
        bounds.append(value <= most)
    if bounds:
        inside = Cat(*bounds).all()
        always(m, inside if where is None else implies(where, inside), message, claim=claim)


def implies(condition: Value, consequence: Value) -> Value:
    """Whether ``consequence`` holds where ``condition``, a bit, does."""
    return ~condition | consequence.bool()


def at_most_one(bits: Sequence[Value] | Value) -> Value:
    """Whether no two of ``bits`` are set."""
    word = Cat(*bits)
    return (word & (word - 1)) == 0


def exactly_one(bits: Sequence[Value]) -> Value:
    """Whether one of ``bits`` is set and no other."""
    return at_most_one(bits) & Cat(*bits).any()


def always_stable(m: Module, name: str, *, valid: Value, ready: Value, payload: Value, claim: Claim = Assert) -> None:
    """Check the rule of a ready/valid channel: what is offered stays, unchanged, until it is taken."""
    waits, offered = Signal(name=f"{name}_waits"), Signal(len(payload), name=f"{name}_offered")
    m.d.sync += [waits.eq(valid & ~ready), offered.eq(payload)]
    always(m, implies(waits, valid), f"{name}: withdrawn before it was taken", claim=claim)
    always(m, implies(waits & valid, payload == offered), f"{name}: changed before it was taken", claim=claim)


def always_kept(m: Module, name: str, value: Value, *, where: Value, claim: Claim = Assert) -> None:
    """Check that ``value`` after a cycle in which ``where`` holds is what it was in that cycle."""
    held, before = Signal(name=f"{name}_held"), Signal(len(value), name=f"{name}_before")
    m.d.sync += [held.eq(where), before.eq(value)]
    always(m, implies(held, value == before), f"{name}: changed while it must hold still", claim=claim)
