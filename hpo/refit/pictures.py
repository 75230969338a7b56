"""A drawing as a PNG, by matplotlib.

Border: what is drawn is the caller's; no display is needed, and no global state of matplotlib's.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any


def png(draw: Callable[[Any], None], size_in: tuple[float, float], *, dpi: int) -> bytes:
    """A figure of this size, in inches, as a PNG.

    Args:
        draw: Draws into a figure of matplotlib's that is empty.
    """
    # Half a second, and needed at a command's end alone.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size_in, layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi)
    return content.getvalue()
