"""A study as a whole: its copy goes on elsewhere, its deletion touches nothing else."""

from __future__ import annotations

import io
import math
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.artifacts import upload_artifact
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpo import cli
from hpo.database.artifacts import DatabaseArtifacts
from hpo.database.checkpoints import Origin, StoredCheckpoints
from hpo.database.connection import connect
from hpo.database.migrations import create_tables
from hpo.database.records import Records
from hpo.database.schema import (
    OWN,
    artifacts,
    controls,
    divergences,
    hosts,
    leases,
    metrics,
    spans,
    spending,
    tickets,
    workers,
)
from hpo.database.storage import open_storage
from hpo.engine.reports import Sample
from hpo.errors import ConfigurationError, RunFailed, StorageError
from hpo.guard import replay, saved_step
from hpo.study import copy as study_copy
from hpo.study import deletion, identity
from hpo.study.deletion import Folders
from hpo.study.study import OpenStudy
from hpo.tickets.budget import Tickets
from hpo.tickets.crew import Crew, Member
from hpo.tickets.leases import process_id
from hpo.tickets.ticket import Ticket
from objectives import load
from tests.support.processes import kill_all, wait_until
from tests.support.program import HANGS_S, Command, Program
from tests.support.studies import keep, keep_metrics
from tests.support.toys import CPU

# From its eighth trial on an objective that is slow, until there is the file `go`.
OBJECTIVE = """
import time
from pathlib import Path
from objectives.quadratic import Quadratic, QuadraticTask

FOLDER = Path({folder!r})

class SlowTask(QuadraticTask):
    def __init__(self, params, context):
        super().__init__(params, context)
        with (FOLDER / "built").open("a") as file:
            file.write(".")
        self._is_slow = (FOLDER / "built").stat().st_size > 7

    def batch(self, step):
        if self._is_slow and not (FOLDER / "go").exists() and step > 1:
            (FOLDER / "slow").touch()
            time.sleep(0.3)
        return super().batch(step)

class Slow(Quadratic):
    name = "slow"
    def build(self, params, context):
        return SlowTask(params, context)

objective = Slow()
"""

CONFIG = {
    **{"objective": "quadratic", "source": "-", "metric": "distance", "direction": "maximize"},
    **{"size": "tiny", "epochs": 4, "space": "wide", "precision": "fp32", "problem_seed": 0},
    **{"seed": 0, "sampler": "tpe", "pruner": "none", "on_precision_range": "prune"},
}


def trials(url: str, name: str) -> list[FrozenTrial]:
    return optuna.load_study(study_name=name, storage=url).get_trials()


@pytest.mark.acceptance
def test_a_study_copied_to_another_server_goes_on_there(
    program: Program, url: str, empty_url: str, tmp_path: Path
):
    path = tmp_path / "slow.py"
    path.write_text(OBJECTIVE.format(folder=str(tmp_path)))
    run = program.start(
        *("--objective", str(path), "--study_name", "s", "--n_trials", "9", "--workers", "1"),
        *("--epochs_per_trial", "4"),
    )
    wait_until((tmp_path / "slow").exists)
    run.send_signal(signal.SIGINT)
    told = run.communicate(timeout=HANGS_S)[1]
    (tmp_path / "go").touch()

    copied = program("copy", "--to", "-", text=empty_url + "\n")
    there = trials(empty_url, "s")
    more = Program(empty_url, program.home)(
        "--study_name", "s", "--n_trials", "10", "--workers", "1"
    )

    assert run.returncode == 130, told
    assert copied.returncode == 0, copied.stderr
    here = trials(url, "s")
    states = {trial.state for trial in here}
    assert states == {TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING}
    assert content(there) == content(here)
    assert "--study_name s --n_trials 9" in copied.stdout
    assert empty_url.split(":")[2].split("@")[0] not in copied.stdout + copied.stderr
    assert "rows" in copied.stderr
    # Exactly as many trials as asked for, and the interrupted one went on where it was.
    assert more.returncode == 0, more.stderr
    ended = trials(empty_url, "s")
    assert len(ended) == 10
    assert all(trial.state.is_finished() for trial in ended)
    assert content(trials(url, "s")) == content(here)
    db, number = connect(empty_url), len(here) - 1
    with db.connect() as connection:
        found = connection.execute(sa.select(metrics).where(metrics.c.ticket == number + 1)).all()
    assert len({row.run_uid for row in found}) == 2
    assert [row.epoch for row in found].count(0) == 1
    # And a diverged one is judged again.
    uid = optuna.load_study(study_name="s", storage=empty_url).user_attrs["study_uid"]
    diverged = next(t for t in here if t.user_attrs["prune_reason"] == "loss_nonfinite")
    kept = Records(db, uid).divergence(diverged.number)
    file = saved_step.read(DatabaseArtifacts(db).open_reader(kept["artifact_id"]).read(), "step")
    assert replay.replay(file, load(str(path)), device=CPU, step=None).reason == "loss_nonfinite"


