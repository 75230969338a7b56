"""`python -m hpo` as a fork of this process, in place of a new interpreter.

A new interpreter imports torch, Optuna and SQLAlchemy for 4 to 5 s of CPU before it does anything,
each worker again. A fork has them already. It is a process all the same: it has a pid, a parent,
pipes, a session and an exit code, and it is interrupted and killed as any other.

`install` has `subprocess.Popen` fork where it is asked for exactly `sys.executable -m hpo`, with or
without `-P`, also for the workers and seeds that the program starts itself. `EXECUTED` is the way
to a new interpreter; it is also taken where a CUDA context could not be forked, where the
environment preloads a library, and where there is no /proc to tell the parent's open files from.
"""

from __future__ import annotations

import atexit
import gc
import inspect
import logging
import os
import signal
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

EXECUTED = subprocess.Popen
_PROGRAMS = ((sys.executable, "-m", "hpo"), (sys.executable, "-P", "-m", "hpo"))
# Of what starts a process, behind itself and the arguments; their number is the version's.
_PARAMETERS = list(inspect.signature(EXECUTED._execute_child).parameters)[2:]


class ForkedPopen(subprocess.Popen):
    """A process that is forked where it is to run this program."""

    def _execute_child(self, args: Any, *rest: Any) -> None:
        given = dict(zip(_PARAMETERS, rest, strict=True))
        if not _is_forkable(args, given["env"]):
            super()._execute_child(args, *rest)
            return
        _preload()
        self.pid = os.fork()
        if self.pid == 0:
            _live(
                _arguments(args)[1:],
                streams=(given["p2cread"], given["c2pwrite"], given["errwrite"]),
                environment=given["env"],
                folder=given["cwd"],
                has_own_session=given["start_new_session"],
            )
        self._child_created = True
        self._close_pipe_fds(
            *(given["p2cread"], given["p2cwrite"], given["c2pread"], given["c2pwrite"]),
            *(given["errread"], given["errwrite"]),
        )


def install() -> None:
    """Have this process and its forks start the program by forks."""
    subprocess.Popen = ForkedPopen


def _is_forkable(args: Any, environment: Mapping[str, str] | None) -> bool:
    if not isinstance(args, list | tuple) or not _arguments(args):
        return False
    if "LD_PRELOAD" in (environment or {}) or not os.path.isdir("/proc/self/fd"):  # noqa: PTH112
        return False
    return not torch.cuda.is_available()


def _arguments(command: Sequence[str]) -> list[str]:
    """The program's name and its arguments; empty for another program."""
    known = (program for program in _PROGRAMS if tuple(command[: len(program)]) == program)
    return [*command[len(program) - 1 :]] if (program := next(known, None)) else []


def _preload() -> None:
    """Import what a worker needs, so that no fork does it again."""
    import optuna  # noqa: F401
    import torch._dynamo  # noqa: F401  by the first optimizer's first step

    import hpo.cli.run
    import hpo.fleet.run
    import hpo.refit.crew
    import hpo.refit.seed_process
    import hpo.worker.worker  # noqa: F401


def _live(
    arguments: Sequence[str],
    *,
    streams: Sequence[int],
    environment: Mapping[str, str] | None,
    folder: str | os.PathLike[str] | None,
    has_own_session: bool,
) -> None:
    """Be the program from here on, with nothing of the parent's but its imports."""
    code = 1
    try:
        if has_own_session:
            os.setsid()
        _take_streams(streams)
        _forget(environment, folder)
        sys.argv = ["hpo/__main__.py", *arguments]
        code = _code_of(lambda: _main(arguments))
    except BaseException:
        traceback.print_exc()
    finally:
        for end in (threading._shutdown, atexit._run_exitfuncs, sys.stdout.flush, sys.stderr.flush):
            try:
                end()
            except BaseException:
                continue
        os._exit(code)


def _main(arguments: Sequence[str]) -> int:
    from hpo.cli import main

    return main(arguments)


def _code_of(main: Callable[[], int]) -> int:
    try:
        return main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1


def _take_streams(streams: Sequence[int]) -> None:
    """Have the three streams, and no other file or socket of the parent."""
    for number, stream in enumerate(streams):
        if stream not in (-1, number):
            os.dup2(stream, number)
    # Not closed: what Python still holds of the parent would later close whatever got the number.
    nothing = os.open(os.devnull, os.O_RDWR)
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        try:
            if int(name) > 2 and int(name) != nothing:
                os.fstat(int(name))
                os.dup2(nothing, int(name), inheritable=False)
        except OSError:
            continue
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(  # noqa: SIM115
        2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
    )
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr


def _forget(environment: Mapping[str, str] | None, folder: str | os.PathLike[str] | None) -> None:
    """Put back what a new interpreter would not have of the tests."""
    subprocess.Popen = ForkedPopen
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    if environment is not None:
        os.environ.clear()
        os.environ.update(environment)
    if folder is not None:
        os.chdir(folder)
    logging.disable(logging.NOTSET)
    root = logging.getLogger()
    root.handlers.clear()
    root.setLevel(logging.WARNING)
    for logger in logging.Logger.manager.loggerDict.values():
        for handler in getattr(logger, "handlers", []):
            if isinstance(handler, logging.StreamHandler):
                handler.setStream(sys.stderr)
    warnings.resetwarnings()
    warnings.simplefilter("ignore")
    atexit._clear()
    # A collection would copy every page of the parent's objects.
    gc.freeze()
