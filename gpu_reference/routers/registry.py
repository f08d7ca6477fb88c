"""Find the adapter for each class of router: built-in ones, installed packages' and the user's own."""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from catalog.errors import ForestageError
from gpu_reference.routers.adapter import RouterAdapter
from gpu_reference.routers.architectures import TRANSFORMERS

ENTRY_POINTS = "forestage.routers"
"""Group of the entry points: name = a router's class name, value = an adapter or a class of adapters."""

_METHODS = ("gate_weight_kind", "read", "select", "margin", "weigh", "scale", "agrees")

_REGISTERED: dict[str, RouterAdapter] = {}


def register_router(class_name: str, adapter: RouterAdapter) -> None:
    """Let `RoutingRecorder` read routers of the class ``class_name`` by ``adapter``, also instead of a built-in one.

    Raises:
        ForestageError: if ``adapter`` lacks a method of `RouterAdapter`.
    """
    _REGISTERED[class_name] = _checked(adapter, f"the adapter of {class_name}")


def register_from(place: str) -> list[str]:
    """Register the adapter at ``place``, "module:Name", under the class names in its attribute ``routers``.

    The current folder is searched for the module too. Returns the class names.

    Raises:
        ForestageError: if it cannot be imported or is not an adapter.
    """
    module_name, separator, name = place.partition(":")
    if not separator or not module_name or not name:
        raise ForestageError(f"--adapter {place}: write module:Name, such as my_router:MyRouterAdapter")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # at the end, so that no file here hides an installed module
    importlib.invalidate_caches()
    try:
        value = getattr(importlib.import_module(module_name), name)
    except Exception as error:  # a user's module may raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ForestageError(f"--adapter {place}: cannot be imported ({reason})") from error
    adapter = _checked(value, f"--adapter {place}")
    names = getattr(adapter, "routers", None)
    if isinstance(names, str):
        names = (names,)
    if not isinstance(names, (tuple, list)) or not names or not all(isinstance(one, str) for one in names):
        raise ForestageError(f'--adapter {place}: lacks routers = ("ItsRouter", …), the class names that it is for')
    for router in names:
        register_router(router, adapter)
    return list(names)


def adapters() -> dict[str, RouterAdapter]:
    """Class name of a router → adapter; registered ones override installed packages', which override built-in ones.

    Raises:
        ForestageError: if an installed package's adapter cannot be loaded.
    """
    return {**TRANSFORMERS, **_installed(), **_REGISTERED}


def known_routers() -> list[str]:
    """Class names of the routers that can be recorded."""
    return sorted(adapters())


def _installed() -> dict[str, RouterAdapter]:
    found: dict[str, RouterAdapter] = {}
    for point in entry_points(group=ENTRY_POINTS):
        origin = f"entry point {point.name} = {point.value} ({ENTRY_POINTS})"
        try:
            value = point.load()
        except Exception as error:  # another package's module may raise anything
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise ForestageError(f"{origin}: cannot be loaded ({reason}); mend or remove that package") from error
        found[point.name] = _checked(value, origin)
    return found


def _checked(value: Any, origin: str) -> RouterAdapter:
    """``value``, or an instance of it if it is a class."""
    try:
        adapter = value() if isinstance(value, type) else value
    except Exception as error:  # a user's class may raise anything
        raise ForestageError(f"{origin}: {value.__name__}() failed ({' '.join(str(error).split())[:200]})") from error
    lacking = [name for name in _METHODS if not callable(getattr(adapter, name, None))]
    if lacking:
        raise ForestageError(
            f"{origin}: lacks {', '.join(lacking)}; derive it from gpu_reference.routers.TopKRule, or see RouterAdapter"
        )
    checked: RouterAdapter = adapter
    return checked
