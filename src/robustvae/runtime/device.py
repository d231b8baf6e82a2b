"""Where and in which numbers torch computes."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from robustvae.errors import UserError
from robustvae.runtime import seeding

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def setup(*, seed: int, device: str, threads: int, deterministic: bool) -> torch.device:
    """Set threads and determinism, settle the device, seed the stream of a new model's weights."""
    torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats to the bit only so
    # use_deterministic_algorithms does the same, but imports torch's compiler, which takes 2 s.
    torch.set_deterministic_debug_mode("error" if deterministic else "default")
    # Filling memory that will be written anyway costs 5 % and more.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    _keep_freed_memory()
    torch.manual_seed(seeding.seed(seed, "initialisation"))
    return settle(device, "run.device")


@contextmanager
def restored() -> Iterator[None]:
    """Threads, determinism and generators are afterwards as they were, for callers in a library."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    filling = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict, warn_only=only_warns)
        torch.utils.deterministic.fill_uninitialized_memory = filling  # type: ignore[attr-defined]


def _keep_freed_memory() -> None:
    """Have glibc keep what torch frees at every step; asking anew takes a tenth of the time."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(M_MMAP_THRESHOLD, 2**30)
            libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def settle(name: str, place: str) -> torch.device:
    """The device of that name; auto: cuda, else mps, else cpu. `place` names it in the message."""
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next((kind for kind, there in found.items() if there), "cpu")
    if not found.get(name, name == "cpu"):
        raise UserError(f"{place}: {name} is not available here; use auto or cpu")
    return torch.device(name)


def precision(wanted: str, device: torch.device) -> str:
    """fp32 or bf16; auto is bf16 on CUDA devices that have it."""
    if wanted == "auto":
        return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    return wanted


def reseed(device: torch.device, seed: int) -> None:
    """Seed the generators that models draw from, in an eightieth of torch.manual_seed's time."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
