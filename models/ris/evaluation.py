"""Comparison of a network's covariance with classical estimators and the bound, on the same scenes.

Every method gets the scenes without their truth (`Scenes.blinded`). Its positions are scored twice:
as found, and after a climb to the nearest peak of the snapshots' likelihood. The climb is the same
for all, so the two scores separate the merit of a method from that of the climb.

Shapes: B scenes, N elements, R rank, K sources; 3 = azimuth in rad, elevation in rad, range in m.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from models.ris.estimators.peaks import region
from models.ris.estimators.ridge import (
    back_projection,
    bartlett_per_code,
    greedy_maximum_likelihood,
    music_of_covariance,
    music_of_factor,
    music_per_code,
    mvdr_per_code,
    refined_positions,
)
from models.ris.scene.geometry import as_positions
from models.ris.scene.scenes import ArrayConfig, Scenes
from models.ris.truth.metric import factor_subspace_error, position_subspace_error, subspace_error
from models.ris.truth.scoring import Bounds, Errors, errors_of

NETWORK = "network, MUSIC on its covariance"
NEAREST = "network, least expected distance"
MAXIMUM_LIKELIHOOD = "greedy maximum likelihood"
RIDGE = "ridge covariance, MUSIC"
MUSIC = "MUSIC per code"
BARTLETT = "Bartlett per code"
MVDR = "MVDR per code"
BACK_PROJECTION = "back-projection, MUSIC"
GUESS = "a guess, snapshots unseen"
BOUND = "Cramér–Rao bound"
LIMIT = "exact posterior (limit)"
# The Fisher information and covariances of this many scenes take 140 MB at the full size.
_CHUNK = 200

# An estimator maps scenes without their truth to positions_BK3, a covariance BNN or a factor BNR.
Estimator = Callable[[Scenes], Tensor]
Network = Estimator


@dataclass(frozen=True)
class Method:
    """One method of finding positions.

    Attributes:
        find: Maps scenes without their truth to positions_BK3, NaN for absent sources.
        covariance: Maps scenes without their truth to R_BNN, for the subspace metric. With None,
            and no factor, the metric takes the span of the positions' steering vectors.
        factor: Maps them to a factor F_BNR of the covariance.
        is_final: True if no climb of the likelihood follows: the method includes it, or it would
            be meaningless.
    """

    name: str
    find: Estimator
    covariance: Estimator | None = None
    factor: Network | None = None
    is_final: bool = False


@dataclass(frozen=True)
class Scored:
    """Scores of a method on a set of scenes.

    Attributes:
        epsilon_B: The subspace metric ε.
        plain: Errors of the method's own positions.
        refined: Errors after the climb.
        positions_BK3: The method's own positions.
    """

    epsilon_B: Tensor
    plain: Errors
    refined: Errors
    positions_BK3: Tensor


def methods(
    config: ArrayConfig, ridge: Estimator, network: Network, nearest: Estimator | None = None
) -> list[Method]:
    """Methods to compare: a guess, the classical estimators, and last the network.

    Args:
        ridge: Ridge matching with a chosen loading.
        network: Maps scenes without their truth to F of FFᴴ + sI, BNR.
        nearest: Maps them to the network's own positions, if it has any.
    """

    def of_covariance(name: str, covariance: Estimator) -> Method:
        def find(scenes: Scenes) -> Tensor:
            return music_of_covariance(covariance(scenes), scenes.source_mask_BK, config)

        return Method(name, find, covariance=covariance)

    def of_network(scenes: Scenes) -> Tensor:
        return music_of_factor(network(scenes), scenes.source_mask_BK, config)

    def maximum_likelihood(scenes: Scenes) -> Tensor:
        fits = greedy_maximum_likelihood(scenes, config, mask_BK=scenes.source_mask_BK)
        return fits[-1].positions_BK3

    return [
        Method(GUESS, lambda scenes: guess(scenes.source_mask_BK, config), is_final=True),
        Method(BARTLETT, lambda scenes: bartlett_per_code(scenes, config)),
        Method(MVDR, lambda scenes: mvdr_per_code(scenes, config)),
        Method(MUSIC, lambda scenes: music_per_code(scenes, config)),
        of_covariance(
            BACK_PROJECTION,
            lambda scenes: back_projection(scenes.sample_BLMM, scenes.installation),
        ),
        of_covariance(RIDGE, ridge),
        Method(MAXIMUM_LIKELIHOOD, maximum_likelihood, is_final=True),
        *([Method(NEAREST, nearest)] if nearest is not None else []),
        Method(NETWORK, of_network, factor=network),
    ]


def guess(mask_BK: Tensor, config: ArrayConfig) -> Tensor:
    """Positions in the middle of equal parts of the region: the score of knowing only the region.

    Args:
        mask_BK: True for present sources, which come first; bool.
        config: The size.

    Returns:
        positions_BK3 by range in m, float32, NaN for absent sources.
    """
    low_3, high_3 = region(config, device=mask_BK.device)
    places_BK3 = ((low_3 + high_3) / 2).repeat(*mask_BK.shape, 1)
    count_B1 = mask_BK.sum(-1, keepdim=True).clamp(min=1)
    part_K = torch.arange(mask_BK.shape[1], device=mask_BK.device) + 0.5
    places_BK3[..., 0] = low_3[0] + (high_3[0] - low_3[0]) * part_K / count_B1
    return as_positions(places_BK3).where(mask_BK.unsqueeze(-1), torch.nan)


def score(
    method: Method, scenes: Scenes, config: ArrayConfig, bounds: Bounds, *, refine: bool = True
) -> Scored:
    """Run a method on scenes and compare its positions with the truth."""
    blind = scenes.blinded()
    positions, refined, epsilon = [], [], []
    for start in range(0, len(scenes), _CHUNK):
        part = slice(start, start + _CHUNK)
        unseen, seen = blind.select(part), scenes.select(part)
        found_BK3 = method.find(unseen)
        positions.append(found_BK3)
        climbs = refine and not method.is_final
        refined.append(refined_positions(found_BK3, unseen, config) if climbs else found_BK3)
        # A non-finite estimate counts as missing the whole subspace.
        error_B = _epsilon(method, unseen, seen, found_BK3, config)
        epsilon.append(error_B.nan_to_num(nan=1.0))
    found_BK3 = torch.cat(positions)
    return Scored(
        epsilon_B=torch.cat(epsilon).cpu(),
        plain=errors_of(found_BK3, scenes, bounds, config),
        refined=errors_of(torch.cat(refined), scenes, bounds, config),
        positions_BK3=found_BK3.cpu(),
    )


def _epsilon(
    method: Method, unseen: Scenes, seen: Scenes, found_BK3: Tensor, config: ArrayConfig
) -> Tensor:
    if method.factor is not None:
        return factor_subspace_error(method.factor(unseen), seen)
    if method.covariance is not None:
        return subspace_error(method.covariance(unseen), seen)
    return position_subspace_error(found_BK3, seen, config)


@dataclass(frozen=True)
class Set:
    """Scenes with the scores of each method.

    Attributes:
        label: Name of the set in tables, mostly the SNR in dB.
        bounds: Cramér–Rao bounds, the least errors possible.
        scored: Scores by the method's name.
    """

    label: str
    scenes: Scenes
    bounds: Bounds
    scored: Mapping[str, Scored]

    @property
    def efficient_SD(self) -> Tensor:
        """Random distance errors of an efficient method, D for each source, in m."""
        return self.bounds.efficient_BKD[self.scenes.source_mask_BK.cpu()]


def scored_set(
    label: str,
    scenes: Scenes,
    config: ArrayConfig,
    chosen: Sequence[Method],
    *,
    tell: Callable[[str], None],
    refine: bool = True,
) -> Set:
    """Score methods on scenes; `tell` is called with each one's name before it begins."""
    bounds = Bounds.of(scenes, config)
    scored = {}
    for method in chosen:
        tell(f"{label}: {method.name}")
        scored[method.name] = score(method, scenes, config, bounds, refine=refine)
    return Set(label, scenes, bounds, scored)


