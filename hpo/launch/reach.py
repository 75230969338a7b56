"""The reach of a storage: one host alone, or others as well."""

from __future__ import annotations

import ipaddress


def is_loopback(url: str) -> bool:
    """Return whether a storage's URL means the host that reads it."""
    from hpo.database.connection import parse_url

    parsed = parse_url(url)
    hosts = parsed.query.get("host") or parsed.host or ""
    for host in (hosts,) if isinstance(hosts, str) else hosts:
        try:
            is_own = ipaddress.ip_address(host).is_loopback
        except ValueError:
            # A folder is that of a Unix socket.
            is_own = host in ("", "localhost") or host.startswith("/")
        if not is_own:
            return False
    return True
