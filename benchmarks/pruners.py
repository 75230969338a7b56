"""Compare the pruners by replaying the curves of a study that pruned nothing.

    python -m hpo --n_trials 50 --pruner none --study_name curves
    python benchmarks/pruners.py --storage "$(python -m hpo url)" --study_name curves

Trials come in shuffled orders; each reports its recorded values until the pruner ends it. The
sampler would have proposed other trials after a pruning, which a replay cannot reproduce.
"""

from __future__ import annotations

import argparse
import random
import statistics

import optuna
from optuna.pruners import BasePruner

from hpo.search.pruners import PRUNERS


def replay(curves: list[dict[int, float]], pruner: BasePruner) -> tuple[int, float]:
    """Epochs trained, and the best value among the trials that were not pruned."""
    study = optuna.create_study(pruner=pruner)
    epochs, best = 0, float("inf")
    for curve in curves:
        trial = study.ask()
        last = max(curve)
        for epoch, value in sorted(curve.items()):
            epochs += 1
            trial.report(value, epoch)
            if epoch < last and trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, curve[last])
            best = min(best, curve[last])
    return epochs, best


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--storage", required=True)
    parser.add_argument("--study_name", default="curves")
    parser.add_argument("--orders", type=int, default=40)
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(study_name=given.study_name, storage=given.storage)
    curves = [t.intermediate_values for t in study.trials if t.value is not None]
    epochs = max(max(curve) for curve in curves)
    best = min(curve[max(curve)] for curve in curves)
    print(f"{len(curves)} trials of {epochs} epochs, {given.orders} orders; best {best:.3f}")
    print("| pruner | epochs trained | best lost, mean dB | best kept |")
    print("|---|---|---|---|")
    for name, make in PRUNERS.items():
        shares, losses = [], []
        for order in range(given.orders):
            shuffled = random.Random(order).sample(curves, len(curves))
            trained, found = replay(shuffled, make(epochs))
            shares.append(trained / sum(len(curve) for curve in curves))
            losses.append(found - best)
        kept = sum(loss == 0 for loss in losses) / given.orders
        share, loss = statistics.mean(shares), statistics.mean(losses)
        print(f"| {name} | {share:.0%} | {loss:.3f} | {kept:.0%} |")


if __name__ == "__main__":
    main()
