"""The networks of the prompt-conditioned grid solver: prompt writer, policy, agent.

A language model reads the demonstrations, and a projection of its states is the prompt. A policy
refines the prompt. An agent of convolutions, conditioned on it, rewrites the query's grid step by
step and predicts the size of the result.

Shapes: B tasks, X queries, T symbols, P prompt, C channels, S side of the canvas, V = 11 contents
of a cell (10 colours, padding), 2 = rows, columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log, pi
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.arc.encoding import PAD, inside
from models.arc.tasks import COLOURS

# A copied colour has this logit and the nine others 0: a probability of .86.
_COPY_LOGIT = 4.0
_CONTENTS = COLOURS + 1
# The policy's standard deviation lies between e^-4, which bounds the log-probability, and 1, where
# noise is as strong as the prompt. It starts at 0.1 of the prompt's: enough to affect the agent.
_SPREAD = 4.0
_FIRST_DEVIATION = 0.1


class PromptWriter(nn.Module):
    """Prompt from the demonstrations: a language model, the mean of its states, a projection."""

    def __init__(self, model: nn.Module, token_ids: Sequence[int], *, prompt: int) -> None:
        super().__init__()
        self.language_model = model
        width = int(model.config.hidden_size)  # type: ignore[union-attr, arg-type]
        self.projection = nn.Linear(width, prompt)
        self.register_buffer("_ids", torch.tensor(token_ids), persistent=False)

    def forward(self, symbols_BT: Tensor) -> Tensor:
        """Return the prompt, (B, P), of zero mean and unit variance over P."""
        ids: Tensor = self.get_buffer("_ids")
        states_BTC = self.language_model(input_ids=ids[symbols_BT]).last_hidden_state
        return _normalised(self.projection(_single(states_BTC).mean(1)))


class FeatureWriter(nn.Module):
    """Prompt without a language model: counts of which content became which, and a projection."""

    def __init__(self, *, prompt: int) -> None:
        super().__init__()
        self.projection = nn.Linear(_CONTENTS**2, prompt)

    def forward(self, symbols_BT: Tensor) -> Tensor:
        """Return the prompt, (B, P), of zero mean and unit variance over P."""
        # An input cell stands before its output cell; separators stand between demonstrations.
        is_pair_BT = (symbols_BT[:, :-1] < _CONTENTS) & (symbols_BT[:, 1:] < 2 * _CONTENTS)
        pairs_BT = symbols_BT[:, :-1] * _CONTENTS + symbols_BT[:, 1:] - _CONTENTS
        counts_BF = torch.zeros(len(symbols_BT), _CONTENTS**2, device=symbols_BT.device)
        counts_BF.scatter_add_(1, pairs_BT.where(is_pair_BT, 0), is_pair_BT.float())
        share_BF = counts_BF / is_pair_BT.sum(-1, keepdim=True)
        return _normalised(self.projection(share_BF.sqrt()))


class Action(NamedTuple):
    """Action of the policy on prompts.

    Attributes:
        refined_BP: The prompts to use.
        log_prob_B: Log-probability of the action, a mean over P, fp32.
        value_B: Expected reward, fp32.
    """

    refined_BP: Tensor
    log_prob_B: Tensor
    value_B: Tensor


class Policy(nn.Module):
    """Policy of Gaussian steps in the space of prompts, with an estimate of the reward."""

    def __init__(self, *, prompt: int, width: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(prompt, width), nn.GELU())
        self.mean = nn.Linear(width, prompt)
        self.value = nn.Linear(width, 1)
        share = -log(_FIRST_DEVIATION) / _SPREAD
        self.narrowness = nn.Parameter(torch.full((prompt,), log(share / (1 - share))))
        nn.init.zeros_(self.mean.weight)
        nn.init.zeros_(self.mean.bias)

    def forward(self, prompt_BP: Tensor) -> Action:
        """Refine prompts: by a draw in training, by the mean in evaluation."""
        hidden_BC = self.trunk(prompt_BP)
        mean_BP = _single(self.mean(hidden_BC))
        log_deviation_P = -_SPREAD * self.narrowness.sigmoid()
        noise_BP = torch.randn_like(mean_BP) if self.training else torch.zeros_like(mean_BP)
        # As in policy gradients the step is a constant, and only its probability has a gradient.
        step_BP = (mean_BP + noise_BP * log_deviation_P.exp()).detach()
        z_BP = (step_BP - mean_BP) * (-log_deviation_P).exp()
        log_prob_BP = -0.5 * (z_BP.square() + log(2 * pi)) - log_deviation_P
        value_B = _single(self.value(hidden_BC)).squeeze(-1)
        return Action(prompt_BP + step_BP, log_prob_BP.mean(-1), value_B)


class Answer(NamedTuple):
    """Answers of the agent to queries.

    Attributes:
        cells_XVSS: Logits of each cell's colour, V = 10.
        size_X2S: Logits of the numbers of rows and columns, 1…S.
    """

    cells_XVSS: Tensor
    size_X2S: Tensor

    def size(self) -> Tensor:
        """Return the likeliest size, (X, 2)."""
        return self.size_X2S.argmax(-1) + 1

    def colours(self) -> Tensor:
        """Return the likeliest colour of every cell of the canvas, (X, S, S)."""
        return self.cells_XVSS.argmax(1)

    def grid(self) -> Tensor:
        """Return the likeliest colours within the likeliest size, on the canvas, (X, S, S)."""
        colours_XSS = self.colours()
        return colours_XSS.where(inside(self.size(), colours_XSS.shape[-1]), PAD)


class Agent(nn.Module):
    """Convolutions that rewrite a grid step by step, conditioned on the prompt.

    They see the grid in its eight orientations, and each cell's distance from the four edges. After
    each step the written logits are mixed with a copy of the input:

    logits = g · (written + M one-hot(input)) + (1 − g) · copy,   g = floor + (1 − floor) σ(mask)

    M, a map of colours, is a function of the prompt. The floor keeps a gradient on `written`.
    """

    def __init__(self, *, canvas: int, prompt: int, channels: int, mask_floor: float) -> None:
        super().__init__()
        self._canvas, self._mask_floor = canvas, mask_floor
        self.look = nn.Conv2d(8 * _CONTENTS + 4, channels, 1)
        self.first = nn.Conv2d(channels + COLOURS, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.condition = nn.Linear(prompt, 4 * channels)
        self.colour_map = nn.Linear(prompt, COLOURS * _CONTENTS)
        self.write = nn.Conv2d(channels, 1 + COLOURS, 1)
        self.size = nn.Sequential(
            nn.Linear(prompt + 2 * canvas, 2 * channels),
            nn.GELU(),
            nn.Linear(2 * channels, 2 * canvas),
        )

    def forward(
        self, input_XSS: Tensor, input_size_X2: Tensor, prompt_XP: Tensor, *, steps: int
    ) -> Answer:
        """Return the answer after some refinement steps.

        Args:
            input_XSS: Colours, int64, `PAD` beyond the grid.
            input_size_X2: Rows and columns of the input; those of the result are not given.
            prompt_XP: Prompt of each query.
            steps: Number of refinement steps, at least 1.
        """
        seen_XVSS = functional.one_hot(input_XSS, _CONTENTS).movedim(-1, 1).to(prompt_XP.dtype)
        hidden_XCSS = self.look(
            torch.cat(
                (*_orientations(seen_XVSS, input_size_X2), _edges(seen_XVSS, input_size_X2)), 1
            )
        )
        scale_1, shift_1, scale_2, shift_2 = self.condition(prompt_XP)[..., None, None].chunk(4, 1)
        map_XVV = self.colour_map(prompt_XP).unflatten(1, (COLOURS, _CONTENTS))
        mapped_XVSS = torch.einsum("xov,xvrc->xorc", map_XVV, seen_XVSS)
        copied_XVSS = _COPY_LOGIT * seen_XVSS[:, :COLOURS]
        cells_XVSS = copied_XVSS
        for _ in range(steps):
            given_XCSS = torch.cat((hidden_XCSS, cells_XVSS.softmax(1)), 1)
            inner_XCSS = functional.gelu(self.first(given_XCSS) * (1 + scale_1) + shift_1)
            hidden_XCSS = hidden_XCSS + functional.gelu(
                self.second(inner_XCSS) * (1 + scale_2) + shift_2
            )
            mask_X1SS, written_XVSS = self.write(hidden_XCSS).split((1, COLOURS), 1)
            gate_X1SS = self._mask_floor + (1 - self._mask_floor) * mask_X1SS.sigmoid()
            cells_XVSS = gate_X1SS * (written_XVSS + mapped_XVSS) + (1 - gate_X1SS) * copied_XVSS
        sizes_XC = (
            functional.one_hot(input_size_X2 - 1, self._canvas).flatten(1).to(prompt_XP.dtype)
        )
        size_XC = self.size(torch.cat((prompt_XP, sizes_XC), 1))
        return Answer(cells_XVSS, size_XC.unflatten(1, (2, self._canvas)))


def _normalised(prompt_BP: Tensor) -> Tensor:
    return functional.layer_norm(_single(prompt_BP), prompt_BP.shape[-1:])


def _single(tensor: Tensor) -> Tensor:
    """Cast to float32 or wider, as means and probabilities must not be taken in half precision."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _orientations(seen_XVSS: Tensor, size_X2: Tensor) -> list[Tensor]:
    """The eight orientations of a grid, each in the upper left corner."""
    found = []
    for image, axes in ((seen_XVSS, (0, 1)), (seen_XVSS.mT, (1, 0))):
        rows_X, columns_X = size_X2[:, axes[0]], size_X2[:, axes[1]]
        for upright in (image, _flipped(image, rows_X, dim=2)):
            found += [upright, _flipped(upright, columns_X, dim=3)]
    return found


