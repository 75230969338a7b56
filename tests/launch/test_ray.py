"""Workers on a real Ray cluster: their environment, output, ends, and the loss of a node."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from faults.ray_cluster import Cluster

from hpo.errors import ConfigurationError
from hpo.launch.engine import Engine
from hpo.launch.launcher import Launched
from hpo.launch.ray import RayLauncher
from hpo.launch.ray_actor import PYTHON
from hpo.launch.ray_link import Link, RayProcess
from tests.support.processes import wait_until
from tests.support.program import HANGS_S, Program, environment
from tests.support.studies import states

pytestmark = pytest.mark.acceptance
pytest.importorskip("ray", reason="ray is not installed (pip install -e '.[ray]')")

# No word of it is in any program, log or table.
PASSWORD = "pl4nted-pa55w0rd"
URL = f"postgresql+psycopg2://me:{PASSWORD}@127.0.0.1/none"
OBJECTIVE = '''
"""A line in a file at each epoch."""
import os, time
from pathlib import Path
from objectives.quadratic import Quadratic, QuadraticTask

FILE = Path(__file__).with_name("epochs")

class NotedTask(QuadraticTask):
    def __init__(self, params, context):
        super().__init__(params, context)
        self._params, self._step = params, 0

    def batch(self, step):
        time.sleep(0.02)
        self._step = step + 1
        return super().batch(step)

    def validate(self):
        line = f"{self._params!r}; {self._step}; {os.getpid()}\\n".encode()
        file = os.open(FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, line)
        os.close(file)
        return super().validate()

class Noted(Quadratic):
    name = "noted"
    def build(self, params, context):
        return NotedTask(params, context)

objective = Noted()
'''


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head with one core, and a node with two cores and a GPU that is said to be there."""
    made = Cluster()
    try:
        made.add("--num-cpus=2", "--num-gpus=1")
        made.ready()
        yield made
    finally:
        made.close()


Start = Callable[..., Launched]


@pytest.fixture
def launcher(cluster: Cluster, tmp_path: Path) -> Iterator[RayLauncher]:
    """A launcher on the cluster, which holds the password in its own environment."""
    surroundings = environment(URL, tmp_path / "home") | cluster.environment
    made = RayLauncher(surroundings, runtime_env=None)
    yield made
    made.close()


@pytest.fixture
def start(launcher: RayLauncher, tmp_path: Path) -> Start:
    """Starts some code, which writes to `log` in the test's folder."""

    def started(code: str, *, gpus: float = 0.0, **variables: str) -> Launched:
        launcher.gpus = gpus
        return launcher.start(
            [PYTHON, "-c", code],
            environment={"HPO_STORAGE": URL, **variables},
            log=tmp_path / "log",
        )

    return started


def ended(process: Launched) -> int:
    """The exit code of a process, once it has ended."""
    wait_until(lambda: process.poll() is not None)
    code = process.poll()
    assert code is not None
    return code


