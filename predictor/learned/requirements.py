"""What a trace must have for the learned predictor to be trained on it; known before PyTorch is imported."""

from catalog.errors import ForestageError
from predictor.base import check_lookahead
from predictor.learned.config import LearnedConfig
from predictor.learned.context import sources
from traces import RoutingTrace


def check_trainable(trace: RoutingTrace, config: LearnedConfig, lookahead: int) -> bool:
    """Whether ranks count.

    Raises:
        ForestageError: if the trace lacks what the configuration needs, or there is nothing to predict or to look at.
    """
    check_lookahead(lookahead, trace.layers)
    if trace.experts == trace.top_k:
        raise ForestageError(f"trace: every token chooses all {trace.experts} experts; there is nothing to predict")
    if not sources(config, lookahead) and not config.identities:
        raise ForestageError(
            "layers_back, previous, decays, tagged, identities: all are empty, so there is nothing to predict from; "
            "set at least one"
        )
    if config.looks_at_identity and trace.token_hash is None:
        raise ForestageError(
            "identity_rows: the trace records no token identity; set identity_rows=0, identities=0 and "
            "tagged_by=routing, or use the recipe no-identity"
        )
    if config.ranks and not trace.metadata.ranked:
        raise ForestageError("ranks: the ids of the trace are in no order; leave it out or set it to false")
    return trace.metadata.ranked if config.ranks is None else config.ranks
