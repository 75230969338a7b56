"""Evidence on a divergence, as plain data and as a clause of a sentence.

Border: computes nothing; `forensics` collects it, `database.records` stores it, `display` shows it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from hpo.errors import HpoError
from hpo.files import finite

Direction = Literal["forward", "backward", "weights", "batch", "validation"]


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """Spectrum of a decomposition's input, computed in float64.

    The values are the eigenvalues for `eigh`, the singular values for any other operation.

    Attributes:
        shape: Rows and columns of a matrix.
        matrices: Number of matrices; the first 16 were analysed.
        condition: The largest ratio of the largest to the smallest value, in magnitude.
        smallest_gap: The smallest difference of neighbours, as a fraction of the largest value.
        ties: Neighbours closer than the dtype resolves, in the matrix with the most of them.
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
        grad_norms: Gradient norms of each term, by parameter group.
        error: The error that kept the replay from finishing, if any.
    """

    terms: Mapping[str, float] = field(default_factory=dict)
    grad_norms: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    error: str | None = None

    @property
    def is_finite(self) -> bool:
        """True if the replay finished with finite terms and gradients."""
        norms = [norm for of_term in self.grad_norms.values() for norm in of_term.values()]
        return self.error is None and all(map(math.isfinite, (*self.terms.values(), *norms)))


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Evidence on a divergence.

    Attributes:
        term: The loss term that is not finite or has a non-finite gradient. None if no single term
            is the cause, or if the loss raised before the term was known.
        kind: 'NaN' or 'infinite'.
        direction: Origin of the first non-finite tensor: computed in the forward (or loss), the
            backward or validation, or passed in as a weight or as a part of the batch.
        parameter: The first parameter, in the order of the groups, whose gradient is not finite,
            or the first parameter or buffer that is not finite itself.
        parameters: All such parameters.
        handed_in: The weight, or the part of the batch, that was not finite from the start.
        operation: The torch function that made the first non-finite tensor.
        where: Source line of the operation, in the objective's code or in code that it calls.
        module: The module in which the operation ran.
        passes: Replays by precision: fp32, fp64 and the training precision.
        spectra: Spectra of the matrices that were decomposed or used in a solve.
        scales: (step, loss scale, steps withheld so far) at the guard's last reads.
        advice: The remedy, if one is known.
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
        """Plain data for JSON; non-finite numbers become strings, as JSON has no NaN."""
        found: dict[str, Any] = finite(asdict(self), names=True)
        return found

    def clause(self) -> str:
        """Clause that names what is not finite and where it began."""
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
        """End of a clause that names where it began; empty if unknown."""
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


class Divergence(HpoError):
    """The guard's verdict that a trial is to be pruned.

    Attributes:
        reason: One of the `prune_reason` values, for example `grad_nonfinite`.
        detail: One sentence that names the term, the parameter, the step and the scale.
        evidence: The evidence that was collected.
        saved: The step that reproduces it, as `saved_step.pack` returns it; None without one.
        skipped: Steps withheld from the weights so far.
        seconds: Wall time of the trial so far, summed over interruptions.
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
