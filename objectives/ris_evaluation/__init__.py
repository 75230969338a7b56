"""Evaluate a network of the RIS objective against estimators and bound, on frozen test scenes.

Border: the choice of scenes and the order of the parts. `models.ris.evaluation` scores the methods;
`tables`, `figures` and `controls` present the scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from models.ris.estimators.ridge import greedy_maximum_likelihood, mdl_count, refined_positions
from models.ris.evaluation import GUESS, Method, milliseconds_per_scene
from models.ris.scene.scenes import ArrayConfig, Installation, Scenes
from objectives._evaluation import Asked, Evaluation, Table
from objectives.ris_evaluation import controls, figures, region, tables
from objectives.ris_evaluation.bench import SNRS_DB, Bench

__all__ = ["evaluate_drawn", "evaluate_given", "evaluate_unlabelled"]

# A timed batch has this many scenes.
_TIMED = 200


def evaluate_drawn(
    net: nn.Module, config: ArrayConfig, wall: Installation | None, asked: Asked
) -> Evaluation:
    """Run the whole evaluation, on the frozen test set of the size or on fresh draws."""
    bench = Bench(net, config, wall, asked)
    sets = [
        bench.scored(f"{snr_db:g} dB", bench.drawn(snr_db, seed=asked.seed)) for snr_db in SNRS_DB
    ]
    times = _times(bench, sets[SNRS_DB.index(10.0)].scenes)
    return Evaluation(
        tables=[
            *tables.medians(sets, times),
            tables.ratios(sets),
            tables.outliers(sets),
            tables.beyond_beam(sets),
            tables.accuracy(sets),
            tables.groups(sets, config),
            tables.times(times),
            controls.controls(bench, sets),
            controls.counts(bench, sets),
            controls.snapshots(bench),
        ],
        figures=figures.figures(sets, config, bench.methods),
        remarks=[
            f"{len(sets[0].scenes)} scenes at each SNR, test set {asked.seed}; 'refined' is after "
            "the same Gauss–Newton climb on the snapshots for every method but the guess",
            *tables.verdicts(sets, times),
        ],
    )


def evaluate_given(
    net: nn.Module,
    config: ArrayConfig,
    scenes: Scenes,
    asked: Asked,
    *,
    label: str,
    has_chosen: bool = False,
) -> Evaluation:
    """Compare the methods on given scenes with labels.

    Args:
        has_chosen: True if these scenes validated the network's training.
    """
    wall = scenes.installation if len(scenes.installation) == 1 else None
    bench = Bench(net, config, wall, asked)
    one = bench.scored(label, scenes)
    times = _times(bench, scenes)
    return Evaluation(
        tables=[
            *tables.medians([one], times),
            tables.beyond_beam([one]),
            tables.accuracy([one]),
            tables.groups([one], config),
            tables.times(times),
        ],
        figures=figures.figures([one], config, bench.methods),
        remarks=[
            f"{len(scenes)} scenes of {label}"
            + ", by which the network and its configuration were chosen" * has_chosen,
            region.told(config),
            *region.outside(scenes, config),
        ],
    )


def evaluate_unlabelled(
    net: nn.Module,
    config: ArrayConfig,
    scenes: Scenes,
    asked: Asked,
    *,
    label: str,
    has_count: bool = False,
) -> Evaluation:
    """List the positions that the methods find in given scenes without labels.

    Args:
        has_count: True if the scenes have the number of sources.
    """
    wall = scenes.installation if len(scenes.installation) == 1 else None
    bench = Bench(net, config, wall, asked)
    if not has_count:
        bench.tell("how many sources there are, by maximum likelihood and MDL")
        scenes = _counted(scenes, config)
    blind = scenes.blinded()
    looking = [method for method in bench.methods if method.name != GUESS]
    found = {method.name: _found(bench, method, blind) for method in looking}
    # The sort by scene brings the methods of a scene together.
    rows = sorted(
        (row for name in found for row in _rows(name, *found[name], scenes.source_mask_BK)),
        key=lambda row: row[0],
    )
    columns = ("azimuth °", "elevation °", "range m")
    head = ("scene", "method", "source", *columns, *(f"{one}, refined" for one in columns))
    count = "is the file's" if has_count else "is estimated by maximum likelihood and MDL"
    return Evaluation(
        tables=[
            Table(
                name="positions",
                title=f"Positions in {label}",
                head=head,
                rows=rows,
                note="Refined: after the same Gauss–Newton climb on the snapshots for every "
                "method. On simulated scenes it helps from 0 to 10 dB on, the network at 20 dB; "
                "below it does harm.",
            )
        ],
        figures=figures.found_positions(label, found, scenes.source_mask_BK),
        remarks=[
            f"{len(scenes)} scenes of {label}, without labels: nothing is known of errors; the "
            f"number of sources {count}",
            region.told(config),
            region.at_the_edge({name: plain for name, (plain, _) in found.items()}, config),
        ],
    )


def _counted(scenes: Scenes, config: ArrayConfig) -> Scenes:
    """The scenes with the number of sources estimated from their snapshots."""
    fits = greedy_maximum_likelihood(scenes.blinded(), config)
    count_B = mdl_count(fits, config.codes * scenes.snapshots_BLMT.shape[-1])
    sources_K = torch.arange(config.max_sources, device=count_B.device)
    return replace(scenes, source_mask_BK=sources_K < count_B.unsqueeze(1))


def _found(bench: Bench, method: Method, scenes: Scenes) -> tuple[Tensor, Tensor]:
    """Positions by a method, as found and refined."""
    bench.tell(method.name)
    plain_BK3 = method.find(scenes)
    if method.is_final:
        return plain_BK3, plain_BK3
    return plain_BK3, refined_positions(plain_BK3, scenes, bench.config)


def _rows(
    name: str, plain_BK3: Tensor, refined_BK3: Tensor, mask_BK: Tensor
) -> list[Sequence[Any]]:
    """A row for each source of each scene."""
    scene_S, source_S = mask_BK.nonzero().T.tolist()
    columns = [
        column
        for found_BK3 in (plain_BK3, refined_BK3)
        for found_S3 in (found_BK3[mask_BK],)
        for column in (*found_S3[:, :2].rad2deg().T.tolist(), found_S3[:, 2].tolist())
    ]
    return [(b, name, k, *where) for b, k, *where in zip(scene_S, source_S, *columns, strict=True)]


def _times(bench: Bench, scenes: Scenes) -> dict[str, tuple[float, float]]:
    """Milliseconds per scene of each method: for one scene alone, and in a batch."""
    times = {}
    for method in bench.methods:
        bench.tell(f"time: {method.name}")
        alone, batched = (
            milliseconds_per_scene(method, scenes, batch=batch) for batch in (1, _TIMED)
        )
        times[method.name] = (alone, batched)
    return times
