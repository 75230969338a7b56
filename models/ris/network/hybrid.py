"""The hybrid network: exact likelihoods of joint hypotheses, weighed by a transformer.

Mean field (`mean_field`) is fast, and nearly exact where sources stand out. At low SNR it is wrong:
it takes the sources' positions as independent, and all K sources as present. So here its beliefs
only propose. From them joint hypotheses on 1…K sources are drawn, each with its exact posterior
(`hypotheses`). A transformer over the codes' samples adds to the logarithm of that (`weighing`).
The output is the mean covariance under the weights,

    R = Σ_h w_h Σ_k p_hk a_hk a_hkᴴ,   w = softmax(sharpness · log posterior + learned)

as a factor of its dominant directions. A second output, `positions`, has the least expected
distance to the sources under the same weights (`nearest`).

Likelihoods are fp32 and constants for the gradient, which reaches the learned part through w and
never passes through an inverse. The learned part alone runs under autocast.

Shapes: B scenes (or 1 where all share it); L codes; M antennas; N elements; G cells of the grid; C
all cells of a slot; S drawn hypotheses; H all hypotheses; R rank; W width of a token.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.ris.estimators.mixture import factor_of_parts
from models.ris.estimators.posterior import Grid, entries_of, position_grid
from models.ris.estimators.responses import candidate_steering, parts_of
from models.ris.network.beliefs import Scene, Walls, full_precision
from models.ris.network.hypotheses import (
    Hypotheses,
    alone,
    snr_nodes_db,
    together,
)
from models.ris.network.joint_likelihood import snapshot_rows
from models.ris.network.mean_field import Belief, MeanField
from models.ris.network.nearest import nearest_positions
from models.ris.network.weighing import Backbone, Head
from models.ris.scene.geometry import ArrayConfig, as_positions


class HybridNet(nn.Module):
    """Joint posterior over source positions with learned weights.

    Args:
        config: The size: geometry of the surface, T, K.
        width: Width W of a token.
        depth: Blocks of the transformer.
        heads: Heads of its attention.
        layers: Visits to every slot of mean field; the second and later ones zoom.
        hypotheses: Joint hypotheses S drawn for each number of sources from 2 on.
        rank: Columns of the factor; default the size's.
        oversampling: Grid cells per half beamwidth, 1/side rad, in either angle.
        dropout: Dropout in the learned part.
    """

    positions_G3: Tensor
    low_3: Tensor
    high_3: Tensor
    cell_3: Tensor
    steering_1NG: Tensor
    start_1NR: Tensor

    def __init__(
        self,
        config: ArrayConfig,
        *,
        width: int = 64,
        depth: int = 1,
        heads: int = 4,
        layers: int = 2,
        hypotheses: int = 64,
        rank: int | None = None,
        oversampling: float = 1.2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.config, self.layers, self.hypotheses = config, layers, hypotheses
        # These arguments build another network of the same shape.
        self.settings: dict[str, Any] = {
            "width": width,
            "depth": depth,
            "heads": heads,
            "layers": layers,
            "hypotheses": hypotheses,
            "rank": rank,
            "oversampling": oversampling,
            "dropout": dropout,
        }
        rank = config.rank if rank is None else rank
        if min(width, depth, heads, layers, hypotheses, rank) < 1:
            raise ValueError(f"{self.settings}: write 1 or more")
        grid = position_grid(config, oversampling=oversampling)
        start_NR = torch.randn(config.elements, rank, generator=torch.Generator().manual_seed(0))
        constants = {
            "positions_G3": grid.positions_G3,
            "low_3": grid.low_3,
            "high_3": grid.high_3,
            "cell_3": grid.cell_3,
            "steering_1NG": candidate_steering(grid.positions_G3, config).unsqueeze(0),
            "start_1NR": start_NR.to(torch.complex64).unsqueeze(0),
        }
        for name, constant in constants.items():
            self.register_buffer(name, constant, persistent=False)
        self.backbone = Backbone(config, width=width, depth=depth, heads=heads, dropout=dropout)
        self.head = Head(config.max_sources, len(grid.positions_G3), width=width)
        self._walls = Walls()

    def forward(
        self, sample_BLMM: Tensor, codes_BLN: Tensor, channel_BMN: Tensor
    ) -> dict[str, Tensor]:
        """Estimate the covariance of each scene; see `RisCovarianceNet.forward`."""
        beliefs, hypotheses, log_weights = self._weighed(sample_BLMM, codes_BLN, channel_BMN)
        return self._outputs(beliefs, hypotheses, [one_BH.exp() for one_BH in log_weights])

    @torch.no_grad()
    def positions(
        self, sample_BLMM: Tensor, codes_BLN: Tensor, channel_BMN: Tensor, mask_BK: Tensor
    ) -> Tensor:
        """Positions of least expected distance for a known number of sources.

        Args:
            mask_BK: True for the sources that are present, first ones first.

        Returns:
            positions_BK3, azimuth in rad, elevation in rad, range in m; NaN for absent sources.
        """
        beliefs, hypotheses, log_weights = self._weighed(sample_BLMM, codes_BLN, channel_BMN)
        count_B = mask_BK.sum(-1)
        found_BK3 = sample_BLMM.real.new_full((*mask_BK.shape, 3), torch.nan)
        for sources, (some, log_BH) in enumerate(zip(hypotheses, log_weights, strict=True), 1):
            scene_X = (count_B == sources).nonzero().squeeze(-1)
            if not len(scene_X):
                continue
            slots = beliefs[:1] if sources == 1 else beliefs[1 : 1 + sources]
            place_BHk3 = torch.stack(
                [
                    belief.cells.positions(self.positions_G3, some.index_BHk[..., slot])
                    for slot, belief in enumerate(slots)
                ],
                2,
            )
            weights_XH = log_BH[scene_X].softmax(-1)
            found_Xk3 = nearest_positions(as_positions(place_BHk3[scene_X]), weights_XH)
            found_BK3[scene_X, :sources] = found_Xk3
        return found_BK3

    def _weighed(
        self, sample_BLMM: Tensor, codes_BLN: Tensor, channel_BMN: Tensor
    ) -> tuple[list[Belief], list[Hypotheses], Sequence[Tensor]]:
        with torch.no_grad(), full_precision(sample_BLMM):
            sensed = self._walls.sensed(channel_BMN, codes_BLN, self.steering_1NG)
            scene = Scene(sample_BLMM, entries_of(sample_BLMM), sensed)
            beliefs, hypotheses = self._hypotheses(scene)
        token_BW = self.backbone(sample_BLMM, codes_BLN, channel_BMN)
        return beliefs, hypotheses, self.head(token_BW, hypotheses)

    def _hypotheses(self, scene: Scene) -> tuple[list[Belief], list[Hypotheses]]:
        """Beliefs of the slot alone and of those together, and hypotheses of 1…K sources."""
        config, snapshots = self.config, self.config.snapshots
        grid = Grid(self.positions_G3, self.cell_3, self.low_3, self.high_3)
        field = MeanField.begun(scene, grid, config, slots=config.max_sources)
        single, field = field.first_alone().fitted(), field.fitted()
        for _ in range(1, self.layers):
            single, field = single.visited().fitted(), field.visited().fitted()
        nodes_BQ = snr_nodes_db(
            field.log_noise_B,
            config.antennas,
            low_db=config.snr_min_db,
            high_db=config.snr_max_db,
        )
        rows_LBYZ = snapshot_rows(scene.sample_BLMM, snapshots)
        hypotheses = [
            alone(
                single.beliefs[0],
                scene.grid,
                rows_LBYZ,
                nodes_BQ,
                antennas=config.antennas,
                snapshots=snapshots,
            )
        ]
        for sources in range(2, config.max_sources + 1):
            some = together(
                field.beliefs[:sources],
                scene.grid,
                rows_LBYZ,
                nodes_BQ,
                count=self.hypotheses,
                snapshots=snapshots,
            )
            hypotheses.append(some)
        return [*single.beliefs, *field.beliefs], hypotheses

    def _outputs(
        self,
        beliefs: Sequence[Belief],
        hypotheses: Sequence[Hypotheses],
        weights: Sequence[Tensor],
    ) -> dict[str, Tensor]:
        """The factor of R, scaled to trace N, and the noise in the same units."""
        cells, columns = len(self.positions_G3), self.start_1NR.shape[-1]
        batch = len(weights[0])
        of_slot = [weights[0]]
        of_slot += [torch.zeros_like(belief.log_share_BC) for belief in beliefs[1:]]
        noise_B = (weights[0] * hypotheses[0].noise_BH).sum(-1)
        for some, weights_BS in zip(hypotheses[1:], weights[1:], strict=True):
            noise_B = noise_B + (weights_BS * some.noise_BH).sum(-1)
            for slot in range(some.index_BHk.shape[-1]):
                of_slot[1 + slot] = of_slot[1 + slot].scatter_add(
                    1, some.index_BHk[..., slot], weights_BS * some.share_BHk[..., slot]
                )
        grid_BG = torch.stack([weights_BC[:, :cells] for weights_BC in of_slot]).sum(0)
        sets = [(parts_of(self.steering_1NG), grid_BG)]
        for belief, weights_BC in zip(beliefs, of_slot, strict=True):
            if belief.near_YBZ is not None:
                sets.append((belief.near_YBZ, weights_BC[:, cells:]))
        with full_precision(noise_B):
            best_BK3 = torch.stack([belief.best_B3 for belief in beliefs[1:]], 1)
            spare_BNR = self.start_1NR.expand(batch, -1, -1)
            start_BNR = torch.cat((candidate_steering(best_BK3, self.config), spare_BNR), -1)
            factor_BNR = factor_of_parts(sets, start_BNR[..., :columns])
        log_noise_B = noise_B.log() + self.head.log_noise_gain
        return {"factor": torch.view_as_real(factor_BNR), "log_noise": log_noise_B}
