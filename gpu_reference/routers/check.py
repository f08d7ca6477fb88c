"""Every recorded id is computed again, independently, from the router's logits."""

from __future__ import annotations

from typing import Any

import numpy as np

from catalog.errors import ForestageError
from gpu_reference.routers.adapter import LayerRouting, RouterAdapter, RouterOutput, tie_margin

_WEIGHT_TOLERANCE = 1e-4


def check_routing(adapter: RouterAdapter, router: Any, output: RouterOutput, where: str) -> LayerRouting:
    """Compare a router's choice with one computed independently from its logits, and return it, heaviest first.

    The independent choice is made in double precision by a stable sort. Ids may differ only where the scores tie;
    weights by 1e-4 and the rounding of the type that the router keeps them in. The weights returned are without the
    router's constant ``scale``.

    Raises:
        ForestageError: if an id or a weight differs; the message names ``where``, the row and both values.
    """
    logits = output.logits.detach().float().cpu().numpy()
    ids = output.ids.detach().cpu().numpy().astype(np.int64)
    weights = output.weights.detach().float().cpu().numpy()
    _check_ids(adapter, router, logits, ids, where)
    expected = adapter.weigh(router, logits, ids)
    rounding = _rounding(output.weights)
    excess = np.abs(expected - weights) - (_WEIGHT_TOLERANCE + rounding * np.abs(expected))
    if not (excess <= 0).all():
        difference = np.abs(expected - weights).max()
        raise ForestageError(
            f"{where}: gate weights differ by {difference:.2g} from those computed from the logits; "
            "the adapter does not fit this router"
        )
    order = np.argsort(-weights, axis=-1, kind="stable")
    weights = weights / np.float32(adapter.scale(router))
    return LayerRouting(np.take_along_axis(ids, order, axis=-1), np.take_along_axis(weights, order, axis=-1))


def _check_ids(adapter: RouterAdapter, router: Any, logits: np.ndarray, ids: np.ndarray, where: str) -> None:
    """Raise unless every row of ``ids`` holds the best experts, each once."""
    top_k = ids.shape[1]
    chosen = np.zeros(logits.shape, np.bool_)
    np.put_along_axis(chosen, ids, True, axis=-1)
    scores = adapter.select(router, logits, chosen)
    expected = np.argsort(-scores, axis=-1, kind="stable")[:, :top_k]
    expected_scores = np.take_along_axis(scores, expected, axis=-1)
    found_scores = -np.sort(-np.take_along_axis(scores, ids, axis=-1), axis=-1)
    # A barred expert scores −∞, which no margin reaches.
    better = expected_scores - found_scores > tie_margin(expected_scores)
    wrong = better.any(axis=-1) | (chosen.sum(axis=-1) != top_k)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ForestageError(
            f"{where}, row {row}: the router chose {ids[row].tolist()}, its logits say {expected[row].tolist()}; "
            "the adapter does not fit this router"
        )


def _rounding(weights: Any) -> float:
    """Relative rounding of the weights' type: its epsilon, for a computation that rounds more than once."""
    import torch

    return float(torch.finfo(weights.dtype).eps)
