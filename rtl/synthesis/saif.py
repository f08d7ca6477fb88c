"""Toggle counts of nets, by instance, in SAIF (Switching Activity Interchange Format 2.0)."""

import re
from dataclasses import dataclass
from pathlib import Path

from catalog.errors import ForestageError


@dataclass(frozen=True)
class Nets:
    """Of an instance, without those below it.

    Attributes:
        bits: nets, of one bit each.
        toggles: sum of their transitions, either way.
    """

    bits: int
    toggles: int


@dataclass(frozen=True)
class Activity:
    """What toggled in a simulation.

    Attributes:
        instances: path from the outermost instance, by ``/`` → its nets.
        cycles: of the clock, in which it was counted.
    """

    instances: dict[str, Nets]
    cycles: int


_TOKEN = re.compile(
    r"\(INSTANCE\s+(?:\"[^\"]*\"\s+)?(?P<instance>[^\s()]+)"
    r"|\((?P<net>(?:[^\s()\\]|\\.)+)\s*(?P<times>(?:\(T[0-9XZBCG]+\s+\d+\)\s*)+)\)"
    r"|(?P<open>\()|(?P<close>\))"
)
_TIME = re.compile(r"\((T[0-9XZBCG]+)\s+(\d+)\)")


def read_saif(path: Path, *, clock: str = "clk", counted: str | None = None) -> Activity:
    """The toggle counts in the file ``path``.

    Verilator takes every net to be low before its first sample, so that one that is high there has a toggle too many.
    Where it stays high, that one is not counted; elsewhere it is one in as many as the net really has.

    Args:
        path: a file in which each net stands once.
        clock: name of the clock's net, which toggles twice a cycle, and is high for half of it.
        counted: name of a net that is high in the cycles that count, of a file that goes on when they have passed. What
            toggles afterwards is in the toggles.

    Raises:
        ForestageError: it cannot be read, is no SAIF or not whole, its clock does not toggle, or no cycle counts.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ForestageError(f"{path}: cannot read the toggle counts ({error}); give a SAIF file") from error
    if "(SAIFILE" not in text:
        raise ForestageError(f"{path}: no SAIF; give what Verilator writes with --trace-saif")
    scopes: list[str | None] = []
    names: list[str] = []
    nets: dict[str, list[tuple[int, int]]] = {}
    ticks, ticks_high, window, longest = 0, 0, 0, 0
    for token in _TOKEN.finditer(text):
        if token["instance"]:
            scopes.append(token["instance"])
            names.append(token["instance"])
            nets.setdefault("/".join(names), [])
        elif token["net"]:
            times = {kind: int(value) for kind, value in _TIME.findall(token["times"])}
            if "TC" not in times or "T1" not in times or not names:
                raise ForestageError(f"{path}: net {token['net']}: no TC and T1 in an instance; give a whole SAIF file")
            nets["/".join(names)].append((times["TC"], times["T1"]))
            longest = max(longest, times["T1"])
            if token["net"] == clock and times["TC"] > ticks:
                ticks, ticks_high = times["TC"], times["T1"]
            elif token["net"] == counted:
                window = max(window, times["T1"])
        elif token["open"]:
            scopes.append(None)
        else:
            if not scopes:
                raise ForestageError(f"{path}: more is closed than was opened; give a whole SAIF file")
            if scopes.pop() is not None:
                names.pop()
    if scopes:
        raise ForestageError(f"{path}: ends in the middle; run the simulation again")
    if ticks < 2 or not ticks_high:
        raise ForestageError(f"{path}: net {clock} does not toggle; give the clock's name")
    cycles = ticks // 2 if counted is None else round(window * (ticks // 2) / (2 * ticks_high))
    if not cycles:
        raise ForestageError(f"{path}: net {counted} is never high; run it for longer")
    return Activity(
        {
            where: Nets(len(found), sum(count - (count == 1 and high == longest) for count, high in found))
            for where, found in nets.items()
        },
        cycles,
    )
