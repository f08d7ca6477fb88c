"""Finished sequences of a capture, kept until all are there, so that an interrupted one goes on where it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from catalog.errors import ForestageError
from traces import RoutingTrace
from traces.files import write_text
from traces.writer import TraceWriter

if TYPE_CHECKING:
    from traces import TraceMetadata

SETTINGS_FILE = "capture.json"


class CaptureParts:
    """The folder ``OUT.parts``: the settings of the capture, and a trace file a finished sequence.

    Args:
        out: the trace to be written.
        settings: everything that decides what is recorded.

    Raises:
        ForestageError: if the folder was begun with other settings, or cannot be written.
    """

    def __init__(self, out: Path, settings: dict[str, str]) -> None:
        self.out = out
        self.folder = out.with_name(out.name + ".parts")
        file = self.folder / SETTINGS_FILE
        if file.is_file():
            _check_settings(file, settings)
        else:
            write_text(file, json.dumps(settings, indent=2, sort_keys=True) + "\n")

    def has(self, index: int) -> bool:
        """Whether sequence ``index`` is finished."""
        return self._file(index).is_file()

    def add(self, index: int, sequence: RoutingTrace) -> None:
        """Keep the finished sequence ``index``."""
        sequence.save(self._file(index))

    def join(self, count: int) -> TraceMetadata:
        """Write sequences 0 … ``count`` − 1 to ``out`` and remove the folder; returns their metadata.

        Raises:
            ForestageError: if a part is damaged, or the trace cannot be written.
        """
        metadata = RoutingTrace.load(self._file(0)).metadata
        with TraceWriter(self.out, metadata) as writer:
            for index in range(count):
                writer.append(RoutingTrace.load(self._file(index)))
        shutil.rmtree(self.folder)
        return metadata

    def _file(self, index: int) -> Path:
        return self.folder / f"{index:07d}.safetensors"


def _check_settings(file: Path, settings: dict[str, str]) -> None:
    """Raise where ``file`` holds other settings."""
    try:
        begun = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ForestageError(f"{file}: cannot be read; delete its folder to capture anew") from error
    if begun != settings:
        known = begun if isinstance(begun, dict) else {}
        name = next(name for name in sorted({*known, *settings}, key=str) if known.get(name) != settings.get(name))
        raise ForestageError(
            f"{file}: a capture was begun with another {name} ({known.get(name)}, now {settings.get(name)}); "
            "give the same, or delete its folder to capture anew"
        )
