"""Evaluate a finished training by its objective.

Border: the objective measures; this module loads the training. `evaluation_files` holds the result
and writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hpo.errors import ConfigurationError, RunFailed
from hpo.machine.slots import torch_device
from hpo.refit.evaluation_files import Evaluated
from hpo.refit.weights import locate, read, restore
from hpo.study.objective import objective_of
from hpo.task.build import context_of
from hpo.task.memory import is_out_of_memory
from hpo.task.raised import described
from hpo.task.state import evaluating
from objectives import Asked, CannotEvaluate, Objective, bound, names


def evaluate(
    path: str | Path,
    *,
    quick: bool = False,
    samples: str | Path | None = None,
    seed: int = 0,
    size: str | None = None,
    objective: str | None = None,
    device: str = "cpu",
    tell: Callable[[str], None] | None = None,
    must_stop: Callable[[], bool] | None = None,
) -> Evaluated:
    """Evaluate a finished training, as `python -m hpo evaluate` does, but write nothing.

    Args:
        path: A file that `train` wrote, or its folder, from which the best seed is taken.
        quick: Evaluate on fewer samples.
        samples: File of samples to evaluate on, in place of the frozen test set (`--scenes`).
        seed: Seed of the test set; 0 is the frozen one, others are fresh draws.
        size: Expected problem size; a training of another size is refused.
        objective: Location of the objective here, if its code does not come with the project.
        device: The torch device.
        tell: Called with a line of text before each part.
        must_stop: Called before each part; InterruptedError is raised where it returns True.

    Raises:
        ConfigurationError: The file cannot be used, or its objective cannot evaluate it like this.
        RunFailed: The objective's hook raised.
        InterruptedError: `must_stop` returned True.
    """
    file = locate(Path(path))
    trained = read(file)
    config = trained.about["study"]
    found, changed = objective_of(config, objective, what=f"the training in '{file}'")
    _refuse_another(file, config, found, size)
    where = torch_device(device)
    task = restore(trained, where, found)
    context = context_of(config, seed=trained.about["seed"], device=where)
    asked = Asked(
        quick=quick,
        samples=None if samples is None else Path(samples).absolute(),
        seed=seed,
        tell=tell or (lambda line: None),
        must_stop=must_stop or (lambda: False),
    )
    try:
        with evaluating(task, where):
            evaluation = bound(found, context.options).evaluate(task, context, asked)
    except CannotEvaluate as error:
        raise ConfigurationError(f"'{file}' cannot be evaluated so: {error}") from error
    except BaseException as error:
        # The hook is the objective's, and may raise any class.
        if isinstance(error, InterruptedError | KeyboardInterrupt) and asked.must_stop():
            raise
        if is_out_of_memory(error):
            raise ConfigurationError(
                f"'{file}' needs more memory to be evaluated than {where} has; write --quick"
            ) from error
        raise RunFailed(
            f"evaluate() of objective '{found.name}' raised {described(error)}"
        ) from error
    if evaluation is None:
        raise ConfigurationError(
            f"objective '{found.name}' has no evaluation: it lacks the hook Objective.evaluate"
        )
    return Evaluated(file=file, trained=trained, evaluation=evaluation, changed=changed)


def _refuse_another(
    file: Path, config: Mapping[str, Any], objective: Objective, size: str | None
) -> None:
    """Raise `ConfigurationError` if a training is of another objective or another size."""
    # A user's file may have been renamed since; loading the weights shows if its network fits.
    if config["objective"] in names() and config["objective"] != objective.name:
        raise ConfigurationError(
            f"'{file}' is a training of '{config['objective']}', not of '{objective.name}'; "
            "leave --objective out, or name that one (--objective)"
        )
    if size is None or size == config["size"]:
        return
    cure = (
        f"leave --size out, or train one with 'python -m hpo --size {size}'"
        if size in objective.sizes
        else f"'{objective.name}' has the sizes {', '.join(objective.sizes)}; leave --size out"
    )
    raise ConfigurationError(
        f"'{file}' was trained at size '{config['size']}', not '{size}': its network is of that "
        f"size alone; {cure} (--size)"
    )
