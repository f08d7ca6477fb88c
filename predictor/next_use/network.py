"""The network that is trained for one target layer, in PyTorch."""

import torch

from predictor.next_use.parameters import NextUseParameters
from predictor.next_use.quantise import FloatLayer

SCALE_FLOOR = 0.02
"""Least standard deviation that a source's columns are scaled by."""


class Network(torch.nn.Module):
    """Features are scaled source by source, so that all learn at one pace; ``folded`` takes the scales back out."""

    def __init__(self, features: torch.Tensor, experts: int, parameters: NextUseParameters) -> None:
        super().__init__()
        columns = features.shape[1]
        by_source = features[:: max(1, len(features) // 20_000)].float().reshape(-1, columns // experts, experts)
        spread = by_source.std(dim=0).square().mean(dim=1).sqrt().clamp(min=SCALE_FLOOR)
        self.scale = (0.5 / spread).repeat_interleave(experts)
        self.mean = by_source.mean(dim=0).flatten()
        self.first = torch.nn.Linear(columns, parameters.hidden)
        self.second = torch.nn.Linear(parameters.hidden, len(parameters.horizons) * experts)
        self.experts = experts

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Logits ``[tokens, horizons, experts]``."""
        sums = self.first((features.float() - self.mean) * self.scale)
        logits: torch.Tensor = self.second(torch.relu(sums))
        return logits.view(len(features), -1, self.experts)

    def folded(self) -> FloatLayer:
        """The weights for features as they are."""
        with torch.no_grad():
            weight = (self.first.weight * self.scale).double()
            bias = self.first.bias.double() - weight @ self.mean.double()
            rows = weight.T.reshape(-1, self.experts, weight.shape[0])
            return FloatLayer(
                rows.numpy(), bias.numpy(), self.second.weight.double().numpy(), self.second.bias.double().numpy()
            )
