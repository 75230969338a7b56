"""Check that trials of one objective can be suggested, built, saved and restored.

Border: trains nothing; `hooks` checks the single hooks.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
import torch

from hpo.check.findings import Check, Findings, listed, raised, some
from hpo.check.hooks import figures, unlike
from hpo.search.narrowing import Narrowing
from hpo.study.spaces import bound_to, depends_on_options
from hpo.task.build import build, load, plain
from hpo.task.parameters import trained
from hpo.task.process import ProcessState
from objectives import AUTO, Objective, Params, Task

# These are built in addition to the default configuration.
_RANDOM_CONFIGURATIONS = 4
CURE = "keep in state_dict() what changes in a trial outside of its modules"


class Trials:
    """Trials of one objective at one size and space, with some options of its own.

    Attributes:
        process: The settings of this process before the first trial.
        other: A configuration other than the default one; None if the space gave none.
    """

    def __init__(
        self,
        findings: Findings,
        objective: Objective,
        *,
        device: torch.device,
        size: str,
        space: str,
        epochs: int,
        options: Mapping[str, str],
    ) -> None:
        self.device, self.epochs = device, epochs
        self._findings, self._objective, self._space = findings, objective, space
        self._settings: dict[str, Any] = {
            "size": size,
            "epochs": epochs,
            "options": {
                **{name: option.default for name, option in objective.options.items()},
                **options,
            },
        }
        self._params: Params = {}
        # The objective is imported: what its module sets is part of every trial.
        self.process = ProcessState()
        self.other: Params | None = None

    def settle(self, precision: str) -> bool:
        """Return whether the objective accepts the defaults of its own options."""
        with self._findings.check("settle") as check:
            settled = self._objective.settle(
                self._settings["options"], self._settings["size"], precision
            )
            if set(settled) != set(self._settings["options"]):
                check.fail(f"settle() gave the options {listed(list(settled))}; give them all back")
                return False
            left = [
                name
                for name, option in self._objective.options.items()
                if AUTO in option.choices and settled[name] == AUTO
            ]
            if left:
                check.warn(f"settle() left {listed(left)} at 'auto'; choose one of the others")
            self._settings["options"] = dict(settled)
            check.seen = ", ".join(f"{k} {v}" for k, v in settled.items() if v) or "no options"
            return self._bind() if depends_on_options(self._objective) else True
        return False

    def _bind(self) -> bool:
        """Return whether the objective has the search space under the settled options."""
        with self._findings.check("spaces_for") as check:
            options = self._settings["options"]
            self._objective = bound_to(self._objective, options)
            if self._space not in self._objective.spaces:
                check.fail(f"it gave no space '{self._space}'; give all of `spaces`")
                return False
            check.seen = ", ".join(self._objective.spaces)
            return True
        return False

    def build(self, *, seed: int = 1) -> Task:
        """Build a new trial of the default configuration, in the process as it was at first."""
        self.process.restore()
        return build(self.about(seed), self.device, self._objective)

    def about(self, seed: int = 1, params: Params | None = None) -> dict[str, Any]:
        """The description of a trial, as its checkpoint stores it."""
        params = self._params if params is None else params
        return {"study": dict(self._settings), "params": dict(params), "seed": seed}

    def suggested(self) -> list[Params]:
        """Suggest the default configuration, as a study does first, and a few random ones."""
        found: list[Params] = []
        with self._findings.check("suggest") as check:
            defaults = self._objective.defaults(self._space)
            study = study_in_memory()
            study.enqueue_trial(dict(defaults))
            for _ in range(1 + _RANDOM_CONFIGURATIONS):
                trial = study.ask()
                # As a worker asks: each value is the one that is recorded.
                params = Narrowing().suggest(self._objective, trial, self._space)
                if not isinstance(params, Mapping):
                    check.fail(f"suggest() gave a {type(params).__name__}; give a mapping")
                    return []
                if not found:
                    compare(check, defaults, trial.params)
                found.append(params)
            check.seen = some(list(found[0]))
            return found
        return []

    def built(self, configurations: Sequence[Params]) -> Task | None:
        """Build all configurations; the task of the first, or None if that fails."""
        with self._findings.check("build") as check:
            self._settings["problem_seed"] = self._objective.problem_seed(self._settings["size"])
            default, *others = configurations
            self._params = default
            task = self.build()
            if not isinstance(task, Task):
                check.fail(f"build() gave a {type(task).__name__}; make it an objectives.Task")
                return None
            for self._params in others:
                try:
                    self.build()
                except KeyboardInterrupt:
                    raise
                except BaseException as error:
                    check.fail(f"with {dict(self._params)}: {raised(error, self._findings.file)}")
                    break
            self._params = default
            self.other = next((each for each in others if dict(each) != dict(default)), None)
            # What a trial sets in this process is set by its construction, so it comes last.
            task = self.build()
            check.seen = f"the default configuration and {len(configurations) - 1} at random"
            return task
        return None

    def restore(self, task: Task, *, is_comparable: bool) -> None:
        """Check that the saved state of a trial is plain data and restores the trial.

        Args:
            is_comparable: True if validations can be compared: they work and are not noisy.
        """
        with self._findings.check("state_dict") as check:
            with torch.no_grad():
                for parameter in trained(task):
                    # With its initial weights a trial would agree with a new one, restored or not.
                    parameter.add_(0.01 * torch.randn_like(parameter))
            modules = {name: module.state_dict() for name, module in task.modules.items()}
            _read_back(check, "what suggest() gave", plain(self._params))
            states = (
                _read_back(check, "the state of modules", modules),
                _read_back(check, "state_dict()", task.state_dict()),
            )
            check.seen = "saved, read back, restored"
            if check.has_failed or not is_comparable:
                return
            expected = figures(task, self.device)
            other = unlike(expected, figures(self._restore(*states, seed=1), self.device))
            if other:
                check.fail(
                    "a trial that is restored from what was saved of it validates to another "
                    f"{other}; {CURE}"
                )
                return
            other = unlike(expected, figures(self._restore(*states, seed=2), self.device))
            if other:
                check.warn(
                    f"a trial with another seed, given the same weights, validates to another "
                    f"{other}; draw validation data from context.problem_seed, not from its seed"
                )

    def _restore(self, modules: Any, own: Any, *, seed: int) -> Task:
        task = self.build(seed=seed)
        load(task, modules, own)
        return task


def study_in_memory() -> optuna.Study:
    """A study whose trials ask at random, without a line on its creation."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    finally:
        optuna.logging.set_verbosity(level)


