"""What was routed: the trace type, its file, importers, statistics and splits."""

from traces.metadata import GateWeightKind, TraceMetadata
from traces.split import split
from traces.trace import DECODE, PREFILL, RoutingTrace, id_dtype

__all__ = ["DECODE", "PREFILL", "GateWeightKind", "RoutingTrace", "TraceMetadata", "id_dtype", "split"]
