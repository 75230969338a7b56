"""The settings of torch that a trial may change: dtypes, modes, precisions, kernels, threads.

Border: settings that torch can read back. Those without a getter stay as a trial leaves them:
hooks on all modules, hooks on saved tensors, the options of dynamo.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.utils._python_dispatch as dispatch

from hpo.task.setting import Setting, attribute, compared

_KINDS = ("cpu", "cuda", "mps", "xpu")
# A guard on inference mode must live as long as what it has undone.
_guards: list[Any] = []
_cuda: Any = torch.cuda


def _set_inference(is_on: bool) -> None:
    guard = torch.inference_mode(is_on)
    guard.__enter__()
    _guards.append(guard)


def _set_device(device: torch.device) -> None:
    # Without a default device torch says that it is the CPU, and is faster so.
    torch.set_default_device(None if device.type == "cpu" else device)


def _leave_function_modes(depth: int) -> None:
    while torch._C._len_torch_function_stack() > depth:
        torch.overrides._pop_mode()  # type: ignore[no-untyped-call]


def _leave_dispatch_modes(depth: int) -> None:
    while torch._C._len_torch_dispatch_stack() > depth:
        dispatch._pop_mode()


def _autocast_nesting() -> int:
    """The depth of open autocast blocks; weights that were cast are kept until it is 0."""
    torch.autocast_increment_nesting()
    return torch.autocast_decrement_nesting()


def _set_autocast_nesting(depth: int) -> None:
    while _autocast_nesting() > depth:
        torch.autocast_decrement_nesting()


def _modes() -> Iterator[Setting]:
    """Modes of the thread that trains, and defaults of new tensors."""
    yield compared("inference mode", torch.is_inference_mode_enabled, _set_inference)
    yield compared("grad mode", torch.is_grad_enabled, torch.set_grad_enabled)
    yield compared("default device", torch.get_default_device, _set_device)
    # The default device is such a mode, so it comes first.
    yield compared("modes of functions", torch._C._len_torch_function_stack, _leave_function_modes)
    yield compared("modes of dispatch", torch._C._len_torch_dispatch_stack, _leave_dispatch_modes)
    yield compared("default dtype", torch.get_default_dtype, torch.set_default_dtype)
    # Its name has the dtype, which is right by now; what is left is a device (deprecated).
    yield compared(
        "default tensor type", lambda: torch.empty(0).type(), torch.set_default_tensor_type
    )
    yield compared(
        "anomaly mode",
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        lambda kept: torch.autograd.set_detect_anomaly(*kept),
    )
    for kind in filter(torch.amp.is_autocast_available, _KINDS):
        yield compared(
            f"autocast on {kind}",
            partial(torch.is_autocast_enabled, kind),
            partial(torch.set_autocast_enabled, kind),
        )
        yield compared(
            f"autocast's dtype on {kind}",
            partial(torch.get_autocast_dtype, kind),
            partial(torch.set_autocast_dtype, kind),
        )
    yield compared("autocast's depth", _autocast_nesting, _set_autocast_nesting)
    yield compared(
        "autocast's cache", torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled
    )


def _flushes_denormals() -> bool:
    # The processor's flag is the same for Python's floats, and has no getter.
    return sys.float_info.min * 0.5 == 0.0


def _precision() -> Iterator[Setting]:
    """Precision of float32 products; the older names first, as they set the newer ones too."""
    yield compared("flushing of denormals", _flushes_denormals, torch.set_flush_denormal)
    yield compared(
        "float32 matmul precision",
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
    )
    backends: Any = torch.backends
    for name, owner in (
        ("cuDNN's", backends.cudnn),
        ("cuBLAS'", backends.cuda.matmul),
        ("oneDNN's", backends.mkldnn),
    ):
        yield attribute(f"{name} TF32", owner, "allow_tf32")
    yield attribute("fp32 precision", backends, "fp32_precision")
    yield attribute("cuDNN's fp32 precision", backends.cudnn, "fp32_precision")
    # Its attribute sets that of all backends (torch 2.13).
    yield compared(
        "oneDNN's fp32 precision",
        lambda: backends.mkldnn.fp32_precision,
        lambda value: backends.mkldnn.set_flags(_fp32_precision=value),
    )
    for name, owner in (
        ("cuBLAS' matmul", backends.cuda.matmul),
        ("cuDNN's conv", backends.cudnn.conv),
        ("cuDNN's rnn", backends.cudnn.rnn),
        ("oneDNN's matmul", backends.mkldnn.matmul),
        ("oneDNN's conv", backends.mkldnn.conv),
        ("oneDNN's rnn", backends.mkldnn.rnn),
    ):
        yield attribute(f"{name} fp32 precision", owner, "fp32_precision")
    for key in (
        "allow_fp16_reduced_precision_reduction",
        "allow_bf16_reduced_precision_reduction",
        "allow_fp16_accumulation",
    ):
        yield attribute(f"cuBLAS' {key}", backends.cuda.matmul, key)


def _kernels() -> Iterator[Setting]:
    """The choice between kernels, and whether they are deterministic."""
    backends: Any = torch.backends
    yield compared(
        "deterministic algorithms",
        lambda: (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        lambda kept: torch.use_deterministic_algorithms(kept[0], warn_only=kept[1]),
    )
    deterministic: Any = torch.utils.deterministic
    yield attribute("filling of new tensors", deterministic, "fill_uninitialized_memory")
    for key in ("enabled", "deterministic", "benchmark", "benchmark_limit"):
        yield attribute(f"cuDNN's {key}", backends.cudnn, key)
    for key in ("enabled", "deterministic"):
        yield attribute(f"oneDNN's {key}", backends.mkldnn, key)
    yield attribute("opt_einsum", backends.opt_einsum, "enabled")
    yield attribute("opt_einsum's strategy", backends.opt_einsum, "strategy")
    yield attribute("the engine of quantized operators", backends.quantized, "engine")
    yield compared(
        "fast path of attention",
        backends.mha.get_fastpath_enabled,
        backends.mha.set_fastpath_enabled,
    )
    cuda = backends.cuda
    for name, get, set in (
        ("flash", cuda.flash_sdp_enabled, cuda.enable_flash_sdp),
        ("memory-efficient", cuda.mem_efficient_sdp_enabled, cuda.enable_mem_efficient_sdp),
        ("plain", cuda.math_sdp_enabled, cuda.enable_math_sdp),
        ("cuDNN's", cuda.cudnn_sdp_enabled, cuda.enable_cudnn_sdp),
        (
            "reduced",
            cuda.fp16_bf16_reduction_math_sdp_allowed,
            cuda.allow_fp16_bf16_reduction_math_sdp,
        ),
    ):
        yield compared(f"{name} attention", get, set)
    for name, choose in (
        ("linear algebra", cuda.preferred_linalg_library),
        ("matrix products", cuda.preferred_blas_library),
    ):
        yield compared(f"library of {name}", choose, choose)


def _cuda_device() -> int:
    # A GPU that was not used before has a trial begin on the first one.
    return _cuda.current_device() if _cuda.is_initialized() else 0


def _is_on_own_stream() -> bool:
    return bool(_cuda.is_initialized() and _cuda.current_stream() != _cuda.default_stream())


def _leave_stream(_: bool) -> None:
    _cuda.set_stream(_cuda.default_stream())


def _leave_distributed(_: bool) -> None:
    torch.distributed.destroy_process_group()


def _execution() -> Iterator[Setting]:
    """Threads, the current device, and groups of processes."""
    yield compared("number of threads", torch.get_num_threads, torch.set_num_threads)
    yield compared("repeated warnings", torch.is_warn_always_enabled, torch.set_warn_always)
    yield compared("current GPU", _cuda_device, _cuda.set_device)
    yield compared("current stream", _is_on_own_stream, _leave_stream)
    yield compared(
        "sharing of tensors",
        torch.multiprocessing.get_sharing_strategy,
        torch.multiprocessing.set_sharing_strategy,
    )
    if torch.distributed.is_available():
        # A second trial cannot initialize it again.
        yield compared("process group", torch.distributed.is_initialized, _leave_distributed)


# Modes first: a setter that makes a tensor is not to make it on a trial's default device.
TORCH: tuple[Setting, ...] = (*_modes(), *_precision(), *_kernels(), *_execution())
