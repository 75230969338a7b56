"""The likelihood of coded snapshots, and the Gauss–Newton climb to its peak in all parameters.

Snapshots under code l are CN(0, R_l), R_l = Σ_k p_k b_lk b_lkᴴ + σ² I, b_lk = Φ_l a(p_k). The
likelihood depends on them through S_l alone. Powers and noise are in its units (mean_l tr S_l = 1):
together about 1/M.

Nothing here uses the truth. Everything is computed in complex128: at 20 dB and two close sources
the information matrix has a condition number beyond float32.

Shapes: B scenes (sensing: or 1), N elements, M antennas, L codes, K sources, P = 4K + 1 parameters
(K azimuths, elevations and reciprocal ranges source by source, K log powers, log noise), X the M²
reals of a Hermitian M×M matrix; 3 = azimuth in rad, elevation in rad, reciprocal range in 1/m.
"""

from dataclasses import replace
from math import log

import torch
from torch import Tensor

from models.linalg.hermitian import pack_hermitian
from models.ris.estimators.fit import Fit
from models.ris.estimators.peaks import region
from models.ris.scene.geometry import (
    ArrayConfig,
    as_positions,
    element_positions,
    place_derivatives,
)
from models.ris.scene.scenes import Scenes

# Noise and powers are limited to 50 dB below an antenna's mean power; in scenes they are at most 23
# dB below it.
_LEAST = 1e-5
_MOST = 4.0
# The Levenberg–Marquardt damping starts where a step is a quarter shorter, and changes by factors
# of 4 up and 5 down. From MUSIC's peaks, 12 rounds end within 1 % of a standard deviation of the
# optimum in 99 % of scenes.
_FIRST_DAMPING = 0.3
_ROUNDS = 12
# Derivatives and sensing matrices of a chunk take this much, and under 300 MB with temporaries.
_CHUNK_BYTES = 64e6


def refined_positions(positions_BK3: Tensor, scenes: Scenes, config: ArrayConfig) -> Tensor:
    """Positions after a climb to the nearest peak of the snapshots' likelihood.

    Args:
        positions_BK3: Positions by any method, range in m, NaN for absent sources.
        scenes: Only samples, T and installation are read, not the truth.
        config: The size.

    Returns:
        positions_BK3, float32, NaN for absent sources.
    """
    mask_BK = ~positions_BK3.isnan().any(-1)
    parameters = 4 * mask_BK.shape[1] + 1
    L, M, N = config.codes, config.antennas, config.elements
    chunk = max(1, int(_CHUNK_BYTES / (16 * L * M * (2 * M * parameters + N))))
    found = []
    for part in (slice(start, start + chunk) for start in range(0, len(scenes), chunk)):
        likelihood = Likelihood(scenes.select(part), config)
        start = likelihood.start(positions_BK3[part], mask_BK[part])
        found.append(likelihood.climb(start).positions_BK3)
    return torch.cat(found)


