"""Posterior means of scenes of one wall: of the projector on the sources' span, and of A P Aᴴ.

With Π the projector, the expected subspace error of K orthonormal columns U is
1 − tr(Uᴴ E[Π | data] U) / K: the dominant K eigenvectors of E[Π | data] have the least.

Shapes: B scenes, P hypotheses, K sources, N elements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.ris.limit.bank import Bank
from models.ris.limit.hypotheses import Hypotheses, Measured, powers
from models.ris.limit.tempering import Effort, Sampler, Trace
from models.ris.scene.scenes import ArrayConfig, Scenes

# The bank's log-likelihoods of this many scenes take 50 MB at 262,144 hypotheses.
_CHUNK = 50


@dataclass(frozen=True)
class Posterior:
    """Posterior means of scenes, and how each scene's sampler went."""

    span_BNN: Tensor
    covariance_BNN: Tensor
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
        size = self._config.elements
        span_BNN, covariance_BNN = torch.zeros(2, len(scenes), size, size, dtype=torch.complex64)
        traces = [Trace() for _ in range(len(scenes))]
        count_B = scenes.source_mask_BK.sum(-1)
        for count in range(1, self._config.max_sources + 1):
            for index_B in _indices(count_B == count):
                some = scenes.select(index_B)
                bank = self._bank(count, some)
                log_likelihood_BJ = bank.log_likelihood(some)
                for row, number in enumerate(index_B.tolist()):
                    generator = _generator(self._seed, count, first + number + 1)
                    measured = Measured(some.select(slice(row, row + 1)), self._config)
                    sampler = Sampler(measured, self._effort, generator)
                    for hypotheses in sampler.run(bank.unit_XJ, log_likelihood_BJ[row]):
                        power_KP = powers(hypotheses.unit_XP, self._config)
                        share = 1 / (self._effort.counted * self._effort.hypotheses)
                        span_BNN[number] += share * _projectors(hypotheses)
                        covariance_BNN[number] += share * _covariances(hypotheses, power_KP)
                    traces[number] = sampler.trace
                    tell()
        return Posterior(span_BNN, covariance_BNN, traces)

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


def _projectors(some: Hypotheses) -> Tensor:
    """Sum of the projectors on the sources' spans, NN, by Gram-Schmidt."""
    basis: list[Tensor] = []
    for sight in some.sights_K:
        rest_NP = sight.steering_NP
        for unit_NP in basis:
            rest_NP = rest_NP - unit_NP * (unit_NP.conj() * rest_NP).sum(0)
        basis.append(rest_NP / rest_NP.abs().square().sum(0).sqrt())
    return torch.stack([unit_NP @ unit_NP.mH for unit_NP in basis]).sum(0)


def _covariances(some: Hypotheses, power_KP: Tensor) -> Tensor:
    """Sum of A P Aᴴ, NN."""
    columns = [
        (sight.steering_NP * power_P) @ sight.steering_NP.mH
        for sight, power_P in zip(some.sights_K, power_KP, strict=True)
    ]
    return torch.stack(columns).sum(0)
