"""Outcomes of trials: the best one, the default one, and the name of each one's outcome."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpo.database import ended
from hpo.database.binding import OUTCOMES
from hpo.database.ended import Group, Snapshot
from hpo.database.history import History
from hpo.database.outside import ENDED_OUTSIDE, OUTSIDE
from hpo.database.storage import TrialStorage
from hpo.guard import verdict
from hpo.search.hopeless import LEAST, Hopeless, hopeless_in
from hpo.search.samplers import RERUN_OF
from hpo.study.study import OpenStudy
from hpo.tickets.budget import Budget

# This system attribute marks a trial that tries an enqueued configuration.
ENQUEUED = "hpo:enqueued"
# And this one a configuration that was chosen because no other trial has it.
CHOSEN = "hpo:chosen"
# This system attribute holds the number of the attempt that ended a trial and wrote its checkpoint,
# and 0 while it runs. Trials that an earlier version ended do not have it.
ATTEMPT = "hpo:attempt"


def numbered(trials: Sequence[FrozenTrial], number: int | None) -> FrozenTrial | None:
    """The trial of this number; its place in the list differs once another trial was deleted."""
    return next((trial for trial in trials if trial.number == number), None)


def trial_numbered(opened: OpenStudy, number: int) -> FrozenTrial | None:
    """A study's trial of this number; None without one."""
    return ended.read(opened.storage.engine, opened.study_id, lambda found: found.numbered(number))


def last_trial(opened: OpenStudy) -> FrozenTrial | None:
    """A study's trial of the highest number; None without one."""
    return ended.read(opened.storage.engine, opened.study_id, Snapshot.last)


def attempt_of(trial: FrozenTrial) -> int:
    """The attempt whose checkpoint belongs to a trial; 0 for the file of an earlier version."""
    return int(trial.system_attrs.get(ATTEMPT, 0))


def is_measured(trial: FrozenTrial) -> bool:
    """Return whether a worker of this service measured the trial's value."""
    # The trial tells it from its end on; its worker notes it within a beat, and caches keep what
    # they saw before.
    is_told = trial.user_attrs.get("prune_detail") == ENDED_OUTSIDE
    is_told |= trial.system_attrs.get(ATTEMPT) == 0
    return "run_uid" in trial.user_attrs and not is_told


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """The best complete trial; None without one.

    In a study of this service it is one that a worker measured: another program may tell any value.
    """
    return best_and_remark(study)[0]


def left_out(study: optuna.Study) -> str | None:
    """A remark on the trial that is better than the best, but was told from outside, if any."""
    return best_and_remark(study)[1]


def best_and_remark(study: optuna.Study) -> tuple[FrozenTrial | None, str | None]:
    """The best trial, and the remark on a better one that is left out, in one reading."""
    is_ours = "study_uid" in study.user_attrs
    maximize = study.direction == StudyDirection.MAXIMIZE
    storage = study._storage
    if isinstance(storage, TrialStorage):
        return ended.read(
            storage.engine,
            study._study_id,
            lambda found: _choice(found.ranked(maximize=maximize), is_ours),
        )
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    sign = -1 if maximize else 1
    return _choice(sorted(complete, key=lambda one: sign * (one.value or 0.0)), is_ours)


def better(
    best: FrozenTrial | None, others: Iterable[FrozenTrial], *, maximize: bool
) -> FrozenTrial | None:
    """The best of a study of this service, after some others of its trials have ended."""
    sign = -1 if maximize else 1
    for one in others:
        if one.state == TrialState.COMPLETE and is_measured(one) and is_feasible(one):
            # Of two equal ones the first stays.
            best = one if best is None else min(best, one, key=lambda t: sign * (t.value or 0.0))
    return best


def _choice(ranked: Iterable[FrozenTrial], is_ours: bool) -> tuple[FrozenTrial | None, str | None]:
    """The first feasible trial that counts, and a remark on the first that does not."""
    remark = None
    for trial in ranked:
        if is_feasible(trial):
            if not is_ours or is_measured(trial):
                return trial, remark
            remark = remark or (
                f"trial {trial.number} has {trial.value:.6g}, told from outside: it is left out"
            )
    return None, remark


def is_feasible(trial: FrozenTrial) -> bool:
    """Return whether a trial violates no constraint."""
    return all(value <= 0 for value in trial.constraints.values())


def outcome(trial: FrozenTrial) -> str:
    """The name of a trial's outcome: its prune reason, else its state, for example `complete`."""
    return _outcome(trial.state, trial.user_attrs.get("prune_reason", "-"))


def _outcome(state: TrialState, reason: object) -> str:
    if state == TrialState.PRUNED:
        return OUTSIDE if str(reason) == "-" else str(reason)
    return state.name.lower()


def as_budget(groups: Iterable[Group]) -> Budget:
    """The budget that some ended trials fill, for a copy that has no tickets of its own yet."""
    states: Counter[str] = Counter()
    for group in groups:
        states[OUTCOMES[group.state]] += group.count
    return Budget(**states)


def outcome_of(group: Group) -> str:
    """The same name, of trials that are only counted."""
    return _outcome(group.state, "-" if group.reason is None else json.loads(group.reason))


def prune_reasons(groups: Iterable[Group]) -> Counter[str]:
    """Numbers of pruned trials by prune reason."""
    reasons: Counter[str] = Counter()
    for group in groups:
        if group.state == TrialState.PRUNED:
            reasons[outcome_of(group)] += group.count
    return reasons


def hopeless_values(found: Snapshot) -> list[Hopeless]:
    """The values with which every trial of a study fails."""
    history = History()
    # Few studies have so many failures that the parameters of all trials are read.
    if found.failures() >= LEAST:
        history.add(found.fates())
    return hopeless_in(history)


def divergences(found: Snapshot) -> dict[int, str]:
    """The reasons of the trials that the guard pruned, by number."""
    texts = found.reasons([json.dumps(reason) for reason in verdict.NONFINITE])
    return {number: json.loads(text) for number, text in texts.items()}


def default_trial(found: Snapshot) -> FrozenTrial | None:
    """The first trial that has completed the default configuration; None without one."""
    return next(filter(is_default, found.fixed((ENQUEUED, CHOSEN))), None)


def is_default(trial: FrozenTrial) -> bool:
    """Return whether a trial has completed the default configuration."""
    is_fixed = "fixed_params" in trial.system_attrs
    is_other = RERUN_OF in trial.user_attrs or trial.system_attrs.keys() & {ENQUEUED, CHOSEN}
    is_complete = trial.state == TrialState.COMPLETE and is_measured(trial)
    return is_fixed and not is_other and is_complete
