"""Write a figure to its own file."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog.errors import ForestageError
from catalog.files import atomic_path, check_writable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Metadata to leave out, because they would differ from run to run.
_METADATA: dict[str, dict[str, Any]] = {
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    ".png": {"Software": None},
}

PNG_DOTS_PER_INCH = 200


def check_figure_path(path: Path) -> None:
    """Raise unless a figure can be written to ``path``, whose ending selects the format.

    Raises:
        ForestageError: naming the file and the formats, or why it cannot be written.
    """
    if path.suffix.lower() not in _METADATA:
        raise ForestageError(f"{path}: a figure is written as {', '.join(_METADATA)}; end the name with one of these")
    check_writable(path)


def write_figure(figure: "Figure", path: Path) -> None:
    """Write ``figure`` to ``path`` in the format that its ending selects; the same data give the same bytes.

    Raises:
        ForestageError: if the ending is not that of a figure format, or the file cannot be written.
    """
    import matplotlib  # takes half a second

    check_figure_path(path)
    kind = path.suffix.lower()
    with atomic_path(path) as temporary, matplotlib.rc_context({"svg.hashsalt": "forestage"}):
        figure.savefig(temporary, format=kind[1:], metadata=_METADATA[kind], dpi=PNG_DOTS_PER_INCH)
