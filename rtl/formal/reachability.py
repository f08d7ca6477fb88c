"""Property-directed reachability (IC3) by abc: it finds by itself what an induction would have to be told."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from rtl.yosys import abc_program


@dataclass(frozen=True, kw_only=True)
class Reachable:
    """What abc says of the checks in all states that can be reached.

    Attributes:
        clauses: Size of an invariant from which no check can be broken; ``None``: one can.
        frame: The frame in which one is, 0 being the reset; ``None``: none is.
    """

    clauses: int | None = None
    frame: int | None = None


def aiger_commands(name: str) -> tuple[str, ...]:
    """Yosys' commands from the solver's model (``rtl.formal.proof``) to the file ``name``.aig, which abc reads."""
    return (
        "memory_map",
        "delete -output",  # abc would take outputs for checks
        "opt",
        "techmap",
        "opt -fast",
        "dffunmap",
        "aigmap",
        "opt_clean",
        f"write_aiger -zinit {name}.aig",
    )


def search_invariant(path: Path) -> Reachable:
    """Search the AIGER file ``path`` for an invariant from which its checks follow, or for a way to break one.

    Aaron R. Bradley's IC3 as Een, Mishchenko and Brayton have it ("Efficient implementation of property directed
    reachability", FMCAD 2011): abc's ``pdr``. abc then checks the invariant anew: it holds at reset, a step keeps it,
    and no check is broken where it holds.

    Raises:
        RuntimeError: abc gave no answer.
    """
    held = r"^Verification of invariant with (?P<clauses>\d+) clauses was successful.*^Property proved"
    found = _answer(path, "pdr -v", held)
    frame, clauses = found["frame"], found["clauses"]
    return Reachable(frame=int(frame)) if frame else Reachable(clauses=int(clauses))


def breaks_within(path: Path, depth: int) -> bool:
    """Whether a check of the AIGER file ``path`` can be broken within ``depth`` cycles.

    Raises:
        RuntimeError: abc gave no answer.
    """
    frames = depth + 1  # what is checked at a clock edge is looked at a frame later
    return _answer(path, f"bmc3 -F {frames}", rf"^No output asserted in {frames} frames")["frame"] is not None


def _answer(path: Path, command: str, held: str) -> re.Match[str]:
    """What abc says of the circuit in ``path``: the match of ``held``, or ``frame``, in which a check is broken.

    Raises:
        RuntimeError: it says neither.
    """
    answer = re.compile(rf"was asserted in frame (?P<frame>\d+)|{held}", re.MULTILINE | re.DOTALL)
    log = ""
    # Equal registers are made one first; a circuit of which that leaves nothing to search gets no answer, and is
    # searched as it is.
    for simpler in ("scorr; ", ""):
        # `fold`: the assumptions become part of the checks.
        script = f"read_aiger {path.name}; fold; strash; {simpler}{command}"
        log = subprocess.run([abc_program(), "-c", script], capture_output=True, text=True, cwd=path.parent).stdout
        if found := answer.search(log):
            return found
    raise RuntimeError(f"abc gave no answer: {log[-500:]}")
