"""Estimators of the elements' covariance: ridge matching and least-squares back-projection.

The estimators of positions are re-exported: peaks of Bartlett, MVDR and MUSIC pseudospectra
(`pseudospectra`), greedy maximum likelihood (`maximum_likelihood`), and the refinement by
Gauss–Newton on the snapshots (`likelihood`).

Estimators take samples and installations, never the truth; `models.ris.truth.metric` compares with
the truth.

Shapes: B scenes (or 1 where all share the installation), N elements, M antennas, L codes,
U = L·M² real unknowns of the dual, X = M² real coordinates of a Hermitian M×M matrix.
"""

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor

from models.ris.estimators.likelihood import refined_positions
from models.ris.estimators.maximum_likelihood import greedy_maximum_likelihood, mdl_count
from models.ris.estimators.pseudospectra import (
    bartlett_per_code,
    music_of_covariance,
    music_of_factor,
    music_per_code,
    mvdr_per_code,
)
from models.ris.scene.scenes import ArrayConfig, Installation, Scenes, draw_scenes, stream_generator
from models.ris.truth.metric import subspace_error

__all__ = [
    "LOADINGS",
    "RidgeMatching",
    "back_projection",
    "bartlett_per_code",
    "greedy_maximum_likelihood",
    "mdl_count",
    "music_of_covariance",
    "music_of_factor",
    "music_per_code",
    "mvdr_per_code",
    "refined_positions",
]

# Half decades span a flat optimum: at the tiny size ε = .788, .785, .784, .791, .812.
LOADINGS = (0.01, 0.03, 0.1, 0.3, 1.0)
_RIDGE_SCENES = 1000
_FIT_CHUNK = 250  # covariances and eigenvectors of so many scenes take 83 MB at the full size
_CHUNK_BYTES = 16e6  # the largest intermediate of a chunk of scenes takes this much


def back_projection(sample_BLMM: Tensor, installation: Installation) -> Tensor:
    """Least-squares back-projection of the samples onto the elements, the adjoint of sensing.

    R ∝ Σ_l Φ_lᴴ S_l Φ_l,  the limit of ridge matching as its loading grows

    Args:
        sample_BLMM: S_l, complex, Hermitian, of any scale.
        installation: H and the codes.

    Returns:
        R_BNN, complex, Hermitian, positive semidefinite, trace N.
    """
    sensing_BLMN = installation.sensing_BLMN
    weighted_BLMN = torch.einsum(
        "blmk,blkn->blmn", sample_BLMM, sensing_BLMN.expand(len(sample_BLMM), -1, -1, -1)
    )
    stacked_BYN = sensing_BLMN.flatten(1, 2)
    R_BNN: Tensor = stacked_BYN.mH @ weighted_BLMN.flatten(1, 2)
    return _of_trace_n(R_BNN)


class RidgeMatching:
    """Ridge covariance matching for one installation, or for one installation a scene.

    min_R Σ_l ‖S_l − Φ_l R Φ_lᴴ‖² + μ ‖R‖²  is solved by

    R = Σ_l Φ_lᴴ Z_l Φ_l,   Z_l μ + Σ_m Φ_lΦ_mᴴ Z_m Φ_mΦ_lᴴ = S_l

    with the Z_l Hermitian: U = L·M² real unknowns (4,096 at the full size, where R has 20,736).
    The operator depends on the installation alone; its Cholesky factor is kept where all scenes
    share the installation, and computed for every chunk of scenes where each has its own.

    Attributes:
        installation: H and the codes.
        loading: μ in units of the operator's mean diagonal. Dimensionless.
    """

    def __init__(self, installation: Installation, *, loading: float) -> None:
        if not loading > 0:
            raise ValueError(f"loading is {loading}; write a number above 0, such as 0.1")
        self.installation = installation
        self.loading = loading
        self._cholesky_BUU = self._factorise(installation) if len(installation) == 1 else None

    @classmethod
    def fit(
        cls,
        config: ArrayConfig,
        installation: Installation,
        *,
        loadings: Sequence[float] = LOADINGS,
        scenes: int | Scenes = _RIDGE_SCENES,
    ) -> "RidgeMatching":
        """Choose the loading that minimises the mean subspace error on the "ridge" stream.

        The scenes are drawn on the CPU and solved on the installation's device. On one CPU thread
        this takes 1 s at the tiny size, 3 s at the base and 25 s at the full size.

        Args:
            scenes: Number of scenes to draw, or scenes to use instead, none of the validation set.

        Raises:
            ValueError: Each scene has its own installation; take a loading from a shared one.
        """
        if len(installation) != 1:
            raise ValueError("fit takes one shared installation; give RidgeMatching a loading")
        if isinstance(scenes, int):
            generator = stream_generator(config.problem_seed, "ridge")
            scenes = draw_scenes(config, scenes, generator, installation=installation.to("cpu"))
        starts = range(0, len(scenes), _FIT_CHUNK)
        parts = [scenes.select(slice(i, i + _FIT_CHUNK)) for i in starts]
        parts = [part.to(installation.channel_BMN.device) for part in parts]
        mean_errors = {}
        for loading in loadings:
            matching = cls(installation, loading=loading)
            errors = [subspace_error(matching(part.sample_BLMM), part) for part in parts]
            mean_errors[loading] = float(torch.cat(errors).mean())
        return cls(installation, loading=min(mean_errors, key=mean_errors.__getitem__))

    def __call__(self, sample_BLMM: Tensor) -> Tensor:
        """Estimate covariances from scaled sample covariances.

        Args:
            sample_BLMM: S_l, complex64, Hermitian, of any scale.

        Returns:
            R_BNN, complex64, Hermitian, trace N; not always positive semidefinite.
        """
        B, L, M, _ = sample_BLMM.shape
        N = self.installation.channel_BMN.shape[-1]
        floats = 2 * N * (N + 2 * L * M)
        if self._cholesky_BUU is None:
            floats += 4 * (L * M * M) ** 2
        chunk = max(1, int(_CHUNK_BYTES / (4 * floats)))
        R_BNN = torch.empty(B, N, N, dtype=sample_BLMM.dtype, device=sample_BLMM.device)
        for start in range(0, B, chunk):
            part = slice(start, start + chunk)
            R_BNN[part] = self._solve(sample_BLMM[part], self.installation.select(part))
        return R_BNN

    def _solve(self, sample_BLMM: Tensor, installation: Installation) -> Tensor:
        cholesky_BUU = self._cholesky_BUU
        samples_BU = _to_real(sample_BLMM).flatten(1)
        if cholesky_BUU is not None:
            dual_BU = torch.cholesky_solve(samples_BU.T, cholesky_BUU[0]).T
        else:
            cholesky_BUU = self._factorise(installation)
            dual_BU = torch.cholesky_solve(samples_BU.unsqueeze(-1), cholesky_BUU).squeeze(-1)
        dual_BLMM = _to_hermitian(dual_BU.view(*sample_BLMM.shape[:2], -1))
        sensing_BLMN = installation.sensing_BLMN
        weighted_BLMN = torch.einsum("blmk,blkn->blmn", dual_BLMM, sensing_BLMN)
        R_BNN: Tensor = sensing_BLMN.flatten(1, 2).mH @ weighted_BLMN.flatten(1, 2)
        return _of_trace_n(R_BNN)

    def _factorise(self, installation: Installation) -> Tensor:
        operator_BUU = matching_operator(installation.sensing_BLMN)
        diagonal_BU = operator_BUU.diagonal(dim1=-2, dim2=-1)
        diagonal_BU += self.loading * diagonal_BU.mean(-1, keepdim=True)
        cholesky_BUU: Tensor = torch.linalg.cholesky(operator_BUU)
        return cholesky_BUU


