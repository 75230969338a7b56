"""Start-up: from the command to the first training step, beside what importing torch takes.

    python benchmarks/startup.py

Each round measures `import torch`, `--help` and a run of `quadratic` on a running server one after
the other, so that the machine's pace is the same for all; it prints medians and ranges. The
objective is `quadratic` with a clock in its first step. The server is one of its own, below a
temporary folder, and so is the bytecode, which an installation has beside its modules. Memory is
each process's resident set (VmRSS) at the first step, and the largest of the run's own process
(VmHWM).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpo.embedded import server

_OBJECTIVE = """
import os, time
from pathlib import Path
from objectives.quadratic import Quadratic, QuadraticTask

FILE = Path(os.environ["FIRST_STEP"])

class Clocked(QuadraticTask):
    def forward(self, batch):
        if not FILE.exists():
            FILE.write_text(str(time.time()))
        # The benchmark reads the memory of all processes meanwhile.
        while not FILE.with_suffix(".read").exists():
            time.sleep(0.001)
        return super().forward(batch)

class Clock(Quadratic):
    name = "clock"
    def build(self, params, context):
        return Clocked(params, context)

objective = Clock()
"""
_LIMIT_S = 120.0


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    found: dict[str, list[float]] = defaultdict(list)
    # PostgreSQL's account, where this one is root, must reach the folder.
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        home.chmod(0o755)
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = str(home / "bytecode")
        url = server.start(home / "server").url
        try:
            for number in range(rounds + 1):
                one = _round(home, url, number)
                # The first one makes the tables and the bytecode, and reads all files from disk.
                for name, value in one.items() if number else ():
                    found[name].append(value)
        finally:
            server.stop(home / "server")
    _print(found)


def _round(home: Path, url: str, number: int) -> dict[str, float]:
    program = [sys.executable, "-m", "hpo"]
    torch_s = _seconds([sys.executable, "-c", "import torch"])
    found = {
        "`import torch`, s": torch_s,
        "`--help`, s": _seconds([*program, "--help"]),
        "`run --help`, s": _seconds([*program, "run", "--help"]),
    }
    step_s, memory = _run(home, url, number)
    found |= {"first step of `quadratic`, s": step_s, "that, in imports of torch": step_s / torch_s}
    return {**found, **memory}


def _seconds(command: Sequence[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def _run(home: Path, url: str, number: int) -> tuple[float, Mapping[str, float]]:
    """Seconds from the command to the first step, and the memory of the run's processes."""
    objective, file = home / "clock.py", home / f"{number}.step"
    objective.write_text(_OBJECTIVE)
    command = [sys.executable, "-m", "hpo", "run", "--objective", str(objective), "--quiet"]
    command += ["--n_trials", "1", "--workers", "1", "--study_name", f"start-{number}"]
    own = {"HPO_HOME": str(home / "runs"), "HPO_STORAGE": url, "FIRST_STEP": str(file)}
    began = time.time()
    run = subprocess.Popen(command, env={**os.environ, **own}, stdout=subprocess.DEVNULL)
    try:
        while not (file.exists() and file.read_text()):
            if run.poll() is not None or time.time() - began > _LIMIT_S:
                raise SystemExit(f"the run took no step; its exit code is {run.poll()}")
            time.sleep(0.005)
        memory = _memory(run.pid)
        file.with_suffix(".read").touch()
        if run.wait(timeout=_LIMIT_S) != 0:
            raise SystemExit(f"the run ended with {run.returncode}")
    finally:
        run.kill()
    return float(file.read_text()) - began, memory


def _memory(run: int) -> Mapping[str, float]:
    """Memory of the run's process, of its worker's supervisor and of the trainer, in MB."""
    [supervisor] = _children(run)
    [trainer] = _children(supervisor)
    return {
        "run's own process, MB": _status(run, "VmRSS"),
        "run's own process at most, MB": _status(run, "VmHWM"),
        "worker's supervisor, MB": _status(supervisor, "VmRSS"),
        "worker's trainer, MB": _status(trainer, "VmRSS"),
    }


def _children(pid: int) -> list[int]:
    files = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for file in files for child in file.read_text().split()]


def _status(pid: int, field: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def _print(found: Mapping[str, Sequence[float]]) -> None:
    print("| figure | median | range |")
    print("|---|---|---|")
    for name, values in found.items():
        digits = 0 if name.endswith("MB") else 2
        low, middle, high = (f(values) for f in (min, statistics.median, max))
        print(f"| {name} | {middle:.{digits}f} | {low:.{digits}f} to {high:.{digits}f} |")


if __name__ == "__main__":
    main()