def other_names(defaults: Params, asked: Params) -> str | None:
    """The fault that `defaults` and `suggest` name parameters that the other lacks; else None."""
    lacking = [name for name in asked if name not in defaults]
    idle = [name for name in defaults if name not in asked]
    if not (lacking and idle):
        return None
    return (
        f"suggest() asks for {listed(lacking)} and defaults() holds {listed(idle)}: the study's "
        "first trial, the one to compare with, would take random values; give both the same names"
    )


def compare(check: Check, defaults: Params, asked: Params) -> None:
    """Warn where the default configuration differs from what `suggest` asks for."""
    other = other_names(defaults, asked)
    if other is not None:
        check.fail(other)
        return
    forgotten = [name for name in asked if name not in defaults]
    if forgotten:
        check.warn(
            f"suggest() asks for {listed(forgotten)}, which defaults() lacks: the study's first "
            "trial, the one to compare with, takes a random value there"
        )
    idle = [name for name in defaults if name not in asked]
    if idle:
        check.warn(f"defaults() holds {listed(idle)}, which suggest() does not ask for")


def _read_back(check: Check, what: str, content: Any) -> Any:
    """Save and load some content as a checkpoint is; None if that fails."""
    file = io.BytesIO()
    plain = "keep numbers, texts, lists, dicts and tensors"
    try:
        torch.save(content, file)
    except Exception as error:
        check.fail(f"{what} cannot be saved: {raised(error, None)}; {plain}")
        return None
    file.seek(0)
    try:
        return torch.load(file, weights_only=True)
    except Exception as error:
        # torch's own message advises loading without `weights_only`, which is unsafe.
        named = re.search(r"GLOBAL (\S+)", str(error))
        kind = f"a {named[1]}" if named else "more than plain data"
        check.fail(f"{what} holds {kind}, which a checkpoint cannot give back; {plain}")
        return None
