"""The best trial of a search on the grid tasks against the baselines, seed by seed.

    python benchmarks/arc_prompt.py
    python benchmarks/arc_prompt.py --seeds 1 --arc_path folder/of/task/files

Each row is a study of its own in the storage that HPO_STORAGE or HPO_HOME names. A figure is the
share of changed cells that are right, on tasks whose rules were never trained on.
"""

from __future__ import annotations

import argparse

import hpo


def study_of(seed: int, *, n_trials: int, arc_path: str) -> dict[str, str]:
    """Run a study and return its row of the table."""
    name = f"arc_prompt-{'files' if arc_path else 'drawn'}-{n_trials}-seed{seed}"
    options = {"arc_path": arc_path} if arc_path else {}
    result = hpo.run(
        "arc_prompt", n_trials=n_trials, study=name, seed=seed, size="tiny", options=options
    )
    best = hpo.best(study=name)
    figures = best.figures
    shuffled = figures["with_shuffled_prompts"]
    return {
        "seed": str(seed),
        "minutes": f"{result.seconds / 60:.1f}",
        "complete": str(result.budget.complete),
        "pruned": str(result.budget.pruned),
        "diverged": str(len(result.diverged)),
        "best": f"{best.value:.3f}",
        "shuffled prompts": f"{shuffled:.3f}",
        "margin": f"{best.value - shuffled:+.3f}",
        "copying": f"{figures['copying_the_input']:.3f}",
        "unrefined": f"{figures['with_unrefined_prompts']:.3f}",
        "features only": f"{result.references['features only']:.3f}",
        "default": f"{result.default_value:.3f}" if result.default_value is not None else "-",
        "all cells": f"{figures['cell_accuracy']:.3f}",
        "copying, all cells": f"{figures['cell_accuracy_copying']:.3f}",
        "solved": f"{figures['solved']:.3f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="studies (default: 3)")
    parser.add_argument("--n_trials", type=int, default=20, help="of each (default: 20)")
    parser.add_argument("--arc_path", default="", help="task files in the public ARC JSON format")
    args = parser.parse_args()
    for seed in range(args.seeds):
        row = study_of(seed, n_trials=args.n_trials, arc_path=args.arc_path)
        if seed == 0:
            print(f"| {' | '.join(row)} |\n|{'---|' * len(row)}")
        print(f"| {' | '.join(row.values())} |", flush=True)


if __name__ == "__main__":
    main()
