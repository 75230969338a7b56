"""The learning curves of a training as a PNG: metric and loss over epochs, one line per seed.

Border: figures in, bytes out; `pictures` turns a drawing into a PNG.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hpo.refit import pictures

# 10 × 4 inches at 120 dots per inch are 1200 × 480 pixels, which a README shows legibly.
_SIZE_IN = (10.0, 4.0)
_DPI = 120


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One seed's figures by epoch; a confirmation in fp32 is dashed."""

    label: str
    epochs: Sequence[int]
    metric: Sequence[float]
    loss: Sequence[float]
    is_confirmation: bool = False


def picture(curves: Sequence[Curve], *, metric: str, title: str) -> bytes:
    """Draw the curves as a PNG."""

    def draw(figure: Any) -> None:
        _draw(figure, curves, metric=metric, title=title)

    return pictures.png(draw, _SIZE_IN, dpi=_DPI)


def _draw(figure: Any, curves: Sequence[Curve], *, metric: str, title: str) -> None:
    left, right = figure.subplots(1, 2)
    for curve in curves:
        style = {"linestyle": "--", "color": "black"} if curve.is_confirmation else {}
        left.plot(curve.epochs, curve.metric, label=curve.label, linewidth=1.2, **style)
        right.plot(curve.epochs, curve.loss, label=curve.label, linewidth=1.2, **style)
    left.set_title(f"validation: {metric}")
    right.set_title("training loss, mean of each epoch")
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    if curves:
        left.legend(fontsize="small")
    figure.suptitle(title, fontsize="medium")
