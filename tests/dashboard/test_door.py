"""The dashboard's door, by real requests to a real server."""

from __future__ import annotations

import http.client
import io
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from wsgiref.simple_server import WSGIServer

import optuna
import psycopg2
import pytest
import yaml
from optuna.artifacts import upload_artifact
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.exceptions import OptunaError
from sqlalchemy.exc import DBAPIError

from hpo import cli
from hpo.dashboard.server import DashboardServer, make_dashboard, open_stores
from hpo.database.artifacts import DatabaseArtifacts
from hpo.database.connection import connect
from hpo.database.schema import schema_version
from hpo.errors import ConfigurationError, StorageError
from tests.support.program import HANGS_S, ROOT, Program

PAGE = b"<script>alert(document.domain)</script>"
NAME = "a page \u2014 of 'mine'.html"

Start = Callable[..., DashboardServer]
Answer = tuple[int, http.client.HTTPMessage, bytes]


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


def ask(
    server: DashboardServer, method: str, path: str, *, body: bytes | None = None, **headers: str
) -> Answer:
    """Send a request with these headers alone, underscores of names for hyphens."""
    connection = http.client.HTTPConnection(server.server_address[0], server.server_port)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in {"Host": f"127.0.0.1:{server.server_port}", **headers}.items():
            if value is not None:
                connection.putheader(name.replace("_", "-"), value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def studies(url: str) -> list[str]:
    return optuna.get_all_study_names(url)


def reason(answer: Answer) -> str:
    return json.loads(answer[2])["reason"]


def delete(server: DashboardServer, url: str, **headers: str) -> int:
    """Ask for the deletion of the study; return the status."""
    (study,) = optuna.get_all_study_summaries(url)
    return ask(server, "DELETE", f"/api/studies/{study._study_id}", **headers)[0]


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "0.0.0.0:8080",
        "[::]",
        "[::2]",
        "localhost:8080@evil.example",
        "localhost:",
        "localhost,evil.example",
        "",
        None,
    ],
)
def test_a_request_under_another_host_name_is_refused_and_the_study_stays(
    start: Start, url: str, place: str, host: str
):
    server = start()

    read = ask(server, "GET", "/api/studies", Host=host)

    assert delete(server, url, Host=host) == 403
    assert read[0] == 403
    assert "--allowed_host NAME" in reason(read)
    assert studies(url) == ["s"]


@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost:1", "127.0.0.1:9", "[::1]:8080", "[0:0::1]", "Hpo.Example:80"]
)
def test_localhost_and_allowed_names_are_answered_on_any_port(start: Start, host: str):
    server = start(allowed_hosts=["hpo.example:443"])

    assert ask(server, "GET", "/api/studies", Host=host)[0] == 200


def test_the_name_that_it_was_bound_to_is_answered_and_no_other_of_the_host(start: Start):
    server = start(host="127.0.0.2")

    assert ask(server, "GET", "/api/studies", Host=f"127.0.0.2:{server.server_port}")[0] == 200
    assert ask(server, "GET", "/api/studies", Host="127.0.0.3")[0] == 403
    assert server.address == f"http://127.0.0.2:{server.server_port}/"


@pytest.fixture
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have servers that are to listen on all addresses listen on the loopback's."""

    def bind(server: DashboardServer) -> None:
        assert server.server_address[0] == "0.0.0.0"
        server.server_address = ("127.0.0.1", server.server_address[1])
        WSGIServer.server_bind(server)

    monkeypatch.setattr(DashboardServer, "server_bind", bind)


def test_the_compose_files_dashboard_answers_to_the_published_name_alone(
    start: Start, url: str, place: str, loopback: None
):
    service = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["dashboard"]
    command = cli.commands.commands["dashboard"]
    given = command.make_context("dashboard", service["command"][1:]).params

    server = start(host=given["host"], allowed_hosts=given["allowed_hosts"])

    assert given["host"] == "0.0.0.0"
    assert server.address == f"http://localhost:{server.server_port}/"
    for host in ("evil.example", "0.0.0.0:8080", "dashboard:8080", None):
        assert delete(server, url, Host=host) == 403
    assert studies(url) == ["s"]
    assert ask(server, "GET", "/api/studies", Host="127.0.0.1:8080")[0] == 200
    own = {"Host": "localhost:8080", "Origin": "http://localhost:8080"}
    assert delete(server, url, **own) == 204


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://localhost:{port}"},
        {"Origin": "ftp://127.0.0.1:{port}"},
        {"Origin": "127.0.0.1:{port}"},
        {"Origin": "http://127.0.0.1:{port}.evil.example"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Origin": "http://127.0.0.1:{port}", "Sec_Fetch_Site": "cross-site"},
    ],
    ids=str,
)
def test_a_write_from_another_pages_origin_is_refused_and_its_reading_is_not(
    start: Start, url: str, place: str, headers: dict[str, str]
):
    server = start(allowed_hosts=["evil.example"])
    sent = {k: v.replace("{port}", str(server.server_port)) for k, v in headers.items()}

    assert delete(server, url, **sent) == 403
    assert ask(server, "POST", "/api/studies", body=b"{}", **sent)[0] == 403
    assert ask(server, "GET", "/api/studies", **sent)[0] == 200
    assert studies(url) == ["s"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://127.0.0.1:{port}", "Sec_Fetch_Site": "same-origin"},
        {"Origin": "https://hpo.example", "Host": "Hpo.Example"},
        {"Origin": "https://hpo.example", "Host": "hpo.example:443"},
        {"Sec_Fetch_Site": "none"},
    ],
    ids=str,
)
def test_the_dashboards_own_page_and_programs_delete_a_study(
    start: Start, url: str, place: str, headers: dict[str, str]
):
    server = start(allowed_hosts=["hpo.example"])
    sent = {k: v.replace("{port}", str(server.server_port)) for k, v in headers.items()}

    assert delete(server, url, **sent) == 204
    assert studies(url) == []


# Bottle leaves slashes at the end and bytes that are no UTF-8 out of a path.
@pytest.mark.parametrize("form", ["/{}", "/{}//", "//{}", "/%ff{}", "/artif%C3acts{}"])
def test_an_artifact_of_html_is_a_file_to_save_and_runs_no_script(
    start: Start, place: str, form: str
):
    rest = place.removeprefix("/artifacts") if "artif" in form else place[1:]

    status, headers, body = ask(start(), "GET", form.format(rest))

    assert (status, body) == (200, PAGE)
    assert headers["Content-Disposition"] == (
        "attachment; filename*=UTF-8''a%20page%20%E2%80%94%20of%20%27mine%27.html"
    )
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers.get_all("Content-Security-Policy") == [
        "sandbox; default-src 'none'; frame-ancestors 'none'"
    ]
    assert headers["Access-Control-Allow-Origin"] is None


def test_every_answer_is_of_the_type_that_it_says_and_in_no_frame(start: Start, place: str):
    server = start()

    for path in ("/", "/dashboard", "/api/studies", "/csv/1", "/nowhere", "/artifacts/1/a"):
        _, headers, _ = ask(server, "GET", path)
        assert headers["X-Content-Type-Options"] == "nosniff", path
        assert headers["X-Frame-Options"] == "DENY", path
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"], path
        # The dashboard's own page is the only document that may run scripts.
        assert ("script-src" in headers["Content-Security-Policy"]) == (path == "/dashboard")


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


def test_the_database_refuses_the_writes_of_a_read_only_dashboard(url: str, place: str):
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
    assert schema_version(connect(empty_url)) is None


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
