"""What studies leave behind that other programs deleted: `gc` and `delete` remove that alone."""

from __future__ import annotations

import io
import json
import uuid
from datetime import timedelta
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from optuna.storages._rdb import models

from hpo.database.artifacts import DatabaseArtifacts
from hpo.database.connection import connect
from hpo.database.schema import OWN, artifacts, divergences, identities, leases
from hpo.study import identity, study
from tests.study.test_whole_study import create, dump
from tests.support.program import Command


@pytest.fixture
def home(command: Command, tmp_path: Path) -> Path:
    """The home of the commands."""
    home = tmp_path / "home"
    home.mkdir()
    return home


def gone(url: str, home: Path, name: str = "s") -> study.OpenStudy:
    """A study with rows in every table, files of each kind, and no worker, deleted by Optuna."""
    opened = create(url, name, home)
    logs = home / "logs" / opened.uid
    logs.mkdir(parents=True)
    (logs / "worker-cpu-0.log").write_text("words")
    silence(url)
    optuna.delete_study(study_name=name, storage=url)
    return opened


def silence(url: str) -> None:
    """Let every worker be silent for longer than a lease lives."""
    with connect(url).begin() as connection:
        connection.execute(sa.text("UPDATE hpo.leases SET beat_at = now() - interval '1 hour'"))


def age(url: str, hours: float | None) -> None:
    """Have every artifact be this old; None for one of before version 5."""
    at = None if hours is None else sa.func.now() - timedelta(hours=hours)
    with connect(url).begin() as connection:
        connection.execute(artifacts.update().values(at=at))


def stored(url: str) -> set[str]:
    with connect(url).connect() as connection:
        return set(connection.scalars(sa.select(artifacts.c.artifact_id)))


def test_gc_removes_what_a_gone_study_left_and_nothing_of_another(
    command: Command, url: str, home: Path
):
    other = create(url, "other", home)
    before = dump(url)
    opened = gone(url, home)
    # The same home may serve another database, whose studies are unknown here.
    foreign = home / "checkpoints" / str(uuid.uuid4())
    foreign.mkdir()
    (foreign / "trial_00000.pt").write_text("weights")
    age(url, 2)
    during = dump(url)

    counted = command("gc", "--dry_run", "--json")
    shown = command("gc", "--dry_run")
    unchanged = dump(url)
    removed = command("gc", "--json")
    after = dump(url)
    again = json.loads(command("gc", "--json").stdout)["left_behind"]

    assert counted.returncode == removed.returncode == 0, counted.stderr + removed.stderr
    assert unchanged == during
    one = json.loads(counted.stdout)["left_behind"]
    assert (one["studies"], one["files"], one["artifacts"]) == (1, 3, 2)
    assert one["artifact_bytes"] == 2 * 256 * 5000
    assert one["rows"] == {
        **{"tickets": 3, "leases": 1, "metrics": 1, "predictions": 2},
        **{"environments": 1, "divergences": 1, "checkpoints": 1},
        **{"spending": 1, "spans": 1, "workers": 1, "hosts": 1, "controls": 1},
    }
    # Predictions are counted, and removed, with the old ones.
    rest = {**one, "rows": {**one["rows"], "predictions": 0}}
    assert json.loads(removed.stdout)["left_behind"] == rest
    assert json.loads(removed.stdout)["of_gone_studies"] == 2
    assert "3 tickets" in shown.stdout
    assert "2 predictions" in shown.stdout
    assert "3 files of theirs on this host" in shown.stdout
    assert "2 artifacts without a study (2.6 MB) would be removed" in " ".join(shown.stdout.split())
    assert again == {
        **one,
        "rows": dict.fromkeys(one["rows"], 0),
        **dict.fromkeys(("studies", "artifacts", "artifact_bytes", "files", "file_bytes"), 0),
    }
    for table in (
        *OWN.sorted_tables,
        *models.BaseModel.metadata.sorted_tables,
    ):
        if table not in (identities, leases, artifacts):
            assert after[table.fullname] == before[table.fullname], table
    assert len(after["hpo.artifacts"]) == len(before["hpo.artifacts"])
    # Other hosts find their files by it.
    assert any(opened.uid in row for row in after["hpo.identities"])
    assert not (home / "checkpoints" / opened.uid).exists()
    assert not (home / "logs" / opened.uid).exists()
    assert (foreign / "trial_00000.pt").exists()
    assert (home / "checkpoints" / other.uid / "trial_00004.pt").exists()


def test_files_on_another_host_go_with_its_own_gc(command: Command, url: str, home: Path):
    opened = gone(url, home)
    command("gc")
    # What the first host did not have.
    place = home / "checkpoints" / opened.uid
    place.mkdir()
    (place / "trial_00007.pt").write_text("weights")

    found = json.loads(command("gc", "--json").stdout)["left_behind"]

    assert (found["studies"], found["files"], found["file_bytes"]) == (1, 1, 7)
    assert not place.exists()


