"""The value of `--checkpoint_dir`: which places there are, and what is refused with which cure."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from hpo.errors import ConfigurationError
from hpo.study import objects
from hpo.study.place import Place
from hpo.study.request import RunRequest
from tests.support.studies import QUADRATIC

UID = "0f0e0d0c-0000-4000-8000-000000000001"


@pytest.mark.parametrize(
    ("given", "folder", "copies"),
    [
        (None, None, None),
        ("", None, None),
        ("/shared/checkpoints", "/shared/checkpoints", None),
        ("relative", "relative", None),
        ("./database", "./database", None),
        ("database", None, "database"),
        ("s3://bucket/folder/", None, "s3://bucket/folder"),
        ("file:///shared", None, "file:///shared"),
        ("sftp://me@host/folder", None, "sftp://me@host/folder"),
    ],
)
def test_a_place_is_a_folder_a_url_or_the_database(given, folder, copies):
    place = Place.of(given)

    assert place.folder == (None if folder is None else Path(folder))
    assert place.copies == copies


@pytest.mark.parametrize(
    "url",
    [
        "s3://KEY:planted@bucket/folder",
        "s3://KEY:plan@ted/x@bucket/folder",
        "s3://KEY:plan/ted/x@bucket/folder",
        "s3://bucket/folder?secret=planted",
        "gs://bucket/folder#planted",
        "simplecache::s3://KEY:planted@bucket",
    ],
)
def test_a_url_with_a_secret_is_refused_and_not_shown(url: str):
    with pytest.raises(ConfigurationError) as refused:
        RunRequest.of({"checkpoint_dir": url})

    assert "planted" not in str(refused.value) and "ted/x" not in str(refused.value)
    assert "give them to the workers by" in str(refused.value) or "::" in url


@pytest.mark.parametrize("url", ["memory://x", "http://host/x", "simplecache::s3://bucket/x"])
def test_a_url_that_keeps_nothing_is_refused(url: str):
    with pytest.raises(ConfigurationError, match="--checkpoint_dir"):
        Place.of(url)


def test_a_file_is_no_folder(tmp_path: Path):
    (tmp_path / "file").touch()

    with pytest.raises(ConfigurationError, match="is a file"):
        Place.of(tmp_path / "file")


def test_a_run_and_a_worker_of_the_same_folder_use_the_same_files(tmp_path: Path):
    of_run = Place.of(tmp_path).folder_of(UID, home=Path("/home"))

    # A run hands its worker the study's own folder, a user the folder above.
    assert Place.of(of_run).folder_of(UID, home=Path("/home")) == of_run == tmp_path / UID
    assert Place.of(None).folder_of(UID, home=Path("/home")) == Path("/home/checkpoints") / UID


@pytest.mark.parametrize("url", ["nowhere://x", "s4://bucket"])
def test_a_file_system_that_does_not_exist_is_refused(url: str):
    with pytest.raises(ConfigurationError, match="cannot be used"):
        objects.require(url)


def test_a_package_that_is_not_installed_is_named_before_a_run_begins(command, monkeypatch):
    known = importlib.import_module("fsspec.registry").known_implementations
    monkeypatch.setitem(known, "absent", {"class": "no_such_package.FileSystem", "err": "-"})

    ran = command("run", *QUADRATIC, "--checkpoint_dir", "absent://bucket/folder")

    assert ran.returncode == 2
    assert "pip install no_such_package" in ran.stderr
