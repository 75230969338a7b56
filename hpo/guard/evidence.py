"""What is known of a divergence, as plain data and as a clause of a sentence.

Border: computes nothing; `forensics` finds it, `records` keeps it, `display` shows it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from hpo.errors import HpoError

Direction = Literal["forward", "backward", "weights", "batch", "validation"]


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """What a decomposition was given, looked at in float64: eigenvalues of what `eigh` took, the
    singular values of any other matrix.

    Attributes:
        shape: Rows and columns of a matrix.
        matrices: How many there were; the first 16 were looked at.
        condition: The largest ratio of the largest to the smallest, in magnitude.
        smallest_gap: The smallest difference of neighbours, as a part of the largest.
        ties: Neighbours nearer than the dtype resolves, in the matrix that has most of them.
    """

    operation: str
    where: str
    shape: Sequence[int]
    matrices: int
    condition: float
    smallest_gap: float
    ties: int


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One replay of the batch in one precision.

    Attributes:
        terms: Weighted value of each loss term.
        grad_norms: Of each term's gradient, by parameter group.
        error: What it ended with, if it could not be finished.
    """

    terms: Mapping[str, float] = field(default_factory=dict)
    grad_norms: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    error: str | None = None

    @property
    def is_finite(self) -> bool:
        """Whether it was finished with finite terms and gradients."""
        norms = [norm for of_term in self.grad_norms.values() for norm in of_term.values()]
        return self.error is None and all(map(math.isfinite, (*self.terms.values(), *norms)))


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of a divergence.

    Attributes:
        term: The loss term that is not finite or whose gradient is not; None where it is no one
            term's doing, or where the loss raised before it was known.
        kind: 'NaN' or 'infinite'.
        direction: Where the first non-finite tensor is: made in the forward (or loss), in the
            backward, or in validation; or handed in, as a weight or as a part of the batch.
        parameter: The first parameter, in the order of the groups, whose gradient is not finite,
            or that is not finite itself (a buffer too).
        parameters: All of them.
        handed_in: The weight, or the part of the batch, that was not finite to begin with.
        operation: The torch function that made the first non-finite tensor.
        where: Its line in the objective's code or in what that calls.
        module: The module it ran in.
        passes: By precision: fp32, fp64, and the one trained in.
        spectra: Of the matrices that were decomposed or solved with.
        scales: (step, loss scale, steps withheld by then) at the guard's last reads.
        advice: What would mend it, where that is known.
    """

    term: str | None = None
    kind: str | None = None
    direction: Direction | None = None
    parameter: str | None = None
    parameters: Sequence[str] = ()
    handed_in: str | None = None
    operation: str | None = None
    where: str | None = None
    module: str | None = None
    passes: Mapping[str, Pass] = field(default_factory=dict)
    spectra: Sequence[Spectrum] = ()
    scales: Sequence[tuple[int, float, int]] = ()
    advice: str | None = None

    def flat(self) -> dict[str, Any]:
        """As plain data for JSON, which has no NaN: such a value is its name."""
        found: dict[str, Any] = _as_json(asdict(self))
        return found

    def clause(self) -> str:
        """What is not finite and where that began, in words."""
        kind = self.kind or "not finite"
        if self.direction == "backward":
            more = len(self.parameters) - 1
            others = f" and {more} more" if more > 0 else ""
            whose = f"'{self.term}'" if self.term else "the sum of the terms"
            where = f" in '{self.parameter}'{others}" if self.parameter else ""
            return f"gradient of {whose} is {kind}{where}{self.origin()}"
        what = f"loss term '{self.term}'" if self.term else "the loss"
        return f"{what} is {kind}{self.origin()}"

    def origin(self) -> str:
        """Where it began, as the end of a clause; empty where that is unknown."""
        if self.handed_in is not None:
            if self.direction == "batch":
                return f", as '{self.handed_in}' of the batch is"
            return f", as the weight '{self.handed_in}' is"
        if self.operation is None:
            return ""
        backward = "the backward of " if self.direction == "backward" else ""
        module = f" in '{self.module}'" if self.module else ""
        where = f" at {self.where}" if self.where else ""
        return f", first in {backward}{self.operation}{module}{where}"


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


class Divergence(HpoError):
    """The guard's verdict on a trial that is not worth going on with.

    Attributes:
        reason: One of the `prune_reason` values, for example `grad_nonfinite`.
        detail: One sentence that names the term, the parameter, the step and the scale.
        evidence: What is known of it.
        saved: The step that shows it, as `saved.pack` gives it; None where none does.
        skipped: Steps that had been withheld from the weights by then.
        seconds: What the trial had taken by then, over interruptions.
    """

    def __init__(
        self,
        reason: str,
        detail: str,
        *,
        evidence: Evidence,
        saved: Mapping[str, Any] | None = None,
        skipped: int = 0,
        seconds: float = 0.0,
    ) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.evidence = evidence
        self.saved = saved
        self.skipped = skipped
        self.seconds = seconds
