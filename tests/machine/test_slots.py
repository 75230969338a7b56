"""Slots of a machine, and the messages where torch cannot use it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from hpo.errors import ConfigurationError
from hpo.machine import gpus, slots
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
        gpus.usable_gpus()
    assert gpus.usable_gpus(visible="") == gpus.usable_gpus(visible="NoDevFiles") == []
    # Another process imports torch, so that this one need not.
    code = (
        "import sys; from hpo.machine import gpus\ntry: gpus.usable_gpus()\n"
        "except Exception as error: print(type(error).__name__, error, 'torch' in sys.modules)"
    )
    apart = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert apart.stdout.startswith("ConfigurationError this machine has an NVIDIA GPU, but torch")
    assert apart.stdout.endswith("train on the CPU False\n")


def test_a_gpu_worker_sees_its_own_gpu_alone():
    usable = gpus.usable(gpus.named("3, GPU-77"), ["a", "b"])
    found = slots.gpu_slots(usable, per_gpu=2)

    assert [slot.name for slot in found] == ["gpu:3.0", "gpu:3.1", "gpu:GPU-77.0", "gpu:GPU-77.1"]
    assert dict(found[2].environment) == {"CUDA_VISIBLE_DEVICES": "GPU-77"}
    assert [slot.gpu for slot in found] == ["a", "a", "b", "b"]


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        ("0,1", ["0", "1"]),
        (" 0 , 1 ", ["0", "1"]),
        ("1,0", ["1", "0"]),
        ("", []),
        ("  ", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("void", []),
        # CUDA reads nothing behind a name that is none.
        ("2,-1,3", ["2"]),
        ("0,,1", ["0"]),
        (
            "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6,1",
            ["GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", "1"],
        ),
        ("MIG-7a1b,MIG-GPU-5f/1/0", ["MIG-7a1b", "MIG-GPU-5f/1/0"]),
        ("1,1", ["1"]),
    ],
)
def test_the_visible_gpus_are_read_as_cuda_reads_them(visible, names):
    assert gpus.named(visible) == names


def test_each_mig_device_has_a_slot_though_torch_sees_the_first_alone():
    usable = gpus.usable(["MIG-7a", "MIG-7b"], ["7a"])

    assert [gpu.name for gpu in usable] == ["MIG-7a", "MIG-7b"]
    assert [gpu.uuid for gpu in usable] == ["MIG-7a", "MIG-7b"]


def test_names_that_torch_does_not_see_have_no_slot():
    assert [gpu.name for gpu in gpus.usable(["0", "7"], ["a"])] == ["0"]


def test_mig_devices_stand_for_their_card():
    # As the driver's manual shows it, with a second card that is not divided.
    text = (
        "GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6)\n"
        "  MIG 3g.20gb     Device  0: (UUID: MIG-c7384736)\n"
        "  MIG 3g.20gb     Device  1: (UUID: MIG-a28ad590)\n"
        "GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-3f9c1)\n"
    )

    assert gpus.listed(text) == ["MIG-c7384736", "MIG-a28ad590", "GPU-3f9c1"]
    assert gpus.listed("No devices found.\n") is None


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
    found = slots.gpu_slots(gpus.usable(None, ["a", "b", "c"]), per_gpu=2)

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
