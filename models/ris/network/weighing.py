"""The learned part of `HybridNet`: a token of the scene, which corrects the hypotheses' weights.

A transformer over the codes' samples makes the token, which decides how far the exact posterior is
trusted (sharpness). It also adds to the log posterior of a hypothesis: by its number of sources, by
its noise, and by the cells of its sources. Where all of that is zero the weights are the posterior
itself, and training begins near there. This part runs under autocast.

Shapes: B scenes (or 1 where all share it); L codes; M antennas; N elements; W width; G cells of the
grid; H hypotheses with k sources; F controls.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.ris.network import transformer
from models.ris.network.attention import Pool
from models.ris.network.code_tokens import PriorWhitener
from models.ris.network.hypotheses import Hypotheses
from models.ris.scene.geometry import ArrayConfig

# Near 0 the network is the plain posterior; at 0 the backbone would get no gradient.
_FIRST_WEIGHT = 2e-3
# The log of the noise, −7…1 in the label's units, is scaled to about −2…0.
_NOISE_SCALE = 0.25


class Backbone(nn.Module):
    """Inputs of the network to one token a scene."""

    def __init__(
        self, config: ArrayConfig, *, width: int, depth: int, heads: int, dropout: float
    ) -> None:
        super().__init__()
        self.whitener = PriorWhitener(config)
        self.tokens = transformer.Backbone(
            config, width, layers=depth, heads=heads, dropout=dropout
        )
        self.pool = Pool("flatten", config.codes, width, heads=heads, slots=1)
        self.out = nn.Linear(self.pool.features, width)

    def forward(self, sample_BLMM: Tensor, codes_BLN: Tensor, channel_BMN: Tensor) -> Tensor:
        with torch.autocast(sample_BLMM.device.type, enabled=False):
            white = self.whitener(sample_BLMM, codes_BLN, channel_BMN)
        token_BW: Tensor = self.out(self.pool(self.tokens(white)))
        return token_BW


class Head(nn.Module):
    """Log weights of hypotheses: log softmax of the log posterior and what a token adds to it."""

    def __init__(self, sources: int, cells: int, *, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        # The last cell stands for all cells of a zoom.
        self.control, self.prior = nn.Linear(width, 2 + sources), nn.Linear(width, cells + 1)
        self.log_noise_gain = nn.Parameter(torch.zeros(()))
        for linear in (self.control, self.prior):
            nn.init.normal_(linear.weight, std=_FIRST_WEIGHT)
            nn.init.zeros_(linear.bias)

    def forward(self, token_BW: Tensor, hypotheses: Sequence[Hypotheses]) -> list[Tensor]:
        """Log weights of all hypotheses, BH for each number of sources; the weights' sum is 1.

        Logarithms, as a number of sources that the data rule out has weights below any of fp32.
        """
        normed_BW = self.norm(token_BW)
        control_BF, prior_BG = self.control(normed_BW).float(), self.prior(normed_BW).float()
        sharper_B1, noisier_B1 = control_BF[:, :1].exp(), control_BF[:, 1:2] * _NOISE_SCALE
        most_B = torch.stack([one.log_posterior_BH.amax(-1) for one in hypotheses]).amax(0)
        logits = []
        for some, odds_B in zip(hypotheses, control_BF[:, 2:].unbind(-1), strict=True):
            relative_BH = some.log_posterior_BH - most_B.unsqueeze(-1)
            logit_BH = sharper_B1 * relative_BH + noisier_B1 * some.noise_BH.log()
            cell_BHk = some.index_BHk.clamp(max=prior_BG.shape[1] - 1)
            for cell_BH in cell_BHk.unbind(-1):
                logit_BH = logit_BH + prior_BG.gather(1, cell_BH)
            logits.append(logit_BH + odds_B.unsqueeze(-1))
        log_weights_BH = torch.cat(logits, 1).log_softmax(-1)
        counts = [logit.shape[1] for logit in logits]
        return list(torch.split(log_weights_BH, counts, 1))
