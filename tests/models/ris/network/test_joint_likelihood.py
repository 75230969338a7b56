"""The likelihood of joint hypotheses against matrices written out in full."""

from __future__ import annotations

import pytest
import torch

from models.ris.network.joint_likelihood import (
    Source,
    joint_log_likelihood,
    seen_parts,
    single_log_likelihood,
    snapshot_rows,
)
from models.ris.scene.scenes import scaled_sample_covariance

B, L, M, S = 2, 4, 3, 5


def drawn(sources: int, snapshots: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Responses d of shape (sources, B, L, M, S), and sample covariances."""
    generator = torch.Generator().manual_seed(sources)
    shape = (sources, B, L, M, S)
    d_kBLMS = torch.randn(shape, dtype=torch.complex64, generator=generator)
    y_BLMT = torch.randn(B, L, M, snapshots, dtype=torch.complex64, generator=generator)
    return d_kBLMS, scaled_sample_covariance(y_BLMT)


def parts(d_BLMS: torch.Tensor) -> torch.Tensor:
    return torch.cat((d_BLMS.real, d_BLMS.imag), 2).permute(1, 2, 0, 3)


def written_out(d_kBLMS, sample_BLMM, share_BSk, snr_db: float, snapshots: int) -> torch.Tensor:
    """−T Σ log det R − L M T log Σ tr(R⁻¹ S), with R = I + ρ Σ p d dᴴ, in double precision."""
    d = d_kBLMS.to(torch.complex128).permute(1, 4, 2, 3, 0)
    p = share_BSk.double()
    energy = (d.abs().square().sum(3) * p[:, :, None]).sum(-1).mean(-1)
    rho = 10 ** (snr_db / 10) * M / energy
    R = torch.eye(M) + (d * (rho[..., None] * p)[:, :, None, None]) @ d.mH
    logdet = torch.linalg.slogdet(R).logabsdet.sum(-1)
    sample = sample_BLMM.to(torch.complex128).unsqueeze(1)
    misfit = torch.linalg.solve(R, sample.expand(R.shape)).diagonal(dim1=-2, dim2=-1).real
    return -snapshots * (logdet + L * M * misfit.sum((-2, -1)).log())


@pytest.mark.parametrize("sources", [1, 2, 3])
@pytest.mark.parametrize("snapshots", [1, 2, 8])
def test_joint_likelihoods_are_those_of_the_matrices(sources, snapshots):
    d_kBLMS, sample_BLMM = drawn(sources, snapshots)
    share_BSk = torch.rand(B, S, sources, generator=torch.Generator().manual_seed(1)) + 0.3
    share_BSk = share_BSk / share_BSk.sum(-1, keepdim=True)
    rows_LBYZ = snapshot_rows(sample_BLMM, snapshots)
    given = []
    for d_BLMS in d_kBLMS:
        parts_LZBS = parts(d_BLMS)
        real, imag = seen_parts(rows_LBYZ, parts_LZBS).chunk(2, 2)
        energy_LBS = parts_LZBS.square().sum(1)
        given.append(Source(parts_LZBS, energy_LBS, torch.complex(real, imag)))
    nodes_BQ = torch.tensor([[-3.0, 10.0]]).expand(B, -1)

    found_BQS, _ = joint_log_likelihood(given, share_BSk, nodes_BQ, snapshots=snapshots)

    for q, snr_db in enumerate((-3.0, 10.0)):
        expected_BS = written_out(d_kBLMS, sample_BLMM, share_BSk, snr_db, snapshots)
        # fp32 through conditions of R up to 30, and the load of 1e-6 of a sample of full rank.
        torch.testing.assert_close(found_BQS[:, q].double(), expected_BS, rtol=1e-4, atol=2e-3)


def test_the_likelihood_of_one_source_is_the_joint_one_of_one():
    d_kBLMS, sample_BLMM = drawn(1, 1)
    parts_LZBS, rows_LBYZ = parts(d_kBLMS[0]), snapshot_rows(sample_BLMM, 1)
    seen_LBYS = seen_parts(rows_LBYZ, parts_LZBS)
    energy_LBS = parts_LZBS.square().sum(1)
    nodes_BQ = torch.tensor([[0.0, 20.0]]).expand(B, -1)
    given = Source(parts_LZBS, energy_LBS, torch.complex(*seen_LBYS.chunk(2, 2)))

    single_BQS, _ = single_log_likelihood(
        energy_LBS, seen_LBYS.square().sum(2), nodes_BQ, snapshots=1, antennas=M
    )
    joint_BQS, _ = joint_log_likelihood([given], torch.ones(B, S, 1), nodes_BQ, snapshots=1)

    torch.testing.assert_close(single_BQS, joint_BQS, rtol=1e-5, atol=1e-4)


def test_candidates_that_all_scenes_share_are_seen_as_each_scenes_own():
    d_kBLMS, sample_BLMM = drawn(1, 1)
    one_LZBS = parts(d_kBLMS[0][:1])
    rows_LBYZ = snapshot_rows(sample_BLMM, 1)

    shared_LBYS = seen_parts(rows_LBYZ, one_LZBS)
    own_LBYS = seen_parts(rows_LBYZ, one_LZBS.expand(-1, -1, B, -1))

    torch.testing.assert_close(shared_LBYS, own_LBYS, rtol=1e-5, atol=1e-6)
