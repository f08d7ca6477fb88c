"""The description of a foreign format in the registry."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from traces.expert_load import ExpertLoad
from traces.importers.options import ImportOptions
from traces.importers.report import Report
from traces.trace import RoutingTrace


@dataclass(frozen=True)
class Importer:
    """A foreign format.

    Attributes:
        name: as given to ``--format``.
        description: one line for the help.
        sniff: returns whether a source looks like the format; it gets a file with its first bytes (unzipped if it is
            gzipped) or, if ``folders``, a folder without bytes.
        read: returns a source's routing or loads; it gets no options other than those named in ``uses``.
        uses: fields of ``ImportOptions`` that the format uses.
        folders: whether sources may be folders.
        files: whether sources may be files.
    """

    name: str
    description: str
    sniff: Callable[[Path, bytes], bool]
    read: Callable[[Path, ImportOptions, Report], RoutingTrace | ExpertLoad]
    uses: frozenset[str] = frozenset()
    folders: bool = False
    files: bool = True
