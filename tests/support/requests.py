"""Real requests to the dashboard's server, and what its database holds after them."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable

import optuna

from hpo.dashboard.server import DashboardServer

PAGE = b"<script>alert(document.domain)</script>"
NAME = "a page \u2014 of 'mine'.html"

Start = Callable[..., DashboardServer]
Answer = tuple[int, http.client.HTTPMessage, bytes]


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
