"""Reading what a router chose: forward hooks on a model's routers, one adapter an architecture, every id checked.

To capture from another architecture, register an adapter under the class name of its router:

    register_router("OtherTopKRouter", OtherAdapter())
"""

from gpu_reference.routers.adapter import LayerRouting, RouterAdapter, RouterOutput
from gpu_reference.routers.check import check_routing
from gpu_reference.routers.recorder import RoutingRecorder, known_routers, register_router

__all__ = [
    "LayerRouting",
    "RouterAdapter",
    "RouterOutput",
    "RoutingRecorder",
    "check_routing",
    "known_routers",
    "register_router",
]
