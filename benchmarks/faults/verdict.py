"""A row's verdict: 80 trials by the objective's diary, by plain Optuna and by tickets.

A trial that was interrupted may train epochs again, and a host that was cut off may train a trial
to its end that another host trains too. Neither is doubled: one of them counts, in Optuna and in
the tickets. Each attempt goes epoch by epoch, and no attempt begins beyond a gap.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from faults.objective import EPOCHS, Course, value
from faults.stage import STUDY, TRIALS, Stage

# A worker's start takes seconds on a busy machine; a wrong zone or clock, half an hour at least.
_TIME_TOLERANCE_S = 60.0
# Numbers are given in one transaction each, of which two may overlap.
_ORDER_TOLERANCE_S = 5.0


def judge(stage: Stage, *, has_ended: bool) -> dict[str, Any]:
    """The figures of a performance, and its problems in words; none if the row holds."""
    database = stage.database
    trials = optuna.load_study(study_name=STUDY, storage=database.url).get_trials()
    courses = stage.diary.courses()
    tickets = database.query(
        "SELECT state, trial_number, attempt, losses, silences FROM hpo.tickets ORDER BY ticket"
    )
    ((leases,),) = database.query("SELECT count(*) FROM hpo.leases")
    problems = [
        *_of_diary(courses),
        *_of_trials(trials, courses),
        *_of_tickets(tickets, trials),
        *(() if leases == 0 else (f"{leases} leases are left",)),
        *_of_commands(stage, has_ended=has_ended),
        *(_of_times(trials, courses) if stage.row.checks_times else ()),
    ]
    next_epoch_s, next_end_s = _recovery(stage, trials)
    attempts = [int(str(attempt)) for _, _, attempt, *_ in tickets]
    return {
        "row": stage.row.name,
        "title": stage.row.title,
        "holds": not problems,
        "problems": problems,
        "states": _states(trials),
        "codes": [host.codes for host in stage.hosts],
        "wall_s": round(max(host.wall_s for host in stage.hosts), 1),
        "fault_s": None if stage.began is None else round((stage.ended or 0) - stage.began, 1),
        "ended_before": stage.ended_before,
        "blows": stage.blows,
        "next_epoch_s": next_epoch_s,
        "next_end_s": next_end_s,
        "resumed_s": _resumed(stage, courses),
        "interrupted": sum(attempts) - sum(attempt > 0 for attempt in attempts),
        "losses": sum(int(str(losses)) for *_, losses, _ in tickets),
        "silences": sum(int(str(silences)) for *_, silences in tickets),
        "repeated_epochs": sum(course.repeated for course in courses),
        "ended_twice": sum(len(course.ended) > 1 for course in courses),
    }


def _states(trials: Sequence[FrozenTrial]) -> dict[str, int]:
    names = [trial.state.name for trial in trials]
    return {name: names.count(name) for name in sorted(set(names))}


def _of_diary(courses: Sequence[Course]) -> Iterator[str]:
    ended = [course for course in courses if course.ended]
    if len(ended) != TRIALS:
        yield f"{len(ended)} trials reached their end"
    for course in courses:
        if not course.is_continuous:
            yield f"the trial of x = {course.x} goes {[list(a) for a in course.attempts]}"


def _of_trials(trials: Sequence[FrozenTrial], courses: Sequence[Course]) -> Iterator[str]:
    if _states(trials) != {"COMPLETE": TRIALS}:
        yield f"Optuna has {_states(trials)}"
    for trial in trials:
        if trial.state == TrialState.FAIL:
            yield f"trial {trial.number} failed: {trial.user_attrs.get('prune_detail')}"
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    known = {course.x for course in courses if course.ended}
    if len({trial.params["x"] for trial in complete} & known) != len(complete):
        yield "a complete trial is not one that reached its end, or is there twice"
    for trial in complete:
        x, reported = trial.params["x"], trial.intermediate_values
        expected = {epoch: value(x, epoch) for epoch in reported}
        if trial.value != value(x, EPOCHS) or reported != expected or max(reported) != EPOCHS:
            yield f"trial {trial.number} has other values than it reported: {reported}"
        elif len([epoch for epoch in reported if epoch > 0]) != EPOCHS:
            yield f"trial {trial.number} has reports of {sorted(reported)} alone"


def _of_tickets(
    tickets: Sequence[tuple[object, ...]], trials: Sequence[FrozenTrial]
) -> Iterator[str]:
    states = [str(state) for state, *_ in tickets]
    if states != ["complete"] * TRIALS:
        yield f"tickets are { ({state: states.count(state) for state in sorted(set(states))}) }"
    numbers = {number for _, number, *_ in tickets}
    if numbers != {trial.number for trial in trials}:
        yield "tickets and trials are not one to one"


def _of_commands(stage: Stage, *, has_ended: bool) -> Iterator[str]:
    if not has_ended:
        yield "the run had to be ended"
    for host in stage.hosts:
        if host.codes[-1] != 0 or len(host.codes) != stage.row.runs:
            yield f"exit codes {host.codes}"


def _of_times(trials: Sequence[FrozenTrial], courses: Sequence[Course]) -> Iterator[str]:
    """Compare Optuna's times, which are naive UTC, with the diary's."""
    by_x = {course.x: course for course in courses}
    starts = []
    for trial in trials:
        if trial.datetime_start is None or trial.datetime_complete is None:
            continue
        start, complete = _seconds(trial.datetime_start), _seconds(trial.datetime_complete)
        starts.append(start)
        course = by_x[trial.params["x"]]
        off = (start - _wall(course.first), complete - _wall(max(course.ended, default=0.0)))
        if max(map(abs, off)) > _TIME_TOLERANCE_S:
            yield f"trial {trial.number} started and ended {off[0]:.0f} and {off[1]:.0f} s off"
    if any(b < a - _ORDER_TOLERANCE_S for a, b in pairwise(starts)):
        yield "trials did not start in order of their numbers"


def _seconds(naive: datetime) -> float:
    return naive.replace(tzinfo=UTC).timestamp()


def _wall(monotonic: float) -> float:
    return monotonic - time.monotonic() + time.time()


def _recovery(stage: Stage, trials: Sequence[FrozenTrial]) -> tuple[float | None, float | None]:
    """Times from the fault's end to the next epoch and the next end in the database, in s.

    If one host was cut off, they are those of its trials; the other one never paused.
    """
    if stage.ended is None:
        return None, None
    since = _wall(stage.ended)
    of_host = f"{stage.hosts[-1].name}/" if stage.row.is_separate else ""
    own = [t for t in trials if t.user_attrs.get("worker", "-").startswith(of_host)]
    uids = {trial.user_attrs["run_uid"] for trial in own if "run_uid" in trial.user_attrs}
    rows = stage.database.query("SELECT run_uid::text, extract(epoch FROM at) FROM hpo.metrics")
    epochs = [float(str(at)) for run_uid, at in rows if run_uid in uids]
    ends = [_seconds(trial.datetime_complete) for trial in own if trial.datetime_complete]
    return _first(epochs, since), _first(ends, since)


def _resumed(stage: Stage, courses: Sequence[Course]) -> list[float]:
    """Times from each kill to the next epoch of the trial that it interrupted, in s."""
    found = []
    for at, killed in stage.deaths:
        for course in courses:
            epochs = sorted(course.epochs)
            before = [pid for when, pid in epochs if when <= at]
            later = [when for when, pid in epochs if when > at and pid not in killed]
            if before and before[-1] in killed and later and not _is_over(course, at):
                found.append(round(later[0] - at, 1))
    return found


def _is_over(course: Course, at: float) -> bool:
    return any(ended <= at for ended in course.ended)


def _first(times: Sequence[float], since: float) -> float | None:
    return min((round(at - since, 1) for at in times if at > since), default=None)
