"""Metrics of a study for Prometheus: a port that serves them, and what is served.

The figures are those of the whole study, over all its runs and workers, read from the database when
they are asked for, and at most every `_EVERY_S`. Only the outages are those that this run has seen.
While the database is away the last figures are served, and `hpo_database_up` is 0.

Border: the HTTP server is prometheus-client's, and `hpo.tickets.figures` reads.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from hpo.database.patience import outages, since_outage_s
from hpo.errors import ConfigurationError
from hpo.tickets.figures import Figures, Held

if TYPE_CHECKING:
    from hpo.database.ended import Group

# Prometheus asks every 15 to 60 s by default; several of them cost no more than one.
_EVERY_S = 5.0
_STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
_OPEN = ("open", "leased", "complete", "pruned", "failed")

_logger = logging.getLogger(__name__)


class Metrics:
    """The metrics of one run's study on a port; a context that closes the port.

    Raises:
        ConfigurationError: The port is taken, or cannot be listened on.
    """

    def __init__(self, host: str, port: int) -> None:
        self._read: Callable[[], Figures | None] | None = None
        self._figures: Figures | None = None
        self._read_at, self._is_up = -_EVERY_S, False
        self._lock = threading.Lock()
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except (OSError, OverflowError) as error:
            raise ConfigurationError(
                f"metrics cannot be served on {host}:{port}: "
                f"{getattr(error, 'strerror', None) or error}; name another port "
                "(--metrics_port, --metrics_host)"
            ) from error

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def follow(self, read: Callable[[], Figures | None]) -> None:
        """Serve the figures that this function reads, from now on."""
        self._read = read

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry asks this, and there is no study yet."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The metrics, as Prometheus asks for them."""
        with self._lock:
            self._refresh()
            figures, is_up = self._figures, self._is_up
        yield _gauge("database_up", "1 if the figures were read when they were due.", int(is_up))
        count, seconds = outages()
        yield _counter("run_outages", "Outages of the database that this run waited out.", count)
        yield _counter("run_outage_seconds", "Time that this run waited in outages.", seconds)
        if figures is not None:
            yield from _of_study(figures)

    def _refresh(self) -> None:
        if self._read is None or time.monotonic() - self._read_at < _EVERY_S:
            return
        self._is_up = False
        if since_outage_s() == 0.0:
            # A try would make Prometheus wait, too.
            return
        try:
            self._figures = _grown(self._figures, self._read())
            self._is_up = True
        except Exception as error:
            # Nothing that a monitor asks for ends a run.
            _logger.warning("the metrics cannot be read: %s", str(error).partition("\n")[0])
        self._read_at = time.monotonic()


def _grown(before: Figures | None, now: Figures | None) -> Figures | None:
    """The figures of now, with no less spent than before.

    A trial that is ending counts until its transaction began, and until now before its commit: up
    to some ms more. A counter that goes down would be taken for one that began anew.
    """
    if before is None or now is None:
        return now
    earlier = before.spent
    hours = max(now.spent.hours, earlier.hours)
    gpu_hours = max(now.spent.gpu_hours, earlier.gpu_hours)
    return replace(now, spent=replace(now.spent, hours=hours, gpu_hours=gpu_hours))


def _of_study(found: Figures) -> Iterator[Metric]:
    study, spent = found.study, found.spent
    trials = GaugeMetricFamily(
        "hpo_trials", "Trials by state, pruned ones by reason.", labels=["study", "state", "reason"]
    )
    for (state, reason), count in sorted(_trials(found.ended).items()):
        trials.add_metric([study, state, reason], count)
    trials.add_metric([study, "running", ""], found.tickets.get("leased", 0))
    yield trials
    counts = {state: found.tickets.get(state, 0) for state in _OPEN}
    yield _gauges("tickets", "The study's budget of trials by state.", study, "state", counts)
    yield _gauge("leases", "Trials that workers hold.", len(found.leases), study)
    oldest_s = max((lease.silent_s for lease in found.leases), default=0.0)
    text = "Time since the last beat of the worker that has been silent for longest."
    yield _gauge("oldest_beat_age_seconds", text, oldest_s, study)
    steps = {one.worker: one.step_s for one in found.leases if one.step_s is not None}
    yield _gauges("step_seconds", "Mean time of a worker's latest steps.", study, "worker", steps)
    memory = _memory(found.leases)
    yield _gauges("gpu_memory_bytes", "GPU memory a worker holds.", study, "worker", memory)
    yield _counter("workers_lost", "Workers lost with a trial.", spent.lost, study)
    text = "Time in which at least one trial was trained, as --max_hours counts it."
    yield _counter("busy_seconds", text, 3600 * spent.hours, study)
    text = "GPU time of trials, as --max_gpu_hours counts it."
    yield _counter("gpu_seconds", text, 3600 * spent.gpu_hours, study)
    limits = {"busy": spent.max_hours, "gpu": spent.max_gpu_hours}
    seconds = {kind: 3600 * hours for kind, hours in limits.items() if hours is not None}
    yield _gauges("limit_seconds", "The most of a kind of time.", study, "kind", seconds)


def _trials(groups: Iterable[Group]) -> Mapping[tuple[str, str], int]:
    """Numbers of trials by state and prune reason; others than pruned ones have none."""
    found: Counter[tuple[str, str]] = Counter()
    for group in groups:
        reason = ""
        if group.state == TrialState.PRUNED:
            reason = str(json.loads(group.reason)) if group.reason else "-"
        found[_STATES[group.state], reason] += group.count
    return found


def _memory(leases: Iterable[Held]) -> Mapping[str, float]:
    return {one.worker: one.gpu_bytes for one in leases if one.gpu_bytes is not None}


def _gauge(name: str, text: str, value: float, study: str | None = None) -> Metric:
    return _single(GaugeMetricFamily, name, text, value, study)


def _counter(name: str, text: str, value: float, study: str | None = None) -> Metric:
    return _single(CounterMetricFamily, name, text, value, study)


def _single(family: Any, name: str, text: str, value: float, study: str | None) -> Metric:
    found: Metric = family(f"hpo_{name}", text, labels=[] if study is None else ["study"])
    found.add_metric([] if study is None else [study], value)  # type: ignore[attr-defined]
    return found


def _gauges(name: str, text: str, study: str, label: str, values: Mapping[str, float]) -> Metric:
    found = GaugeMetricFamily(f"hpo_{name}", text, labels=["study", label])
    for key, value in values.items():
        found.add_metric([study, key], value)
    return found
