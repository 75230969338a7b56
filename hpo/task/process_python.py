"""The settings of Python and numpy that a trial may change.

Border: settings that can be read back. Builtins and modules stay as a trial leaves them.
"""

from __future__ import annotations

import decimal
import gc
import logging
import multiprocessing
import socket
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from hpo.task.setting import Setting, attribute, compared


def loggers() -> list[logging.Logger]:
    """All loggers that exist, the root apart."""
    every = logging.root.manager.loggerDict.values()
    return [logger for logger in every if isinstance(logger, logging.Logger)]


def _logging() -> tuple[int, dict[logging.Logger, tuple[Any, ...]]]:
    """The settings of all loggers that `logging.disable`, `basicConfig` and `dictConfig` change."""
    return logging.root.manager.disable, {
        each: (each.level, each.disabled, each.propagate, [*each.handlers], [*each.filters])
        for each in (logging.root, *loggers())
    }


def _set_logging(kept: tuple[int, dict[logging.Logger, tuple[Any, ...]]]) -> bool:
    disabled, loggers = kept
    now = _logging()
    is_changed = now[0] != disabled
    logging.disable(disabled)
    for each, was in loggers.items():
        if now[1].get(each) != was:
            is_changed = True
            level, each.disabled, each.propagate, handlers, filters = was
            each.handlers[:], each.filters[:] = handlers, filters
            # It also clears what all loggers remember of their levels.
            each.setLevel(level)
    return is_changed


def _set_filters(kept: list[Any]) -> None:
    # It also has the warnings that were given already be compared with the filters anew.
    warnings.resetwarnings()
    warnings.filters[:] = kept  # type: ignore[index]


def _decimal() -> str:
    return repr(decimal.getcontext())


def _set_decimal(kept: tuple[str, decimal.Context]) -> bool:
    if _decimal() == kept[0]:
        return False
    decimal.setcontext(kept[1].copy())
    return True


def _list(name: str, owner: Any, key: str) -> Setting:
    """A list that a module holds, and others may hold too: its content is restored."""

    held = getattr(owner, key)

    def set(kept: list[Any]) -> None:
        held[:] = kept
        setattr(owner, key, held)

    return compared(name, lambda: [*getattr(owner, key)], set)


def _interpreter() -> Iterator[Setting]:
    """Python's own settings."""
    yield _list("sys.path", sys, "path")
    yield _list("arguments", sys, "argv")
    yield _list("importers", sys, "meta_path")
    pairs: tuple[tuple[str, Callable[[], Any], Callable[[Any], object]], ...] = (
        ("trace function", sys.gettrace, sys.settrace),
        ("profile function", sys.getprofile, sys.setprofile),
        ("switch interval", sys.getswitchinterval, sys.setswitchinterval),
        ("digits of integers", sys.get_int_max_str_digits, sys.set_int_max_str_digits),
        ("thread stack size", threading.stack_size, threading.stack_size),
        ("thresholds of collection", gc.get_threshold, lambda kept: gc.set_threshold(*kept)),
        ("garbage collection", gc.isenabled, lambda is_on: (gc.disable, gc.enable)[is_on]()),
        ("debugging of garbage collection", gc.get_debug, gc.set_debug),
        ("timeout of sockets", socket.getdefaulttimeout, socket.setdefaulttimeout),
        ("record factory of the log", logging.getLogRecordFactory, logging.setLogRecordFactory),
    )
    for name, get, set in pairs:
        yield compared(name, get, set)
    yield attribute("exception hook", sys, "excepthook")
    yield attribute("exception hook of threads", threading, "excepthook")
    yield attribute("folder of temporary files", tempfile, "tempdir")
    yield Setting("logging", _logging, _set_logging)
    yield compared("warnings filters", lambda: [*warnings.filters], _set_filters)
    yield attribute("printing of warnings", warnings, "showwarning")
    yield compared(
        "start method of processes",
        lambda: multiprocessing.get_start_method(allow_none=True),
        lambda kept: multiprocessing.set_start_method(kept, force=True),
    )
    yield Setting(
        "decimal context", lambda: (_decimal(), decimal.getcontext().copy()), _set_decimal
    )


def _numpy() -> Iterator[Setting]:
    """numpy's handling of errors, and its global generator."""
    yield compared("numpy's errstate", np.geterr, lambda kept: np.seterr(**kept))
    yield compared("numpy's error call", np.geterrcall, np.seterrcall)
    legacy: Any = np.random
    yield compared("numpy's bit generator", legacy.get_bit_generator, legacy.set_bit_generator)


PYTHON: tuple[Setting, ...] = (*_interpreter(), *_numpy())
