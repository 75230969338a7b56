"""Loader of the user's own samplers and pruners, at `module:attr`."""

from __future__ import annotations

import importlib
import inspect
from typing import Any, Literal

from hpo import trust
from hpo.errors import ConfigurationError
from objectives import add_working_folder


def load_plugin(spec: str, base: type, *, flag: Literal["sampler", "pruner"], **given: Any) -> Any:
    """Load an instance from `module:attr`, or call the class or function there.

    Args:
        base: The class that the instance must have.
        flag: The flag that names it.
        given: Arguments for the class or function; those that it does not take are left out.

    Raises:
        ConfigurationError: It cannot be imported or made, or has another class, or nobody named it
            on this host.
    """
    path, _, attribute = spec.partition(":")
    trust.refuse_unnamed(flag, spec, what="the study")
    add_working_folder(path)
    try:
        found = getattr(importlib.import_module(path), attribute)
        if callable(found) and not isinstance(found, base):
            taken = inspect.signature(found).parameters
            found = found(**{name: value for name, value in given.items() if name in taken})
    except Exception as error:
        raise ConfigurationError(
            f"'{spec}' cannot be used: {type(error).__name__}: {error} (--{flag})"
        ) from error
    if not isinstance(found, base):
        raise ConfigurationError(
            f"'{spec}' is no {base.__name__} of Optuna's but {type(found).__name__}; name a class, "
            f"an instance, or a function that returns one (--{flag})"
        )
    return found


def is_plugin(name: str) -> bool:
    """True if a name has the form `module:attr`."""
    path, colon, attribute = name.partition(":")
    return bool(colon and path and attribute)
