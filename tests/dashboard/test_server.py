"""The dashboard's server: read-only, its addresses, its flags."""

from __future__ import annotations

import http.client
import io
import json
import re
import socket

import optuna
import psycopg2
import pytest
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.exceptions import OptunaError
from sqlalchemy.exc import DBAPIError

from hpo.dashboard.server import make_dashboard, open_stores
from hpo.database import patience
from hpo.database.connection import connect
from hpo.database.preconditions import look
from hpo.errors import ConfigurationError, StorageError
from tests.support.program import HANGS_S, Program
from tests.support.requests import PAGE, Start, ask, reason, studies


def test_a_read_only_dashboard_refuses_every_write_and_shows_all(
    start: Start, url: str, place: str
):
    server = start(read_only=True)
    _, study, trial, artifact = place.strip("/").split("/")
    upload = json.dumps({"file": "data:,aGFsbG8=" + "A" * 10_000_000, "filename": "f"}).encode()

    for method, path, body in (
        ("DELETE", f"/api/studies/{study}", None),
        ("DELETE", f"/api/artifacts/{study}/{trial}/{artifact}", None),
        ("POST", f"/api/artifacts/{study}/{trial}", upload),
        ("POST", "/api/studies", b'{"study_name": "new", "directions": ["minimize"]}'),
        ("POST", f"/api/studies/{study}/rename", b'{"study_name": "renamed"}'),
        ("POST", f"/api/trials/{trial}/tell", b'{"state": "Fail"}'),
        ("PUT", f"/api/studies/{study}/note", b'{"version": 1, "body": "x"}'),
        ("OPTIONS", "/api/studies", None),
        ("delete", f"/api/studies/{study}", None),
    ):
        answer = ask(server, method, path, body=body)
        assert answer[0] == 405, (method, path)
        assert answer[1]["Allow"] == "GET, HEAD"
        assert "without --read_only" in reason(answer)
    assert ask(server, "GET", place)[2] == PAGE
    assert ask(server, "HEAD", "/dashboard")[0] == 200
    assert b'"s"' in ask(server, "GET", "/api/studies")[2]
    assert studies(url) == ["s"]
    (left,) = optuna.load_study(study_name="s", storage=url).get_trials()
    assert left.state.name == "RUNNING"


def test_the_database_refuses_the_writes_of_a_read_only_dashboard(
    url: str, place: str, monkeypatch: pytest.MonkeyPatch
):
    # A write would be tried again for as long, since another server may take it.
    monkeypatch.setattr(patience, "_patience_s", 0.0)
    study, trial, artifact = place.strip("/").split("/")[1:]
    storage, files = open_stores(url, read_only=True)

    for write in (
        lambda: storage.set_study_user_attr(int(study), "a", 1),
        lambda: storage.set_trial_user_attr(int(trial), "a", 1),
        lambda: storage.delete_study(int(study)),
        lambda: files.write("new", io.BytesIO(b"x")),
        lambda: files.remove(artifact),
    ):
        with pytest.raises((DBAPIError, OptunaError)) as raised:
            write()
        # Optuna wraps what the database said.
        assert "read-only transaction" in f"{raised.value} {raised.value.__cause__}"
    assert files.open_reader(artifact).read() == PAGE
    assert studies(url) == ["s"]
    with pytest.raises(ArtifactNotFound):
        files.open_reader("new")


@pytest.mark.parametrize("read_only", [True, False])
def test_a_database_that_takes_no_writes_is_shown(
    start: Start, url: str, place: str, read_only: bool
):
    connection = psycopg2.connect(url.replace("+psycopg2", ""))
    connection.autocommit = True
    name = url.rpartition("/")[2]
    connection.cursor().execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    connection.close()

    server = start(read_only=read_only)

    assert b'"s"' in ask(server, "GET", "/api/studies")[2]
    assert ask(server, "GET", place)[2] == PAGE


def test_a_read_only_dashboard_creates_no_tables(empty_url: str):
    with pytest.raises(StorageError, match="has no tables of hpo") as raised:
        make_dashboard(empty_url, host="127.0.0.1", port=0, read_only=True)

    assert "start the dashboard once without it" in str(raised.value)
    assert look(connect(empty_url)).version is None


def test_an_ipv6_address_is_bound_and_shown_in_brackets(start: Start):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 loopback here: {error}")

    for host in ("::1", "[::1]"):
        server = start(host=host)
        own = f"[::1]:{server.server_port}"
        assert server.address == f"http://{own}/"
        assert ask(server, "GET", "/api/studies", Host=own)[0] == 200
        assert ask(server, "GET", "/api/studies", Host="evil.example")[0] == 403


@pytest.mark.parametrize(
    "name", ["http://hpo.example", "*", "", "::zz", "a b", "[::1", "b\u00fccher"]
)
def test_an_allowed_host_that_is_no_host_is_refused(url: str, name: str):
    with pytest.raises(ConfigurationError, match="neither a host name nor an address") as raised:
        make_dashboard(url, host="127.0.0.1", port=0, allowed_hosts=["hpo.example", name])

    assert str(raised.value).startswith(f"--allowed_host '{name}'")


@pytest.mark.parametrize("host", ["no such host", "a..b", "192.0.2.1", "localhost:80", ""])
def test_an_address_that_cannot_be_bound_is_refused(url: str, host: str):
    with pytest.raises(ConfigurationError, match="cannot be used") as raised:
        make_dashboard(url, host=host, port=0)

    assert host in str(raised.value)
    assert "--host" in str(raised.value)


@pytest.mark.acceptance
def test_the_command_hands_its_flags_to_the_door(program: Program, url: str, place: str):
    process = program.start(
        *("dashboard", "--port", "0", "--read_only"),
        *("--allowed_host", "one.example", "--allowed_host", "two.example"),
    )
    try:
        port = re.match(r"http://127.0.0.1:(\d+)/", process.stderr.readline())[1]
        answers = {}
        for host in ("one.example", "two.example", "three.example"):
            connection = http.client.HTTPConnection("127.0.0.1", int(port))
            connection.request("DELETE", "/api/studies/1", headers={"Host": host})
            answers[host] = connection.getresponse().status
            connection.close()
    finally:
        process.kill()
        process.communicate(timeout=HANGS_S)

    assert answers == {"one.example": 405, "two.example": 405, "three.example": 403}
    assert studies(url) == ["s"]
