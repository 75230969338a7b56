"""TPE's gain at its candidates over thousands of kernels: as Optuna computes it, but faster.

Kernels, weights and widths are Optuna's own, and so are their densities but for the rounding. Most
of the time that Optuna takes for them goes into three things. Distances from each candidate to each
kernel are taken parameter by parameter; here they are one product of matrices. The part of a kernel
that lies in its range is computed for each; here only where it is not 1. The normal distribution's
tails are computed in Python, number by number; here by the C library.

Candidates far from all kernels have the prior alone, in both densities, and the same gain but for
the rounding: one proposal in fifty is chosen among such. Optuna's own figures decide between them,
so that proposals equal Optuna's to the bit.

Border: two estimators and their candidates; `tpe` builds them. `tests/search/test_tpe.py` names the
parts of Optuna that are not public.

    C candidates, N kernels, D parameters, U distinct values, P distinct kernels of one parameter
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator
from optuna.samplers._tpe.probability_distributions import (
    _BatchedCategoricalDistributions,
    _BatchedTruncLogNormDistributions,
    _BatchedTruncNormDistributions,
    _MixtureOfProductDistribution,
)

from hpo.database.history import Floats, Ints

# Up to so many kernels Optuna's own figures are as fast.
EXACT = 60
# Beyond so many, widths are found without their order, unless more than a few are not the least.
_SPARSE, _FEW = 200, 16
# Gains that differ by less are Optuna's to compare. The figures here are off by 10⁻¹¹ at most: each
# parameter adds terms of up to 1,250, a double has 2⁻⁵³ of that as error, and 50 may add up.
_TIE = 1e-9
# Beyond so many widths lies less than the last bit of a probability of 1: Φ(−8.3) < 2⁻⁵³.
_WHOLE = 8.3
# So many kernels are summed at once, so that their arrays stay in the cache. From 24 candidates
# times 25 terms times 437 on, OpenBLAS starts threads; they cost more than they bring, and their
# number would show in the last digit.
_BLOCK = 400
_ROOT_2 = math.sqrt(2)
_LOG_ROOT_2PI = 0.5 * math.log(2 * math.pi)

# From so many numbers on torch's vectorized function is faster than a loop over the C library's.
_MANY = 200


class Estimator(_ParzenEstimator):
    """Optuna's estimator, with the same widths of kernels in a fraction of the time.

    A width is the distance to the farther neighbor, but at least a hundredth of the range. Among
    thousands of kernels few have a neighbor so far away, and only these are looked up. Optuna finds
    the neighbors of each, by two sorts of indices.
    """

    def _calculate_numerical_distributions(
        self, observations: Floats, search_space: Any, parameters: Any
    ) -> Any:
        is_usual = parameters.consider_magic_clip and not parameters.consider_endpoints
        sigma_N = None
        if is_usual and search_space.step is None and len(observations) > _SPARSE:
            is_log = search_space.log
            low, high = (
                (np.log(edge) if is_log else edge) for edge in (search_space.low, search_space.high)
            )
            mu_N = np.log(observations) if is_log else observations
            sigma_N = _widths(mu_N, high - low)
        if sigma_N is None:
            return super()._calculate_numerical_distributions(
                observations, search_space, parameters
            )
        kind = _BatchedTruncLogNormDistributions if is_log else _BatchedTruncNormDistributions
        # The last kernel is the prior.
        mu_N = np.append(mu_N, [0.5 * (low + high)])
        sigma_N = np.append(sigma_N, [high - low])
        return kind(mu_N, sigma_N, search_space.low, search_space.high)


def _widths(mu_N: Floats, width: float) -> Floats | None:
    """Optuna's widths of kernels in a range of this width; None if it has to find them itself."""
    least = width / min(100.0, 2.0 + len(mu_N))
    sorted_N = np.sort(mu_N)
    gaps = sorted_N[1:] - sorted_N[:-1]
    wide = np.flatnonzero(gaps > least)
    sigma_N: Floats = np.full(len(mu_N), least)
    if len(wide) > _FEW:
        return None
    for place in np.union1d(wide, wide + 1):
        around = gaps[max(0, place - 1) : place + 1]
        if not around.all():
            # Which of several kernels at one value gets the distance is a matter of their order.
            return None
        sigma_N[mu_N == sorted_N[place]] = min(around.max(), width)
    return sigma_N


