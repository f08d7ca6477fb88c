"""What the registry knows of a foreign format."""

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
        sniff: whether a source looks like the format: a file, with the first bytes of what it holds (unzipped where it
            is gzipped), or, where ``folders``, a folder, with no bytes.
        read: the routing, or the loads, in a source; options other than those named in ``uses`` never arrive.
        uses: fields of ``ImportOptions`` that the format has a use for.
        folders: sources may be folders.
        files: sources may be files.
    """

    name: str
    description: str
    sniff: Callable[[Path, bytes], bool]
    read: Callable[[Path, ImportOptions, Report], RoutingTrace | ExpertLoad]
    uses: frozenset[str] = frozenset()
    folders: bool = False
    files: bool = True
