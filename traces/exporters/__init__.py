"""Write recordings in the formats that other simulators, servers and analyses read."""

from dataclasses import dataclass
from pathlib import Path

from catalog.errors import ForestageError
from catalog.progress import Progress
from traces.batch import BatchSchedule
from traces.expert_load import ExpertLoad
from traces.exporters.exporter import FACTS, OF_TOKENS, Exporter, ExportOptions, Source
from traces.exporters.formats import (
    eplb,
    jsonl_routes,
    llmservingsim,
    npz,
    sglang_expert_location,
    table,
    vllm_ascend_expert_map,
)
from traces.trace import RoutingTrace

__all__ = [
    "FACTS",
    "FORMATS",
    "ExportOptions",
    "Exported",
    "Exporter",
    "check_export",
    "export_recording",
    "find_exporter",
]

FORMATS: dict[str, Exporter] = {
    exporter.name: exporter
    for exporter in (
        table.EXPORTER,
        npz.EXPORTER,
        jsonl_routes.EXPORTER,
        eplb.EXPORTER,
        sglang_expert_location.EXPORTER,
        vllm_ascend_expert_map.EXPORTER,
        llmservingsim.EXPORTER,
    )
}
"""Formats by name."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        format: the format's name in ``FORMATS``.
        files: the written files, the one that the caller named first.
        lost: names of ``FACTS`` that the recording states and the files do not.
    """

    format: str
    files: tuple[Path, ...]
    lost: tuple[str, ...]

    @property
    def warning(self) -> str | None:
        """What is lost, on one line; if tokens are lost, facts about tokens are not listed."""
        told = [fact for fact in self.lost if "tokens" not in self.lost or fact not in OF_TOKENS]
        if not told:
            return None
        return f"{self.files[0]}: the format {self.format} does not hold {', '.join(FACTS[fact] for fact in told)}"


def find_exporter(format: str, path: Path, options: ExportOptions) -> Exporter:
    """The exporter ``format``, if it can write a file named like ``path`` and uses all given ``options``.

    Raises:
        ForestageError: naming what does not fit.
    """
    exporter = FORMATS.get(format)
    if exporter is None:
        raise ForestageError(f"--format {format}: unknown format; known are {', '.join(FORMATS)}")
    if path.suffix not in exporter.suffixes:
        raise ForestageError(
            f"--out {path}: the format {format} is written to a file that ends in {' or '.join(exporter.suffixes)}"
        )
    for option in options.given():
        if option not in exporter.uses:
            raise ForestageError(f"--{option.replace('_', '-')}: the format {format} has no use for it; leave it out")
    return exporter


def check_export(
    recording: RoutingTrace | ExpertLoad,
    format: str,
    path: Path,
    options: ExportOptions,
    *,
    schedule: BatchSchedule | None = None,
) -> tuple[Exporter, Source]:
    """The exporter, and the source for it, after checking that it can be written; nothing is written.

    Raises:
        ForestageError: if the format is unknown or cannot express the recording, or an option is missing or unused.
    """
    exporter = find_exporter(format, path, options)
    if isinstance(recording, ExpertLoad) and not exporter.takes_loads:
        loads = ", ".join(name for name, one in FORMATS.items() if one.takes_loads)
        raise ForestageError(
            f"{recording.origin}: holds expert loads, not which experts each token chose; of them are written: {loads}"
        )
    source = Source(recording.checked() if isinstance(recording, RoutingTrace) else recording, schedule)
    exporter.check(source, path, options)
    return exporter, source


def export_recording(
    recording: RoutingTrace | ExpertLoad,
    format: str,
    path: str | Path,
    options: ExportOptions | None = None,
    *,
    schedule: BatchSchedule | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Write ``recording`` at ``path``, atomically, walking it in chunks.

    Args:
        recording: a trace, or expert loads.
        format: a name of ``FORMATS``.
        path: the file to write; a format of several files puts the others beside it.
        options: the format's options.
        schedule: the batch schedule of the trace, if there is one.
        progress: called with (done, total) tokens.

    Raises:
        ForestageError: as ``check_export``, and if a file cannot be written.
    """
    path, options = Path(path), options or ExportOptions()
    exporter, source = check_export(recording, format, path, options, schedule=schedule)
    files = exporter.write(source, path, options, progress or (lambda done, total: None))
    return Exported(format, files, exporter.lost(source, path, options))
