"""A trial's value does not depend on what another trial of its process has set."""

from __future__ import annotations

import decimal
import functools
import gc
import io
import locale
import logging
import multiprocessing
import os
import random
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from hpo.engine import trial as engine
from hpo.engine.plan import Plan
from hpo.task.process import SETTINGS, ProcessState
from hpo.task.random_state import (
    kept_random_state,
    packed,
    random_state,
    seed_all,
    set_random_state,
)
from tests.support.program import ROOT
from tests.support.toys import CPU, Log, Operators, ToyTask

BY_NAME = {setting.name: setting for setting in SETTINGS}


def set_attribute(owner: Any, key: str, value: Any) -> Callable[[], object]:
    return lambda: setattr(owner, key, value)


def flipped(owner: Any, key: str) -> Callable[[], object]:
    return lambda: setattr(owner, key, not getattr(owner, key))


def enter(context: Callable[[], Any]) -> Callable[[], object]:
    """An alteration that enters a context and never leaves it."""
    return lambda: KEPT.append(context()) or KEPT[-1].__enter__()


KEPT: list[Any] = []
AT_FIRST = Path.cwd().stat()


def leave_folder() -> None:
    folder = Path(tempfile.gettempdir()) / f"left-{os.getpid()}"
    folder.mkdir()
    os.chdir(folder)
    folder.rmdir()


def quiet(*_: object) -> None:
    """A hook that does nothing."""


def redirect() -> None:
    with Path(os.devnull).open("w") as null:
        os.dup2(null.fileno(), 1)


def forget_handlers() -> None:
    logging.getLogger("hpo.engine.checkpoint").disabled = True
    logging.basicConfig(level=logging.CRITICAL, force=True)
    logging.disable()


def lower_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))


def other_engine() -> None:
    quantized = torch.backends.quantized
    quantized.engine = next(e for e in quantized.supported_engines if e != quantized.engine)


def join_group() -> None:
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)


