"""Studies with thousands of ended trials, the same ones for both peers, as template databases.

A peer makes its study and runs two trials itself. All further ones are copies of the second one's
rows, with configurations and values of their own, drawn with one seed. So whatever a peer stores
with a trial is there as often as it would be, and nothing of the other peer is.
"""

from __future__ import annotations

import io
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from objectives import Choice
from peers.processes import ROOT, environment
from peers.server import Server
from peers.space import SPACE, badness, drawn

STUDY = "committed"
OBJECTIVE = ROOT / "benchmarks" / "peers" / "objective.py"
# The first trial of ours is the default configuration's; the second one is like all others.
RUN = 2

_TRIALS = """
INSERT INTO trials (number, study_id, state, datetime_start, datetime_complete)
SELECT n, m.study_id, m.state, m.datetime_start - ago, m.datetime_complete - ago
FROM (SELECT n, (1 + max(n) OVER () - n) * interval '1 s' AS ago FROM ended) e, trials m
WHERE m.number = 1 ORDER BY n;
CREATE TEMP TABLE made AS SELECT t.trial_id, n, gen_random_uuid()::text AS run
FROM ended JOIN trials t ON t.number = n;
CREATE TEMP TABLE model AS SELECT trial_id FROM trials WHERE number = 1;
INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json)
SELECT made.trial_id, name, d.value, p.distribution_json
FROM made JOIN drawn d USING (n), trial_params p
WHERE p.trial_id = (SELECT trial_id FROM model) AND p.param_name = name ORDER BY 1, p.param_id;
INSERT INTO trial_values (trial_id, objective, value, value_type)
SELECT made.trial_id, 0, e.value, 'FINITE' FROM made JOIN ended e USING (n) ORDER BY 1;
INSERT INTO trial_intermediate_values
    (trial_id, step, intermediate_value, intermediate_value_type)
SELECT made.trial_id, step, CASE WHEN step = 12 THEN e.value ELSE intermediate_value END,
    intermediate_value_type
FROM made JOIN ended e USING (n), trial_intermediate_values v
WHERE v.trial_id = (SELECT trial_id FROM model) ORDER BY 1, 2;
INSERT INTO trial_user_attributes (trial_id, key, value_json)
SELECT made.trial_id, key, CASE key WHEN 'run_uid' THEN to_json(run)::text ELSE value_json END
FROM made, trial_user_attributes a
WHERE a.trial_id = (SELECT trial_id FROM model) ORDER BY 1, a.trial_user_attribute_id;
INSERT INTO trial_system_attributes (trial_id, key, value_json)
SELECT made.trial_id, key, CASE key WHEN 'hpo:number' THEN n::text ELSE value_json END
FROM made, trial_system_attributes a
WHERE a.trial_id = (SELECT trial_id FROM model) ORDER BY 1, a.trial_system_attribute_id;
"""
_OWN = """
INSERT INTO hpo.tickets (study_uid, ticket, state, trial_number, attempt)
SELECT study_uid, n + 1, state, n, attempt FROM made, hpo.tickets WHERE ticket = 2 ORDER BY n;
INSERT INTO hpo.metrics (run_uid, epoch, study_uid, ticket, step, values)
SELECT run::uuid, epoch, study_uid, n + 1, step, values FROM made, hpo.metrics
WHERE ticket = 2 ORDER BY n, epoch;
"""
_OPEN = """
INSERT INTO hpo.tickets (study_uid, ticket)
SELECT study_uid, n FROM hpo.identities, generate_series({first}, {last}) n;
"""
_RUNNING = """
CREATE TEMP TABLE model AS SELECT trial_id, study_id FROM trials WHERE number = 1;
INSERT INTO trials (number, study_id, state, datetime_start)
SELECT n, study_id, 'RUNNING', now() AT TIME ZONE 'UTC'
FROM model, generate_series({first}, {last}) n;
CREATE TEMP TABLE made AS SELECT t.trial_id, t.number FROM trials t WHERE state = 'RUNNING';
INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json)
SELECT made.trial_id, param_name, param_value, distribution_json
FROM made, trial_params p WHERE p.trial_id = (SELECT trial_id FROM model);
INSERT INTO trial_intermediate_values
    (trial_id, step, intermediate_value, intermediate_value_type)
SELECT made.trial_id, step, intermediate_value, intermediate_value_type
FROM made, trial_intermediate_values v
WHERE v.trial_id = (SELECT trial_id FROM model) AND step <= 6;
INSERT INTO trial_user_attributes (trial_id, key, value_json)
SELECT made.trial_id, key, value_json
FROM made, trial_user_attributes a WHERE a.trial_id = (SELECT trial_id FROM model);
INSERT INTO trial_system_attributes (trial_id, key, value_json)
SELECT made.trial_id, key, CASE key WHEN 'hpo:number' THEN number::text ELSE value_json END
FROM made, trial_system_attributes a
WHERE a.trial_id = (SELECT trial_id FROM model) AND key NOT LIKE 'constraints%';
INSERT INTO hpo.tickets (study_uid, ticket, state, trial_number, attempt)
SELECT study_uid, number + 1, 'leased', number, 1 FROM made, hpo.identities;
DROP TABLE made, model;
VACUUM ANALYZE;
"""