def content(found: list[FrozenTrial]) -> list[dict[str, Any]]:
    """All that Optuna knows of trials but their ids, attributes in their order; NaN as text."""
    return [
        {
            key: repr(list(value.items()) if isinstance(value, dict) else value)
            for key, value in vars(trial).items()
            if key != "_trial_id"
        }
        for trial in found
    ]


def create(url: str, name: str, folder: Path, *, uid: str | None = None) -> OpenStudy:
    """A study with trials of every kind, and rows in every table of ours."""
    db = connect(url)
    storage = open_storage(db)
    study = optuna.create_study(study_name=name, storage=storage, direction="maximize")
    uid = uid or str(uuid.uuid4())
    study.set_user_attr("config", CONFIG)
    study.set_user_attr("study_uid", uid)
    identity.resolve(db, uid, study._study_id)
    opened = OpenStudy(name=name, uid=uid, study_id=study._study_id, config=None, storage=storage)
    space = {
        "a": FloatDistribution(1e-9, 1e9, log=True),
        "b": IntDistribution(1, 7, step=2),
        "c": CategoricalDistribution(["x", None, 3]),
    }
    for number, state in enumerate(["COMPLETE", "PRUNED", "FAIL", "WAITING"]):
        study.add_trial(
            create_trial(
                state=TrialState[state],
                params={"a": 0.1 + 1e-17 * number, "b": 3, "c": None},
                distributions=space,
                value=1 / 3 if state == "COMPLETE" else None,
                intermediate_values={2: math.inf, 0: math.nan, 1: -1 / 3},
                user_attrs={"z": "é\\\t'\"", "run_uid": str(uuid.uuid4()), "a": None},
                system_attrs={"constraints:nonfinite": 1.0},
            )
        )
    budget = Tickets(db, uid)
    budget.grow(3)
    budget.limit(max_hours=9, max_gpu_hours=None)
    with db.begin() as connection:
        now = sa.func.now()
        span = {"run_uid": str(uuid.uuid4()), "study_uid": uid, "began": now, "ended": now}
        connection.execute(spans.insert().values(**span, gpus=0, lost=0))
    ticket = budget.take(worker="host:cpu:0", slot="cpu:0")
    storage.hold(ticket)
    storage.create_trial(study._study_id, user_attrs={"prune_reason": "-"}, system_attrs={})
    storage.hold(None)
    member = Member(
        worker="host/cpu:0",
        host="host",
        slot="cpu:0",
        process=process_id(),
        launcher="none",
        version={"hpo": "abc"},
    )
    Crew(db, uid).join(member, {"python": "3"}, is_mixed=False)
    records = Records(db, uid)
    records.save_environment("host:cpu:0", {"python": "3"})
    samples = [
        Sample(sample=0, kind="grid", latency_s=0.1, prediction=[[1]], score=math.nan),
        Sample(sample=1, kind="error", latency_s=0.1, error="é'\\"),
    ]
    where = {"run_uid": ticket.run_uid, "epoch": 0, "step": 8}
    keep_metrics(db, records.epoch(**where, ticket=1, values={"error": 1e-7, "nan": math.nan}))
    keep(db, records.predicted([vars(one) for one in samples], **where, trial_number=4))
    body = bytes(range(256)) * 5000
    origin = Origin(run_uid=ticket.run_uid, ticket=1, number=4, attempt=1, step=8)
    StoredCheckpoints(db, uid).put(io.BytesIO(body), origin, size=len(body), sha256="-")
    (folder / "step.pt").write_bytes(body)
    _, artifact_id = (
        upload_artifact(
            artifact_store=DatabaseArtifacts(db),
            file_path=str(folder / "step.pt"),
            study_or_trial=owner,
            storage=storage,
        )
        for owner in (study, study.trials[-1])
    )
    diverged = {"reason": "stalled", "detail": "-", "precision": "fp32", "evidence": {"x": None}}
    row = {"study_uid": uid, "trial_number": 1, "ticket": 2, "run_uid": ticket.run_uid}
    with db.begin() as connection:
        connection.execute(divergences.insert().values(**row, **diverged, artifact_id=artifact_id))
        connection.execute(
            tickets.update()
            .where(tickets.c.study_uid == uid, tickets.c.ticket == 2)
            .values(params={"a": None})
        )
    checkpoints = folder / "checkpoints" / uid
    checkpoints.mkdir(parents=True)
    for file in ("trial_00004.pt", "trial_00004.17.tmp"):
        (checkpoints / file).write_bytes(b"weights")
    return opened


