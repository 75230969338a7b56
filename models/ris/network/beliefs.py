"""State of the network between visits: the scene, and each slot's scores and belief.

Shapes: B scenes (or 1 where all share it); L codes; M antennas; N elements; C candidates, the cells
of the grid and then those of the zoom; W width of a token; S numbers of a visit's summary; 3 = a
position as in `estimators.posterior`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.ris.estimators.posterior import Responses


@dataclass(frozen=True)
class Scene:
    """Inputs of the network, and the responses to the whole grid under their codes."""

    sample_BLMM: Tensor
    sensing_BLMN: Tensor
    grid: Responses


@dataclass(frozen=True)
class Scores:
    """Scores of every candidate in a visit; constants for the gradient."""

    gain_BC: Tensor  # in nats relative to the best, lowered for the zoom's smaller cells
    power_BC: Tensor
    best_B3: Tensor
    summary_BS: Tensor
    near_steering_BNC: Tensor
    near: Responses


@dataclass(frozen=True)
class Belief:
    """A slot's belief: the power at each candidate, and its covariance under each code."""

    scores: Scores
    weights_BC: Tensor  # carries the gradient
    response_BLMM: Tensor  # is a constant for the gradient


@dataclass
class Slot:
    """One hypothetical source."""

    token_BW: Tensor
    belief: Belief | None = None


def response(scene: Scene, slots: Sequence[Slot]) -> Tensor:
    """Covariance under every code of all slots that were visited, BLMM."""
    found = [slot.belief.response_BLMM for slot in slots if slot.belief is not None]
    return torch.stack(found).sum(0) if found else torch.zeros_like(scene.sample_BLMM)
