"""Scenes of chosen positions, and their Fisher information by its definition, through autograd.

Shapes: N elements, M antennas, L codes, T snapshots a code, K sources, X = 3K positions, Y = 4K + 1
parameters (positions, powers, σ²), R Monte-Carlo runs.
"""

import torch
from torch.func import jacfwd

from models.ris.scene.scenes import (
    SIZES,
    Installation,
    Scenes,
    draw_installation,
    element_positions,
    steering,
)

UNIT = SIZES["unit"]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def placed(config, positions_BK3, *, snr_db, wall, powers_BK=None):
    """Scenes of given positions; nothing measured."""
    positions_BK3 = torch.as_tensor(positions_BK3, dtype=torch.float32)
    B, K, _ = positions_BK3.shape
    L, M, N = config.codes, config.antennas, config.elements
    return Scenes(
        installation=wall,
        snapshots_BLMT=torch.zeros(B, L, M, config.snapshots),
        sample_BLMM=torch.zeros(B, L, M, M),
        steering_BNK=torch.zeros(B, N, K),
        powers_BK=torch.full((B, K), 1 / K) if powers_BK is None else torch.as_tensor(powers_BK),
        positions_BK3=positions_BK3,
        source_mask_BK=torch.ones(B, K, dtype=torch.bool),
        noise_B=torch.ones(B),
        snr_db_B=torch.full((B,), float(snr_db)),
    )


def two_sources(snr_db, config=UNIT, *, seed=0):
    wall = draw_installation(config, seeded(seed))
    positions_BK3 = [[[0.5, 0.2, 0.4], [-0.3, -0.1, 0.6]]]
    return placed(config, positions_BK3, snr_db=snr_db, wall=wall, powers_BK=[[0.6, 0.4]])


def truth(scenes, scene=0):
    """α of one scene: its positions, powers and σ², float64."""
    kept = scenes.source_mask_BK[scene]
    eta_X = scenes.positions_BK3[scene, kept].double().reshape(-1)
    power_K = scenes.powers_BK[scene, kept].double()
    signal_LMM = covariances(torch.cat((eta_X, power_K, torch.zeros(1))), scenes, scene)
    M = signal_LMM.shape[-1]
    gain = signal_LMM.diagonal(dim1=-2, dim2=-1).real.sum(-1).mean() / M
    sigma2 = gain * 10 ** (-scenes.snr_db_B[scene].double() / 10)
    return torch.cat((eta_X, power_K, sigma2.reshape(1)))


def sensing(scenes, scene):
    wall = scenes.installation
    double = Installation(wall.channel_BMN.to(torch.complex128), wall.codes_BLN)
    return double.sensing_BLMN[scene if len(wall) > 1 else 0]


def seen(eta_X, scenes, scene, config=UNIT):
    """Φ_l A, (L, M, K), of one scene by the definition."""
    elements_N3 = element_positions(config).double()
    A_NK = steering(eta_X.reshape(-1, 3), elements_N3, wavelength_m=config.wavelength_m)
    return sensing(scenes, scene) @ A_NK


def covariances(alpha_Y, scenes, scene, config=UNIT):
    """R_l, (L, M, M), of one scene by the definition."""
    K = (len(alpha_Y) - 1) // 4
    V_LMK = seen(alpha_Y[: 3 * K], scenes, scene, config)
    eye_MM = torch.eye(V_LMK.shape[1], dtype=torch.float64)
    return (V_LMK * alpha_Y[3 * K : -1]) @ V_LMK.mH + alpha_Y[-1] * eye_MM


def slopes(function, at):
    """Jacobian of a complex function of real numbers, which jacfwd refuses."""
    pairs = jacfwd(lambda at: torch.view_as_real(function(at)))(at)
    real, imaginary = pairs.movedim(-1 - at.dim(), 0)
    return torch.complex(real, imaginary)


def score(alpha_Y, y_LM, scenes, config=UNIT):
    """Gradient of the log-likelihood of one snapshot a code of the first scene, by autograd."""

    def log_likelihood(alpha_Y):  # but for a constant
        factor_LMM = torch.linalg.cholesky(covariances(alpha_Y, scenes, 0, config))
        white_LM1 = torch.linalg.solve_triangular(factor_LMM, y_LM.unsqueeze(-1), upper=False)
        log_LM = factor_LMM.diagonal(dim1=-2, dim2=-1).real.log()
        return -2 * log_LM.sum() - white_LM1.abs().square().sum()

    return jacfwd(log_likelihood)(alpha_Y)


def information(alpha_Y, scenes, scene=0, config=UNIT):
    """J of one snapshot a code by the definition, R differentiated by autograd."""
    W_LMM = torch.linalg.inv(covariances(alpha_Y, scenes, scene, config))
    slope_LMMY = slopes(lambda alpha_Y: covariances(alpha_Y, scenes, scene, config), alpha_Y)
    WdR_LMMY = torch.einsum("lmk,lkny->lmny", W_LMM, slope_LMMY)
    return torch.einsum("lmny,lnmz->yz", WdR_LMMY, WdR_LMMY).real


def draw_snapshots(scenes, runs, generator, config=UNIT):
    """y (R, L, M) of the first scene, one snapshot a code, fresh symbols."""
    factor_LMM = torch.linalg.cholesky(covariances(truth(scenes), scenes, 0, config))
    shape = (runs, *factor_LMM.shape[:2], 1)
    white_RLM1 = torch.randn(shape, dtype=torch.complex128, generator=generator)
    return (factor_LMM @ white_RLM1).squeeze(-1)
