"""The learning curves of a training as a PNG: metric and loss over epochs, a line a seed.

Border: figures in, bytes out; no display is needed, and no global state of matplotlib's is used.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

# Inches at 120 dots each: 1200 × 480 pixels, legible in a README.
_SIZE_IN = (10.0, 4.0)
_DPI = 120


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One run's figures by epoch; `is_beside` for one that is there for comparison."""

    label: str
    epochs: Sequence[int]
    metric: Sequence[float]
    loss: Sequence[float]
    is_beside: bool = False


def picture(curves: Sequence[Curve], *, metric: str, title: str) -> bytes:
    """The curves as a PNG."""
    # Half a second, and needed at a training's end alone.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE_IN, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for curve in curves:
        style = {"linestyle": "--", "color": "black"} if curve.is_beside else {}
        left.plot(curve.epochs, curve.metric, label=curve.label, linewidth=1.2, **style)
        right.plot(curve.epochs, curve.loss, label=curve.label, linewidth=1.2, **style)
    left.set_title(f"validation: {metric}")
    right.set_title("training loss, mean of each epoch")
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    if curves:
        left.legend(fontsize="small")
    figure.suptitle(title, fontsize="medium")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=_DPI)
    return content.getvalue()
