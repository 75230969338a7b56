"""The embedded server: creation, start, stop, address.

    server = start(home)    # makes, revives or finds it; two commands at once get the same one
    server.url              # 'postgresql+psycopg2://hpo:...@127.0.0.1:20417/hpo'
    stop(home)

It outlives the command that started it and ends by `stop` alone. Border: the caller decides whether
it may be stopped, because leases are not known here. `postmaster` launches it, `cluster` makes the
data folder, `folder` knows the file names, `binaries` runs the programs.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote

from hpo.embedded.cluster import DATABASE, ROLE, SUPERUSER, stored_password
from hpo.embedded.cures import cure, is_lasting, telling_line
from hpo.embedded.folder import Folder, hold, is_held, locked, read
from hpo.embedded.postmaster import HOST, START_S, launch, postmaster
from hpo.errors import ConfigurationError, PostgresError

STOP_S = 120.0  # a shutdown writes 128 MB at most (shared_buffers)
LINGER_S = 30.0  # a backend ends within milliseconds of its postmaster, unless its disk hangs
POLL_S = 0.02
_RESTARTS_S = 2.0  # this is four times a first start; a restart of all processes takes less


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server that accepts connections."""

    home: Path
    data: Path
    host: str
    port: int
    user: str
    database: str
    password: str = field(repr=False)

    @property
    def url(self) -> str:
        """URL for SQLAlchemy, with the password."""
        return self.libpq_url.replace("postgresql://", "postgresql+psycopg2://", 1)

    @property
    def libpq_url(self) -> str:
        """URL for psql and other programs of PostgreSQL, with the password."""
        login = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}"
        return f"postgresql://{login}@{self.host}:{self.port}/{quote(self.database, safe='')}"

    @property
    def superuser_url(self) -> str:
        """The same of the server's superuser: for what the service's role may not do.

        In a cluster that an earlier version made, the service's role is the superuser.
        """
        password = read(Folder.of(self.home).superuser)
        if password is None:
            return self.libpq_url
        return replace(self, user=SUPERUSER, password=password).libpq_url


def default_home(environ: Mapping[str, str] | None = None) -> Path:
    """The user's data folder for this program: below XDG_DATA_HOME, else in ~/.local/share."""
    base = Path((environ or {}).get("XDG_DATA_HOME", ""))
    if base.is_absolute():  # the XDG specification ignores a relative one
        return base / "hpo"
    try:
        return Path.home() / ".local/share/hpo"
    except RuntimeError as error:
        raise ConfigurationError(
            f"uid {os.getuid()} has no home folder; write a folder in HPO_HOME"
        ) from error


def start(home: Path) -> Server:
    """Start the home's server unless it runs, and return its address.

    Raises:
        PostgresError: It cannot be made or started here; the message says what to do.
        ConfigurationError: The home folder's name cannot be used.
    """
    server = running(home)
    folder = Folder.of(home)
    if server is None or folder.log_is_long():
        with _explained(folder):
            folder.create()
            with locked(folder.lock):
                folder.refuse_other_host()
                folder.trim_log()
                server = _brought_up(folder)
    return server


def revive(home: Path) -> None:
    """Start the home's server again if it died; not if a command stopped it or is at it.

    Raises:
        PostgresError: It cannot be started here; the message says what to do.
    """
    folder = Folder.of(home)
    with _explained(folder):
        # A clean stop removes the host's file, and holds the lock until it has.
        busy = hold(folder.lock) if folder.host.exists() else None
        if busy is None:
            return
        try:
            folder.refuse_other_host()
            if folder.host.exists() and postmaster(folder.data) is None:
                try:
                    _brought_up(folder)
                finally:
                    # A failed start removes the file. Nobody has stopped the server, and the next
                    # revival may find the cause mended.
                    folder.claim_host()
        finally:
            os.close(busy)


def running(home: Path) -> Server | None:
    """The home's server, if it accepts connections; nothing is started.

    Raises:
        PostgresError: It may be running on another host, or its password is not the stored one.
    """
    folder = Folder.of(home)
    with _explained(folder):
        folder.refuse_other_host()
        server = _located(folder)
        return server if server is not None and _refusal(server) is None else None


def stop(home: Path, *, immediate: bool = False) -> bool:
    """Stop the home's server if it runs: connections are cut, committed data stay.

    Args:
        home: The home folder.
        immediate: Do not wait for a checkpoint; the next start recovers from the log.

    Returns:
        Whether a server was running.
    """
    folder = Folder.of(home)
    if not folder.root.exists():
        return False
    with _explained(folder), locked(folder.lock):
        folder.refuse_other_host()
        pid = postmaster(folder.data)
        if pid is not None:
            os.kill(pid, signal.SIGQUIT if immediate else signal.SIGINT)
        begin = time.monotonic()
        while postmaster(folder.data) is not None or is_held(folder.alive):
            waited_s = time.monotonic() - begin
            if pid is None and waited_s > LINGER_S:
                raise _unseen(folder)
            if waited_s > STOP_S:
                raise PostgresError(
                    f"PostgreSQL (process {pid}) has not ended within {STOP_S:.0f} s; see "
                    f"'{folder.log}', or write 'kill -QUIT {pid}': the next start recovers"
                )
            time.sleep(POLL_S)
        folder.host.unlink(missing_ok=True)
        return pid is not None


