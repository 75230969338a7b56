"""Gradients of N×N eigendecompositions: their cost, finiteness and error.

    python benchmarks/safe_eigh.py

The loss is 1 − ‖Qᴴ U_r‖²/r of R = F Fᴴ + 0.1 I, ‖F‖² = N: N = 144, r = 5, batch 32, complex64, one
thread. Times are medians of CPU time over forward and backward. The error is relative to the
complex128 gradient of the same R, over pairs of a signal and a noise eigenvalue. The columns of F
are orthogonal, so that at 0 dB of spread between them the signal eigenvalues tie as well.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from models.linalg import eigh_broadened, eigh_signal

N, RANK = 144, 5
SPREADS_DB = (0.0, 20.0, 40.0)


def draw(batch: int, spread_db: float) -> tuple[Tensor, Tensor]:
    """R_BNN and an orthonormal Q_BNK that sees every source, complex64."""
    generator = torch.Generator().manual_seed(0)
    white_BNX = torch.randn(batch, N, 2 * RANK, dtype=torch.complex64, generator=generator)
    columns_BNK = torch.linalg.qr(white_BNX[..., :RANK])[0]
    level_K = 10 ** (-torch.linspace(0, spread_db, RANK) / 20)
    factor_BNK = columns_BNK * level_K * (N / level_K.square().sum()).sqrt()
    covariance_BNN = factor_BNK @ factor_BNK.mH + 0.1 * torch.eye(N)
    return covariance_BNN, torch.linalg.qr(columns_BNK + 0.1 * white_BNX[..., RANK:])[0]


def missed(vectors_BNK: Tensor, basis_BNK: Tensor) -> Tensor:
    """Part of span(Q) outside of span(U), summed over the batch."""
    seen_BKK = basis_BNK.mH @ vectors_BNK
    energy: Tensor = torch.view_as_real(seen_BKK).square().sum()
    return len(basis_BNK) - energy / RANK


def exact_gradient(covariance_BNN: Tensor, basis_BNK: Tensor) -> Tensor:
    """Gradient by the Daleckii-Krein formula in complex128, over pairs of signal and noise only."""
    value_BN, vector_BNN = torch.linalg.eigh(covariance_BNN.to(torch.complex128))
    signal_BNK, noise_BNM = vector_BNN[..., -RANK:], vector_BNN[..., :-RANK]
    gap_BMK = value_BN[:, None, -RANK:] - value_BN[:, :-RANK, None]
    wide_BNK = basis_BNK.to(torch.complex128)
    turn_BMK = (noise_BNM.mH @ wide_BNK) @ (wide_BNK.mH @ signal_BNK) / gap_BMK
    half_BNN: Tensor = noise_BNM @ turn_BMK @ signal_BNK.mH
    return -(half_BNN + half_BNN.mH) / RANK


def median_ms(step: Callable[[], object], repeats: int) -> float:
    """Median CPU time in ms, after two warm-ups."""
    times = []
    for _ in range(repeats + 2):
        started = time.process_time()
        step()
        times.append(1e3 * (time.process_time() - started))
    return statistics.median(times[2:])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(1)
    methods: dict[str, Callable[[Tensor], Tensor]] = {
        "torch.linalg.eigh": lambda R_BNN: torch.linalg.eigh(R_BNN)[1][..., -RANK:],
        "eigh_signal": lambda R_BNN: eigh_signal(R_BNN, RANK)[1],
        "eigh_broadened": lambda R_BNN: eigh_broadened(R_BNN)[1][..., -RANK:],
    }

    def gradient(method: str, covariance_BNN: Tensor, basis_BNK: Tensor) -> Tensor:
        R_BNN = covariance_BNN.detach().requires_grad_()
        loss = missed(methods[method](R_BNN), basis_BNK)
        return torch.autograd.grad(loss, R_BNN)[0]

    print(f"torch {torch.__version__}, batch {given.batch}, N = {N}, r = {RANK}, one thread")
    errors = " | ".join(f"error, {spread_db:g} dB" for spread_db in SPREADS_DB)
    print(f"| eigh, forward + backward | ms | gradient | {errors} |")
    print("|---|---|---|" + "---|" * len(SPREADS_DB))
    for method in methods:
        cells, is_finite = [], True
        for spread_db in SPREADS_DB:
            drawn = draw(given.batch, spread_db)
            found_BNN, exact_BNN = gradient(method, *drawn), exact_gradient(*drawn)
            is_finite &= bool(found_BNN.isfinite().all())
            cells.append(f"{float((found_BNN - exact_BNN).norm() / exact_BNN.norm()):.0e}")
        ms = median_ms(partial(gradient, method, *draw(given.batch, 20.0)), given.repeats)
        kind = "finite" if is_finite else "NaN"
        print(f"| {method} | {ms:.1f} | {kind} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
