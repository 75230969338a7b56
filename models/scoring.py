"""Scores of position estimates against the truth and the Cramér–Rao bound.

An outlier is a source whose matched error exceeds both five standard deviations of its bound and
half a beamwidth at its range: it was not found, and says nothing of how precisely the others were.

Shapes: B scenes, K sources at most, absent ones masked; 3 = azimuth in rad, elevation in rad, range
in m.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import nan, sqrt

import torch
from torch import Tensor

from models.array import Scenes
from models.bounds import position_bound_m, stochastic_bound
from models.geometry import ArrayConfig, direction
from models.metric import match_positions

# Half of a uniform aperture's half-power beamwidth 0.886 λ/(side · λ/2), broadside, in rad · side.
_HALF_BEAM = 0.886
_OUTLIER_DEVIATIONS = 5.0


@dataclass(frozen=True)
class Errors:
    """What was found of every source that is present, of shape S, and what could have been.

    Attributes:
        error_S: Distance to the true position, in m.
        angle_S: Angle between the directions, in rad.
        range_S: Error of the range, in m; signed.
        bound_S: Cramér–Rao bound of the distance, in m; NaN where the truth lacks powers or SNR.
        is_outlier_S: Not found at all.
        scene_S: The scene of each source.
    """

    error_S: Tensor
    angle_S: Tensor
    range_S: Tensor
    bound_S: Tensor
    is_outlier_S: Tensor
    scene_S: Tensor

    def select(self, kept_S: Tensor) -> Errors:
        """Some of the sources."""
        return replace(self, **{name: value[kept_S] for name, value in vars(self).items()})

    @staticmethod
    def joined(parts: list[Errors]) -> Errors:
        """Those of several sets of scenes."""
        offset, scenes = 0, []
        for part in parts:
            scenes.append(part.scene_S + offset)
            offset += int(part.scene_S.max()) + 1 if len(part.scene_S) else 0
        found = {name: torch.cat([getattr(p, name) for p in parts]) for name in vars(parts[0])}
        return Errors(**{**found, "scene_S": torch.cat(scenes)})

    @property
    def median_m(self) -> float:
        """Median distance, outliers included."""
        return float(self.error_S.median()) if len(self.error_S) else nan

    def median_deviation_m(self, *, draws: int = 200) -> float:
        """Standard error of `median_m`, by resampling scenes."""
        if not len(self.error_S):
            return nan
        generator = torch.Generator().manual_seed(0)
        error_S = self.error_S[self.scene_S.argsort(stable=True)]
        count_B = torch.bincount(self.scene_S)
        count_B = count_B[count_B > 0]
        start_B = count_B.cumsum(0) - count_B
        medians = []
        for _ in range(draws):
            chosen_B = torch.randint(len(count_B), (len(count_B),), generator=generator)
            most = int(count_B.max())
            index_BK = start_B[chosen_B].unsqueeze(1) + torch.arange(most)
            is_there_BK = torch.arange(most) < count_B[chosen_B].unsqueeze(1)
            medians.append(error_S[index_BK[is_there_BK]].median())
        return float(torch.stack(medians).std())

    @property
    def outlier_rate(self) -> float:
        """Share of the sources that were not found."""
        return float(self.is_outlier_S.double().mean()) if len(self.error_S) else nan

    @property
    def angle_rmse_deg(self) -> float:
        """Of the sources found."""
        return float(self._of_found(self.angle_S).rad2deg())

    @property
    def range_rmse_m(self) -> float:
        """Of the sources found."""
        return float(self._of_found(self.range_S))

    @property
    def rmse_m(self) -> float:
        """Of the distance, of the sources found."""
        return float(self._of_found(self.error_S))

    @property
    def bound_rmse_m(self) -> float:
        """The least that `rmse_m` can be for an unbiased estimator."""
        return float(self._of_found(self.bound_S))

    @property
    def ratio(self) -> float:
        """√(Σ error² / Σ bound²) over the sources found."""
        return self.rmse_m / self.bound_rmse_m if self.bound_rmse_m > 0 else nan

    def _of_found(self, value_S: Tensor) -> Tensor:
        return value_S[~self.is_outlier_S].square().mean().sqrt()


def bounds_m(scenes: Scenes, config: ArrayConfig) -> Tensor:
    """The Cramér–Rao bound of each source's distance, in m, BK; NaN where it cannot be known."""
    is_known_B = scenes.snr_db_B.isfinite() & scenes.powers_BK.isfinite().all(-1)
    bound_BK = torch.full(scenes.powers_BK.shape, torch.nan, dtype=torch.float64)
    if is_known_B.any():
        known = scenes.select(is_known_B)
        found_BK = position_bound_m(stochastic_bound(known, config), known)
        bound_BK[is_known_B.cpu()] = found_BK.cpu()
    return bound_BK


def errors_of(
    positions_BK3: Tensor, scenes: Scenes, bound_BK: Tensor, config: ArrayConfig
) -> Errors:
    """Match positions to the true sources (the assignment of least total distance) and compare.

    Args:
        positions_BK3: Estimates in any order, one for each source that is present.
        scenes: The truth.
        bound_BK: Of `bounds_m`.
        config: The size.
    """
    matched_BK3, error_BK = match_positions(positions_BK3, scenes)
    mask_BK = scenes.source_mask_BK.cpu()
    true_S3 = scenes.positions_BK3.cpu().double()[mask_BK]
    found_S3 = matched_BK3.cpu().double()[mask_BK]
    error_S, bound_S = error_BK.cpu().double()[mask_BK], bound_BK[mask_BK]
    cosine_S = (direction(*true_S3[:, :2].T) * direction(*found_S3[:, :2].T)).sum(-1)
    chord_S = (2 - 2 * cosine_S).clamp(min=0).sqrt()
    half_beam_S = true_S3[:, 2] * (_HALF_BEAM / config.side)
    allowed_S = torch.maximum(half_beam_S, (_OUTLIER_DEVIATIONS * bound_S).nan_to_num(nan=0.0))
    return Errors(
        error_S=error_S,
        # Of small angles the cosine keeps half the digits, the chord all of what is left.
        angle_S=2 * (chord_S / 2).clamp(max=1).asin(),
        range_S=found_S3[:, 2] - true_S3[:, 2],
        bound_S=bound_S,
        is_outlier_S=error_S > allowed_S,
        scene_S=torch.arange(len(mask_BK)).unsqueeze(1).expand_as(mask_BK)[mask_BK],
    )


def mean_deviation(value_B: Tensor) -> tuple[float, float]:
    """The mean, and its standard error."""
    value_B = value_B.double()
    return float(value_B.mean()), float(value_B.std() / sqrt(len(value_B)))
