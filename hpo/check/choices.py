"""Check the search spaces under every choice of an objective's options, where they depend on it.

Border: suggests and builds the default configuration of each space; the rehearsal trains that of
the default options alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from hpo.check.findings import Check, Findings, listed, raised
from hpo.check.trials import Trials, compare, study_in_memory
from hpo.search.narrowing import Narrowing
from hpo.study.spaces import Under, bound_to, by_options, combinations, depends_on_options
from hpo.task.build import build, plain
from objectives import Objective, Task


def check_choices(
    findings: Findings, trials: Trials, objective: Objective, *, precision: str
) -> None:
    """Check each search space that a choice of an option leads to; nothing without `spaces_for`."""
    if not depends_on_options(objective):
        return
    with findings.check("choices") as check:
        # These raise for any fault of a space.
        found = by_options(objective)
        usual = combinations(objective)[0]
        for each in found:
            try:
                _check_one(check, trials, objective, each, {**usual, **each.options}, precision)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                check.fail(f"with {each.flags}: {raised(error, findings.file)}")
        check.seen = listed([each.flags for each in found if each.options]) or "the same spaces"


def _check_one(
    check: Check,
    trials: Trials,
    objective: Objective,
    under: Under,
    options: Mapping[str, str],
    precision: str,
) -> None:
    """Suggest and build the default configuration under some options."""
    missing = [name for name in objective.spaces if name not in under.spaces]
    if missing:
        check.fail(f"with {under.flags}: spaces_for() gave no {listed(missing)}; give all spaces")
    about = trials.about()
    try:
        settled = objective.settle(options, about["study"]["size"], precision)
    except (ValueError, OSError):
        # Such options cannot be of a study.
        return
    about["study"]["options"] = dict(settled)
    bound = bound_to(objective, settled)
    for space in bound.spaces:
        defaults = bound.defaults(space)
        study = study_in_memory()
        study.enqueue_trial(dict(defaults))
        trial = study.ask()
        params = Narrowing().suggest(bound, trial, space)
        compare(check, defaults, trial.params)
        trials.process.restore()
        task = build({**about, "params": plain(params)}, trials.device, bound)
        if not isinstance(task, Task):
            check.fail(f"with {under.flags}: build() gave a {type(task).__name__}")
