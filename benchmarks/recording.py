"""Compare three ways of recording a diverged trial: ours, a penalty, a failure.

    python benchmarks/recording.py --seeds 20                       # everything
    python benchmarks/recording.py --problems ris --samplers tpe    # a part of it

Each combination of a problem of `courses.py`, a sampler, a pruner and a way of recording gets 20
searches of 50 trials; printed are the best value and the number of diverged trials. Searches with
the same seed start alike. Ours is `hpo.search.samplers`; the others are Optuna's samplers in their
ordinary use. `--keep FILE` stores finished searches, and the same command resumes where it stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import warnings
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import optuna
import torch
from courses import PROBLEMS, Course, Problem
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import TrialState

from hpo.search.samplers import SAMPLERS, UNTRAINED

_TRIALS = 50
_PENALTY = 1e6
_PLAIN: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: TPESampler(seed=seed),
    "gp": lambda seed: GPSampler(seed=seed),
    "cmaes": lambda seed: CmaEsSampler(seed=seed),
    "random": lambda seed: RandomSampler(seed=seed),
}
_PRUNERS: dict[str, Callable[[], BasePruner]] = {
    "none": NopPruner,
    "median": lambda: MedianPruner(n_startup_trials=5, n_warmup_steps=2),
}


class Key(NamedTuple):
    """The identity of one search."""

    problem: str
    sampler: str
    pruner: str
    recording: str
    seed: int


class Found(NamedTuple):
    """The result of a search: its best value, and the number of diverged trials."""

    best: float
    wasted: int


def _ours(study: optuna.Study, trial: optuna.Trial, course: Course) -> None:
    study._storage.set_trial_system_attr(trial._trial_id, UNTRAINED, course.untrained)
    trial.set_constraint("nonfinite", 1.0)
    study.tell(trial, state=TrialState.PRUNED)


def _penalty(study: optuna.Study, trial: optuna.Trial, course: Course) -> None:
    study.tell(trial, _PENALTY)


def _fail(study: optuna.Study, trial: optuna.Trial, course: Course) -> None:
    study.tell(trial, state=TrialState.FAIL)


RECORDINGS = {"ours": _ours, "penalty": _penalty, "fail": _fail}


def search(problem: Problem, key: Key) -> Found:
    """Run 50 trials of a problem; the best value among those that ran to their end."""
    samplers = SAMPLERS if key.recording == "ours" else _PLAIN
    study = optuna.create_study(
        sampler=samplers[key.sampler](key.seed), pruner=_PRUNERS[key.pruner]()
    )
    best, wasted = math.inf, 0
    for _ in range(_TRIALS):
        trial = study.ask()
        params = {name: spec.suggest(trial, name) for name, spec in problem.space.items()}
        course = problem.course(params)
        if _is_pruned(trial, course):
            if key.recording == "ours":
                trial.set_constraint("nonfinite", 0.0)
            study.tell(trial, state=TrialState.PRUNED)
        elif course.is_diverged:
            wasted += 1
            RECORDINGS[key.recording](study, trial, course)
        else:
            if key.recording == "ours":
                trial.set_constraint("nonfinite", 0.0)
            study.tell(trial, course.values[-1])
            best = min(best, course.values[-1])
    # If no trial ran to its end, the best result is that of the untrained network.
    return Found(min(best, course.untrained) if math.isinf(best) else best, wasted)


def _is_pruned(trial: optuna.Trial, course: Course) -> bool:
    """Report epoch by epoch; return whether the pruner ended the trial."""
    for epoch, value in enumerate(course.values, start=1):
        trial.report(value, epoch)
        if not (epoch == len(course.values) and not course.is_diverged) and trial.should_prune():
            return True
    return False


def _mean(values: Sequence[float], digits: int = 3) -> str:
    """Mean ± standard error."""
    error = statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.mean(values):.{digits}f} ± {error:.{digits}f}"


def _row(found: dict[Key, Found], problem: str, sampler: str, pruner: str) -> str:
    """A row of the table: each recording's result, and ours against the best of the others."""
    runs = {
        name: [found[key] for key in sorted(found) if key[:4] == (problem, sampler, pruner, name)]
        for name in RECORDINGS
    }
    best = {name: [run.best for run in some] for name, some in runs.items()}
    other = min(("penalty", "fail"), key=lambda name: statistics.mean(best[name]))
    differences = [a - b for a, b in zip(best["ours"], best[other], strict=True)]
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    mean = statistics.mean(differences)
    verdict = "first" if mean < -2 * error else "tied" if mean <= 2 * error else "behind"
    cells = [
        f"{_mean(best[name])} / {_mean([run.wasted for run in some], 1)}"
        for name, some in runs.items()
    ]
    versus = f"{mean:+.3f} ± {error:.3f} ({other})"
    return f"| {problem} | {sampler} | {pruner} | {' | '.join(cells)} | {versus} | {verdict} |"


def table(found: dict[Key, Found], rows: Iterable[tuple[str, str, str]]) -> str:
    """All rows as Markdown: best value / diverged trials, means over the seeds ± their errors."""
    head = ["problem", "sampler", "pruner", *RECORDINGS, "best: ours − other", "ours is"]
    return "\n".join(
        [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(_row(found, *row) for row in rows)]
    )


def _kept(path: Path | None) -> dict[Key, Found]:
    if path is None or not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {Key(*key): Found(*found) for key, found in lines}


def main() -> None:
    """Search, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=list(SAMPLERS))
    parser.add_argument("--pruners", nargs="+", choices=_PRUNERS, default=list(_PRUNERS))
    parser.add_argument("--keep", type=Path, help="file of finished searches")
    given = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    rows = list(product(given.problems, given.samplers, given.pruners))
    found = _kept(given.keep)
    for row in rows:
        for seed, recording in product(range(given.seeds), RECORDINGS):
            key = Key(*row, recording, seed)
            if key in found:
                continue
            found[key] = search(PROBLEMS[key.problem], key)
            if given.keep is not None:
                with given.keep.open("a") as file:
                    file.write(json.dumps([key, found[key]]) + "\n")
        print(_row(found, *row), flush=True)
    print("\n" + table(found, rows))


if __name__ == "__main__":
    main()
