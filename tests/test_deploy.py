"""The files in deploy/: valid for the programs that read them, and calling ours as it is."""

from __future__ import annotations

import ast
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from hpo import cli
from hpo.fleet.config import FleetConfig
from tests.support.processes import wait_until

DEPLOY = Path(__file__).parent.parent / "deploy"
JOBS: dict[str, Any] = {
    job["metadata"]["name"]: job
    for job in yaml.safe_load((DEPLOY / "kubernetes.yaml").read_text())["items"]
}
# The first release in which a Job has limits of failures for each index, and the newest checked.
VERSIONS = ("1.29", "1.37")


def parsed(words: list[str]) -> dict[str, Any]:
    """A command line as the program parses it, which raises what a user would see."""
    context = click.Context(cli.commands)
    command = cli.commands.get_command(context, words[0])
    return command.make_context(words[0], words[1:], parent=context).params


def pod(name: str) -> dict[str, Any]:
    return JOBS[name]["spec"]["template"]["spec"]


@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_job_fits_the_schema_of_kubernetes(name: str, version: str):
    kubernetes_validate = pytest.importorskip(
        "kubernetes_validate", reason="it needs the package kubernetes-validate (108 MB)"
    )

    kubernetes_validate.validate(JOBS[name], version, strict=True)


def test_the_pods_of_both_jobs_have_one_study_one_secret_and_time_to_stop():
    run, worker = pod("hpo-run")["containers"][0], pod("hpo-workers")["containers"][0]

    asked, told = parsed(run["args"]), parsed(["worker", *worker["args"]])

    assert asked["study_name"] == told["study_name"]
    assert asked["objective"] == told["objective"]
    # Whichever pod is lost, another one goes on with its trial.
    assert (asked["checkpoint_dir"], told["checkpoint_dir"]) == ("database", None)
    (waiting,) = pod("hpo-workers")["initContainers"]
    assert f"--study_name {asked['study_name']} " in waiting["command"][-1]
    for container in (run, waiting, worker):
        variables = {one["name"]: one for one in container["env"]}
        assert variables["HPO_STORAGE"]["valueFrom"]["secretKeyRef"]["name"] == "hpo-storage"
        assert container["securityContext"]["readOnlyRootFilesystem"]
        # Nothing else may be written.
        assert variables["HPO_HOME"]["value"] in {m["mountPath"] for m in container["volumeMounts"]}
    grace_s = FleetConfig.__dataclass_fields__["grace_s"].default
    assert all(pod(name)["terminationGracePeriodSeconds"] > grace_s for name in JOBS)


def test_a_failed_index_is_tried_again_as_kubernetes_demands_it():
    # The schema does not say so: limits for an index, and rules, go with these two alone.
    spec = JOBS["hpo-workers"]["spec"]

    assert spec["completionMode"] == "Indexed"
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert {rule["action"] for rule in spec["podFailurePolicy"]["rules"]} == {"Ignore", "FailIndex"}
    assert pod("hpo-workers")["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_the_workers_shell_passes_on_how_the_worker_ended(tmp_path: Path):
    command = pod("hpo-workers")["containers"][0]["command"]
    # `python` is this one, and a worker without a study is misconfigured.
    # A link would leave the packages of its environment behind.
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (tmp_path / "python").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": str(DEPLOY.parent)}

    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert "--study_name" in done.stderr


def test_a_worker_that_was_stopped_has_not_finished_for_kubernetes(tmp_path: Path):
    shell = pod("hpo-workers")["containers"][0]["command"][2]
    # In place of the worker, which saves its trial and ends with 0 on SIGTERM.
    own = f"trap 'sleep .5; touch {tmp_path}/saved; exit 0' TERM; touch {tmp_path}/ready; sleep 9"
    assert "python -m hpo worker " in shell
    shell = shell.replace("python -m hpo worker", f"sh -c '{own.replace(chr(39), chr(34))} & wait'")
    process = subprocess.Popen(["sh", "-c", shell, "worker"], stdin=subprocess.DEVNULL)
    wait_until((tmp_path / "ready").exists)

    process.terminate()

    assert process.wait(30) == 143
    assert (tmp_path / "saved").exists()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="it needs systemd-analyze")
def test_systemd_takes_the_unit(tmp_path: Path):
    text = (DEPLOY / "hpo-worker@.service").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    program, _, arguments = line.removeprefix("ExecStart=").partition(" -P -m hpo ")
    assert parsed(shlex.split(arguments.replace("%i", "0")))["device"] == "cuda"
    # There is no /opt/hpo here.
    unit = tmp_path / "hpo-worker@.service"
    unit.write_text(text.replace(program, sys.executable).replace("/opt/hpo", str(tmp_path)))

    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("sh") is None, reason="it needs sh")
def test_the_script_for_ssh_starts_workers_as_the_program_takes_them(tmp_path: Path):
    path = DEPLOY / "ssh-workers.sh"
    # The remote part stands alone, between the marks of its here-document.
    remote = path.read_text().split("<< 'SCRIPT'\n")[1].split("\nSCRIPT\n")[0]
    # This host's shell executes it, with a program that says what it was called with.
    said = [sys.executable, "-c", "import sys; print(sys.argv[1:])"]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    assert subprocess.run(["sh", "-n", str(path)], check=False).returncode == 0

    subprocess.run(
        ["sh", "-s", "--", "a study", *said], input=remote, env=environment, text=True, check=True
    )

    log = tmp_path / "hpo-logs" / "worker-0.log"
    wait_until(lambda: log.exists() and log.read_text().endswith("]\n"))
    words = ast.literal_eval(log.read_text().splitlines()[-1])
    assert parsed(words)["study_name"] == "a study"
