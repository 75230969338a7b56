"""Checks of torch: each GPU and its results, the precisions on the CPU.

Border: tiny computations with known results; no objective is involved.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from functools import partial
from importlib import metadata

import torch

from hpo.doctor.finding import Finding, failed, guarded, ok, warning
from hpo.machine.gpus import named, usable_gpus

_CUDA_BUILD = "install torch's build for CUDA 12.8 or 13 (docs/installation.md)"
_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
_SIDE = 256
_REPEATS = 5
_BATCH, _ELEMENTS = 64, 36  # 36 elements, as `ris_covariance` at size tiny
# n · eps(fp32) is 4e-6 here; faulty wheels give vectors that are nowhere near orthonormal.
_ORTHONORMAL = 1e-4
_LEAST_BYTES = 2 << 30


def gpus(visible: str | None) -> Iterator[Finding]:
    """Check each GPU, or report why there is none.

    Raises:
        ConfigurationError: torch's build does not fit the machine.
    """
    build = f"torch {metadata.version('torch')}"
    if visible is not None and not named(visible):
        what = f"CUDA_VISIBLE_DEVICES={visible} names no GPU, so it trains on the CPU"
        yield ok("gpu", f"{build}; {what}")
        return
    if not usable_gpus(visible=visible):
        found = "no NVIDIA device seen: it trains on the CPU, at size tiny in fp32, which is fine"
        yield ok("gpu", f"{build}; {found}")
        return
    # Of several MIG devices a process sees the first alone.
    for index in range(torch.cuda.device_count()):
        yield from guarded(f"gpu {index}", partial(_gpu, index))


def _gpu(index: int) -> Iterator[Finding]:
    name = f"gpu {index}"
    device = torch.device("cuda", index)
    with torch.cuda.device(device):
        free, size = torch.cuda.mem_get_info(device)
        major, minor = torch.cuda.get_device_capability(device)
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        found = (
            f"{torch.cuda.get_device_name(device)}, {free >> 20} of {size >> 20} MiB free, "
            f"capability {major}.{minor}, {'bf16' if has_bf16 else 'no bf16'}, "
            f"torch's CUDA {torch.version.cuda}"
        )
        if not _is_finite(device, torch.float16):
            yield failed(name, f"{found}; an fp16 matmul is not finite", _CUDA_BUILD)
            return
        error = eigh_error(device)
    if not error < _ORTHONORMAL:  # NaN is an error too
        found += f"; vectors of a batched complex64 eigh are off orthonormal by {error:.1g}"
        yield failed(name, found, _CUDA_BUILD)
    elif free < _LEAST_BYTES:
        yield warning(name, found, "end what holds its memory (nvidia-smi names it)")
    else:
        yield ok(name, f"{found}; fp16 and complex64 eigh compute right")


def eigh_error(device: torch.device) -> float:
    """Error max |VᴴV − I| of the eigenvectors of a batch of Hermitian matrices.

    It is far from 0 with some wheels of torch.

    References:
        pytorch#192483, batched complex64 eigh on CUDA 12.6.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (_BATCH, _ELEMENTS, _ELEMENTS)
    factor_BNN = torch.randn(shape, dtype=torch.complex64, generator=generator).to(device)
    _, vectors_BNN = torch.linalg.eigh(factor_BNN @ factor_BNN.mH)
    identity_NN = torch.eye(_ELEMENTS, dtype=torch.complex64, device=device)
    return float((vectors_BNN.mH @ vectors_BNN - identity_NN).abs().max())


def precision() -> Iterator[Finding]:
    """Check the default dtype, and the results and speed of half precision on the CPU."""
    cpu = torch.device("cpu")
    yield _defaults()
    seconds = {}
    for name, half in {"fp32": None, **_HALF}.items():
        if not _is_finite(cpu, half):
            cure = "pip install --force-reinstall torch"
            yield failed("precision", f"a matmul in {name} on the CPU is not finite", cure)
            return
        begin = time.perf_counter()
        for _ in range(_REPEATS):
            _is_finite(cpu, half)
        seconds[name] = time.perf_counter() - begin
    ratios = ", ".join(f"{name} {seconds[name] / seconds['fp32']:.1f}" for name in _HALF)
    yield ok("precision", f"fp32, bf16 and fp16 on the CPU are finite; time beside fp32: {ratios}")


def _defaults() -> Finding:
    dtype = torch.get_default_dtype()
    matmul = torch.get_float32_matmul_precision()
    found = f"default dtype {dtype}, fp32 matmul precision '{matmul}'"
    if dtype != torch.float32:
        return failed("defaults", found, "remove what calls torch.set_default_dtype at start-up")
    if matmul != "highest":
        cure = "remove what sets torch.set_float32_matmul_precision at start-up: TF32 has 10 bits"
        return warning("defaults", found, cure)
    return ok("defaults", f"{found}: no TF32")


def _is_finite(device: torch.device, half: torch.dtype | None) -> bool:
    ones = torch.ones(_SIDE, _SIDE, device=device)
    with warnings.catch_warnings(), torch.autocast(
        device.type, dtype=half, enabled=half is not None
    ):  # fmt: skip
        warnings.simplefilter("ignore")
        product = ones @ ones
    return bool((product.float() == _SIDE).all())