class Likelihood:
    """The likelihood of some scenes as a function of positions, powers and noise.

    Args:
        scenes: Only samples, T and installation are read, not the truth.
        config: The size.
    """

    def __init__(self, scenes: Scenes, config: ArrayConfig) -> None:
        self._config = config
        self._sample_BLMM = scenes.sample_BLMM.to(torch.complex128)
        self._snapshots = scenes.snapshots_BLMT.shape[-1]
        self._sensing_BLMN = scenes.installation.sensing_BLMN.to(torch.complex128)
        self._elements_N3 = element_positions(config, device=scenes.sample_BLMM.device).double()

    def start(self, positions_BK3: Tensor, mask_BK: Tensor) -> Fit:
        """Return given positions with powers and noise of about the greatest likelihood.

        Sources share 3/4 of the antennas' power and noise has the rest. Then four rounds of scoring
        change powers and noise alone.
        """
        antennas, count_B1 = self._config.antennas, mask_BK.sum(-1, keepdim=True)
        low_3, high_3 = self._region()
        places_BK3 = as_positions(positions_BK3.double())
        places_BK3 = places_BK3.where(mask_BK.unsqueeze(-1), (low_3 + high_3) / 2)
        power_B1 = 0.75 / antennas / count_B1.clamp(min=1)
        fit = Fit(
            places_BK3=places_BK3.clamp(low_3, high_3),
            log_power_BK=power_B1.double().log().expand_as(mask_BK),
            log_noise_B=torch.full_like(places_BK3[:, 0, 0], log(0.25 / antennas)),
            mask_BK=mask_BK,
            misfit_B=torch.full_like(places_BK3[:, 0, 0], torch.inf),
        )
        return self.climb(fit, rounds=4, moves=False)

    def climb(self, fit: Fit, *, rounds: int = _ROUNDS, moves: bool = True) -> Fit:
        """Take Gauss–Newton steps (Fisher scoring, [1]) with Levenberg's damping, scene by scene.

        (J + λ diag J) δ = −∂misfit,  J_ij = T Σ_l tr(R_l⁻¹ ∂_iR_l R_l⁻¹ ∂_jR_l)

        A step that does not lower the misfit is rejected, and the next one is shorter. Parameters
        stay within their limits. One that would leave them is held, and the others step as if it
        were known (of MUSIC's peaks at the tiny size, 3 in 10 end at a limit of range).

        Args:
            fit: Fit to start from.
            rounds: Number of steps that are tried.
            moves: True to change positions, too; False for powers and noise alone.

        References:
            [1] P. Stoica, R. L. Moses, Spectral Analysis of Signals, Prentice Hall, 2005,
            app. B.4; B. Ottersten, M. Viberg, T. Kailath, "Analysis of subspace fitting and ML
            techniques," IEEE Trans. Signal Process., vol. 40, no. 3, 1992, for the scoring form.
        """
        k = fit.mask_BK.shape[1]
        best, slope_BP, information_BPP = self._measured(fit)
        damping_B = torch.full_like(best.misfit_B, _FIRST_DAMPING)
        free_P = torch.ones(4 * k + 1, dtype=torch.bool, device=slope_BP.device)
        free_P[: 3 * k] = moves
        low_P, high_P = self._limits(k)
        for _ in range(rounds):
            at_BP = best.parameters_BP
            is_held_BP = torch.where(slope_BP > 0, at_BP <= low_P, at_BP >= high_P)
            step_BP = _damped_step(slope_BP, information_BPP, damping_B, free_P & ~is_held_BP)
            moved = best.with_parameters((at_BP + step_BP).clamp(low_P, high_P))
            tried, new_slope_BP, new_information_BPP = self._measured(moved)
            better_B = tried.misfit_B < best.misfit_B
            best = best.better_of(tried)
            slope_BP = new_slope_BP.where(better_B[:, None], slope_BP)
            information_BPP = new_information_BPP.where(better_B[:, None, None], information_BPP)
            damping_B = torch.where(better_B, damping_B / 5, damping_B * 4)
        return best

    def sources(self, fit: Fit) -> Tensor:
        """Σ_k p_k b_lk b_lkᴴ under every code, BLMM."""
        heard_BLMK, _ = self._heard(fit.places_BK3)
        power_BK = fit.log_power_BK.exp() * fit.mask_BK
        return (heard_BLMK * power_BK[:, None, None]) @ heard_BLMK.mH

    def _region(self) -> tuple[Tensor, Tensor]:
        low_3, high_3 = region(self._config, device=self._sample_BLMM.device)
        return low_3.double(), high_3.double()

    def _limits(self, k: int) -> tuple[Tensor, Tensor]:
        """Lower and upper limit of every parameter: the region of sources, the range of powers."""
        low_3, high_3 = self._region()
        antennas = self._config.antennas
        low_P = torch.cat((low_3.repeat(k), low_3.new_full((k + 1,), log(_LEAST / antennas))))
        high_P = torch.cat((high_3.repeat(k), high_3.new_full((k + 1,), log(_MOST / antennas))))
        return low_P, high_P

    def _measured(self, fit: Fit) -> tuple[Fit, Tensor, Tensor]:
        """The fit with its misfit, the misfit's gradient, and the Fisher information."""
        heard_BLMK, bent_BLMK3 = self._heard(fit.places_BK3)
        power_BK = fit.log_power_BK.exp() * fit.mask_BK
        noise_B = fit.log_noise_B.exp()
        eye_MM = torch.eye(heard_BLMK.shape[2], dtype=heard_BLMK.dtype, device=noise_B.device)
        weighted_BLMK = heard_BLMK * power_BK[:, None, None]
        R_BLMM = weighted_BLMK @ heard_BLMK.mH + noise_B[:, None, None, None] * eye_MM
        chol_BLMM, info_BL = torch.linalg.cholesky_ex(R_BLMM)
        # W whitens: W R Wᴴ = I.
        W_BLMM = torch.linalg.solve_triangular(chol_BLMM, eye_MM.expand_as(chol_BLMM), upper=False)
        seen_BLMM = W_BLMM @ self._sample_BLMM @ W_BLMM.mH
        diagonal_BLM = chol_BLMM.diagonal(dim1=-2, dim2=-1).real
        logdet_B = 2 * diagonal_BLM.log().sum((-2, -1))
        trace_B = seen_BLMM.diagonal(dim1=-2, dim2=-1).real.sum((-2, -1))
        misfit_B = self._snapshots * (logdet_B + trace_B)
        misfit_B = misfit_B.where((info_BL == 0).all(-1), torch.inf)
        changes_BLPX = _whitened_changes(W_BLMM, heard_BLMK, bent_BLMK3, power_BK, noise_B)
        change_BPY = changes_BLPX.transpose(1, 2).flatten(2)
        excess_BY = pack_hermitian(seen_BLMM - eye_MM).flatten(1)
        slope_BP = -self._snapshots * (change_BPY @ excess_BY.unsqueeze(-1)).squeeze(-1)
        information_BPP = self._snapshots * (change_BPY @ change_BPY.mT)
        return replace(fit, misfit_B=misfit_B), slope_BP, information_BPP

    def _heard(self, places_BK3: Tensor) -> tuple[Tensor, Tensor]:
        """Φ_l a, (B, L, M, K), and Φ_l ∂a by the coordinates of a place, (B, L, M, K, 3)."""
        a_BNK, D_BNK3 = place_derivatives(
            places_BK3, self._elements_N3, wavelength_m=self._config.wavelength_m
        )
        both_BNY = torch.cat((a_BNK, D_BNK3.flatten(2)), -1)
        c, l, m, n = self._sensing_BLMN.shape
        heard_BZY = self._sensing_BLMN.reshape(c, l * m, n) @ both_BNY
        heard_BLMY = heard_BZY.view(len(both_BNY), l, m, -1)
        k = places_BK3.shape[1]
        return heard_BLMY[..., :k], heard_BLMY[..., k:].reshape(*heard_BLMY.shape[:3], k, 3)


