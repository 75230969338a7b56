"""Bounds on the rounding errors of the loss terms and their gradients in fp32.

First-order bounds [1]: a Gram entry xᴴy errs by e ‖x‖ ‖y‖ (§3.5), a Cholesky solve by a
perturbation e ‖M‖ of M (§10.1), and the derivative of the formula says what an error turns into. A
square of an error is kept where something small divides it.

    norm       e S²/‖R_t‖², S the sum of all norms in it: nothing is inverted
    nll, peak  e κ, κ = (s + tr G)/λ_min(s I + G) <= 1/(8 ε): squares e² κ at the deep nulls
    subspace   e (1/λ_K + √(λ_K+1/λ_K)/gap), by F e (1/λ_K + 1/gap) √(1/λ_K), for tr G = 1

[1] N. J. Higham, "Accuracy and Stability of Numerical Algorithms," 2nd ed., SIAM, 2002.
doi:10.1137/1.9780898718027.

Shapes: B scenes, N elements, R rank, K sources, C kept directions, P positions on the ring.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from models.linalg import eigh_signal
from tests.support.loss_reference import (
    EPS,
    FLOOR,
    Batch,
    energy,
    floored,
    lengths,
    mean,
    norms,
    plus,
    span,
    spectrum,
    trace,
)

# A complex dot product of N = 16 terms errs by 17 · √2 roundings of ε/2 at worst, 12 ε. Roundings
# do not all point one way, so the few operations that follow it fit in, too: the largest error met
# in 30,000 scenes is half of what this allows.
E = 12 * EPS


class Answer(NamedTuple):
    """A value of each scene and its gradient; or bounds of each, of the factor's in its norm."""

    value_B: Tensor
    factor: Tensor
    noise_B: Tensor


def bounds(term: str, batch: Batch) -> Answer:
    """The largest distance of fp32 from `reference`; infinite where that is discontinuous."""
    return {"norm": _norm, "nll": _nll, "subspace": _subspace, "peak": _peak}[term](batch)


def _norm(batch: Batch) -> Answer:
    """S = f² + a² + √N (s + t) >= ‖R‖ + ‖R_t‖, f = ‖F‖, a = ‖A‖."""
    n = batch.factor_BNR.shape[-2]
    s, t, f, a = batch.noise_B, batch.label_noise_B, *norms(batch)
    label_B = energy(plus(batch.label_BNK @ batch.label_BNK.mH, t))
    power_B = f**2 + a**2
    return Answer(
        E * (power_B + n**0.5 * (s + t)) ** 2 / label_B,
        4 * E * f * (power_B + s + t) / label_B,
        2 * E * (power_B + n * (s + t)) / label_B,
    )


class _Ridge:
    """M = s I + G at the floored s, and what rounding does to ridge regressions on F."""

    def __init__(self, batch: Batch) -> None:
        self.F, self.f = batch.factor_BNR, norms(batch)[0]
        self.is_floored = batch.noise_B < FLOOR * self.f**2
        self.s = floored(self.F, batch.noise_B)
        self.M = plus(self.F.mH @ self.F, self.s)
        self.inverse = torch.linalg.inv(self.M)
        self.least = torch.linalg.eigvalsh(self.M)[:, 0]
        self.most = self.s + self.f**2
        self.kappa = self.most / self.least
        self.gain = energy(self.F @ self.inverse).sqrt()

    def fit(self, vectors_BNK: Tensor, *, is_gram: bool = False) -> tuple[Tensor, ...]:
        """Sizes and errors of m = min ‖v − F x‖² + s ‖x‖² of each column and of its gradient.

        The residual errs by η = e (‖v‖ + f ‖x‖), m by twice η √m; M x − Fᴴ v by ρ = e (f ‖v‖ +
        ‖M‖ ‖x‖), x by ρ/μ, m by ρ²/μ: second order, μ the least eigenvalue of M. In Gram form m
        errs by e times its terms instead. ∂m/∂F = −2 (v − F x) xᴴ, ∂m/∂s = ‖x‖².

        Returns:
            m, |∂m/∂s| and ‖∂m/∂F‖, then the errors of m, ∂m/∂F and ∂m/∂s.
        """
        f, s, most, least = (part[:, None] for part in (self.f, self.s, self.most, self.least))
        x_BRK = torch.linalg.solve(self.M, self.F.mH @ vectors_BNK)
        x, v = lengths(x_BRK), lengths(vectors_BNK)
        misfit = lengths(vectors_BNK - self.F @ x_BRK) ** 2 + s * x**2
        rho = E * (f * v + most * x)
        eta = E * (v + f * x)
        first = E * (v**2 + f * v * x + most * x**2) if is_gram else 2 * misfit.sqrt() * eta
        size = 2 * misfit.sqrt() * x
        turned = misfit.sqrt() * rho / least + self.gain[:, None] * rho * x
        return (
            misfit,
            x**2,
            size,
            first + eta**2 + E * misfit + rho**2 / least,
            2 * (eta * x + turned) + E * size,
            E * x**2 + 2 * x * rho / least,
        )

    def through_the_floor(self, gradient_error_B: Tensor) -> Tensor:
        """Where s is 8 ε tr G its gradient goes on to F: ∂s/∂F = 16 ε F."""
        return torch.where(self.is_floored, 2 * FLOOR * self.f * gradient_error_B, 0)


