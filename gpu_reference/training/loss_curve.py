"""Draw a training run: loss against tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from catalog.files import atomic_path
from gpu_reference.training.corpus import CODE, PROSE

_COLOURS = {CODE: "#0b6e99", PROSE: "#b5501b"}
_SMOOTHING = 10
"""Number of logged steps in the training curve's running mean."""


def draw_loss_curve(log: dict[str, Any], path: Path) -> None:
    """Draw the training loss (running mean) and each domain's validation loss of a training log as a PNG.

    Raises:
        ForestageError: if ``path`` cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    step_tokens = log["options"]["batch"] * log["options"]["context"] / 1e6
    steps = np.asarray([record["step"] for record in log["steps"]]) * step_tokens
    losses = np.asarray([record["loss"] for record in log["steps"]])
    width = min(_SMOOTHING, len(losses))
    smooth = np.convolve(losses, np.ones(width) / width, mode="valid")

    figure = Figure(figsize=(7.2, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(steps[width - 1 :], smooth, color="#999999", linewidth=1.0, label="training, both domains")
    at = np.asarray([record["step"] for record in log["validation"]]) * step_tokens
    for domain, colour in _COLOURS.items():
        values = [record[domain] for record in log["validation"]]
        axes.plot(at, values, color=colour, marker="o", markersize=3, linewidth=1.5, label=f"held out, {domain}")
        axes.annotate(
            f"{values[-1]:.2f}", (at[-1], values[-1]), xytext=(5, 0), textcoords="offset points", color=colour
        )
    axes.set(xlabel="training tokens (millions)", ylabel="loss (nats a token)", title="Training of the small MoE")
    axes.set_xlim(0, at[-1] * 1.07)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
