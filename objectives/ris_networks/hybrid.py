"""The hybrid network as a network of the RIS objective: its search spaces, and how to build it.

Joint hypotheses with their exact posterior, whose weights a transformer corrects
(`models.ris.network.hybrid`). Physics leaves little to learn, so the numbers of visits, cells and
hypotheses matter more than rates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from models.ris.network.hybrid import HybridNet
from models.ris.scene.scenes import ArrayConfig
from objectives._space import Choice, Float, Int, Params, Space

SETTLED: Mapping[str, Any] = {
    "lr_head": 1.0,  # relative to `lr`
    "weight_decay": 0.0,
    "extra_rank": 1,  # columns of F beyond the most sources of a scene
    "dropout": 0.0,
    "clip": 0.3,
    "w_covariance": 0.3,
    # None lets the calibration scenes choose the ridge's share of the hybrid covariance.
    "blend": None,
}
_WIDE: dict[str, Float | Int | Choice] = {
    "layers": Int(low=1, high=3, default=2),  # visits of mean field, whose beliefs propose
    "oversampling": Float(low=0.8, high=1.8, default=1.2),
    "hypotheses": Choice(choices=(32, 64, 128, 256), default=64),
    "width": Choice(choices=(32, 64, 128), default=64),
    "depth": Int(low=1, high=2, default=1),
    "heads": Choice(choices=(2, 4), default=4),
    "lr": Float(low=1e-4, high=3e-2, default=1e-3, log=True),
    "schedule": Choice(choices=("constant", "linear", "cosine"), default="cosine"),
    "warmup": Float(low=0.01, high=0.2, default=0.05),
    # Physics leaves little to learn: a batch of 128 ends within .03 dB of one of 32, in twice the
    # time.
    "batch": Choice(choices=(16, 32, 64), default=32),
    "w_likelihood": Float(low=0.03, high=3.0, default=0.3, log=True),
    "w_contrast": Float(low=0.03, high=3.0, default=0.3, log=True),
}
_NARROW: dict[str, Float | Int | Choice] = {
    **_WIDE,
    "layers": Int(low=2, high=3, default=2),
    "oversampling": Float(low=1.1, high=1.6, default=1.2),
    "hypotheses": Choice(choices=(64, 128), default=64),
    "lr": Float(low=2e-4, high=5e-3, default=1e-3, log=True),
    "width": Choice(choices=(64,), default=64),
    "batch": Choice(choices=(32,), default=32),
}
SPACES: Mapping[str, Space] = {"narrow": _NARROW, "wide": _WIDE}


def build(config: ArrayConfig, params: Params) -> nn.Module:
    """Build the network of a configuration with initial weights."""
    return HybridNet(
        config,
        width=params["width"],
        depth=params["depth"],
        heads=params["heads"],
        layers=params["layers"],
        hypotheses=params["hypotheses"],
        rank=config.max_sources + params["extra_rank"],
        oversampling=params["oversampling"],
        dropout=params["dropout"],
    )
