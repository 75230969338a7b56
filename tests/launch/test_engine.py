"""The engine that flags ask for: refusals before anything is started, and reachable storages."""

from __future__ import annotations

import math
import socket
import threading
from typing import Any

import pytest

from hpo.errors import ConfigurationError
from hpo.launch.choice import engine_of
from hpo.launch.engine import Engine
from hpo.launch.reach import is_loopback
from hpo.study.request import RunRequest


def asked(**flags: Any) -> Engine:
    return engine_of(RunRequest.of(flags), say=lambda what: None, stop=threading.Event())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"launcher": "ray"}, "write --workers N"),
        ({"launcher": "ray", "workers": 2, "gpus": "0"}, "--gpus belongs to --launcher local"),
        ({"launcher": "ray", "workers": 2, "gpus_per_worker": 1.5}, "it is a whole number"),
        ({"launcher": "ray", "workers": 2, "gpus_per_worker": 1e-5}, "a share is 0.0001 or more"),
        ({"launcher": "ray", "workers": 2, "gpus_per_worker": math.inf}, "it is a whole number"),
        ({"launcher": "ray", "workers": 2, "gpus_per_worker": -1}, "no number of at least 0"),
        ({"gpus_per_worker": 0.5}, "--gpus_per_worker belongs to a cluster"),
        ({"runtime_env": "env.json"}, "--runtime_env belongs to --launcher ray"),
        (
            {"launcher": "slurm", "workers": 1, "runtime_env": "env.json"},
            "--runtime_env belongs to --launcher ray",
        ),
        ({"launcher": "ray", "workers": 1, "runtime_env": "none.json"}, "cannot be read"),
        ({"launcher": "slrum"}, "is none of local, ray, slurm"),
    ],
)
def test_flags_that_no_engine_has_together_are_refused(flags: dict[str, Any], message: str):
    pytest.importorskip("ray", reason="ray is not installed (pip install -e '.[ray]')")

    with pytest.raises(ConfigurationError, match=message):
        asked(**flags)


def test_an_address_of_a_cluster_at_which_nothing_listens_is_named_at_once(monkeypatch):
    pytest.importorskip("ray", reason="ray is not installed (pip install -e '.[ray]')")
    with socket.socket() as unheard:
        # Bound and not listening, it refuses, and no other program takes it meanwhile.
        unheard.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unheard.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)

        with pytest.raises(ConfigurationError, match=f"nothing listens at RAY_ADDRESS {address}"):
            asked(launcher="ray", workers=1)


@pytest.mark.parametrize(
    ("place", "is_own"),
    [
        *(("127.0.0.1:5", True), ("127.9.0.1", True), ("localhost", True), ("[::1]:5", True)),
        *(("", True), ("/x?host=/var/run", True), ("/x?host=db", False)),
        *(("db", False), ("10.0.0.3:5", False), ("[fd00::1]", False)),
    ],
)
def test_a_storage_at_an_address_of_each_host_itself_is_reached_by_one_alone(
    place: str, is_own: bool
):
    assert is_loopback(f"postgresql+psycopg2://me:secret@{place}") == is_own