def test_a_gone_study_of_before_version_5_is_remembered_by_its_uid(
    command: Command, url: str, home: Path
):
    opened = gone(url, home)
    with connect(url).begin() as connection:
        connection.execute(identities.delete())

    found = json.loads(command("gc", "--json").stdout)["left_behind"]

    assert (found["studies"], found["rows"]["tickets"]) == (1, 3)
    # The saved step of its divergence; the study's other file is new and belongs to nobody yet.
    assert (found["artifacts"], len(dump(url)["hpo.artifacts"])) == (1, 2)
    assert [row.split(",")[0] for row in dump(url)["hpo.identities"]] == [f"({opened.uid}"]


def test_a_gone_study_that_a_worker_holds_is_left_until_it_is_silent(
    command: Command, url: str, home: Path
):
    opened = create(url, "s", home)
    optuna.delete_study(study_name="s", storage=url)

    held = json.loads(command("gc", "--json").stdout)["left_behind"]
    silence(url)
    silent = json.loads(command("gc", "--json").stdout)["left_behind"]

    assert (held["studies"], held["rows"]["tickets"]) == (0, 0)
    assert (silent["studies"], silent["rows"]["tickets"]) == (1, 3)
    assert not (home / "checkpoints" / opened.uid).exists()


def test_a_study_that_lives_under_a_name_or_id_of_its_own_is_not_gone(
    command: Command, url: str, home: Path
):
    create(url, "s", home)
    silence(url)
    optuna.copy_study(from_study_name="s", from_storage=url, to_storage=url, to_study_name="t")
    # What is left has the uid, and is bound to it only when somebody works on it.
    optuna.delete_study(study_name="s", storage=url)
    # Another program's attribute of this name.
    optuna.create_study(study_name="x", storage=url).set_user_attr("study_uid", "../..")
    before = dump(url)

    found = command("gc", "--json")

    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["left_behind"]["studies"] == 0
    assert dump(url) == before


@pytest.mark.parametrize(("hours", "stays"), [(0.9, True), (1.1, False), (None, False)])
def test_an_artifact_that_nothing_refers_to_goes_after_an_hour(
    command: Command, url: str, home: Path, hours: float | None, stays: bool
):
    create(url, "s", home)
    kept = stored(url)
    DatabaseArtifacts(connect(url)).write("lost", io.BytesIO(b"step"))
    age(url, hours)

    found = json.loads(command("gc", "--json").stdout)["left_behind"]

    assert stored(url) == (kept | {"lost"} if stays else kept)
    assert (found["artifacts"], found["artifact_bytes"]) == ((0, 0) if stays else (1, 4))
    assert found["studies"] == 0


def test_artifacts_of_a_gone_study_stay_for_its_copy(command: Command, url: str, home: Path):
    create(url, "s", home)
    silence(url)
    optuna.copy_study(from_study_name="s", from_storage=url, to_storage=url, to_study_name="t")
    original, shared = study.open_study(connect(url), "s"), stored(url)
    of_trial = {
        key.removeprefix("artifacts:")
        for trial in original.load().trials
        for key in trial.system_attrs
        if key.startswith("artifacts:")
    }
    copied = identity.resolve(connect(url), original.uid, original.study_id + 1)
    optuna.delete_study(study_name="s", storage=url)
    age(url, None)

    command("gc")

    assert copied is not None and copied.uid != original.uid
    assert of_trial
    assert of_trial <= stored(url) <= shared
    store = DatabaseArtifacts(connect(url))
    assert all(len(store.open_reader(one).read()) == 256 * 5000 for one in of_trial)


def test_delete_removes_what_is_left_of_a_gone_study_by_its_name(
    command: Command, url: str, home: Path
):
    opened = gone(url, home)
    before = dump(url)

    asked = command("delete", "--study_name", "s")
    unchanged = dump(url)
    deleted = command("delete", "--study_name", "s", "--yes")
    nothing = command("delete", "--study_name", "s", "--yes")

    assert asked.returncode == 2
    assert "1 of epochs, 1 of divergences" in asked.stderr
    assert unchanged == before
    assert deleted.returncode == 0, deleted.stderr
    after = dump(url)
    assert [row.split(",")[0] for row in after.pop("hpo.identities")] == [f"({opened.uid}"]
    assert opened.uid not in str(after)
    assert not (home / "checkpoints" / opened.uid).exists()
    assert nothing.returncode == 2
    assert "no study named 's'" in nothing.stderr


def test_delete_takes_a_living_study_before_a_gone_one_of_the_same_name(
    command: Command, url: str, home: Path
):
    old = gone(url, home)
    new = create(url, "s", home)
    with connect(url).begin() as connection:
        connection.execute(leases.delete())

    first = command("delete", "--study_name", "s", "--yes")
    between = dump(url)
    second = command("delete", "--study_name", "s", "--yes")

    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    for opened, found in ((new, between), (old, dump(url))):
        del found["hpo.identities"]
        assert opened.uid not in str(found)
    with connect(url).connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(divergences)) == 0
