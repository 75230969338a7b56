"""The accuracy that is possible at low SNR: the exact posterior on the test scenes of `evaluate`.

    python benchmarks/posterior.py trained/NAME --draws 200000

The posterior is an importance sample: hypotheses from the scenes' prior, weighted by the exact
likelihood of a scene's snapshots. It knows more than any method: the SNR, and how powers are drawn
and scaled. Three estimates are made from it:

- MUSIC on the posterior's mean covariance, the estimate of least mean squared error;
- the positions of least expected distance;
- the positions of which most are expected to be found, as `models.ris.truth.scoring` counts it.

The last two choose among 100 positions from the sample. Also printed is the effective sample size
that 99 % of the scenes exceed. Where it is small, as from 5 dB on, the figures mean little.

Shapes: B test scenes, J hypotheses, S of them resampled, C candidates, K sources, N elements.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from hpo.refit import weights
from models.linalg.hermitian import pack_hermitian
from models.ris.estimators.ridge import music_of_covariance
from models.ris.evaluation import GUESS, MAXIMUM_LIKELIHOOD, NETWORK, RIDGE, score
from models.ris.problem import wall
from models.ris.scene.scenes import SIZES, ArrayConfig, Scenes, direction, draw_scenes, observe
from models.ris.truth.bounds import stochastic_bound
from models.ris.truth.metric import position_subspace_error, subspace_error
from models.ris.truth.scoring import Bounds, Errors, allowed_rad, angle_bound_rad, errors_of
from objectives import Asked, load
from objectives.ris_evaluation.bench import Bench

_RESAMPLED, _CANDIDATES, _CHUNK = 800, 100, 20_000
MEAN = "exact posterior, MUSIC on its mean covariance"
NEAREST = "exact posterior, least expected distance"
FOUND = "exact posterior, most expected to be found"


class Posterior:
    """The posterior over hypotheses of equal source count, given the snapshots of scenes.

    Args:
        scenes: Scenes of that source count; only their snapshots are read.
        bank: Draws of the prior with the same source count.
        config: The configuration of the size.
    """

    def __init__(self, scenes: Scenes, bank: Scenes, config: ArrayConfig) -> None:
        self.bank, self.config, self.count = bank, config, int(bank.source_mask_BK[0].sum())
        seen_JLMK = observe(bank.installation, bank.factor_BNK)
        gain_J = seen_JLMK.abs().square().sum((-2, -1)).mean(-1) / config.antennas
        noise_J = gain_J * 10 ** (-bank.snr_db_B / 10)
        R_JLMM = seen_JLMK @ seen_JLMK.mH
        R_JLMM = R_JLMM + noise_J[:, None, None, None] * torch.eye(config.antennas)
        logdet_J = torch.linalg.slogdet(R_JLMM).logabsdet.sum(-1)
        inverse_JX = pack_hermitian(torch.linalg.inv(R_JLMM)).flatten(1)
        sample_BLMM = scenes.snapshots_BLMT @ scenes.snapshots_BLMT.mH
        misfit_BJ = pack_hermitian(sample_BLMM).flatten(1) @ inverse_JX.T + logdet_J
        self.weight_BJ = (-misfit_BJ).softmax(-1)

    @property
    def effective_B(self) -> Tensor:
        """Effective sample size of each scene, 1 / Σ w²."""
        total_B: Tensor = self.weight_BJ.square().sum(-1)
        return total_B.reciprocal()

    def mean_covariance(self) -> Tensor:
        """E[A P Aᴴ | snapshots], BNN."""
        elements = self.config.elements
        total_BX = torch.zeros(len(self.weight_BJ), elements**2, dtype=torch.complex64)
        for start in range(0, len(self.bank), _CHUNK):
            part = slice(start, start + _CHUNK)
            factor_JNK = self.bank.factor_BNK[part]
            label_JX = (factor_JNK @ factor_JNK.mH).flatten(1)
            total_BX += self.weight_BJ[:, part].to(label_JX.dtype) @ label_JX
        return total_BX.view(-1, elements, elements)

    def decisions(self) -> tuple[Tensor, Tensor]:
        """Positions (B, K, 3) of least expected distance, and those most expected to be found."""
        generator = torch.Generator().manual_seed(0)
        index_BS = torch.multinomial(
            self.weight_BJ, _RESAMPLED, replacement=True, generator=generator
        )
        drawn_U, index_BS = torch.unique(index_BS, return_inverse=True)
        bank = self.bank.select(drawn_U)
        position_UK3 = bank.positions_BK3[:, : self.count]
        direction_UK3 = direction(*position_UK3[..., :2].unbind(-1))
        angle_bound_UK = angle_bound_rad(stochastic_bound(bank, self.config), bank)
        allowed_UK = allowed_rad(angle_bound_UK, self.config)[:, : self.count]
        nearest, found = [], []
        for index_S in index_BS:
            # The sample has no order, so the first hypotheses are taken; each has K positions.
            candidate_C3 = position_UK3[index_S[: _CANDIDATES // self.count]].flatten(0, 1)
            towards_C3 = direction(*candidate_C3[:, :2].T)
            where_SK3, to_SK3 = position_UK3[index_S], direction_UK3[index_S]
            place_C3 = towards_C3 * candidate_C3[:, 2:]
            distance_CSK = distances(place_C3, to_SK3 * where_SK3[..., 2:])
            chord_CSK = distances(towards_C3, to_SK3)
            angle_CSK = 2 * (chord_CSK / 2).clamp(max=1).asin()
            is_missed_CSK = (angle_CSK > allowed_UK[index_S]).float()
            nearest.append(candidate_C3[least_K(distance_CSK, distance_CSK)])
            found.append(candidate_C3[least_K(is_missed_CSK, distance_CSK)])
        return torch.stack(nearest), torch.stack(found)


def distances(x_C3: Tensor, y_SK3: Tensor) -> Tensor:
    return torch.cdist(x_C3, y_SK3.flatten(0, 1)).view(len(x_C3), *y_SK3.shape[:2])


def least_K(cost_CSK: Tensor, distance_CSK: Tensor) -> Tensor:
    """The candidates of least expected cost, assigned to the sources by least total distance."""
    if cost_CSK.shape[-1] == 1:
        return cost_CSK[..., 0].mean(-1).argmin().unsqueeze(0)
    cost_CCS, distance_CCS = (
        x_CSK[:, None, :, 0] + x_CSK[..., 1] for x_CSK in (cost_CSK, distance_CSK)
    )
    is_other_way_CCS = distance_CCS.transpose(0, 1) < distance_CCS
    pair_CC = cost_CCS.transpose(0, 1).where(is_other_way_CCS, cost_CCS).mean(-1)
    return torch.tensor(divmod(int(pair_CC.argmin()), len(pair_CC)))


def _by_posterior(
    scenes: Scenes, bank: Scenes, config: ArrayConfig
) -> Mapping[str, tuple[Tensor, Tensor]]:
    """Positions and ε by each estimate, in the order of the scenes."""
    positions: dict[str, Tensor] = {
        name: torch.full_like(scenes.positions_BK3, torch.nan) for name in (MEAN, NEAREST, FOUND)
    }
    epsilon_B = torch.empty(len(scenes))
    for count in range(1, config.max_sources + 1):
        index_B = (scenes.source_mask_BK.sum(-1) == count).nonzero().squeeze(-1)
        some = scenes.select(index_B)
        posterior = Posterior(some, bank.select(bank.source_mask_BK.sum(-1) == count), config)
        least = float(posterior.effective_B.quantile(0.01))
        print(f"  {count} source(s): effective hypotheses in 99 % of the scenes > {least:.0f}")
        mean_BNN = posterior.mean_covariance()
        epsilon_B[index_B] = subspace_error(mean_BNN, some)
        positions[MEAN][index_B] = music_of_covariance(mean_BNN, some.source_mask_BK, config)
        for name, found_BK3 in zip((NEAREST, FOUND), posterior.decisions(), strict=True):
            positions[name][index_B[:, None], torch.arange(count)] = found_BK3
    spanned = {
        name: position_subspace_error(positions[name], scenes, config) for name in (NEAREST, FOUND)
    }
    return {name: (found, spanned.get(name, epsilon_B)) for name, found in positions.items()}


def _row(name: str, errors: Errors, is_single_B: Tensor, epsilon_B: Tensor) -> str:
    is_single_S = is_single_B[errors.scene_S]
    missed = [
        f"{100 * float(errors.is_outlier_S[chosen_S].double().mean()):.1f}"
        for chosen_S in (is_single_S, ~is_single_S)
    ]
    return (
        f"| {name} | {errors.median_m:.3f} | {float(errors.error_S.mean()):.3f} | "
        f"{100 * errors.outlier_rate:.1f} | {' | '.join(missed)} | "
        f"{100 * errors.beyond_beam_rate:.1f} | {float(epsilon_B.mean()):.3f} |"
    )


def main() -> None:
    """Print a table at each SNR."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("trained", type=Path, help="a folder of `train`, or one of its files")
    parser.add_argument("--draws", type=int, default=200_000, help="how many hypotheses")
    given = parser.parse_args()
    finished = weights.read(weights.locate(given.trained))
    task = weights.restore(finished, torch.device("cpu"), load("ris_covariance"))
    size = finished.about["study"]["size"]
    config = SIZES[size]
    if config.max_sources > 2:
        parser.error(
            f"the network is of size '{size}'; pairs of positions are tried, of two sources"
        )
    shared = wall(size, config.problem_seed, "fixed", "cpu")
    bench = Bench(task.modules["net"], config, shared, Asked())
    names = (GUESS, RIDGE, MAXIMUM_LIKELIHOOD, NETWORK)
    for snr_db in (-5.0, 0.0):
        scenes = bench.drawn(snr_db, seed=0)
        bounds = Bounds.of(scenes, config)
        at = replace(config, snr_min_db=snr_db, snr_max_db=snr_db)
        generator = torch.Generator().manual_seed(1)
        bank = draw_scenes(at, given.draws, generator, installation=shared)
        print(f"{snr_db:g} dB, {len(scenes)} scenes, {given.draws} hypotheses")
        by_posterior = _by_posterior(scenes, bank, config)
        print("| | median m | mean m | not found % | K = 1 | K = 2 | beyond half a beam % | ε |")
        print("|---|---|---|---|---|---|---|---|")
        is_single_B = scenes.source_mask_BK.sum(-1) == 1
        for method in bench.methods:
            if method.name in names:
                found = score(method, scenes, config, bounds, refine=False)
                print(_row(method.name, found.plain, is_single_B, found.epsilon_B), flush=True)
        for name, (positions_BK3, epsilon_B) in by_posterior.items():
            errors = errors_of(positions_BK3, scenes, bounds, config)
            print(_row(name, errors, is_single_B, epsilon_B), flush=True)


if __name__ == "__main__":
    main()
