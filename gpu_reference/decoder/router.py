"""The model's own choice of experts from router logits."""

from __future__ import annotations

import torch

from gpu_reference.decoder.families import Family


def choose(family: Family, top_k: int, router_logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids ``[n, top_k]`` (int64, best first) and gate weights ``[n, top_k]`` in the logits' type.

    The rules are those of the families' routers in transformers 5.23, rounding included.
    """
    if family.rule == "softmax_over_chosen":
        best, ids = router_logits.topk(top_k, dim=-1)
        return ids, best.softmax(dim=-1)
    weights, ids = router_logits.softmax(dim=-1, dtype=torch.float32).topk(top_k, dim=-1)
    if family.normalised:
        weights = weights / weights.sum(dim=-1, keepdim=True)
    return ids, weights.to(router_logits.dtype)
