"""What a trace must have for the next-layer head to be trained on it; known before PyTorch is imported."""

from catalog.errors import ForestageError
from predictor.base import check_lookahead
from predictor.next_layer.recipes import NextLayerConfig
from predictor.row_network.requirements import check_sources
from traces import RoutingTrace


def check_trainable(trace: RoutingTrace, config: NextLayerConfig) -> None:
    """Refuse a trace that lacks what the configuration needs, or that leaves nothing to predict or to look at.

    Raises:
        ForestageError: naming the field, and the remedy.
    """
    for lookahead in (config.nearest, config.farthest):
        check_lookahead(lookahead, trace.layers)
    if trace.experts == trace.top_k:
        raise ForestageError(f"trace: every token chooses all {trace.experts} experts; there is nothing to predict")
    check_sources(trace, config)
