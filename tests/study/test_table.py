"""Tables as files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpo.errors import ConfigurationError
from hpo.study import table


def test_a_table_is_quoted_as_programs_read_it():
    rows = [{"number": 0, "detail": 'a "b", c\nd', "value": None}]

    assert table.csv_text(rows) == 'number,detail,value\r\n0,"a ""b"", c\nd",\r\n'
    assert table.csv_text([]) == ""


def test_a_link_keeps_its_target_and_a_pipe_stays_a_pipe(tmp_path: Path):
    target, link, pipe = tmp_path / "target.csv", tmp_path / "link.csv", tmp_path / "pipe"
    link.symlink_to(target)
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)

    table.write(link, "é", flag="--save")
    table.write(pipe, "through", flag="--save")

    assert link.is_symlink()
    assert target.read_text(encoding="utf-8") == "é"
    assert os.read(reader, 100) == b"through"
    assert pipe.is_fifo()
    os.close(reader)


def test_what_cannot_be_written_is_refused_before_and_leaves_nothing(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="it is a folder"):
        table.refuse_unwritable(tmp_path, flag="--save")
    with pytest.raises(ConfigurationError, match="there is no folder"):
        table.refuse_unwritable(tmp_path / "a" / "b", flag="--save")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        table.write(tmp_path / ("x" * 300), "text", flag="--save")
    assert list(tmp_path.iterdir()) == []
