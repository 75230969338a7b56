"""The network: from sample covariances under known codes to a low-rank covariance factor.

Each of K slots holds a belief about one source: power at each of many candidate positions. A layer
visits the slots in turn. A visit scores every candidate by the likelihood gain of one more source
there, given noise and the other slots (`estimators.posterior`: exact, without trained parameters,
fp32). The learned part (`slot_control`, shared by all layers) turns scores into power and noise.
Together this is an unrolled mean-field posterior over positions. From its second visit on, a slot
also zooms in on its best candidate: after one Gauss–Newton step, over the width of the likelihood.
The output is R = Σ power · a aᴴ as a factor of its dominant directions.

Only the learned part runs under autocast. Scores are constants for the gradient, which reaches each
decision through the tokens and through R. The gradient therefore never passes through an inverse.

Shapes: B scenes (or 1 where all share it); L codes; M antennas; N elements; K slots; R rank; G grid
cells; C candidates, the G cells and then those of the zoom; W width of a token; S numbers of a
visit's summary; 2 = real and imaginary part; 3 = a position as in `estimators.posterior`.
"""

from collections.abc import Mapping, Sequence
from math import log
from typing import Any

import torch
from torch import Tensor, nn

from models.linalg.entries import pack_entries
from models.ris.estimators.mixture import factor_of_parts
from models.ris.estimators.posterior import (
    entries_of,
    gain_of_forms,
    noise_of_forms,
    position_grid,
)
from models.ris.estimators.responses import (
    candidate_parts,
    candidate_steering,
    near_responses,
    parts_of,
)
from models.ris.network.beliefs import (
    Belief,
    Forms,
    Scene,
    Scores,
    Slot,
    Walls,
    forms,
    full_precision,
    response,
)
from models.ris.network.slot_control import Backbone, Head
from models.ris.network.source_climb import climb_by_forms
from models.ris.network.zoom import count_once, place_of, zoom, zoom_rule
from models.ris.scene.geometry import ArrayConfig
from models.ris.scene.scenes import NOISE_FLOOR

# Noise starts with this power over M; noise and sources together have about 1/M.
_FIRST_NOISE = 0.6


