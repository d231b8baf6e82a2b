"""The batches of an evaluation, several at a time: how many has no effect on the results."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustvae.models.autoencoder import Autoencoder
from robustvae.runtime import distributed
from robustvae.runtime.progress import track
from robustvae.runtime.threads import side_by_side

T = TypeVar("T")
BUSY = 1000  # images that a GPU has at a time, at least
Images = NDArray[np.uint8] | NDArray[np.float32]  # [N, C, H, W]; float: already on [0, 1]


def size_on(device: torch.device, asked: int) -> int:
    """Images at a time: on a GPU as many as keep it busy, where results do not depend on it."""
    return max(asked, BUSY) if device.type == "cuda" else asked


def slices(count: int, size: int) -> list[slice]:
    """Consecutive batches."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def spread(count: int, most: int) -> NDArray[np.int64]:
    """Places of at most so many images, in even steps: data sets are often sorted by class."""
    return np.linspace(0, count - 1, min(count, most)).astype(np.int64)


def pixels(model: Autoencoder, images: Images, where: slice) -> Tensor:
    """A batch as float32 on [0, 1], on the model's device."""
    return on(next(model.parameters()).device, images, where)


def on(device: torch.device, images: Images, where: slice) -> Tensor:
    """The same, on any device."""
    batch = torch.from_numpy(np.array(images[where])).to(device)  # a copy: files are read-only
    return batch.float() / 255 if batch.dtype == torch.uint8 else batch


def each(
    work: Callable[[slice], T],
    count: int,
    size: int,
    label: str | None = None,
    alone: bool = False,
) -> list[T]:
    """`work` on each batch of `count` images, in inference mode; the results in order.

    Processes take turns; in each, threads do, unless batches must come `alone`. Results go from
    process to process and should lie on the CPU.
    """
    batches = distributed.mine(slices(count, size))

    def run(where: slice) -> T:
        with torch.inference_mode():
            return work(where)

    results = map(run, batches) if alone else side_by_side(run, batches)
    several = label is not None and len(batches) > 1
    shown = track(results, label or "", len(batches), "batch") if several else results
    return distributed.everyones(list(shown))
