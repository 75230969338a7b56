"""The parameters that a likelihood is fitted by: places, powers and noise of every scene.

Shapes: B scenes, K sources, P = 4K + 1 parameters (K azimuths, elevations and reciprocal ranges
source by source, K log powers, log noise); 3 = azimuth in rad, elevation in rad, reciprocal range
in 1/m.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from models.ris.scene.geometry import as_positions


@dataclass(frozen=True)
class Fit:
    """Parameters of every scene, and their misfit.

    Attributes:
        places_BK3: Places of the sources; any finite ones for absent sources.
        log_power_BK: Logarithm of the powers, in the units of the sample.
        log_noise_B: Logarithm of σ², in the same units.
        mask_BK: True for present sources.
        misfit_B: T Σ_l [logdet R_l + tr(R_l⁻¹ S_l)], the negative log-likelihood in nats up to a
            constant.
    """

    places_BK3: Tensor
    log_power_BK: Tensor
    log_noise_B: Tensor
    mask_BK: Tensor
    misfit_B: Tensor

    @property
    def positions_BK3(self) -> Tensor:
        """Positions by range in m, float32, NaN for absent sources."""
        positions_BK3 = as_positions(self.places_BK3).float()
        return positions_BK3.where(self.mask_BK.unsqueeze(-1), torch.nan)

    @property
    def parameters_BP(self) -> Tensor:
        """Places source by source, log powers, log noise."""
        parts = (self.places_BK3.flatten(1), self.log_power_BK, self.log_noise_B.unsqueeze(-1))
        return torch.cat(parts, -1)

    def with_parameters(self, parameters_BP: Tensor) -> "Fit":
        """Return the fit with other `parameters_BP`; its misfit is still that of the old ones."""
        k = self.mask_BK.shape[1]
        return replace(
            self,
            places_BK3=parameters_BP[:, : 3 * k].reshape(-1, k, 3),
            log_power_BK=parameters_BP[:, 3 * k : 4 * k],
            log_noise_B=parameters_BP[:, 4 * k],
        )

    def better_of(self, other: "Fit") -> "Fit":
        """Return the fit of smaller misfit, scene by scene."""
        better_B = other.misfit_B < self.misfit_B
        return Fit(
            places_BK3=other.places_BK3.where(better_B[:, None, None], self.places_BK3),
            log_power_BK=other.log_power_BK.where(better_B[:, None], self.log_power_BK),
            log_noise_B=other.log_noise_B.where(better_B, self.log_noise_B),
            mask_BK=self.mask_BK,
            misfit_B=other.misfit_B.where(better_B, self.misfit_B),
        )
