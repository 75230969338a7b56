"""The two streams: results on stdout, everything else on stderr."""

from __future__ import annotations

from rich.console import Console

errors = Console(stderr=True, highlight=False, soft_wrap=True)
results = Console(highlight=False, soft_wrap=True)
if not results.is_terminal:
    # A table in a file or a pipe is not to be cut to the 80 columns of no terminal.
    results = Console(highlight=False, soft_wrap=True, width=240)