def _whitened_changes(
    W_BLMM: Tensor, heard_BLMK: Tensor, bent_BLMK3: Tensor, power_BK: Tensor, noise_B: Tensor
) -> Tensor:
    """W ∂_iR Wᴴ for every parameter, packed, (B, L, P, X); zero for those of absent sources."""
    z_BLMK = W_BLMM @ heard_BLMK
    v_BLMJ = W_BLMM @ bent_BLMK3.flatten(-2)
    z_BLJM = z_BLMK.repeat_interleave(3, -1).mT
    outer_BLJMM = v_BLMJ.mT.unsqueeze(-1) * z_BLJM.conj().unsqueeze(-2)
    by_place_BLJMM = outer_BLJMM + outer_BLJMM.mH
    by_place_BLJMM = by_place_BLJMM * power_BK.repeat_interleave(3, -1)[:, None, :, None, None]
    z_BLKM = z_BLMK.mT
    by_power_BLKMM = z_BLKM.unsqueeze(-1) * z_BLKM.conj().unsqueeze(-2)
    by_power_BLKMM = by_power_BLKMM * power_BK[:, None, :, None, None]
    by_noise_BL1MM = ((W_BLMM @ W_BLMM.mH) * noise_B[:, None, None, None]).unsqueeze(2)
    return pack_hermitian(torch.cat((by_place_BLJMM, by_power_BLKMM, by_noise_BL1MM), 2))


def _damped_step(
    slope_BP: Tensor, information_BPP: Tensor, damping_B: Tensor, free_BP: Tensor
) -> Tensor:
    """Step of the free parameters; 0 for a parameter without any information."""
    diagonal_BP = information_BPP.diagonal(dim1=-2, dim2=-1)
    is_free_BP = free_BP & (diagonal_BP > 0)
    pairs_BPP = is_free_BP.unsqueeze(-1) & is_free_BP.unsqueeze(-2)
    load_BP = torch.where(is_free_BP, damping_B.unsqueeze(-1) * diagonal_BP, 1.0)
    damped_BPP = information_BPP.where(pairs_BPP, 0) + torch.diag_embed(load_BP)
    chol_BPP, _ = torch.linalg.cholesky_ex(damped_BPP)
    wanted_BP1 = -slope_BP.where(is_free_BP, 0).unsqueeze(-1)
    step_BP: Tensor = torch.cholesky_solve(wanted_BP1, chol_BPP).squeeze(-1)
    return step_BP.nan_to_num(nan=0.0).clamp(-1, 1)
