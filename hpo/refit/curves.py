"""The learning curves of a training as a PNG, as any drawing by matplotlib.

Border: figures or a drawing function in, bytes out; no display and no global state of matplotlib
is needed.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

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
    """Draw the curves as a PNG: metric and loss over epochs, one line per seed."""

    def draw(figure: Any) -> None:
        _draw(figure, curves, metric=metric, title=title)

    return png(draw, _SIZE_IN, dpi=_DPI)


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


def png(draw: Callable[[Any], None], size_in: tuple[float, float], *, dpi: int) -> bytes:
    """Render a figure as a PNG.

    Args:
        draw: Draws into an empty matplotlib figure.
        size_in: Width and height in inches.
        dpi: Pixels per inch.
    """
    # The import takes half a second, and only the end of a command needs it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size_in, layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi)
    return content.getvalue()
