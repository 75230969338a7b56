"""The outcome that a hostile objective's file claims for itself, and what differs from it.

    EXIT = 0                             exit code of the run; a tuple allows several
    STATES = {"COMPLETE": 5, "FAIL": 1}  states of its trials, or a function of the parameters:
    def expected(params): ...            "COMPLETE", "PRUNED", "FAIL" or several, "COMPLETE or FAIL"
    ENQUEUE = [{"x": 0.9}]               configurations that it tries for certain
    VALUES = "calm"                      complete trials have the values that they have in calm.py
    SAYS = "SystemExit: 2"               a text in the run's lines or in the details of its trials
    NEVER = "ended with code"            a text that is not in the run's lines
    CHECK, CHECK_SAYS                    exit code of `check`, a text in its lines

All of them are optional. Without STATES and `expected` all trials are complete. A run that ends
with 2, where that is allowed, has no study. Nothing may hang, and no process outlive a command.

Border: the files are parsed and never imported, because importing them is the attack of some.
"""

from __future__ import annotations

import ast
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TRIALS = 6


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A trial as plain Optuna reads it."""

    state: str
    params: Mapping[str, Any]
    value: float | None
    reason: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The outcome of one objective.

    Attributes:
        code: Exit code of the run; None if it had to be ended.
        trials: None without a study.
        left: Command lines of processes that outlived the run.
    """

    code: int | None
    lines: str
    trials: Sequence[Ended] | None
    check_code: int | None
    check_lines: str
    left: Sequence[str]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Claims:
    """The constants of one file, and its sentences."""

    title: str
    right: str
    constants: Mapping[str, Any] = field(default_factory=dict)
    expected: Callable[[Mapping[str, Any]], str] | None = None


def claims_of(path: Path) -> Claims:
    """Read the claims of an objective's file.

    Raises:
        ValueError: Its docstring or its claims are not of the form above.
    """
    tree = ast.parse(path.read_text())
    title, mark, right = (ast.get_docstring(tree) or "").partition("Right:")
    if not mark:
        raise ValueError(f"{path}: its docstring has no second sentence 'Right: ...'")
    constants: dict[str, Any] = {}
    kept: list[ast.stmt] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "expected":
            kept.append(node)
        elif isinstance(node, ast.Assign):
            constants.update(_constants(node))
    known: dict[str, Any] = {"math": math, **constants}
    # Nothing of the file runs but this one function.
    exec(compile(ast.Module(body=kept, type_ignores=[]), str(path), "exec"), known)
    return Claims(
        title=" ".join(title.split()),
        right=" ".join(right.split()),
        constants=constants,
        expected=known.get("expected"),
    )


def _constants(node: ast.Assign) -> dict[str, Any]:
    """The names in capitals that an assignment binds to literals."""
    try:
        value = ast.literal_eval(node.value)
    except ValueError:
        return {}
    target = node.targets[0]
    if isinstance(target, ast.Tuple) and isinstance(value, tuple):
        names = [name.id for name in target.elts if isinstance(name, ast.Name)]
        found = dict(zip(names, value, strict=True))
    else:
        found = {target.id: value} if isinstance(target, ast.Name) else {}
    return {name: value for name, value in found.items() if name.isupper()}


def differences(claims: Claims, seen: Seen, calm: Sequence[Ended]) -> list[str]:
    """Each difference between what a file claims and what was seen, as a sentence."""
    found: list[str] = []
    given = claims.constants
    exits = _several(given.get("EXIT", 0))
    if seen.code is None:
        found.append("the run did not end")
    elif seen.code not in exits:
        found.append(f"exit {seen.code}, not {' or '.join(map(str, exits))}")
    if seen.check_code is None:
        found.append("check does not end")
    elif "CHECK" in given and seen.check_code not in _several(given["CHECK"]):
        found.append(f"check exits with {seen.check_code}, not {given['CHECK']}")
    if seen.left:
        found.append(f"{len(seen.left)} processes are left: {seen.left[0]}")
    details = "\n".join(trial.detail for trial in seen.trials or ())
    for text in _several(given.get("SAYS", ())):
        if text not in seen.lines and text not in details:
            found.append(f"the run does not say '{text}'")
    for text in _several(given.get("NEVER", ())):
        if text in seen.lines:
            found.append(f"the run says '{text}'")
    for text in _several(given.get("CHECK_SAYS", ())):
        if text not in seen.check_lines:
            found.append(f"check does not say '{text}'")
    return found + _states(claims, seen) + _values(claims, seen, calm)


def _states(claims: Claims, seen: Seen) -> list[str]:
    trials, exits = seen.trials, _several(claims.constants.get("EXIT", 0))
    if seen.code == 2 and 2 in exits:
        # A refusal leaves nothing behind.
        return [] if trials is None else ["a study exists"]
    if trials is None:
        return ["there is no study"]
    if claims.expected is None:
        usual = {} if exits == (2,) else {"COMPLETE": TRIALS}
        right = _counted(claims.constants.get("STATES", usual))
        states = _counted(Counter(trial.state for trial in trials))
        return [] if states == right else [f"{states}, not {right}"]
    found = []
    # A run that gives up after five failures in a row has fewer trials.
    if len(trials) != TRIALS and seen.code == 0:
        found.append(f"{len(trials)} trials, not {TRIALS}")
    right_states = [claims.expected(trial.params) for trial in trials]
    if set(right_states) <= {"COMPLETE"}:
        found.append("no trial met what is hostile")
    for number, (trial, state) in enumerate(zip(trials, right_states)):
        if trial.state not in state.split(" or "):
            found.append(f"trial {number} is {trial.state}, not {state}")
    return found


def _values(claims: Claims, seen: Seen, calm: Sequence[Ended]) -> list[str]:
    if claims.constants.get("VALUES") != "calm":
        return []
    found = []
    for number, (trial, alone) in enumerate(zip(seen.trials or (), calm)):
        if trial.params != alone.params:
            found.append(f"trial {number} has other parameters than in calm.py")
        elif trial.state == "COMPLETE" and trial.value != alone.value:
            found.append(f"trial {number} has {trial.value}, alone {alone.value}")
    return found


def _several(given: Any) -> tuple[Any, ...]:
    return given if isinstance(given, tuple) else (given,)


def _counted(states: Mapping[str, int]) -> str:
    known = sorted((name, count) for name, count in states.items() if count)
    return ", ".join(f"{count} {name}" for name, count in known) or "no trials"
