"""Compare the hosts that work or worked on a study: code, packages, clocks, checkpoint folders.

Each worker writes the facts of its host when it starts. Border: reads and compares them; one
finding for each fact, with what to do where hosts differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hpo.database.connection import connect
from hpo.doctor.finding import Finding, failed, ok, warning
from hpo.machine.provenance import git_sha
from hpo.machine.version import code_version
from hpo.study.study import open_study
from hpo.tickets.leases import host_name
from hpo.tickets.roster import Host, hosts_of, manned

# A host that has not started a worker for so long has perhaps left the fleet for good.
_LATELY_DAYS = 7
# Leases go by the database's clock alone; this much makes logs of two hosts hard to read together.
_SKEW_S = 5.0
_CODE = "end the fleet and bring all hosts to one version; until then --allow_mixed runs both"


def examine(storage: str, study_name: str | None) -> Iterator[Finding]:
    """Compare the hosts of a study, or of the only one.

    Raises:
        ConfigurationError: There is no such study, or there are several and none was named.
    """
    db = connect(storage)
    opened = open_study(db, study_name)
    found = hosts_of(db, opened.uid, days=_LATELY_DAYS)
    working = {one.host for one in manned(db, opened.uid) if not one.is_silent}
    db.dispose()
    what = f"study '{opened.name}'"
    if not found:
        cure = "start a run or a worker of it; each host writes its facts then"
        yield warning("fleet", f"no host has worked on {what} for {_LATELY_DAYS} days", cure)
        return
    names = ", ".join(
        one.host
        + ("" if one.host in working else f" (not now, last start {one.at:%Y-%m-%d %H:%M})")
        for one in found
    )
    yield ok("fleet", f"{_hosts(len(found))} of {what}: {names}")
    yield from compare([*found, *_here(found)])


def compare(found: Sequence[Host]) -> Iterator[Finding]:
    """Compare hosts, fact by fact."""
    version = {name for one in found for name in one.facts.get("version", {})}
    first = ("hpo", "torch", "optuna")
    for name in (*first, *sorted(version - set(first))):
        yield _alike(found, name, _of_version(name), failed, _CODE)
    yield _alike(found, "cuda", _plain("cuda"), warning, "install one build of torch on all hosts")
    yield _alike(found, "git", _plain("git"), warning, "check out one commit on all hosts")
    yield _alike(found, "python", _plain("python"), warning, "install one version on all hosts")
    yield _clocks(found)
    yield from _checkpoints([one for one in found if "checkpoints" in one.facts])


def _here(found: Sequence[Host]) -> Iterator[Host]:
    """This host, if it has not worked on the study; what needs torch is left out."""
    if host_name() not in {one.host for one in found}:
        facts = {"version": dict(code_version(None)), "git": git_sha()}
        yield Host(host=f"{host_name()} (this host)", facts=facts, at=found[0].at)


def _plain(name: str) -> Callable[[Host], str | None]:
    return lambda one: one.facts.get(name)


def _of_version(name: str) -> Callable[[Host], str | None]:
    return lambda one: one.facts.get("version", {}).get(name)


def _alike(
    found: Sequence[Host],
    name: str,
    read: Callable[[Host], str | None],
    differs: Callable[[str, str, str], Finding],
    cure: str,
) -> Finding:
    """The finding on a fact that all hosts should share; those that do not know it are left out."""
    by_value: dict[str, list[str]] = {}
    for one in found:
        value = read(one)
        if value is not None:
            by_value.setdefault(value, []).append(one.host)
    if len(by_value) < 2:
        count = sum(map(len, by_value.values()))
        return ok(name, f"{next(iter(by_value), '-')} on {_hosts(count)}")
    ordered = sorted(by_value.items(), key=lambda item: -len(item[1]))
    text = "; ".join(f"{value} on {', '.join(hosts)}" for value, hosts in ordered)
    return differs(name, text, cure)


def _clocks(found: Sequence[Host]) -> Finding:
    ahead = {one.host: float(one.facts["clock_s"]) for one in found if "clock_s" in one.facts}
    text = ", ".join(f"{host} {s:+.1f} s" for host, s in ahead.items())
    text = f"ahead of the database's when a worker last started: {text}"
    wrong = [host for host, s in ahead.items() if abs(s) > _SKEW_S]
    if not wrong:
        return ok("clock", text)
    return warning("clock", text, f"set the clock of {', '.join(wrong)}: timedatectl set-ntp true")


def _checkpoints(found: Sequence[Host]) -> Iterator[Finding]:
    folders: Mapping[str, Mapping[str, Any]] = {one.host: one.facts["checkpoints"] for one in found}
    for host, one in folders.items():
        if not one["is_writable"]:
            why = f"'{one['folder']}' of {host} cannot be written: {one.get('why', 'no right')}"
            yield failed("checkpoints", why, "mend that, or name another (--checkpoint_dir)")
    marks = {one["mark"] for one in folders.values() if one["mark"]}
    if len(marks) < 2:
        folder = next((one["folder"] for one in folders.values()), "-")
        yield ok("checkpoints", f"one place for {_hosts(len(folders))}, '{folder}'")
        return
    text = "; ".join(f"'{one['folder']}' on {host}" for host, one in folders.items())
    cure = (
        "the trial of a lost host starts over elsewhere; give all a shared folder, a URL, or "
        "'database' (--checkpoint_dir, docs/fleet.md)"
    )
    yield warning("checkpoints", f"not one place but {len(marks)}: {text}", cure)


def _hosts(count: int) -> str:
    return "1 host" if count == 1 else f"{count} hosts"