class RisCovarianceNet(nn.Module):
    """Unrolled mean-field posterior over source positions with learned decisions.

    Args:
        config: The size: geometry of the surface, T, K.
        width: Width W of a slot's token.
        layers: Visits to every slot; the second and later ones zoom.
        rank: Columns of the factor; default the size's.
        oversampling: Grid cells per half beamwidth, 1/side rad, in either angle.
        dropout: Dropout in the learned part.
        zoom_points: Positions of a zoom: see `zoom_rule`.
    """

    positions_1G3: Tensor
    low_3: Tensor
    high_3: Tensor
    cell_3: Tensor
    offsets_C3: Tensor
    log_volume_C: Tensor
    steering_1NG: Tensor
    start_1NR: Tensor

    def __init__(
        self,
        config: ArrayConfig,
        *,
        width: int = 64,
        layers: int = 1,
        rank: int | None = None,
        oversampling: float = 1.0,
        dropout: float = 0.0,
        zoom_points: int = 9,
    ) -> None:
        super().__init__()
        self.config, self.layers = config, layers
        # These arguments build another network of the same shape.
        self.settings: dict[str, Any] = {
            "width": width,
            "layers": layers,
            "rank": rank,
            "oversampling": oversampling,
            "dropout": dropout,
            "zoom_points": zoom_points,
        }
        rank = config.rank if rank is None else rank
        if min(width, layers, rank) < 1:
            raise ValueError(f"width {width}, layers {layers}, rank {rank}: write 1 or more")
        grid = position_grid(config, oversampling=oversampling)
        offsets_C3, log_volume_C, self._zoom_half = zoom_rule(zoom_points)
        start_NR = torch.randn(config.elements, rank, generator=torch.Generator().manual_seed(0))
        constants = {
            "positions_1G3": grid.positions_G3.unsqueeze(0),
            "low_3": grid.low_3,
            "high_3": grid.high_3,
            "cell_3": grid.cell_3,
            "offsets_C3": offsets_C3,
            "log_volume_C": log_volume_C,
            "steering_1NG": candidate_steering(grid.positions_G3, config).unsqueeze(0),
            "start_1NR": start_NR.to(torch.complex64).unsqueeze(0),
        }
        for name, constant in constants.items():
            self.register_buffer(name, constant, persistent=False)
        cells = len(grid.positions_G3)
        self.backbone = Backbone(config.max_sources, cells, width=width, dropout=dropout)
        self.head = Head(cells, width=width)
        self._walls = Walls()

    def forward(
        self, sample_BLMM: Tensor, codes_BLN: Tensor, channel_BMN: Tensor
    ) -> dict[str, Tensor]:
        """Estimate the covariance of each scene.

        Args:
            sample_BLMM: S_l, complex64, scaled to mean_l tr S_l = 1.
            codes_BLN: c_l, complex64, unit modulus; B is 1 or the number of scenes.
            channel_BMN: H, complex64; B is 1 or the number of scenes.

        Returns:
            "factor": F of shape BNR2, R without noise scaled to about trace N; "log_noise": log of
            the noise above the floor, of shape B, in the same units. `factor_from` reads them.
        """
        batch, antennas = len(sample_BLMM), sample_BLMM.shape[-1]
        with torch.no_grad(), full_precision(sample_BLMM):
            sensed = self._walls.sensed(channel_BMN, codes_BLN, self.steering_1NG)
            scene = Scene(sample_BLMM, entries_of(sample_BLMM), sensed)
        log_noise_B = sample_BLMM.real.new_full((batch,), log(_FIRST_NOISE / antennas))
        slots = [Slot(token_W.expand(batch, -1)) for token_W in self.backbone.first_token_KW]
        for layer in range(self.layers):
            steps: list[Tensor] = []
            for slot in slots:
                scores = self._score(scene, slots, slot, log_noise_B, layer)
                slot.token_BW = self.backbone(slot.token_BW, scores.gain_BC, scores.summary_BS)
                control_B4, prior_BG = self.head(slot.token_BW)
                slot.belief = self._decide(scene, scores, control_B4, prior_BG)
                steps.append(control_B4[:, 3])
            with torch.no_grad(), full_precision(sample_BLMM):
                log_noise_B = noise_of_forms(
                    scene.sample_MMLB, response(scene, slots), log_noise_B, antennas=antennas
                )
            log_noise_B = log_noise_B + torch.stack(steps).mean(0)
        return self._outputs(slots, log_noise_B)

    @torch.no_grad()
    def _score(
        self, scene: Scene, slots: Sequence[Slot], slot: Slot, log_noise_B: Tensor, layer: int
    ) -> Scores:
        """Score the grid and, around the best candidate of the previous visit, a finer one."""
        antennas = len(scene.sample_MMLB)
        with full_precision(scene.sample_BLMM):
            found = forms(scene, [other for other in slots if other is not slot], log_noise_B)
            near_BC3, spread_B3 = self._near(scene, slot, found)
            near_YBC, near = None, None
            if near_BC3.shape[1]:
                near_YBC = candidate_parts(near_BC3, self.config)
                near = near_responses(near_YBC, scene.sensing_BLMN, scene.sensed.sensing_BLZY)
            gain_BC, power_BC = gain_of_forms(
                pack_entries(found.seen_MMLB),
                pack_entries(found.inverse_MMLB),
                (scene.grid,) if near is None else (scene.grid, near),
                antennas=antennas,
                snapshots=self.config.snapshots,
            )
        most_B1, index_B1 = gain_BC.max(-1, keepdim=True)
        gain_BC = gain_BC - most_B1
        if near is not None:
            half_B3 = self._zoom_half * spread_B3
            count_once(gain_BC, self.positions_1G3, near_BC3[:, 0], half_B3)
            volume_B1 = (spread_B3 / self.cell_3).log().sum(-1, keepdim=True)
            gain_BC[:, -near_BC3.shape[1] :] += volume_B1 + self.log_volume_C
        # On the CPU exp takes six times as long as the whole of softmax.
        log_belief_BC, belief_BC = gain_BC.log_softmax(-1), gain_BC.softmax(-1)
        # Each number is shifted and scaled to about −1…1.
        summary = (
            -(belief_BC * log_belief_BC).sum(-1) - 2,
            most_B1.squeeze(-1).clamp(min=0.1).log() - 2,
            (belief_BC * power_BC).sum(-1).log() + 2.5,
            found.rest_XLB[:antennas].sum(0).mean(0).log() + 0.5,
            torch.full_like(log_noise_B, layer - 1.0),
        )
        best_B3 = place_of(index_B1.squeeze(-1), self.positions_1G3, near_BC3)
        return Scores(gain_BC, power_BC, best_B3, torch.stack(summary, -1), near_YBC, near)

    def _near(self, scene: Scene, slot: Slot, found: Forms) -> tuple[Tensor, Tensor]:
        """Positions of a zoom around the slot's best so far, and its spread: see `zoom`.

        There are none at the first visit.
        """
        batch = len(slot.token_BW)
        if slot.belief is None:
            return slot.token_BW.new_empty(batch, 0, 3), slot.token_BW.new_ones(batch, 3)
        best_B3 = slot.belief.scores.best_B3
        step_B3, deviation_B3 = climb_by_forms(
            found.seen_MMLB, found.inverse_MMLB, best_B3, scene.sensing_BLMN, self.config
        )
        near_BC3, spread_B3 = zoom(best_B3, step_B3, deviation_B3, self.cell_3, self.offsets_C3)
        return torch.minimum(torch.maximum(near_BC3, self.low_3), self.high_3), spread_B3

    def _decide(self, scene: Scene, scores: Scores, control_B4: Tensor, prior_BG: Tensor) -> Belief:
        """Belief after a visit: weights = power · softmax(sharpness · gain + prior)."""
        sharper_B1, louder_B1, nearer_B1 = (control_B4[:, i : i + 1] for i in range(3))
        cells = prior_BG.shape[-1]
        prior_BC = prior_BG
        if scores.near is not None:
            near_count = scores.gain_BC.shape[-1] - cells
            prior_BC = torch.cat((prior_BG, nearer_B1.expand(-1, near_count)), -1)
        share_BC = (sharper_B1.exp() * scores.gain_BC + prior_BC).softmax(-1)
        weights_BC = share_BC * scores.power_BC * louder_B1.exp()
        with torch.no_grad(), full_precision(weights_BC):
            response_XLB = scene.grid.packed_covariance(weights_BC[:, :cells])
            if scores.near is not None:
                response_XLB = response_XLB + scores.near.packed_covariance(weights_BC[:, cells:])
        return Belief(scores, weights_BC, response_XLB)

    def _outputs(self, slots: Sequence[Slot], log_noise_B: Tensor) -> dict[str, Tensor]:
        """The factor of R scaled to trace N, and the noise in the same units."""
        beliefs = [slot.belief for slot in slots if slot.belief is not None]
        cells, columns = self.positions_1G3.shape[1], self.start_1NR.shape[-1]
        total_B = torch.stack([belief.weights_BC.sum(-1) for belief in beliefs]).sum(0)
        weights = [belief.weights_BC / total_B.unsqueeze(-1) for belief in beliefs]
        grid_YBG, grid_BG = parts_of(self.steering_1NG), weights[0][:, :cells]
        for w_BC in weights[1:]:
            grid_BG = grid_BG + w_BC[:, :cells]
        sets = [(grid_YBG, grid_BG)]
        for belief, w_BC in zip(beliefs, weights, strict=True):
            if belief.scores.near_YBC is not None:
                sets.append((belief.scores.near_YBC, w_BC[:, cells:]))
        with full_precision(total_B):
            best_BK3 = torch.stack([belief.scores.best_B3 for belief in beliefs], 1)
            spare_BNR = self.start_1NR.expand(len(total_B), -1, -1)
            start_BNR = torch.cat((candidate_steering(best_BK3, self.config), spare_BNR), -1)
            factor_BNR = factor_of_parts(sets, start_BNR[..., :columns])
        log_noise_B = log_noise_B + self.head.log_noise_gain - total_B.log()
        return {"factor": torch.view_as_real(factor_BNR), "log_noise": log_noise_B}


def factor_from(outputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """F_BNR, complex64, and the noise s_B >= 1e-3 from the network's outputs: R = F Fᴴ + s I."""
    factor_BNR = torch.view_as_complex(outputs["factor"].float().contiguous())
    return factor_BNR, NOISE_FLOOR + outputs["log_noise"].float().exp()
