"""Tempered sequential Monte Carlo of one scene's posterior.

Hypotheses are drawn from a weighted bank at the temperature that it carries. The likelihood's
exponent then rises to 1 in steps that leave half of the sample effective; after each one the
hypotheses are resampled, and moved by Metropolis steps that leave the posterior as it is ([1]). A
step is a difference of two other hypotheses ([2]): it has the posterior's own shape.

Sources have no order, but differences need one: along an axis in which the best hypothesis' sources
differ. A step that breaks this order is rejected, so the posterior is restricted to it.

Shapes: P hypotheses, X unit coordinates, K sources, N elements.

References:
    [1] P. Del Moral, A. Doucet, and A. Jasra, "Sequential Monte Carlo samplers," J. R. Stat.
        Soc. B, vol. 68, no. 3, pp. 411-436, 2006, doi:10.1111/j.1467-9868.2006.00553.x.
    [2] C. J. F. ter Braak, "A Markov chain Monte Carlo version of the genetic algorithm
        differential evolution," Stat. Comput., vol. 16, pp. 239-249, 2006,
        doi:10.1007/s11222-006-8769-1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import log, sqrt

import torch
from torch import Tensor

from models.ris.limit.hypotheses import Hypotheses, Measured

# The bank's exponent leaves so many effective hypotheses for each one drawn: few are drawn twice.
_DISTINCT = 4


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much a scene's posterior is worked on.

    Attributes:
        hypotheses: P.
        rounds: Rounds of moves after each rise of the exponent but the last.
        settling: Rounds at the exponent 1 that are not counted.
        counted: Rounds at the exponent 1 whose hypotheses enter the means.
    """

    hypotheses: int = 1024
    rounds: int = 2
    settling: int = 3
    counted: int = 8


@dataclass
class Trace:
    """What a run did: its exponents, and the accepted share of each kind of move, in order."""

    exponents: list[float] = field(default_factory=list)
    accepted: dict[str, list[float]] = field(default_factory=dict)


