"""The configuration of a new study: defaults resolved, values checked against its objective."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpo.errors import ConfigurationError
from hpo.search.pruners import make_pruner
from hpo.search.samplers import make_sampler, resolve
from hpo.study.config import StudyConfig, facts
from hpo.study.objective import source_hash
from hpo.study.spaces import bound_to, depends_on_options, narrowed, space_of
from objectives import Objective


def absolute(objective: str | None) -> str | None:
    """Make a file's path absolute, so that workers find it from any working folder."""
    if objective is not None and objective.endswith(".py"):
        return str(Path(objective).absolute())
    return objective


def settled(
    objective: Objective, spec: str, wanted: Mapping[str, Any], *, n_trials: int
) -> StudyConfig:
    """The configuration of a new study, with every default resolved.

    Raises:
        ConfigurationError: The objective has no such space, size, parameter or option.
    """
    check(objective, wanted)
    defaults = {name: option.default for name, option in objective.options.items()}
    options = settle(objective, {**defaults, **wanted.get("options", {})}, wanted)
    objective = bound_to(objective, options)
    own = narrowed(objective, wanted["space"], wanted.get("fixed", {}), wanted.get("ranges", {}))
    space = own.apply(objective.spaces[wanted["space"]])
    sampler = resolve(wanted["sampler"], space, n_trials=n_trials)
    values = {
        **wanted,
        "sampler": sampler,
        "options": options,
        "fixed": own.fixed,
        "ranges": own.ranges,
    }
    source = source_hash(objective)
    config = StudyConfig(objective=spec, source=source, **{**values, **facts(objective, values)})
    check_search(config)
    return config


def check_search(config: StudyConfig) -> None:
    """Construct sampler and pruner once, so that an error appears here and not in each worker."""
    make_sampler(config.sampler, seed=0)
    make_pruner(config.pruner, epochs=config.epochs_per_trial)


def check(objective: Objective, wanted: Mapping[str, Any]) -> None:
    """Refuse a size or an option that the objective does not have, and a space without options."""
    if not depends_on_options(objective):
        space_of(objective, wanted["space"])
    if wanted["size"] not in objective.sizes:
        raise ConfigurationError(
            f"objective '{objective.name}' has no size '{wanted['size']}'; use one of "
            f"{', '.join(objective.sizes)} (--size)"
        )
    for name, value in wanted.get("options", {}).items():
        option = objective.options.get(name)
        if option is None:
            raise ConfigurationError(
                f"objective '{objective.name}' has no option '{name}'; it has "
                f"{', '.join(objective.options) or 'none'}"
            )
        if option.choices and value not in option.choices:
            raise ConfigurationError(
                f"--{name} '{value}' is none of {', '.join(option.choices)} of objective "
                f"'{objective.name}'"
            )


def settle(
    objective: Objective, options: Mapping[str, str], wanted: Mapping[str, Any]
) -> dict[str, str]:
    """The options as the study stores them, for example with absolute paths.

    Raises:
        ConfigurationError: The objective cannot train with these options.
    """
    try:
        return dict(objective.settle(options, wanted["size"], wanted["precision"]))
    except (ValueError, OSError) as error:
        raise ConfigurationError(f"objective '{objective.name}': {error}") from error
