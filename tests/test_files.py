"""Files written whole, tables as CSV, JSON without NaN."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpo.errors import ConfigurationError
from hpo.files import csv_text, finite, refuse_unwritable, renamed, target_name, write
from hpo.study.table import csv_of


def test_a_table_is_quoted_as_programs_read_it():
    rows = [{"number": 0, "detail": 'a "b", c\nd', "value": None}]

    assert csv_of(rows) == 'number,detail,value\r\n0,"a ""b"", c\nd",\r\n'
    assert csv_of([]) == ""
    assert csv_text(["a", "b"], []) == "a,b\r\n"


def test_json_has_names_or_null_in_place_of_what_is_not_finite():
    found = {"a": [1.5, float("nan")], "b": {"c": float("-inf")}, "d": (True, "x", None)}

    assert finite(found) == {"a": [1.5, None], "b": {"c": None}, "d": [True, "x", None]}
    assert finite(found, names=True) == {
        "a": [1.5, "nan"],
        "b": {"c": "-inf"},
        "d": [True, "x", None],
    }


def test_a_link_keeps_its_target_and_a_pipe_stays_a_pipe(tmp_path: Path):
    target, link, pipe = tmp_path / "target.csv", tmp_path / "link.csv", tmp_path / "pipe"
    link.symlink_to(target)
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)

    write(link, "é", flag="--save")
    write(pipe, "through", flag="--save")

    assert link.is_symlink()
    assert target.read_text(encoding="utf-8") == "é"
    assert os.read(reader, 100) == b"through"
    assert pipe.is_fifo()
    os.close(reader)


def test_a_link_in_a_folder_of_our_own_is_replaced_and_its_target_stays(tmp_path: Path):
    target, link = tmp_path / "theirs", tmp_path / "ours.json"
    target.write_text("theirs")
    link.symlink_to(target)

    write(link, "ours")

    assert (target.read_text(), link.read_text(), link.is_symlink()) == ("theirs", "ours", False)


def test_what_cannot_be_written_is_refused_before_and_leaves_nothing(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="it is a folder"):
        refuse_unwritable(tmp_path, flag="--save")
    with pytest.raises(ConfigurationError, match="there is no folder"):
        refuse_unwritable(tmp_path / "a" / "b", flag="--save")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        write(tmp_path / ("x" * 300), "text", flag="--save")
    assert list(tmp_path.iterdir()) == []


def test_two_processes_with_one_pid_write_two_temporary_files(tmp_path: Path):
    path = tmp_path / "a.pt"

    # Both blocks are of this process, as two containers may give their processes one pid.
    with renamed(path) as first, renamed(path) as second:
        first.write_text("first")
        second.write_text("second")
        found = {first.name, second.name}

    assert len(found) == 2
    assert {target_name(name) for name in found} == {"a.pt"}
    # A file that an earlier version left.
    assert target_name(".a.pt.17.tmp") == "a.pt"
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]
