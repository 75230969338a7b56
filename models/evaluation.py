"""A network's covariance against the classical estimators and the bound, on the same scenes.

Every method gets the scenes without their truth (`Scenes.blinded`), and its positions once as they
are and once climbed to the nearest peak of the snapshots' likelihood, the same way for all, so that
it shows whose merit a figure is.

Shapes: B scenes, N elements, R rank, K sources; 3 = azimuth in rad, elevation in rad, range in m.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from models.array import ArrayConfig, Scenes
from models.bounds import stochastic_bound, subspace_floor
from models.estimators import (
    RidgeMatching,
    back_projection,
    bartlett_per_code,
    greedy_maximum_likelihood,
    music_of_covariance,
    music_of_factor,
    music_per_code,
    mvdr_per_code,
    refined_positions,
)
from models.metric import factor_subspace_error, position_subspace_error, subspace_error
from models.scoring import Errors, bounds_m, errors_of

NETWORK = "network, MUSIC on its covariance"
MAXIMUM_LIKELIHOOD = "greedy maximum likelihood"
RIDGE = "ridge covariance, MUSIC"
MUSIC = "MUSIC per code"
BOUND = "Cramér–Rao bound"
# Scenes whose information and covariances are held at once: 140 MB at the full size.
_CHUNK = 200

# Scenes without their truth to F of FFᴴ + sI, (B, N, R).
Network = Callable[[Scenes], Tensor]


@dataclass(frozen=True)
class Method:
    """One way to positions.

    Attributes:
        find: Scenes without their truth to positions_BK3, NaN for absent sources.
        covariance: Scenes without their truth to R_BNN, whose eigenvectors the subspace metric
            takes; None where it takes the span of the positions.
        factor: The same as a factor F_BNR of it.
        is_refined: Whether a climb of the likelihood is part of it already.
    """

    name: str
    find: Callable[[Scenes], Tensor]
    covariance: Callable[[Scenes], Tensor] | None = None
    factor: Network | None = None
    is_refined: bool = False


@dataclass(frozen=True)
class Scored:
    """What a method made of a set of scenes.

    Attributes:
        epsilon_B: The subspace metric ε.
        plain: Its own positions; `refined`: after the climb.
    """

    epsilon_B: Tensor
    plain: Errors
    refined: Errors
    positions_BK3: Tensor


def methods(
    config: ArrayConfig, ridge: RidgeMatching, networks: Mapping[str, Network]
) -> list[Method]:
    """The classical estimators, and networks by their names."""

    def of_covariance(name: str, covariance: Callable[[Scenes], Tensor]) -> Method:
        def find(scenes: Scenes) -> Tensor:
            return music_of_covariance(covariance(scenes), scenes.source_mask_BK, config)

        return Method(name, find, covariance=covariance)

    def of_network(name: str, network: Network) -> Method:
        def find(scenes: Scenes) -> Tensor:
            return music_of_factor(network(scenes), scenes.source_mask_BK, config)

        return Method(name, find, factor=network)

    def maximum_likelihood(scenes: Scenes) -> Tensor:
        fits = greedy_maximum_likelihood(scenes, config, mask_BK=scenes.source_mask_BK)
        return fits[-1].positions_BK3

    return [
        Method("Bartlett per code", lambda scenes: bartlett_per_code(scenes, config)),
        Method("MVDR per code", lambda scenes: mvdr_per_code(scenes, config)),
        Method(MUSIC, lambda scenes: music_per_code(scenes, config)),
        of_covariance(
            "back-projection, MUSIC",
            lambda scenes: back_projection(scenes.sample_BLMM, scenes.installation),
        ),
        of_covariance(RIDGE, lambda scenes: ridge(scenes.sample_BLMM)),
        Method(MAXIMUM_LIKELIHOOD, maximum_likelihood, is_refined=True),
        *(of_network(name, network) for name, network in networks.items()),
    ]


def score(
    method: Method, scenes: Scenes, config: ArrayConfig, bound_BK: Tensor, *, refine: bool = True
) -> Scored:
    """Let a method find the sources of scenes, and compare with the truth."""
    blind = scenes.blinded()
    positions, refined, epsilon = [], [], []
    for start in range(0, len(scenes), _CHUNK):
        part = slice(start, start + _CHUNK)
        unseen, seen = blind.select(part), scenes.select(part)
        found_BK3 = method.find(unseen)
        positions.append(found_BK3)
        climbs = refine and not method.is_refined
        refined.append(refined_positions(found_BK3, unseen, config) if climbs else found_BK3)
        epsilon.append(_epsilon(method, unseen, seen, found_BK3, config))
    found_BK3 = torch.cat(positions)
    return Scored(
        epsilon_B=torch.cat(epsilon).cpu(),
        plain=errors_of(found_BK3, scenes, bound_BK, config),
        refined=errors_of(torch.cat(refined), scenes, bound_BK, config),
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


def bounds(scenes: Scenes, config: ArrayConfig) -> tuple[Tensor, Tensor]:
    """The bound of each source's distance in m, BK, and the floor of ε that it implies, B.

    The floor is of first order in the errors, and clamped to what the metric can be at most.
    """
    bound_BK = bounds_m(scenes, config)
    if not bool(bound_BK.isfinite().any()):
        return bound_BK, torch.full((len(scenes),), torch.nan, dtype=torch.float64)
    floor_B = subspace_floor(stochastic_bound(scenes, config), scenes, config)
    return bound_BK, floor_B.clamp(max=1).cpu()


def milliseconds_per_scene(method: Method, scenes: Scenes, *, batch: int, runs: int = 3) -> float:
    """Median time of a method for a batch of scenes on one thread, a scene's share, in ms."""
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
            # The first one warms caches up.
            times_s += [time.perf_counter() - started_s] if run else []
    finally:
        torch.set_num_threads(threads)
    return 1e3 * median(times_s) / len(blind)


def by_range(errors: Errors, scenes: Sequence[Scenes], config: ArrayConfig) -> list[Errors]:
    """The sources in three parts of equal number by their range: near, middle, far."""
    ranges_S = torch.cat(
        [one.positions_BK3[..., 2].cpu()[one.source_mask_BK.cpu()] for one in scenes]
    )
    cuts = ranges_S.quantile(torch.tensor([1 / 3, 2 / 3]))
    parts = (ranges_S <= cuts[0], (ranges_S > cuts[0]) & (ranges_S <= cuts[1]), ranges_S > cuts[1])
    return [errors.select(part) for part in parts]
