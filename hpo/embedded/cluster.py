"""The database cluster of the embedded server: its location, its owner, its creation.

Under root the cluster belongs to an account of its own. It lies in the home folder if that account
can reach it, else in a folder of the account. Border: nothing here starts or stops a server.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
from pathlib import Path

from hpo.embedded import binaries
from hpo.embedded.binaries import MAJOR, Account
from hpo.embedded.cures import ELSEWHERE, cure, telling_line
from hpo.embedded.folder import Folder, read, sync, write
from hpo.errors import PostgresError

logger = logging.getLogger(__name__)

ROLE = "hpo"
DATABASE = "hpo"
SUPERUSER = "postgres"
# The service's role owns its database and is no superuser: it may create databases and roles, as
# for workers, and has the rights of the roles that it creates. A cluster of before this version has
# it as its superuser, and goes on so.
_SET_UP = (
    "CREATE ROLE {role} LOGIN CREATEDB CREATEROLE PASSWORD '{password}'",
    "ALTER ROLE {role} SET createrole_self_grant = 'set, inherit'",
    "CREATE DATABASE {database} OWNER {role}",
)

# initdb writes these into postgresql.conf, where an owner may tune them. fsync stays on.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",  # dozens of workers hold 2 or 3 connections each
    "timezone": "UTC",  # Optuna stores naive UTC
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "log_min_error_statement": "panic",  # statements contain artifacts, of megabytes
    # Tables are small, and a container's /dev/shm (64 MB) is too small for parallel queries.
    "max_parallel_workers_per_gather": "0",
    "max_parallel_maintenance_workers": "0",
}


def settle(folder: Folder) -> Account | None:
    """Find or choose the data's folder; return PostgreSQL's account, None for the caller's."""
    place = folder.root / "place"
    if place.exists() and not folder.cluster.exists():
        raise PostgresError(
            f"the data folder '{folder.cluster}' is gone (a new container?); restore it, or "
            f"delete '{place}' to begin with an empty database"
        )
    if os.geteuid() != 0:
        folder.cluster.mkdir(mode=0o700, exist_ok=True)
        return None
    if folder.data.exists():
        account = Account.owning(folder.cluster)
        if account.uid == 0 or not _can_write(folder.cluster, account):
            raise PostgresError(
                f"PostgreSQL runs as '{account.name}', who cannot write in '{folder.cluster}'; "
                f"give it back ('chown -R {binaries.ACCOUNT}'), and let others pass through "
                "each folder above it ('chmod o+x')"
            )
        return account
    account = binaries.service_account()
    if not _given(folder.cluster, account):
        folder.cluster.rmdir()
        name = hashlib.sha256(os.fsencode(folder.root)).hexdigest()[:16]
        elsewhere = binaries.ACCOUNT_ROOT / "homes" / name
        binaries.public_folder(binaries.ACCOUNT_ROOT)
        binaries.public_folder(elsewhere.parent)
        if not _given(elsewhere, account):
            raise PostgresError(
                f"'{account.name}', as whom PostgreSQL runs, can write neither in '{folder.root}' "
                f"nor in '{elsewhere}'; write a folder that others can reach in HPO_HOME"
            )
        write(place, str(elsewhere))
        logger.warning(
            "embedded server | account '%s' cannot reach '%s'; the data are in '%s'",
            account.name,
            folder.root,
            elsewhere,
        )
    return account


def initialise(folder: Folder, programs: Path, account: Account | None, *, guard: int) -> None:
    """Make the data folder, whole or not at all: it is built aside and then renamed."""
    password = folder.password()
    if password is None:
        password = secrets.token_urlsafe(24)
        write(folder.root / "password", password)
    of_superuser = secrets.token_urlsafe(24)
    write(folder.superuser, of_superuser)

    def must(*command: str | Path, text: str = "") -> None:
        done = binaries.run(command, account=account, text=text, keep=[guard])
        if done.returncode != 0 or "ERROR:" in done.stdout:  # `postgres --single` then exits 0
            said = telling_line(done.stdout)
            raise PostgresError(
                f"cannot make a database in '{folder.cluster}': {Path(command[0]).name} says "
                f"'{said}'; {cure(said)}"
            )

    for interrupted in folder.cluster.glob("initdb-*"):
        must("rm", "-rf", interrupted)
    aside = folder.cluster / f"initdb-{secrets.token_hex(4)}"
    data, pwfile = aside / "data", aside / "password"
    settings = [f"--set={name}={value}" for name, value in SETTINGS.items()]
    must("mkdir", aside)
    try:
        must("sh", "-c", 'cat > "$0"', pwfile, text=of_superuser)
        must(
            *(programs / "initdb", f"--pgdata={data}", f"--username={SUPERUSER}"),
            f"--pwfile={pwfile}",
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-instructions"),
            *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", *settings),
        )
        # Each line is a statement, and no process's arguments hold the password.
        given = {"role": ROLE, "database": DATABASE, "password": password.replace("'", "''")}
        statements = "".join(f"{line.format(**given)}\n" for line in _SET_UP)
        must(programs / "postgres", "--single", "-D", data, "postgres", text=statements)
        must("mv", data, folder.data)
    finally:
        binaries.run(["rm", "-rf", aside], account=account)
    for path in (folder.cluster, folder.root):
        sync(path)


def check(folder: Folder) -> None:
    """Refuse a data folder that this version cannot open."""
    version = read(folder.data / "PG_VERSION")
    if version is None:
        raise PostgresError(
            f"'{folder.data}' has no PG_VERSION: it is damaged or not PostgreSQL's; restore it, "
            "or move it away to begin with an empty database"
        )
    if version != str(MAJOR):
        raise PostgresError(
            f"'{folder.data}' was made by PostgreSQL {version}, and this is {MAJOR}; carry it over "
            f"with pg_upgrade, or {ELSEWHERE}"
        )
    stored_password(folder)


def stored_password(folder: Folder) -> str:
    """The password that the cluster was made with."""
    password = folder.password()
    if password is None:
        raise PostgresError(
            f"'{folder.root / 'password'}' is missing, and '{folder.data}' opens with it alone; "
            "restore it, or move the data away to begin with an empty database"
        )
    return password


def _given(path: Path, account: Account) -> bool:
    """Make a folder and give it to the account; return whether the account can write in it."""
    path.mkdir(mode=0o700, exist_ok=True)
    try:
        os.chown(path, account.uid, account.gid)
    except PermissionError:  # some network file systems refuse it
        return False
    return _can_write(path, account)


def _can_write(path: Path, account: Account) -> bool:
    """Return whether the account can write here, by trying.

    Mode bits do not show ACLs, mounts and the folders above.
    """
    trial = path / f"trial-{secrets.token_hex(4)}"
    for do in ("mkdir", "rmdir"):
        done = binaries.run([do, trial], account=account)
        if done.returncode != 0:
            if "Permission denied" in done.stdout:
                return False
            said = telling_line(done.stdout)
            raise PostgresError(f"cannot write in '{path}': {said}; {cure(said)}")
    return True
