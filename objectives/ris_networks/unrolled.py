"""The unrolled posterior as a network of the RIS objective: its search spaces, and how to build it.

Exact likelihoods of candidate positions, with learned decisions between visits
(`models.ris.network.covariance_net`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from models.ris.network.covariance_net import RisCovarianceNet
from models.ris.scene.scenes import ArrayConfig
from objectives._space import Choice, Float, Int, Params, Space

# These are not searched: between thirds of their ranges J varies by no more than between seeds. See
# `benchmarks/importance.py`, which draws them too, and its table in benchmarks/RESULTS.md.
SETTLED: Mapping[str, Any] = {
    "lr_head": 1.0,  # relative to `lr`
    "weight_decay": 0.0,
    "extra_rank": 1,  # columns of F beyond the most sources of a scene
    "dropout": 0.0,
    "clip": 0.3,
    "w_covariance": 0.3,
    # None lets the calibration scenes choose the ridge's share of the hybrid covariance. A fixed
    # share above 0.13 costs 0.3 dB, and none gains.
    "blend": None,
    "zoom_points": 9,
}
# The network of studies that are older than the option `network`: their weights are right with
# these alone.
EARLIER: Mapping[str, Any] = {**SETTLED, "zoom_points": 27}
_WIDE: dict[str, Float | Int | Choice] = {
    "layers": Int(low=1, high=3, default=2),
    "oversampling": Float(low=0.8, high=1.8, default=1.2),
    "width": Choice(choices=(32, 64, 96, 128), default=64),
    "lr": Float(low=1e-4, high=3e-2, default=1e-3, log=True),
    "schedule": Choice(choices=("constant", "linear", "cosine"), default="cosine"),
    "warmup": Float(low=0.01, high=0.2, default=0.05),
    "batch": Choice(choices=(64, 128), default=128),
    "w_likelihood": Float(low=0.03, high=3.0, default=0.3, log=True),
    "w_contrast": Float(low=0.03, high=3.0, default=0.3, log=True),
}
_NARROW: dict[str, Float | Int | Choice] = {
    **_WIDE,
    "layers": Int(low=2, high=3, default=2),
    "lr": Float(low=2e-4, high=5e-3, default=1e-3, log=True),
    "width": Choice(choices=(64, 96), default=64),
    "batch": Choice(choices=(128,), default=128),
}
SPACES: Mapping[str, Space] = {"narrow": _NARROW, "wide": _WIDE}


def build(config: ArrayConfig, params: Params) -> nn.Module:
    """Build the network of a configuration with initial weights."""
    return RisCovarianceNet(
        config,
        width=params["width"],
        layers=params["layers"],
        rank=config.max_sources + params["extra_rank"],
        oversampling=params["oversampling"],
        dropout=params["dropout"],
        zoom_points=params["zoom_points"],
    )
