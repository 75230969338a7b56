"""Slots of a machine, and the messages where torch cannot use it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from hpo.errors import ConfigurationError
from hpo.machine import slots
from tests.support.program import ROOT


def test_an_nvidia_device_with_a_cpu_build_of_torch_is_told_with_the_cure(tmp_path, monkeypatch):
    if torch.version.cuda is not None:
        pytest.skip("torch is a CUDA build here")
    # A real program called nvidia-smi that answers as the driver's does.
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H200 (UUID: GPU-1)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    with pytest.raises(ConfigurationError, match="CPU build; install a CUDA build"):
        slots.gpu_count()
    assert slots.gpu_count(visible="") == 0
    # A process without torch has it asked by another, and tells the same.
    code = (
        "import sys; from hpo.machine import slots\ntry: slots.gpu_count()\n"
        "except Exception as error: print(type(error).__name__, error, 'torch' in sys.modules)"
    )
    apart = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert apart.stdout.startswith("ConfigurationError this machine has an NVIDIA GPU, but torch")
    assert apart.stdout.endswith("train on the CPU False\n")


def test_a_gpu_worker_sees_its_own_gpu_alone():
    found = slots.gpu_slots(2, visible="3,GPU-77", per_gpu=2)

    assert [slot.name for slot in found] == ["gpu:3.0", "gpu:3.1", "gpu:GPU-77.0", "gpu:GPU-77.1"]
    assert dict(found[2].environment) == {"CUDA_VISIBLE_DEVICES": "GPU-77"}


def test_cores_follow_the_affinity():
    code = "from hpo.machine.slots import usable_cores; print(usable_cores())"

    one = subprocess.run(
        ["taskset", "-c", "0", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )

    assert one.stdout.strip() == "1"


def test_the_gpus_that_are_asked_for_are_used_and_others_named():
    found = slots.gpu_slots(3, per_gpu=2)

    chosen = slots.chosen(found, ["2", "0"])

    assert [slot.name for slot in chosen] == ["gpu:2.0", "gpu:2.1", "gpu:0.0", "gpu:0.1"]
    with pytest.raises(ConfigurationError, match="no GPU '5'; use some of 0, 1, 2"):
        slots.chosen(found, ["0", "5"])


def test_a_device_that_is_named_gets_as_many_slots_as_asked_for():
    # One that torch has everywhere, and that is named with its number, as a GPU is.
    one = slots.slots_on("cpu:0", None, visible=None)
    three = slots.slots_on("cpu:0", 3, visible=None)

    assert [(slot.name, slot.device) for slot in one] == [("cpu:0", "cpu:0")]
    assert [slot.name for slot in three] == ["cpu:0.0", "cpu:0.1", "cpu:0.2"]
    assert {slot.device for slot in three} == {"cpu:0"}