def test_a_worker_gets_its_variables_and_its_lines_come_before_its_end(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    code = "import os, sys; print(os.environ['HPO_STORAGE'] == sys.argv[-1], 'é' * 70000); "
    code = code.replace("sys.argv[-1]", repr(URL)) + "print(os.environ['X'], flush=True); exit(5)"

    process = start(code, X="own")

    assert ended(process) == 5
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[1:] == [f"True {'é' * 70000}", "own"]
    assert lines[0].startswith("ray | starts on")


def test_workers_share_a_gpu_and_those_without_a_place_wait_until_they_are_withdrawn(
    start: Start, tmp_path: Path
):
    code = "import os, sys, time; print('GPU', os.environ['CUDA_VISIBLE_DEVICES'], flush=True); "
    code += "time.sleep(1000)"
    sharing = [start(code, gpus=0.5) for _ in range(3)]
    log = tmp_path / "log"
    # The bridge names the GPU, too.
    wait_until(lambda: log.read_text().splitlines().count("GPU 0") == 2)
    waiting = [process for process in sharing if process.began_at is None]

    assert len(waiting) == 1
    waiting[0].stop()
    assert ended(waiting[0]) == 0
    running = [process for process in sharing if process.poll() is None]
    running[0].stop()
    assert ended(running[0]) == -15
    running[1].kill()
    assert running[1].wait() == -9


def test_a_password_is_nowhere_but_in_the_workers_environment(
    start: Start, cluster: Cluster, tmp_path: Path
):
    process = start("import time; print('here', flush=True); time.sleep(1000)")
    wait_until(lambda: "here" in (tmp_path / "log").read_text())
    listed = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True).stdout
    kept = [
        path
        for path in cluster.folder.rglob("*")
        if path.is_file() and PASSWORD.encode() in path.read_bytes()
    ]
    code = (
        "import ray; ray.init(log_to_driver=False); "
        "from ray._private import state; print(state.jobs(), state.actors(), ray.nodes())"
    )
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **cluster.environment},
        capture_output=True,
        text=True,
    ).stdout
    process.kill()
    process.wait()

    assert "WorkerActor" in told
    assert "hpo.launch.ray_bridge" in told
    for text in (listed, told, (tmp_path / "log").read_text()):
        assert PASSWORD not in text
    assert not kept


def test_a_runtime_environment_brings_the_objective_and_a_host_without_hpo_says_so(
    cluster: Cluster, tmp_path: Path
):
    code, log = tmp_path / "code", tmp_path / "log"
    (code / "hpo").mkdir(parents=True)
    (code / "hpo" / "__init__.py").write_text("raise ImportError('none here')")
    (code / "mine.py").write_text("brought along")
    file = tmp_path / "environment.json"
    reading = "import pathlib, sys; print(pathlib.Path(sys.argv[-1]).read_text())"
    argv = [PYTHON, "-P", "-c", reading, "--objective", str(code / "mine.py")]
    variables = [{}, {"PYTHONPATH": str(code)}]
    codes = []

    for env_vars in variables:
        file.write_text(
            json.dumps({"working_dir": str(code), "env_vars": env_vars, "excludes": ["hpo"]})
        )
        launcher = RayLauncher(
            environment(URL, tmp_path / "home") | cluster.environment, runtime_env=file
        )
        process = launcher.start(argv, environment={"HPO_STORAGE": URL}, log=log)
        codes.append(ended(process))
        launcher.close()

    assert codes == [0, 2]
    lines = log.read_text().splitlines()
    assert lines[1] == "brought along"
    assert "cannot import hpo (none here); install the same version for" in lines[2]


def test_a_worker_ends_with_its_actor_and_was_killed_from_outside(
    start: Start, cluster: Cluster, tmp_path: Path
):
    process = start("import time; print('here', flush=True); time.sleep(1000)")
    wait_until(lambda: "here" in (tmp_path / "log").read_text())
    (actor,) = cluster.actors()

    actor.kill()

    assert ended(process) == -9
    assert "its actor or its host has ended" in (tmp_path / "log").read_text()


def test_a_node_that_is_killed_costs_no_trial_and_doubles_none(
    cluster: Cluster, program: Program, url: str, tmp_path: Path
):
    path = tmp_path / "noted.py"
    path.write_text(OBJECTIVE)
    program.environment |= cluster.environment
    run = program.start(
        *("--objective", str(path), "--study_name", "s", "--n_trials", "7", "--pruner", "none"),
        *("--epochs_per_trial", "3", "--launcher", "ray", "--workers", "4"),
        *("--gpus_per_worker", "0", "--range", "lr=0.001,0.1,log"),
    )
    epochs = tmp_path / "epochs"
    wait_until(lambda: len(cluster.actors()) == 3 or run.poll() is not None)
    wait_until(lambda: len(_by_trial(epochs)) >= 4 or run.poll() is not None)

    cluster.kill(cluster.nodes[1])
    _, err = run.communicate(timeout=HANGS_S)

    assert run.returncode == 0, err
    assert states(url, "s") == {"COMPLETE": 7}
    by_trial = _by_trial(epochs)
    assert len(by_trial) == 7
    last = max(max(steps) for steps in by_trial.values())
    # Every trial reached its end, and none twice.
    assert all(Counter(steps)[last] == 1 for steps in by_trial.values())
    assert "3 of 4 workers run, 1 waits for the cluster" in err


