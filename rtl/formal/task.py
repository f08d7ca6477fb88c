"""A proof as a thing to run: what is proved, of which circuit, under which assumptions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from amaranth.lib import wiring

from rtl.formal.proof import DEPTH, Environment, Method, Verdict, prove

FAULTS = 24
"""Faults that a proof is tried with, unless it says otherwise."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One proof.

    Attributes:
        name: What it is called.
        what: What is proved, in words.
        make: Makes the component, as small as the statement allows.
        depth: As ``prove``'s.
        assumptions: As ``prove``'s.
        claims: As ``prove``'s.
        given: As ``prove``'s.
        method: As ``prove``'s; the checks are to hold for ever.
        quick: Whether it takes a few seconds at most, so that every run of the tests does it.
        faults: Faults to plant, where all are.
        fault_depth: As ``prove``'s.
    """

    name: str
    what: str
    make: Callable[[], wiring.Component]
    depth: int = DEPTH
    assumptions: Environment[Any] | None = None
    claims: Environment[Any] | None = None
    given: tuple[str, ...] = ()
    method: Method = Method.INDUCTION
    quick: bool = True
    faults: int = FAULTS
    fault_depth: int | None = None

    def run(self, *, faults: int | None = None, enough_noticed: int | None = None) -> Verdict:
        """Prove it, with ``faults`` planted (all by default), up to ``enough_noticed``."""
        return prove(
            self.make(),
            self.name,
            depth=self.depth,
            assumptions=self.assumptions,
            claims=self.claims,
            given=self.given,
            method=self.method,
            faults=self.faults if faults is None else faults,
            fault_depth=self.fault_depth,
            enough_noticed=enough_noticed,
        )

    def shortcoming(self, verdict: Verdict) -> str:
        """What its verdict lacks of what the task says; empty if nothing."""
        if not verdict.holds:
            return f"broken in cycle {verdict.cycle}: {'; '.join(verdict.refuted)}"
        if not verdict.unbounded:
            return f"the induction does not close: {'; '.join(verdict.open)}"
        if verdict.faults and not verdict.noticed:
            return f"none of {verdict.faults} faults planted in the circuit breaks a check: it cannot fail"
        return ""
