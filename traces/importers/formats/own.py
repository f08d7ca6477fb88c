"""The project's own files: traces and loads, both safetensors, told by the format in the header."""

from pathlib import Path

from traces import expert_load, trace_file
from traces.expert_load import ExpertLoad
from traces.importers.assembly.array_file import is_safetensors
from traces.importers.importer import Importer
from traces.importers.options import ImportOptions
from traces.importers.report import Report
from traces.trace import RoutingTrace


def is_load(path: Path, start: bytes) -> bool:
    """A safetensors file whose header has the loads' format."""
    return is_safetensors(start) and f'"{expert_load.FORMAT}"'.encode() in start


def is_trace(path: Path, start: bytes) -> bool:
    """A safetensors file whose header has the traces' format, or a trace's largest tensor."""
    return is_safetensors(start) and (f'"{trace_file.FORMAT}"'.encode() in start or b'"expert_ids"' in start)


def read_trace(path: Path, options: ImportOptions, report: Report) -> RoutingTrace:
    """A trace in the project's own format, with its contents checked whatever its size.

    Raises:
        ForestageError: as ``RoutingTrace.load``.
    """
    return RoutingTrace.load(path, validate=True)


def read_load(path: Path, options: ImportOptions, report: Report) -> ExpertLoad:
    """Loads in the project's own format.

    Raises:
        ForestageError: as ``ExpertLoad.load``.
    """
    return ExpertLoad.load(path)


TRACE = Importer("safetensors", "the project's own trace", is_trace, read_trace)
LOAD = Importer("safetensors_load", "the project's own expert loads", is_load, read_load)