def _by_trial(epochs: Path) -> dict[str, list[int]]:
    """The steps at which each trial was validated."""
    found: dict[str, list[int]] = {}
    for line in epochs.read_text().splitlines() if epochs.exists() else ():
        params, step, _ = line.split("; ")
        found.setdefault(params, []).append(int(step))
    return found


def test_a_host_that_cannot_reach_the_storage_is_refused_also_when_it_joins_later(
    start: Start, launcher: RayLauncher, cluster: Cluster, tmp_path: Path
):
    process = start("pass", gpus=3.0)
    cluster.add("--num-cpus=1", "--num-gpus=3", "--node-ip-address=127.0.0.2")
    cluster.ready()
    engine = Engine(launcher=launcher, slots=[], elsewhere=["127.0.0.2"])

    assert ended(process) == 2
    assert "cannot reach the storage, which is on" in (tmp_path / "log").read_text()
    assert launcher.cluster.elsewhere == []
    surroundings = environment(URL, tmp_path / "home") | cluster.environment
    later = RayLauncher(surroundings, runtime_env=None)
    later.close()
    assert later.cluster.elsewhere == ["127.0.0.2"]
    engine.refuse_unreachable(URL.replace("127.0.0.1", "db"))
    with pytest.raises(ConfigurationError, match=r"the cluster has other hosts \(127.0.0.2\)"):
        engine.refuse_unreachable(URL)


def test_ctrl_c_ends_the_search_for_a_cluster_that_does_not_answer(tmp_path: Path):
    # Ray goes on for minutes.
    surroundings = environment(URL, tmp_path) | {"RAY_ADDRESS": "192.0.2.7:6379"}
    threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGINT)).start()

    with pytest.raises(KeyboardInterrupt):
        RayLauncher(surroundings, runtime_env=None)

    left = [one.cmdline() for one in psutil.Process().children()]
    assert not any("hpo.launch.ray_bridge" in words for words in left)


def test_a_bridge_that_finds_no_cluster_ends_with_a_run_that_was_killed(tmp_path: Path):
    surroundings = environment(URL, tmp_path) | {"RAY_ADDRESS": "192.0.2.7:6379"}
    code = (
        "from hpo import environ; from hpo.launch.ray import RayLauncher;"
        "RayLauncher(environ.variables(), runtime_env=None)"
    )
    run = subprocess.Popen([sys.executable, "-c", code], env=surroundings)
    wait_until(lambda: bool(psutil.Process(run.pid).children()))
    (bridge,) = psutil.Process(run.pid).children()

    # It imports Ray, and tries then.
    run.kill()
    run.wait()

    bridge.wait(HANGS_S)


def test_a_run_does_not_wait_for_a_bridge_that_reads_nothing_as_it_looks_for_a_cluster(
    tmp_path: Path,
):
    surroundings = environment(URL, tmp_path) | {"RAY_ADDRESS": "192.0.2.7:6379"}
    about = {"runtime_env": None, "version": None, "is_again": True, "run": os.getpid()}
    link = Link(surroundings, about)
    processes = [RayProcess(link.tell, tmp_path / "log") for _ in range(500)]

    def start() -> None:
        # More than a pipe holds.
        for number, process in enumerate(processes):
            link.start(number, process, {"argv": ["word" * 100], "environment": {}, "gpus": 0})

    starting = threading.Thread(target=start, daemon=True)
    starting.start()
    starting.join(5)
    is_over = not starting.is_alive()

    link.close()
    assert is_over
