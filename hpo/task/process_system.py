"""The settings of the operating system that a trial may change: streams, folder, signals, limits.

Border: settings of the process that can be read back, files and children apart.
"""

from __future__ import annotations

import faulthandler
import locale
import logging
import os
import resource
import signal
import sys
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import IO, Any

from hpo.task.process_python import loggers
from hpo.task.setting import Setting, compared

_STREAMS = ("stdin", "stdout", "stderr")
# No handler can be set for these.
_FIXED = {signal.SIGKILL, signal.SIGSTOP}
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]


class _Descriptor:
    """A file descriptor of our own, closed with the object."""

    def __init__(self, number: int) -> None:
        self.number = number
        weakref.finalize(self, _close, number)

    def is_same(self, other: str | int) -> bool:
        """Return whether a path, or a descriptor, leads to the same file."""
        try:
            return os.path.samefile(other, self.number)  # noqa: PTH121
        except OSError:
            return False


def _close(number: int) -> None:
    # A trial may have closed every descriptor.
    with suppress(OSError):
        os.close(number)


def _folder() -> _Descriptor | None:
    # A descriptor leads back into a folder that was renamed or deleted meanwhile.
    try:
        return _Descriptor(os.open(".", os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return None


def _set_folder(kept: _Descriptor | None) -> bool:
    if kept is None or kept.is_same("."):
        return False
    os.fchdir(kept.number)
    return True


def _descriptors() -> dict[int, _Descriptor]:
    """Copies of the descriptors of the standard streams that are open."""
    found = {}
    for number in range(3):
        with suppress(OSError):
            found[number] = _Descriptor(os.dup(number))
    return found


def _set_descriptors(kept: Mapping[int, _Descriptor]) -> bool:
    other = [number for number, copy in kept.items() if not copy.is_same(number)]
    for number in other:
        os.dup2(kept[number].number, number)
    return bool(other)


def _streams() -> list[Any]:
    return [getattr(sys, name) for name in _STREAMS]


def _set_streams(kept: list[Any]) -> bool:
    is_changed = _streams() != kept
    for number, (name, stream) in enumerate(zip(_STREAMS, kept, strict=True)):
        if getattr(stream, "closed", False):
            is_changed = True
            stream = _reopened(number, stream)
        setattr(sys, name, stream)
    return is_changed


def _reopened(number: int, closed: Any) -> IO[str]:
    """A standard stream in place of one that was closed, in the handlers of the log too."""
    mode = "w" if number else "r"
    opened = open(number, mode, errors="backslashreplace", closefd=False)  # noqa: SIM115
    for logger in (logging.root, *loggers()):
        for handler in logger.handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is closed:
                handler.stream = opened
    return opened


def _handlers() -> dict[int, Any]:
    return {each: signal.getsignal(each) for each in signal.valid_signals() - _FIXED}


def _set_handlers(kept: Mapping[int, Any]) -> bool:
    now = _handlers()
    # None is a handler of C, which Python can neither compare nor set.
    other = [each for each, was in kept.items() if was is not None and now[each] != was]
    for each in other:
        signal.signal(each, kept[each])
    return bool(other)


def _no_timers(_: None) -> bool:
    """Stop timers, which would interrupt or end the next trial."""
    running = [timer for timer in _TIMERS if signal.getitimer(timer)[0]]
    for timer in running:
        signal.setitimer(timer, 0)
    faulthandler.cancel_dump_traceback_later()
    return bool(running)


def _set_environment(kept: Mapping[str, str]) -> None:
    for name in set(os.environ) - set(kept):
        del os.environ[name]
    os.environ.update(kept)
    time.tzset()


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _set_umask(kept: int) -> bool:
    # There is no way to read it without setting it.
    return os.umask(kept) != kept


def _set_limits(kept: Mapping[int, tuple[int, int]]) -> None:
    for limit, values in kept.items():
        if resource.getrlimit(limit) != values:
            resource.setrlimit(limit, values)


def _system() -> Iterator[Setting]:
    """The process as the operating system sees it."""
    yield Setting("standard descriptors", _descriptors, _set_descriptors)
    yield Setting("standard streams", _streams, _set_streams)
    yield Setting("working directory", _folder, _set_folder)
    yield compared("environment", lambda: dict(os.environ), _set_environment)
    yield Setting("umask", _umask, _set_umask)
    yield Setting("signal handlers", _handlers, _set_handlers)
    yield compared(
        "blocked signals",
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        lambda kept: signal.pthread_sigmask(signal.SIG_SETMASK, kept),
    )
    yield Setting("timers", lambda: None, _no_timers)
    yield compared(
        "limits of resources",
        lambda: {limit: resource.getrlimit(limit) for limit in _LIMITS},
        _set_limits,
    )
    if hasattr(os, "sched_getaffinity"):
        yield compared(
            "processor affinity",
            lambda: os.sched_getaffinity(0),
            lambda kept: os.sched_setaffinity(0, kept),
        )
    yield compared(
        "locale",
        lambda: locale.setlocale(locale.LC_ALL),
        lambda kept: locale.setlocale(locale.LC_ALL, kept),
    )


SYSTEM: tuple[Setting, ...] = tuple(_system())
