"""The practice that this project replaces, as an objective that is not offered to users.

    python -m hpo --objective benchmarks/ris_covariance_naive.py --size full

A narrow network predicts R = F Fᴴ + σ² I of the full surface. Its subspace term is differentiated
through torch.linalg.eigh of that N×N matrix: 0/0 between the N − rank equal eigenvalues σ². Labels
are stored in complex32 and nothing is cast. From the first step on, the loss is finite and its
gradient is NaN. The control, `--eigenvectors eigh_signal`, has a gradient that ties leave finite.

Shapes: B scenes, N = 144 elements, R rank of F, I inputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from models.linalg import eigh_signal
from models.ris.scene.scenes import SIZES, draw_installation, draw_scenes, stream_generator
from objectives import Choice, Context, Float, Group, Int, Objective, Option, Params, Task, Term

_CONFIG = SIZES["full"]
_BATCH = 4
_VALIDATION_SCENES = 32
# σ² is a hundredth of the label's mean power.
_RIDGE = 1e-2
# In the old practice, `train` returned this value when it met a NaN.
PENALTY = 1e6


class NaiveTask(Task):
    """A two-layer network from sample covariances to the factor of a covariance."""

    steps_per_epoch = 20

    def __init__(self, params: Params, context: Context) -> None:
        self._context, self._weight = context, float(params["w_nmse"])
        self._options = context.options
        generator = stream_generator(context.problem_seed, "installation")
        self._wall = draw_installation(_CONFIG, generator)
        inputs = 2 * _CONFIG.codes * _CONFIG.antennas**2
        outputs = 2 * _CONFIG.elements * _CONFIG.rank
        width = int(params["width"])
        net = nn.Sequential(nn.Linear(inputs, width), nn.GELU(), nn.Linear(width, outputs))
        self._net = net.to(context.device)
        self.modules = {"net": self._net}
        self.groups = [Group(name="net", parameters=list(net.parameters()), lr=params["lr"])]
        self._validation = self._draw(
            stream_generator(context.problem_seed, "validation"), _VALIDATION_SCENES
        )

    def batch(self, step: int) -> dict[str, Tensor]:
        context = self._context
        generator = stream_generator(context.problem_seed, "train", step, trial_seed=context.seed)
        return self._draw(generator, _BATCH)

    def _draw(self, generator: torch.Generator, count: int) -> dict[str, Tensor]:
        scenes = draw_scenes(_CONFIG, count, generator, installation=self._wall)
        factor_BNK = scenes.factor_BNK
        covariance_BNN = factor_BNK @ factor_BNK.mH
        drawn = {
            "sample": _CONFIG.antennas * torch.view_as_real(scenes.sample_BLMM).flatten(1),
            "energy": covariance_BNN.abs().square().sum((-2, -1)),
            "count": scenes.source_mask_BK.sum(-1),
            # The old practice stores labels in complex32, which halves their memory.
            "covariance": covariance_BNN.to(torch.complex32),
            "projector": (factor_BNK @ torch.linalg.pinv(factor_BNK)).to(torch.complex32),
        }
        return {name: tensor.to(self._context.device) for name, tensor in drawn.items()}

    def forward(self, batch: Any) -> Tensor:
        out_BX: Tensor = self._net(batch["sample"])
        return out_BX

    def loss(self, outputs: Tensor, batch: Any) -> Mapping[str, Term]:
        covariance_BNN = self._covariance(outputs)
        vectors_BNX = self._vectors(covariance_BNN, batch["count"])
        # An elementwise product promotes complex32 to complex64.
        seen_BNN = batch["projector"].conj() * (vectors_BNX @ vectors_BNX.mH)
        missed_B = 1 - seen_BNN.real.sum((-2, -1)) / batch["count"]
        error_B = (covariance_BNN - batch["covariance"]).abs().square().sum((-2, -1))
        return {
            "subspace": Term(missed_B.mean()),
            "nmse": Term((error_B / batch["energy"]).mean(), self._weight),
        }

    def _covariance(self, outputs: Tensor) -> Tensor:
        """Covariance R = F Fᴴ + σ² I."""
        factor_BNR2 = outputs.view(len(outputs), _CONFIG.elements, _CONFIG.rank, 2)
        factor_BNR = torch.view_as_complex(factor_BNR2.contiguous())
        eye_NN = torch.eye(_CONFIG.elements, device=outputs.device)
        return factor_BNR @ factor_BNR.mH + _RIDGE * eye_NN

    def _vectors(self, covariance_BNN: Tensor, count_B: Tensor) -> Tensor:
        """The dominant eigenvectors of each scene, as many as it has sources; 0 in the others."""
        if self._options["eigenvectors"] == "eigh_signal":
            return eigh_signal(covariance_BNN, count_B, columns=_CONFIG.max_sources)[1]
        vectors_BNN: Tensor = torch.linalg.eigh(covariance_BNN)[1]
        index_N = torch.arange(_CONFIG.elements, device=count_B.device)
        is_kept_BN = index_N >= _CONFIG.elements - count_B[:, None]
        return vectors_BNN * is_kept_BN[:, None, :]

    def validate(self) -> Mapping[str, float]:
        try:
            terms = self.loss(self.forward(self._validation).float(), self._validation)
            figures = {name: float(term.value) for name, term in terms.items()}
        except RuntimeError:  # torch's LinAlgError is one
            figures = {"subspace": math.nan, "nmse": math.nan}
        if self._options["penalty"] == "on" and not math.isfinite(figures["subspace"]):
            return {"subspace": PENALTY, "nmse": PENALTY}
        return figures


_NARROW: Mapping[str, Float | Int | Choice] = {
    "lr": Float(low=1e-3, high=1e-2, default=3e-3, log=True),
    "width": Int(low=8, high=32, default=16, log=True),
    "w_nmse": Float(low=0.1, high=1.0, default=0.3, log=True),
}


class RisCovarianceNaive(Objective):
    """The part of the sources' span that the estimate misses, on a frozen validation set."""

    name = "ris_covariance_naive"
    metric = "subspace"
    direction = "minimize"
    sizes = ("full",)
    spaces = {
        "narrow": _NARROW,
        "wide": {**_NARROW, "lr": Float(low=1e-4, high=1e-1, default=3e-3, log=True)},
    }
    options = {
        "eigenvectors": Option(
            default="eigh",
            choices=("eigh", "eigh_signal"),
            help="torch's decomposition, or one whose gradient ties leave finite",
        ),
        "penalty": Option(
            default="off", choices=("off", "on"), help="report 1e6 where validation is NaN"
        ),
    }

    def problem_seed(self, size: str) -> int:
        return _CONFIG.problem_seed

    def build(self, params: Params, context: Context) -> NaiveTask:
        return NaiveTask(params, context)


objective = RisCovarianceNaive()
