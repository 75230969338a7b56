"""`run --dry_run`: the script that Slurm would get, without a study and without a job.

Border: connects to no database, so that a study's uid, which names folders, is not known.
"""

from __future__ import annotations

from pathlib import Path

from hpo.errors import ConfigurationError
from hpo.fleet.config import FleetConfig
from hpo.launch.slurm import SlurmLauncher
from hpo.launch.slurm_engine import slurm_engine
from hpo.search.plugins import is_plugin
from hpo.study.naming import plain_name
from hpo.study.request import DEFAULT_TRIALS, DEFAULTS, RunRequest, usual
from hpo.study.resolve import absolute
from objectives import DEFAULT, names

# The study's uid, and its name where that depends on the objective's code.
_UID, _NAME = "UID-OF-THE-STUDY", "NAME-OF-THE-STUDY"


def script(request: RunRequest, *, home: Path) -> str:
    """The script that a run would submit.

    Raises:
        ConfigurationError: The request is impossible, or its workers are started without a script.
    """
    if request.launcher != "slurm":
        raise ConfigurationError("--dry_run shows the script of --launcher slurm; write that, too")
    engine = slurm_engine(request)
    launcher, config = engine.launcher, FleetConfig.below(home, request, _UID, engine)
    assert isinstance(launcher, SlurmLauncher)
    objective = absolute(request.objective) or DEFAULT
    wanted = {**DEFAULTS, **usual(on_gpu=engine.on_gpu), **request.asked()}
    # Options may be part of the name, which the objective's code says.
    is_named = objective in names() and not request.options
    kinds = {"sampler": request.sampler, "pruner": request.pruner}
    for slot in config.slots[: request.n_trials or DEFAULT_TRIALS]:
        argv = config.worker_argv(
            slot,
            objective=objective,
            study_name=request.study_name or (plain_name(objective, wanted) if is_named else _NAME),
            plugins={kind: spec for kind, spec in kinds.items() if spec and is_plugin(spec)},
        )
        launcher.start(argv, environment=dict(slot.environment), log=config.log_of(slot))
    return "\n".join(launcher.scripts())
