"""The expected outcome of a planted situation, and random names for its parts."""

from __future__ import annotations

import random
from dataclasses import dataclass

_WORDS = """
acorn amber anchor apron arrow atlas badge bamboo barrel basil beacon birch bishop blossom bramble
bridge bronze bucket cabin candle canyon carbon cedar chalk cherry cider clover comet copper coral
cotton cradle crane crystal dagger daisy delta desert dolphin ember falcon fern fiddle flint fossil
"""


class Words:
    """A random word for every role; `head.weight` becomes two words with a dot."""

    def __init__(self, seed: int) -> None:
        self._free = _WORDS.split()
        random.Random(seed).shuffle(self._free)
        self._word: dict[str, str] = {}

    def __call__(self, role: str) -> str:
        parts = role.split(".")
        for part in parts:
            if part not in self._word:
                self._word[part] = self._free.pop()
        return ".".join(self._word[part] for part in parts)

    def role(self, name: str | None) -> str:
        """The role of a word, with the word in parentheses, for a table."""
        roles = {word: role for role, word in self._word.items()}
        return f"{'.'.join(roles.get(w, w) for w in name.split('.'))} ({name})" if name else "-"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The expected outcome of a situation in one precision; None leaves a field unchecked.

    Attributes:
        reason: The reason of the verdict; None if the trial must not be pruned.
        term, parameter, parameters, module, handed_in: Expected names, by role.
        bad: Least and most steps with a non-finite loss or gradient, which prove that the fault
            is there.
        spikes: Runs of bad steps that ended without a verdict and that no scaler explains.
        within: Most steps from the first bad one to the verdict.
    """

    reason: str | None = None
    term: str | None = None
    kind: str | None = None
    direction: str | None = None
    parameter: str | None = None
    parameters: tuple[str, ...] | None = None
    operation: str | None = None
    module: str | None = None
    handed_in: str | None = None
    bad: tuple[int, int] = (0, 0)
    spikes: int | None = None
    within: int = 16


def lives(least: int = 0, most: int | None = None, *, spikes: int | None = None) -> Outcome:
    """Outcome of a trial that is not pruned, with so many bad steps."""
    return Outcome(bad=(least, least if most is None else most), spikes=spikes)


def loss_fault(kind: str, *, operation: str | None = None, term: str = "plant") -> Outcome:
    """Outcome of a trial pruned for a loss that is not finite in fp32 either."""
    return Outcome(
        reason="loss_nonfinite",
        term=term,
        kind=kind,
        direction="forward",
        operation=operation,
        bad=(1, 16),
    )


def grad_fault(
    operation: str | None,
    *,
    kind: str = "NaN",
    parameters: tuple[str, ...] = ("trunk.weight", "trunk.bias", "head.weight", "head.bias"),
) -> Outcome:
    """Outcome of a trial pruned for a gradient that is not finite in fp32 either.

    By default the gradients of all parameters are not finite.
    """
    return Outcome(
        reason="grad_nonfinite",
        term="plant",
        kind=kind,
        direction="backward",
        parameter=parameters[0],
        parameters=parameters,
        operation=operation,
        bad=(1, 16),
    )
