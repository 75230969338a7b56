"""The account of the embedded server, which root needs."""

import os
import shutil
import subprocess
import sys

import pytest

NAME = f"hpo-test-{os.getpid()}"
FIND = f"""
import pwd, time
from hpo.embedded import binaries
binaries.ACCOUNT = {NAME!r}
found = binaries.service_account()
time.sleep(0.5)
print(found.uid == pwd.getpwnam({NAME!r}).pw_uid)
"""


@pytest.fixture
def no_account():
    if os.geteuid() or shutil.which("useradd") is None:
        pytest.skip("only root can create an account, with useradd")
    yield
    for command in ("userdel", "groupdel"):
        subprocess.run([command, NAME], capture_output=True)


@pytest.mark.acceptance
def test_first_starts_at_once_agree_on_the_account(no_account):
    started = [
        subprocess.Popen([sys.executable, "-c", FIND], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]

    answers = [process.communicate(timeout=60)[0].strip() for process in started]

    assert answers == ["True"] * 4
