"""The version of the code that trains."""

from __future__ import annotations

import shutil

from hpo.machine import version
from hpo.machine.version import code_version, differences, digest
from tests.support.program import ROOT


def test_a_changed_source_file_of_ours_changes_the_version(tmp_path, monkeypatch):
    for name in ("hpo", "models", "objectives"):
        shutil.copytree(ROOT / name, tmp_path / name)
    hashes = []
    for added in ("", "", "# other"):
        with (tmp_path / "models" / "__init__.py").open("a") as file:
            file.write(added)
        version._sources.cache_clear()
        monkeypatch.setattr(version, "_ROOT", tmp_path)
        hashes.append(code_version(None)["hpo"])
    version._sources.cache_clear()

    assert hashes[0] == hashes[1] != hashes[2]


def test_what_differs_is_named_with_both_values_file_by_file():
    here = code_version("1111 nets/net.py=2222 helper%20a.py=3333")
    there = code_version("1111 nets/net.py=4444 other.py=5555")

    assert differences(here, there) == ["objective's nets/net.py 2222 here, 4444 there"]
    assert digest(here) != digest(there)
    assert digest(here) == digest(dict(reversed(here.items())))
