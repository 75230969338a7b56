"""Responses of the base station to candidate sources, d_l = Φ_l a, and sums over them.

All that the physics of `RisCovarianceNet` asks of candidates are quadratic forms dᴴ X d and
covariances Σ p d dᴴ. With few antennas both are real matrix products with one table of d dᴴ in
packed form (`linalg.entries`), several times faster than products of small complex matrices.

Shapes: B scenes (or 1 where all share it); L codes; M antennas; N elements; C candidates; X the M²
reals of a Hermitian M×M matrix; Y = 2N, the real parts of N elements and then their imaginary
parts; Z = 2M likewise; 3 = azimuth in rad, elevation in rad, reciprocal range in 1/m.
"""

from collections.abc import Iterator
from functools import cached_property
from math import sqrt

import torch
from torch import Tensor

from models.linalg.entries import pack_entries, unpack_entries
from models.ris.scene.geometry import (
    ArrayConfig,
    as_positions,
    element_positions,
    steering,
    steering_phase,
)

# A table of candidates that differ from scene to scene is built anew each time. It has M² rows for
# M of the responses, which pays for few antennas.
_MOST_ANTENNAS = 6


def candidate_steering(positions_BC3: Tensor, config: ArrayConfig) -> Tensor:
    """Steering vectors, (…, N, C), of positions given by reciprocal range."""
    elements_N3 = element_positions(config, device=positions_BC3.device)
    return steering(as_positions(positions_BC3), elements_N3, wavelength_m=config.wavelength_m)


def candidate_parts(positions_BC3: Tensor, config: ArrayConfig) -> Tensor:
    """The same vectors as real numbers, (Y, B, C): one matrix product serves all scenes.

    In memory they are (Y, C, B), as scenes are more than candidates: see `NearResponses`.
    """
    elements_N3 = element_positions(config, device=positions_BC3.device)
    flat_X3 = as_positions(positions_BC3.transpose(0, 1)).flatten(0, 1)
    phase_NX = steering_phase(flat_X3, elements_N3, wavelength_m=config.wavelength_m)
    parts_YX = torch.cat((phase_NX, phase_NX))
    parts_YX[: len(phase_NX)].cos_()
    parts_YX[len(phase_NX) :].sin_()
    return parts_YX.view(len(parts_YX), positions_BC3.shape[1], -1).transpose(1, 2)


def parts_of(steering_BNC: Tensor) -> Tensor:
    """(Y, B, C) from complex steering vectors."""
    return torch.cat((steering_BNC.real, steering_BNC.imag), 1).transpose(0, 1)


def steering_of(parts_YBC: Tensor) -> Tensor:
    """Complex steering vectors, (B, N, C), from their parts."""
    real_NBC, imag_NBC = parts_YBC.chunk(2)
    return torch.complex(real_NBC, imag_NBC).transpose(0, 1)


def sensing_parts(sensing_BLMN: Tensor) -> Tensor:
    """Real matrices (B, L, Z, Y) that map the parts of a to the parts of Φ_l a."""
    real, imag = sensing_BLMN.real, sensing_BLMN.imag
    return torch.cat((torch.cat((real, -imag), -1), torch.cat((imag, real), -1)), -2)


class Responses:
    """Responses to any candidates, d_l = Φ_l a.

    With one installation and one grid for all scenes there is a table of them.

    Args:
        steering_BNC: a, complex64.
        sensing_BLMN: Φ_l, complex64.
    """

    def __init__(self, steering_BNC: Tensor, sensing_BLMN: Tensor) -> None:
        b, l, m, n = sensing_BLMN.shape
        response_BXC = sensing_BLMN.reshape(b, l * m, n) @ steering_BNC
        self.response_BLMC = response_BXC.view(len(response_BXC), l, m, response_BXC.shape[-1])
        self.table_LXC: Tensor | None = None
        if len(self.response_BLMC) == 1:
            d_LMC = self.response_BLMC[0]
            self.table_LXC = torch.cat(list(_table_rows(d_LMC.real, d_LMC.imag)), 1)

    @cached_property
    def parts_LZBC(self) -> Tensor:
        """d by its parts; B is 1 where all scenes share the candidates."""
        d_LMBC = self.response_BLMC.permute(1, 2, 0, 3)
        return torch.cat((d_LMBC.real, d_LMBC.imag), 1)

    def quadratic(self, form_XLB: Tensor) -> Tensor:
        """dᴴ X d, of shape LBC, for a packed Hermitian form X under every code."""
        if self.table_LXC is not None:
            return form_XLB.permute(1, 2, 0) @ self.table_LXC
        d_BLMC = self.response_BLMC
        form_BLMM = unpack_entries(form_XLB, d_BLMC.shape[2]).permute(3, 2, 0, 1)
        turned_BLMC = form_BLMM @ d_BLMC
        products_BLMC = turned_BLMC.real * d_BLMC.real + turned_BLMC.imag * d_BLMC.imag
        return products_BLMC.sum(2).transpose(0, 1)

    def quadratics(self, first_XLB: Tensor, second_XLB: Tensor) -> tuple[Tensor, Tensor]:
        """The quadratic forms of two matrices, each of shape LBC; the caller may change them."""
        return self.quadratic(first_XLB), self.quadratic(second_XLB)

    def packed_covariance(self, power_BC: Tensor) -> Tensor:
        """Σ_c p_c d_lc d_lcᴴ, packed, XLB."""
        if self.table_LXC is not None:
            l, x, c = self.table_LXC.shape
            return (self.table_LXC.view(l * x, c) @ power_BC.T).view(l, x, -1).transpose(0, 1)
        covariance_BLMM = (self.response_BLMC * power_BC[:, None, None, :]) @ self.response_BLMC.mH
        return pack_entries(covariance_BLMM.permute(2, 3, 1, 0))

    def covariance(self, power_BC: Tensor) -> Tensor:
        """Σ_c p_c d_lc d_lcᴴ, of shape BLMM."""
        m = self.response_BLMC.shape[2]
        return unpack_entries(self.packed_covariance(power_BC), m).permute(3, 2, 0, 1)