def templates(server: Server, size: int) -> dict[str, str]:
    """Make the studies with so many ended trials; their databases by peer.

    Args:
        size: Ended trials, but for `RUN` those that a peer runs itself are the least.
    """
    found = {}
    for peer, begin in (("hpo", _begin_ours), ("optuna", _begin_optuna)):
        base, found[peer] = f"{peer}_base", f"{peer}_{size}"
        if not server.database.query(f"SELECT 1 FROM pg_database WHERE datname = '{base}'"):
            server.make(base)
            begin(server, base)
        server.make(found[peer], template=base)
        connection = server.connect(found[peer])
        if size > RUN:
            _fill(connection.cursor(), size, is_ours=peer == "hpo")
        connection.close()
    return found


def open_tickets(server: Server, database: str, *, first: int, count: int) -> None:
    """Add open tickets to our study."""
    connection = server.connect(database)
    connection.cursor().execute(_OPEN.format(first=first, last=first + count - 1))
    connection.close()


def add_running(server: Server, database: str, *, first: int, count: int) -> None:
    """Add trials to our study that run for ever, half done, as rows."""
    connection = server.connect(database)
    for statement in _RUNNING.format(first=first, last=first + count - 1).split(";\n"):
        if statement.strip():
            connection.cursor().execute(statement)
    connection.close()


def _begin_ours(server: Server, database: str) -> None:
    """Run two trials, as a user does; the home is not needed any more."""
    words = (
        *("run", "--objective", str(OBJECTIVE), "--study_name", STUDY, "--n_trials", str(RUN)),
        *("--workers", "1", "--sampler", "tpe", "--pruner", "median", "--quiet"),
        *("--epochs_per_trial", "12"),
    )
    own = {"HPO_STORAGE": server.url(database), "HPO_HOME": str(server.folder / "home")}
    _run([sys.executable, "-m", "hpo", *words], own)


def _begin_optuna(server: Server, database: str) -> None:
    words = (server.url(database), STUDY, str(RUN), "0")
    _run([sys.executable, "-m", "peers.bare_optuna", *words], {})


def _run(command: list[str], own: dict[str, str]) -> None:
    done = subprocess.run(
        command, env=environment(**own), cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command[:4])} ended with {done.returncode}: {done.stderr}")


def _fill(cursor: Any, size: int, *, is_ours: bool) -> None:
    """Add ended trials up to a number of them."""
    # Both are ordinary names of columns, so that the statements above read as what they are.
    cursor.execute("CREATE TEMP TABLE drawn (n int, name text, value float8)")
    cursor.execute("CREATE TEMP TABLE ended (n int, value float8)")
    params, values = io.StringIO(), io.StringIO()
    rng = random.Random(0)
    [(distance,)] = _rows(
        cursor,
        "SELECT intermediate_value FROM trial_intermediate_values WHERE step = 11 LIMIT 1",
    )
    for number in range(RUN, size):
        found = drawn(rng)
        values.write(f"{number}\t{0.9 * distance + badness(found)!r}\n")
        for name, value in found.items():
            spec = SPACE[name]
            stored = spec.choices.index(value) if isinstance(spec, Choice) else value
            params.write(f"{number}\t{name}\t{stored!r}\n")
    for table, text in (("drawn", params), ("ended", values)):
        text.seek(0)
        cursor.copy_from(text, table)
    cursor.execute(_TRIALS + (_OWN if is_ours else ""))
    cursor.execute("DROP TABLE drawn, ended, made, model")
    # A study that has grown trial by trial has been analyzed on its way.
    cursor.execute("VACUUM ANALYZE")


def _rows(cursor: Any, statement: str) -> list[tuple[Any, ...]]:
    cursor.execute(statement)
    return list(cursor.fetchall())


def home(folder: Path, name: str) -> Path:
    """A fresh home for a repetition's processes."""
    path = folder / "homes" / name
    path.mkdir(parents=True, exist_ok=True)
    return path
