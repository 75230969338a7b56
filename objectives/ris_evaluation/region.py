"""Remarks on the region that a size's sources come from: no method finds sources outside of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import degrees

import torch
from torch import Tensor

from models.ris.estimators.peaks import region
from models.ris.evaluation import NETWORK
from models.ris.scene.geometry import as_positions
from models.ris.scene.scenes import ArrayConfig, Scenes

# A position this near to the edge, in extents of the region in azimuth, elevation and reciprocal
# range, counts as at the edge.
_EDGE = 1e-3


def told(config: ArrayConfig) -> str:
    """Sentence on the region in which sources are searched."""
    return (
        f"sources are looked for within ±{degrees(config.azimuth_max_rad):.0f}° azimuth, "
        f"±{degrees(config.elevation_max_rad):.0f}° elevation and {config.range_min_m:g} to "
        f"{config.range_max_m:g} m; one outside of that is put at its edge"
    )


def outside(scenes: Scenes, config: ArrayConfig) -> Sequence[str]:
    """Warning if true sources lie outside; empty if none does."""
    positions_S3 = scenes.positions_BK3[scenes.source_mask_BK]
    out = int((~_within(positions_S3, config, slack=_EDGE)).sum())
    if not out:
        return ()
    return (f"{out} of {len(positions_S3)} true sources lie OUTSIDE of it: figures are not valid",)


def at_the_edge(found: Mapping[str, Tensor], config: ArrayConfig) -> str:
    """Sentence on the share of each method's estimates at the region's edge."""
    shares = []
    for name, found_BK3 in found.items():
        found_S3 = found_BK3[~found_BK3.isnan().any(-1)]
        if not len(found_S3):
            continue
        is_at_edge_S = ~_within(found_S3, config, slack=-_EDGE)
        shares.append((name, 100 * float(is_at_edge_S.double().mean())))
    shares.sort(key=lambda share: share[0] != NETWORK)
    listed = ", ".join(f"{name} {share:.0f} %" for name, share in shares)
    return f"at that edge, where little is known of the true place, lie: {listed}"


def _within(positions_S3: Tensor, config: ArrayConfig, *, slack: float) -> Tensor:
    low_3, high_3 = region(config, device=positions_S3.device)
    margin_3 = slack * (high_3 - low_3)
    places_S3 = as_positions(positions_S3)
    is_within_S3 = (places_S3 >= low_3 - margin_3) & (places_S3 <= high_3 + margin_3)
    return torch.all(is_within_S3, dim=-1)
