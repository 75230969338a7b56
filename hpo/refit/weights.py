"""Write and read the file of a finished training, and restore its task.

    seed_0.pt    {"format": "hpo-trained", "version": 1, "about", "precision", "epochs",
                  "metrics", "modules", "last", "task", "environment"}

The file holds plain data and tensors on the CPU, which `torch.load(weights_only=True)` reads.

Border: a file in, a file out. `seed_process` trains; `folder` keeps the seeds of a training.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hpo import files
from hpo.errors import ConfigurationError
from hpo.task.build import build, load
from hpo.task.saving import save
from objectives import Objective, Task

FORMAT = "hpo-trained"
VERSION = 1
# `train` writes its summary under this name.
SUMMARY = "training.json"

_Modules = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A finished training.

    Attributes:
        about: `study` (its configuration in the training), `params`, `seed`, `trial`,
            `study_name`; the last two are None for a configuration of no study.
        precision: Precision of the forward pass.
        epochs: Number of epochs.
        metrics: Metrics of the last validation.
        modules: State of each module to use, averaged if the training averaged.
        last: States after the last step; None if `modules` holds them.
        task: State that the task keeps outside of its modules.
        environment: Environment of the training, without the host's name.
    """

    about: Mapping[str, Any]
    precision: str
    epochs: int
    metrics: Mapping[str, float]
    modules: _Modules = field(repr=False)
    last: _Modules | None = field(default=None, repr=False)
    task: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)


def write(path: Path, trained: Trained) -> None:
    """Write a file, whole or not at all.

    Raises:
        ConfigurationError: It cannot be written.
    """
    content = {"format": FORMAT, "version": VERSION, **vars(trained)}
    if trained.last is None:
        del content["last"]
    try:
        with files.renamed(path) as file:
            save(content, file)
    except OSError as error:
        raise ConfigurationError(
            f"'{path}' cannot be written: {error.strerror or error}; the training is kept in its "
            "checkpoint, so make room, or give the right to write"
        ) from error


def read(path: Path) -> Trained:
    """Read a finished training from its file.

    Raises:
        ConfigurationError: The file is missing, damaged, of another version or of another kind.
    """
    if path.is_dir():
        raise ConfigurationError(f"'{path}' is a folder; write one of its files, as seed_0.pt")
    if not path.exists():
        raise ConfigurationError(
            f"there is no file '{path}'; 'python -m hpo train' writes such files"
        )
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read '{path}': {error.strerror or error}") from error
    try:
        # torch gets the bytes: for some truncated files its reader of paths raises an OSError.
        content = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
        # torch does not check the checksums.
        if (part := zipfile.ZipFile(io.BytesIO(raw)).testzip()) is not None:
            raise ValueError(f"the checksum of {part} is wrong")
    except Exception as error:
        # torch's own message is left out: it recommends unsafe loading.
        raise ConfigurationError(
            f"'{path}' is no finished training: it is cut off, damaged or another kind of file; "
            "'python -m hpo train' writes such files"
        ) from error
    if not isinstance(content, Mapping) or content.get("format") != FORMAT:
        raise ConfigurationError(f"'{path}' is no finished training but {_kind(content)}")
    if content.get("version") != VERSION:
        raise ConfigurationError(
            f"'{path}' was written by another version of hpo (its format is "
            f"{content.get('version')}, this program reads {VERSION}); train it again"
        )
    try:
        found = Trained(
            **{name: content[name] for name in Trained.__dataclass_fields__ if name in content}
        )
    except TypeError as error:
        raise ConfigurationError(
            f"'{path}' is no finished training: it lacks a part ({error})"
        ) from error
    if wrong := _wrong_in(found.about):
        raise ConfigurationError(
            f"'{path}' is no finished training: it does not say what it is of, for it lacks "
            f"{wrong}; 'python -m hpo train' writes such files"
        )
    return found