def gain(
    good: _ParzenEstimator, other: _ParzenEstimator, samples: Mapping[str, NDArray[Any]]
) -> Floats:
    """The log of the good trials' density over that of the others at candidates, in their order."""
    log_good: Floats = good.log_pdf(dict(samples))
    found: Floats = log_good - log_density(other, samples)
    if len(other._mixture_distribution.weights) > EXACT:
        tied = np.flatnonzero(found > found.max() - _TIE)
        some = {name: values[tied] for name, values in samples.items()}
        if any((values != values[:1]).any() for values in some.values()):
            found[tied] = log_good[tied] - other.log_pdf(some)
    return found


def log_density(estimator: _ParzenEstimator, samples: Mapping[str, NDArray[Any]]) -> Floats:
    """The log density of an estimator at candidates, in their order."""
    mixture, x_CD = estimator._mixture_distribution, estimator._transform(dict(samples))
    if len(mixture.weights) > EXACT and not _is_beyond(mixture):
        return _log_sum(mixture, x_CD)
    found: Floats = mixture.log_pdf(x_CD)
    return found


def _is_beyond(mixture: _MixtureOfProductDistribution) -> bool:
    """True if a kernel's center lies outside of the range, as after a change of the range.

    What such a kernel has in the range may be less than any double, and its density there large.
    """
    for one in mixture.distributions:
        if not isinstance(one, _BatchedCategoricalDistributions):
            # A center at the edge of a logarithmic range may be one bit off.
            slack = 1e-9 * (one.adapted_high - one.adapted_low)
            is_inside = one.adapted_low - slack <= one.mu.min() <= one.mu.max()
            if not is_inside or one.mu.max() > one.adapted_high + slack:
                return True
    return False


def _log_sum(mixture: _MixtureOfProductDistribution, x_CD: Floats) -> Floats:
    """The log of the sum over all kernels, block by block."""
    scale_N: Floats = np.log(mixture.weights)
    tables: list[tuple[Floats, Ints, Ints | None]] = []
    points: list[tuple[Floats, Any]] = []
    for x_C, one in zip(x_CD.T, mixture.distributions, strict=True):
        if isinstance(one, _BatchedCategoricalDistributions):
            x_U, place_C = np.unique(x_C.astype(np.int64), return_inverse=True)
            tables.append((np.log(one.weights.T[x_U]), place_C, None))
        elif one.step == 0.0:
            points.append((np.log(x_C) if one.is_log else x_C, one))
            scale_N -= np.log(one.sigma) + _LOG_ROOT_2PI + _log_inside(one)
        else:
            tables.append(_log_intervals(x_C, one))
    factors_CT, terms_TN = _squares(points, len(x_CD), len(scale_N))
    largest_C, sum_C = np.full(len(x_CD), -np.inf), np.zeros(len(x_CD))
    # The last kernel, the prior, is nowhere 0, so that the largest is finite from the start.
    for begin in reversed(range(0, len(scale_N), _BLOCK)):
        block = slice(begin, begin + _BLOCK)
        log_p_CN = scale_N[block] - factors_CT @ terms_TN[:, block]
        for table, place_C, place_N in tables:
            columns = table[:, block] if place_N is None else table[:, place_N[block]]
            log_p_CN += columns[place_C]
        before_C, largest_C = largest_C, np.maximum(largest_C, log_p_CN.max(axis=1))
        log_p_CN -= largest_C[:, np.newaxis]
        # Against a sum of 1 less than e⁻⁷⁰⁰ is nothing, and `exp` is five times as slow there.
        np.maximum(log_p_CN, -700.0, out=log_p_CN)
        sum_C *= np.exp(before_C - largest_C)
        sum_C += np.exp(log_p_CN, out=log_p_CN).sum(axis=1)
    found: Floats = np.log(sum_C) + largest_C
    return found


