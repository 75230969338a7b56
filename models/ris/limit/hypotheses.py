"""Hypotheses about the sources of one scene, with their log-likelihoods.

A hypothesis is a point of the unit cube, in which the prior of the scenes is uniform: azimuth,
elevation and reciprocal range of each source; powers in dB, if there are several; last the SNR
in dB. Layouts that `draw_scenes` rejects have likelihood 0.

Shapes: P hypotheses (last, so that all elementwise work runs along them), K sources, X unit
coordinates, N elements, L codes, M antennas, T snapshots a code, Z rows of the sensing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.ris.limit.likelihood import Sight, log_likelihood, square
from models.ris.scene.geometry import as_positions
from models.ris.scene.scenes import (
    MAX_CORRELATION,
    ArrayConfig,
    Scenes,
    element_positions,
    steering,
)


@dataclass(frozen=True)
class Hypotheses:
    """Hypotheses with their log-likelihoods, −inf outside of the prior."""

    unit_XP: Tensor
    sights_K: Sequence[Sight]
    log_likelihood_P: Tensor

    def select(self, index_P: Tensor) -> Hypotheses:
        """Return some of the hypotheses."""
        sights = [sight.select(index_P) for sight in self.sights_K]
        return Hypotheses(self.unit_XP[:, index_P], sights, self.log_likelihood_P[index_P])

    def updated(self, other: Hypotheses, taken_P: Tensor) -> Hypotheses:
        """Return the hypotheses with those of another set in the marked places."""
        sights = [
            old if old is new else old.updated(new, taken_P)
            for old, new in zip(self.sights_K, other.sights_K, strict=True)
        ]
        return Hypotheses(
            torch.where(taken_P, other.unit_XP, self.unit_XP),
            sights,
            torch.where(taken_P, other.log_likelihood_P, self.log_likelihood_P),
        )


class Measured:
    """What an estimator is given of one scene: snapshots of any scale, the wall, and K.

    Args:
        scene: Scenes, of which the first is taken; its truth is not read but for the number of
            sources.
        config: The size.
    """

    def __init__(self, scene: Scenes, config: ArrayConfig) -> None:
        self.config, self.count = config, int(scene.source_mask_BK[0].sum())
        snapshots_LMT = scene.snapshots_BLMT[0]
        # The scale is free; this one keeps float32 in the middle of its range.
        snapshots_LMT = snapshots_LMT / snapshots_LMT.abs().square().sum().sqrt()
        sensing_LMN = scene.installation.sensing_BLMN[0]
        self._low_3, self._high_3 = corners(config)
        self._elements_N3 = element_positions(config)
        self.shape = tuple(snapshots_LMT.shape)
        matched_LTN = snapshots_LMT.mH @ sensing_LMN
        self._rows_ZN = torch.cat((sensing_LMN.flatten(0, 1), matched_LTN.flatten(0, 1)))

    @property
    def coordinates(self) -> int:
        """X, the unknowns of a hypothesis."""
        return coordinates(self.count)

    def hypotheses(self, unit_XP: Tensor) -> Hypotheses:
        """Hypotheses at points of the unit cube."""
        return self._judged(unit_XP, self._sights(unit_XP, range(self.count)))

    def moved(self, old: Hypotheses, unit_XP: Tensor, sources: Sequence[int]) -> Hypotheses:
        """Hypotheses of which only the given sources have other places than the old ones.

        Args:
            old: As many hypotheses.
            unit_XP: The new points; powers and SNR may differ, too.
            sources: Those with new places.
        """
        sights, new = list(old.sights_K), self._sights(unit_XP, sources)
        for source, sight in zip(sources, new, strict=True):
            sights[source] = sight
        return self._judged(unit_XP, sights)

    def exchanged(self, unit_XP: Tensor, sights_K: Sequence[Sight]) -> Hypotheses:
        """Hypotheses at points whose sources have been seen already."""
        return self._judged(unit_XP, sights_K)

    def _sights(self, unit_XP: Tensor, sources: Sequence[int]) -> list[Sight]:
        if not len(sources):
            return []
        codes, antennas, snapshots = self.shape
        places_P3 = torch.cat([unit_XP[3 * k : 3 * k + 3] for k in sources], 1).mT
        positions_P3 = as_positions(self._low_3 + (self._high_3 - self._low_3) * places_P3)
        steering_NP = steering(
            positions_P3, self._elements_N3, wavelength_m=self.config.wavelength_m
        )
        seen_ZP = self._rows_ZN @ steering_NP
        seen_LMP = seen_ZP[: codes * antennas].view(codes, antennas, -1)
        matched_LTP = seen_ZP[codes * antennas :].view(codes, snapshots, -1)
        norm_LP = square(seen_LMP).sum(1)
        whole = (steering_NP, seen_LMP, matched_LTP, norm_LP)
        parts = [part.chunk(len(sources), -1) for part in whole]
        return [Sight(*one) for one in zip(*parts, strict=True)]

    def _judged(self, unit_XP: Tensor, sights_K: Sequence[Sight]) -> Hypotheses:
        strength_KP = strengths(unit_XP, [s.norm_LP for s in sights_K], self.shape[1], self.config)
        log_likelihood_P = log_likelihood(strength_KP, sights_K)
        for k, sight in enumerate(sights_K):
            for other in sights_K[:k]:
                inner_P = (sight.steering_NP.conj() * other.steering_NP).sum(0)
                is_close_P = inner_P.abs() > MAX_CORRELATION * self.config.elements
                log_likelihood_P = log_likelihood_P.where(~is_close_P, -torch.inf)
        return Hypotheses(unit_XP, sights_K, log_likelihood_P)


def coordinates(count: int) -> int:
    """Unknowns of a hypothesis of so many sources."""
    return 4 if count == 1 else 4 * count + 1


def corners(config: ArrayConfig) -> tuple[Tensor, Tensor]:
    """Corners of the region of sources: azimuth, elevation, reciprocal range."""
    low = (-config.azimuth_max_rad, -config.elevation_max_rad, 1 / config.range_max_m)
    high = (config.azimuth_max_rad, config.elevation_max_rad, 1 / config.range_min_m)
    return torch.tensor(low), torch.tensor(high)


def powers(unit_XP: Tensor, config: ArrayConfig) -> Tensor:
    """Powers of the sources, (K, P), of sum 1."""
    if len(unit_XP) == 4:
        return torch.ones_like(unit_XP[:1])
    count = (len(unit_XP) - 1) // 4
    power_db_KP = config.power_spread_db * (2 * unit_XP[3 * count : -1] - 1)
    power_KP = 10 ** (power_db_KP / 10)
    return power_KP / power_KP.sum(0)


def strengths(
    unit_XP: Tensor, norms: Sequence[Tensor], antennas: int, config: ArrayConfig
) -> Tensor:
    """Powers over the noise, p_k / σ², with σ² = mean_l ‖Φ_l A √P‖² / (M · SNR); (K, P)."""
    power_KP = powers(unit_XP, config)
    gain_KP = torch.stack([norm_LP.mean(0) for norm_LP in norms]) / antennas
    snr_db_P = config.snr_min_db + (config.snr_max_db - config.snr_min_db) * unit_XP[-1]
    return power_KP * 10 ** (snr_db_P / 10) / (power_KP * gain_KP).sum(0)
