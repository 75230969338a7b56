"""Factor of a covariance that is a weighted sum over candidate sources, R = Σ w a aᴴ.

Shapes: B scenes (or 1 where all scenes share it); N elements; C candidates; R columns of the
factor; Y the parts of N elements as in `responses`; Q = 2R, the real and then the imaginary parts
of R columns.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.linalg.gram import nystrom_factor
from models.ris.estimators.responses import parts_of


def weighted_factor(sets: Sequence[tuple[Tensor, Tensor]], start_BNR: Tensor) -> Tensor:
    """Factor F_BNR of R = Σ w a aᴴ in its dominant directions.

    Args:
        sets: Pairs of steering vectors, BNC (B is 1 where all scenes share them), and weights, BC.
        start_BNR: One column for each wanted direction: see `nystrom_factor`.
    """
    parts = [(parts_of(steering_BNC), weights_BC) for steering_BNC, weights_BC in sets]
    return factor_of_parts(parts, start_BNR)


def factor_of_parts(sets: Sequence[tuple[Tensor, Tensor]], start_BNR: Tensor) -> Tensor:
    """`weighted_factor` of steering vectors given by their parts, (Y, B, C).

    Real products of stacked parts cost half of the complex ones, whose conjugates are copies.
    """
    # Candidates of the scenes' own make one set, as small products cost as much as larger ones.
    alone = [(parts_YBC.transpose(0, 1), w_BC) for parts_YBC, w_BC in sets]
    joined = [(parts_BYC, w_BC) for parts_BYC, w_BC in alone if len(parts_BYC) == 1]
    own = [(parts_BYC, w_BC) for parts_BYC, w_BC in alone if len(parts_BYC) > 1]
    if own:
        parts, weights = zip(*own, strict=True)
        joined.append((torch.cat(parts, -1), torch.cat(weights, -1)))

    def apply(columns_BNR: Tensor) -> Tensor:
        rows_BQY = _rows(columns_BNR)
        images = [_image(parts_BYC, weights_BC, rows_BQY) for parts_BYC, weights_BC in joined]
        image_BQY = images[0]
        for image in images[1:]:
            image_BQY = image_BQY + image
        return _columns(image_BQY)

    return nystrom_factor(apply, start_BNR)


def _image(parts_BYC: Tensor, weights_BC: Tensor, rows_BQY: Tensor) -> Tensor:
    """Four products of the parts of a with those of w aᴴ x, see `_columns`, (B, Q, Y)."""
    if len(parts_BYC) == 1:
        parts_YC = parts_BYC[0]
        return ((rows_BQY @ parts_YC) * weights_BC.unsqueeze(1)) @ parts_YC.T
    return ((rows_BQY @ parts_BYC) * weights_BC.unsqueeze(1)) @ parts_BYC.mT


def _rows(columns_BNR: Tensor) -> Tensor:
    """Rows whose products with the parts of a are the real, then the imaginary part of aᴴ x."""
    real, imag = columns_BNR.real.mT, columns_BNR.imag.mT
    return torch.cat((torch.cat((real, imag), -1), torch.cat((imag, -real), -1)), 1)


def _columns(image_BQY: Tensor) -> Tensor:
    """Complex a y from the products of both parts of a with both parts of y, (B, N, R)."""
    (real_real, imag_real), (real_imag, imag_imag) = (
        half.chunk(2, -1) for half in image_BQY.chunk(2, 1)
    )
    return torch.complex(real_real - imag_imag, real_imag + imag_real).mT
