"""Parts of a trace put together as one in a temporary file, where they are too large for memory."""

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from traces.trace import RoutingTrace
from traces.writer import TraceWriter


def gather_in_file(parts: Iterable[tuple[RoutingTrace, bool]], whole: RoutingTrace) -> RoutingTrace:
    """The trace of ``parts``, mapped from a temporary file that goes when the last array of it does.

    The file lies where ``TMPDIR`` says.

    Args:
        parts: pieces of ``whole``, and whether the first sequence of each is the rest of the last one's last sequence.
        whole: gives the metadata and the origin.

    Raises:
        ForestageError: if there are no parts, or the file cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="forestage-") as folder:
        path = Path(folder) / "selection.safetensors"
        with TraceWriter(path, whole.metadata) as writer:
            for part, continues in parts:
                writer.append(part, continues=continues)
        # The name goes with the folder; the mapping keeps the contents. They were checked as they were written.
        return replace(RoutingTrace.load(path, validate=False), content="checked", origin=whole.origin)
