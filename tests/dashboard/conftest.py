"""A study with an artifact, and servers of the dashboard on its database."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.artifacts import upload_artifact

from hpo.dashboard.server import DashboardServer, make_dashboard
from hpo.database.artifacts import DatabaseArtifacts
from hpo.database.connection import connect
from tests.support.requests import NAME, PAGE, Start


@pytest.fixture
def place(url: str, tmp_path: Path) -> str:
    """The path of an HTML artifact of a running trial, in a study of its own."""
    study = optuna.create_study(storage=url, study_name="s")
    trial = study.ask()
    file = tmp_path / NAME
    file.write_bytes(PAGE)
    artifact = upload_artifact(
        artifact_store=DatabaseArtifacts(connect(url)), file_path=str(file), study_or_trial=trial
    )
    return f"/artifacts/{study._study_id}/{trial._trial_id}/{artifact}"


@pytest.fixture
def start(url: str) -> Iterator[Start]:
    """Start servers on the database."""
    started = []

    def begin(*, host: str = "127.0.0.1", **settings: object) -> DashboardServer:
        server = make_dashboard(url, host=host, port=0, **settings)
        started.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    yield begin
    for server in started:
        server.shutdown()
        server.server_close()
