"""The limit of ε on frozen sets of scenes, by the exact posterior; kept in models/ris/limit.

    python benchmarks/limit.py --size tiny --out pipeline/limit

The posterior is that of an estimator that gets what a network gets: scaled sample covariances, the
wall, the number of sources, and the law by which scenes are drawn, the size's range of SNRs
included. The sets are the validation set and the test sets of `evaluate`, `--quick` ones, too.
Each is computed by two independent runs. Both runs' projectors together give the limit, and their
differences its Monte-Carlo error. Chunks of scenes are kept below --out; the same command goes on
where it was interrupted. `--scenes 200` tries the first 200 of the validation set, and writes
nothing into the package.

Shapes: B scenes, N elements.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple
from pathlib import Path
from typing import NamedTuple

import torch
from posterior import distances, least_K
from torch import Tensor

from models.linalg.dominant import dominant_of_covariance
from models.ris.limit.posterior import Posteriors
from models.ris.limit.reference import FILE, Limit, fingerprint
from models.ris.limit.tempering import Effort
from models.ris.problem import problem, wall
from models.ris.scene.scenes import SIZES, ArrayConfig, Scenes, direction
from models.ris.truth.metric import metric_db, position_subspace_error, subspace_error
from models.ris.truth.scoring import Bounds, errors_of
from objectives.ris_evaluation.bench import QUICK_SCENES, SCENES, SNRS_DB, drawn

_CHUNK = 100
# Positions to choose among, as in posterior.py.
_CANDIDATES = 100
_RUNS = (0, 1)
_SETS = ("validation", "quick", "test")
_BANDS_DB = ((-5.0, 0.0), (0.0, 5.0), (5.0, 10.0), (10.0, 20.1))


class Run(NamedTuple):
    """One run's `Posterior`, and for each scene the first exponent and the accepted share."""

    span_BNN: Tensor
    covariance_BNN: Tensor
    positions_BSK3: Tensor
    first_B: Tensor
    accepted_B: Tensor


