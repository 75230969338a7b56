"""Scores of position estimates against the truth and the Cramér–Rao bound.

An outlier is a source whose direction errs by more than five standard deviations of its bound and
by more than half a beamwidth. It counts as not found and is left out of RMSE figures.

Shapes: B scenes, K sources at most, absent ones masked; 3 = azimuth in rad, elevation in rad, range
in m.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import nan, sqrt

import torch
from torch import Tensor

from models.ris.scene.geometry import ArrayConfig, direction
from models.ris.scene.scenes import Scenes
from models.ris.truth.bounds import (
    bound_deviations,
    efficient_errors_m,
    position_bound_m,
    stochastic_bound,
    subspace_floor,
)
from models.ris.truth.metric import match_positions

# Half of a uniform aperture's half-power beamwidth 0.886 λ/(side · λ/2), broadside, is 0.886/side
# rad.
_HALF_BEAM = 0.886
_OUTLIER_DEVIATIONS = 5.0
# With 32 draws per source, the median error of an efficient method is known to 1 %.
_DRAWS = 32


@dataclass(frozen=True)
class Errors:
    """Errors and bounds of every source that is present, of shape S.

    Attributes:
        error_S: Distance to the true position, in m.
        angle_S: Angle between the directions, in rad.
        range_S: Error of the range, in m; signed.
        bound_S: Cramér–Rao bound of the distance, in m; NaN where the truth lacks powers or SNR.
        angle_bound_S: Cramér–Rao bound of the angle, in rad.
        is_outlier_S: True if the source was not found.
        is_beyond_beam_S: True if the direction errs by more than half a beamwidth, whatever the
            bound: at low SNR five of its deviations are wider than the region of sources.
        scene_S: Number of each source's scene.
    """

    error_S: Tensor
    angle_S: Tensor
    range_S: Tensor
    bound_S: Tensor
    angle_bound_S: Tensor
    is_outlier_S: Tensor
    is_beyond_beam_S: Tensor
    scene_S: Tensor

    def select(self, kept_S: Tensor) -> Errors:
        """Return the errors of some of the sources."""
        return replace(self, **{name: value[kept_S] for name, value in vars(self).items()})

    @staticmethod
    def joined(parts: list[Errors]) -> Errors:
        """Return the errors of several sets of scenes as one."""
        offset, scenes = 0, []
        for part in parts:
            scenes.append(part.scene_S + offset)
            offset += int(part.scene_S.max()) + 1 if len(part.scene_S) else 0
        found = {name: torch.cat([getattr(p, name) for p in parts]) for name in vars(parts[0])}
        return Errors(**{**found, "scene_S": torch.cat(scenes)})

    @property
    def median_m(self) -> float:
        """Median distance in m, outliers included."""
        return float(self.error_S.median()) if len(self.error_S) else nan

    def median_deviation_m(self, *, draws: int = 200) -> float:
        """Standard error of `median_m`, in m, by resampling scenes."""
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
    def beyond_beam_rate(self) -> float:
        """Share of the sources whose direction errs by more than half a beamwidth."""
        return float(self.is_beyond_beam_S.double().mean()) if len(self.error_S) else nan

    @property
    def angle_rmse_deg(self) -> float:
        """RMSE of the angle over the sources found, in degrees."""
        return float(self._of_found(self.angle_S).rad2deg())

    @property
    def range_rmse_m(self) -> float:
        """RMSE of the range over the sources found, in m."""
        return float(self._of_found(self.range_S))

    @property
    def rmse_m(self) -> float:
        """RMSE of the distance over the sources found, in m."""
        return float(self._of_found(self.error_S))

    @property
    def bound_rmse_m(self) -> float:
        """Least `rmse_m` of an unbiased estimator, in m."""
        return float(self._of_found(self.bound_S))

    @property
    def ratio(self) -> float:
        """√(Σ error² / Σ bound²) over the sources found."""
        # A scene that does not identify all its parameters has an infinite bound.
        known = self.select(self.bound_S.isfinite())
        least_m = known.bound_rmse_m
        return known.rmse_m / least_m if least_m > 0 else nan

    def _of_found(self, value_S: Tensor) -> Tensor:
        return value_S[~self.is_outlier_S].square().mean().sqrt()


@dataclass(frozen=True)
class Bounds:
    """Least errors of any unbiased estimator; NaN where a scene's powers or SNR are unknown.

    Attributes:
        distance_BK: Standard deviation of the distance to each source, in m, float64.
        efficient_BKD: Random distance errors of an efficient method, in m.
        angle_BK: Standard deviation of the angle between directions, in rad.
        epsilon_B: The subspace metric's floor, of first order in the errors, at most 1.
    """

    distance_BK: Tensor
    efficient_BKD: Tensor
    angle_BK: Tensor
    epsilon_B: Tensor

    @staticmethod
    def of(scenes: Scenes, config: ArrayConfig) -> Bounds:
        """Compute the stochastic Cramér–Rao bounds of scenes; the result is on the CPU."""
        is_known_B = scenes.snr_db_B.isfinite() & scenes.powers_BK.isfinite().all(-1)
        unknown_BK = torch.full(scenes.powers_BK.shape, nan, dtype=torch.float64)
        found = Bounds(
            distance_BK=unknown_BK,
            efficient_BKD=unknown_BK.unsqueeze(-1).repeat(1, 1, _DRAWS),
            angle_BK=unknown_BK.clone(),
            epsilon_B=unknown_BK[:, 0].clone(),
        )
        if not is_known_B.any():
            return found
        known, index_B = scenes.select(is_known_B), is_known_B.cpu()
        bound_BXX = stochastic_bound(known, config)
        found.distance_BK[index_B] = position_bound_m(bound_BXX, known).cpu()
        found.efficient_BKD[index_B] = efficient_errors_m(
            bound_BXX, known, draws=_DRAWS, generator=torch.Generator().manual_seed(0)
        ).cpu()
        found.angle_BK[index_B] = angle_bound_rad(bound_BXX, known).cpu()
        found.epsilon_B[index_B] = subspace_floor(bound_BXX, known, config).clamp(max=1).cpu()
        return found


def angle_bound_rad(bound_BXX: Tensor, scenes: Scenes) -> Tensor:
    """Least standard deviation of the angle between directions, BK in rad, from a bound."""
    azimuth_BK, elevation_BK, _ = bound_deviations(bound_BXX).unbind(-1)
    narrowed_BK = azimuth_BK * scenes.positions_BK3[..., 1].double().cos()
    return torch.hypot(narrowed_BK, elevation_BK)


def allowed_rad(angle_bound_S: Tensor, config: ArrayConfig) -> Tensor:
    """Largest error of a direction, in rad, at which its source still counts as found."""
    allowed_S = (_OUTLIER_DEVIATIONS * angle_bound_S).nan_to_num(nan=0.0)
    return allowed_S.clamp(min=_HALF_BEAM / config.side)


def errors_of(positions_BK3: Tensor, scenes: Scenes, bounds: Bounds, config: ArrayConfig) -> Errors:
    """Match positions to the true sources (the assignment of least total distance) and compare.

    Args:
        positions_BK3: Estimates in any order, one for each source that is present.
        scenes: The truth.
        bounds: Bounds of these scenes.
        config: The size.
    """
    matched_BK3, error_BK = match_positions(positions_BK3, scenes)
    mask_BK = scenes.source_mask_BK.cpu()
    true_S3 = scenes.positions_BK3.cpu().double()[mask_BK]
    found_S3 = matched_BK3.cpu().double()[mask_BK]
    chord_S = (direction(*true_S3[:, :2].T) - direction(*found_S3[:, :2].T)).square().sum(-1).sqrt()
    # For small angles a cosine keeps half the digits, the chord all of them.
    angle_S = 2 * (chord_S / 2).clamp(max=1).asin()
    angle_bound_S = bounds.angle_BK[mask_BK]
    return Errors(
        error_S=error_BK.cpu().double()[mask_BK],
        angle_S=angle_S,
        range_S=found_S3[:, 2] - true_S3[:, 2],
        bound_S=bounds.distance_BK[mask_BK],
        angle_bound_S=angle_bound_S,
        is_outlier_S=angle_S > allowed_rad(angle_bound_S, config),
        is_beyond_beam_S=angle_S > _HALF_BEAM / config.side,
        scene_S=torch.arange(len(mask_BK)).unsqueeze(1).expand_as(mask_BK)[mask_BK],
    )


def mean_deviation(value_B: Tensor) -> tuple[float, float]:
    """Mean, and its standard error."""
    value_B = value_B.double()
    return float(value_B.mean()), float(value_B.std() / sqrt(len(value_B)))
