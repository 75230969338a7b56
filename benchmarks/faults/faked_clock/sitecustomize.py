"""A sleep that works under libfaketime, for every interpreter with this folder on its path.

Its `clock_nanosleep` refuses the absolute times that Python's own sleep passes.
"""

from __future__ import annotations

import select
import time
from typing import SupportsIndex


def _sleep(seconds: float | SupportsIndex, /) -> None:
    select.select([], [], [], float(seconds))


time.sleep = _sleep
