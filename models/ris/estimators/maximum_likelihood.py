"""Greedy maximum likelihood: source by source on a grid, with a joint climb after each; and MDL.

Border: the order of the search. `likelihood` has the likelihood and its climb, `posterior` the gain
of one more source at every grid point.

Shapes: B scenes, L codes, M antennas, G grid points, K sources at most; 3 = azimuth in rad,
elevation in rad, range in m (`places`: reciprocal range in 1/m).
"""

from dataclasses import replace
from math import log

import torch
from torch import Tensor

from models.ris.estimators.fit import Fit
from models.ris.estimators.likelihood import Likelihood
from models.ris.estimators.peaks import steered_grid
from models.ris.estimators.posterior import Responses, add_noise, source_gain
from models.ris.scene.geometry import ArrayConfig
from models.ris.scene.scenes import Scenes

# The weaker of two sources 6 dB apart, at -5 dB, has 0.05/M: a candidate may be as weak as that.
_LEAST_POWER = 0.03
_CHUNK_BYTES = 128e6  # a chunk's scores over the grid and its responses to it take this much


def greedy_maximum_likelihood(
    scenes: Scenes, config: ArrayConfig, *, mask_BK: Tensor | None = None, sweeps: int = 1
) -> list[Fit]:
    """Fit 1, 2, … K sources to the snapshots by maximum likelihood.

    A source is added where the likelihood gains most on the grid (exactly, with powers and noise of
    all else held). Then all parameters of all sources climb together. A sweep removes each source
    and searches for a better place for it, as in alternating maximisation ([1]).

    Args:
        scenes: Only samples and installation are read, not the truth.
        config: The size.
        mask_BK: True for present sources, which come first; default: K everywhere.
        sweeps: Number of sweeps after each addition.

    Returns:
        Fits with 1, 2, … K sources; a scene has no more of them than its mask.

    References:
        [1] I. Ziskind, M. Wax, "Maximum likelihood localization of multiple sources by alternating
        projection," IEEE Trans. Acoust., Speech, Signal Process., vol. 36, no. 10, Oct. 1988.
    """
    points = 3 * config.side**3
    # Scenes that share a wall share the responses to the grid, too.
    rows = 1 if len(scenes.installation) == 1 else 1 + config.antennas
    chunk = max(1, int(_CHUNK_BYTES / (16 * config.codes * rows * points)))
    if mask_BK is None:
        shape, device = (len(scenes), config.max_sources), scenes.sample_BLMM.device
        mask_BK = torch.ones(shape, dtype=torch.bool, device=device)
    parts = [
        _fit(scenes.select(part), config, mask_BK[part], sweeps=sweeps)
        for part in (slice(i, i + chunk) for i in range(0, len(scenes), chunk))
    ]
    return [_joined([fits[k] for fits in parts]) for k in range(mask_BK.shape[1])]


def mdl_count(fits: list[Fit], observations: int) -> Tensor:
    """Number of sources by the minimum description length ([1]).

    k̂ = argmin_k misfit_k + ½ (4k + 1) log n

    Args:
        fits: Fits with 1, 2, … K sources, from `greedy_maximum_likelihood` without a mask.
        observations: n, independent snapshots of a scene: L·T.

    Returns:
        count_B, int64, in 1…K.

    References:
        [1] J. Rissanen, "Modeling by shortest data description," Automatica, vol. 14, no. 5,
        pp. 465-471, Sep. 1978.
    """
    lengths = [
        fit.misfit_B + 0.5 * (4 * count + 1) * log(observations)
        for count, fit in enumerate(fits, start=1)
    ]
    return torch.stack(lengths).argmin(0) + 1


def _fit(scenes: Scenes, config: ArrayConfig, mask_BK: Tensor, *, sweeps: int) -> list[Fit]:
    likelihood = Likelihood(scenes, config)
    places_G3, grid_NG = steered_grid(config, str(mask_BK.device))
    grid = Responses(grid_NG.unsqueeze(0), scenes.installation.sensing_BLMN)
    b, most = mask_BK.shape
    empty_BK3 = torch.full((b, most, 3), torch.nan, device=mask_BK.device)
    fit = likelihood.start(empty_BK3, torch.zeros_like(mask_BK))
    fits = []
    for k in range(most):
        place_B3, power_B = _best_place(scenes, likelihood, fit, places_G3, grid)
        fit = likelihood.climb(_with_source(fit, k, place_B3, power_B, mask_BK[:, k]))
        for _ in range(sweeps if k else 0):
            for j in range(k + 1):
                fit = _resettled(scenes, likelihood, fit, j, places_G3, grid)
        fits.append(fit)
    return fits


def _best_place(
    scenes: Scenes, likelihood: Likelihood, fit: Fit, places_G3: Tensor, grid: Responses
) -> tuple[Tensor, Tensor]:
    """The grid point where one more source explains most, and its power."""
    rest_BLMM = add_noise(likelihood.sources(fit), fit.log_noise_B).to(torch.complex64)
    gain_BG, power_BG = source_gain(
        scenes.sample_BLMM,
        torch.linalg.inv_ex(rest_BLMM).inverse,
        (grid,),
        snapshots=scenes.snapshots_BLMT.shape[-1],
        least_power=_LEAST_POWER,
    )
    best_B1 = gain_BG.argmax(-1, keepdim=True)
    return places_G3[best_B1.squeeze(-1)], power_BG.gather(-1, best_B1).squeeze(-1)


def _with_source(fit: Fit, k: int, place_B3: Tensor, power_B: Tensor, is_there_B: Tensor) -> Fit:
    """The fit with source k at a place, in those scenes that have this source."""
    place_BK3, log_power_BK = fit.places_BK3.clone(), fit.log_power_BK.clone()
    mask_BK = fit.mask_BK.clone()
    place_BK3[:, k], log_power_BK[:, k] = place_B3.double(), power_B.double().log()
    mask_BK[:, k] = is_there_B
    return replace(fit, places_BK3=place_BK3, log_power_BK=log_power_BK, mask_BK=mask_BK)


def _resettled(
    scenes: Scenes, likelihood: Likelihood, fit: Fit, k: int, places_G3: Tensor, grid: Responses
) -> Fit:
    """The fit with source k moved to its best place given the others, if that fits better."""
    mask_BK = fit.mask_BK.clone()
    mask_BK[:, k] = False
    without = replace(fit, mask_BK=mask_BK)
    place_B3, power_B = _best_place(scenes, likelihood, without, places_G3, grid)
    moved = likelihood.climb(_with_source(without, k, place_B3, power_B, fit.mask_BK[:, k]))
    return fit.better_of(moved)


def _joined(fits: list[Fit]) -> Fit:
    """Fits of consecutive scenes as one."""
    return Fit(
        **{
            name: torch.cat([getattr(fit, name) for fit in fits])
            for name in Fit.__dataclass_fields__
        }
    )
