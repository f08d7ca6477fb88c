"""The learned predictor in floating point, and its losses."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from predictor.learned.config import LearnedConfig


class Network(nn.Module):
    """All layers' tables in floating point; inputs ``[layers, tokens, sources · experts]``."""

    def __init__(self, config: LearnedConfig, *, layers: int, inputs: int, experts: int, density: float) -> None:
        super().__init__()
        hidden = config.hidden
        # About unit variance of a sum of ``density`` rows.
        self.rows = nn.Parameter(torch.randn(layers, inputs, hidden) * density**-0.5)
        self.bias = nn.Parameter(torch.zeros(layers, 1, hidden))
        self.output = nn.Parameter(torch.randn(layers, hidden, experts) * 0.5 * hidden**-0.5)
        self.output_bias = nn.Parameter(torch.full((layers, 1, experts), -2.0))
        tables = [
            nn.Embedding(config.identity_rows + 1, layers * hidden, sparse=True, padding_idx=config.identity_rows)
            for _ in range(config.identities)
        ]
        self.identity = nn.ModuleList(tables)
        for age, table in enumerate(tables):
            nn.init.normal_(table.weight, std=0.3 if age == 0 else 0.1)
            with torch.no_grad():
                # The row of all others may never be trained, where every token has its own: it must say nothing.
                table.weight[config.identity_rows - 1 :] = 0

    def sums(self, inputs: Tensor, identity: list[Tensor]) -> Tensor:
        """Pre-activations ``[layers, tokens, hidden]``; ``identity``: i64 ``[tokens]`` for each previous token."""
        total = torch.baddbmm(self.bias, inputs, self.rows)
        for table, index in zip(self.identity, identity, strict=True):
            total = total + table(index).view(len(index), *total.shape[::2]).transpose(0, 1)
        return total

    def forward(self, inputs: Tensor, identity: list[Tensor], hidden_dropout: float) -> Tensor:
        """Log-odds ``[layers, tokens, experts]``."""
        hidden = functional.dropout(functional.relu(self.sums(inputs, identity)), hidden_dropout, self.training)
        return torch.baddbmm(self.output_bias, hidden, self.output)


def loss_of(log_odds: Tensor, chosen: Tensor, weight: Tensor, kind: str, top_k: int) -> Tensor:
    """The loss ``kind`` (see ``TrainingConfig.loss``), per layer and chosen expert."""
    tokens, experts = log_odds.shape[1:]
    if kind == "bce":
        value = functional.binary_cross_entropy_with_logits(log_odds, chosen, weight=weight, reduction="sum")
    elif kind == "softmax":
        value = -(functional.log_softmax(log_odds, 2) * chosen * weight).sum()
    else:
        difference = log_odds.unsqueeze(3) - log_odds.unsqueeze(2)  # [L, B, chosen, other]
        pairs = (chosen * weight).unsqueeze(3) * (1 - chosen).unsqueeze(2)
        value = (functional.softplus(-difference) * pairs).sum() * (top_k / (experts - top_k))
    return value / (tokens * top_k)
