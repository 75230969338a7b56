"""Run a fleet until its study is done, and collect the result.

Border: the result of a run; `fleet` keeps its workers running.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from hpo.database import ended, faults
from hpo.database.patience import give_up_at, is_hurried, must_end
from hpo.errors import RunFailed, RunInterrupted
from hpo.fleet.config import FleetConfig
from hpo.fleet.events import Event, RunResult
from hpo.fleet.first import FirstWorker
from hpo.fleet.fleet import Fleet
from hpo.launch.launcher import Launcher
from hpo.study import study
from hpo.study.join import Prepared
from hpo.study.outcomes import (
    best_and_remark,
    default_trial,
    divergences,
    hopeless_values,
    prune_reasons,
)


def run(
    prepared: Prepared,
    config: FleetConfig,
    launcher: Launcher,
    *,
    emit: Callable[[Event], None],
    stop: threading.Event,
    first: FirstWorker | None = None,
) -> RunResult:
    """Run workers until every ticket has ended, or until `stop` or the timeout.

    Args:
        first: The worker that looked at the objective; it goes on in the study.

    Raises:
        RunFailed: Workers die as soon as they start, too many trials failed, or the study was
            deleted.
    """
    began_at = None if first is None else first.started_at
    fleet = Fleet(prepared, config, launcher, emit, started_at=began_at)
    # What may fail comes before this: nobody would end a worker that the fleet does not have.
    adopted = None if first is None else first.adopted(prepared, config)
    if adopted is not None:
        fleet.adopt(adopted)
    try:
        is_interrupted = fleet.work(stop)
    except Exception as error:
        if not (faults.is_outage(error) and must_end()) or is_hurried():
            raise
        is_over = config.timeout_s is not None and fleet.seconds >= config.timeout_s
        why = f"{config.timeout_s:g} s are over" if is_over else "the run was stopped"
        raise RunInterrupted(
            f"{why}, and {faults.fault(error).what}: "
            f"{faults.reason(error)}; the same command goes on"
        ) from error
    # The run is over for the workers, and its results are read all the same.
    give_up_at(None)
    # Its name may be another by now.
    opened = study.refreshed(prepared.opened)
    opened_study = opened.load()
    budget = prepared.tickets.count()
    last, groups, hopeless, diverged, default = ended.read(
        opened.storage.engine,
        opened.study_id,
        lambda found: (
            found.last(),
            found.groups(),
            hopeless_values(found),
            divergences(found),
            default_trial(found),
        ),
    )
    best, remark = best_and_remark(opened_study)
    if not is_interrupted and budget.failed == budget.total:
        detail = "-" if last is None else last.user_attrs.get("prune_detail", "-")
        raise RunFailed(
            f"all {budget.total} trials failed, the last with: {detail}; the tracebacks are in the "
            f"workers' logs in '{config.logs}'"
        )
    return RunResult(
        study=opened.name,
        budget=budget,
        reasons=dict(prune_reasons(groups).most_common()),
        hopeless=[one.sentence() for one in hopeless],
        diverged=diverged,
        best=best,
        left_out=remark,
        default_value=default.value if default else None,
        references=opened_study.user_attrs.get(study.REFERENCES, {}),
        seconds=fleet.seconds,
        is_interrupted=is_interrupted,
        spent=prepared.tickets.spent(),
    )
