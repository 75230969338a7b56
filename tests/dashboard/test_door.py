"""The dashboard's door, by real requests to a real server."""

from __future__ import annotations

from wsgiref.simple_server import WSGIServer

import pytest

from hpo import cli
from hpo.dashboard.server import DashboardServer
from tests.support.compose import composed
from tests.support.requests import PAGE, Start, ask, delete, reason, studies


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
    service = composed()["services"]["dashboard"]
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