def copy(url: str, opened: OpenStudy, to: str, name: str, folder: Path, progress=None):
    return study_copy.copy(
        connect(url),
        opened,
        connect(to, application="copy"),
        name=name,
        checkpoints=folder / "checkpoints",
        progress=progress or (lambda *_: None),
    )


def folders(folder: Path) -> Folders:
    return Folders(checkpoints=folder / "checkpoints", logs=folder / "logs")


def dump(url: str) -> dict[str, list[str]]:
    """Every row of every table, as text."""
    names = [t.fullname for t in (*models.BaseModel.metadata.sorted_tables, *OWN.sorted_tables)]
    with connect(url).connect() as connection:
        return {
            name: sorted(connection.scalars(sa.text(f"SELECT t::text FROM {name} t")))
            for name in names
        }


@pytest.fixture
def two(url: str, tmp_path: Path) -> Iterator[tuple[OpenStudy, OpenStudy]]:
    return create(url, "s", tmp_path), create(url, "other", tmp_path)


def test_a_copy_has_every_row_of_its_source_and_of_no_other_study(
    url: str, empty_url: str, two: tuple[OpenStudy, OpenStudy], tmp_path: Path
):
    copied = copy(url, two[0], empty_url, "s", tmp_path)

    assert content(trials(empty_url, "s")) == content(trials(url, "s"))
    here, there = dump(url), dump(empty_url)
    # What the source's workers hold and have spent is the source's.
    left = (leases, spans, spending, workers, hosts, controls)
    for table in (t for t in OWN.sorted_tables if "study_uid" in t.c and t not in left):
        mine = [
            row.replace(two[0].uid, copied.uid).replace("leased", "open")
            for row in here[table.fullname]
            if two[0].uid in row
        ]
        assert mine, table
        assert there[table.fullname] == mine
    assert [there[table.fullname] for table in left] == [[]] * len(left)
    # Of this study alone: the other one has as many parts.
    assert 2 * len(there["hpo.artifacts"]) == len(here["hpo.artifacts"])
    assert len(there["trials"]) == 5
    (study,) = optuna.get_all_study_summaries(storage=empty_url)
    assert study.direction.name == "MAXIMIZE"
    assert study.user_attrs == {"config": CONFIG, "study_uid": copied.uid}
    assert copied.checkpoints == tmp_path / "checkpoints" / copied.uid
    assert [path.name for path in copied.checkpoints.iterdir()] == ["trial_00004.pt"]
    assert copied.total == 3


