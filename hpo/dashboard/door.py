"""The door before optuna-dashboard: the requests that pass, and the headers of all answers.

Any web page can have its visitor's browser send requests to this host. A page whose own name points
here (DNS rebinding) could read and delete all studies, so the Host header is checked by name. Other
pages are recognized by the Origin header of their writes. Artifacts may hold anything, also HTML
with scripts, so no answer but the dashboard's own page runs as a document of this origin.
Border: reads headers alone; the database and the files are behind the door.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING
from urllib.parse import quote

from hpo.errors import ConfigurationError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_READS = ("GET", "HEAD")
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::([0-9]{1,5}))?", re.I | re.A)
_PORTS = {"http": 80, "https": 443}
_NO_FRAME = "frame-ancestors 'none'"
_NO_DOCUMENT = f"sandbox; default-src 'none'; {_NO_FRAME}"
# A body is read and dropped in parts of this size.
_PART = 1 << 16

Headers = list[tuple[str, str]]


def host_name(given: str, *, flag: str) -> str:
    """Return a flag's host name or address as it is compared, without a port.

    Raises:
        ConfigurationError: It is neither a host name nor an address.
    """
    bare = given.partition("%")[0]
    found = _host_and_port(f"[{bare}]" if bare.count(":") > 1 and "[" not in bare else bare)
    if found is None:
        raise ConfigurationError(
            f"{flag} '{given}' is neither a host name nor an address; write a name as "
            "'hpo.example.org', without 'http://' (letters beyond ASCII as 'xn--…')"
        )
    return found[0]


def guarded(
    application: WSGIApplication,
    *,
    names: frozenset[str],
    read_only: bool,
    filename: Callable[[str], str | None],
) -> WSGIApplication:
    """Put the door before an application.

    Args:
        names: The hosts that it answers to, as `host_name` returns them.
        read_only: Whether every method but GET and HEAD is refused.
        filename: Returns the name of the file at a path of artifacts.
    """

    def door(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        # Bottle chooses the route by this text, in which bytes that are no UTF-8 are left out.
        path = environ.get("PATH_INFO", "").encode("latin-1").decode(errors="ignore")

        def start(status: str, headers: Headers, *exc_info: object) -> Callable[[bytes], object]:
            name = None
            is_artifact = path.startswith("/artifacts/")
            if is_artifact and status.startswith("200"):
                name = filename(path)
            safe = _safe(headers, is_artifact=is_artifact, name=name)
            return start_response(status, safe, *exc_info)  # type: ignore[arg-type]

        refused = _refusal(environ, names, read_only)
        if refused is None:
            return application(environ, start)
        _drop_body(environ)
        status, sentence = refused
        # The pages show the reason of an error as the application's own errors have it.
        headers = [("Content-Type", "application/json")]
        if status.startswith("405"):
            headers.append(("Allow", ", ".join(_READS)))
        start(status, headers)
        return [json.dumps({"reason": sentence}).encode()]

    return door


def _refusal(
    environ: WSGIEnvironment, names: frozenset[str], read_only: bool
) -> tuple[str, str] | None:
    """Return status and reason of a refused request; None for one that passes."""
    host = environ.get("HTTP_HOST", "")
    found = _host_and_port(host)
    if found is None or found[0] not in names:
        return "403 Forbidden", (
            f"this dashboard does not answer to the host name '{host[:100]}'; use localhost, or "
            "start it with --allowed_host NAME"
        )
    if environ["REQUEST_METHOD"] in _READS:
        return None
    if read_only:
        return "405 Method Not Allowed", (
            "this dashboard is read-only; to change a study, start it without --read_only"
        )
    origin = environ.get("HTTP_ORIGIN")
    # Only these two values say that the dashboard's own page, or the user, sent the request.
    is_foreign = environ.get("HTTP_SEC_FETCH_SITE", "none") not in ("same-origin", "none")
    if is_foreign or (origin is not None and not _is_same(origin, found)):
        return "403 Forbidden", (
            f"a page of '{(origin or 'another site')[:100]}' may not change a study of "
            f"'{host[:100]}'; a proxy in between must pass the Host header on unchanged"
        )
    return None


def _is_same(origin: str, host: tuple[str, int | None]) -> bool:
    """Return whether an Origin is the page of this host and port, whatever its scheme."""
    scheme, _, rest = origin.partition("://")
    found = _host_and_port(rest)
    if scheme not in _PORTS or found is None:
        return False
    # Browsers leave the scheme's own port out.
    return (found[0], found[1] or _PORTS[scheme]) == (host[0], host[1] or _PORTS[scheme])


def _host_and_port(text: str) -> tuple[str, int | None] | None:
    """Return name and port of `name:port` or `[address]:port`; None if it is malformed."""
    match = _HOST.fullmatch(text)
    if match is None:
        return None
    address, name, port = match.groups()
    try:
        found = str(ipaddress.IPv6Address(address)) if address else name.lower()
    except ValueError:
        return None
    return found, int(port) if port else None


def _safe(given: Headers, *, is_artifact: bool, name: str | None) -> Headers:
    """Return the headers under which an answer shows as nothing but what it was asked for as."""
    # Only the dashboard's page brings a policy of its own.
    policies = [value for key, value in given if key.lower() == "content-security-policy"]
    is_page = bool(policies) and not is_artifact
    policy = "; ".join([*policies, _NO_FRAME]) if is_page else _NO_DOCUMENT
    dropped = {"content-security-policy", "access-control-allow-origin"}
    dropped |= {"content-disposition"} if is_artifact else set()
    kept = [(key, value) for key, value in given if key.lower() not in dropped]
    if is_artifact:
        named = f"; filename*=UTF-8''{quote(name, safe='', errors='replace')}" if name else ""
        kept.append(("Content-Disposition", f"attachment{named}"))
    return [
        *kept,
        ("Content-Security-Policy", policy),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "DENY"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
    ]


def _drop_body(environ: WSGIEnvironment) -> None:
    """Read a request to its end: closing the connection earlier would lose the answer."""
    length = environ.get("CONTENT_LENGTH") or "0"
    left = int(length) if length.isdecimal() else 0
    while left > 0:
        part = environ["wsgi.input"].read(min(left, _PART))
        if not part:
            return
        left -= len(part)
