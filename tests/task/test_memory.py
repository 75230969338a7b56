"""Memory that ran out, by whatever name; and what hooks raised, in words."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest
import torch

from hpo.task.memory import is_out_of_memory, used_by_others
from hpo.task.raised import chain, described


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "cusolver error: CUSOLVER_STATUS_INTERNAL_ERROR, when calling `cusolverDnCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
        "cuFFT error: CUFFT_ALLOC_FAILED",
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
        "MPS backend out of memory (MPS allocated: 9.0 GB)",
        "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes",
        "unable to mmap 8 bytes from file <f>: Cannot allocate memory (12)",
    ],
)
def test_memory_is_known_by_what_the_library_says(message: str):
    assert is_out_of_memory(RuntimeError(message))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("NCCL Error 2: unhandled system error"),
        RuntimeError("NCCL error: ncclUnhandledCudaError: Cuda failure 'out of memory'"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(`"),
        RuntimeError("cusolver error: CUSOLVER_STATUS_INTERNAL_ERROR, when calling `cusolverDnX(`"),
        ValueError("my CUDA error: out of memory, I say"),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
)
def test_another_error_is_not_memory(error: BaseException):
    assert not is_out_of_memory(error)


def raised(inner: BaseException, outer: BaseException, *, how: str) -> BaseException:
    """The outer error, raised while the inner one was handled."""
    try:
        try:
            raise inner
        except BaseException as caught:
            if how == "cause":
                raise outer from caught
            if how == "context":
                raise outer  # noqa: B904
            raise outer from None
    except BaseException as found:
        return found


@pytest.mark.parametrize("how", ["cause", "context", "hidden"])
@pytest.mark.parametrize(
    "inner",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        OSError(errno.ENOMEM, "fork"),
        ExceptionGroup("loaders", [ValueError(), MemoryError()]),
    ],
)
def test_memory_is_found_in_causes_contexts_and_groups(inner: BaseException, how: str):
    assert is_out_of_memory(raised(inner, ValueError("step failed"), how=how))
    assert not is_out_of_memory(raised(KeyError("x"), ValueError("step failed"), how=how))


_HOLDER = """
import sys, torch
held = torch.zeros(4 << 30, dtype=torch.uint8, device="cuda")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_memory_of_another_process_is_told_from_our_own():
    device = torch.device("cuda")
    before = used_by_others(device)
    own = torch.zeros(2 << 30, dtype=torch.uint8, device=device)
    assert used_by_others(device) <= before + (256 << 20)

    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    beside = used_by_others(device)
    holder.communicate()

    # The other's context takes some hundred MiB, too.
    assert (4 << 30) - (1 << 30) < beside - before < (6 << 30)
    assert own.numel() == 2 << 30


def test_a_cpu_is_shared_without_being_measured():
    assert used_by_others(torch.device("cpu")) == 0


def test_a_chain_that_bites_its_tail_ends():
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one

    assert list(chain(one)) == [one, two]


def test_an_exit_is_described_by_its_code_and_by_the_error_before_it():
    found = raised(ValueError("no such option"), SystemExit(2), how="context")

    assert described(SystemExit()) == "SystemExit"
    assert described(SystemExit(0)) == "SystemExit: 0"
    assert described(found) == "SystemExit: 2 (ValueError: no such option)"
    assert described(KeyboardInterrupt()) == "KeyboardInterrupt"
    assert described(ValueError("two\nlines")) == "ValueError: two lines"
