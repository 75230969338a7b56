"""Estimate the covariance behind a reconfigurable intelligent surface with a network.

    python -m hpo --objective ris_covariance --n_trials 50

The metric is J = 10·log₁₀(mean ε_net / mean ε_ridge) in dB on one frozen validation set. ε is the
fraction of the sources' span that the dominant eigenvectors of an estimate miss; the reference is
ridge covariance matching. No searched quantity enters J. The validated estimate is the hybrid
covariance (1−β)(FFᴴ + sI) + β R_ridge, with β chosen on separate scenes.

Shapes: B scenes, N elements, M antennas, L codes, R rank of F, K sources.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from math import cos, degrees, isnan, pi
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.ris.estimators.pseudospectra import music_of_factor, music_per_code
from models.ris.files.file import SceneFile
from models.ris.files.split import named, opened, samples, settled
from models.ris.files.writer import drawn_parts, watched, write_scenes
from models.ris.network.covariance_net import RisCovarianceNet, factor_from
from models.ris.network.losses import (
    covariance_error,
    gaussian_nll,
    peak_contrast,
    ring_steering,
    subspace_alignment,
)
from models.ris.problem import chunks, problem, training, wall
from models.ris.scene.scenes import SIZES, Scenes
from models.ris.truth.metric import (
    match_positions,
    metric_db,
    position_subspace_error,
    subspace_error,
)
from objectives import (
    Asked,
    CannotEvaluate,
    Choice,
    Context,
    Evaluation,
    Float,
    Group,
    Int,
    Objective,
    Option,
    Params,
    Prediction,
    Task,
    Term,
)
from objectives.ris_evaluation import evaluate_drawn, evaluate_given, evaluate_unlabelled

# At most this many scenes of a file are evaluated on, in about the time that drawn scenes take.
_MOST_SCENES, _QUICK_SCENES = 5000, 500
_STEPS_PER_EPOCH = {"unit": 5, "tiny": 17, "base": 167, "full": 167}
_BLENDS = (0.0, 0.05, 0.1, 0.2)


class Batch(NamedTuple):
    """Scenes, and the steering vectors of the ring around each source."""

    scenes: Scenes
    ring_BNKP: Tensor


class RisCovarianceTask(Task):
    """One network trained on fresh scenes at every step."""

    def __init__(self, params: Params, context: Context) -> None:
        # Parameters without effect are not searched and have one value.
        params = {**_SETTLED, **params}
        self._params, self._context = params, context
        self._draw: Callable[[int, int], Scenes] | None = None
        self._config = SIZES[context.size]
        self.steps_per_epoch = _STEPS_PER_EPOCH[context.size]
        self._net = RisCovarianceNet(
            self._config,
            width=params["width"],
            layers=params["layers"],
            rank=self._config.max_sources + params["extra_rank"],
            oversampling=params["oversampling"],
            dropout=params["dropout"],
        ).to(context.device)
        self.modules: Mapping[str, nn.Module] = {"net": self._net}
        # Validation leaves the factors of its first scenes here until the next training batch.
        self._validated: Tensor | None = None
        shared = {"clip": params["clip"], "weight_decay": params["weight_decay"]}
        parts = {"backbone": (self._net.backbone, 1.0), "head": (self._net.head, params["lr_head"])}
        self.groups = [
            Group(
                name=name,
                parameters=list(part.parameters()),
                lr=params["lr"] * factor,
                **shared,
            )
            for name, (part, factor) in parts.items()
        ]

    def schedule(self, progress: float) -> float:
        warmup = float(self._params["warmup"])
        if progress < warmup:
            # The first step must move, too.
            return (progress + 1e-2) / (warmup + 1e-2)
        left = (1 - progress) / (1 - warmup)
        shapes = {"constant": 1.0, "linear": left, "cosine": (1 - cos(pi * left)) / 2}
        return shapes[str(self._params["schedule"])]

    def batch(self, step: int) -> Batch:
        self._validated = None
        # The source opens here and not earlier: an evaluation may lack the file of the training.
        if self._draw is None:
            self._draw = training(*_key(self._context), trial_seed=self._context.seed)
        scenes = self._draw(self._params["batch"], step)
        return Batch(scenes, ring_steering(scenes.positions_BK3, self._config))

    def forward(self, batch: Batch) -> Any:
        scenes = batch.scenes
        given = scenes.installation
        return self._net(scenes.sample_BLMM, given.codes_BLN, given.channel_BMN)

    def loss(self, outputs: Any, batch: Batch) -> Mapping[str, Term]:
        scenes, params = batch.scenes, self._params
        factor_BNR, noise_B = factor_from(outputs)
        label_BNK, label_noise_B = scenes.factor_BNK, scenes.noise_B
        mask_BK = scenes.source_mask_BK
        label = (label_BNK, label_noise_B)
        contrast_B = peak_contrast(
            factor_BNR,
            noise_B,
            steering_BNK=scenes.steering_BNK,
            ring_BNKP=batch.ring_BNKP,
            mask_BK=mask_BK,
        )
        return {
            "subspace": Term(subspace_alignment(factor_BNR, label_BNK, mask_BK).mean()),
            "covariance": Term(
                covariance_error(factor_BNR, noise_B, *label).mean(), params["w_covariance"]
            ),
            "likelihood": Term(
                gaussian_nll(factor_BNR, noise_B, *label).mean(), params["w_likelihood"]
            ),
            "contrast": Term(contrast_B.mean(), params["w_contrast"]),
        }

    def validate(self) -> Mapping[str, float]:
        shared = problem(*_key(self._context))
        predicted_BNN, _ = self._predict(shared.calibration)
        blend = self._params["blend"]
        if blend is None:
            blend = _best_blend(predicted_BNN, shared.calibration_ridge_BNN, shared.calibration)
        scenes, ridge_BNN = shared.validation, shared.validation_ridge_BNN
        predicted_BNN, loss = self._predict(scenes)
        errors, distances = [], []
        for part in chunks(len(scenes)):
            hybrid_BNN = blend_covariances(predicted_BNN[part], ridge_BNN[part], blend)
            errors.append(subspace_error(hybrid_BNN, scenes.select(part)))
            distances.append(normalised_error(hybrid_BNN, scenes.select(part)))
        error_B = torch.cat(errors)
        return {
            "J_db": metric_db(error_B, shared.ridge_error_B),
            "epsilon": float(error_B.mean()),
            "nmse": float(torch.cat(distances).mean()),
            "validation_loss": loss,
            "beta": blend,
        }

    def predict(self, samples: range) -> Sequence[Prediction]:
        shared = problem(*_key(self._context))
        some = slice(samples.start, min(samples.stop, len(shared.validation)))
        scenes = shared.validation.select(some)
        if not len(scenes):
            return ()
        if self._validated is not None and samples.stop <= len(self._validated):
            factor_BNR = self._validated[some]
        else:
            given = scenes.installation
            outputs = self._net(scenes.sample_BLMM, given.codes_BLN, given.channel_BMN)
            factor_BNR, _ = factor_from(outputs)
        found_BK3 = music_of_factor(factor_BNR, scenes.source_mask_BK, self._config)
        found_BK3, error_BK = match_positions(found_BK3, scenes)
        rows = zip(
            scenes.snr_db_B.tolist(),
            scenes.positions_BK3.tolist(),
            found_BK3.tolist(),
            error_BK.nanmean(-1).tolist(),
            strict=True,
        )
        return [
            Prediction("table", {"snr_db": round(snr_db, 2)}, _table(true), _table(found), error)
            for snr_db, true, found, error in rows
        ]

    def _predict(self, scenes: Scenes) -> tuple[Tensor, float]:
        """FFᴴ + sI of every scene, and the mean loss."""
        predicted: list[Tensor] = []
        losses: list[float] = []
        for part in chunks(len(scenes)):
            some = scenes.select(part)
            batch = Batch(some, ring_steering(some.positions_BK3, self._config))
            outputs = self.forward(batch)
            factor_BNR, noise_B = factor_from(outputs)
            predicted.append(_full_covariance(factor_BNR, noise_B))
            if not losses:
                self._validated = factor_BNR
            terms = self.loss(outputs, batch).values()
            losses.append(len(some) * sum(float(term.weight * term.value) for term in terms))
        return torch.cat(predicted), sum(losses) / len(scenes)


def _key(context: Context) -> tuple[str, int, str, str, SceneFile | None]:
    options = context.options
    # A study that is older than files of scenes lacks the option.
    file = opened(options.get("scenes", ""))
    return context.size, context.problem_seed, options["installation"], str(context.device), file


def _table(positions_K3: list[list[float]]) -> list[dict[str, float]]:
    """Positions of the sources that are present, for display."""
    present = [position for position in positions_K3 if not isnan(position[0])]
    return [
        {
            "azimuth_deg": round(degrees(azimuth_rad), 3),
            "elevation_deg": round(degrees(elevation_rad), 3),
            "range_m": round(range_m, 4),
        }
        for azimuth_rad, elevation_rad, range_m in present
    ]


def blend_covariances(predicted_BNN: Tensor, ridge_BNN: Tensor, blend: float) -> Tensor:
    """(1−β) R_pred + β R_ridge, complex64, Hermitian."""
    return (1 - blend) * predicted_BNN + blend * ridge_BNN


def normalised_error(estimate_BNN: Tensor, scenes: Scenes) -> Tensor:
    """‖R̂ − A P Aᴴ‖² / ‖A P Aᴴ‖² of each scene, real."""
    label_BNN = scenes.factor_BNK @ scenes.factor_BNK.mH
    energy_B = label_BNN.abs().square().sum((-2, -1))
    return (estimate_BNN - label_BNN).abs().square().sum((-2, -1)) / energy_B


def _best_blend(predicted_BNN: Tensor, ridge_BNN: Tensor, scenes: Scenes) -> float:
    """The β of least mean ε on scenes that have no other purpose."""
    errors = {
        blend: float(
            subspace_error(blend_covariances(predicted_BNN, ridge_BNN, blend), scenes).mean()
        )
        for blend in _BLENDS
    }
    return min(errors, key=errors.__getitem__)


def _full_covariance(factor_BNR: Tensor, noise_B: Tensor) -> Tensor:
    n = factor_BNR.shape[-2]
    eye_NN = torch.eye(n, dtype=factor_BNR.dtype, device=factor_BNR.device)
    return factor_BNR @ factor_BNR.mH + noise_B[:, None, None] * eye_NN


# These are not searched: between thirds of their ranges J varies by no more than between seeds. See
# `benchmarks/importance.py`, which draws them too, and its table in benchmarks/RESULTS.md.
_SETTLED: dict[str, Any] = {
    "lr_head": 1.0,  # relative to `lr`
    "weight_decay": 0.0,
    "extra_rank": 1,  # columns of F beyond the most sources of a scene
    "dropout": 0.0,
    "clip": 0.3,
    "w_covariance": 0.3,
    # None lets the calibration scenes choose the ridge's share of the hybrid covariance. A fixed
    # share above 0.13 costs 0.3 dB, and none gains.
    "blend": None,
}
_WIDE: dict[str, Float | Int | Choice] = {
    "layers": Int(low=1, high=3, default=2),
    "oversampling": Float(low=0.8, high=1.8, default=1.2),
    "width": Choice(choices=(32, 64, 96, 128), default=64),
    "lr": Float(low=1e-4, high=3e-2, default=1e-3, log=True),
    "schedule": Choice(choices=("constant", "linear", "cosine"), default="cosine"),
    "warmup": Float(low=0.01, high=0.2, default=0.05),
    "batch": Choice(choices=(64, 128), default=128),
    "w_likelihood": Float(low=0.03, high=3.0, default=0.3, log=True),
    "w_contrast": Float(low=0.03, high=3.0, default=0.3, log=True),
}
_NARROW: dict[str, Float | Int | Choice] = {
    **_WIDE,
    "layers": Int(low=2, high=3, default=2),
    "lr": Float(low=2e-4, high=5e-3, default=1e-3, log=True),
    "width": Choice(choices=(64, 96), default=64),
    "batch": Choice(choices=(128,), default=128),
}


class RisCovariance(Objective):
    """The subspace metric J of the network's covariance, in dB; 0 dB is ridge matching."""

    name = "ris_covariance"
    metric = "J_db"
    direction = "minimize"
    sizes = ("unit", "tiny", "base", "full")
    spaces = {"narrow": _NARROW, "wide": _WIDE}
    options = {
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

    def settle(self, options: Mapping[str, str], size: str, precision: str) -> Mapping[str, str]:
        if not options.get("scenes"):
            return options
        scenes, installation = settled(options["scenes"], SIZES[size])
        return {**options, "scenes": scenes, "installation": installation}

    def build(self, params: Params, context: Context) -> RisCovarianceTask:
        return RisCovarianceTask(params, context)

    def references(self, context: Context) -> Mapping[str, float]:
        shared, config = problem(*_key(context)), SIZES[context.size]
        positions_BK3 = music_per_code(shared.validation, config)
        error_B = position_subspace_error(positions_BK3, shared.validation, config)
        return {"per-code MUSIC": metric_db(error_B, shared.ridge_error_B)}

    def evaluate(self, task: Task, context: Context, asked: Asked) -> Evaluation:
        net, config = task.modules["net"], SIZES[context.size]
        assert isinstance(net, RisCovarianceNet)
        trained_on = context.options.get("scenes", "")
        if asked.samples is None and not trained_on:
            return evaluate_drawn(net, config, wall(*_key(context)), asked)
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
