"""The all-learned network: a transformer from the codes' sample covariances to the factor.

One token a code (`code_tokens`), pre-norm blocks over the tokens (`attention`), and a two-layer
head from the pooled tokens to the factor F and the noise. There is no likelihood in it: what the
unrolled posterior computes, this network has to learn. All but the whitening of the inputs runs
under autocast, on one wall over 95 % of a forward's products.

Shapes: B scenes (or 1 where all share it); L codes; M antennas; N elements; R rank of the factor;
W width; 2 = real and imaginary part.
"""

from __future__ import annotations

from math import log
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from models.ris.network.attention import Block, Pool
from models.ris.network.code_tokens import BeamEmbedding, CodeEmbedding, PriorWhitener, Whitened
from models.ris.scene.geometry import ArrayConfig

# Tokens of other width would not divide among up to 8 heads.
_WIDTH_STEP = 32
# The noise above its floor is at first the label's at about 8 dB.
_FIRST_NOISE = 0.15


def base_width(config: ArrayConfig) -> int:
    """Width of a token at a size: 0.6 N^1.3 in steps of 32; 32, 64, 128 and 384 at our sizes.

    With it the default network has .4, 1.7 and 16 million parameters at tiny, base and full.
    """
    steps = round(0.6 * float(config.elements) ** 1.3 / _WIDTH_STEP)
    return int(_WIDTH_STEP * max(1, steps))


class CovarianceTransformer(nn.Module):
    """Transformer over a scene's codes with a head for the covariance factor.

    Args:
        config: The size: elements, antennas, codes, sources.
        width: Width of a token; default `base_width`. A multiple of `heads`.
        layers: Blocks.
        heads: Heads of attention.
        pooling: `flatten`, `slots` or `mean`: see `attention.Pool`.
        hidden: Width of the head's hidden layer, in widths of a token.
        rank: Columns of the factor; default the size's.
        dropout: Dropout in blocks and head.
    """

    def __init__(
        self,
        config: ArrayConfig,
        *,
        width: int | None = None,
        layers: int = 1,
        heads: int = 4,
        pooling: str = "flatten",
        hidden: int = 4,
        rank: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        width = base_width(config) if width is None else width
        rank = config.rank if rank is None else rank
        # These arguments build another network of the same shape.
        self.settings: dict[str, Any] = {
            "width": width,
            "layers": layers,
            "heads": heads,
            "pooling": pooling,
            "hidden": hidden,
            "rank": rank,
            "dropout": dropout,
        }
        if min(width, layers, heads, hidden, rank) < 1 or width % heads:
            raise ValueError(
                f"width {width}, layers {layers}, heads {heads}, hidden {hidden}, rank {rank}: "
                "write 1 or more, and a width that its heads divide"
            )
        self.config = config
        self.whitener = PriorWhitener(config)
        self.backbone = Backbone(config, width, layers=layers, heads=heads, dropout=dropout)
        pool = Pool(pooling, config.codes, width, heads=heads, slots=config.max_sources)
        self.head = Head(pool, hidden * width, config.elements, rank, dropout=dropout)

    def forward(
        self, sample_BLMM: Tensor, codes_BLN: Tensor, channel_BMN: Tensor
    ) -> dict[str, Tensor]:
        """Estimate the covariance of each scene; arguments and results as in `RisCovarianceNet`.

        Args:
            sample_BLMM: S_l, complex64, scaled to mean_l tr S_l = 1.
            codes_BLN: c_l, complex64, unit modulus; B is 1 or the number of scenes.
            channel_BMN: H, complex64; B is 1 or the number of scenes.

        Returns:
            "factor": F of shape BNR2; "log_noise": log of the noise above the floor, of shape B.
        """
        with torch.autocast(sample_BLMM.device.type, enabled=False):
            white = self.whitener(sample_BLMM, codes_BLN, channel_BMN)
        factor_BNR2, log_noise_B = self.head(self.backbone(white))
        return {"factor": factor_BNR2.float(), "log_noise": log_noise_B.float()}


class Backbone(nn.Module):
    """Whitened inputs to normalised tokens, BLW."""

    def __init__(
        self, config: ArrayConfig, width: int, *, layers: int, heads: int, dropout: float
    ) -> None:
        super().__init__()
        self.by_code = CodeEmbedding(config.codes, config.antennas**2 + 1, width)
        self.by_wall = BeamEmbedding(config, width)
        self.blocks = nn.Sequential(*[Block(width, heads, dropout) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)

    def forward(self, white: Whitened) -> Tensor:
        tokens_BLW = self.by_code(white.features_BLF) + self.by_wall(white)
        normed_BLW: Tensor = self.norm(self.blocks(tokens_BLW))
        return normed_BLW


class Head(nn.Module):
    """Tokens to the factor and the log of the noise, by two layers on the pooled tokens."""

    def __init__(
        self, pool: Pool, hidden: int, elements: int, rank: int, *, dropout: float
    ) -> None:
        super().__init__()
        self.pool, self.elements, self.rank = pool, elements, rank
        self.inner = nn.Linear(pool.features, hidden)
        self.dropout = nn.Dropout(dropout)
        self.outer = nn.Linear(hidden, 2 * elements * rank + 1)
        with torch.no_grad():
            self.outer.bias[-1] = log(_FIRST_NOISE)

    def forward(self, tokens_BLW: Tensor) -> tuple[Tensor, Tensor]:
        hidden_BX = self.dropout(gelu(self.inner(self.pool(tokens_BLW))))
        out_BX = self.outer(hidden_BX)
        factor_BNR2 = out_BX[:, :-1].reshape(-1, self.elements, self.rank, 2)
        return factor_BNR2, out_BX[:, -1]
