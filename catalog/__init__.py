"""Published constants, each with its source, and the errors every package raises."""

from catalog.attention import FixedState, GroupedQueryAttention, HybridAttention, LatentAttention
from catalog.catalogue import Catalog, Records, load_catalog
from catalog.config import StrictModel
from catalog.dram import DramRecord, PimBlocks
from catalog.energy import EnergyRecord
from catalog.errors import ForestageError
from catalog.host_memories import HostMemoryRecord
from catalog.machines import MachineRecord
from catalog.models import ModelRecord
from catalog.records import Evidence, Record, Source
from catalog.sram import SramRecord

__all__ = [
    "Catalog",
    "DramRecord",
    "EnergyRecord",
    "Evidence",
    "FixedState",
    "ForestageError",
    "GroupedQueryAttention",
    "HostMemoryRecord",
    "HybridAttention",
    "LatentAttention",
    "MachineRecord",
    "ModelRecord",
    "PimBlocks",
    "Record",
    "Records",
    "Source",
    "SramRecord",
    "StrictModel",
    "find_model",
    "load_catalog",
]


def find_model(name: str) -> ModelRecord:
    """The model of that name in the shipped catalogue and the user's.

    Raises:
        ForestageError: naming the nearest known model.
    """
    return load_catalog().find_model(name)
