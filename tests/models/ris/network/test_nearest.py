"""Positions of least expected distance."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from models.ris.network.nearest import nearest_positions

# Azimuth in rad, elevation in rad, range in m.
LEFT, RIGHT, AHEAD = [-0.5, 0.1, 1.0], [0.6, -0.1, 0.8], [0.0, 0.0, 0.6]


def test_certain_hypotheses_are_returned_as_they_are():
    positions_BHK3 = torch.tensor([[[LEFT, RIGHT], [AHEAD, AHEAD]]])

    found_BK3 = nearest_positions(positions_BHK3, torch.tensor([[1.0, 0.0]]))

    torch.testing.assert_close(found_BK3, torch.tensor([[LEFT, RIGHT]]), rtol=0, atol=1e-4)


def test_the_order_of_a_hypothesis_sources_does_not_count():
    one = torch.tensor([[[LEFT, RIGHT], [LEFT, RIGHT], [RIGHT, LEFT]]])

    found_BK3 = nearest_positions(one, torch.full((1, 3), 1 / 3))

    torch.testing.assert_close(found_BK3, torch.tensor([[LEFT, RIGHT]]), rtol=0, atol=1e-4)


def test_the_median_of_three_places_ignores_how_far_the_outlier_is():
    weights_BH = torch.tensor([[0.4, 0.4, 0.2]])

    found = [
        nearest_positions(torch.tensor([[[LEFT], [LEFT], [[0.4, 0.0, far_m]]]]), weights_BH)
        for far_m in (0.5, 5.0)
    ]

    # With four fifths of the weight at one place the geometric median is that place.
    for found_BK3 in found:
        torch.testing.assert_close(found_BK3, torch.tensor([[LEFT]]), rtol=0, atol=2e-3)


def test_no_other_position_has_a_smaller_expected_distance():
    generator = torch.Generator().manual_seed(0)
    positions_BHK3 = torch.rand(4, 40, 1, 3, generator=generator) + torch.tensor([-0.5, -0.5, 0.5])
    weights_BH = torch.rand(4, 40, generator=generator)
    weights_BH = weights_BH / weights_BH.sum(-1, keepdim=True)

    def cost_B(found_BK3: torch.Tensor) -> torch.Tensor:
        def place(p: torch.Tensor) -> torch.Tensor:
            azimuth, elevation, range_m = p.unbind(-1)
            flat = range_m * elevation.cos()
            return torch.stack(
                (flat * azimuth.cos(), flat * azimuth.sin(), range_m * elevation.sin()), -1
            )

        distance_BH = (place(positions_BHK3) - place(found_BK3).unsqueeze(1)).norm(dim=-1)
        return (distance_BH.squeeze(-1) * weights_BH).sum(-1)

    found_BK3 = nearest_positions(positions_BHK3, weights_BH)

    for _ in range(20):
        moved_BK3 = found_BK3 + 0.03 * torch.randn(4, 1, 3, generator=generator)
        # Twelve steps leave the cost within 1e-4 m of its minimum.
        assert (cost_B(moved_BK3) > cost_B(found_BK3) - 1e-4).all()


def test_many_hypotheses_take_the_memory_of_a_few_scenes_and_change_nothing():
    generator = torch.Generator().manual_seed(0)
    positions_BHK3 = torch.rand(3, 1500, 1, 3, generator=generator) + 0.3
    weights_BH = torch.rand(3, 1500, generator=generator).softmax(-1)

    class Largest(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            found = func(*args, **(kwargs or {}))
            for tensor in tree_leaves(found):
                if isinstance(tensor, torch.Tensor):
                    self.elements = max(self.elements, tensor.numel())
            return found

    with Largest() as largest:
        together_BK3 = nearest_positions(positions_BHK3, weights_BH)

    # The distances of one scene's hypotheses, and not of all three scenes'.
    assert largest.elements <= 1500**2
    alone = [nearest_positions(positions_BHK3[[b]], weights_BH[[b]]) for b in range(3)]
    torch.testing.assert_close(together_BK3, torch.cat(alone), rtol=0, atol=1e-5)