def test_a_copy_and_its_deletion_leave_all_tables_and_files_as_they_were(
    url: str, two: tuple[OpenStudy, OpenStudy], tmp_path: Path
):
    before, files = dump(url), sorted(tmp_path.rglob("*"))
    copied = copy(url, two[0], url, "second", tmp_path)
    during = dump(url)

    db = connect(url)
    deletion.delete(db, deletion.find(db, "second"), folders(tmp_path))

    after = dump(url)
    # By its identity, other hosts find the files that they have of it.
    kept = set(after.pop("hpo.identities")) - set(before.pop("hpo.identities"))
    assert [row.split(",")[0] for row in kept] == [f"({copied.uid}"]
    assert after == before
    assert sorted(tmp_path.rglob("*")) == files
    # The copy had all of its own, and no name in common.
    assert len(during["hpo.artifacts"]) == 3 * len(before["hpo.artifacts"]) // 2
    assert len(during["hpo.metrics"]) == 3
    assert copied.uid not in str(before)


def test_a_deleted_study_leaves_nothing_and_its_copy_whole(
    url: str, two: tuple[OpenStudy, OpenStudy], tmp_path: Path
):
    db, opened = connect(url), two[0]
    copied = copy(url, opened, url, "second", tmp_path)
    before = content(trials(url, "second")), content(trials(url, "other"))
    with db.begin() as connection:
        run_uids = connection.scalars(
            leases.delete().where(leases.c.study_uid == opened.uid).returning(leases.c.run_uid)
        ).all()
    number = deletion.find(db, "s").study_id
    logs = tmp_path / "logs" / opened.uid
    logs.mkdir(parents=True)
    (logs / "worker-cpu-0.log").write_text("")

    deletion.delete(db, deletion.find(db, "s"), folders(tmp_path))

    after = dump(url)
    del after["hpo.identities"]
    for name in (opened.uid, *run_uids):
        assert name not in str(after)
    with db.connect() as connection:
        for table in models.BaseModel.metadata.sorted_tables:
            column = next((c for c in table.c if c.name in ("study_id", "trial_id")), None)
            if column is not None and column.name == "study_id":
                assert number not in connection.scalars(sa.select(column)).all()
    assert len(after["trials"]) == 10
    assert len(after["trial_params"]) == 2 * 4 * 3
    assert (content(trials(url, "second")), content(trials(url, "other"))) == before
    for uid in (copied.uid, two[1].uid):
        kept = Records(db, uid).divergence(1)
        assert len(DatabaseArtifacts(db).open_reader(kept["artifact_id"]).read()) == 256 * 5000
        assert (tmp_path / "checkpoints" / uid / "trial_00004.pt").exists()
    assert not (tmp_path / "checkpoints" / opened.uid).exists()
    assert not logs.exists()


def test_a_copy_that_loses_its_connection_leaves_nothing_and_can_be_repeated(
    url: str, two: tuple[OpenStudy, OpenStudy], tmp_path: Path
):
    before, files = dump(url), sorted(tmp_path.rglob("*"))
    db = connect(url)

    def cut(table: str, done: int, total: int) -> None:
        if table == "tickets":
            with db.begin() as connection:
                connection.execute(
                    sa.text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = "
                        "current_database() AND application_name = 'hpo copy'"
                    )
                )

    with pytest.raises(RunFailed, match="nothing of it is kept there"):
        copy(url, two[0], url, "second", tmp_path, cut)

    assert dump(url) == before
    assert sorted(tmp_path.rglob("*")) == files
    copy(url, two[0], url, "second", tmp_path)
    assert len(trials(url, "second")) == len(trials(url, "s"))


