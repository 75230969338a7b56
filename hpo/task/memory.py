"""Memory that ran out: found in an error's chain, and measured on the device.

Border: reads errors and the device; the worker decides what becomes of the trial.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import torch

from hpo.task.raised import chain, in_one_line

# CUDA's libraries have no class of error for it. They allocate when a handle is created, and there
# report an internal error or that they are not initialized.
_SAID = re.compile(
    r"(CUBLAS|CUSOLVER|CUSPARSE|CUDNN|CUFFT)_(STATUS_)?(ALLOC_FAILED|NOT_INITIALIZED)"
    r"|\b(cublas|cublasLt|cusolverDn|cusolverSp|cusolver|cusparse|cudnn)Create\("
    r"|(CUDA|HIP|MPS|XPU)\b.{0,40}\bout of memory"
    r"|DefaultCPUAllocator"
    r"|Cannot allocate memory",
    re.IGNORECASE,
)
# A failed collective may name memory of any rank, and says nothing about this configuration.
_NCCL = re.compile(r"\bnccl", re.IGNORECASE)
# A context, its kernels and its streams take some hundred MB that torch's allocator does not count.
_CONTEXT_BYTES = 1 << 30


def memory_error(error: BaseException) -> BaseException | None:
    """The error of memory that ran out, the GPU's or the host's, anywhere in an error's chain."""
    return next((one for one in chain(error) if _is_memory(one)), None)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error, or one behind it, is memory that ran out."""
    return memory_error(error) is not None


def _is_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    said = in_one_line(error) if isinstance(error, RuntimeError) else ""
    return _SAID.search(said) is not None and _NCCL.search(said) is None


def used_by_others(device: torch.device) -> int:
    """Bytes of a GPU that other processes use; 0 on a CPU.

    Used of the device - reserved by torch here - 1 GiB for the context of this process
    """
    if device.type != "cuda":
        return 0
    free, total = torch.cuda.mem_get_info(device)
    return max(0, total - free - torch.cuda.memory_reserved(device) - _CONTEXT_BYTES)


def resident_bytes() -> int:
    """The memory of this process that lies in RAM; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
