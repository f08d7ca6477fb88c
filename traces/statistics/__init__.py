"""Statistics of a trace's routing: one module per subject, each with its definitions in its docstring."""

from traces.statistics.batches import BatchSizeStatistics, BatchStatistics, batch_statistics
from traces.statistics.cross_layer import CrossLayerStatistics, LayerPairStatistics, cross_layer_statistics
from traces.statistics.routing import DomainStatistics, RoutingStatistics, TraceStatistics, statistics
from traces.statistics.working_sets import WorkingSet, WorkingSetStatistics, working_set_statistics

__all__ = [
    "BatchSizeStatistics",
    "BatchStatistics",
    "CrossLayerStatistics",
    "DomainStatistics",
    "LayerPairStatistics",
    "RoutingStatistics",
    "TraceStatistics",
    "WorkingSet",
    "WorkingSetStatistics",
    "batch_statistics",
    "cross_layer_statistics",
    "statistics",
    "working_set_statistics",
]
