"""Settings of the predictions that a trial keeps, as flags and programs give them.

Border: how many and how often; `predictions` makes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hpo.errors import ConfigurationError

DEFAULT_SAMPLES = 8
_MOST_SAMPLES = 100


@dataclass(frozen=True, kw_only=True)
class Recording:
    """Number and frequency of the predictions that a trial keeps.

    Attributes:
        samples: Number of samples, 0 to 100; 0 for none.
        every: Steps from one record to the next; None for once an epoch.
    """

    samples: int = DEFAULT_SAMPLES
    every: int | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.samples, int) and 0 <= self.samples <= _MOST_SAMPLES):
            raise ConfigurationError(
                f"{self.samples!r} predictions cannot be kept; write a number up to "
                f"{_MOST_SAMPLES}, or 'off' (--predictions)"
            )
        if self.every is not None and not (isinstance(self.every, int) and self.every >= 1):
            raise ConfigurationError(
                f"predictions every {self.every!r} steps: write 'epoch', or a number above 0 "
                "(--predictions_every)"
            )

    @classmethod
    def of(cls, samples: object, every: object) -> Recording:
        """Parse the flags' values: a number or `off`, and `epoch` or a number."""
        return cls(
            samples=0 if samples == "off" else _number(samples),
            every=None if every == "epoch" else _number(every),
        )

    def flags(self) -> tuple[str, str]:
        """Values of the flags."""
        return str(self.samples or "off"), str(self.every or "epoch")


def _number(value: Any) -> Any:
    """Convert a text of digits to its number; return anything else unchanged."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value
