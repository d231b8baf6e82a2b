"""How OpenMP's idle threads wait, to be settled before torch is imported; work side by side."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
T = TypeVar("T")
# By default they spin for milliseconds: with other work on the cores two threads are then ten
# times slower than one. At 1000 spins a step takes 4 to 8 % more than at 3000 where the cores are
# free; where two trainings share them, as in a queue, 10 to 45 % less.
SPINS = "1000"
# The same of NumPy's OpenBLAS: its threads wait 2^26 cycles, with which the stage sample took 13 to
# 22 s of processor time on busy cores, 7 to 10 without. No result depends on it.
TIMEOUT = "4"


def settle() -> None:
    """Let them spin some microseconds, then sleep; what the user has set stands."""
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", TIMEOUT)
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # of GNU's library, where it has precedence


def side_by_side(work: Callable[[A], T], items: Iterable[A]) -> Iterator[T]:
    """`work` on each item, in order; as many at a time as torch has threads, each computed by one.

    Threads within an operation wait for each other, and their number would change the last digits.
    """
    import torch

    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    torch.set_num_threads(1)
    try:
        yield from map(work, items) if threads == 1 else pool.map(work, items)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
