"""One trial of the RIS objective: a network trained on fresh scenes at every step.

Border: what all networks share; a network's own parameters are read by its `build`.

Shapes: B scenes, N elements, M antennas, L codes, R rank of F, K sources, P points of a ring.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import cos, degrees, isnan, pi
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.ris.estimators.pseudospectra import music_of_factor
from models.ris.files.file import SceneFile
from models.ris.files.split import opened
from models.ris.network.covariance_net import factor_from
from models.ris.network.losses import (
    Solved,
    covariance_error,
    gaussian_nll,
    peak_contrast,
    ring_steering,
    subspace_alignment,
)
from models.ris.problem import chunks, problem, training
from models.ris.scene.scenes import SIZES, Scenes
from models.ris.truth.metric import match_positions, metric_db
from objectives._contract import Context, Group, Prediction, Task, Term
from objectives._space import Params
from objectives.ris_networks.registry import network_of
from objectives.ris_training.covariances import (
    best_blend,
    hybrid_distance,
    hybrid_subspace_error,
)

_STEPS_PER_EPOCH = {"unit": 5, "tiny": 17, "base": 167, "full": 167}


class Batch(NamedTuple):
    """Scenes, and the steering vectors of the ring around each source."""

    scenes: Scenes
    ring_BNKP: Tensor


class RisCovarianceTask(Task):
    """One network trained on fresh scenes at every step."""

    def __init__(self, params: Params, context: Context) -> None:
        network = network_of(context.options)
        # Parameters without effect are not searched and have one value.
        params = {**network.settled, **params}
        self._params, self._context = params, context
        self._draw: Callable[[int, int], Scenes] | None = None
        self._config = SIZES[context.size]
        self.steps_per_epoch = _STEPS_PER_EPOCH[context.size]
        self._net = network.build(self._config, params).to(context.device)
        self.modules: Mapping[str, nn.Module] = {"net": self._net}
        # Validation leaves the factors of its first scenes here until the next training batch.
        self._validated: Tensor | None = None
        shared = {"clip": params["clip"], "weight_decay": params["weight_decay"]}
        factors = {"backbone": 1.0, "head": params["lr_head"]}
        self.groups = [
            Group(
                name=name,
                parameters=list(self._net.get_submodule(name).parameters()),
                lr=params["lr"] * factor,
                **shared,
            )
            for name, factor in factors.items()
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
            self._draw = training(*problem_key(self._context), trial_seed=self._context.seed)
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
        solved = Solved.of(factor_BNR, noise_B, label_BNK)
        gram_BRR = solved.gram_BRR
        contrast_B = peak_contrast(
            factor_BNR,
            noise_B,
            # The peak does not depend on the scale, so the label's columns serve.
            steering_BNK=label_BNK,
            ring_BNKP=batch.ring_BNKP,
            mask_BK=mask_BK,
            solved=solved,
        )
        missed_B = subspace_alignment(factor_BNR, label_BNK, mask_BK, gram_BRR=gram_BRR)
        error_B = covariance_error(factor_BNR, noise_B, *label, gram_BRR=gram_BRR)
        excess_B = gaussian_nll(factor_BNR, noise_B, *label, solved=solved)
        return {
            "subspace": Term(missed_B.mean()),
            "covariance": Term(error_B.mean(), params["w_covariance"]),
            "likelihood": Term(excess_B.mean(), params["w_likelihood"]),
            "contrast": Term(contrast_B.mean(), params["w_contrast"]),
        }

    def validate(self) -> Mapping[str, float]:
        shared = problem(*problem_key(self._context))
        blend = self._params["blend"]
        if blend is None:
            factor_BNR, noise_B, _ = self._predict(shared.calibration, has_loss=False)
            ridge_BNN = shared.calibration_ridge_BNN
            blend = best_blend(factor_BNR, noise_B, ridge_BNN, shared.calibration)
        scenes, ridge_BNN = shared.validation, shared.validation_ridge_BNN
        factor_BNR, noise_B, loss = self._predict(scenes)
        errors, distances = [], []
        for part in chunks(len(scenes)):
            given = (factor_BNR[part], noise_B[part], ridge_BNN[part], scenes.select(part), blend)
            errors.append(hybrid_subspace_error(*given))
            distances.append(hybrid_distance(*given))
        error_B = torch.cat(errors)
        return {
            "J_db": metric_db(error_B, shared.ridge_error_B),
            "epsilon": float(error_B.mean()),
            "nmse": float(torch.cat(distances).mean()),
            "validation_loss": loss,
            "beta": blend,
        }

    def predict(self, samples: range) -> Sequence[Prediction]:
        shared = problem(*problem_key(self._context))
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

    def _predict(self, scenes: Scenes, *, has_loss: bool = True) -> tuple[Tensor, Tensor, float]:
        """F and s of every scene, and the mean loss if it is asked for."""
        factors: list[Tensor] = []
        noises: list[Tensor] = []
        loss = 0.0
        for part in chunks(len(scenes)):
            some = scenes.select(part)
            given = some.installation
            outputs = self._net(some.sample_BLMM, given.codes_BLN, given.channel_BMN)
            factor_BNR, noise_B = factor_from(outputs)
            factors.append(factor_BNR)
            noises.append(noise_B)
            if has_loss:
                batch = Batch(some, ring_steering(some.positions_BK3, self._config))
                terms = self.loss(outputs, batch).values()
                loss += len(some) * sum(float(term.weight * term.value) for term in terms)
        # Those of the validation scenes, which come last, remain.
        self._validated = factors[0]
        return torch.cat(factors), torch.cat(noises), loss / len(scenes)


def problem_key(context: Context) -> tuple[str, int, str, str, SceneFile | None]:
    """The arguments of `models.ris.problem` for a context."""
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
