"""The metric of an objective's reference methods, which a study stores once.

Border: one worker of a study computes them, after a trial; the objective says how.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from hpo.database.connection import alone
from hpo.study import study
from hpo.task.build import context_of
from hpo.task.random_state import seed_all
from hpo.worker.context import WorkerContext
from objectives import bound

_logger = logging.getLogger(__name__)


def save(context: WorkerContext, opened: study.OpenStudy, db: sa.Engine) -> None:
    """Store in the study the metric of reference methods on the same validation set."""
    try:
        # One worker computes them, because they may take as long as a trial.
        with alone(db, f"hpo references {opened.uid}") as is_alone:
            if is_alone and not context.stop.is_set():
                _compute(context, opened)
    except SQLAlchemyError as error:
        _logger.warning("the connection that kept others off broke: %s", error)


def _compute(context: WorkerContext, opened: study.OpenStudy) -> None:
    found = study.refreshed(opened).load()
    if study.REFERENCES in found.user_attrs:
        return
    config = opened.config
    try:
        own = context_of(config.stored(), seed=config.seed, device=context.device)
        own = replace(own, must_stop=context.stop.is_set)
        seed_all(config.seed)
        references = bound(context.objective, config.options).references(own)
        values = {str(name): float(value) for name, value in references.items()}
    except BaseException as error:
        # A hook may raise anything; the trials do not depend on what this one returns.
        if context.stop.is_set():
            _logger.info("the objective's references: %s", error)
        else:
            _logger.exception("the objective's references cannot be computed")
        return
    finally:
        context.process_state.restore()
    found.set_user_attr(study.REFERENCES, values)
