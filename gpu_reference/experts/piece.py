"""One expert's share of what a group of experts computes."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Piece(NamedTuple):
    """The expert in ``block`` (u8) takes ``rows`` rows of x, from ``first`` on; its output's begin at ``at``."""

    block: torch.Tensor
    first: int
    rows: int
    at: int