class Sampler:
    """The sample of one scene, and the moves that it goes through.

    Args:
        measured: The scene.
        effort: How many hypotheses and moves.
        generator: Source of all randomness.
    """

    def __init__(self, measured: Measured, effort: Effort, generator: torch.Generator) -> None:
        self.measured, self.effort, self.generator = measured, effort, generator
        self.trace = Trace()
        self._axis_3: Tensor | None = None

    def run(self, unit_XJ: Tensor, log_likelihood_J: Tensor) -> Iterator[Hypotheses]:
        """Draw from a bank, rise to the posterior, and yield its hypotheses round by round."""
        count = self.effort.hypotheses
        exponent = _exponent(log_likelihood_J, 0.0, _DISTINCT * count)
        index_P = self._resampled((exponent * log_likelihood_J).softmax(0))
        some = self._ordered(self.measured.hypotheses(unit_XJ[:, index_P]))
        self.trace.exponents.append(exponent)
        while exponent < 1:
            for _ in range(self.effort.rounds):
                some = self._round(some, exponent)
            risen = _exponent(some.log_likelihood_P, exponent, count / 2)
            weight_P = ((risen - exponent) * some.log_likelihood_P).softmax(0)
            some, exponent = some.select(self._resampled(weight_P)), risen
            some = self._ordered(some)
            self.trace.exponents.append(exponent)
        for number in range(self.effort.settling + self.effort.counted):
            some = self._round(some, 1.0)
            if number >= self.effort.settling:
                yield some

    def _round(self, some: Hypotheses, exponent: float) -> Hypotheses:
        """Move everything at once, each source, powers and SNR; and exchange sources."""
        count, coordinates = self.measured.count, self.measured.coordinates
        sources = list(range(count))
        some = self._stepped(some, exponent, "all", list(range(coordinates)), sources)
        scales = list(range(3 * count, coordinates))
        some = self._stepped(some, exponent, "scales", scales, [])
        if count > 1:
            for k in sources:
                rows = [3 * k, 3 * k + 1, 3 * k + 2, 3 * count + k]
                some = self._stepped(some, exponent, "one", rows, [k])
            some = self._exchanged(some, exponent)
        return some

    def _stepped(
        self, some: Hypotheses, exponent: float, kind: str, rows: list[int], sources: list[int]
    ) -> Hypotheses:
        """Metropolis step of some coordinates along differences of other hypotheses."""
        count = some.unit_XP.shape[1]
        index_2P = torch.randint(count, (2, count), generator=self.generator)
        part_XP = some.unit_XP[rows]
        difference_XP = part_XP[:, index_2P[0]] - part_XP[:, index_2P[1]]
        # 2.38/√(2d) is the best scale in d dimensions for a normal posterior; smaller ones serve
        # its narrow parts, and 1 leads from mode to mode.
        size_P = torch.empty(count).uniform_(log(0.1), log(1.2), generator=self.generator).exp()
        size_P = size_P * (2.38 / sqrt(2 * len(rows)))
        size_P[torch.rand(count, generator=self.generator) < 0.1] = 1.0
        # Coordinates differ a little in their scale, or steps would stay in the sample's span.
        size_XP = size_P * (1 + 0.1 * torch.randn(part_XP.shape, generator=self.generator))
        unit_XP = some.unit_XP.clone()
        # Reflection at the walls of the cube keeps steps symmetric.
        unit_XP[rows] = 1 - (1 - (part_XP + size_XP * difference_XP) % 2).abs()
        return self._accepted(some, self.measured.moved(some, unit_XP, sources), exponent, kind)

    def _exchanged(self, some: Hypotheses, exponent: float) -> Hypotheses:
        """Exchange one source between the hypotheses of random pairs, both or neither."""
        count, half = self.measured.count, some.unit_XP.shape[1] // 2
        index_P = torch.randperm(2 * half, generator=self.generator)
        partner_P = torch.empty_like(index_P)
        partner_P[index_P] = index_P.roll(half)
        k = int(torch.randint(count, (), generator=self.generator))
        rows = [3 * k, 3 * k + 1, 3 * k + 2, 3 * count + k]
        unit_XP, sights = some.unit_XP.clone(), list(some.sights_K)
        unit_XP[rows] = some.unit_XP[rows][:, partner_P]
        sights[k] = sights[k].select(partner_P)
        new = self.measured.exchanged(unit_XP, sights)
        gain_P = exponent * (new.log_likelihood_P - some.log_likelihood_P)
        both_P = gain_P + gain_P[partner_P]
        chance_P = torch.rand(len(gain_P), generator=self.generator)
        chance_P = chance_P.minimum(chance_P[partner_P])  # one number for both; its law is below
        taken_P = (1 - (1 - chance_P).square()).log() < both_P
        ordered_P = self._is_ordered(unit_XP)
        taken_P &= ordered_P & ordered_P[partner_P]
        self.trace.accepted.setdefault("exchange", []).append(float(taken_P.float().mean()))
        return some.updated(new, taken_P)

    def _accepted(
        self, some: Hypotheses, new: Hypotheses, exponent: float, kind: str
    ) -> Hypotheses:
        gain_P = exponent * (new.log_likelihood_P - some.log_likelihood_P)
        taken_P = torch.rand(len(gain_P), generator=self.generator).log() < gain_P
        taken_P &= self._is_ordered(new.unit_XP)
        self.trace.accepted.setdefault(kind, []).append(float(taken_P.float().mean()))
        return some.updated(new, taken_P)

    def _is_ordered(self, unit_XP: Tensor) -> Tensor:
        along_KP = self._along(unit_XP)
        return (along_KP.diff(dim=0) >= 0).all(0)

    def _along(self, unit_XP: Tensor) -> Tensor:
        """Places of the sources along the axis, KP."""
        assert self._axis_3 is not None
        places_K3P = unit_XP[: 3 * self.measured.count].view(self.measured.count, 3, -1)
        return (places_K3P * self._axis_3[:, None]).sum(1)

    def _ordered(self, some: Hypotheses) -> Hypotheses:
        """Take the axis from the best hypothesis, and sort the sources of all along it."""
        count = self.measured.count
        best_K3 = some.unit_XP[: 3 * count, some.log_likelihood_P.argmax()].view(count, 3)
        centred_K3 = best_K3 - best_K3.mean(0)
        self._axis_3 = torch.linalg.eigh(centred_K3.mT @ centred_K3).eigenvectors[:, -1]
        if count == 1:
            return some
        order_KP = self._along(some.unit_XP).argsort(0)
        places_K3P = some.unit_XP[: 3 * count].view(count, 3, -1)
        places_K3P = places_K3P.gather(0, order_KP.unsqueeze(1).expand(-1, 3, -1))
        power_KP = some.unit_XP[3 * count : -1].gather(0, order_KP)
        unit_XP = torch.cat((places_K3P.flatten(0, 1), power_KP, some.unit_XP[-1:]))
        return self.measured.hypotheses(unit_XP)

    def _resampled(self, weight_J: Tensor) -> Tensor:
        """Systematic resampling: P indices, each about P times its weight often."""
        count = self.effort.hypotheses
        offset = torch.rand((), generator=self.generator, dtype=torch.float64)
        points_P = (torch.arange(count, dtype=torch.float64) + offset) / count
        index_P = torch.searchsorted(weight_J.double().cumsum(0), points_P)
        return index_P.clamp(max=len(weight_J) - 1)


def _exponent(log_likelihood_J: Tensor, start: float, wanted: float) -> float:
    """Largest exponent up to 1 at which the weights from `start` leave the wanted sample size."""

    def effective(exponent: float) -> float:
        weight_J = ((exponent - start) * log_likelihood_J).softmax(0)
        return float(weight_J.square().sum().reciprocal())

    if effective(1.0) >= wanted:
        return 1.0
    low, high = start, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if effective(middle) >= wanted else (low, middle)
    return low
