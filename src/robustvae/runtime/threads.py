"""Work side by side, one torch thread each."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

A = TypeVar("A")
T = TypeVar("T")


def side_by_side(work: Callable[[A], T], items: Iterable[A]) -> Iterator[T]:
    """`work` on each item, in order; as many at a time as torch has threads, each computed by one.

    Threads within an operation wait for each other, and their number would change the last digits.
    """
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    torch.set_num_threads(1)
    try:
        yield from map(work, items) if threads == 1 else pool.map(work, items)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