def main() -> None:
    """Compute sets and enter them in the package's file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", default="tiny", choices=SIZES)
    parser.add_argument("--out", type=Path, default=Path("pipeline/limit"))
    parser.add_argument("--scenes", type=int, help="try the first scenes of the validation set")
    parser.add_argument("--sets", nargs="+", choices=_SETS, default=_SETS, help="which sets")
    for name, default in asdict(Effort()).items():
        parser.add_argument(f"--{name}", type=int, default=default, help="see Effort")
    parser.add_argument("--draws", type=int, default=262_144, help="of the bank")
    given = parser.parse_args()
    torch.set_num_threads(1)
    effort = Effort(**{name: getattr(given, name) for name in asdict(Effort())})
    config = SIZES[given.size]
    posteriors = [Posteriors(config, effort, draws=given.draws, seed=seed) for seed in _RUNS]
    folder = given.out / "-".join(map(str, (given.size, given.draws, *astuple(effort))))
    folder.mkdir(parents=True, exist_ok=True)
    for name, scenes in _sets(given.size, given.sets if given.scenes is None else _SETS[:1]):
        some = scenes.select(slice(0, given.scenes or len(scenes)))
        runs = [
            _run(one, some, folder / f"{name}-{seed}".replace(" ", "_"))
            for seed, one in zip(_RUNS, posteriors, strict=True)
        ]
        limit = _judged(given.size, name, some, runs, effort.hypotheses * effort.counted)
        print(
            f"  ε {limit.epsilon:.4f} ± {limit.error:.4f}, runs {limit.runs}, expected by the "
            f"posterior {limit.expected:.4f}, mean covariance {limit.covariance_epsilon:.4f}",
            flush=True,
        )
        if config.max_sources <= 2:
            _print_positions(some, runs, config)
        if name == "validation":
            _print_bands(given.size, some, runs)
        if given.scenes is None:
            _enter(limit)


def _sets(size: str, kinds: Sequence[str]) -> Iterator[tuple[str, Scenes]]:
    config = SIZES[size]
    if "validation" in kinds:
        yield "validation", problem(size, config.problem_seed, "fixed", "cpu").validation
    shared = wall(size, config.problem_seed, "fixed", "cpu")
    for kind, name, count in (("quick", "quick test", QUICK_SCENES), ("test", "test", SCENES)):
        for snr_db in SNRS_DB if kind in kinds else ():
            yield f"{name} {snr_db:g} dB", drawn(config, shared, snr_db, count=count)


def _run(posteriors: Posteriors, scenes: Scenes, stem: Path) -> Run:
    """One run over a set of scenes, chunk by chunk; chunks that exist are read."""
    chunks = []
    for start in range(0, len(scenes), _CHUNK):
        some = scenes.select(slice(start, start + _CHUNK)).blinded()
        path = stem.with_name(f"{stem.name}-{start}-{len(some)}.pt")
        if not path.exists():
            began_s = time.process_time()
            found = posteriors.of(some, first=start)
            first = [trace.exponents[0] for trace in found.traces]
            # Of the last round: everything moved at once.
            accepted = [trace.accepted["all"][-1] for trace in found.traces]
            means = (found.span_BNN, found.covariance_BNN, found.positions_BSK3)
            run = Run(*means, torch.tensor(first), torch.tensor(accepted))
            torch.save(tuple(run), path.with_suffix(".part"))
            path.with_suffix(".part").replace(path)
            spent_ms = 1e3 * (time.process_time() - began_s) / len(some)
            print(f"{path.name}: {spent_ms:.0f} CPU ms a scene", flush=True)
        chunks.append(Run(*torch.load(path, weights_only=True)))
    return Run(*(torch.cat(parts) for parts in zip(*chunks, strict=True)))


def _judged(size: str, name: str, scenes: Scenes, runs: list[Run], hypotheses: int) -> Limit:
    """Compare with the truth what the runs found."""
    one, other = runs
    error_B = subspace_error((one.span_BNN + other.span_BNN) / 2, scenes)
    errors = [subspace_error(run.span_BNN, scenes) for run in runs]
    covariance_B = subspace_error((one.covariance_BNN + other.covariance_BNN) / 2, scenes)
    pairs = ((one, other), (other, one))
    expected_B = torch.stack([_expected(a.span_BNN, b.span_BNN, scenes) for a, b in pairs]).mean(0)
    difference_B = (errors[0] - errors[1]).double()
    # The mean of two runs has a quarter of the variance of their difference.
    standard = float(difference_B.square().sum().sqrt()) / 2 / len(scenes)
    surprise_B = (error_B - expected_B).double()
    print(
        f"{size}, {name}, {len(scenes)} scenes: runs differ by {difference_B.abs().max():.2f} at "
        f"most; the posterior is surprised by {float(surprise_B.mean()):.4f} ± "
        f"{float(surprise_B.std()) / len(scenes) ** 0.5:.4f}; first exponent at least "
        f"{float(one.first_B.min()):.3f}, median {float(one.first_B.median()):.3f}; accepted at "
        f"least {float(one.accepted_B.min()):.2f}, median {float(one.accepted_B.median()):.2f}"
    )
    return Limit(
        size=size,
        name=name,
        scenes=len(scenes),
        fingerprint=fingerprint(scenes),
        problem_seed=SIZES[size].problem_seed,
        hypotheses=hypotheses,
        runs=[_mean(error_B) for error_B in errors],
        epsilon=_mean(error_B),
        error=round(standard, 6),
        expected=_mean(expected_B),
        covariance_epsilon=_mean(covariance_B),
    )


def _mean(value_B: Tensor) -> float:
    return round(float(value_B.double().mean()), 6)


def _expected(basis_BNN: Tensor, span_BNN: Tensor, scenes: Scenes) -> Tensor:
    """Expected ε of one run's dominant eigenvectors by another run's mean projector."""
    mask_BK = scenes.source_mask_BK
    columns_BNK = dominant_of_covariance(basis_BNN, mask_BK.shape[1]) * mask_BK.unsqueeze(-2)
    held_B: Tensor = (columns_BNK.conj() * (span_BNN @ columns_BNK)).sum((-2, -1)).real
    return 1 - held_B / mask_BK.sum(-1)


def _print_positions(scenes: Scenes, runs: list[Run], config: ArrayConfig) -> None:
    """Print how far the positions of least expected distance are from the sources."""
    positions_BK3 = torch.full_like(scenes.positions_BK3, torch.nan)
    sample_BSK3 = torch.cat([run.positions_BSK3 for run in runs], 1)
    for b, count in enumerate(scenes.source_mask_BK.sum(-1).tolist()):
        sample_SK3 = sample_BSK3[b, :, :count]
        candidate_C3 = sample_SK3[:: len(sample_SK3) * count // _CANDIDATES].flatten(0, 1)
        place_SK3, place_C3 = (
            direction(*where[..., :2].unbind(-1)) * where[..., 2:]
            for where in (sample_SK3, candidate_C3)
        )
        distance_CSK = distances(place_C3, place_SK3)
        positions_BK3[b, :count] = candidate_C3[least_K(distance_CSK, distance_CSK)]
    errors = errors_of(positions_BK3, scenes, Bounds.of(scenes, config), config)
    print(
        f"  positions of least expected distance: median {errors.median_m:.3f} m, not found "
        f"{100 * errors.outlier_rate:.1f} %, beyond half a beam {100 * errors.beyond_beam_rate:.1f}"
        f" %, ε {float(position_subspace_error(positions_BK3, scenes, config).mean()):.3f}"
    )


def _print_bands(size: str, scenes: Scenes, runs: list[Run]) -> None:
    """Print J in dB over the validation set, and by SNR and number of sources."""
    error_B = subspace_error((runs[0].span_BNN + runs[1].span_BNN) / 2, scenes)
    found = problem(size, SIZES[size].problem_seed, "fixed", "cpu")
    ridge_B, count_B = found.ridge_error_B[: len(scenes)], scenes.source_mask_BK.sum(-1)
    print(f"J {metric_db(error_B, ridge_B):.3f} dB")
    for low_db, high_db in _BANDS_DB:
        is_in_B = (scenes.snr_db_B >= low_db) & (scenes.snr_db_B < high_db)
        if not is_in_B.any():
            continue
        by_count = [
            f"{float(error_B[is_in_B & (count_B == count)].mean()):.4f}"
            for count in range(1, int(count_B.max()) + 1)
        ]
        print(
            f"  {low_db:g}…{high_db:g} dB: {int(is_in_B.sum())} scenes, ε "
            f"{float(error_B[is_in_B].mean()):.4f} (by sources {', '.join(by_count)}), J "
            f"{metric_db(error_B[is_in_B], ridge_B[is_in_B]):.2f} dB, "
            f"{100 * float(error_B[is_in_B].sum() / error_B.sum()):.0f} % of all ε"
        )


def _enter(limit: Limit) -> None:
    """Write the limit into the package's file, in place of an older one of the same set."""
    stored = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else []
    key = (limit.size, limit.name)
    kept = [entry for entry in stored if (entry["size"], entry["name"]) != key]
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in [*kept, asdict(limit)])
    FILE.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
