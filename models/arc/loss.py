"""Terms of the grid solver's loss, an expected free energy, and accuracies of its answers.

Expected free energy is risk plus ambiguity ([1], eq. 6): the divergence of expected outcomes from
the preferred one, here the target, and the uncertainty of outcomes.

Shapes: X queries, V = 10 colours, S side of the canvas, 2 = rows, columns.

References:
    [1] T. Parr and K. J. Friston, "Generalised free energy and active inference," Biol. Cybern.,
    vol. 113, pp. 495-513, 2019.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from models.arc.encoding import PAD
from models.arc.prompt_net import Answer


def risk(answer: Answer, target_XSS: Tensor) -> Tensor:
    """Cross-entropy of the cells of the target, wrong ones weighted double.

    Σ w · −log q(target) / Σ w,   w = 0.5 + 0.5 · wrong

    As the target is certain, this is the divergence of the answer from it. A scalar, in nats.
    """
    is_cell_XSS = target_XSS != PAD
    surprise_XSS = functional.cross_entropy(
        answer.cells_XVSS, target_XSS.where(is_cell_XSS, 0), reduction="none"
    )
    is_wrong_XSS = answer.colours() != target_XSS
    weight_XSS = (0.5 + 0.5 * is_wrong_XSS) * is_cell_XSS
    return (weight_XSS * surprise_XSS).sum() / weight_XSS.sum()


def ambiguity(answer: Answer, target_XSS: Tensor) -> Tensor:
    """Entropy of the cells' colours, a mean over the cells of the target; a scalar, in nats."""
    is_cell_XSS = target_XSS != PAD
    log_q_XVSS = answer.cells_XVSS.log_softmax(1)
    entropy_XSS = -(log_q_XVSS.exp() * log_q_XVSS).sum(1)
    return (entropy_XSS * is_cell_XSS).sum() / is_cell_XSS.sum()


def size_surprise(answer: Answer, size_X2: Tensor) -> Tensor:
    """Cross-entropy of the numbers of rows and columns; a scalar, in nats."""
    return functional.cross_entropy(answer.size_X2S.flatten(0, 1), (size_X2 - 1).flatten())


def wrong_share(answer: Answer, target_XSS: Tensor) -> Tensor:
    """Share of the target's cells whose colour is wrong; a scalar."""
    is_cell_XSS = target_XSS != PAD
    is_wrong_XSS = (answer.colours() != target_XSS) & is_cell_XSS
    return is_wrong_XSS.sum() / is_cell_XSS.sum()


def changed_cells(input_XSS: Tensor, target_XSS: Tensor) -> Tensor:
    """Mask of the target's cells that differ from the input or lie beyond it; (X, S, S), bool."""
    return (target_XSS != PAD) & (target_XSS != input_XSS)


def changed_accuracy(guess_XSS: Tensor, input_XSS: Tensor, target_XSS: Tensor) -> Tensor:
    """Share of each query's changed cells that a guess has right, (X,); 0 where none changed.

    Copying the input scores 0 by definition.
    """
    is_changed_XSS = changed_cells(input_XSS, target_XSS)
    right_X = ((guess_XSS == target_XSS) & is_changed_XSS).sum((1, 2))
    return right_X / is_changed_XSS.sum((1, 2)).clamp_min(1)


def cell_accuracy(guess_XSS: Tensor, target_XSS: Tensor) -> Tensor:
    """Share of the cells covered by guess or target that agree, (X,)."""
    is_covered_XSS = (guess_XSS != PAD) | (target_XSS != PAD)
    right_X = ((guess_XSS == target_XSS) & is_covered_XSS).sum((1, 2))
    return right_X / is_covered_XSS.sum((1, 2))


def is_solved(guess_XSS: Tensor, target_XSS: Tensor) -> Tensor:
    """True where every cell and the size are right, (X,), bool."""
    return torch.eq(guess_XSS, target_XSS).all(2).all(1)
