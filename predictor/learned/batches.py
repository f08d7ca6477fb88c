"""Inputs and targets of training, as dense tensors of all layers.

The sums are trained as products of multi-hot inputs, which is much faster on a processor than gathering rows.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from predictor.learned.config import LearnedConfig
from predictor.learned.dataset import Dataset


class Batches:
    """Inputs, targets and identities of any tokens of a dataset."""

    def __init__(self, data: Dataset, config: LearnedConfig, lookahead: int) -> None:
        self.data = data
        self.config = config
        self.lookahead = lookahead
        self.layers, self.top_k = data.ids.shape[1:]
        self._rank_weights = torch.from_numpy(data.rank_weights)

    def _chosen(self, ids: NDArray[np.int16], weights: Tensor) -> Tensor:
        """Multi-hot ``[tokens, layers, experts]`` of ids (−1: none)."""
        index = torch.from_numpy(ids.astype(np.int64))
        hot = torch.zeros(*index.shape[:2], self.data.experts)
        return hot.scatter_(2, index.clamp(min=0), weights * (index >= 0))

    def _earlier(self, tokens: NDArray[np.int64], age: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The ``age``-th previous token of each, and whether its sequence has it."""
        exists = self.data.position[tokens] >= age
        return np.where(exists, tokens - age, 0), exists

    def inputs(self, tokens: NDArray[np.int64], dropout: float = 0.0) -> Tensor:
        """``[layers, tokens, sources · experts]``, sources in the order of ``context.sources``."""
        weights = self._rank_weights.expand(len(tokens), self.layers, self.top_k)
        parts = []
        if self.config.layers_back:
            here = self._chosen(self.data.ids[tokens], weights)
            offsets = range(-self.lookahead, -self.lookahead - self.config.layers_back, -1)
            parts.append(_windows(here, list(offsets), dropout))
        for age, reach in enumerate(self.config.previous, start=1):
            earlier, exists = self._earlier(tokens, age)
            ids = np.where(exists[:, None, None], self.data.held[earlier], -1)
            parts.append(_windows(self._chosen(ids, weights), list(range(-reach, reach + 1)), dropout))
        reach = self.config.decay_reach
        for decayed in self.data.decayed:
            part = torch.from_numpy(decayed[tokens]).float()
            parts.append(_windows(part, list(range(-reach, reach + 1)), dropout))
        for matched in self.data.matched:
            found = matched[tokens]
            ids = np.where((found >= 0)[:, None, None], self.data.ids[found], -1)
            part = _windows(self._chosen(ids, weights), [0], dropout)
            if self.config.tagged_by == "routing":  # which is not known for the first targets
                part[: self.lookahead] = 0
            parts.append(part)
        return torch.cat(parts, 2) if parts else torch.zeros(self.layers, len(tokens), 0)

    def identity(self, tokens: NDArray[np.int64]) -> list[Tensor]:
        """Identity rows of each token and its previous ones."""
        found = []
        for age in range(self.config.identities):
            earlier, exists = self._earlier(tokens, age)
            found.append(torch.from_numpy(np.where(exists, self.data.identity[earlier], self.config.identity_rows)))
        return found

    def targets(self, tokens: NDArray[np.int64], gate_weighting: float) -> tuple[Tensor, Tensor]:
        """(chosen, weight of each question), both ``[layers, tokens, experts]``; rows not recorded weigh nothing."""
        ids = self.data.ids[tokens]
        ones = torch.ones(ids.shape)
        chosen = self._chosen(ids, ones)
        weight = torch.from_numpy((ids[:, :, :1] >= 0).astype(np.float32)).expand_as(chosen)
        if gate_weighting and self.data.gate_weights is not None:
            gate = torch.from_numpy(self.data.gate_weights[tokens]).float()
            gate = gate / gate.sum(-1, keepdim=True).clamp(min=1e-6)
            heavy = self._chosen(ids, gate_weighting * (self.top_k * gate - 1))
            weight = weight * (1 + heavy)
        return chosen.transpose(0, 1), weight.transpose(0, 1)


def _windows(chosen: Tensor, offsets: list[int], dropout: float) -> Tensor:
    """``[layers, tokens, offsets · experts]``: each layer's part of ``chosen [tokens, layers, experts]``."""
    if dropout:
        chosen = functional.dropout(chosen, dropout)
    tokens, layers, experts = chosen.shape
    low, high = min(offsets), max(offsets)
    padded = functional.pad(chosen, (0, 0, max(0, -low), max(0, high)))[:, max(0, low) :]
    if high < 0:  # the window ends before the target: what lies between is cut off the end
        padded = padded[:, : layers + len(offsets) - 1]
    size = (layers, tokens, len(offsets) * experts)
    windows = padded.as_strided(size, (experts, padded.stride(0), 1), padded.storage_offset())
    if len(offsets) > 1 and offsets[0] > offsets[-1]:
        windows = windows.reshape(layers, tokens, len(offsets), experts).flip(2).reshape(size)
    return windows
