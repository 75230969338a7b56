"""Steering, channel and codes obey their physics.

Shapes: B installations, N elements, M antennas, L codes, K sources.
"""

from dataclasses import replace
from math import pi, sqrt

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.ris.scene.installation import STATION_RANGE_WL, _line_of_sight
from models.ris.scene.scenes import (
    SIZES,
    direction,
    draw_installation,
    draw_scenes,
    element_positions,
    steering,
)

UNIT = SIZES["unit"]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def direct_steering(positions_K3, elements_N3, wavelength_m):
    """The definition, by differences of distances in float64."""
    p = np.asarray(positions_K3, dtype=np.float64)
    q = np.asarray(elements_N3, dtype=np.float64)
    azimuth, elevation, r = p[:, 0], p[:, 1], p[:, 2]
    u = np.stack(
        (
            np.cos(elevation) * np.cos(azimuth),
            np.cos(elevation) * np.sin(azimuth),
            np.sin(elevation),
        ),
        axis=-1,
    )
    distance = np.linalg.norm((r[:, None] * u)[None] - q[:, None], axis=-1)
    return np.exp(-2j * pi / wavelength_m * (distance - r))


@pytest.mark.parametrize("size", SIZES)
def test_elements_form_a_centred_half_wavelength_square_in_the_yz_plane(size):
    config = SIZES[size]

    elements_N3 = element_positions(config)

    assert elements_N3.shape == (config.elements, 3)
    assert (elements_N3[:, 0] == 0).all()
    # Sums of N float32 offsets of at most 1 m: N · 2⁻²⁴ < 1e-5.
    assert elements_N3.sum(0).abs().max() < 1e-5
    nearest_N = (torch.cdist(elements_N3, elements_N3) + 9 * torch.eye(config.elements)).amin(0)
    # cdist forms squares of lengths up to 2.4 m, so it errs by some 2⁻²³ · 2.4² / spacing = 1e-5 m.
    torch.testing.assert_close(
        nearest_N, torch.full_like(nearest_N, config.wavelength_m / 2), rtol=0, atol=2e-5
    )
    assert elements_N3.norm(dim=-1).max() == pytest.approx(config.aperture_m / 2, rel=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_steering_is_the_exact_spherical_wave_of_unit_modulus(size):
    config = SIZES[size]
    positions_BK3 = draw_scenes(config, 50, seeded()).positions_BK3
    positions_K3 = positions_BK3[positions_BK3.isfinite().all(-1)]
    elements_N3 = element_positions(config)

    a_NK = steering(positions_K3, elements_N3, wavelength_m=config.wavelength_m)

    # |a| is cos² + sin² in float32: 2 roundings.
    torch.testing.assert_close(a_NK.abs(), torch.ones(a_NK.shape), rtol=0, atol=2.5e-7)
    exact_NK = direct_steering(positions_K3, elements_N3, config.wavelength_m)
    # Phases reach k D/2 = 25 rad (full); a dozen float32 roundings of them: 12 · 25 · 2⁻²⁴ = 2e-5.
    assert np.abs(a_NK.numpy() - exact_NK).max() < 2e-5


@given(
    azimuth_rad=st.floats(-1.5, 1.5),
    elevation_rad=st.floats(-1.5, 1.5),
    range_wl=st.floats(3.0, 1e7),
)
@settings(max_examples=60, deadline=None)
def test_steering_keeps_its_accuracy_at_any_range(azimuth_rad, elevation_rad, range_wl):
    elements_N3 = element_positions(UNIT).double()
    position_13 = torch.tensor(
        [[azimuth_rad, elevation_rad, range_wl * UNIT.wavelength_m]]
    ).double()

    coarse_N1 = steering(position_13.float(), elements_N3.float(), wavelength_m=UNIT.wavelength_m)

    fine_N1 = steering(position_13.float().double(), elements_N3, wavelength_m=UNIT.wavelength_m)
    # k D/2 = 6.7 rad, a dozen roundings: 5e-6. The difference of distances would lose
    # k r 2⁻²⁴ = 3.7 rad at 1e7 wavelengths.
    assert (coarse_N1 - fine_N1).abs().max() < 5e-6


def test_phase_is_zero_at_the_centre_of_the_array():
    config = replace(UNIT, side=5, range_min_m=0.4)
    positions_BK3 = torch.tensor([[0.3, -0.2, 0.5], [-1.0, 0.4, 0.9]])

    a_NK = steering(positions_BK3, element_positions(config), wavelength_m=config.wavelength_m)

    # The middle element is the origin itself, so nothing is rounded.
    assert (a_NK[12] == 1).all()


def test_steering_tends_to_the_plane_wave_far_away():
    elements_N3 = element_positions(UNIT).double()
    angles_K2 = torch.tensor([[0.3, -0.2], [-1.0, 0.4]]).double()
    far_m = 1e5
    positions_K3 = torch.cat((angles_K2, torch.full((2, 1), far_m).double()), dim=-1)

    a_NK = steering(positions_K3, elements_N3, wavelength_m=UNIT.wavelength_m)

    k = 2 * pi / UNIT.wavelength_m
    plane_NK = torch.exp(1j * k * (elements_N3 @ direction(*angles_K2.unbind(-1)).mT))
    # What a plane wave lacks is the curvature, at most k |q|² / 2r.
    assert (a_NK - plane_NK).abs().max() <= k * (UNIT.aperture_m / 2) ** 2 / (2 * far_m)


def test_steering_departs_from_the_fresnel_phase_by_the_cubic_term():
    elements_N3 = element_positions(UNIT).double()
    u_3 = direction(*torch.tensor([0.7, 0.3], dtype=torch.float64))
    k, half_m = 2 * pi / UNIT.wavelength_m, UNIT.aperture_m / 2

    def departure(range_m):
        position_13 = torch.tensor([[0.7, 0.3, range_m]], dtype=torch.float64)
        a_N = steering(position_13, elements_N3, wavelength_m=UNIT.wavelength_m)[:, 0]
        along_N, square_N = elements_N3 @ u_3, elements_N3.square().sum(-1)
        fresnel_N = torch.exp(1j * k * (along_N - (square_N - along_N**2) / (2 * range_m)))
        return float((a_N - fresnel_N).abs().max())

    # The next term of the series is k q·u (|q|² − (q·u)²) / 2r², at most k |q|³ / (3√3 r²); what
    # follows is |q|/r = 1/20 of it.
    assert departure(20 * half_m) < 1.1 * k * half_m / (3 * sqrt(3) * 20**2)
    assert departure(20 * half_m) / departure(40 * half_m) == pytest.approx(4, rel=0.1)


def test_autocast_does_not_reach_the_steering():
    positions_K3 = torch.tensor([[0.3, -0.2, 0.5], [-1.0, 0.4, 0.9]])
    elements_N3 = element_positions(UNIT)
    plain_NK = steering(positions_K3, elements_N3, wavelength_m=UNIT.wavelength_m)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast_NK = steering(positions_K3, elements_N3, wavelength_m=UNIT.wavelength_m)

    assert torch.equal(cast_NK, plain_NK)


def test_config_refuses_sources_inside_the_surface():
    with pytest.raises(ValueError, match="range_min_m"):
        replace(UNIT, range_min_m=UNIT.aperture_m / 2)


@pytest.mark.parametrize("name", ["side", "antennas", "codes", "snapshots", "max_sources", "rank"])
def test_config_refuses_empty_dimensions(name):
    with pytest.raises(ValueError, match=name):
        replace(UNIT, **{name: 0})


def test_line_of_sight_is_the_exact_distance_to_each_antenna():
    config = SIZES["full"]
    unit_B2 = torch.tensor([[0.5, 0.5], [0.9, 0.2]])

    los_BMN = _line_of_sight(config, unit_B2)

    elements_N3 = element_positions(config).double().numpy()
    for los_MN, (azimuth, elevation) in zip(los_BMN, unit_B2.double().numpy(), strict=True):
        angles = torch.tensor(
            (
                (2 * azimuth - 1) * config.azimuth_max_rad,
                (2 * elevation - 1) * config.elevation_max_rad,
            )
        )
        station = direction(*angles.double()).numpy() * STATION_RANGE_WL * config.wavelength_m
        for m in range(config.antennas):
            offset_m = (m - (config.antennas - 1) / 2) * config.wavelength_m / 2
            antenna = station + np.array((0, offset_m, 0))
            distance_N = np.linalg.norm(antenna - elements_N3, axis=-1)
            exact_N = np.exp(-2j * pi / config.wavelength_m * distance_N)
            # k d = 314 rad and more, a few float32 roundings of it: 5 · 314 · 2⁻²⁴ = 1e-4.
            assert np.abs(los_MN[m].numpy() - exact_N).max() < 1e-4


@pytest.mark.parametrize("rician_db", [-30.0, 0.0, 3.0, 30.0])
def test_channel_has_unit_mean_power_and_the_k_factor_it_says(rician_db):
    config = replace(UNIT, rician_min_db=rician_db, rician_max_db=rician_db)

    power = draw_installation(config, seeded(), batch=2000).channel_BMN.abs().square()

    kappa, n = 10 ** (rician_db / 10), power.numel()
    # Rician of unit power: var |h|² = (1 + 2κ)/(1 + κ)². Entries are independent given the line of
    # sight, whose modulus is one. Five standard errors, and 1e-6 for float32.
    variance = (1 + 2 * kappa) / (1 + kappa) ** 2
    assert power.mean().item() == pytest.approx(1, abs=5 * sqrt(variance / n) + 1e-6)
    # The sample variance of |h|² (kurtosis below that of an exponential, 9) errs by √(8/n).
    assert power.var().item() == pytest.approx(variance, rel=5 * sqrt(8 / n))


@pytest.mark.parametrize("bits", [1, 3])
def test_codes_use_every_phase_of_the_shifter_and_no_other(bits):
    codes = draw_installation(replace(UNIT, code_bits=bits), seeded()).codes_BLN

    step = codes.angle().double() / (2 * pi / 2**bits)
    # The angle of a float32 pair errs by about 2⁻²³ rad · 2^bits/2π.
    assert (step - step.round()).abs().max() < 1e-5
    assert set((step.round().long() % 2**bits).flatten().tolist()) == set(range(2**bits))
    torch.testing.assert_close(codes.abs(), torch.ones(codes.shape), rtol=0, atol=2.5e-7)


def test_sensing_is_the_channel_times_the_code_over_the_root_of_n():
    installation = draw_installation(UNIT, seeded(), batch=3)

    sensing_BLMN = installation.sensing_BLMN

    for b in range(3):
        for l in range(UNIT.codes):
            code_NN = torch.diag(installation.codes_BLN[b, l])
            expected_MN = installation.channel_BMN[b] @ code_NN / sqrt(UNIT.elements)
            torch.testing.assert_close(sensing_BLMN[b, l], expected_MN)
