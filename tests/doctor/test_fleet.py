"""`doctor --fleet`: the differences of a fleet's hosts, each with what to do."""

from __future__ import annotations

from datetime import UTC, datetime

from hpo.doctor.fleet import compare
from hpo.tickets.roster import Host


def host(name: str, *, torch: str = "2.13.0", clock_s: float = 0.1, **folder) -> Host:
    facts = {
        "git": "abc",
        "version": {"hpo": "aaa", "torch": torch, "optuna": "5.0.0", "objective": "fff"},
        "python": "3.11.7",
        "cuda": "13.0",
        "clock_s": clock_s,
        "checkpoints": {"folder": "/shared", "mark": "one", "is_writable": True, **folder},
    }
    return Host(host=name, facts=facts, at=datetime.now(UTC))


def test_hosts_that_are_alike_are_well():
    found = list(compare([host("a"), host("b")]))

    assert {one.state for one in found} == {"ok"}
    assert [one.name for one in found] == [
        *("hpo", "torch", "optuna", "objective", "cuda", "git", "python", "clock", "checkpoints")
    ]


def test_each_difference_is_one_line_with_its_hosts_and_a_cure():
    hosts = [
        host("a"),
        host("b", torch="2.12.0", mark="two"),
        host("c", clock_s=-61.0, mark="", is_writable=False, why="Permission denied"),
    ]

    found = list(compare(hosts))

    wrong = [one for one in found if one.state != "ok"]
    assert [(one.name, one.state) for one in wrong] == [
        *(("torch", "failed"), ("clock", "warning")),
        *(("checkpoints", "failed"), ("checkpoints", "warning")),
    ]
    torch, clock, unwritable, several = wrong
    assert torch.found == "2.13.0 on a, c; 2.12.0 on b"
    assert "c -61.0 s" in clock.found
    assert "set the clock of c:" in clock.cure
    assert "of c cannot be written: Permission denied" in unwritable.found
    assert "the same shared folder" in several.cure


def test_hosts_that_copy_their_checkpoints_to_one_place_need_no_common_folder():
    hosts = [host("a", copies="database"), host("b", mark="two", copies="database")]

    assert {one.state for one in compare(hosts)} == {"ok"}
    apart = list(compare([hosts[0], host("b", mark="two", copies=None)]))
    assert [one.name for one in apart if one.state != "ok"] == ["checkpoints"]
