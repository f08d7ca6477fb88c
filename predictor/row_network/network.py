"""A row network in floating point."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from predictor.row_network.config import NetworkConfig


class Network(nn.Module):
    """All layers' tables in floating point; inputs ``[layers, tokens, sources · experts]``."""

    def __init__(self, config: NetworkConfig, *, layers: int, inputs: int, experts: int, density: float) -> None:
        super().__init__()
        hidden, outputs = config.hidden, config.questions * experts
        # About unit variance of a sum of ``density`` rows.
        self.rows = nn.Parameter(torch.randn(layers, inputs, hidden) * density**-0.5)
        self.bias = nn.Parameter(torch.zeros(layers, config.distances, hidden))
        self.output = nn.Parameter(torch.randn(layers, hidden, outputs) * 0.5 * hidden**-0.5)
        self.output_bias = nn.Parameter(torch.full((layers, 1, outputs), -2.0))
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

    def sums(self, inputs: Tensor, distances: Tensor, identity: Tensor) -> Tensor:
        """Pre-activations ``[layers, tokens, hidden]``.

        ``distances`` i64 ``[layers, tokens]``: which bias; ``identity`` i64 ``[identities, tokens]``: rows of this
        token and previous ones.
        """
        if self.bias.shape[1] == 1:
            total = torch.baddbmm(self.bias, inputs, self.rows)
        else:
            asked = functional.one_hot(distances, self.bias.shape[1]).to(inputs.dtype)
            total = torch.baddbmm(torch.bmm(asked, self.bias), inputs, self.rows)
        for table, index in zip(self.identity, identity, strict=True):
            total = total + table(index).view(len(index), *total.shape[::2]).transpose(0, 1)
        return total

    def forward(self, inputs: Tensor, distances: Tensor, identity: Tensor, hidden_dropout: float) -> Tensor:
        """Log-odds ``[layers, tokens, questions · experts]``."""
        sums = self.sums(inputs, distances, identity)
        hidden = functional.dropout(functional.relu(sums), hidden_dropout, self.training)
        return torch.baddbmm(self.output_bias, hidden, self.output)
