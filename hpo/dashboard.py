"""optuna-dashboard on the service's storage, by default for this host alone."""

from __future__ import annotations

import errno
import socketserver
from collections.abc import Iterable
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna_dashboard

from hpo.database.artifacts import DatabaseArtifacts
from hpo.database.connection import connect
from hpo.database.storage import open_storage
from hpo.errors import ConfigurationError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

# Its page asks for several things at once, each in a thread.
_CONNECTIONS = 5
_LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    """A threaded server, so that a slow request of a page does not delay its others."""

    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    """A handler that logs errors, not every request."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


def _local_only(application: WSGIApplication) -> WSGIApplication:
    """Refuse other host names: a foreign page may point its name here (DNS rebinding)."""

    def checked(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        name = environ.get("HTTP_HOST", "").rpartition(":")[0] or environ.get("HTTP_HOST", "")
        if name not in _LOOPBACK:
            start_response("403 Forbidden", [("Content-Type", "text/plain")])
            return [b"this dashboard answers to localhost only"]
        return application(environ, start_response)

    return checked


def make_dashboard(url: str, *, host: str, port: int) -> WSGIServer:
    """Make a server of optuna-dashboard, bound and ready for `serve_forever`.

    It has no authentication: on any address but the loopback, put a proxy in front of it.

    Raises:
        ConfigurationError: The address cannot be bound.
    """
    db = connect(url, application="dashboard", connections=_CONNECTIONS, kept=_CONNECTIONS)
    application = optuna_dashboard.wsgi(open_storage(db), artifact_store=DatabaseArtifacts(db))
    if host in _LOOPBACK:
        application = _local_only(application)
    try:
        return make_server(
            host, port, application, server_class=_Server, handler_class=_QuietHandler
        )
    except OSError as error:
        reason = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used: {error}"
        raise ConfigurationError(
            f"address {host}:{port} {reason}; choose another with --host and --port "
            "(--port 0 takes any that is free)"
        ) from error