def _nll(batch: Batch) -> Answer:
    """logdet M errs by e ‖M‖ tr M⁻¹, F M⁻¹ by e κ ‖F M⁻¹‖ and e √κ f / μ, tr M⁻¹ by e κ of it."""
    ridge, (n, r) = _Ridge(batch), batch.factor_BNR.shape[-2:]
    s, t, kappa = ridge.s, batch.label_noise_B, ridge.kappa
    misfit, square, _, d_misfit, d_factor, d_noise = (
        part.sum(-1) for part in ridge.fit(batch.label_BNK)
    )
    label_BKK = plus(batch.label_BNK.mH @ batch.label_BNK, t)
    label_trace = trace(torch.linalg.inv(label_BKK)) * (t + norms(batch)[1] ** 2)
    first, second = trace(ridge.inverse), energy(ridge.inverse)
    logs = n * (1 + s.log().abs() + t.log().abs()) + torch.linalg.slogdet(ridge.M)[1].abs()
    trace_fit = t * ((n - r) / s + first + ridge.most * second)
    inverse = kappa * ridge.gain + kappa.sqrt() * ridge.f / ridge.least
    noise = E * ((n - r) / s * (1 + t / s) + kappa * (first + 2 * t * second))
    noise = noise + (E * misfit + d_misfit) / s**2 + (E * square + d_noise) / s
    factor = 2 * E * inverse * (1 + 2 * t / ridge.least) + d_factor / s
    return Answer(
        (E * (logs + ridge.most * first + label_trace + trace_fit) + d_misfit / s) / n,
        (factor + ridge.through_the_floor(noise)) / n,
        noise / n,
    )


def _peak(batch: Batch) -> Answer:
    """p/w, w = p + q: its derivatives are q/w² by p and p/w² by q, which err themselves, too."""
    ridge, (b, n, k, points) = _Ridge(batch), batch.ring_BNKP.shape
    energy_BK = lengths(batch.steering_BNK).square().clamp(min=1e-30)
    p = [part / energy_BK for part in ridge.fit(batch.steering_BNK)]
    ring = ridge.fit(batch.ring_BNKP.flatten(-2), is_gram=True)
    q = [part.view(b, k, points).mean(-1) / n for part in ring]
    w, apart = p[0] + q[0], (p[0] - q[0]).abs()
    by_p, by_q = q[0] / w**2, p[0] / w**2
    d_by_p = (apart * q[3] + 2 * q[0] * p[3]) / w**3
    d_by_q = (apart * p[3] + 2 * p[0] * q[3]) / w**3

    def combined(size: int, error: int) -> Tensor:
        own = by_p * p[error] + by_q * q[error]
        return mean(own + d_by_p * p[size] + d_by_q * q[size], batch.mask_BK)

    noise = combined(1, 5)
    size = mean(by_p * p[1] + by_q * q[1], batch.mask_BK)
    return Answer(
        mean(by_p * p[3] + by_q * q[3] + E * p[0] / w, batch.mask_BK),
        combined(2, 4) + ridge.through_the_floor(noise + E * size),
        noise,
    )


def _subspace(batch: Batch) -> Answer:
    """With tr G = 1: G errs by e, which turns the kept span by e/gap and stretches it by e/λ_K.

    Between a kept i and a dropped j the derivative of the projector is √(λj/λi)/gap. With Q =
    A D C^(−1/2), C = D Aᴴ A D + 8 ε I, an error e of C or of S = D Aᴴ U counts as the derivative of
    tr(Sᴴ C⁻¹ S) by it. A kept direction that F lacks holds rounding over the floor of λ, at most
    (e ‖C^(−1/2)‖)²/8ε. The gradient by F is a sum of parts of size 1/√λ_K and √λ_K+1/gap, each with
    the relative errors above. It is discontinuous where F lacks a kept direction, and with the
    value where λ_K and λ_K+1 tie: infinite bounds there.
    """
    unit_BNR, value_BX, kept_B = spectrum(batch)
    count_B, r = batch.mask_BK.sum(-1), unit_BNR.shape[-1]
    lacking_B = count_B.clamp(max=r) - kept_B
    last_B = value_BX.gather(-1, (kept_B - 1).clamp(min=0)[:, None])[:, 0]
    next_B = value_BX.gather(-1, kept_B[:, None])[:, 0]
    gap_B = last_B - next_B
    # Float64 leaves 1e-16 of a tie.
    gap_B = torch.where(gap_B > 1e-12, gap_B, 0)
    scaled_BNK, gram_BKK = span(batch)
    inverse_BKK = torch.linalg.inv(gram_BKK)
    seen_BKC = scaled_BNK.mH @ eigh_signal(unit_BNR @ unit_BNR.mH, kept_B)[1]
    solved_B, white_B = energy(inverse_BKK @ seen_BKC), trace(inverse_BKK)
    per_B = 1 / count_B.clamp(min=1)
    label_B = (solved_B + 2 * (solved_B / last_B).sqrt()) * per_B
    value_B = E * (1 / last_B + (next_B / last_B).sqrt() / gap_B + label_B)
    value_B = value_B + E**2 * white_B / last_B * per_B
    size_B = (1 / last_B.sqrt() + next_B.sqrt() / gap_B) / norms(batch)[0]
    factor_B = E * (1 / last_B + 1 / gap_B + solved_B * per_B) * size_B
    is_empty_B = kept_B == 0
    value_B = torch.where(is_empty_B, 0, value_B)
    factor_B = torch.where(is_empty_B, 0, factor_B)
    return Answer(
        value_B + E**2 * white_B * lacking_B / FLOOR * per_B,
        torch.where(lacking_B > 0, torch.inf, factor_B),
        torch.zeros_like(factor_B),
    )
