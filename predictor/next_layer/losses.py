"""Losses of the next-layer head, in PyTorch."""

from torch import Tensor
from torch.nn import functional


def loss_of(log_odds: Tensor, chosen: Tensor, weight: Tensor, kind: str, top_k: int) -> Tensor:
    """The loss ``kind`` (see ``NextLayerTraining.loss``) of ``[layers, tokens, 1, experts]``, per layer and chosen
    expert."""
    _, tokens, _, experts = log_odds.shape
    if kind == "bce":
        value = functional.binary_cross_entropy_with_logits(log_odds, chosen, weight=weight, reduction="sum")
    elif kind == "softmax":
        value = -(functional.log_softmax(log_odds, 3) * chosen * weight).sum()
    else:
        difference = log_odds.unsqueeze(4) - log_odds.unsqueeze(3)  # [L, B, 1, chosen, other]
        pairs = (chosen * weight).unsqueeze(4) * (1 - chosen).unsqueeze(3)
        value = (functional.softplus(-difference) * pairs).sum() * (top_k / (experts - top_k))
    return value / (tokens * top_k)
