"""`doctor` on real servers, roles and processes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg2
import pytest
import torch

from hpo.doctor import database, diagnose, machine, torch_check
from hpo.doctor.finding import Finding, guarded
from hpo.embedded import server
from hpo.errors import ConfigurationError
from hpo.machine import gpus
from tests.support.program import ROOT, Command, Program, environment
from tests.support.servers import open_folder


def by_name(findings) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def sql(url: str, *statements: str) -> None:
    connection = psycopg2.connect(url.replace("+psycopg2", ""))
    connection.autocommit = True
    try:
        for statement in statements:
            connection.cursor().execute(statement)
    finally:
        connection.close()


@pytest.mark.acceptance
def test_a_fresh_home_with_spaces_and_umlauts_is_found_well_in_every_part():
    base = open_folder()
    home = base / "mein Ordner ä€"
    program = Program(None, home)
    try:
        done = program("doctor")

        assert done.returncode == 0, done.stdout + done.stderr
        lines = done.stdout.splitlines()
        names = [line[9:22].strip() for line in lines if not line.startswith("         cure")]
        assert names == [
            *("python", "packages", "constraints", "home", "disk", "shared memory", "processes"),
            *("open files", "workers", "database", "round trip", "encoding", "tables", "rights"),
            *("connections", "clock", "studies", "gpu", "defaults", "precision"),
        ]
        assert "embedded, started just now" in done.stdout
        password = (home / "postgres/password").read_text().strip()
        assert password not in done.stdout + done.stderr
    finally:
        server.stop(home, immediate=True)
        shutil.rmtree(base)


def test_a_database_that_does_not_answer_fails_alone_and_its_password_is_hidden(capsys, tmp_path):
    command = Command(environment(None, tmp_path), capsys)

    done = command("doctor", "--json", "--storage", "postgresql+psycopg2://u:geheim@127.0.0.1:1/x")

    assert done.returncode == 2
    found = json.loads(done.stdout)
    failed = [check for check in found["checks"] if check["state"] == "failed"]
    assert not found["ok"]
    assert [check["name"] for check in failed] == ["database"]
    assert "u:***@127.0.0.1:1" in failed[0]["found"] and failed[0]["cure"]
    assert {"home", "gpu", "precision"} <= {check["name"] for check in found["checks"]}
    assert "geheim" not in done.stdout + done.stderr


@pytest.mark.acceptance
def test_the_first_finding_needs_neither_torch_nor_sqlalchemy():
    code = (
        "import sys; from hpo.doctor.diagnose import diagnose; print(next(diagnose()).state);"
        "print(sorted({'torch', 'sqlalchemy', 'optuna'} & set(sys.modules)))"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == ["ok", "[]"]


def test_a_roles_missing_rights_are_named_and_the_cure_cures_them(url, tmp_path):
    sql(url, "DROP ROLE IF EXISTS guest", "CREATE ROLE guest LOGIN PASSWORD 'geheim'")
    login, _, place = url.partition("@")
    theirs = f"{login.split('//')[0]}//guest:geheim@{place}"

    def rights() -> Finding:
        return by_name(database.examine(tmp_path, theirs))["rights"]

    try:
        closed = rights()
        sql(url, closed.cure)
        cured = rights()
        sql(url, "REVOKE DELETE ON studies FROM guest")
        no_delete = rights()
        sql(url, "REVOKE EXECUTE ON FUNCTION hpo.end_leases FROM guest")
        no_lease = rights()
        sql(url, no_lease.cure, "DELETE FROM hpo.schema_version")
        no_tables = rights()
    finally:
        sql(url, "DROP OWNED BY guest", "DROP ROLE guest")

    assert closed.state == "failed" and "no SELECT on" in closed.found
    assert cured.state == "ok", cured
    assert no_delete.state == "ok" and "may not delete one (public.studies)" in no_delete.found
    assert no_lease.state == "failed" and "no EXECUTE on hpo.end_leases" in no_lease.found
    assert no_tables.state == "failed" and "may not create tables in schema hpo" in no_tables.found


def test_tables_of_a_later_version_and_a_read_only_role_are_failures(url, tmp_path):
    sql(url, "UPDATE hpo.schema_version SET version = 999")
    sql(url, f"ALTER DATABASE {url.rpartition('/')[2]} SET default_transaction_read_only = on")

    found = by_name(database.examine(tmp_path, url))

    assert found["tables"].state == "failed" and "999" in found["tables"].found
    assert found["database"].state == "failed" and "read-only" in found["database"].found
    assert found["studies"].found == "0"


def test_a_package_out_of_range_and_one_that_differs_from_the_tested_are_named(
    tmp_path, monkeypatch
):
    for name, version in (("optuna", "4.0.0"), ("torch", "2.12.0")):
        about = tmp_path / f"{name}-{version}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}")
    monkeypatch.syspath_prepend(tmp_path)

    found = by_name([*diagnose._packages(), *diagnose._constraints()])

    assert found["packages"].state == "failed"
    assert "optuna 4.0.0 is not <5.1,>=5.0" in found["packages"].found
    assert "torch 2.12.0 instead of ==2.13.0" in found["constraints"].found


def test_a_check_that_raises_is_a_failed_one():
    def check():
        yield Finding(name="first", state="ok", found="-")
        raise ValueError("no such luck\nat all")

    first, second = guarded("mine", check)

    assert first.name == "first"
    assert second.state == "failed"
    assert second.found == "the check raised ValueError: no such luck"


def test_a_home_that_is_a_file_is_told_with_what_to_do(tmp_path):
    home = tmp_path / "home"
    home.touch()

    checks = machine.checks(home)
    found = by_name([*checks["home"](), *checks["disk"]()])

    assert found["home"].state == "failed"
    assert "HPO_HOME" in found["home"].cure


def test_an_nvidia_driver_that_hangs_or_a_build_without_cuda_fails_with_the_cure(
    tmp_path, monkeypatch
):
    if any(Path("/dev").glob("nvidia[0-9]*")) or torch.version.cuda is not None:
        pytest.skip("a CUDA build or an NVIDIA device is here")
    tool = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(gpus, "_DRIVER_S", 0.1)

    tool.write_text("#!/bin/sh\nexec sleep 5\n")
    tool.chmod(0o755)
    with pytest.raises(ConfigurationError, match=r"driver hangs.*CUDA_VISIBLE_DEVICES="):
        gpus.usable_gpus()
    monkeypatch.setattr(gpus, "_DRIVER_S", 20.0)
    tool.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H200 (UUID: GPU-1)'\n")
    found = by_name(guarded("gpu", lambda: torch_check.gpus(None)))
    unwanted = by_name(torch_check.gpus(""))

    assert found["gpu"].state == "failed" and "CUDA build" in found["gpu"].found
    assert unwanted["gpu"].state == "ok"


def test_eigenvectors_on_the_cpu_are_orthonormal_within_the_checks_bound():
    assert torch_check.eigh_error(torch.device("cpu")) < torch_check._ORTHONORMAL


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_every_gpu_computes_right():
    found = by_name(guarded("gpu", lambda: torch_check.gpus(None)))

    assert found["gpu 0"].state in ("ok", "warning"), found
