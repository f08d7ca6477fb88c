"""What a trace must have for a network to be trained on it; known before PyTorch is imported."""

from catalog.errors import ForestageError
from predictor.row_network.config import NetworkConfig
from predictor.row_network.sources import sources
from traces import RoutingTrace


def check_sources(trace: RoutingTrace, config: NetworkConfig) -> None:
    """Refuse a trace that does not record what the network looks at, and a network that looks at nothing.

    Raises:
        ForestageError: naming the field, and the remedy.
    """
    if not sources(config) and not config.identities:
        raise ForestageError(
            "layers_back, previous, decays, ngram_tables, identities: all are empty, so there is nothing to predict "
            "from; set at least one"
        )
    if trace.token_hash is None and config.identities:
        raise ForestageError(
            "identity_rows: the trace records no token identity; set identity_rows=0, identities=0 and "
            "ngram_by=routing, or use the recipe no-identity"
        )
    if trace.token_hash is None and config.looks_at_identity:
        raise ForestageError(
            f"ngram_tables {config.ngram_tables}: the trace does not record the identity of tokens; give none, "
            "ngram_tables=[], or ngram_by=routing"
        )
    if config.ranks and not trace.metadata.ranked:
        raise ForestageError("ranks: the ids of the trace are in no order; leave it out or set it to false")
