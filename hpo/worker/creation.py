"""The beginning of a ticket's trial: created, resumed, or taken from another program's queue.

Border: hands over an Optuna trial; `attempt` trains and ends it.
"""

from __future__ import annotations

import json
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from hpo.errors import ConfigurationError, TrialGone
from hpo.search import configurations
from hpo.study import study
from hpo.study.config import StudyConfig
from hpo.study.outcomes import CHOSEN, ENQUEUED, trial_numbered
from hpo.study.study import OpenStudy
from hpo.task.build import plain
from hpo.task.raised import described
from hpo.tickets.ticket import Ticket
from hpo.worker.untried import reserved
from objectives import Objective, bound


def as_begun(opened: OpenStudy, ticket: Ticket) -> OpenStudy:
    """The study with the configuration with which the trial, or the one it repeats, began.

    Raises:
        TrialGone: Another program has deleted that trial.
    """
    begun = ticket.rerun_of if ticket.trial_number is None else ticket.trial_number
    return opened if begun is None else study.as_begun(opened, _trial(opened, begun))


def begin(
    ticket: Ticket, opened: OpenStudy, loaded: optuna.Study, objective: Objective
) -> tuple[optuna.Trial, str | None]:
    """Load the ticket's trial, or create it, or begin one that another program enqueued.

    Returns:
        The trial; and why it cannot be trained, as the enqueued values, None if it can.

    Raises:
        TrialEnded: Another program has ended the ticket's trial.
        TrialGone: Another program has deleted it, or the one that it repeats.
    """
    storage, config = opened.storage, opened.config
    study_id = opened.study_id
    objective, raised = _bound(objective, config)
    if ticket.trial_number is not None:
        trial_id = storage.resume_trial(study_id)
    else:
        system: dict[str, Any] = {study.REVISION: config.revision} if config.revision else {}
        is_free = False
        if raised is not None:
            pass
        elif ticket.rerun_of is not None:
            system["fixed_params"] = _trial(opened, ticket.rerun_of).params
        elif ticket.ticket == 1:
            # The first trial is the default configuration's, the baseline of the result.
            try:
                defaults = plain(config.narrowing.defaults(objective, config.space))
                json.dumps(defaults)
                system["fixed_params"] = defaults
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                # The trial exists all the same, so that the hook's error has a place.
                raised = described(error)
        elif ticket.params is not None:
            system["fixed_params"] = dict(ticket.params)
            system[ENQUEUED] = True
        else:
            is_free = True
        # The reason is written before all others, because the dashboard shows attributes in the
        # order of writing.
        trial_id = storage.create_trial(
            study_id,
            user_attrs={"prune_reason": "-"},
            system_attrs=system,
            if_waiting={ENQUEUED: True} if is_free else None,
        )
    if raised is not None:
        return optuna.Trial(loaded, trial_id), raised
    storage.refresh_history(study_id)
    refusal = _checked(trial_id, opened, objective)
    trial = optuna.Trial(loaded, trial_id)
    if ticket.ticket > 1 and ticket.rerun_of is None:
        trial = _apart(trial, ticket, opened, objective)
    return trial, refusal


def _bound(objective: Objective, config: StudyConfig) -> tuple[Objective, str | None]:
    """The objective with a study's search spaces; what its hook raised, None if nothing."""
    try:
        return bound(objective, config.options), None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return objective, described(error)


def _apart(
    trial: optuna.Trial, ticket: Ticket, opened: OpenStudy, objective: Objective
) -> optuna.Trial:
    """The trial, in a small space with a configuration that no other has."""
    if trial.params or "fixed_params" in trial._cached_frozen_trial.system_attrs:
        return trial
    chosen = reserved(ticket, opened, trial, objective)
    if chosen is None:
        return trial
    storage = opened.storage
    storage.set_trial_system_attr(trial._trial_id, "fixed_params", plain(chosen))
    storage.set_trial_system_attr(trial._trial_id, CHOSEN, True)
    storage.flush(trial._trial_id)
    return optuna.Trial(trial.study, trial._trial_id)


def _trial(opened: OpenStudy, number: int) -> FrozenTrial:
    """A trial that must be there, because a ticket names it."""
    trial = trial_numbered(opened, number)
    if trial is None:
        raise TrialGone(f"trial {number} was deleted by another program")
    return trial


def _checked(trial_id: int, opened: OpenStudy, objective: Objective) -> str | None:
    """Convert the values of an enqueued trial; return why they cannot be tried."""
    config, storage = opened.config, opened.storage
    system = storage.get_trial_system_attrs(trial_id)
    given = system.get("fixed_params")
    if not given or ENQUEUED not in system:
        return None
    space = config.narrowing.apply(objective.spaces[config.space])
    try:
        [params] = configurations.checked([given], space, flag="enqueue_trial")
    except ConfigurationError as error:
        return str(error)
    # Equal values may be of two types: a 1 for a 1.0, a True for a 1.
    if repr(params) != repr(given):
        storage.set_trial_system_attr(trial_id, "fixed_params", params)
        storage.flush(trial_id)
    return None