def milliseconds_per_scene(method: Method, scenes: Scenes, *, batch: int, runs: int = 3) -> float:
    """Median time per scene, in ms, of a method on a batch of scenes with one thread."""
    blind = scenes.blinded().select(slice(0, batch))
    threads = torch.get_num_threads()
    is_cuda = blind.sample_BLMM.is_cuda
    times_s = []
    try:
        torch.set_num_threads(1)
        for run in range(runs + 1):
            started_s = time.perf_counter()
            method.find(blind)
            if is_cuda:
                torch.cuda.synchronize()
            # The first run only warms caches up, so it is not counted.
            times_s += [time.perf_counter() - started_s] if run else []
    finally:
        torch.set_num_threads(threads)
    return 1e3 * median(times_s) / len(blind)


def by_range(errors: Errors, scenes: Sequence[Scenes]) -> list[Errors]:
    """Sources split by range into three parts of equal number: near, middle, far."""
    ranges_S = torch.cat(
        [one.positions_BK3[..., 2].cpu()[one.source_mask_BK.cpu()] for one in scenes]
    )
    cuts = ranges_S.quantile(torch.tensor([1 / 3, 2 / 3]))
    parts = (ranges_S <= cuts[0], (ranges_S > cuts[0]) & (ranges_S <= cuts[1]), ranges_S > cuts[1])
    return [errors.select(part) for part in parts]
