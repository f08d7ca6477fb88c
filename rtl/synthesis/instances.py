"""Instances in generated Verilog, and what the records of a synthesis call their blocks."""

import re
from collections.abc import Iterator

_NAME = r"(?:\\\S+ |\w+)"
_MODULE = re.compile(rf"^module ({_NAME}).*?^endmodule", re.MULTILINE | re.DOTALL)
_INSTANCE = re.compile(rf"^  ({_NAME}) +({_NAME}) *\($", re.MULTILINE)


def instances(verilog: str, top: str) -> dict[str, str]:
    """Path of each instance, by ``/`` from ``top`` (itself the empty path) → its module.

    Raises:
        ValueError: there is no such module.
    """
    modules = {_plain(found[1]): found[0] for found in _MODULE.finditer(verilog)}
    if top not in modules:
        raise ValueError(f"no module {top}")
    inside = {
        name: [(_plain(one), _plain(kind)) for kind, one in _INSTANCE.findall(text) if _plain(kind) in modules]
        for name, text in modules.items()
    }
    return dict(_walk("", top, inside))


def block_name(module: str, unit: str) -> str:
    """What a record of a unit calls a module: its path within the module ``unit``; a part that is shared, by its name.

    As ``rtl.synthesis.hierarchy.Design.labels``.
    """
    bare, start = re.sub(r"\$\d+(?=\.|$)", "", module), re.sub(r"\$\d+(?=\.|$)", "", unit)
    return bare[len(start) :].lstrip(".") if bare == start or bare.startswith(f"{start}.") else bare


def _plain(name: str) -> str:
    return name.strip().removeprefix("\\")


def _walk(path: str, module: str, inside: dict[str, list[tuple[str, str]]]) -> Iterator[tuple[str, str]]:
    yield path, module
    for name, kind in inside[module]:
        yield from _walk(f"{path}/{name}".lstrip("/"), kind, inside)
