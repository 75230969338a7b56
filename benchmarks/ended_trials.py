"""A study of any number of ended trials, written by SQL in seconds.

A trial has 12 parameters, 12 reports, 10 user and 5 system attributes, a ticket, and 12 rows of
figures. Of 20 trials 12 are complete, 7 pruned and 1 failed. Values come from PostgreSQL's own
generator, with a seed.
"""

from __future__ import annotations

import sqlalchemy as sa
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from hpo.database.migrations import create_tables
from hpo.database.storage import open_storage
from hpo.study import study
from hpo.study.request import DEFAULTS, usual
from hpo.study.resolve import settled
from hpo.study.study import OpenStudy
from objectives import load

STUDY = "growth"

_SPACE: dict[str, BaseDistribution] = {
    **{f"rate_{n}": FloatDistribution(1e-5, 1.0, log=True) for n in range(8)},
    **{f"width_{n}": IntDistribution(1, 64) for n in range(2)},
    "kind": CategoricalDistribution(["relu", "gelu", "tanh"]),
    "is_tied": CategoricalDistribution([True, False]),
}
_STATES = "CASE WHEN n % 20 < 12 THEN 'COMPLETE' WHEN n % 20 < 19 THEN 'PRUNED' ELSE 'FAIL' END"
_UID = "md5(:uid || t.number)::uuid::text"

# The JSON texts of attributes, as expressions of a trial `t`.
_USER = {
    "prune_reason": "CASE WHEN t.state <> 'PRUNED' THEN '\"-\"' WHEN t.number % 20 < 17"
    " THEN '\"pruner\"' WHEN t.number % 20 = 17 THEN '\"oom\"' ELSE '\"precision_range\"' END",
    "prune_detail": "to_json('loss ' || t.number || ' after epoch 12')::text",
    "precision": "'\"fp32\"'",
    "worker": "to_json('host/cpu' || t.number % 8)::text",
    "seconds": "(10 + t.number % 7)::text",
    "gpu_seconds": "(10 + t.number % 7)::text",
    "skipped_steps": "'0'",
    "run_uid": f"to_json({_UID})::text",
    "seed": "(t.number * 7919)::text",
    "git_sha": "'\"cbf0276\"'",
    "traceback": "CASE WHEN t.state = 'FAIL' THEN to_json(repeat('a line of it', 40))::text END",
}
_SYSTEM = {
    "hpo:number": "t.number::text",
    "hpo:attempt": "'1'",
    "hpo:revision": "'0'",
    "hpo:enqueued": "CASE WHEN t.number > 0 THEN 'false' END",
    "fixed_params": "CASE WHEN t.number = 0 THEN '{}' END",
    "constraints:nonfinite": "CASE WHEN t.number % 20 = 17 THEN '1.0' ELSE '0.0' END",
}


def fill(db: sa.Engine, count: int, *, name: str = STUDY) -> OpenStudy:
    """Create a study with so many ended trials."""
    create_tables(db)
    config = settled(
        load("quadratic"), "quadratic", {**DEFAULTS, **usual(on_gpu=False)}, n_trials=count
    )
    opened = study.create(open_storage(db), name, config)
    add(db, opened, count)
    with db.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("ANALYZE"))
    return opened


def add(db: sa.Engine, opened: OpenStudy, count: int, *, first: int = 0) -> None:
    """Add ended trials to a study, numbered from `first` on."""
    values = {"study_id": opened.study_id, "uid": opened.uid, "count": count, "first": first}
    with db.begin() as connection:
        connection.execute(sa.text("SELECT setseed(0.5)"))
        for statement in _statements():
            connection.execute(sa.text(statement), values)


_NEW = "study_id = :study_id AND number >= :first"
_EACH = f"FROM trials t CROSS JOIN generate_series(1, 12) k WHERE {_NEW}"


def _statements() -> list[str]:
    """The statements that write all rows of a study."""
    found = [
        f"""
        INSERT INTO trials (number, study_id, state, datetime_start, datetime_complete)
        SELECT n, :study_id, ({_STATES})::trialstate, timestamp '2026-01-01' + n * interval '1 s',
            timestamp '2026-01-01' + (n + 10) * interval '1 s' FROM
            generate_series(:first, :first + :count - 1) n
        """,
        f"""
        INSERT INTO trial_values (trial_id, objective, value, value_type)
        SELECT trial_id, 0, random(), 'FINITE' FROM trials
        WHERE {_NEW} AND state = 'COMPLETE'
        """,
        f"""
        INSERT INTO trial_intermediate_values
            (trial_id, step, intermediate_value, intermediate_value_type)
        SELECT trial_id, k, random(), 'FINITE' {_EACH} ORDER BY trial_id, k
        """,
        f"""
        INSERT INTO hpo.tickets (study_uid, ticket, state, trial_number, attempt)
        SELECT (:uid)::uuid, number + 1, CASE state WHEN 'COMPLETE' THEN 'complete'
            WHEN 'PRUNED' THEN 'pruned' ELSE 'failed' END, number, 1
        FROM trials WHERE {_NEW}
        """,
        f"""
        INSERT INTO hpo.metrics (run_uid, epoch, study_uid, ticket, step, values)
        SELECT ({_UID})::uuid, k, (:uid)::uuid, number + 1, k * 8,
            jsonb_build_object('loss', random(), 'train_loss', random())
        {_EACH}
        """,
    ]
    rows = []
    for position, (name, distribution) in enumerate(_SPACE.items()):
        text = distribution_to_json(distribution)
        value = {"F": "power(10, -5 * random())", "I": "1 + floor(64 * random())"}.get(
            type(distribution).__name__[0], "floor(2 * random())"
        )
        rows.append(
            f"SELECT trial_id, {position} AS k, '{name}', {value}, '{text}' FROM trials"
            f" WHERE {_NEW}"
        )
    found.append(
        "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json)"
        " SELECT trial_id, name, value, text FROM (" + " UNION ALL ".join(rows) + ")"
        " AS p (trial_id, k, name, value, text) ORDER BY trial_id, k"
    )
    for kind, attributes in (("user", _USER), ("system", _SYSTEM)):
        keys = ", ".join(f"'{key}'" for key in attributes)
        texts = ", ".join(attributes.values())
        found.append(
            f"""
            INSERT INTO trial_{kind}_attributes (trial_id, key, value_json)
            SELECT trial_id, key, text FROM trials t CROSS JOIN LATERAL
                unnest(ARRAY[{keys}], ARRAY[{texts}]) WITH ORDINALITY AS a (key, text, k)
            WHERE {_NEW} AND text IS NOT NULL ORDER BY trial_id, k
            """
        )
    return found
