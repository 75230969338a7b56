"""One PostgreSQL for the whole session, and a database of it for each test."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import sqlalchemy as sa
import torch

from hpo.database.connection import connect
from hpo.embedded.server import Server
from tests.support import forked, servers, studies
from tests.support.program import Command, Program

torch.set_num_threads(1)
# A shell has what it starts in the background ignore Ctrl-C, and children inherit that; programs
# that are sent it here are to obey.
signal.signal(signal.SIGINT, signal.default_int_handler)
forked.install()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests on finished studies, which processes make once for the session."""
    for item in items:
        if "finished" in getattr(item, "fixturenames", ()):
            item.add_marker("acceptance")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the server that the session's processes shared."""
    factory = getattr(config, "_tmp_path_factory", None)
    if factory is not None and not hasattr(config, "workerinput"):
        servers.stop_session_server(factory.getbasetemp())


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of the session share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def server(shared: Path) -> Server:
    """The server that all processes of the session share."""
    return servers.session_server(shared)


@pytest.fixture
def empty_url(server: Server) -> Iterator[str]:
    """A database without a table."""
    with servers.database(server) as url:
        yield url


@pytest.fixture
def url(server: Server) -> Iterator[str]:
    """A database with all tables."""
    with servers.database(server, template=server.database) as url:
        yield url


@pytest.fixture
def db(url: str) -> Iterator[sa.Engine]:
    """The engine of that database."""
    engine = connect(url)
    yield engine
    engine.dispose()


@pytest.fixture
def program(url: str, tmp_path: Path) -> Program:
    """The program as processes that are forks of this one, on a database with all tables."""
    return Program(url, tmp_path / "home")


@pytest.fixture
def executed(url: str, tmp_path: Path) -> Program:
    """The program as a user starts it: each process a new interpreter."""
    return Program(url, tmp_path / "home", is_executed=True)


@pytest.fixture
def command(program: Program, capsys: pytest.CaptureFixture[str]) -> Command:
    """The program as a function of this process, where `program` is as processes."""
    return Command(program.environment, capsys)


@pytest.fixture
def alone() -> Iterator[Program]:
    """The program with a home, and so a server, of its own."""
    home = servers.open_folder()
    program = Program(None, home)
    yield program
    program("stop", "--force")
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def finished(server: Server, shared: Path, tmp_path: Path) -> Iterator[Callable[[str], Program]]:
    """Clones of the studies that were run once for the session, by their names in `FINISHED`."""
    with ExitStack() as stack:

        def clone(name: str) -> Program:
            database, home = servers.template(
                server, shared, name, lambda url, home: studies.fill(name, Program(url, home))
            )
            url = stack.enter_context(servers.database(server, template=database))
            shutil.copytree(home, tmp_path / f"home-{name}")
            return Program(url, tmp_path / f"home-{name}")

        yield clone


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """The file of an objective that is slow enough to be interrupted."""
    path = tmp_path / "slow.py"
    path.write_text(studies.SLOW)
    return path


@pytest.fixture
def held(tmp_path: Path) -> studies.Held:
    """An objective with trials that a test holds and lets go."""
    return studies.Held(tmp_path)
