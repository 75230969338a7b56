"""What is asked of a study: `status`, `best`, `replay`."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpo.cli.shared import storage_option, storage_url, study_option
from hpo.errors import ConfigurationError

if TYPE_CHECKING:
    import sqlalchemy as sa

    from hpo.study import OpenStudy


def _open(study_name: str | None, storage: str | None) -> tuple[OpenStudy, sa.Engine]:
    from hpo.database import connect
    from hpo.study import open_study

    db = connect(storage_url(storage))
    return open_study(db, study_name), db


@click.command()
@study_option
@storage_option
@click.option("--json", "as_json", is_flag=True, help="as JSON")
def status(study_name: str | None, storage: str | None, as_json: bool) -> None:
    """Show how a study stands: trials by state and prune reason, workers, the best so far.

    \b
    Example:
        python -m hpo status --json
    """
    from hpo import display
    from hpo.status import status as stand

    found = stand(*_open(study_name, storage))
    if as_json:
        click.echo(json.dumps(found.flat(), indent=2))
    else:
        display.print_status(found)


@click.command()
@study_option
@storage_option
@click.option("--json", "as_json", is_flag=True, help="as JSON")
def best(study_name: str | None, storage: str | None, as_json: bool) -> None:
    """Show the best trial of a study and its parameters.

    \b
    Example:
        python -m hpo best --json
    """
    from hpo import display
    from hpo.fleet import best_trial

    opened, _ = _open(study_name, storage)
    trial = best_trial(opened.load())
    if trial is None:
        raise ConfigurationError(f"study '{opened.name}' has no complete trial yet")
    if as_json:
        found = {
            "study": opened.name,
            "trial": trial.number,
            "metric": opened.config.metric,
            "value": trial.value,
            "precision": trial.user_attrs["precision"],
            "params": trial.params,
        }
        click.echo(json.dumps(found, indent=2))
    else:
        display.print_trial(opened, trial)


@click.command()
@click.argument("trial", metavar="TRIAL|FILE")
@study_option
@storage_option
@click.option(
    "--batch_of_step",
    type=click.IntRange(min=1),
    metavar="N",
    help="take the batch of step N in place of the saved one: is it the batch, or the weights?",
)
@click.option("--device", default="cpu", help="the torch device (default: cpu)")
@click.option(
    "--save",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="also keep the saved step as a file, which replays where the database is out of reach",
)
@click.option("--json", "as_json", is_flag=True, help="as JSON, with all that is known")
def replay(
    trial: str,
    study_name: str | None,
    storage: str | None,
    batch_of_step: int | None,
    device: str,
    save: Path | None,
    as_json: bool,
) -> None:
    """Run the saved step of a diverged trial again and judge it afresh.

    The weights, the batch and the random state are those of the step that the verdict was about;
    it runs in fp32, in the trial's precision and in float64, term by term.

    \b
    Examples:
        python -m hpo replay 17
        python -m hpo replay 17 --batch_of_step 1
        python -m hpo replay 17 --save step.pt && python -m hpo replay step.pt
    """
    import torch

    from hpo import display
    from hpo.replay import again
    from hpo.saved import read

    torch.set_num_threads(1)
    if trial.isdecimal():
        content = _saved_step(int(trial), study_name, storage)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "step.pt"
            path.write_bytes(content)
            saved = read(path)
    else:
        content = b""
        saved = read(Path(trial))
    if save is not None:
        _write(save, content or Path(trial).read_bytes())
    found = again(saved, device=_device(device), step=batch_of_step)
    if as_json:
        click.echo(json.dumps(found.flat(), indent=2))
    else:
        display.print_replayed(found, step=batch_of_step)


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise ConfigurationError(
            f"'{path}' cannot be written: {error.strerror} (--save)"
        ) from error
    click.echo(f"saved as {path} ({len(content) / 1e6:.1f} MB)", err=True)


def _device(name: str) -> Any:
    import torch

    try:
        device = torch.device(name)
        torch.zeros((), device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationError(f"no device '{name}' here: {reason} (--device)") from error
    return device


def _saved_step(number: int, study_name: str | None, storage: str | None) -> bytes:
    """The file that was kept of a trial's divergence."""
    from hpo.artifacts import DatabaseArtifacts
    from hpo.records import Records

    opened, db = _open(study_name, storage)
    kept = Records(db, opened.uid).divergence(number)
    if kept is None:
        trials = opened.load().get_trials(deepcopy=False)
        if number >= len(trials):
            raise ConfigurationError(f"study '{opened.name}' has no trial {number}")
        state = trials[number].state.name.lower()
        reason = trials[number].user_attrs.get("prune_reason", "-")
        why = f"its prune_reason is '{reason}'" if reason != "-" else f"it is {state}"
        raise ConfigurationError(
            f"trial {number} of study '{opened.name}' was not pruned for a divergence ({why}); "
            "there is nothing to replay"
        )
    if kept["artifact_id"] is None:
        raise ConfigurationError(
            f"the step of trial {number} could not be kept when it diverged; what is known of it: "
            f"{kept['detail']}"
        )
    return DatabaseArtifacts(db).open_reader(kept["artifact_id"]).read()
