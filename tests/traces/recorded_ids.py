"""Random routing for the importers' tests, as the servers record it."""

import numpy as np
import numpy.typing as npt


def random_ids(tokens: int, layers: int, top_k: int, experts: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """Distinct ids ``[tokens, layers, top_k]`` in no order, never 0 in the first place."""
    generator = np.random.default_rng(seed)
    order = generator.random((tokens, layers, experts)).argsort(axis=-1)
    # A row of top-1 routing to expert 0 would look like one that was not recorded.
    ids = order[..., :top_k]
    swapped = ids[..., 0] == 0
    ids[swapped, 0] = order[..., top_k][swapped] if top_k < experts else ids[swapped, 0]
    return ids.astype(np.int64)


def with_dense(ids: npt.NDArray[np.int64], dense: int) -> npt.NDArray[np.int64]:
    """``ids`` with ``dense`` layers of zeros before the first."""
    tokens, _, top_k = ids.shape
    return np.concatenate([np.zeros((tokens, dense, top_k), np.int64), ids], axis=1)
