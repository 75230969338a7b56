"""Resolve a training's configuration, parameters and precision from a study's and the request.

Border: one function per part; `recipe` finds the study's values and puts the parts together.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import optuna
import torch

from hpo.errors import ConfigurationError
from hpo.refit.request import TrainRequest
from hpo.search import configurations
from hpo.study.config import StudyConfig, facts
from hpo.study.objective import source_hash
from hpo.study.resolve import check, settle
from hpo.study.spaces import bound_to, space_of
from hpo.task.build import plain
from objectives import Objective, Params, complete, left_to_study


def config_of(stored: Mapping[str, Any], what: str) -> StudyConfig:
    """Read a study's configuration from its stored form."""
    try:
        config = StudyConfig.from_stored(stored)
        # A file written by hand may hold values of any type.
        if not all(isinstance(v, str) for v in (config.objective, config.size, config.space)):
            raise TypeError("objective, size and space are texts")
        return replace(config, options=dict(config.options))
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigurationError(
            f"the settings in {what} are not those of a study ({error}); write the file again "
            "with 'python -m hpo best --save FILE'"
        ) from error


def config_with(
    config: StudyConfig, objective: Objective, spec: str, request: TrainRequest, *, precision: str
) -> StudyConfig:
    """Return a study's configuration with the request's changes."""
    if request.space not in (None, config.space):
        raise ConfigurationError(
            f"the configuration is of space '{config.space}', and --space {request.space} cannot "
            "change that; leave it out"
        )
    size = request.size if request.size not in (None, "auto") else config.size
    before = complete(objective.options, config.options)
    own = left_to_study(objective.options, request.options)
    whole = {
        **asdict(config),
        "objective": spec,
        "source": source_hash(objective),
        "size": size,
        # A study that is older than an option has no value of it.
        "options": {**before, **own},
    }
    check(objective, whole)
    whole["options"] = settle(objective, whole["options"], {**whole, "precision": precision})
    _refuse_other_spaces(objective, before, own)
    objective = bound_to(objective, whole["options"])
    space_of(objective, config.space)
    return replace(config, **{**whole, **facts(objective, whole)})


def _refuse_other_spaces(
    objective: Objective, before: Mapping[str, str], own: Mapping[str, str]
) -> None:
    """Refuse an option under which other parameters are searched than the configuration has."""
    for name, value in own.items():
        if value == before.get(name):
            continue
        spaces = [
            bound_to(objective, {**before, **change}).spaces for change in ({}, {name: value})
        ]
        if spaces[0] != spaces[1]:
            raise ConfigurationError(
                f"the configuration is of --{name} {before.get(name)}, and --{name} {value} "
                "searches other parameters; leave it out"
            )


def params_of(found: Params, objective: Objective, space: str, what: str) -> tuple[Params, str]:
    """Return the parameters that the objective suggests, and in words those set by default."""
    (given,) = configurations.checked([found], objective.spaces[space], flag=what)
    defaults = {n: v for n, v in objective.defaults(space).items() if n not in given}
    fixed = optuna.trial.FixedTrial({**defaults, **given})
    with warnings.catch_warnings():
        # Optuna warns of a value outside of the space, whose bounds may differ from the study's.
        warnings.simplefilter("ignore")
        try:
            params = plain(objective.suggest(fixed, space))
        except (ValueError, KeyError) as error:
            raise ConfigurationError(
                f"the objective '{objective.name}' cannot take the parameters of {what}: {error} "
                "(--objective)"
            ) from error
    return params, ", ".join(f"{n} {v}" for n, v in defaults.items() if n in params)


def precision_of(asked: str, studied: str, *, on_gpu: bool) -> tuple[str, str]:
    """Return the precision to train in, and the reason."""
    if asked != "auto":
        return asked, "asked for"
    if studied == "fp16" and not on_gpu:
        return "fp32", "auto: fp16, as studied, is 8 to 30 times slower on a CPU"
    has_bf16 = not on_gpu or torch.cuda.is_bf16_supported(including_emulation=False)
    if studied == "bf16" and not has_bf16:
        return "fp16", "auto: this GPU has no bf16, as studied"
    return studied, "auto: as studied"
