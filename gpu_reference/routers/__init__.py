"""Record what routers choose: forward hooks on a model's routers, one adapter per architecture, every id checked.

To capture from another architecture, register an adapter under the class name of its router:

    register_router("OtherTopKRouter", TopKRule("sigmoid", normalised=True, bias="correction"))

A package registers one by an entry point of the group ``forestage.routers``.
"""

from gpu_reference.routers.adapter import LayerRouting, RouterAdapter, RouterOutput
from gpu_reference.routers.check import check_routing
from gpu_reference.routers.early_gate import EarlyGates
from gpu_reference.routers.recorder import RoutingRecorder
from gpu_reference.routers.registry import known_routers, register_from, register_router
from gpu_reference.routers.rule import TopKRule

__all__ = [
    "EarlyGates",
    "LayerRouting",
    "RouterAdapter",
    "RouterOutput",
    "RoutingRecorder",
    "TopKRule",
    "check_routing",
    "known_routers",
    "register_from",
    "register_router",
]
