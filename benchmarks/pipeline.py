"""Run a size from end to end: a study, the training of its best trial, its evaluation.

    python benchmarks/pipeline.py --size tiny --out pipeline
    python benchmarks/pipeline.py --size full --network transformer --out pipeline --device cuda

The figures of docs/ris-covariance.md come from these commands; each resumes where it was
interrupted. On a GPU, `--size full --device cuda` is the whole problem of 144 elements.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--network", help="default: what `auto` is at the size")
    parser.add_argument("--n_trials", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("pipeline"))
    parser.add_argument("--device", default="cpu", help="of the evaluation")
    given = parser.parse_args()
    study = f"ris_covariance-wide-{given.size}"
    of_network: tuple[str, ...] = ()
    if given.network is not None:
        # Written out, as the default name leaves out the network that `auto` is.
        study = f"{study}-{given.network}"
        of_network = ("--network", given.network, "--study_name", study)
    trained = given.out / "trained"
    run("--size", given.size, "--n_trials", str(given.n_trials), *of_network)
    how = ("--epochs", str(given.epochs), "--seeds", str(given.seeds), "--out", str(trained))
    run("train", "--study_name", study, *how)
    run("evaluate", str(trained), "--device", given.device, "--out", str(given.out / "evaluation"))


def run(*args: str) -> None:
    """Run one command of the program and print its duration."""
    print(f"$ python -m hpo {' '.join(args)}", flush=True)
    started_at = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "hpo", *args], check=False)
    print(f"exit {done.returncode} after {time.monotonic() - started_at:.0f} s", flush=True)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
