"""The compose file: valid by the specification's schema, and of the code's names and versions."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import click
import jsonschema
import psycopg2
import pytest
import sqlalchemy as sa
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from hpo import cli
from hpo.database.connection import connect, parse_url
from hpo.database.migrations import create_tables
from hpo.database.rights import grant
from hpo.embedded import server as postgres
from hpo.embedded.binaries import MAJOR
from hpo.environ import VARIABLES
from tests.support.compose import composed
from tests.support.program import ROOT
from tests.support.servers import open_folder

OURS = ("prepare", "worker", "worker-gpu", "dashboard")
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
OWNER = ROOT / "deploy" / "postgres" / "owner.sql"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = composed()["services"]
    return found


def parsed(command: list[str]) -> dict[str, Any]:
    """A command's parameters; raises what a user would see."""
    context = click.Context(cli.commands)
    found = cli.commands.get_command(context, command[0])
    assert found is not None, command
    return found.make_context(command[0], command[1:], parent=context).params


def test_the_file_is_valid_by_the_specifications_schema():
    schema = json.loads((ROOT / "tests/data/compose-spec/compose-spec.json").read_text())
    validator, file = jsonschema.Draft7Validator(schema), composed()

    validator.validate(file)
    file["services"]["worker"]["restarts"] = "always"
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(file)


def test_commands_and_variables_are_the_programs(services):
    for name in OURS:
        parsed(services[name]["command"])
        assert set(services[name]["environment"]) <= set(VARIABLES)


def test_ports_and_names_lead_from_the_host_to_the_dashboard(services):
    proxy = (ROOT / "deploy/proxy/dashboard.conf.template").read_text()
    given = parsed(services["dashboard"]["command"])
    published = services["proxy"]["ports"][0]

    # On this host alone, and only through the proxy.
    assert [name for name in services if "ports" in services[name]] == ["proxy"]
    address, outer, inner = published.split(":")
    assert address == "127.0.0.1" and outer == str(parsed(["dashboard"])["port"])
    assert set(re.findall(r"listen (\d+)", proxy)) == {inner}
    assert f"proxy_pass http://dashboard:{given['port']};" in proxy
    assert "${DASHBOARD_NAME}" in proxy and "DASHBOARD_NAME" in services["proxy"]["environment"]
    assert given["allowed_hosts"] == ("localhost",)
    users = re.search(r"auth_basic_user_file /run/secrets/(\w+);", proxy)
    assert users is not None and users[1] in services["proxy"]["secrets"]


def test_only_the_proxy_reaches_the_dashboard_and_workers_only_the_database(services):
    def beside(name: str) -> set[str]:
        own = set(services[name]["networks"])
        return {other for other in services if own & set(services[other]["networks"])} - {name}

    assert set(composed()["networks"]) == {n for s in services.values() for n in s["networks"]}
    assert beside("proxy") == {"dashboard"}
    assert beside("dashboard") == {"proxy", "postgres", "prepare"}
    for name in ("worker", "worker-gpu"):
        assert beside(name) - {"worker", "worker-gpu"} == {"postgres"}


def test_urls_name_the_roles_that_are_made_and_no_password(services):
    sql = OWNER.read_text()
    (role,) = re.findall(r"CREATE ROLE (\w+)", sql)
    (database,) = re.findall(rf"CREATE DATABASE (\w+) OWNER {role}", sql)
    granted = parsed(services["prepare"]["command"])
    expected = {"prepare": role, "dashboard": role, "worker": granted["role"]}

    assert role != granted["role"]
    for name, user in {**expected, "worker-gpu": granted["role"]}.items():
        url = parse_url(services[name]["environment"]["HPO_STORAGE"])
        assert (url.username, url.host, url.database) == (user, "postgres", database)
        assert url.password is None
    assert f"pg_isready -h 127.0.0.1 -U {role} -d {database}" in str(services["postgres"])


