"""Recorded routing: the trace type, its file, importers, exporters, statistics and splits."""

from traces.metadata import GateWeightKind, TraceMetadata
from traces.schema import DECODE, PREFILL, id_dtype
from traces.split import split
from traces.trace import RoutingTrace

__all__ = ["DECODE", "PREFILL", "GateWeightKind", "RoutingTrace", "TraceMetadata", "id_dtype", "split"]