@pytest.mark.acceptance
def test_of_two_copies_at_once_one_wins_and_kill_9_leaves_nothing_of_it(
    program: Program, url: str, two: tuple[OpenStudy, OpenStudy], tmp_path: Path
):
    before = dump(url)
    waiting = sa.text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name = 'hpo copy' AND wait_event_type = 'Lock'"
    )
    db = connect(url)
    # Within a transaction PostgreSQL shows the same activity again and again.
    watcher = db.connect().execution_options(isolation_level="AUTOCOMMIT")
    with watcher, db.begin() as connection:
        # Optuna's rows can be written, ours cannot.
        connection.execute(sa.text("LOCK TABLE hpo.tickets IN SHARE ROW EXCLUSIVE MODE"))
        process = program.start("copy", "--study_name", "s", "--to", url, "--as", "second")
        wait_until(lambda: watcher.scalar(waiting) or process.poll() is not None)
        assert process.poll() is None, process.communicate()

        with pytest.raises(StorageError, match="another study is being copied"):
            copy(url, two[1], url, "third", tmp_path)
        kill_all(process.pid)
        process.communicate(timeout=HANGS_S)

    # The server notices by itself that nobody is there any more.
    claimed = sa.text(
        "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database "
        "WHERE locktype = 'advisory' AND datname = current_database()"
    )
    with db.connect() as connection:
        wait_until(lambda: not connection.scalar(claimed))
    assert dump(url) == before
    copy(url, two[0], url, "second", tmp_path)


def test_a_name_that_is_taken_is_refused(
    url: str, two: tuple[OpenStudy, OpenStudy], tmp_path: Path
):
    before = dump(url)

    for name in ("s", "other"):
        with pytest.raises(ConfigurationError, match=rf"named '{name}' in .*\*\*\*.*--as NEW_NAME"):
            copy(url, two[0], url, name, tmp_path)

    assert dump(url) == before


@pytest.mark.parametrize(
    ("to", "words"),
    [
        ("sqlite:///x.db", "is not a PostgreSQL database with psycopg2"),
        ("postgres://me:secret@h/d", "write 'postgresql+psycopg2://me:***@h/d' (--to)"),
        ("postgresql+psycopg2://me:secret@127.0.0.1:9/d", "does not answer"),
        ("", "cannot be read"),
    ],
)
def test_a_target_that_cannot_be_is_named_by_its_flag(to: str, words: str, capsys):
    code = cli.main(["copy", "--to", to])

    told = capsys.readouterr().err
    assert code == 2
    assert words in told
    assert "(--to)" in told
    assert "secret" not in told
    assert "HPO_STORAGE" not in told
    assert len(told.splitlines()) <= 2


def test_a_study_is_not_deleted_while_a_worker_holds_a_trial_of_it(
    url: str, two: tuple[OpenStudy, OpenStudy], tmp_path: Path
):
    before, db = dump(url), connect(url)

    with pytest.raises(ConfigurationError, match="worked on by host:cpu:0; end its run"):
        deletion.delete(db, deletion.find(db, "s"), folders(tmp_path))

    assert dump(url) == before
    assert (tmp_path / "checkpoints" / two[0].uid).exists()


def test_a_copy_of_optunas_does_not_lift_the_refusal_and_keeps_its_rows(
    url: str, two: tuple[OpenStudy, OpenStudy], tmp_path: Path
):
    db = connect(url)
    optuna.copy_study(from_study_name="s", from_storage=url, to_storage=url, to_study_name="b")

    with pytest.raises(ConfigurationError, match="worked on by host:cpu:0; end its run"):
        deletion.delete(db, deletion.find(db, "s"), folders(tmp_path))
    with db.begin() as connection:
        connection.execute(leases.delete())
    deletion.delete(db, deletion.find(db, "s"), folders(tmp_path))
    copied = deletion.find(db, "b")

    assert copied.uid not in (None, two[0].uid)
    with db.connect() as connection:
        of = sa.select(tickets.c.study_uid, sa.func.count()).group_by(tickets.c.study_uid)
        found = dict(connection.execute(of).all())
    assert found[copied.uid] == 3
    assert two[0].uid not in found
    assert not (tmp_path / "checkpoints" / two[0].uid).exists()