def _brought_up(folder: Folder) -> Server:
    """Start the server, or wait for one that is still starting or still ending."""
    begin, logged = time.monotonic(), _size(folder.log)
    is_ours = False
    while True:
        server = _located(folder)
        refusal = None if server is None else _refusal(server)
        if server is not None and refusal is None:
            return server
        if refusal is not None and time.monotonic() - begin > _RESTARTS_S:
            refusal = _logged_refusal(folder.log, since=logged) or refusal
        if refusal is not None and is_lasting(refusal):
            raise _unusable(folder, refusal, is_ours=is_ours)
        guard = hold(folder.alive)
        if guard is not None:
            try:
                if postmaster(folder.data) is None:
                    is_ours = True
                    launch(folder, guard)
            finally:
                os.close(guard)  # the server's processes still hold it
        waited_s = time.monotonic() - begin
        if server is None and guard is None and waited_s > LINGER_S:
            raise _unseen(folder)
        if waited_s > START_S:
            raise PostgresError(
                f"the server in '{folder.data}' has not answered for {START_S:.0f} s ({refusal}); "
                f"see '{folder.log}', or write 'python -m hpo stop' and run again"
            )
        time.sleep(POLL_S)


def _logged_refusal(log: Path, *, since: int) -> str | None:
    """The logged reason of a server that restarts its processes for ever; None if there is none.

    To clients it mostly answers that it is starting up or in recovery, and rarely gives the reason.
    """
    with log.open("rb") as file:
        file.seek(since if since <= _size(log) else 0)
        said = file.read().decode("utf-8", "replace")
    lasting = [line for line in said.splitlines() if "FATAL:" in line and is_lasting(line)]
    return lasting[-1] if lasting else None


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _unusable(folder: Folder, refusal: str, *, is_ours: bool) -> PostgresError:
    """The error for a running server that refuses all connections; stops it if we started it."""
    reason = telling_line(refusal).rpartition("FATAL:")[2].strip()
    pid = postmaster(folder.data)
    if is_ours and pid is not None:
        # It may restart its processes for ever, and fill its log.
        os.kill(pid, signal.SIGQUIT)
        deadline = time.monotonic() + LINGER_S
        while is_held(folder.alive) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        folder.host.unlink(missing_ok=True)
    left = "" if is_ours else f" (process {pid}; 'kill -INT {pid}' stops it)"
    return PostgresError(
        f"the server in '{folder.data}'{left} refuses connections: '{reason}'; {cure(reason)}; "
        f"more is in '{folder.log}'"
    )


def _unseen(folder: Folder) -> PostgresError:
    return PostgresError(
        f"processes hold '{folder.alive}' and no server is in sight: another container's, or left "
        f"from one that was killed ('fuser {folder.alive}' names them); end them and run again"
    )


def _located(folder: Folder) -> Server | None:
    """The server that its pid file and our files describe; None unless its process lives."""
    if postmaster(folder.data) is None:
        return None
    lines = (read(folder.data / "postmaster.pid") or "").split("\n")
    if len(lines) < 4:  # it is being written
        return None
    return Server(
        home=folder.root.parent,
        data=folder.data,
        host=HOST,
        port=int(lines[3]),
        user=ROLE,
        database=DATABASE,
        password=stored_password(folder),
    )


def _refusal(server: Server) -> str | None:
    """The server's reason to refuse a connection with our password; None if it accepts one."""
    import psycopg2  # this takes 20 ms that `hpo --help` need not pay

    # These arguments overrule the caller's PGSSLMODE, PGOPTIONS and so on.
    plain = {"sslmode": "disable", "gssencmode": "disable", "options": "", "connect_timeout": 5}
    try:
        psycopg2.connect(server.libpq_url, **plain).close()
    except psycopg2.OperationalError as error:
        reason = str(error).strip()
        if "too many clients" in reason or "connection slots" in reason:
            return None  # it lives, and is busy
        if "password authentication failed" in reason:
            raise PostgresError(
                f"the server on port {server.port} does not take the password in "
                f"'{server.home}/postgres/password'; restore that file"
            ) from error
        return reason
    return None


@contextmanager
def _explained(folder: Folder) -> Iterator[None]:
    """Turn errors of the file system into a `PostgresError` that names the path."""
    try:
        yield
    except OSError as error:
        raise PostgresError(
            f"cannot use '{error.filename or folder.root}': {error.strerror or error}; "
            f"{cure(str(error.strerror))}"
        ) from error