class Doubling(TorchFunctionMode):
    """A mode that doubles what linear layers give."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        return 2 * out if function is torch.nn.functional.linear else out


backends: Any = torch.backends
cuda: Any = torch.backends.cuda
ALTERED: dict[str, Callable[[], object]] = {
    "standard descriptors": redirect,
    "standard streams": set_attribute(sys, "stdout", io.StringIO()),
    "working directory": leave_folder,
    "environment": lambda: os.environ.update(HPO_TEST_LEFT="1", PATH="/nowhere"),
    "umask": lambda: os.umask(0o123),
    "signal handlers": lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    "blocked signals": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1}),
    "timers": lambda: signal.setitimer(signal.ITIMER_VIRTUAL, 1000),
    "limits of resources": lower_limit,
    "processor affinity": lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
    "locale": lambda: locale.setlocale(locale.LC_ALL, "C"),
    "sys.path": lambda: sys.path.insert(0, "/nowhere"),
    "arguments": lambda: sys.argv.append("--left"),
    "importers": lambda: sys.meta_path.reverse(),
    "recursion limit": lambda: sys.setrecursionlimit(2345),
    "trace function": lambda: sys.settrace(quiet),
    "profile function": lambda: sys.setprofile(quiet),
    "switch interval": lambda: sys.setswitchinterval(0.25),
    "digits of integers": lambda: sys.set_int_max_str_digits(777),
    "thread stack size": lambda: threading.stack_size(1 << 20),
    "thresholds of collection": lambda: gc.set_threshold(123),
    "garbage collection": gc.disable,
    "debugging of garbage collection": lambda: gc.set_debug(gc.DEBUG_UNCOLLECTABLE),
    "timeout of sockets": lambda: socket.setdefaulttimeout(0.5),
    "record factory of the log": lambda: logging.setLogRecordFactory(dict),
    "exception hook": lambda: setattr(sys, "excepthook", print),
    "exception hook of threads": lambda: setattr(threading, "excepthook", print),
    "folder of temporary files": lambda: setattr(tempfile, "tempdir", "/nowhere"),
    "logging": forget_handlers,
    "warnings filters": lambda: warnings.simplefilter("error"),
    "printing of warnings": lambda: setattr(warnings, "showwarning", print),
    "start method of processes": lambda: multiprocessing.set_start_method("spawn"),
    "decimal context": lambda: setattr(decimal.getcontext(), "prec", 3),
    "numpy's errstate": lambda: np.seterr(all="raise"),
    "numpy's error call": lambda: np.seterrcall(print),
    "numpy's bit generator": lambda: np.random.set_bit_generator(np.random.PCG64()),
    "inference mode": enter(torch.inference_mode),
    "grad mode": lambda: torch.set_grad_enabled(False),
    "default device": lambda: torch.set_default_device("meta"),
    "modes of functions": enter(Doubling),
    "modes of dispatch": enter(Operators),
    "default tensor type": lambda: torch.set_default_tensor_type(torch.DoubleTensor),
    "default dtype": lambda: torch.set_default_dtype(torch.float64),
    "anomaly mode": lambda: torch.autograd.set_detect_anomaly(True, check_nan=False),
    "autocast on cpu": lambda: torch.set_autocast_enabled("cpu", True),
    "autocast's dtype on cpu": lambda: torch.set_autocast_dtype("cpu", torch.float16),
    "autocast on cuda": lambda: torch.set_autocast_enabled("cuda", True),
    "autocast's dtype on cuda": lambda: torch.set_autocast_dtype("cuda", torch.bfloat16),
    "autocast's depth": enter(lambda: torch.autocast("cpu", dtype=torch.bfloat16)),
    "autocast's cache": lambda: torch.set_autocast_cache_enabled(False),
    "flushing of denormals": lambda: torch.set_flush_denormal(True),
    "float32 matmul precision": lambda: torch.set_float32_matmul_precision("medium"),
    "cuDNN's TF32": flipped(backends.cudnn, "allow_tf32"),
    "cuBLAS' TF32": flipped(cuda.matmul, "allow_tf32"),
    "oneDNN's TF32": flipped(backends.mkldnn, "allow_tf32"),
    "fp32 precision": set_attribute(backends, "fp32_precision", "tf32"),
    "cuDNN's fp32 precision": set_attribute(backends.cudnn, "fp32_precision", "ieee"),
    "oneDNN's fp32 precision": lambda: backends.mkldnn.set_flags(_fp32_precision="bf16"),
    "cuBLAS' matmul fp32 precision": set_attribute(cuda.matmul, "fp32_precision", "tf32"),
    "cuDNN's conv fp32 precision": set_attribute(backends.cudnn.conv, "fp32_precision", "ieee"),
    "cuDNN's rnn fp32 precision": set_attribute(backends.cudnn.rnn, "fp32_precision", "ieee"),
    **{
        f"oneDNN's {key} fp32 precision": set_attribute(
            getattr(backends.mkldnn, key), "fp32_precision", "bf16"
        )
        for key in ("matmul", "conv", "rnn")
    },
    **{
        f"cuBLAS' {key}": flipped(cuda.matmul, key)
        for key in (
            "allow_fp16_reduced_precision_reduction",
            "allow_bf16_reduced_precision_reduction",
            "allow_fp16_accumulation",
        )
    },
    "deterministic algorithms": lambda: torch.use_deterministic_algorithms(True, warn_only=True),
    "filling of new tensors": flipped(torch.utils.deterministic, "fill_uninitialized_memory"),
    **{
        f"cuDNN's {key}": flipped(backends.cudnn, key)
        for key in ("enabled", "deterministic", "benchmark")
    },
    "cuDNN's benchmark_limit": set_attribute(backends.cudnn, "benchmark_limit", 3),
    "oneDNN's enabled": flipped(backends.mkldnn, "enabled"),
    "oneDNN's deterministic": flipped(backends.mkldnn, "deterministic"),
    "opt_einsum": flipped(backends.opt_einsum, "enabled"),
    "opt_einsum's strategy": set_attribute(backends.opt_einsum, "strategy", "greedy"),
    "the engine of quantized operators": other_engine,
    "fast path of attention": lambda: backends.mha.set_fastpath_enabled(False),
    "flash attention": lambda: cuda.enable_flash_sdp(False),
    "memory-efficient attention": lambda: cuda.enable_mem_efficient_sdp(False),
    "plain attention": lambda: cuda.enable_math_sdp(False),
    "cuDNN's attention": lambda: cuda.enable_cudnn_sdp(False),
    "reduced attention": lambda: cuda.allow_fp16_bf16_reduction_math_sdp(True),
    "library of linear algebra": lambda: cuda.preferred_linalg_library("magma"),
    "library of matrix products": lambda: cuda.preferred_blas_library("cublaslt"),
    "number of threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "repeated warnings": lambda: torch.set_warn_always(True),
    "sharing of tensors": lambda: torch.multiprocessing.set_sharing_strategy("file_system"),
    "process group": join_group,
}
# These are altered in the tests that need such a device.
ELSEWHERE = {"current GPU", "current stream"}
ELSEWHERE |= {name for name in BY_NAME if name.endswith((" mps", " xpu"))}
# They read back as their default where the hardware lacks them.
IDLE = {"library of linear algebra", "library of matrix products", "oneDNN's TF32"}


# It is restored before all others, and so is not in their list.
RECURSION = "recursion limit"


def reading(name: str) -> str:
    """The value of a setting in words that depend on nothing else."""
    if name == "working directory":
        return str(os.path.samestat(os.stat("."), AT_FIRST))  # noqa: PTH116
    if name == "standard descriptors":
        return str([os.fstat(number).st_ino for number in range(3)])
    if name == RECURSION:
        return str(sys.getrecursionlimit())
    if name == "timers":
        return str([signal.getitimer(timer) > (0, 0) for timer in range(3)])
    if name == "logging":
        told = logging.getLogger("hpo.engine.checkpoint")
        return str((told.isEnabledFor(logging.ERROR), logging.root.level, logging.root.handlers))
    if name == "environment":
        return str(sorted(os.environ.items()))
    if name == "numpy's bit generator":
        return str(type(np.random.get_bit_generator()))
    if name == "decimal context":
        return repr(decimal.getcontext())
    try:
        return repr(BY_NAME[name].capture())
    except RuntimeError:
        return "not to be read"


class Reader(ToyTask):
    """A task that alters this process in its construction, and has settings in its value."""

    def __init__(self, alter: Callable[[], object] | None, settings: tuple[str, ...]) -> None:
        super().__init__(seed=3)
        self._settings = settings
        if alter is not None:
            alter()

    def validate(self):
        # Every setting that a trial can read may enter its value.
        read = "".join(map(reading, self._settings))
        return {"error": super().validate()["error"] + zlib.crc32(read.encode())}


PLAN = Plan(epochs=1, precision="fp32", device=CPU, metric="error")


def value(state: ProcessState, task: Callable[[], Reader]) -> Any:
    """The outcome of a trial, after which the process is restored."""
    try:
        seed_all(3)
        return engine.train(task(), PLAN, Log()).value
    except Exception as error:
        return type(error)
    finally:
        state.restore()


@pytest.fixture(autouse=True)
def unseeded() -> Iterator[None]:
    """Leave the generators as they were."""
    random_then = random_state(CPU)
    yield
    set_random_state(random_then, CPU)
    KEPT.clear()


def test_each_setting_is_altered_here():
    assert set(ALTERED) | ELSEWHERE == {*BY_NAME, RECURSION} | ELSEWHERE


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ALTERED)
def test_what_a_trial_sets_does_not_reach_the_next(name: str):
    # It is taken here, as pytest changes the environment and the log between fixture and test.
    state = ProcessState()
    plain = functools.partial(Reader, None, (name,))
    altering = functools.partial(Reader, ALTERED[name], (name,))
    alone = value(state, plain)
    before = reading(name)
    try:
        ALTERED[name]()
    except RuntimeError as error:
        pytest.skip(f"cannot be set on this machine: {error}")
    is_visible = reading(name) != before
    state.restore()
    if name in IDLE and not is_visible:
        pytest.skip("reads back as its default on this machine")

    altered = value(state, altering)
    after = value(state, plain)
    again = value(state, altering)

    assert is_visible
    assert after == alone
    assert again == altered


def test_a_trial_that_changes_all_at_once_leaves_the_next_alone():
    every = tuple(name for name in ALTERED if name not in {"process group", "profile function"})

    def alter() -> None:
        for name in every:
            try:
                ALTERED[name]()
            except Exception:
                continue

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = ProcessState()
        alone = value(state, functools.partial(Reader, None, every))

        value(state, functools.partial(Reader, alter, every))
        after = value(state, functools.partial(Reader, None, every))

    assert after == alone


def test_a_closed_stream_is_opened_again():
    # In a process of its own: pytest keeps the streams of this one.
    code = """
