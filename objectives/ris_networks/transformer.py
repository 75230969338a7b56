"""The transformer as a network of the RIS objective: its search spaces, and how to build it.

All learned, without a likelihood in it (`models.ris.network.transformer`). So architecture and
learning rates matter by decibels here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from models.ris.network.transformer import CovarianceTransformer, base_width
from models.ris.scene.scenes import ArrayConfig
from objectives._space import Choice, Float, Int, Params, Space

# These are not searched: no other value gained.
SETTLED: Mapping[str, Any] = {
    "weight_decay": 0.0,
    # Columns of F beyond the most sources of a scene; 3 and 6 gave 0.1 dB less and the same J.
    "extra_rank": 1,
    # 0.1 gave the same J, 1 cost 0.1 dB, and no clip 0.4 dB.
    "clip": 0.3,
    "w_covariance": 0.3,
    # None lets the calibration scenes choose the ridge's share of the hybrid covariance.
    "blend": None,
}
_WIDE: dict[str, Float | Int | Choice] = {
    "layers": Int(low=1, high=3, default=1),
    # Of the size's own width, with which defaults have .4, 1.7 and 16 million parameters.
    "width": Choice(choices=(0.5, 1.0, 1.5, 2.0), default=1.0),
    "hidden": Choice(choices=(2, 4, 8), default=4),
    "heads": Choice(choices=(2, 4, 8), default=4),
    "pooling": Choice(choices=("flatten", "slots", "mean"), default="flatten"),
    "lr": Float(low=1e-4, high=3e-2, default=8e-3, log=True),
    "lr_head": Float(low=0.2, high=5.0, default=1.0, log=True),  # relative to `lr`
    "schedule": Choice(choices=("constant", "linear", "cosine"), default="cosine"),
    # A longer warm-up ends as well, but looks worse at the second epoch, where pruners judge it.
    "warmup": Float(low=0.01, high=0.2, default=0.05),
    # A choice, so that none at all can be drawn: any cost J in 204 steps.
    "dropout": Choice(choices=(0.0, 0.05, 0.1, 0.2), default=0.0),
    "batch": Choice(choices=(64, 128, 256), default=256),
    "w_likelihood": Float(low=0.03, high=3.0, default=1.0, log=True),
    "w_contrast": Float(low=0.03, high=3.0, default=0.3, log=True),
}
_NARROW: dict[str, Float | Int | Choice] = {
    **_WIDE,
    "layers": Int(low=1, high=2, default=1),
    "width": Choice(choices=(1.0, 1.5), default=1.0),
    "hidden": Choice(choices=(4, 8), default=4),
    "pooling": Choice(choices=("flatten",), default="flatten"),
    "lr": Float(low=2e-3, high=2e-2, default=8e-3, log=True),
    "lr_head": Float(low=0.5, high=2.0, default=1.0, log=True),
    "dropout": Choice(choices=(0.0, 0.05), default=0.0),
    "batch": Choice(choices=(256,), default=256),
}
SPACES: Mapping[str, Space] = {"narrow": _NARROW, "wide": _WIDE}


def build(config: ArrayConfig, params: Params) -> nn.Module:
    """Build the network of a configuration with initial weights."""
    return CovarianceTransformer(
        config,
        width=round(params["width"] * base_width(config)),
        layers=params["layers"],
        heads=params["heads"],
        pooling=params["pooling"],
        hidden=params["hidden"],
        rank=config.max_sources + params["extra_rank"],
        dropout=params["dropout"],
    )
