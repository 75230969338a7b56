"""Estimate the covariance behind a reconfigurable intelligent surface with a network.

    python -m hpo --objective ris_covariance --n_trials 50

The metric is J = 10·log₁₀(mean ε_net / mean ε_ridge) in dB on one frozen validation set. ε is the
fraction of the sources' span that the dominant eigenvectors of an estimate miss; the reference is
ridge covariance matching. No searched quantity enters J. The validated estimate is the hybrid
covariance (1−β)(FFᴴ + sI) + β R_ridge, with β chosen on separate scenes.

Border: the objective's declarations and the hooks outside of a trial. `ris_training` has the trial,
`ris_networks` the networks and their search spaces, `ris_evaluation` the evaluation.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from models.ris.estimators.pseudospectra import music_per_code
from models.ris.files.split import named, samples, settled
from models.ris.files.writer import drawn_parts, watched, write_scenes
from models.ris.limit.reference import limit_of
from models.ris.problem import problem, wall
from models.ris.scene.scenes import SIZES
from models.ris.truth.metric import metric_db, position_subspace_error
from objectives import (
    AUTO,
    Asked,
    CannotEvaluate,
    Context,
    Evaluation,
    Objective,
    Option,
    Params,
    Space,
    Task,
)
from objectives.ris_evaluation import evaluate_drawn, evaluate_given, evaluate_unlabelled
from objectives.ris_networks.registry import FIRST, MEASURED, NETWORKS, network_of
from objectives.ris_training.task import RisCovarianceTask, problem_key

# At most this many scenes of a file are evaluated on, in about the time that drawn scenes take.
_MOST_SCENES, _QUICK_SCENES = 5000, 500


class RisCovariance(Objective):
    """The subspace metric J of the network's covariance, in dB; 0 dB is ridge matching."""

    name = "ris_covariance"
    metric = "J_db"
    direction = "minimize"
    sizes = ("unit", "tiny", "base", "full")
    spaces = NETWORKS[FIRST].spaces
    options = {
        "network": Option(
            default=AUTO,
            choices=(AUTO, *NETWORKS),
            help="what estimates the covariance; each network has its own search spaces; auto: the "
            "one that was measured best at this size",
            before=FIRST,
            names_study=True,
        ),
        "installation": Option(
            default="fixed",
            choices=("fixed", "random"),
            help="one wall (channel and codes) for all scenes, or a new one for each",
        ),
        "scenes": Option(
            default="",
            help="a file of scenes to train and validate on, whose wall or walls are taken, too; "
            "empty: drawn",
        ),
    }

    def problem_seed(self, size: str) -> int:
        return SIZES[size].problem_seed

    def spaces_for(self, options: Mapping[str, str]) -> Mapping[str, Space]:
        return network_of(options).spaces

    def settle(self, options: Mapping[str, str], size: str, precision: str) -> Mapping[str, str]:
        if options.get("network") == AUTO:
            options = {**options, "network": MEASURED[size][0]}
        if not options.get("scenes"):
            return options
        scenes, installation = settled(options["scenes"], SIZES[size])
        return {**options, "scenes": scenes, "installation": installation}

    def reasons(self, options: Mapping[str, str], size: str) -> Mapping[str, str]:
        return {"network": MEASURED[size][1]}

    def build(self, params: Params, context: Context) -> RisCovarianceTask:
        return RisCovarianceTask(params, context)

    def references(self, context: Context) -> Mapping[str, float]:
        shared, config = problem(*problem_key(context)), SIZES[context.size]
        positions_BK3 = music_per_code(shared.validation, config)
        error_B = position_subspace_error(positions_BK3, shared.validation, config)
        found = {"per-code MUSIC": metric_db(error_B, shared.ridge_error_B)}
        limit = limit_of(shared.validation)
        if limit is not None:
            least = torch.tensor([limit.epsilon])
            found["the exact posterior (limit)"] = metric_db(least, shared.ridge_error_B)
        return found

    def evaluate(self, task: Task, context: Context, asked: Asked) -> Evaluation:
        net, config = task.modules["net"], SIZES[context.size]
        trained_on = context.options.get("scenes", "")
        if asked.samples is None and not trained_on:
            return evaluate_drawn(net, config, wall(*problem_key(context)), asked)
        if asked.seed:
            raise CannotEvaluate("--seed draws a test set, and these scenes come from a file")
        most = _QUICK_SCENES if asked.quick else _MOST_SCENES
        try:
            path = asked.samples or named(trained_on)[0]
            given = samples(path, config, context.device, trained_on=trained_on, most=most)
        except ValueError as error:
            raise CannotEvaluate(f"{error} (--scenes)") from error
        label = f"{path.name}, validation part" if given.is_held_out else path.name
        if given.has_labels:
            return evaluate_given(
                net, config, given.scenes, asked, label=label, has_chosen=given.is_held_out
            )
        return evaluate_unlabelled(
            net, config, given.scenes, asked, label=label, has_count=given.has_count
        )

    def write_samples(
        self,
        path: Path,
        context: Context,
        *,
        count: int,
        stream: str,
        half: bool,
        tell: Callable[[str], None] = lambda line: None,
    ) -> str:
        if context.options.get("scenes"):
            raise ValueError("a file is written from the simulator; leave --scenes out")
        installation = context.options["installation"]
        parts = drawn_parts(
            SIZES[context.size],
            count,
            stream=stream,
            seed=context.seed,
            is_shared=installation == "fixed",
        )
        told = watched(parts, count, tell=tell, must_stop=context.must_stop)
        wavelength_m = SIZES[context.size].wavelength_m
        write_scenes(path, told, count, wavelength_m=wavelength_m, half=half)
        use = f"; write --size {context.size} --scenes {shlex.quote(str(path))} to train on them"
        return (
            f"{count:,} scenes of size {context.size}, {installation} installation, stream "
            f"{stream}, seed {context.seed}{use if stream == 'train' else ''}"
        )


objective = RisCovariance()
