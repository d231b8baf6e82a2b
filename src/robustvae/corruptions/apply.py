"""Corrupting a set of images.

A picture depends on its index, the corruption, the severity and the seed alone: draws and
arithmetic are those of fixed chunks of images by index, whatever is asked for at once and on
however many threads.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustvae.corruptions.catalogue import CORRUPTIONS
from robustvae.corruptions.sampling import Rules
from robustvae.runtime import seeding
from robustvae.runtime.threads import side_by_side

Images = TypeVar("Images", NDArray[Any], Tensor)
CHUNK = 256  # images that are drawn and computed together ...
CHUNK_VALUES = 2**20  # ... fewer where they have more values than this
LAYOUTS = {"NHW": 3, "NCHW": 4, "NHWC": 4}


def resolve(name: str, severity: int | str) -> int:
    """The number of a severity: "default" is MNIST-C's."""
    return CORRUPTIONS[name].default if severity == "default" else int(severity)


def corrupt_images(
    images: Images, name: str, severity: int | str = "default", seed: int = 0, **how: Any
) -> Images:
    """Corrupt images of a set; same type, shape and layout. Keywords as of `stream`.

    The images are uint8 or float in 0..1, as an array or a tensor.
    """
    if isinstance(images, Tensor):
        return torch.from_numpy(corrupt_images(images.numpy(), name, severity, seed, **how))
    out = np.empty(images.shape, images.dtype)
    deque(stream(images, out, name, severity, seed, **how), maxlen=0)
    return out


def stream(
    images: NDArray[Any],
    out: NDArray[Any],
    name: str,
    severity: int | str = "default",
    seed: int = 0,
    *,
    layout: str = "NCHW",
    start: int = 0,
    rules: Rules | None = None,
    own: Mapping[str, Any] = {},
) -> Iterator[int]:
    """`corrupt_images` from array to array, either memory-mapped, yielding counts of images done.

    `start` is the index of the first image in its set; the layout is NHW, NCHW or NHWC. Chunks run
    on as many threads as torch has, each computed by one: their number has no effect. `own`:
    settings of a plug-in's own.
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"unknown corruption {name!r}, must be one of {', '.join(CORRUPTIONS)}")
    if LAYOUTS.get(layout) != images.ndim:
        raise ValueError(f"layout {layout} does not fit images of shape {list(images.shape)}")
    corruption, number = CORRUPTIONS[name], resolve(name, severity)
    source, target = _channels_second(images, layout), _channels_second(out, layout)
    shape = source.shape[1:]
    size = max(1, min(CHUNK, CHUNK_VALUES // int(np.prod(shape))))

    def work(chunk: int) -> int:
        first = chunk * size
        part = slice(max(first, start) - start, min(first + size, start + len(source)) - start)
        inside = slice(part.start + start - first, part.stop + start - first)
        whole = np.zeros((size, *shape), source.dtype)
        whole[inside] = source[part]
        rng = seeding.generator(seed, "corrupt", name, number, chunk)
        changed = corruption(torch.from_numpy(whole), number, rng, rules, **own)[inside].numpy()
        for channel in range(shape[0]):  # one by one: a quarter of the time where they come last
            target[part, channel] = changed[:, channel]
        return part.stop - part.start

    yield from side_by_side(work, range(start // size, -(-(start + len(source)) // size)))


def _channels_second(images: NDArray[Any], layout: str) -> NDArray[Any]:
    if layout == "NHW":
        return images[:, None]
    return np.moveaxis(images, 3, 1) if layout == "NHWC" else images
