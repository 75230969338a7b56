"""The learned part of `RisCovarianceNet`: tokens of the slots, and decisions from them.

It runs under autocast.

Shapes: B scenes; K slots; G cells of the grid; C candidates, G cells first; W width of a token; S
numbers of a visit's summary; 4 controls.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

# The summary holds entropy, gain, power, the power of noise and other slots, and the layer.
SUMMARY = 5


class Backbone(nn.Module):
    """Tokens of the slots: an initial one each, and the change by a visit."""

    def __init__(self, slots: int, cells: int, *, width: int, dropout: float) -> None:
        super().__init__()
        inputs = 2 * width + SUMMARY
        self.first_token_KW = nn.Parameter(0.5 * torch.randn(slots, width))
        self.place_GW = nn.Parameter(0.5 * torch.randn(cells, width))
        self.norm = nn.LayerNorm(inputs)
        self.expand, self.contract = nn.Linear(inputs, 2 * width), nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, token_BW: Tensor, gain_BC: Tensor, summary_BS: Tensor) -> Tensor:
        belief_BG = gain_BC.softmax(-1)[:, : len(self.place_GW)]
        features = torch.cat((token_BW, belief_BG @ self.place_GW, summary_BS), -1)
        hidden = self.dropout(gelu(self.expand(self.norm(features))))
        changed_BW: Tensor = token_BW + self.contract(hidden)
        return changed_BW


class Head(nn.Module):
    """Decisions from a token: four controls, and a prior over the grid."""

    def __init__(self, cells: int, *, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.control, self.prior = nn.Linear(width, 4), nn.Linear(width, cells)
        self.log_noise_gain = nn.Parameter(torch.zeros(()))
        for linear in (self.control, self.prior):
            # Near 0 the network is the plain posterior; at 0 the backbone would get no gradient.
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, token_BW: Tensor) -> tuple[Tensor, Tensor]:
        normed_BW = self.norm(token_BW)
        return self.control(normed_BW).float(), self.prior(normed_BW).float()
