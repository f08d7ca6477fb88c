"""Open the recordings that commands name, and say on stderr what is suspicious about them."""

import sys
from collections.abc import Iterable
from pathlib import Path

from catalog.catalogue import call_registered, unclaimed
from catalog.errors import ForestageError
from study.synthetic import tell_fit
from traces import RoutingTrace, split
from traces.batch import BatchSchedule
from traces.batch_file import has_schedule, load_schedule
from traces.expert_load import REFUSAL, ExpertLoad
from traces.importers import OWN_TRACE, Imported, ImportOptions, import_recording, suspicions


def open_recording(path: Path, model: str | None = None, *, batch_aside: bool = False) -> RoutingTrace | ExpertLoad:
    """The trace, or the expert loads, at ``path``; suspicious facts are printed on stderr, for own files too.

    Args:
        path: the recording.
        model: the recording's model, if the recording does not name it.
        batch_aside: whether to print that the caller does not use a batch schedule in the file.

    Raises:
        ForestageError: naming the file and the fault.
    """
    imported = _import(path, model)
    tell_warnings(imported.warnings)
    if isinstance(imported.recording, RoutingTrace):
        if imported.format == OWN_TRACE:  # for other formats the import has printed them
            tell_warnings(suspicions(imported.recording))
        tell_fit(imported.recording.metadata)
        if batch_aside:
            _tell_batch_aside(path, imported)
    return imported.recording


def open_trace(path: Path, model: str | None = None, *, own_suspicions: bool = False) -> RoutingTrace:
    """The trace at ``path``, for a command that takes sequences one by one: says if a batch schedule is not used.

    Args:
        path: the trace.
        model: the trace's model, if the trace does not name it.
        own_suspicions: whether to print suspicious facts also for own files, for which the import has printed them.

    Raises:
        ForestageError: naming the file and the fault; also for a file of loads, which tell nothing about single tokens.
    """
    imported = _import(path, model)
    trace = _routing(imported, path)
    if own_suspicions and imported.format == OWN_TRACE:
        tell_warnings(suspicions(trace))
    _tell_batch_aside(path, imported)
    return trace


def open_batched(path: Path, model: str | None = None) -> tuple[RoutingTrace, BatchSchedule | None]:
    """The trace at ``path``, as ``open_trace``, and the batch schedule in the file if there is one."""
    imported = _import(path, model)
    return _routing(imported, path), load_schedule(path) if imported.format == OWN_TRACE else None


def _routing(imported: Imported, path: Path) -> RoutingTrace:
    """The trace, after printing suspicious facts; loads are refused."""
    if isinstance(imported.recording, ExpertLoad):
        raise ForestageError(f"{path}: {REFUSAL}")
    tell_warnings(imported.warnings)
    tell_fit(imported.recording.metadata)
    return imported.recording


def _tell_batch_aside(path: Path, imported: Imported) -> None:
    """Say on stderr that a batch schedule in the file is not used."""
    if imported.format == OWN_TRACE and has_schedule(path):
        tell_warnings([f"{path}: its batch schedule is left aside: sequences are taken one by one, not as a batch"])


def _import(path: Path, model: str | None) -> Imported:
    """Import ``path``; from here on the model of ``--config`` is known by the name in it."""
    model = model or unclaimed()
    imported = import_recording(path, options=ImportOptions.parse({"model": model}, origin="--model"))
    call_registered(imported.recording.metadata.model)
    return imported


def tell_warnings(warnings: Iterable[str]) -> None:
    """Print each warning on its own line on stderr."""
    for warning in warnings:
        print(f"forestage: warning: {warning}", file=sys.stderr)


def require_test_sequences(trace: RoutingTrace, path: Path) -> None:
    """Raise unless the split of ``trace``, read from ``path``, has test sequences.

    Raises:
        ForestageError: naming the file.
    """
    if not len(split(trace)[1]):
        raise ForestageError(f"{path}: no test sequences: a fifth of a dataset's; give a trace of more sequences")
