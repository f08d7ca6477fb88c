"""Put the parts of a trace together in a temporary file, if they are too large for memory."""

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from traces.trace import RoutingTrace
from traces.writer import TraceWriter


def gather_in_file(parts: Iterable[tuple[RoutingTrace, bool]], whole: RoutingTrace) -> RoutingTrace:
    """The trace made of ``parts``, mapped from a temporary file that exists as long as any array of it.

    The file lies in the folder that ``TMPDIR`` names.

    Args:
        parts: pieces of ``whole``, each with whether its first sequence continues the last one of the piece before.
        whole: the trace that gives metadata and origin.

    Raises:
        ForestageError: if there are no parts, or the file cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="forestage-") as folder:
        path = Path(folder) / "selection.safetensors"
        with TraceWriter(path, whole.metadata) as writer:
            for part, continues in parts:
                writer.append(part, continues=continues)
        # The file's name goes with the folder; the mapping keeps its contents, which were checked when written.
        return replace(RoutingTrace.load(path, validate=False), content="checked", origin=whole.origin)
