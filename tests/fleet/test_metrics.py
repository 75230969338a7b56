"""A run's metrics as Prometheus reads them, of the whole study, and a port that is taken."""

from __future__ import annotations

import math
import re
import socket
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from hpo.errors import ConfigurationError
from hpo.fleet.metrics import Metrics
from hpo.tickets.figures import Figures, Held
from hpo.tickets.spent import Spent
from tests.support.processes import kill_all, wait_until
from tests.support.program import Command, Program
from tests.support.studies import QUADRATIC
from tests.support.studies import Held as HeldObjective


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        found: int = probe.getsockname()[1]
    return found


def scrape(port: int) -> dict[str, Metric]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        return {m.name: m for m in text_string_to_metric_families(answer.read().decode())}


def named(found: dict[str, Metric], name: str) -> list[Metric]:
    """The metric of this name, if it is there."""
    return [found[name]] if name in found else []


def values(metric: Metric) -> dict[tuple[str, ...], float]:
    """The samples by their labels without the study."""
    return {
        tuple(text for name, text in sorted(sample.labels.items()) if name != "study"): sample.value
        for sample in metric.samples
    }


@pytest.mark.acceptance
def test_a_real_runs_metrics_are_of_the_whole_study(
    program: Program, port: int, held: HeldObjective
):
    held.hold(3)
    flags = ("--objective", str(held.path), "--study_name", "s", "--pruner", "none")
    run = program.start(
        *("run", *flags, "--n_trials", "5", "--workers", "1", "--max_hours", "7"),
        *("--epochs_per_trial", "4", "--metrics_port", str(port)),
    )
    try:
        # The third trial is being held. A beat within 5 s tells of its steps.
        wait_until(held.is_holding)
        wait_until(lambda: any(m.samples for m in named(scrape(port), "hpo_step_seconds")))
        found = scrape(port)
    finally:
        kill_all(run.pid)

    assert values(found["hpo_trials"]) == {("", "complete"): 2, ("", "running"): 1}
    assert values(found["hpo_tickets"]) == {
        ("open",): 2, ("leased",): 1, ("complete",): 2, ("pruned",): 0, ("failed",): 0
    }  # fmt: skip
    assert values(found["hpo_leases"]) == {(): 1}
    assert 0 <= values(found["hpo_oldest_beat_age_seconds"])[()] < 60
    (step_s,) = values(found["hpo_step_seconds"]).values()
    assert 0 < step_s < 5
    assert values(found["hpo_busy_seconds"])[()] > 0
    assert values(found["hpo_limit_seconds"]) == {("busy",): 7 * 3600}
    assert values(found["hpo_database_up"]) == {(): 1}
    assert found["hpo_workers_lost"].type == "counter"
    assert found["hpo_workers_lost"].samples[0].name == "hpo_workers_lost_total"
    assert {s.labels["study"] for s in found["hpo_trials"].samples} == {"s"}


@pytest.fixture
def served(port: int) -> Iterator[Metrics]:
    with Metrics("127.0.0.1", port) as metrics:
        yield metrics


def test_names_and_units_follow_the_conventions_and_each_has_a_help(served: Metrics, port: int):
    limits = Spent(hours=1, gpu_hours=2, lost=3, max_hours=4, max_gpu_hours=5)
    lease = Held(worker="h/gpu:0", silent_s=2.5, step_s=0.1, gpu_bytes=1 << 30)
    served.follow(lambda: Figures(study='a "b"', tickets={"open": 1}, leases=[lease], spent=limits))

    found = scrape(port)

    # prometheus.io/docs/practices/naming: an application's prefix, base units, `_total`.
    for name, metric in found.items():
        assert re.fullmatch(r"hpo_[a-z_]+", name)
        assert metric.documentation.endswith(".")
        assert not re.search(r"_(ms|hours|minutes|mb)$", name)
        for sample in metric.samples:
            assert sample.name.endswith("_total") == (metric.type == "counter")
            assert math.isfinite(sample.value)
    assert found["hpo_gpu_memory_bytes"].samples[0].labels == {
        "study": 'a "b"',
        "worker": "h/gpu:0",
    }
    assert values(found["hpo_gpu_seconds"]) == {(): 7200}


def test_the_last_figures_are_served_while_the_database_is_away(served: Metrics, port: int):
    figures = [Figures(study="s", tickets={"open": 4}, leases=(), spent=Spent())]
    served.follow(lambda: figures.pop())
    first = scrape(port)
    served._read_at = -math.inf

    second = scrape(port)

    assert values(first["hpo_database_up"]) == {(): 1}
    assert values(second["hpo_database_up"]) == {(): 0}
    assert values(second["hpo_tickets"])[("open",)] == 4


def test_counters_never_go_down(served: Metrics, port: int):
    # Milliseconds less, as where a sample met a trial in the middle of its end.
    hours = [0.99999, 1.0]
    served.follow(lambda: Figures(study="s", tickets={}, leases=(), spent=Spent(hours=hours.pop())))
    first = scrape(port)
    served._read_at = -math.inf

    second = scrape(port)

    assert hours == []
    assert values(first["hpo_busy_seconds"]) == values(second["hpo_busy_seconds"]) == {(): 3600}


def test_many_scrapes_read_once(served: Metrics, port: int):
    reads = []

    def read() -> None:
        reads.append(1)

    served.follow(read)
    for _ in range(3):
        scrape(port)

    assert len(reads) == 1


def test_a_port_that_is_taken_ends_the_run_before_anything_is_created(
    served: Metrics, port: int, command: Command, empty_url: str, tmp_path: Path
):
    home = tmp_path / str(uuid.uuid4())
    command._surroundings.update(HPO_HOME=str(home), HPO_STORAGE=empty_url)

    ran = command("run", *QUADRATIC, "--metrics_port", str(port))

    assert ran.returncode == 2
    assert f"metrics cannot be served on 127.0.0.1:{port}" in ran.stderr
    assert "--metrics_port" in ran.stderr
    assert not home.exists()
    with pytest.raises(ConfigurationError, match="port"):
        Metrics("127.0.0.1", 70_000)
