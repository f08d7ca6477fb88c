"""What a trace must have for the next-use head to be trained on it; known before PyTorch is imported."""

import numpy as np

from catalog.errors import ForestageError
from predictor.next_use.recipes import NextUseRecipe
from predictor.row_network.requirements import check_sources
from traces import RoutingTrace


def check_trainable(trace: RoutingTrace, recipe: NextUseRecipe) -> None:
    """Refuse a trace that lacks what the recipe needs.

    Raises:
        ForestageError: for a lookahead as deep as the model, identities that are not recorded, or horizons beyond the
            longest sequence.
    """
    config = recipe.predictor
    if config.farthest >= trace.layers:
        raise ForestageError(f"lookahead: {config.farthest} for a model of {trace.layers} layers; choose fewer")
    check_sources(trace, config)
    check_horizons(trace, config.horizons[0] + (config.nearest == 0))


def check_horizons(trace: RoutingTrace, needed: int) -> None:
    """Raise unless the longest sequence has the ``needed`` tokens.

    Raises:
        ForestageError: if all are too short: there would be nothing to learn, or to stop by.
    """
    longest = int(np.diff(trace.sequence_offsets).max(initial=0))
    if longest < needed:
        raise ForestageError(
            f"horizons: none ends within the {longest} tokens of the longest sequence to learn from or to stop "
            "by; choose smaller ones, or give a trace of longer sequences"
        )
