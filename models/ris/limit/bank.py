"""A bank of hypotheses from the prior, weighed for many scenes of one wall by a matrix product.

Shapes: J hypotheses of the bank, P of a chunk, B scenes, X unit coordinates, Z = L·M² reals of the
Hermitian matrices of all codes; K, L, M, T as in `likelihood`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.linalg.hermitian import pack_hermitian
from models.ris.limit.hypotheses import Measured, coordinates, strengths
from models.ris.scene.scenes import ArrayConfig, Scenes

# The steering vectors of this many hypotheses fit in the cache.
_CHUNK = 4096


class Bank:
    """Hypotheses of one number of sources, drawn from the prior.

    Args:
        scene: Scenes of the wall; the first one's number of sources counts, its snapshots do not.
        config: The size.
        draws: J.
        generator: Source of the draws.
    """

    def __init__(
        self, scene: Scenes, config: ArrayConfig, *, draws: int, generator: torch.Generator
    ) -> None:
        measured = Measured(scene, config)
        unit_XJ = torch.rand(coordinates(measured.count), draws, generator=generator)
        kept, tables, logdets = [], [], []
        for unit_XP in torch.split(unit_XJ, _CHUNK, 1):
            found = measured.hypotheses(unit_XP)
            norms = [sight.norm_LP for sight in found.sights_K]
            strength_KP = strengths(unit_XP, norms, config.antennas, config)
            seen_LMPK = torch.stack([sight.seen_LMP for sight in found.sights_K], -1)
            factor_PLMK = (seen_LMPK * strength_KP.mT.sqrt()).permute(2, 0, 1, 3)
            R_PLMM = factor_PLMK @ factor_PLMK.mH + torch.eye(config.antennas)
            # Layouts that the scenes reject are left out.
            is_kept_P = found.log_likelihood_P.isfinite()
            kept.append(unit_XP[:, is_kept_P])
            R_PLMM = R_PLMM[is_kept_P]
            logdets.append(torch.linalg.slogdet(R_PLMM).logabsdet.sum(-1))
            tables.append(pack_hermitian(torch.linalg.inv(R_PLMM)).flatten(1))
        self.unit_XJ = torch.cat(kept, 1)
        self._table_JZ, self._logdet_J = torch.cat(tables), torch.cat(logdets)

    def log_likelihood(self, scenes: Scenes) -> Tensor:
        """Log-likelihood of every hypothesis in every scene, BJ, as `Measured` has it."""
        codes, antennas, snapshots = scenes.snapshots_BLMT.shape[1:]
        sample_BZ = pack_hermitian(scenes.sample_BLMM).flatten(1)
        left_BJ = (sample_BZ / codes) @ self._table_JZ.mT
        left_BJ.log_().mul_(-codes * antennas * snapshots)
        return left_BJ.sub_(snapshots * self._logdet_J)