def matching_operator(sensing_BLMN: Tensor) -> Tensor:
    """Matrix of Z ↦ (Σ_m G_lm Z_m G_lmᴴ)_l, G_lm = Φ_lΦ_mᴴ, in real Hermitian coordinates.

    [l i, m j] = ⟨E_i, G_lm E_j G_lmᴴ⟩ with E_i the orthonormal basis of `_to_real`

    Args:
        sensing_BLMN: Φ, complex.

    Returns:
        operator_BUU, real, symmetric, positive semidefinite. It is filled by rows of codes: at the
        full size a complex matrix over all pairs would add 134 MB to the 67 MB of the result.
    """
    B, L, M, _ = sensing_BLMN.shape
    basis_XMM = _to_hermitian(torch.eye(M * M, device=sensing_BLMN.device).to(sensing_BLMN.real))
    operator_BUU = sensing_BLMN.real.new_empty(B, L * M * M, L, M * M)
    for code in range(L):
        G_BLMM = sensing_BLMN[:, code].unsqueeze(1) @ sensing_BLMN.mH
        moved_BLXMM = G_BLMM.unsqueeze(2) @ basis_XMM @ G_BLMM.mH.unsqueeze(2)
        rows = slice(code * M * M, (code + 1) * M * M)
        operator_BUU[:, rows] = _to_real(moved_BLXMM).permute(0, 3, 1, 2)
    return operator_BUU.flatten(2)


def _of_trace_n(R_BNN: Tensor) -> Tensor:
    """The Hermitian part, scaled to trace N."""
    hermitian_BNN = (R_BNN + R_BNN.mH) / 2
    trace_B: Tensor = hermitian_BNN.diagonal(dim1=-2, dim2=-1).real.sum(-1)
    scale_B: Tensor = R_BNN.shape[-1] / trace_B
    return hermitian_BNN * scale_B[:, None, None]


def _to_real(hermitian_MM: Tensor) -> Tensor:
    """Orthonormal real coordinates (…, M²): diagonal, √2 Re and √2 Im of the upper triangle."""
    M = hermitian_MM.shape[-1]
    i, j = torch.triu_indices(M, M, offset=1, device=hermitian_MM.device)
    upper = hermitian_MM[..., i, j] * sqrt(2)
    diagonal = hermitian_MM.diagonal(dim1=-2, dim2=-1).real
    return torch.cat((diagonal, upper.real, upper.imag), dim=-1)


def _to_hermitian(coordinates_X: Tensor) -> Tensor:
    """Hermitian matrices (…, M, M) with the coordinates of `_to_real`."""
    M = round(sqrt(coordinates_X.shape[-1]))
    i, j = torch.triu_indices(M, M, offset=1, device=coordinates_X.device)
    diagonal, real = coordinates_X[..., :M], coordinates_X[..., M : M + len(i)]
    upper = torch.complex(real, coordinates_X[..., M + len(i) :]) / sqrt(2)
    matrix_MM = torch.diag_embed(diagonal).to(upper.dtype)
    matrix_MM[..., i, j] = upper
    matrix_MM[..., j, i] = upper.conj()
    return matrix_MM
