"""State of the network between visits: the scene, and each slot's scores and belief.

Shapes: B scenes (or 1 where all share it); L codes; M antennas; N elements; C candidates, the cells
of the grid and then those of the zoom; W width of a token; S numbers of a visit's summary; Y and Z
as in `estimators.responses`; 3 = a position as in `estimators.posterior`.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from models.linalg.entries import inverse_entries, product_entries, unpack_entries
from models.ris.estimators.posterior import with_noise
from models.ris.estimators.responses import (
    NearResponses,
    Responses,
    sensing_parts,
)


@dataclass(frozen=True)
class Sensed:
    """The grid as the base station sees it: constants of one wall, or of one a scene."""

    channel_BMN: Tensor
    codes_BLN: Tensor
    sensing_BLMN: Tensor
    sensing_BLZY: Tensor
    grid: Responses

    @classmethod
    def through(cls, channel_BMN: Tensor, codes_BLN: Tensor, steering_BNG: Tensor) -> "Sensed":
        """Constants of a grid's steering vectors behind a wall, with copies of the wall's."""
        scale = codes_BLN.shape[-1] ** -0.5
        sensing_BLMN = channel_BMN.unsqueeze(1) * codes_BLN.unsqueeze(2) * scale
        return cls(
            channel_BMN.clone(),
            codes_BLN.clone(),
            sensing_BLMN,
            sensing_parts(sensing_BLMN),
            Responses(steering_BNG, sensing_BLMN),
        )

    def is_through(self, channel_BMN: Tensor, codes_BLN: Tensor) -> bool:
        """Whether these constants are those of a wall, compared number by number."""
        pairs = ((self.channel_BMN, channel_BMN), (self.codes_BLN, codes_BLN))
        return all(
            kept.dtype == given.dtype and kept.device == given.device and torch.equal(kept, given)
            for kept, given in pairs
        )


class Walls:
    """The constants of the last wall that all scenes shared, for the next call.

    They are kept on the CPU alone: elsewhere the comparison would wait for the device.
    """

    def __init__(self) -> None:
        self._kept: Sensed | None = None

    def sensed(self, channel_BMN: Tensor, codes_BLN: Tensor, steering_BNG: Tensor) -> Sensed:
        """Constants of a wall or walls for the grid of a network."""
        if self._kept is not None and self._kept.is_through(channel_BMN, codes_BLN):
            return self._kept
        sensed = Sensed.through(channel_BMN, codes_BLN, steering_BNG)
        is_one = len(codes_BLN) == len(channel_BMN) == 1
        # A tensor of inference mode could enter no graph later.
        is_lasting = codes_BLN.device.type == "cpu" and not torch.is_inference_mode_enabled()
        self._kept = sensed if is_one and is_lasting else None
        return sensed


@dataclass(frozen=True)
class Scene:
    """Inputs of the network, and the responses to the whole grid under their codes."""

    sample_BLMM: Tensor
    sample_MMLB: Tensor
    sensed: Sensed

    @property
    def sensing_BLMN(self) -> Tensor:
        return self.sensed.sensing_BLMN

    @property
    def grid(self) -> Responses:
        return self.sensed.grid


@dataclass(frozen=True)
class Scores:
    """Scores of every candidate in a visit; constants for the gradient."""

    gain_BC: Tensor  # in nats relative to the best, lowered for the zoom's smaller cells
    power_BC: Tensor
    best_B3: Tensor
    summary_BS: Tensor
    near_YBC: Tensor | None  # steering vectors of the zoom by their parts; None without a zoom
    near: Responses | NearResponses | None


@dataclass(frozen=True)
class Belief:
    """A slot's belief: the power at each candidate, and its covariance under each code."""

    scores: Scores
    weights_BC: Tensor  # carries the gradient
    response_XLB: Tensor  # packed; is a constant for the gradient


@dataclass
class Slot:
    """One hypothetical source."""

    token_BW: Tensor
    belief: Belief | None = None


class Forms(NamedTuple):
    """All else than a slot's source, and the forms that score one more: R, R⁻¹ and R⁻¹ S R⁻¹."""

    rest_XLB: Tensor
    inverse_MMLB: Tensor
    seen_MMLB: Tensor


def forms(scene: Scene, others: Sequence[Slot], log_noise_B: Tensor) -> Forms:
    """Forms of noise and of the other slots."""
    antennas = len(scene.sample_MMLB)
    rest_XLB = with_noise(response(scene, others), log_noise_B, antennas=antennas)
    if any(other.belief is not None for other in others):
        inverse_MMLB = inverse_entries(unpack_entries(rest_XLB, antennas))
        seen_MMLB = product_entries(inverse_MMLB, scene.sample_MMLB)
        return Forms(rest_XLB, inverse_MMLB, product_entries(seen_MMLB, inverse_MMLB))
    # There is noise alone, σ² I.
    inverse_XLB = rest_XLB.clone()
    inverse_XLB[:antennas].reciprocal_()
    seen_MMLB = scene.sample_MMLB * inverse_XLB[0].square()
    return Forms(rest_XLB, unpack_entries(inverse_XLB, antennas), seen_MMLB)


def response(scene: Scene, slots: Sequence[Slot]) -> Tensor:
    """Covariance under every code of all slots that were visited, packed, XLB."""
    found = [slot.belief.response_XLB for slot in slots if slot.belief is not None]
    if not found:
        _, m, codes, scenes = scene.sample_MMLB.shape
        return scene.sample_MMLB.real.new_zeros(m * m, codes, scenes)
    total_XLB = found[0]
    for response_XLB in found[1:]:
        total_XLB = total_XLB + response_XLB
    return total_XLB


def full_precision(tensor: Tensor) -> AbstractContextManager[object]:
    """Context without autocast on a tensor's device."""
    # Without autocast there is nothing to leave.
    if not torch.is_autocast_enabled(tensor.device.type):
        return nullcontext()
    return torch.autocast(tensor.device.type, enabled=False)