def _flipped(image_XVSS: Tensor, length_X: Tensor, *, dim: int) -> Tensor:
    """Reverse the first `length` rows (dim 2) or columns (dim 3); the rest stays padding."""
    side = image_XVSS.shape[-1]
    at_S = torch.arange(side, device=image_XVSS.device)
    # Beyond the length the index wraps around to padding.
    from_XS = (length_X[:, None] - 1 - at_S) % side
    index = from_XS[:, None, :, None] if dim == 2 else from_XS[:, None, None, :]
    return image_XVSS.gather(dim, index.expand_as(image_XVSS))


def _edges(seen_XVSS: Tensor, size_X2: Tensor) -> Tensor:
    """Distance of each cell from the four edges of its grid, as a share of the canvas."""
    side = seen_XVSS.shape[-1]
    at_S = torch.arange(side, device=seen_XVSS.device)
    near_XS = at_S.expand(len(seen_XVSS), side)
    distances = []
    for axis, dims in ((0, (slice(None), None, slice(None), None)), (1, (slice(None), None, None))):
        far_XS = size_X2[:, axis, None] - 1 - at_S
        distances += [d_XS[dims].expand(-1, 1, side, side) for d_XS in (near_XS, far_XS)]
    return torch.cat(distances, 1).to(seen_XVSS.dtype) / side
