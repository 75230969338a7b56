"""Mean-field posterior of the sources: a belief about each source, computed from the others'.

A slot stands for one source. Its belief gives every cell of the region the probability that the
source is there, and the power that it would have. A visit computes one slot's belief anew. It
scores every cell by the likelihood gain of one more source there, given the noise and the mean
covariance of the other slots. From its second visit on a slot also zooms in on its best cell.

Border: nothing here is learned; everything is fp32 and complex64, without a gradient.
`covariance_net` learns decisions between visits, `hypotheses` draws from the beliefs.

Shapes: B scenes (or 1 where all share it); L codes; M antennas; N elements; G cells of the grid; C
all cells of a slot, the G of the grid first; Z those of its zoom; X the M² real numbers of a packed
Hermitian matrix; Y parts of a steering vector; 3 = a position as in `estimators.posterior`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, sqrt

import torch
from torch import Tensor

from models.linalg.entries import (
    inverse_entries,
    pack_entries,
    product_entries,
    unpack_entries,
)
from models.ris.estimators.posterior import Grid, gain_of_forms, noise_of_forms, with_noise
from models.ris.estimators.responses import (
    NearResponses,
    Responses,
    candidate_parts,
    near_responses,
)
from models.ris.network.beliefs import Scene
from models.ris.network.cells import Cells, grid_cells, zoomed_cells
from models.ris.network.source_climb import climb_by_forms
from models.ris.scene.geometry import ArrayConfig

# Noise starts with this power over M; noise and sources together have about 1/M.
_FIRST_NOISE = 0.6
# A zoom reaches at least this far, in cells of the grid: the accuracy of a position at 24 dB.
_LEAST_REACH = 0.01


@dataclass(frozen=True)
class Belief:
    """Belief of one slot: where its source is, and how strong.

    Attributes:
        log_share_BC: Log probability of each cell.
        power_BC: Power of the source if it is there, in the units of the sample.
        near: Responses to the zoom's cells, None without a zoom.
        near_YBZ: Their steering vectors by parts, as in `estimators.responses`.
        best_B3: Position of the greatest likelihood.
        response_XLB: Covariance of the source under every code, packed.
    """

    cells: Cells
    log_share_BC: Tensor
    power_BC: Tensor
    near: Responses | NearResponses | None
    near_YBZ: Tensor | None
    best_B3: Tensor
    response_XLB: Tensor


@dataclass(frozen=True)
class MeanField:
    """Slots that explain a scene together, and the noise that they leave."""

    scene: Scene
    grid: Grid
    config: ArrayConfig
    beliefs: tuple[Belief, ...]
    log_noise_B: Tensor

    @classmethod
    def begun(cls, scene: Scene, grid: Grid, config: ArrayConfig, *, slots: int) -> MeanField:
        """Visit each slot once, given the ones before."""
        first, scenes = log(_FIRST_NOISE / config.antennas), len(scene.sample_BLMM)
        log_noise_B = scene.sample_BLMM.real.new_full((scenes,), first)
        field = cls(scene, grid, config, (), log_noise_B)
        for _ in range(slots):
            belief = field._visited(None, field.beliefs)
            field = field._with((*field.beliefs, belief))
        return field

    def first_alone(self) -> MeanField:
        """The field of the first slot alone: its first visit knew no other."""
        return self._with(self.beliefs[:1])

    def fitted(self) -> MeanField:
        """The same beliefs, with the noise moved towards its greatest likelihood."""
        log_noise_B = noise_of_forms(
            self.scene.sample_MMLB,
            self._response(self.beliefs),
            self.log_noise_B,
            antennas=self.config.antennas,
        )
        return MeanField(self.scene, self.grid, self.config, self.beliefs, log_noise_B)

    def visited(self) -> MeanField:
        """Visit every slot again, given all others."""
        beliefs = list(self.beliefs)
        for index, before in enumerate(beliefs):
            beliefs[index] = self._visited(before, beliefs[:index] + beliefs[index + 1 :])
        return self._with(tuple(beliefs))

    def _with(self, beliefs: tuple[Belief, ...]) -> MeanField:
        return MeanField(self.scene, self.grid, self.config, beliefs, self.log_noise_B)

    def _response(self, beliefs: Sequence[Belief]) -> Tensor:
        if not beliefs:
            _, m, codes, scenes = self.scene.sample_MMLB.shape
            return self.scene.sample_MMLB.real.new_zeros(m * m, codes, scenes)
        total_XLB = beliefs[0].response_XLB
        for belief in beliefs[1:]:
            total_XLB = total_XLB + belief.response_XLB
        return total_XLB

    def _visited(self, before: Belief | None, others: Sequence[Belief]) -> Belief:
        scene, count, antennas = self.scene, len(self.grid.positions_G3), self.config.antennas
        rest_XLB = with_noise(self._response(others), self.log_noise_B, antennas=antennas)
        inverse_MMLB = inverse_entries(unpack_entries(rest_XLB, antennas))
        seen_MMLB = product_entries(inverse_MMLB, scene.sample_MMLB)
        seen_MMLB = product_entries(seen_MMLB, inverse_MMLB)
        cells = grid_cells(self.grid.positions_G3, batch=len(self.log_noise_B))
        near_YBZ, near = None, None
        if before is not None:
            cells = self._zoomed(before, inverse_MMLB, seen_MMLB)
            near_YBZ = candidate_parts(cells.near_BZ3, self.config)
            near = near_responses(near_YBZ, scene.sensing_BLMN, scene.sensed.sensing_BLZY)
        gain_BC, power_BC = gain_of_forms(
            pack_entries(seen_MMLB),
            pack_entries(inverse_MMLB),
            (scene.grid,) if near is None else (scene.grid, near),
            antennas=antennas,
            snapshots=self.config.snapshots,
        )
        best_B13 = cells.positions(self.grid.positions_G3, gain_BC.argmax(-1, keepdim=True))
        log_share_BC = (gain_BC + cells.log_volume_BC).log_softmax(-1)
        weights_BC = log_share_BC.exp() * power_BC
        response_XLB = scene.grid.packed_covariance(weights_BC[:, :count])
        if near is not None:
            response_XLB = response_XLB + near.packed_covariance(weights_BC[:, count:])
        return Belief(
            cells, log_share_BC, power_BC, near, near_YBZ, best_B13.squeeze(1), response_XLB
        )

    def _zoomed(self, before: Belief, inverse_MMLB: Tensor, seen_MMLB: Tensor) -> Cells:
        """The grid, with a zoom around the best position of the previous visit.

        A cell of the zoom is √3 standard deviations wide. Weighted by the likelihood, the cells
        then have its mean and about its spread, as in a Gauss–Hermite rule. A cell is at most half
        as wide as one of the grid, whose own cells serve better beyond that.
        """
        grid, largest_3 = self.grid, self.grid.cell_3 / 2
        step_B3, deviation_B3 = climb_by_forms(
            seen_MMLB, inverse_MMLB, before.best_B3, self.scene.sensing_BLMN, self.config
        )
        # A step ends at the cell's edge, and a position without a finite step stays.
        step_B3 = torch.maximum(torch.minimum(step_B3, largest_3), -largest_3).nan_to_num(nan=0.0)
        reach_B3 = sqrt(3) * deviation_B3.nan_to_num(nan=torch.inf)
        reach_B3 = torch.maximum(torch.minimum(reach_B3, largest_3), _LEAST_REACH * grid.cell_3)
        centre_B3 = torch.minimum(torch.maximum(before.best_B3 + step_B3, grid.low_3), grid.high_3)
        return zoomed_cells(grid, centre_B3, reach_B3)