class NearResponses:
    """Responses to a few candidates of its own for each scene, by a table; for few antennas.

    The scenes are the last axis of the table: rows over them are long, as a processor likes them.

    Args:
        parts_YBC: a, from `candidate_parts`.
        sensing_BLZY: Φ_l, from `sensing_parts`.
    """

    def __init__(self, parts_YBC: Tensor, sensing_BLZY: Tensor) -> None:
        b, l, z, y = sensing_BLZY.shape
        scenes, candidates = parts_YBC.shape[1:]
        if b == 1:
            flat_XC = sensing_BLZY.view(l * z, y) @ parts_YBC.transpose(1, 2).reshape(y, -1)
            d_LZC = flat_XC.view(l, z, -1)
        else:
            d_BXC = sensing_BLZY.view(b, l * z, y) @ parts_YBC.transpose(0, 1)
            d_LZC = d_BXC.view(b, l, z, candidates).permute(1, 2, 3, 0).reshape(l, z, -1)
        self.parts_LZBC = d_LZC.view(l, z, candidates, scenes).transpose(2, 3)
        # The rows stay in small tensors: the caches of a processor hold no table of all.
        self._tables_LXCB = [
            rows_LXC.view(l, -1, candidates, scenes)
            for rows_LXC in _table_rows(d_LZC[:, : z // 2], d_LZC[:, z // 2 :])
        ]

    def quadratics(self, first_XLB: Tensor, second_XLB: Tensor) -> tuple[Tensor, Tensor]:
        """As in `Responses`."""
        rows = [row_LCB for table in self._tables_LXCB for row_LCB in table.unbind(1)]
        sums = []
        for form_XLB in (first_XLB, second_XLB):
            form_XL1B = form_XLB.unsqueeze(2)
            sum_LCB = rows[0] * form_XL1B[0]
            for row_LCB, form_L1B in zip(rows[1:], form_XL1B[1:], strict=True):
                sum_LCB.addcmul_(row_LCB, form_L1B)
            sums.append(sum_LCB.transpose(1, 2))
        return sums[0], sums[1]

    def packed_covariance(self, power_BC: Tensor) -> Tensor:
        """As in `Responses`."""
        power_CB = power_BC.T.contiguous()
        parts = [(table * power_CB).sum(2) for table in self._tables_LXCB]
        return torch.cat(parts, 1).transpose(0, 1)


def near_responses(
    parts_YBC: Tensor, sensing_BLMN: Tensor, sensing_BLZY: Tensor
) -> Responses | NearResponses:
    """Responses to candidates around each scene's own place."""
    if sensing_BLMN.shape[2] <= _MOST_ANTENNAS:
        return NearResponses(parts_YBC, sensing_BLZY)
    return Responses(steering_of(parts_YBC), sensing_BLMN)


def _table_rows(real_MC: Tensor, imag_MC: Tensor) -> Iterator[Tensor]:
    """Rows of d dᴴ in packed form, (…, rows, C), from the parts of d, (…, M, C).

    They are those of `pack_entries`: powers, then √2 times the real and then the imaginary parts of
    products with the antennas before.
    """
    yield (real_MC * real_MC).addcmul_(imag_MC, imag_MC)
    twice_MC = sqrt(2) * real_MC, sqrt(2) * imag_MC
    for is_real in (True, False):
        for i in range(1, real_MC.shape[-2]):
            re, im = (part_MC[..., i : i + 1, :] for part_MC in twice_MC)
            before_re, before_im = real_MC[..., :i, :], imag_MC[..., :i, :]
            if is_real:
                yield (re * before_re).addcmul_(im, before_im)
            else:
                yield (im * before_re).addcmul_(re, before_im, value=-1)
