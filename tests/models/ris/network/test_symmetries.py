"""Symmetries that an augmentation could use, and where they fail, for the all-learned network.

With fresh scenes at every step none adds anything: each holds in the distribution that scenes are
drawn from. On one wall for all scenes only the phase holds, and the network cannot see it.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from models.ris.scene.scenes import (
    SIZES,
    Installation,
    Scenes,
    element_positions,
    observe,
    scaled_sample_covariance,
    steering,
)
from tests.models.ris.network.test_covariance_net import outputs_of, scenes_of
from tests.models.ris.network.test_transformer import net_of

UNIT = SIZES["unit"]


def test_a_phase_common_to_all_antennas_of_a_snapshot_is_not_seen():
    scenes, net = scenes_of(UNIT), net_of(UNIT).eval()
    phase_BL11 = torch.rand(16, UNIT.codes, 1, 1, generator=torch.Generator().manual_seed(0)) * 6.28

    turned_BLMT = scenes.snapshots_BLMT * torch.polar(torch.ones_like(phase_BL11), phase_BL11)
    turned = replace(scenes, sample_BLMM=scaled_sample_covariance(turned_BLMT))

    # So that augmenting by it would change nothing but rounding.
    torch.testing.assert_close(
        outputs_of(net, turned)["factor"], outputs_of(net, scenes)["factor"], rtol=0, atol=1e-5
    )


def permuted(scenes: Scenes) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    order = torch.randperm(UNIT.codes, generator=torch.Generator().manual_seed(0))
    wall = scenes.installation
    return scenes.sample_BLMM[:, order], wall.codes_BLN[:, order], wall.channel_BMN


def test_the_embedding_by_wall_is_blind_to_the_order_of_codes_under_mean_pooling():
    scenes, net = scenes_of(UNIT, own_walls=True), net_of(UNIT, pooling="mean").eval()
    with torch.no_grad():
        net.backbone.by_code.weight_LFW.zero_()
        net.backbone.by_code.bias_LW.zero_()

    factor = net(*permuted(scenes))["factor"]

    torch.testing.assert_close(factor, outputs_of(net, scenes)["factor"], rtol=0, atol=1e-5)


def test_flattened_tokens_know_their_codes_so_that_their_order_matters():
    scenes, net = scenes_of(UNIT), net_of(UNIT).eval()

    factor = net(*permuted(scenes))["factor"]

    right = outputs_of(net, scenes)["factor"]
    assert (factor - right).norm() > 0.1 * right.norm()


def mirrored(wall: Installation) -> Installation:
    """The wall with its elements mirrored left to right; z varies fastest."""
    side = UNIT.side
    order = torch.arange(side**2).view(side, side).flip(0).flatten()
    return Installation(wall.channel_BMN[..., order], wall.codes_BLN[..., order])


def test_a_mirrored_wall_sees_mirrored_sources_alike_and_the_wall_alone_does_not():
    scenes = scenes_of(UNIT)
    elements_N3 = element_positions(UNIT)
    mirror_3 = torch.tensor([-1.0, 1.0, 1.0])
    here_BK3 = scenes.positions_BK3[:, :1]

    here, there = (
        steering(positions_BK3, elements_N3, wavelength_m=UNIT.wavelength_m)
        for positions_BK3 in (here_BK3, here_BK3 * mirror_3)
    )

    seen = observe(scenes.installation, here)
    # A phase of 2π·2 wavelengths errs in fp32 by 1e-6.
    torch.testing.assert_close(
        observe(mirrored(scenes.installation), there), seen, rtol=0, atol=1e-5
    )
    assert (observe(scenes.installation, there) - seen).norm() > 0.5 * seen.norm()
