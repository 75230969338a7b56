"""Planted situations of the RIS network's losses: scenes without any source."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from models.ris.network.losses import (
    covariance_error,
    gaussian_nll,
    peak_contrast,
    ring_steering,
    subspace_alignment,
)
from models.ris.scene.scenes import SIZES, draw_scenes
from objectives import Term
from situations.expected import lives, loss_fault
from situations.task import Dense, Outputs, Planted, situation


@situation(lives())
class NoSources(Planted):
    """Scenes without any source in the losses of the RIS network."""

    bad: Collection[int] = ()
    config = SIZES["unit"]

    def networks(self) -> dict[str, nn.Module]:
        c = self.config
        inputs, outputs = 2 * c.codes * c.antennas**2, 2 * c.elements * c.rank + 1
        return {"head": Dense(inputs, outputs, self.words)}

    def prepare(self) -> None:
        self.groups = [replace(group, lr=1e-3) for group in self.groups]

    def batch(self, step: int) -> dict[str, Any]:
        self.step = step
        return self._some(step)

    def _some(self, step: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(step)
        scenes = draw_scenes(self.config, 8, generator, device=self.device)
        # The first half of the scenes is empty, and in every fourth step all of them.
        is_empty_B = torch.arange(8, device=self.device) < (8 if step % 4 == 0 else 4)
        is_left_B1 = ~is_empty_B[:, None]
        scenes = replace(
            scenes,
            steering_BNK=scenes.steering_BNK * is_left_B1[..., None],
            powers_BK=scenes.powers_BK * is_left_B1,
            source_mask_BK=scenes.source_mask_BK & is_left_B1,
            positions_BK3=scenes.positions_BK3.where(is_left_B1[..., None], torch.nan),
            noise_B=scenes.noise_B.where(~is_empty_B, 1.0),
        )
        return {"step": step, "scenes": scenes}

    def forward(self, batch: Mapping[str, Any]) -> Outputs:
        sample_BLMM = batch["scenes"].sample_BLMM
        return {"all": self.parts["head"](torch.view_as_real(sample_BLMM).flatten(1))}

    def loss(self, outputs: Outputs, batch: Mapping[str, Any]) -> Mapping[str, Term]:
        scenes = batch["scenes"]
        factor_BNR2 = outputs["all"][:, 1:].view(8, self.config.elements, self.config.rank, 2)
        factor_BNR = torch.view_as_complex(factor_BNR2.contiguous())
        noise_B = outputs["all"][:, 0].exp()
        label = (factor_BNR, noise_B, scenes.factor_BNK, scenes.noise_B)
        mask_BK = scenes.source_mask_BK
        contrast_B = peak_contrast(
            factor_BNR,
            noise_B,
            steering_BNK=scenes.steering_BNK,
            ring_BNKP=ring_steering(scenes.positions_BK3, self.config),
            mask_BK=mask_BK,
        )
        terms = {
            "subspace": subspace_alignment(factor_BNR, scenes.factor_BNK, mask_BK),
            "covariance": covariance_error(*label),
            "likelihood": gaussian_nll(*label),
            "contrast": contrast_B,
        }
        if not torch.stack(list(terms.values())).isfinite().all():
            self.observed.add(self.step)
        return {self.words(role): Term(term_B.mean()) for role, term_B in terms.items()}

    def validate(self) -> Mapping[str, float]:
        batch = self._some(10**6 + 1)
        terms = self.loss(self.forward(batch), batch).values()
        return {"error": sum(float(term.value) for term in terms)}


# Positions of absent sources are NaN by contract, so that the batch is not at fault.
@situation(loss_fault("NaN", operation="log"))
class NoSourcesAndLogZero(NoSources):
    """The same, with 0 · log 0 of an absent source's power in a term of its own."""

    bad = range(10**9)

    def loss(self, outputs: Outputs, batch: Mapping[str, Any]) -> Mapping[str, Term]:
        power_BK = batch["scenes"].powers_BK * outputs["all"][:, :1].exp()
        entropy = -(power_BK * power_BK.log()).sum(-1).mean()
        if not entropy.isfinite():
            self.observed.add(self.step)
        return {**super().loss(outputs, batch), self.words("plant"): Term(entropy)}

    def validate(self) -> Mapping[str, float]:
        return {"error": float(self.parameter("head.weight").square().mean())}
