"""Errors of an objective's hooks in words: class, message, traceback, chain of causes.

Border: reads errors of any class, and trusts none; who catches one decides what follows.
"""

from __future__ import annotations

import argparse
import traceback
from collections.abc import Iterator

_DETAIL_CHARS = 400
# The end of a traceback shows the objective; its first lines are our own code.
_TRACEBACK_CHARS = 4000


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error, its causes and contexts, and the members of groups among them; each once."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop(0)
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        members = one.exceptions if isinstance(one, BaseExceptionGroup) else ()
        waiting += [one.__cause__, one.__context__, *members]


def described(error: BaseException) -> str:
    """An error's class and message on one line, for the line of a table.

    A command line's parser prints what is wrong and raises SystemExit, which knows the code alone.
    """
    name, said = type(error).__name__, in_one_line(error)
    if isinstance(error, SystemExit):
        why = _printed(error) or next(
            (described(one) for one in chain(error) if not isinstance(one, SystemExit)), ""
        )
        said = " ".join(filter(None, ("" if error.code is None else said, why and f"({why})")))
    return f"{name}: {said}"[:_DETAIL_CHARS] if said else name


def _printed(error: SystemExit) -> str:
    """The message that argparse printed before it raised the error."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code is argparse.ArgumentParser.error.__code__:
            return " ".join(str(frame.f_locals.get("message", "")).split())
    return ""


def in_one_line(error: BaseException) -> str:
    """An error's message on one line, cut for the line of a table."""
    try:
        return storable(" ".join(str(error).split()))[:_DETAIL_CHARS]
    except Exception:
        # The class is the objective's, and so is its `__str__`.
        return "its message cannot be shown"


def traceback_of(error: BaseException) -> str:
    """The end of an error's traceback."""
    return storable("".join(traceback.format_exception(error)))[-_TRACEBACK_CHARS:]


def storable(text: str) -> str:
    """Escape what a database rejects or a terminal obeys: control characters, lone surrogates."""
    shown = "".join(c if c.isprintable() or c in "\n\t" else _escaped(c) for c in text)
    return shown.encode("utf-8", "backslashreplace").decode()


def _escaped(character: str) -> str:
    if character == "\0":
        return "\\0"
    # A surrogate is not printable either, and is escaped by the encoder in its own form.
    return character if "\ud800" <= character <= "\udfff" else repr(character)[1:-1]
