"""Evaluate a network of the RIS objective: against estimators and bound, on frozen test scenes.

Border: which scenes, and what is made of them in which order. What a method makes of scenes is
`models.evaluation`'s; `tables`, `figures` and `controls` beside this file show it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from models.array import ArrayConfig, Installation, Scenes
from models.estimators import greedy_maximum_likelihood, mdl_count
from models.evaluation import Method, milliseconds_per_scene
from models.ris_covariance_net import RisCovarianceNet
from objectives._evaluation import Asked, Evaluation, Table
from objectives.ris_evaluation import controls, figures, tables
from objectives.ris_evaluation.bench import SNRS_DB, Bench

__all__ = ["evaluate_drawn", "evaluate_given", "evaluate_unlabelled"]

# Scenes of a timed batch.
_TIMED = 200


def evaluate_drawn(
    net: RisCovarianceNet, config: ArrayConfig, wall: Installation | None, asked: Asked
) -> Evaluation:
    """Everything, on the frozen test set of the size, or on fresh draws of it."""
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
            "the same Gauss–Newton climb on the snapshots for every method",
            *tables.verdicts(sets, times),
        ],
    )


def evaluate_given(
    net: RisCovarianceNet,
    config: ArrayConfig,
    scenes: Scenes,
    asked: Asked,
    *,
    label: str,
    has_chosen: bool = False,
) -> Evaluation:
    """The methods alone, on scenes from outside whose positions are known.

    Args:
        has_chosen: Whether these scenes validated the network's training.
    """
    wall = scenes.installation if len(scenes.installation) == 1 else None
    bench = Bench(net, config, wall, asked)
    one = bench.scored(label, scenes)
    times = _times(bench, scenes)
    return Evaluation(
        tables=[
            *tables.medians([one], times),
            tables.accuracy([one]),
            tables.groups([one], config),
            tables.times(times),
        ],
        figures=figures.figures([one], config, bench.methods),
        remarks=[
            f"{len(scenes)} scenes of {label}"
            + ", by which the network and its configuration were chosen" * has_chosen
        ],
    )


def evaluate_unlabelled(
    net: RisCovarianceNet,
    config: ArrayConfig,
    scenes: Scenes,
    asked: Asked,
    *,
    label: str,
    has_count: bool = False,
) -> Evaluation:
    """Positions that the methods find where nobody knows the true ones.

    Args:
        has_count: Whether the scenes say how many sources there are.
    """
    wall = scenes.installation if len(scenes.installation) == 1 else None
    bench = Bench(net, config, wall, asked)
    if not has_count:
        bench.tell("how many sources there are, by maximum likelihood and MDL")
        scenes = _counted(scenes, config)
    rows = [row for method in bench.methods for row in _found(bench, method, scenes.blinded())]
    head = ("method", "scene", "source", "azimuth °", "elevation °", "range m")
    count = "is the file's" if has_count else "is estimated by maximum likelihood and MDL"
    return Evaluation(
        tables=[Table(name="positions", title=f"Positions in {label}", head=head, rows=rows)],
        remarks=[
            f"{len(scenes)} scenes of {label}, without labels: nothing is known of errors; the "
            f"number of sources {count}"
        ],
    )


def _counted(scenes: Scenes, config: ArrayConfig) -> Scenes:
    """The scenes with as many sources as their snapshots tell of."""
    fits = greedy_maximum_likelihood(scenes.blinded(), config)
    count_B = mdl_count(fits, config.codes * scenes.snapshots_BLMT.shape[-1])
    sources_K = torch.arange(config.max_sources, device=count_B.device)
    return replace(scenes, source_mask_BK=sources_K < count_B.unsqueeze(1))


def _found(bench: Bench, method: Method, scenes: Scenes) -> list[Sequence[Any]]:
    """A row for each source of each scene."""
    bench.tell(method.name)
    mask_BK = scenes.source_mask_BK
    found_S3 = method.find(scenes)[mask_BK]
    scene_S, source_S = mask_BK.nonzero().T.tolist()
    degrees_S2 = found_S3[:, :2].rad2deg().tolist()
    return [
        (method.name, scene, source, *degrees, range_m)
        for scene, source, degrees, range_m in zip(
            scene_S, source_S, degrees_S2, found_S3[:, 2].tolist(), strict=True
        )
    ]


def _times(bench: Bench, scenes: Scenes) -> dict[str, tuple[float, float]]:
    """Milliseconds a scene of each method: alone, and of a batch."""
    times = {}
    for method in bench.methods:
        bench.tell(f"time: {method.name}")
        alone, batched = (
            milliseconds_per_scene(method, scenes, batch=batch) for batch in (1, _TIMED)
        )
        times[method.name] = (alone, batched)
    return times
