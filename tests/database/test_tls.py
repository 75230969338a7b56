"""TLS by the storage's URL: each mode connects, or says what to write."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from hpo.database.connection import connect
from hpo.errors import StorageError
from tests.support.program import Program
from tests.support.studies import QUADRATIC, states
from tests.support.system_server import SystemServer, system_server

pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two authorities, `ca` and `other`, and a server's certificate of `ca`.

    It names the host `localhost`, and not its address.
    """
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here to make certificates with")
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*command: str) -> None:
        done = subprocess.run(["openssl", *command], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    for name in ("ca", "other"):
        made = ("-keyout", f"{name}.key", "-out", f"{name}.crt")
        openssl("req", "-x509", *key, "-subj", f"/CN={name} of a test", "-days", "2", *made)
    openssl(
        *("req", *key, "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
        *("-keyout", "server.key", "-out", "server.csr"),
    )
    openssl(
        *("x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key"),
        *("-CAcreateserial", "-days", "2", "-copy_extensions", "copy", "-out", "server.crt"),
    )
    return folder


@pytest.fixture(scope="module")
def server(certificates: Path) -> Iterator[SystemServer]:
    """A server that takes connections with TLS alone."""

    def with_tls(data: Path) -> None:
        for name in ("server.crt", "server.key"):
            shutil.copy(certificates / name, data / name)
            (data / name).chmod(0o600)
            if os.getuid() == 0:
                shutil.chown(data / name, "postgres")
        with (data / "postgresql.conf").open("a") as file:
            file.write("\nssl = on\n")
        hba = "hostssl mine me 127.0.0.1/32 scram-sha-256\nhost all admin 127.0.0.1/32 trust\n"
        (data / "pg_hba.conf").write_text(hba)

    with system_server(with_tls) as found:
        yield found


def of(server: SystemServer, *, host: str = "localhost", **query: str) -> str:
    made = sa.make_url(server.url).set(host=host).update_query_dict(query)
    return made.render_as_string(hide_password=False)


def test_a_study_runs_over_a_connection_whose_server_is_verified(
    server: SystemServer, certificates: Path, tmp_path: Path
):
    url = of(server, sslmode="verify-full", sslrootcert=str(certificates / "ca.crt"))

    ran = Program(url, tmp_path / "home")(*QUADRATIC, "--n_trials", "2", "--workers", "1")

    assert ran.returncode == 0, ran.stderr
    assert sum(states(url).values()) == 2
    with connect(url).connect() as connection:
        statement = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        assert connection.scalar(sa.text(statement)) is True


@pytest.mark.parametrize(
    ("mode", "authority", "host", "says"),
    [
        ("require", None, "127.0.0.1", None),
        ("verify-ca", "ca", "127.0.0.1", None),
        ("verify-full", "ca", "localhost", None),
        ("verify-full", "ca", "127.0.0.1", 'does not match host name "127.0.0.1"; name the host'),
        ("verify-full", "other", "localhost", "certificate verify failed; name the certificate of"),
        ("verify-ca", "other", "localhost", "certificate verify failed; name the certificate of"),
        ("verify-full", "missing", "localhost", "does not exist; name the file with"),
        (
            "disable",
            None,
            "localhost",
            "no encryption; if it takes TLS alone, write ?sslmode=verify-full",
        ),
    ],
)
def test_each_mode_connects_or_says_what_to_write(
    server: SystemServer, certificates: Path, mode, authority, host, says
):
    query = {"sslmode": mode}
    if authority is not None:
        query["sslrootcert"] = str(certificates / f"{authority}.crt")
    url = of(server, host=host, **query)

    if says is None:
        connect(url).dispose()
        return
    with pytest.raises(StorageError) as refused:
        connect(url)

    said = str(refused.value)
    assert says in said and "\n" not in said
    assert "a@b/c" not in said and "a%40b" not in said
