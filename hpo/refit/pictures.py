"""Render a matplotlib drawing as a PNG.

Border: the caller draws; no display and no global state of matplotlib is needed.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any


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