def _squares(
    points: Sequence[tuple[Floats, Any]], n_candidates: int, n_kernels: int
) -> tuple[Floats, Floats]:
    """Two matrices whose product is the sum over parameters of (x − μ)² / (2σ²).

    It is x² / (2σ²) − x μ / σ² + μ² / (2σ²) with x and μ taken from the middle of the range. The
    least width is a hundredth of the range, so that no term exceeds 1,250 and the error is 10⁻¹².
    """
    factors = [np.ones(n_candidates)]
    terms = [np.zeros(n_kernels)]
    for x_C, one in points:
        middle = 0.5 * (one.adapted_low + one.adapted_high)
        x_C, mu_N, precision_N = x_C - middle, one.mu - middle, one.sigma**-2.0
        factors += [0.5 * x_C**2, -x_C]
        terms += [precision_N, mu_N * precision_N]
        terms[0] += 0.5 * mu_N * terms[-1]
    return np.array(factors).T, np.array(terms)


def _log_inside(one: Any) -> Floats:
    """The log of the part of each kernel that lies in the range."""
    low_N = (one.adapted_low - one.mu) / one.sigma
    high_N = (one.adapted_high - one.mu) / one.sigma
    found: Floats = np.zeros(len(low_N))
    cut = np.flatnonzero((low_N > -_WHOLE) | (high_N < _WHOLE))
    found[cut] = _log_mass(low_N[cut], high_N[cut])
    return found


def _log_intervals(x_C: Floats, one: Any) -> tuple[Floats, Ints, Ints]:
    """The log of the part of each kernel that lies in the interval around each candidate.

    Returns:
        A table of distinct candidates and kernels, and the place of each candidate and each kernel.
    """
    x_U, place_C = np.unique(x_C, return_inverse=True)
    mu_P, sigma_P, place_N = _distinct(one)
    edges = (x_U - one.step / 2, x_U + one.step / 2)
    low_UP, high_UP = (
        ((np.log(edge) if one.is_log else edge)[:, np.newaxis] - mu_P) / sigma_P for edge in edges
    )
    log_p_UP = _log_mass(low_UP, high_UP) - _log_inside(one._replace(mu=mu_P, sigma=sigma_P))
    return log_p_UP, place_C, place_N


def _distinct(one: Any) -> tuple[Floats, Floats, Ints]:
    """Distinct centers and widths, and the place of each kernel among them.

    Of kernels at one value all but the first and the last have the least width, so that the order
    in which their widths were found has each pair once or twice in a row.
    """
    order = np.argsort(one.mu)
    mu_N, sigma_N = one.mu[order], one.sigma[order]
    is_next = (mu_N[1:] != mu_N[:-1]) | (sigma_N[1:] != sigma_N[:-1])
    first = np.flatnonzero(np.append(True, is_next))
    place_N = np.empty(len(order), dtype=np.int64)
    place_N[order] = np.append(0, np.cumsum(is_next))
    return mu_N[first], sigma_N[first], place_N


def _log_mass(low: Floats, high: Floats) -> Floats:
    """log(Φ(high) − Φ(low)), with all digits in both tails; −∞ where a double holds nothing."""
    is_right = low > 0
    # To the right of 0 the difference is taken at −high and −low, where both are small.
    low, high = np.where(is_right, -high, low), np.where(is_right, -low, high)
    mass: Floats = np.zeros(low.shape)
    # Φ(−38.5) is less than the smallest double.
    some = high > -38.5
    mass[some] = _erfc(-high[some] / _ROOT_2) - _erfc(-low[some] / _ROOT_2)
    with np.errstate(divide="ignore"):
        found: Floats = np.log(0.5 * mass)
    return found


def _erfc(x: Floats) -> Floats:
    """1 − erf(x), with all digits in its tail; numpy has no such function."""
    if x.size < _MANY:
        return np.array([math.erfc(one) for one in x.ravel().tolist()]).reshape(x.shape)
    # A worker has it loaded; the process of a run, which checks a sampler, has not.
    import torch

    found: Floats = torch.special.erfc(torch.from_numpy(np.ascontiguousarray(x))).numpy()
    return found
