"""Corruptions: the fifteen of MNIST-C with the official parameters, and extras; table at the end.

A picture depends on its index, the corruption, the severity and the seed alone: draws and
arithmetic are those of fixed chunks of images by index, whatever is asked for at once and on
however many threads.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from robustvae import seeding
from robustvae.corruptions import blur, geometric, noise, overlay, photometric
from robustvae.corruptions.sampling import MNIST_C, SANE, Rules
from robustvae.threads import side_by_side

Images = TypeVar("Images", NDArray[Any], Tensor)
SMALLEST = 8  # pixels a side
CHUNK = 256  # images that are drawn and computed together ...
CHUNK_VALUES = 2**20  # ... fewer where they have more values than this
LAYOUTS = {"NHW": 3, "NCHW": 4, "NHWC": 4}


class Corruption(NamedTuple):
    """(uint8 images, parameter, generator, rules) -> uint8 images; five severities' parameters.

    `default` is the severity of MNIST-C; `monotone`: the squared distance to clean grows with it.
    """

    function: Callable[[Tensor, Any, Generator, Rules], Tensor]
    group: str
    default: int
    parameters: Sequence[Any]
    monotone: bool = True

    def __call__(
        self, images: Tensor, severity: int, rng: Generator, rules: Rules | None = None
    ) -> Tensor:
        """Corrupt `[B, C, H, W]`, uint8 or float in 0..1; same shape and type; severity 0 copies.

        Floats are taken at the nearest of 256 grey levels. `rules`: MNIST_C for grey images, SANE
        for colour unless given.
        """
        if not 0 <= severity <= 5:
            raise ValueError(f"severity must be 0 .. 5, got {severity}")
        if images.ndim != 4 or images.shape[1] not in (1, 3) or min(images.shape[2:]) < SMALLEST:
            raise ValueError(
                f"images must be [B, 1|3, H, W] with sides of {SMALLEST} pixels or more, "
                f"got {list(images.shape)}"
            )
        if severity == 0:
            return images.clone()
        rules = rules or (MNIST_C if images.shape[1] == 1 else SANE)
        parameter = self.parameters[severity - 1]
        if images.dtype == torch.uint8:
            return self.function(images, parameter, rng, rules)
        if not images.is_floating_point() or images.amin() < 0 or images.amax() > 1:
            raise ValueError(f"images must be uint8, or float in 0..1, got {images.dtype}")
        levels = (images * 255).round().to(torch.uint8)
        return self.function(levels, parameter, rng, rules).to(images.dtype) / 255


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
) -> Iterator[int]:
    """`corrupt_images` from array to array, either memory-mapped, yielding counts of images done.

    `start` is the index of the first image in its set; the layout is NHW, NCHW or NHWC. Chunks run
    on as many threads as torch has, each computed by one: their number has no effect.
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
        target[part] = corruption(torch.from_numpy(whole), number, rng, rules)[inside].numpy()
        return part.stop - part.start

    yield from side_by_side(work, range(start // size, -(-(start + len(source)) // size)))


def _channels_second(images: NDArray[Any], layout: str) -> NDArray[Any]:
    if layout == "NHW":
        return images[:, None]
    return np.moveaxis(images, 3, 1) if layout == "NHWC" else images


_DEFOCUS = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))
_GLASS = ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))
_MOTION = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))
_FOG = ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))
_SPATTER = (
    (0.65, 0.3, 4, 0.69, 0.6),
    (0.65, 0.3, 3, 0.68, 0.6),
    (0.65, 0.3, 2, 0.68, 0.5),
    (0.65, 0.3, 1, 0.65, 1.5),
    (0.67, 0.4, 1, 0.65, 1.5),
)
_SNOW = (
    (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
    (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
    (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
    (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
    (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
)
_ZOOM_STEPS = ((12, 0.01), (16, 0.01), (11, 0.02), (13, 0.02), (11, 0.03))
_ZOOM = tuple(tuple(1 + step * i for i in range(count)) for count, step in _ZOOM_STEPS)
_ELASTIC = (
    (2, 0.7, 0.1),
    (2, 0.08, 0.2),
    (0.05, 0.01, 0.02),
    (0.07, 0.01, 0.02),
    (0.12, 0.01, 0.02),
)
_SATURATE = ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))
_PIXELATE = (0.6, 0.5, 0.4, 0.3, 0.25)
_RADIANS = (0.2, 0.4, 0.6, 0.8, 1.0)
_SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)

FIFTEEN = {
    "shot_noise": Corruption(noise.shot_noise, "noise", 5, (60, 25, 12, 5, 3)),
    "impulse_noise": Corruption(noise.impulse_noise, "noise", 4, (0.03, 0.06, 0.09, 0.17, 0.27)),
    "glass_blur": Corruption(blur.glass_blur, "blur", 1, _GLASS),
    "motion_blur": Corruption(blur.motion_blur, "blur", 1, _MOTION),
    "shear": Corruption(geometric.shear, "geometric", 2, _RADIANS),
    "scale": Corruption(geometric.scale, "geometric", 3, (0.9, 0.8, 0.7, 0.6, 0.5)),
    "rotate": Corruption(geometric.rotate, "geometric", 2, _RADIANS),
    "brightness": Corruption(photometric.brightness, "photometric", 5, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "translate": Corruption(geometric.translate, "geometric", 3, (1, 2, 3, 4, 5)),
    "stripe": Corruption(overlay.stripe, "overlay", 3, (3, 5, 7, 9, 11)),
    "fog": Corruption(photometric.fog, "photometric", 5, _FOG),
    "spatter": Corruption(overlay.spatter, "overlay", 4, _SPATTER, monotone=False),
    "dotted_line": Corruption(overlay.dotted_line, "overlay", 1, (1, 2, 3, 4, 5)),
    "zigzag": Corruption(overlay.zigzag, "overlay", 1, (1, 2, 3, 4, 5)),
    "canny_edges": Corruption(photometric.canny_edges, "photometric", 5, _SHARES),
}
EXTRAS = {
    "gaussian_noise": Corruption(noise.gaussian_noise, "noise", 5, (0.08, 0.12, 0.18, 0.26, 0.38)),
    "speckle_noise": Corruption(noise.speckle_noise, "noise", 5, (0.15, 0.2, 0.35, 0.45, 0.6)),
    "gaussian_blur": Corruption(blur.gaussian_blur, "blur", 2, (1, 2, 3, 4, 6)),
    "defocus_blur": Corruption(blur.defocus_blur, "blur", 1, _DEFOCUS),
    "zoom_blur": Corruption(blur.zoom_blur, "blur", 5, _ZOOM),
    "pixelate": Corruption(blur.pixelate, "blur", 3, _PIXELATE, monotone=False),
    "contrast": Corruption(photometric.contrast, "photometric", 4, (0.4, 0.3, 0.2, 0.1, 0.05)),
    "saturate": Corruption(photometric.saturate, "photometric", 5, _SATURATE, monotone=False),
    "quantize": Corruption(photometric.quantize, "photometric", 5, (5, 4, 3, 2, 1)),
    "jpeg_compression": Corruption(
        photometric.jpeg_compression, "photometric", 5, (25, 18, 15, 10, 7)
    ),
    "inverse": Corruption(photometric.inverse, "photometric", 5, _SHARES),
    "snow": Corruption(overlay.snow, "overlay", 5, _SNOW),
    "line": Corruption(overlay.line, "overlay", 1, (1, 2, 3, 4, 5)),
    "elastic_transform": Corruption(
        geometric.elastic_transform, "geometric", 1, _ELASTIC, monotone=False
    ),
}
CORRUPTIONS = FIFTEEN | EXTRAS
