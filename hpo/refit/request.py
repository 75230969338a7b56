"""A requested training: the values of `train`'s flags that determine it.

Border: checks each value alone; `recipe` resolves them with a study or a configuration's file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hpo.errors import ConfigurationError
from hpo.task.forward import PRECISIONS


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """A requested training; None leaves a choice to the study or the configuration's file.

    Attributes:
        objective: Location of the objective here; for a file without settings, its name.
        size: Size of the problem.
        space: Search space of a configuration that comes without settings.
        options: Values of the objective's own options that replace the study's.
        epochs: Epochs of each seed.
        seeds: Number of seeds.
        precision: `auto` for the precision that the configuration was studied in.
        ema_decay: Decay of the averaged weights; 0 for none.
    """

    objective: str | None = None
    size: str | None = None
    space: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    epochs: int = 100
    seeds: int = 3
    precision: str = "auto"
    ema_decay: float = 0.999

    def __post_init__(self) -> None:
        for name in ("epochs", "seeds"):
            value = getattr(self, name)
            if not (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
                raise ConfigurationError(
                    f"{name} {value!r} is no whole number of at least 1 (--{name})"
                )
        if not (isinstance(self.ema_decay, int | float) and 0 <= self.ema_decay < 1):
            raise ConfigurationError(
                f"a decay of {self.ema_decay!r} is not within [0, 1); 0 trains without averaged "
                "weights (--ema)"
            )
        if self.precision not in ("auto", *PRECISIONS):
            raise ConfigurationError(
                f"precision {self.precision!r} is none of auto, {', '.join(PRECISIONS)}"
            )