def _not_finite(task: Task) -> str | None:
    """Return the first parameter that holds NaN or infinity; None if all are finite.

    Buffers are not checked: an attention mask holds -inf by intent.
    """
    for module_name, module in task.modules.items():
        for name, parameter in module.named_parameters():
            # torch has no `isfinite` for 8-bit floats.
            held = parameter.double() if parameter.is_floating_point() else parameter
            if not held.isfinite().all():
                return f"{module_name}.{name}"
    return None


def _wrong_in(about: Any) -> str | None:
    """Return the first missing or mistyped part of a training's description; None if none is."""

    def has(tree: Any, name: str, kind: type) -> bool:
        return isinstance(tree, Mapping) and isinstance(tree.get(name), kind)

    if not has(about, "study", Mapping):
        return "'study', its settings"
    for name in ("objective", "source", "size"):
        if not has(about["study"], name, str):
            return f"'{name}' as a text in its settings"
    if not has(about, "params", Mapping):
        return "'params', its parameters"
    if not has(about, "seed", int) or isinstance(about["seed"], bool):
        return "'seed' as a whole number"
    return None


def _kind(content: Any) -> str:
    """Describe a torch file of another kind, and what to do with it."""
    if isinstance(content, Mapping) and {"about", "optimizer", "rng"} <= set(content):
        about = content["about"]
        number = about.get("trial") if isinstance(about, Mapping) else None
        which = "" if number is None else f" --trial {number}"
        return (
            "the checkpoint of a trial or of a training that is not finished; "
            f"'python -m hpo train{which}' trains to the end and writes one"
        )
    if isinstance(content, Mapping) and {"batch", "reading"} <= set(content):
        return "the saved step of a divergence; 'python -m hpo replay FILE' takes it"
    what = "a file of weights alone" if isinstance(content, Mapping) else "another torch file"
    return f"{what}; 'python -m hpo train' writes files that say what they are of"


def locate(path: Path) -> Path:
    """Return a path itself, or for a folder of `train` the best seed's file.

    Raises:
        ConfigurationError: The folder holds no finished training.
    """
    if not path.is_dir():
        return path
    summary = path / SUMMARY
    try:
        found = json.loads(summary.read_text(encoding="utf-8"))
        best = found["best_seed"]
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"the folder '{path}' holds no {SUMMARY}, so it is none of 'python -m hpo train'; "
            "name the file itself"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"'{summary}' cannot be read ({type(error).__name__}: {error}); name the file itself, "
            f"as '{path / 'seed_0.pt'}'"
        ) from error
    if best is None:
        raise ConfigurationError(
            f"no seed of the training in '{path}' is finished yet; the 'python -m hpo train' that "
            "began it goes on with it"
        )
    return path / f"seed_{best}.pt"


def restore(trained: Trained, device: torch.device, objective: Objective) -> Task:
    """Restore the task of a finished training: weights loaded, modules in evaluation mode.

    Raises:
        ConfigurationError: The objective builds another network than the one that was trained, or
            the weights are not finite.
    """
    try:
        task = build(trained.about, device, objective)
    except Exception as error:
        raise ConfigurationError(
            f"the objective '{objective.name}' cannot be built with the trained parameters "
            f"{dict(trained.about['params'])}: {type(error).__name__}: {error} (--objective)"
        ) from error
    if not isinstance(trained.modules, Mapping) or set(task.modules) != set(trained.modules):
        held = sorted(map(str, trained.modules)) if isinstance(trained.modules, Mapping) else "none"
        raise ConfigurationError(
            f"the objective '{objective.name}' builds the modules {sorted(task.modules)}, and "
            f"trained were {held}; name the objective as it was (--objective)"
        )
    try:
        load(task, trained.modules, dict(trained.task))
    except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
        lines = str(error).splitlines()
        raise ConfigurationError(
            f"the trained weights do not fit what the objective '{objective.name}' builds: "
            f"{lines[-1].strip() if lines else error!r}; name the objective as it was (--objective)"
        ) from error
    if where := _not_finite(task):
        raise ConfigurationError(f"the trained weights are not finite ('{where}'); train it again")
    for module in task.modules.values():
        module.eval()
    return task
