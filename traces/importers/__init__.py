"""Foreign trace formats, told apart by their first bytes or named by the user."""

from pathlib import Path

from catalog.errors import ForestageError
from traces.importers import big_moe_on_edge, npz
from traces.importers.big_moe_on_edge import Residency, read_residency
from traces.importers.common import Importer
from traces.trace import RoutingTrace

__all__ = ["FORMATS", "Importer", "Residency", "import_trace", "read_residency", "sniff_format"]

SNIFFED_BYTES = 512


def _sniff_own(path: Path, start: bytes) -> bool:
    """A safetensors header (a length, then JSON), or a file named ``.safetensors``."""
    return path.suffix == ".safetensors" or (len(start) > 8 and start[8:9] == b"{" and start[6:8] == b"\0\0")


def _read_own(path: Path, model: str | None) -> RoutingTrace:
    """A trace in the project's own format, with its contents checked whatever its size."""
    if model is not None:
        raise ForestageError(f"{path}: --model: a safetensors trace names its own model; leave the option out")
    return RoutingTrace.load(path, validate=True)


FORMATS: dict[str, Importer] = {
    importer.name: importer
    for importer in (
        Importer("safetensors", "the project's own format", _sniff_own, _read_own),
        npz.IMPORTER,
        big_moe_on_edge.IMPORTER,
    )
}
"""Formats by name, in the order in which they are tried."""


def sniff_format(source: Path) -> str:
    """The name of the format that ``source`` is in.

    Raises:
        ForestageError: if the file cannot be read or looks like no known format.
    """
    try:
        with source.open("rb") as file:
            start = file.read(SNIFFED_BYTES)
    except OSError as error:
        raise ForestageError(f"{source}: cannot read ({error.strerror})") from error
    if not start:
        raise ForestageError(f"{source}: empty file")
    for name, importer in FORMATS.items():
        if importer.sniff(source, start):
            return name
    raise ForestageError(f"{source}: no known trace format; known are {', '.join(FORMATS)} (choose one with --format)")


def import_trace(source: str | Path, format: str | None = None, *, model: str | None = None) -> RoutingTrace:
    """The trace in ``source``, checked whole; the project's own files are mapped, others converted in memory.

    Args:
        source: a trace file in any known format.
        format: a name of ``FORMATS``; ``None`` looks at the file.
        model: name of a catalogue model, for files that name none.

    Raises:
        ForestageError: if the format is unknown or the file faulty; the line names the file, the field and the row.
    """
    path = Path(source)
    if format is not None and format not in FORMATS:
        raise ForestageError(f"--format {format}: unknown format; known are {', '.join(FORMATS)}")
    name = sniff_format(path) if format is None else format
    if path.is_dir() or not path.exists():
        raise ForestageError(f"{path}: {'is a folder; name the file' if path.is_dir() else 'no such file'}")
    return FORMATS[name].read(path, model)
