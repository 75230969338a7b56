"""Posterior means of scenes of one wall: of the projector on the sources' span, and of A P Aᴴ.

With Π the projector, the expected subspace error of K orthonormal columns U is
1 − tr(Uᴴ E[Π | data] U) / K: the dominant K eigenvectors of E[Π | data] have the least.

Shapes: B scenes, P hypotheses, R of all counted rounds, S of a sample, K sources, N elements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.ris.limit.bank import Bank
from models.ris.limit.hypotheses import Hypotheses, Measured, corners, powers
from models.ris.limit.tempering import Effort, Sampler, Trace
from models.ris.scene.geometry import as_positions
from models.ris.scene.scenes import ArrayConfig, Scenes

# The bank's log-likelihoods of this many scenes take 50 MB at 262,144 hypotheses.
_CHUNK = 50
# Expected distances over so many hypotheses err by 4 %.
_SAMPLE = 600


@dataclass(frozen=True)
class Posterior:
    """Posterior means of scenes, and a sample of each.

    Attributes:
        span_BNN: E[Π | data], complex64, of trace K.
        covariance_BNN: E[A P Aᴴ | data], complex64, of trace N.
        positions_BSK3: Sources of S hypotheses: azimuth and elevation in rad, range in m; NaN for
            absent ones.
        traces: How each scene's sampler went.
    """

    span_BNN: Tensor
    covariance_BNN: Tensor
    positions_BSK3: Tensor
    traces: Sequence[Trace]


class Posteriors:
    """Posteriors of scenes of one size that share a wall; its banks serve all of them.

    Args:
        config: The size, whose prior over the SNR is that of the scenes.
        effort: How many hypotheses and moves a scene gets.
        draws: Hypotheses of the bank for each number of sources.
        seed: Of all randomness; a scene's means depend on it and the scene's number alone.
    """

    def __init__(self, config: ArrayConfig, effort: Effort, *, draws: int, seed: int) -> None:
        self._config, self._effort, self._draws, self._seed = config, effort, draws, seed
        self._banks: dict[int, Bank] = {}

    @torch.no_grad()
    def of(
        self, scenes: Scenes, *, first: int = 0, tell: Callable[[], None] = lambda: None
    ) -> Posterior:
        """Means of scenes, whose truth is not read but for the number of sources.

        Args:
            scenes: On the CPU.
            first: Number of the first scene.
            tell: Called after each scene.
        """
        N, K = self._config.elements, self._config.max_sources
        span_BNN, covariance_BNN = torch.zeros(2, len(scenes), N, N, dtype=torch.complex64)
        positions_BSK3 = torch.full((len(scenes), _SAMPLE, K, 3), torch.nan)
        traces = [Trace() for _ in range(len(scenes))]
        count_B = scenes.source_mask_BK.sum(-1)
        for count in range(1, K + 1):
            for index_B in _indices(count_B == count):
                some = scenes.select(index_B)
                bank = self._bank(count, some)
                log_likelihood_BJ = bank.log_likelihood(some)
                for row, b in enumerate(index_B.tolist()):
                    generator = _generator(self._seed, count, first + b + 1)
                    measured = Measured(some.select(slice(row, row + 1)), self._config)
                    sampler = Sampler(measured, self._effort, generator)
                    rounds = list(sampler.run(bank.unit_XJ, log_likelihood_BJ[row]))
                    span_BNN[b] = torch.stack([_mean_projector(one) for one in rounds]).mean(0)
                    covariances = [_mean_covariance(one, self._config) for one in rounds]
                    covariance_BNN[b] = torch.stack(covariances).mean(0)
                    positions_BSK3[b, :, :count] = _sample(rounds, self._config, generator)
                    traces[b] = sampler.trace
                    tell()
        return Posterior(span_BNN, covariance_BNN, positions_BSK3, traces)

    def _bank(self, count: int, scenes: Scenes) -> Bank:
        if count not in self._banks:
            generator = _generator(self._seed, count, 0)
            bank = Bank(scenes, self._config, draws=self._draws, generator=generator)
            self._banks[count] = bank
        return self._banks[count]


def _indices(chosen_B: Tensor) -> Iterator[Tensor]:
    """Numbers of the chosen scenes, in chunks."""
    index_B = chosen_B.nonzero().squeeze(-1)
    return (index_B[start : start + _CHUNK] for start in range(0, len(index_B), _CHUNK))


def _generator(seed: int, count: int, number: int) -> torch.Generator:
    # Below 2³² all differ, as torch's generator asks: for 1,000 seeds and 500,000 scenes.
    return torch.Generator().manual_seed((seed * 500_000 + number) * 8 + count)


def _mean_projector(some: Hypotheses) -> Tensor:
    """Mean of the projectors on the sources' spans, NN, by Gram-Schmidt."""
    basis: list[Tensor] = []
    for sight in some.sights_K:
        rest_NP = sight.steering_NP
        for unit_NP in basis:
            rest_NP = rest_NP - unit_NP * (unit_NP.conj() * rest_NP).sum(0)
        basis.append(rest_NP / rest_NP.abs().square().sum(0).sqrt())
    return torch.stack([unit_NP @ unit_NP.mH for unit_NP in basis]).sum(0) / some.unit_XP.shape[1]


def _mean_covariance(some: Hypotheses, config: ArrayConfig) -> Tensor:
    """Mean of A P Aᴴ, NN."""
    columns = [
        (sight.steering_NP * power_P) @ sight.steering_NP.mH
        for sight, power_P in zip(some.sights_K, powers(some.unit_XP, config), strict=True)
    ]
    return torch.stack(columns).sum(0) / some.unit_XP.shape[1]


def _sample(
    rounds: Sequence[Hypotheses], config: ArrayConfig, generator: torch.Generator
) -> Tensor:
    """Positions (S, K, 3) of the sources of hypotheses chosen at random."""
    unit_XR = torch.cat([some.unit_XP for some in rounds], 1)
    index_S = torch.randint(unit_XR.shape[1], (_SAMPLE,), generator=generator)
    count = len(rounds[0].sights_K)
    unit_SK3 = unit_XR[: 3 * count, index_S].mT.reshape(_SAMPLE, count, 3)
    low_3, high_3 = corners(config)
    return as_positions(low_3 + (high_3 - low_3) * unit_SK3)
