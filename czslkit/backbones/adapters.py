"""Adapters: small trainable layers parallel to the frozen sub-layers of a tower."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn


class Adapter(nn.Module):
    """A bottleneck parallel to a residual branch: ``0.1 * up(dropout(relu(down(x))))``.

    The initial output is zero, so that adapters do not change the model before training. Chen et al., "AdaptFormer",
    NeurIPS 2022. https://arxiv.org/abs/2205.13535

    Args:
        width: width of input and output.
        bottleneck: width between ``down`` and ``up``.
        dropout: dropout before ``up``.
    """

    def __init__(self, width: int, bottleneck: int, dropout: float) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, bottleneck), nn.Linear(bottleneck, width)
        self.dropout = nn.Dropout(dropout)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        return 0.1 * self.up(self.dropout(F.relu(self.down(x))))
