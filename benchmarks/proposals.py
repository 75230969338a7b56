"""Compare TPE on columns with Optuna's: each proposal of long searches, and the time it takes.

    python benchmarks/proposals.py                      # 20 searches of 1,000 trials a problem
    python benchmarks/proposals.py --problems hartmann  # a part of it
    python benchmarks/proposals.py --times              # one proposal at 0 to 10,000 trials

A search is ours. At each of its proposals Optuna's own figures choose among the same candidates, so
that without a difference the two searches are one. A diverged trial is recorded as the service
does; a median pruner ends others. The space of the times has 12 parameters.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
from courses import PROBLEMS, Problem
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState
from recording import _is_pruned, _ours

from hpo.database.history import History, rows_of
from hpo.search import tpe
from hpo.search.kernels import EXACT, gain
from hpo.search.pruners import make_pruner
from hpo.search.samplers import make_sampler

SPACE: dict[str, BaseDistribution] = {
    **{f"x{i}": FloatDistribution(0.0, 1.0) for i in range(7)},
    **{f"log{i}": FloatDistribution(1e-5, 1e-1, log=True) for i in range(2)},
    "layers": IntDistribution(1, 8),
    "width": IntDistribution(16, 512, log=True),
    "kind": CategoricalDistribution(("a", "b", "c")),
}


class Columns(InMemoryStorage):
    """Optuna's storage in memory for one study, which adds what is new to its columns."""

    def __init__(self) -> None:
        super().__init__()
        self._history, self._open = History(), 0

    def history(self, study_id: int) -> History:
        trials = self.get_all_trials(study_id, deepcopy=False)
        for trial in trials[self._open :]:
            self._history.add(rows_of(trial))
        # One trial runs at a time.
        self._open = max(0, len(trials) - 1)
        return self._history


class Compared:
    """The gain over many kernels, in our way and in Optuna's; it counts where they differ.

    Attributes:
        asked: Proposals in which ours differs from Optuna's way.
        differed: Those in which another candidate was chosen.
        error: The largest difference of two gains.
    """

    def __init__(self) -> None:
        self.asked = self.differed = 0
        self.error = 0.0

    def __call__(self, good: Any, other: Any, samples: Any) -> Any:
        ours, optunas = gain(good, other, samples), good.log_pdf(samples) - other.log_pdf(samples)
        if len(other._mixture_distribution.weights) > EXACT:
            self.asked += 1
            self.error = max(self.error, float(np.abs(ours - optunas).max()))
            chosen = np.argmax(ours), np.argmax(optunas)
            # Two candidates that are equal in all parameters are one.
            self.differed += any(one[chosen[0]] != one[chosen[1]] for one in samples.values())
        return ours


def search(problem: Problem, *, seed: int, n_trials: int) -> float:
    """The best value of a search, one sampler an ask as the service does it."""
    study = optuna.create_study(storage=Columns(), pruner=make_pruner("median", epochs=12))
    best = float("inf")
    for number in range(n_trials):
        study.sampler = make_sampler("tpe", seed=100_000 * seed + number)
        trial = study.ask()
        params = {name: spec.suggest(trial, name) for name, spec in problem.space.items()}
        course = problem.course(params)
        if _is_pruned(trial, course):
            trial.set_constraint("nonfinite", 0.0)
            study.tell(trial, state=TrialState.PRUNED)
        elif course.is_diverged:
            _ours(study, trial, course)
        else:
            trial.set_constraint("nonfinite", 0.0)
            study.tell(trial, course.values[-1])
            best = min(best, course.values[-1])
    return best


def proposals(names: list[str], *, seeds: int, n_trials: int) -> None:
    """Print how many proposals differ."""
    print(f"{seeds} searches of {n_trials} trials; compared beyond {EXACT} kernels")
    print("| problem | best value, median | proposals compared | differing | largest error |")
    print("|---|---|---|---|---|")
    for name in names:
        compared = Compared()
        setattr(tpe, "gain", compared)  # noqa: B010
        best = [search(PROBLEMS[name], seed=seed, n_trials=n_trials) for seed in range(seeds)]
        figures = f"{compared.asked:,} | {compared.differed} | {compared.error:.1e}"
        print(f"| {name} | {statistics.median(best):.4f} | {figures} |", flush=True)


def filled(n_trials: int) -> optuna.Study:
    """A study whose trials gather around a point, as those of a long search do."""
    rng = np.random.default_rng(0)
    storage = Columns()
    study = optuna.create_study(storage=storage)
    for _ in range(n_trials):
        params: dict[str, Any] = {}
        for name, one in SPACE.items():
            share = rng.random() if rng.random() < 0.2 else np.clip(rng.normal(0.3, 0.05), 0, 1)
            if isinstance(one, CategoricalDistribution):
                params[name] = one.choices[int(2.99 * share)]
                continue
            assert isinstance(one, FloatDistribution | IntDistribution)
            low, high = np.log((one.low, one.high)) if one.log else (one.low, one.high)
            value = low + share * (high - low)
            value = min(max(float(np.exp(value) if one.log else value), one.low), one.high)
            params[name] = round(value) if isinstance(one, IntDistribution) else value
        study.add_trial(optuna.create_trial(value=rng.normal(), params=params, distributions=SPACE))
    storage.history(study._study_id)
    return study


def time_ms(study: optuna.Study, sampler: Callable[[int], BaseSampler]) -> float:
    """The median CPU time of a space and its proposal, as a worker asks for them."""
    frozen = study.ask()._cached_frozen_trial
    study._thread_local.cached_all_trials = study.get_trials(deepcopy=False)
    found = []
    for seed in range(9):
        started_s = time.process_time()
        asked = sampler(seed)
        space = asked.infer_relative_search_space(study, frozen)
        asked.sample_relative(study, frozen, space)
        found.append(1e3 * (time.process_time() - started_s))
    study.tell(frozen.number, state=TrialState.FAIL)
    return statistics.median(found)


def times(counts: list[int]) -> None:
    """Print the times of both."""
    print("| trials | ours, CPU ms | Optuna's, trials cached | ratio |\n|---|---|---|---|")
    for count in counts:
        study = filled(count)
        ours = time_ms(study, lambda seed: make_sampler("tpe", seed=seed))
        optunas = time_ms(study, lambda seed: TPESampler(seed=seed))
        print(f"| {count:,} | {ours:.1f} | {optunas:.1f} | {optunas / ours:.1f} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=list(PROBLEMS))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--n_trials", type=int, default=1_000)
    parser.add_argument("--times", nargs="*", type=int, metavar="TRIALS")
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if given.times is None:
        proposals(given.problems, seeds=given.seeds, n_trials=given.n_trials)
    else:
        times(given.times or [0, 250, 1_000, 5_000, 10_000])


if __name__ == "__main__":
    main()