import logging, os, sys
logging.basicConfig(stream=sys.stderr, format="%(message)s")
from hpo.task.process import ProcessState
state = ProcessState()
sys.stdout.close()
sys.stderr.close()
state.restore()
sys.stdout.write("said\\n")
sys.stdout.flush()
logging.getLogger("x").warning("logged")
"""

    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "said\n", "logged\n")


def test_keeping_and_restoring_takes_less_than_5_ms():
    took = []
    for _ in range(20):
        began = time.perf_counter()
        ProcessState().restore()
        took.append(time.perf_counter() - began)

    # It is 0.6 ms; the bound is what a trial may cost.
    assert statistics.median(took) < 5e-3


def test_compiled_trials_of_one_process_do_not_count_together():
    state, compiled = ProcessState(), []

    def backend(graph, _):
        compiled.append(graph)
        return graph.forward

    for width in range(2, 14):
        net = torch.nn.Linear(width, width)
        # A ninth version of one function would raise.
        torch.compile(lambda x, net=net: forward(net, x), backend=backend, fullgraph=True)(
            torch.ones(1, width)
        )
        state.restore()

    assert len(compiled) == 12


def forward(net, x):
    return net(x).tanh()


def draws() -> tuple[float, ...]:
    return (
        random.gauss(0, 1),
        random.random(),
        float(np.random.normal()),
        float(np.random.rand()),
        float(torch.rand(())),
    )


def test_the_random_state_of_all_generators_is_plain_data_that_restores_them(tmp_path):
    seed_all(12)
    draws()
    torch.save(packed(random_state(CPU)), tmp_path / "state.pt")
    expected = [draws() for _ in range(3)]
    seed_all(99)

    set_random_state(torch.load(tmp_path / "state.pt", weights_only=True), CPU)

    assert [draws() for _ in range(3)] == expected


def test_a_generator_of_numpy_that_a_validation_replaces_comes_back():
    seed_all(3)
    usual = np.random.get_bit_generator()
    expected = float(np.random.rand())
    seed_all(3)

    with kept_random_state(CPU):
        np.random.set_bit_generator(np.random.PCG64(5))
        np.random.rand()

    assert float(np.random.rand()) == expected
    assert type(np.random.get_bit_generator()) is type(usual)


def test_a_seed_of_any_size_seeds_all_generators():
    for seed in (0, 2**32 + 5, 2**63 - 1):
        seed_all(seed)
        first = draws()
        seed_all(seed)
        assert draws() == first


def test_a_random_state_of_an_earlier_version_restores_torch_alone():
    seed_all(1)
    earlier = {"cpu": torch.get_rng_state()}
    expected = float(torch.rand(()))
    random.random()

    set_random_state(earlier, CPU)

    assert float(torch.rand(())) == expected
