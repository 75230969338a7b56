"""The look at an objective before a run creates a study: what `check` refuses without training.

It builds the default configuration once, on the device and with the settings of the study to be.
Border: finds faults as sentences; `hpo.cli.first_look` is the process that looks. What only some
batches, steps or configurations show is left to `check` and to the trials.
"""

from __future__ import annotations

import gc
import inspect
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from hpo.check.findings import raised
from hpo.check.trials import other_names, study_in_memory
from hpo.study.config import StudyConfig
from hpo.study.study import derive_seed
from hpo.task import contract
from hpo.task.build import build, plain
from hpo.task.process import ProcessState
from objectives import Objective, Task, bound

_PROGRESS = [step / 100 for step in range(100)]
Begin = Callable[[str], object]

_logger = logging.getLogger(__name__)


def faults(
    objective: Objective, config: StudyConfig, device: torch.device, begin: Begin
) -> list[str]:
    """The faults of an objective with which no trial could be trained.

    Args:
        begin: Called with the name of each hook before it is called, and with an empty one at the
            end.
    """
    file = Path(inspect.getsourcefile(type(objective)) or "").resolve()
    hook = ""

    def note(name: str) -> None:
        nonlocal hook
        hook = name
        begin(name)

    # This process may become a worker, whose first trial is not to find what a hook has set.
    process_state = ProcessState()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            return _faults(objective, config, device, note)
    except BaseException as error:
        said = f"{hook}() with the default configuration: {raised(error, file)}"
        if hook in ("spaces_for", "defaults", "suggest"):
            return [said]
        # A hook that builds may raise for this configuration, or for now: that is a trial's matter.
        _logger.warning("%s", said)
        return []
    finally:
        begin("")
        process_state.restore()
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _faults(
    objective: Objective, config: StudyConfig, device: torch.device, begin: Begin
) -> list[str]:
    begin("spaces_for")
    objective = bound(objective, config.options)
    begin("defaults")
    defaults = plain(config.narrowing.defaults(objective, config.space))
    try:
        json.dumps(defaults)
    except (TypeError, ValueError) as error:
        return [f"defaults() gives {defaults}, which a database does not store: {error}"]
    begin("suggest")
    study = study_in_memory()
    study.enqueue_trial(defaults)
    trial = study.ask()
    params = config.narrowing.suggest(objective, trial, config.space)
    if not isinstance(params, Mapping):
        return [f"suggest() gave a {type(params).__name__}; give a mapping"]
    other = other_names(defaults, trial.params)
    if other is not None:
        return [other]
    begin("build")
    seed = derive_seed(config.seed, 1)
    about = {"study": config.stored(), "params": plain(params), "seed": seed}
    task = build(about, device, objective)
    if not isinstance(task, Task):
        return [f"build() gave a {type(task).__name__}; make it an objectives.Task"]
    found = [*contract.module_faults(task, device), *contract.step_faults(task)]
    found += [] if found else contract.group_faults(task)
    if found:
        return found
    found += contract.dtype_faults(task, has_scaler=config.precision == "fp16")
    begin("idle")
    found += contract.idle_faults(task)
    begin("schedule")
    found += contract.schedule_faults({at: task.schedule(at) for at in _PROGRESS})
    found += contract.group_schedule_faults(task.groups)
    begin("optimizer")
    found += contract.optimizer_faults(task.optimizer(), task)
    return found
