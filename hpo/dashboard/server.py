"""The dashboard's server: optuna-dashboard on a storage, bound to an address, behind the door.

Border: what a request may do is decided in `door`.
"""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
import socketserver
from collections.abc import Collection
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna_dashboard
from optuna_dashboard.artifact import _backend as dashboard_artifacts

from hpo.dashboard.door import LOCAL, guarded, host_name
from hpo.database.artifacts import DatabaseArtifacts
from hpo.database.connection import connect, mask
from hpo.database.migrations import create_tables
from hpo.database.preconditions import look
from hpo.database.schema import SCHEMA_VERSION
from hpo.database.storage import TrialStorage, open_storage
from hpo.errors import ConfigurationError, StorageError

if TYPE_CHECKING:
    import sqlalchemy as sa
    from optuna.storages import BaseStorage

_ARTIFACT = re.compile(r"/artifacts/(\d+)(?:/(\d+))?/([0-9a-fA-F-]+)/*")

# Its page asks for several things at once, each in a thread.
_CONNECTIONS = 5


class DashboardServer(socketserver.ThreadingMixIn, WSGIServer):
    """A threaded server, so that a slow request of a page does not delay its others."""

    daemon_threads = True
    shown_host = ""

    @property
    def address(self) -> str:
        """The address to open in a browser."""
        return f"http://{_in_url(self.shown_host)}:{self.server_port}/"


class _Server6(DashboardServer):
    """The same on an IPv6 address."""

    address_family = socket.AF_INET6


class _QuietHandler(WSGIRequestHandler):
    """A handler that logs errors, not every request."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


def make_dashboard(
    url: str,
    *,
    host: str,
    port: int,
    allowed_hosts: Collection[str] = (),
    read_only: bool = False,
) -> DashboardServer:
    """Make a server of optuna-dashboard, bound and ready for `serve_forever`.

    It has no authentication: on any address but the loopback, put a proxy in front of it.

    Args:
        host: A name or an address. All addresses of this host are '0.0.0.0' or '::', which are no
            names that the server answers to.
        allowed_hosts: Names that it answers to beside localhost and `host`.
        read_only: Whether writes are refused, by the server and by the database.

    Raises:
        ConfigurationError: The address cannot be bound, or an allowed host is no host.
        StorageError: The database cannot be used, or has no tables and `read_only` is set.
    """
    named = frozenset(host_name(each, flag="--allowed_host") for each in allowed_hosts)
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    server_class, is_wildcard = _resolve(host, port)
    own = frozenset() if is_wildcard else frozenset({host_name(host, flag="--host")})
    storage, files = open_stores(url, read_only=read_only)
    application = guarded(
        optuna_dashboard.wsgi(storage, artifact_store=files),
        names=LOCAL | named | own,
        read_only=read_only,
        filename=lambda path: _filename(storage, path),
    )
    try:
        server = make_server(
            host, port, application, server_class=server_class, handler_class=_QuietHandler
        )
    except OSError as error:
        raise _unusable(host, port, error) from error
    server.shown_host = "localhost" if is_wildcard else host
    return server


def open_stores(url: str, *, read_only: bool) -> tuple[TrialStorage, DatabaseArtifacts]:
    """Open the studies and the files of a database; if read-only, the database refuses writes."""
    db = connect(url, application="dashboard", connections=_CONNECTIONS)
    _prepare(db, read_only=read_only)
    if read_only:
        # The driver says so at each BEGIN: a pooler passes it on, a hot standby accepts it.
        db.update_execution_options(postgresql_readonly=True)
    return open_storage(db), DatabaseArtifacts(db)


def _prepare(db: sa.Engine, *, read_only: bool) -> None:
    """Create the tables that are missing, or refuse to if nothing may be written."""
    if not read_only:
        create_tables(db)
        return
    found = look(db).version
    if found != SCHEMA_VERSION:
        tables = "no tables of hpo" if found is None else f"tables of version {found}"
        raise StorageError(
            f"storage '{mask(db.url)}' has {tables}, this program needs version "
            f"{SCHEMA_VERSION}, and --read_only changes nothing; start the dashboard once without "
            "it, or run a study there"
        )


def _resolve(host: str, port: int) -> tuple[type[DashboardServer], bool]:
    """Return the server for a host's kind of address, and whether it is all addresses at once."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise _unusable(host, port, error) from error
    addresses: dict[int, str] = {
        family: str(address[0]) for family, _, _, _, address in reversed(found)
    }
    # A name of both kinds, as localhost, means its IPv4 address.
    family = socket.AF_INET if socket.AF_INET in addresses else socket.AF_INET6
    address = ipaddress.ip_address(addresses[family].partition("%")[0])
    kind = DashboardServer if family == socket.AF_INET else _Server6
    return kind, address.is_unspecified


def _unusable(host: str, port: int, error: Exception) -> ConfigurationError:
    is_taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
    reason = "is taken" if is_taken else f"cannot be used: {error}"
    return ConfigurationError(
        f"address {_in_url(host)}:{port} {reason}; choose another with --host and --port "
        "(--port 0 takes any that is free)"
    )


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _filename(storage: BaseStorage, path: str) -> str | None:
    """Return the name under which an artifact was stored."""
    found = _ARTIFACT.fullmatch(path)
    if found is None:
        return None
    study_id, trial_id, artifact_id = found.groups()
    if trial_id is None:
        meta = dashboard_artifacts.get_study_artifact_meta(storage, int(study_id), artifact_id)
    else:
        meta = dashboard_artifacts.get_trial_artifact_meta(
            storage, int(study_id), int(trial_id), artifact_id
        )
    return str(meta["filename"]) if meta else None