def test_every_secret_that_a_service_reads_is_given_to_it_and_made_by_the_script(services):
    script = (ROOT / "deploy/make_secrets.sh").read_text()

    for name, secret in composed()["secrets"].items():
        assert secret["file"] == f"./deploy/secrets/{name}" and name in script
    for name, service in services.items():
        read = set(re.findall(r"/run/secrets/(\w+)", json.dumps(service)))
        assert read <= set(service.get("secrets", ())), name
        assert "PASSWORD=" not in json.dumps(service)
    assert re.findall(r"/run/secrets/(\w+)", OWNER.read_text()) == ["owner_password"]
    assert "owner_password" in services["postgres"]["secrets"]
    # A worker never sees the owner's password.
    assert services["worker"]["secrets"] == services["worker-gpu"]["secrets"] == ["worker_password"]
    assert "deploy/secrets" in (ROOT / ".dockerignore").read_text().split()
    assert "deploy/secrets/" in (ROOT / ".gitignore").read_text().split()


def test_versions_are_those_that_the_code_takes(services):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (python,) = re.findall(r"^FROM python:([\d.]+)", DOCKERFILE, re.M)
    arguments = services["worker"]["build"]["args"]

    assert services["postgres"]["image"] == f"postgres:{MAJOR}"
    # From 18 on its image keeps the data in a folder of the version's below this one.
    assert "hpo-postgres:/var/lib/postgresql" in services["postgres"]["volumes"]
    assert Version(python) in SpecifierSet(project["requires-python"])
    assert set(arguments) == set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.M))
    assert (ROOT / "constraints.txt").read_text().count("\ntorch==") == 1
    assert {"cpu", "gpu"} == {p for s in services.values() for p in s.get("profiles", ())}


def test_what_runs_for_long_is_restarted_and_waits_for_what_it_needs(services):
    restart = {name: service["restart"] for name, service in services.items()}

    assert restart.pop("prepare") == "no"
    assert set(restart.values()) == {"unless-stopped", "on-failure"}
    assert services["prepare"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    for name in ("worker", "worker-gpu", "dashboard"):
        need = services[name]["depends_on"]["prepare"]["condition"]
        assert need == "service_completed_successfully"
    grace_s = parsed(services["worker"]["command"])["grace"]
    assert int(services["worker"]["stop_grace_period"].removesuffix("s")) > grace_s


@pytest.mark.acceptance
def test_the_servers_role_and_the_workers_are_made_as_the_services_make_them(tmp_path: Path):
    if shutil.which("psql") is None:
        pytest.skip("no psql here, which the image of PostgreSQL runs the file by")
    home = open_folder()
    secret = tmp_path / "owner_password"
    secret.write_text("planted-'77'\nmore\n")
    text = OWNER.read_text().replace("/run/secrets/owner_password", str(secret))
    # The embedded server has a role and a database of these names already.
    text = re.sub(r"\bhpo\b", "composed", text)
    try:
        server = postgres.start(home)
        made = subprocess.run(
            ["psql", "-v", "ON_ERROR_STOP=1", "--no-psqlrc", "-q"],
            input=text, capture_output=True, text=True, timeout=60,
            env={"PATH": "/usr/bin:/bin", **_login(server.superuser_url)},
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        url = sa.make_url(server.url).set(
            username="composed", password="planted-'77'", database="composed"
        )
        owner = connect(url.render_as_string(hide_password=False))
        create_tables(owner)

        assert grant(owner, "worker", "w")
        with owner.connect() as connection:
            statement = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
            assert connection.scalar(sa.text(statement)) is False
        connect(url.set(username="worker", password="w").render_as_string(False)).dispose()
        log = (home / "postgres" / "server.log").read_text()
        assert "planted" not in log + made.stdout + made.stderr
    finally:
        postgres.stop(home, immediate=True)
        shutil.rmtree(home, ignore_errors=True)


def _login(url: str) -> dict[str, str]:
    """The variables by which psql connects to a URL without naming it."""
    found = psycopg2.extensions.parse_dsn(url)
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD"}
    return {names[key]: value for key, value in found.items() if key in names} | {
        "PGDATABASE": "postgres"
    }
