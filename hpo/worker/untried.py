"""No configuration twice while a small space holds another: a free trial gets one that none has.

The sampler proposes as ever. What it proposes is compared with the configurations of all trials
and tickets, and replaced if one has it. Workers that ask at the same moment do so one after the
other, under a lock of the study, and each notes its choice in its ticket before the next looks: so
no two free trials of a fleet are equal while an untried configuration is left. Configurations that
a user enqueued are tried as they are, and so is a rerun in a wider precision. A value with which
every trial fails is not chosen, even where that leaves a repeat alone.

Border: one trial's configuration; `hpo.search.finite` chooses it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from hpo.search import finite
from hpo.search.columns import history_of
from hpo.search.hopeless import Hopeless, hopeless, hopeless_in
from hpo.study import study
from hpo.study.study import OpenStudy
from hpo.tickets.budget import Tickets
from hpo.tickets.ticket import Ticket
from objectives import Choice, Float, Int, Objective, Space

_logger = logging.getLogger(__name__)


def reserved(
    ticket: Ticket, opened: OpenStudy, trial: optuna.Trial, objective: Objective
) -> Mapping[str, Any] | None:
    """The configuration that a free trial is to have; None where it cannot be counted.

    Raises:
        SQLAlchemyError: The database is away.
    """
    config = opened.config
    space = config.narrowing.apply(objective.spaces[config.space])
    if finite.configurations(objective, space) is None:
        return None
    tried, found = _known(trial, space)
    try:
        tried.add(finite.key_of(config.narrowing.defaults(objective, config.space), space))
        proposed = _proposed(trial, space)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        # It raises again where the trial asks for its parameters, and fails that trial.
        _logger.warning("the sampler proposes nothing: %s", error)
        return None
    avoided = {(one.name, repr(one.value)) for one in found}

    def choose(others: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
        keys = tried | {finite.key_of(params, space) for params in others}
        known = {key for key in keys if key is not None}
        seed = study.derive_seed(config.seed, ticket.ticket, "untried")
        return finite.untried(proposed, space, known, seed=seed, avoided=avoided)

    return Tickets(opened.storage.engine, opened.uid).queue.reserve(ticket.ticket, choose)


def _known(trial: optuna.Trial, space: Space) -> tuple[set[finite.Key | None], Sequence[Hopeless]]:
    """The configurations of all other trials, and the values with which every trial fails."""
    history = history_of(trial.study)
    if history is not None:
        return {*finite.keys_in(history, space, but=trial.number)}, hopeless_in(history)
    trials = trial.study.get_trials(deepcopy=False)
    others = (one.params for one in trials if one.number != trial.number)
    return {finite.key_of(params, space) for params in others}, hopeless(trials)


def _proposed(trial: optuna.Trial, space: Space) -> dict[str, Any]:
    """The sampler's proposal for a trial that is not asked yet."""
    frozen = trial._cached_frozen_trial
    seen = optuna.pruners._filter_study(trial.study, frozen)
    found: dict[str, Any] = {}
    for name, spec in space.items():
        distribution = _distribution(spec)
        if distribution.single():
            found[name] = spec.choices[0] if isinstance(spec, Choice) else spec.low
            continue
        relative = trial.relative_params
        if name in relative and distribution._contains(
            distribution.to_internal_repr(relative[name])
        ):
            found[name] = relative[name]
        else:
            found[name] = trial.study.sampler.sample_independent(seen, frozen, name, distribution)
    return found


def _distribution(spec: Float | Int | Choice) -> BaseDistribution:
    if isinstance(spec, Choice):
        return CategoricalDistribution(spec.choices)
    if isinstance(spec, Int):
        return IntDistribution(spec.low, spec.high, log=spec.log)
    return FloatDistribution(spec.low, spec.high, log=spec.log)
