"""Positions of least expected distance, from weighted hypotheses.

The covariance of least error does not give the positions of least error: MUSIC on it finds where
power is likely, not where a source is near on average. The estimate here minimises the posterior
mean of the total distance to the sources. Each hypothesis is matched to it as the score matches
positions to the truth (`truth.metric`).

Shapes: B scenes; H hypotheses; K sources of each; 3 = Cartesian coordinates in m unless said
otherwise.
"""

from itertools import permutations

import torch
from torch import Tensor

from models.ris.scene.geometry import direction

# The geometric median converges to a hundredth of a beamwidth in this many steps.
_STEPS = 12
# A distance below this counts as this: the step divides by it.
_LEAST_M = 1e-4
# With more sources their slots' order is kept: 120 orders of five would take longest of all.
_MOST_ORDERED = 3
# Distances between hypotheses of so many pairs take 17 MB, for each pair of sources.
_MOST_PAIRS = 2**22


def nearest_positions(positions_BHK3: Tensor, weights_BH: Tensor) -> Tensor:
    """Positions of least expected total distance.

    It starts at the hypothesis with the least, matches all hypotheses to it, and moves each source
    to the geometric median of its matches, by Weiszfeld's steps ([1]).

    Args:
        positions_BHK3: Azimuth in rad, elevation in rad, range in m.
        weights_BH: Their weights, sum 1.

    Returns:
        positions_BK3 likewise.

    References:
        [1] E. Weiszfeld, "Sur le point pour lequel la somme des distances de n points donnés est
        minimum," Tôhoku Math. J., vol. 43, pp. 355-386, 1937.
    """
    place_BHK3 = positions_BHK3[..., 2:] * direction(*positions_BHK3[..., :2].unbind(-1))
    start_BK3 = _medoid(place_BHK3, weights_BH)
    matched_BHK3 = _matched(place_BHK3, start_BK3)
    estimate_BK3 = start_BK3
    for _ in range(_STEPS):
        distance_BHK = (matched_BHK3 - estimate_BK3.unsqueeze(1)).norm(dim=-1).clamp(min=_LEAST_M)
        pull_BHK = weights_BH.unsqueeze(-1) / distance_BHK
        share_BHK = pull_BHK / pull_BHK.sum(1, keepdim=True)
        estimate_BK3 = (share_BHK.unsqueeze(-1) * matched_BHK3).sum(1)
    range_BK = estimate_BK3.norm(dim=-1)
    x_BK, y_BK, z_BK = estimate_BK3.unbind(-1)
    return torch.stack((torch.atan2(y_BK, x_BK), (z_BK / range_BK).asin(), range_BK), -1)


def _orders(sources: int) -> list[tuple[int, ...]]:
    if sources > _MOST_ORDERED:
        return [tuple(range(sources))]
    return list(permutations(range(sources)))


def _medoid(place_BHK3: Tensor, weights_BH: Tensor) -> Tensor:
    """The hypothesis of least expected distance, BK3."""
    # All cells of the full size are 1,400 hypotheses: 8 MB of distances for each scene.
    scenes = max(1, _MOST_PAIRS // place_BHK3.shape[1] ** 2)
    parts = zip(torch.split(place_BHK3, scenes), torch.split(weights_BH, scenes), strict=True)
    cost_BH = torch.cat([_cost(place_PHK3, weights_PH) for place_PHK3, weights_PH in parts])
    best_B = cost_BH.argmin(-1)
    return place_BHK3[torch.arange(len(best_B), device=best_B.device), best_B]


def _cost(place_BHK3: Tensor, weights_BH: Tensor) -> Tensor:
    """Expected distance to all hypotheses from each of them, BH."""
    places, orders = place_BHK3.unbind(2), _orders(place_BHK3.shape[2])
    pairs = {pair for order in orders for pair in enumerate(order)}
    apart = {(i, j): torch.cdist(places[i], places[j]) for i, j in pairs}
    least_BHH: Tensor | None = None
    for order in orders:
        total_BHH = torch.stack([apart[pair] for pair in enumerate(order)]).sum(0)
        least_BHH = total_BHH if least_BHH is None else torch.minimum(least_BHH, total_BHH)
    assert least_BHH is not None
    return (least_BHH @ weights_BH.unsqueeze(-1)).squeeze(-1)


def _matched(place_BHK3: Tensor, start_BK3: Tensor) -> Tensor:
    """Each hypothesis with its sources in the order that is nearest to an estimate, BHK3."""
    orders = torch.tensor(_orders(place_BHK3.shape[2]), device=place_BHK3.device)
    ordered_BHOK3 = place_BHK3[:, :, orders]
    distance_BHO = (ordered_BHOK3 - start_BK3[:, None, None]).norm(dim=-1).sum(-1)
    best_BH1111 = distance_BHO.argmin(-1)[:, :, None, None, None]
    index = best_BH1111.expand(-1, -1, 1, *ordered_BHOK3.shape[3:])
    return ordered_BHOK3.gather(2, index).squeeze(2)
