"""Mark results on a synthetic trace: by a word, and by the errors of the fit."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from study.numbers import fixed
from study.output import tell
from traces.metadata import FittedFigure, SynthesisFit, TraceMetadata

NAMES = {
    "temporal_overlap": ("overlap of consecutive tokens", "× K²/N"),
    "sequence_overlap": ("overlap within a sequence", "× K²/N"),
    "domain_overlap": ("overlap within a domain", "× K²/N"),
    "load_entropy": ("load entropy", "of log N"),
    "hottest_over_mean": ("hottest expert's load", "× mean"),
    "mutual_information": ("mutual information of adjacent layers", "of log₂(N/K)"),
}
"""Figure of a fit → its name for readers, and its unit."""


def synthetic_mark(metadata: TraceMetadata) -> str:
    """The mark behind a synthetic trace's name, with the largest error of the fit; empty for a recorded trace."""
    if metadata.synthesis is None:
        return plain_mark(metadata.synthetic)
    name, figure = max(metadata.synthesis.figures.items(), key=lambda item: abs(item[1].error))
    return f" [red](synthetic; largest error of the fit: {NAMES[name][0]} {error_text(figure)})[/red]"


def plain_mark(synthetic: bool) -> str:
    """The mark behind a name, for a result without the fit; empty for a recorded trace."""
    return " [red](synthetic)[/red]" if synthetic else ""


def tell_fit(metadata: TraceMetadata) -> None:
    """Print all errors of a trace's fit, if it states one, on stderr: a result without them would mislead."""
    if metadata.synthesis is None:
        return
    errors = ", ".join(f"{NAMES[name][0]} {error_text(figure)}" for name, figure in metadata.synthesis.figures.items())
    tell(f"note: synthetic, fitted to {metadata.synthesis.model}; errors of the fit: {errors}")


def error_text(figure: FittedFigure) -> str:
    """A figure's error as signed per cent."""
    return f"{100 * figure.error:+.1f}\u202f%".replace("-", "−")


def render_fit(console: Console, fit: SynthesisFit) -> None:
    """Print every figure of the fit: target, achieved value, error."""
    table = Table(
        "fitted figure, mean of layers",
        "unit",
        "asked for",
        "achieved",
        "error",
        "worst layer",
        box=None,
        title=f"fitted to {escape(fit.model)}: {fit.layers} layers, top-{fit.top_k} of {fit.experts}, seed {fit.seed}",
        title_justify="left",
    )
    for name, figure in fit.figures.items():
        text, unit = NAMES[name]
        worst = f"{figure.worst_layer:+.3f}".replace("-", "−")
        table.add_row(text, unit, fixed(figure.target), fixed(figure.achieved), error_text(figure), worst)
    console.print(table, highlight=False)
