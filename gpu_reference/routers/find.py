"""Find a model's routers, of known and of unknown classes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from catalog.errors import ForestageError
from gpu_reference.routers.adapter import RouterAdapter
from gpu_reference.routers.inferred import InferredRule
from gpu_reference.routers.registry import adapters

_ROUTER = re.compile(r"router|gate|gating|topk|top_k|switch", re.IGNORECASE)
_NO_ROUTER = re.compile(r"shared|proj|norm|delta|act|mlp", re.IGNORECASE)


@dataclass(frozen=True)
class FoundRouter:
    """One router: its name and module, its adapter, and the experts that its block calls with its choice."""

    name: str
    router: Any
    adapter: RouterAdapter
    experts: Any | None


def find_routers(model: Any, *, trust: bool = False) -> list[FoundRouter]:
    """All routers of ``model``, in the order of its modules.

    If a block has ``experts`` but no router of a known class, an `InferredRule` reads the choice from the arguments of
    the experts' call. With ``trust``, such a choice is recorded even if no rule explains it.

    Raises:
        ForestageError: if there is no router, or a block whose router cannot be found; names modules that look like
            one.
    """
    import torch

    known = adapters()
    modules = dict(model.named_modules())
    found: list[FoundRouter] = []
    unread: list[str] = []
    for name, module in modules.items():
        adapter = known.get(type(module).__name__)
        block = modules.get(name.rpartition(".")[0])
        if adapter is not None:
            experts = getattr(block, "experts", None)
            called = isinstance(experts, torch.nn.Module) and not isinstance(experts, torch.nn.ModuleList)
            found.append(FoundRouter(name, module, adapter, experts if called else None))
    for name, block in modules.items():
        experts = block._modules.get("experts")
        if experts is None or any(layer_of(one.name) == layer_of(name) for one in found):
            continue
        candidates = [
            child
            for child, module in block.named_children()
            if child != "experts" and _looks_like_router(child, module)
        ]
        if len(candidates) == 1 and not isinstance(experts, torch.nn.ModuleList):
            router = getattr(block, candidates[0])
            place = f"{name}.{candidates[0]}" if name else candidates[0]
            found.append(FoundRouter(place, router, InferredRule(block, place, trust=trust), experts))
        else:
            unread.append(name)
    if unread or not found:
        raise ForestageError(_message(model, modules, unread, known))
    order = {name: place for place, name in enumerate(modules)}
    return sorted(found, key=lambda one: order[one.name])


def layer_of(name: str) -> str:
    """A module's name up to its first number: ``model.layers.7.mlp.gate`` → ``model.layers.7``."""
    parts = name.split(".")
    number = next((place for place, part in enumerate(parts) if part.isdigit()), len(parts))
    return ".".join(parts[: number + 1])


def _looks_like_router(name: str, module: Any) -> bool:
    """Whether a module's name or its class's name mentions routing."""
    own, kind = name.rpartition(".")[2], type(module).__name__
    speaks = bool(_ROUTER.search(kind)) or bool(_ROUTER.search(own))
    return speaks and not _NO_ROUTER.search(own) and not (_NO_ROUTER.search(kind) and not _ROUTER.search(own))


def _message(model: Any, modules: dict[str, Any], unread: list[str], known: dict[str, RouterAdapter]) -> str:
    """The error: what was not found, which modules look like it, and how to register an adapter."""
    inside = tuple(f"{name}." for name in unread)
    alike: dict[str, list[str]] = {}
    for name, module in modules.items():
        if name and _looks_like_router(name, module) and (not unread or name.startswith(inside)):
            alike.setdefault(type(module).__name__, []).append(name)
    seen = "; ".join(
        f"{kind} at {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
        for kind, names in alike.items()
    )
    where = f" (first block with experts: {unread[0]})" if unread else ""
    return (
        f"{type(model).__name__}: no router of a known class{where}; "
        f"looks like one: {seen or 'nothing, it may be a dense model'}; "
        "write an adapter for it and give --adapter module:Name (docs/capture.md, 'A router of your own')"
    )
