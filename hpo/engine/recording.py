"""Which predictions a trial keeps, as flags and programs say it.

Border: how many and how often; what they are is `predictions`'.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hpo.errors import ConfigurationError

DEFAULT_SAMPLES = 8
_MOST_SAMPLES = 100


@dataclass(frozen=True, kw_only=True)
class Recording:
    """Which predictions a trial keeps.

    Attributes:
        samples: How many, 0 to 100; 0 for none.
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
        """What flags ask for: a number or `off`, and `epoch` or a number."""
        return cls(
            samples=0 if samples == "off" else _number(samples),
            every=None if every == "epoch" else _number(every),
        )

    def flags(self) -> tuple[str, str]:
        """As flags say it."""
        return str(self.samples or "off"), str(self.every or "epoch")


def _number(value: Any) -> Any:
    """A text of digits as the number that it is, anything else as it is."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value
