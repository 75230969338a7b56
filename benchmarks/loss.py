"""Time of the losses by the small Gram matrix against autograd through the N×N eigh.

    python benchmarks/loss.py

N = 144, batch 32, complex64, one thread. Times are medians of CPU time of a forward and backward.
The ratio is to the same quantity computed from R = FFᴴ + sI by torch.linalg.eigh, whose gradient
is not even finite.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from models.ris.network.losses import covariance_error, gaussian_nll, subspace_alignment
from models.ris.scene.scenes import SIZES, draw_scenes, stream_generator


def eigh_alignment(factor_BNR: Tensor, label_BNK: Tensor, mask_BK: Tensor) -> Tensor:
    """The subspace term by autograd through the eigh of the N×N covariance."""
    n = factor_BNR.shape[-2]
    covariance_BNN = factor_BNR @ factor_BNR.mH + 0.1 * torch.eye(n)
    vectors_BNN = torch.linalg.eigh(covariance_BNN)[1]
    basis_BNK = torch.linalg.qr(label_BNK)[0]
    k = label_BNK.shape[-1]
    seen_BKK = basis_BNK.mH @ vectors_BNN[..., -k:]
    missed_B: Tensor = 1 - seen_BKK.abs().square().sum((-2, -1)) / k
    return missed_B


def median_ms(step: Callable[[], Tensor], repeats: int) -> float:
    """Median CPU time of a forward and backward, in ms, after two warm-ups."""
    times = []
    for number in range(repeats + 2):
        started = time.process_time()
        step().mean().backward()  # type: ignore[no-untyped-call]
        if number >= 2:
            times.append(1e3 * (time.process_time() - started))
    return statistics.median(times)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=15, help="of the slow form; others 10x")
    given = parser.parse_args()
    torch.set_num_threads(1)
    config = SIZES["full"]
    generator = stream_generator(config.problem_seed, "train", trial_seed=0)
    scenes = draw_scenes(config, given.batch, generator)
    # Every scene has the same number of sources, because the eigh form has no mask.
    label_BNK, mask_BK = scenes.steering_BNK[..., :1], scenes.source_mask_BK[..., :1]
    print(f"torch {torch.__version__}, batch {given.batch}, N = {config.elements}, one thread")
    print("| term, forward + backward | r | ms | eigh autograd, ms | ratio | gradient |")
    print("|---|---|---|---|---|---|")
    for rank in (5, 16):
        shape = (given.batch, config.elements, rank)
        factor_BNR = torch.randn(shape, dtype=torch.complex64, requires_grad=True)
        slow_ms = median_ms(partial(eigh_alignment, factor_BNR, label_BNK, mask_BK), given.repeats)
        label = (factor_BNR, scenes.noise_B, label_BNK, scenes.noise_B)
        terms = {
            "subspace": partial(subspace_alignment, factor_BNR, label_BNK, mask_BK),
            "covariance": partial(covariance_error, *label),
            "likelihood": partial(gaussian_nll, *label),
        }
        for name, term in terms.items():
            factor_BNR.grad = None
            ms = median_ms(term, 10 * given.repeats)
            assert factor_BNR.grad is not None
            finite = "finite" if torch.isfinite(factor_BNR.grad).all() else "NaN"
            print(
                f"| {name} | {rank} | {ms:.2f} | {slow_ms:.1f} | {slow_ms / ms:.0f}x | {finite} |"
            )


if __name__ == "__main__":
    main()
