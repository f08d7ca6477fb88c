"""Keep the finished sequences of a capture until all are done, so that it can continue after an interruption."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from catalog.errors import ForestageError
from catalog.files import write_text
from gpu_reference.capturing.early_gate_file import join_parts, predictions_path, write_part
from traces import RoutingTrace
from traces.writer import TraceWriter

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from traces import TraceMetadata

SETTINGS_FILE = "capture.json"


class CaptureParts:
    """The folder ``OUT.parts``: the capture's settings, and the recording of each finished sequence.

    Nothing is written before the first sequence is finished, so that a refused start leaves nothing behind.

    Args:
        out: the trace to be written.
        settings: everything that determines what is recorded.
        lookaheads: lookaheads of the early gates; each has its own file.

    Raises:
        ForestageError: if the folder was begun with other settings, or it or ``out`` cannot be written.
    """

    def __init__(self, out: Path, settings: dict[str, str], lookaheads: tuple[int, ...] = ()) -> None:
        self.out = out
        self.folder = out.with_name(out.name + ".parts")
        self._settings = settings
        self._lookaheads = lookaheads
        for path in (out, *self.predictions):
            if path.is_dir():
                raise ForestageError(f"{path}: is a folder; give the name of a file")
        if self.folder.exists() and not self.folder.is_dir():
            raise ForestageError(f"{self.folder}: is no folder; unfinished sequences are kept there, move it away")
        if (self.folder / SETTINGS_FILE).is_file():
            _check_settings(self.folder / SETTINGS_FILE, settings)
        _check_writable(self.folder if self.folder.is_dir() else out)

    @property
    def predictions(self) -> list[Path]:
        """The files with the rankings of early gates, one per lookahead."""
        return [predictions_path(self.out, lookahead) for lookahead in self._lookaheads]

    def has(self, index: int) -> bool:
        """Whether sequence ``index`` is finished."""
        return (self.folder / SETTINGS_FILE).is_file() and self._file(index).is_file()

    def add(self, index: int, sequence: RoutingTrace, early: Mapping[int, np.ndarray]) -> None:
        """Keep the finished sequence ``index``, and the rankings of its early gates by lookahead.

        Raises:
            ForestageError: if it cannot be kept; a folder made by this call is then removed.
        """
        begins = not self.folder.exists()
        try:
            if not (self.folder / SETTINGS_FILE).is_file():
                write_text(self.folder / SETTINGS_FILE, json.dumps(self._settings, indent=2, sort_keys=True) + "\n")
            for lookahead, ids in early.items():
                write_part(self._early_file(index, lookahead), ids)
            sequence.save(self._file(index))
        except BaseException:
            if begins:
                shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def join(self, count: int) -> TraceMetadata:
        """Write sequences 0 … ``count`` − 1 to ``out``, remove the folder, and return the trace's metadata.

        Raises:
            ForestageError: if a part is damaged, or the trace cannot be written.
        """
        metadata = RoutingTrace.load(self._file(0)).metadata
        with TraceWriter(self.out, metadata) as writer:
            for index in range(count):
                writer.append(RoutingTrace.load(self._file(index)))
        for lookahead, path in zip(self._lookaheads, self.predictions, strict=True):
            early = (self._early_file(index, lookahead) for index in range(count))
            join_parts(path, early, RoutingTrace.load(self.out), lookahead)
        shutil.rmtree(self.folder)
        return metadata

    def _file(self, index: int) -> Path:
        return self.folder / f"{index:07d}.safetensors"

    def _early_file(self, index: int, lookahead: int) -> Path:
        return self.folder / f"{index:07d}.early-{lookahead}.safetensors"


def _check_writable(path: Path) -> None:
    """Raise unless ``path``, or the nearest existing folder above it, can be written."""
    place = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.is_dir())
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise ForestageError(f"{path}: cannot write ({above} is no writable folder); choose a writable folder")


def _check_settings(file: Path, settings: dict[str, str]) -> None:
    """Raise if ``file`` holds other settings."""
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
