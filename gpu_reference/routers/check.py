"""Recompute every recorded id independently from the router's logits."""

from __future__ import annotations

from typing import Any

import numpy as np

from catalog.errors import ForestageError
from gpu_reference.routers.adapter import LayerRouting, RouterAdapter, RouterOutput

_WEIGHT_TOLERANCE = 1e-4


def check_routing(adapter: RouterAdapter, router: Any, call: RouterOutput, where: str) -> LayerRouting:
    """Compare a router's choice with one computed independently from its logits; return it, heaviest expert first.

    The independent choice uses double precision and a stable sort. Ids may differ only where scores tie; weights may
    differ by 1e-4 plus the rounding of the router's type. The returned weights are without the router's constant
    ``scale``.

    Raises:
        ForestageError: if an id or a weight differs; the message names ``where``, the row and both values.
    """
    ids = call.ids.detach().cpu().numpy().astype(np.int64)
    weights = call.weights.detach().float().cpu().numpy()
    _check_ids(adapter, router, call, ids, where)
    expected = adapter.weigh(router, call, ids)
    excess = np.abs(expected - weights) - (_WEIGHT_TOLERANCE + _rounding(call.weights) * np.abs(expected))
    if not (excess <= 0).all():
        difference = np.abs(expected - weights).max()
        raise ForestageError(
            f"{where}: gate weights differ by {difference:.2g} from those computed from the logits; "
            "the adapter does not fit this router"
        )
    return in_rank_order(ids, weights / _scale(adapter, router, ids, where))


def in_rank_order(ids: np.ndarray, weights: np.ndarray) -> LayerRouting:
    """Ids and weights ``[tokens, top_k]``, heaviest expert first."""
    order = np.argsort(-weights, axis=-1, kind="stable")
    return LayerRouting(np.take_along_axis(ids, order, axis=-1), np.take_along_axis(weights, order, axis=-1))


def _scale(adapter: RouterAdapter, router: Any, ids: np.ndarray, where: str) -> Any:
    """The constants by which the weights were multiplied: one number, or ``[tokens, top_k]``."""
    scale = np.asarray(adapter.scale(router), dtype=np.float32)
    if not (np.isfinite(scale) & (scale != 0)).all():
        raise ForestageError(f"{where}: the weights are multiplied by {scale.min():g}, which leaves nothing to record")
    return scale[ids] if scale.ndim else scale


def _check_ids(adapter: RouterAdapter, router: Any, call: RouterOutput, ids: np.ndarray, where: str) -> None:
    """Raise unless every row of ``ids`` holds the best experts, each once."""
    tokens, experts = call.logits.shape
    if ids.ndim != 2 or len(ids) != tokens or ids.size == 0 or ids.min() < 0 or ids.max() >= experts:
        raise ForestageError(
            f"{where}: chose ids of shape {list(ids.shape)} for logits of shape [{tokens}, {experts}]; "
            "the adapter does not fit this router"
        )
    if not bool(call.logits.isfinite().any(dim=-1).all()) or bool(call.logits.isnan().any()):
        raise ForestageError(f"{where}: logits that are no numbers; choose another --dtype, or look at the weights")
    chosen = np.zeros((tokens, experts), np.bool_)
    np.put_along_axis(chosen, ids, True, axis=-1)
    scores = adapter.select(router, call, chosen)
    margin = adapter.margin(router, call)
    expected = np.argsort(-scores, axis=-1, kind="stable")[:, : ids.shape[1]]
    found = np.take_along_axis(ids, np.argsort(-np.take_along_axis(scores, ids, axis=-1), axis=-1), axis=-1)
    expected_scores = np.take_along_axis(scores, expected, axis=-1)
    # Rounding may change both scores. A barred expert scores −∞, which no margin reaches.
    room = np.take_along_axis(margin, expected, axis=-1) + np.take_along_axis(margin, found, axis=-1)
    better = expected_scores - np.take_along_axis(scores, found, axis=-1) > room
    wrong = better.any(axis=-1) | (chosen.sum(axis=-1) != ids.shape[1])
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ForestageError(
            f"{where}, row {row}: the router chose {ids[row].tolist()}, its logits say {expected[row].tolist()}; "
            "the adapter does not fit this router"
        )


def _rounding(weights: Any) -> float:
    """Relative rounding of the weights' type: twice its epsilon, since the computation may round four times."""
    import torch

    return 2 * float(torch.finfo(weights.dtype).eps)