def test_a_role_that_may_not_delete_is_told_so_and_nothing_is_lost(
    url: str, two: tuple[OpenStudy, OpenStudy], tmp_path: Path
):
    db, role = connect(url), f"r{uuid.uuid4().hex[:8]}"
    with db.begin() as connection:
        connection.execute(leases.delete())
        for statement in (
            f"CREATE ROLE {role} LOGIN PASSWORD 'x'",
            f"GRANT USAGE ON SCHEMA hpo TO {role}",
            *(
                f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA {schema} TO {role}"
                for schema in ("public", "hpo")
            ),
        ):
            connection.execute(sa.text(statement))
    before = dump(url)
    as_role = connect(db.url.set(username=role, password="x").render_as_string(False))

    try:
        with pytest.raises(StorageError, match=rf"role '{role}' may not delete it \(permission"):
            deletion.delete(as_role, deletion.find(as_role, "s"), folders(tmp_path))
    finally:
        as_role.dispose()
        with db.begin() as connection:
            connection.execute(sa.text(f"DROP OWNED BY {role}"))
            connection.execute(sa.text(f"DROP ROLE {role}"))

    assert dump(url) == before
    assert (tmp_path / "checkpoints" / two[0].uid).exists()


def test_what_shares_a_uid_with_another_study_is_left_to_it(
    url: str, two: tuple[OpenStudy, OpenStudy], tmp_path: Path
):
    before, db = dump(url), connect(url)
    # Optuna's own copy takes attributes as they are, those that name our rows and files included.
    optuna.copy_study(
        from_study_name="s", from_storage=url, to_storage=url, to_study_name="optuna's"
    )

    deletion.delete(db, deletion.find(db, "optuna's"), folders(tmp_path))

    assert dump(url) == before
    assert (tmp_path / "checkpoints" / two[0].uid).exists()


def test_the_command_asks_before_it_deletes_and_takes_a_study_of_optuna_alone(
    command: Command, url: str, tmp_path: Path
):
    before = dump(url)
    study = optuna.create_study(study_name="bare", storage=url)
    # A uid that is none must not become a folder to be removed.
    study.set_user_attr("study_uid", "..")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)

    refused = command("delete")
    nothing = command("delete", "--study_name", "bar", "--yes")
    deleted = command("delete", "--yes")

    assert refused.returncode == nothing.returncode == 2
    assert "trials     2" in refused.stderr
    assert "whether to delete study 'bare'; write --yes" in refused.stderr
    assert "no study named 'bar'; use one of bare" in nothing.stderr
    assert deleted.returncode == 0, deleted.stderr
    assert dump(url) == before
    assert tmp_path.exists()


def test_every_table_of_ours_is_a_studys_or_known_not_to_be():
    not_of_a_study = {t.name for t in OWN.sorted_tables if t not in deletion.TABLES}
    named_alone = {
        t.name for t in deletion.TABLES if t.schema and "study_uid" not in t.primary_key.columns
    }

    assert not_of_a_study == {"schema_version"}
    # Two copies of one study would have these in common; `study_copy` gives them other names.
    assert named_alone == {leases.name, spans.name, metrics.name, artifacts.name}
    assert {c.name for c in artifacts.primary_key} == {"artifact_id", "part"}


def test_a_ticket_of_the_source_is_no_ticket_of_the_copy(
    url: str, empty_url: str, two: tuple[OpenStudy, OpenStudy], tmp_path: Path
):
    create_tables(connect(empty_url))
    copied = copy(url, two[0], empty_url, "s", tmp_path)

    taken = Tickets(connect(empty_url), copied.uid).take(worker="w", slot="cpu:0")

    # The one that a worker of the source holds is open here, with its trial.
    assert isinstance(taken, Ticket)
    assert (taken.ticket, taken.attempt, taken.trial_number) == (1, 2, 4)
    assert [lease.ticket for lease in Tickets(connect(url), two[0].uid).live()] == [1]
