"""What is expected of a planted situation, and the words that its parts are called by."""

from __future__ import annotations

import random
from dataclasses import dataclass

_WORDS = """
acorn amber anchor apron arrow atlas badge bamboo barrel basil beacon birch bishop blossom bramble
bridge bronze bucket cabin candle canyon carbon cedar chalk cherry cider clover comet copper coral
cotton cradle crane crystal dagger daisy delta desert dolphin ember falcon fern fiddle flint fossil
"""


class Words:
    """A word of its own for every role; `head.weight` becomes two words with a dot."""

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
        """The role behind a word, and the word, as a reader of a table wants them."""
        roles = {word: role for role, word in self._word.items()}
        return f"{'.'.join(roles.get(w, w) for w in name.split('.'))} ({name})" if name else "-"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What is expected of a situation in one precision; None where nothing is said.

    Attributes:
        reason: Why it is pruned; None where it has to live.
        term, parameter, parameters, module, handed_in: By role.
        bad: Least and most steps whose loss or gradient is seen to be non-finite: the proof that
            the fault is there.
        spikes: Bad runs that ended by themselves and that no scaler explains.
        within: Steps from the first bad one to the verdict, at most.
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
    """Not pruned, after so many bad steps."""
    return Outcome(bad=(least, least if most is None else most), spikes=spikes)


def loss_fault(kind: str, *, operation: str | None = None, term: str = "plant") -> Outcome:
    """Pruned for a loss that fp32 agrees about."""
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
    """Pruned for a gradient that fp32 agrees about, by default in all of the network."""
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
