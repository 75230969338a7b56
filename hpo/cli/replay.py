"""`replay`: run the saved step of a diverged trial again and judge it afresh."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpo.cli.shared import Command, Whole, open_study, say, storage_option, study_option
from hpo.errors import ConfigurationError
from hpo.machine.slots import torch_device

if TYPE_CHECKING:
    from objectives import Objective


@click.command(cls=Command)
@click.argument("trial", metavar="TRIAL|FILE")
@study_option
@storage_option
@click.option(
    "--batch_of_step",
    type=Whole(min=1),
    metavar="N",
    help="take the batch of step N in place of the saved one: is it the batch, or the weights?",
)
@click.option(
    "--objective",
    metavar="NAME|module:attr|path.py",
    help="where the trial's objective is here (default: where it was then)",
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
    objective: str | None,
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
    say(f"replaying the saved step of {trial if Path(trial).suffix else f'trial {trial}'}")
    import torch

    from hpo.display.replay import print_replayed
    from hpo.files import write
    from hpo.guard.replay import replay as judge_again
    from hpo.guard.saved_step import read
    from hpo.launch import children

    torch.set_num_threads(1)
    is_file = not trial.isdecimal()
    content = _content(trial) if is_file else _saved_step(int(trial), study_name, storage)
    saved = read(content, f"'{trial}'" if is_file else f"what is kept of trial {trial}")
    if save is not None:
        write(save, content, flag="--save")
        click.echo(f"saved as {save} ({len(content) / 1e6:.1f} MB)", err=True)
    chosen = _objective(saved["about"]["study"], objective)
    with children.ended():
        found = judge_again(saved, chosen, device=torch_device(device), step=batch_of_step)
    if as_json:
        click.echo(json.dumps(found.flat(), indent=2))
    else:
        print_replayed(found, step=batch_of_step)


def _content(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        reason = "there is no" if isinstance(error, FileNotFoundError) else "cannot read the"
        raise ConfigurationError(
            f"{reason} file '{file}'; write a trial's number or the file of a saved step"
        ) from error


def _objective(config: dict[str, Any], given: str | None) -> Objective:
    """Load the objective of a saved step, and note on stderr if its files have changed."""
    from hpo.study.objective import in_words, objective_of

    found, changed = objective_of(config, given, what="the saved step")
    if changed:
        say(f"note: {in_words(changed)} since the step was saved; so may the verdict")
    return found


def _saved_step(number: int, study_name: str | None, storage: str | None) -> bytes:
    """Read the saved step of a diverged trial from the database."""
    from hpo.database.artifacts import DatabaseArtifacts
    from hpo.database.records import Records
    from hpo.study.outcomes import trial_numbered

    opened, db = open_study(study_name, storage)
    kept = Records(db, opened.uid).divergence(number)
    if kept is None:
        trial = trial_numbered(opened, number)
        if trial is None:
            raise ConfigurationError(f"study '{opened.name}' has no trial {number}")
        state = trial.state.name.lower()
        reason = trial.user_attrs.get("prune_reason", "-")
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
