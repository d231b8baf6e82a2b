"""The batches of an evaluation, several at a time: how many has no effect on the results."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustvae import distributed
from robustvae.model import Autoencoder
from robustvae.progress import track

T = TypeVar("T")
Images = NDArray[np.uint8] | NDArray[np.float32]  # [N, C, H, W]; float: already on [0, 1]


def slices(count: int, size: int) -> list[slice]:
    """Consecutive batches."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def pixels(model: Autoencoder, images: Images, where: slice) -> Tensor:
    """A batch as float32 on [0, 1], on the model's device."""
    batch = torch.from_numpy(np.array(images[where]))  # a copy: files are mapped read-only
    batch = batch.to(next(model.parameters()).device)
    return batch.float() / 255 if batch.dtype == torch.uint8 else batch


def each(work: Callable[[slice], T], count: int, size: int, label: str | None = None) -> list[T]:
    """`work` on each batch of `count` images, in inference mode; the results in order.

    Processes take turns. In each as many batches at a time as torch has threads, each computed by
    one: threads within an operation wait for each other, and their number would change the last
    digits. Results go from process to process and should lie on the CPU.
    """
    batches, threads = distributed.mine(slices(count, size)), torch.get_num_threads()

    def run(where: slice) -> T:
        with torch.inference_mode():
            return work(where)

    def shown(results: Iterable[T]) -> list[T]:
        several = label is not None and len(batches) > 1
        return list(track(results, label or "", len(batches), "batch") if several else results)

    def done() -> list[T]:
        if threads == 1 or len(batches) < 2:
            return shown(map(run, batches))
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            try:
                return shown(pool.map(run, batches))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    torch.set_num_threads(1)
    try:
        return distributed.everyones(done())
    finally:
        torch.set_num_threads(threads)
