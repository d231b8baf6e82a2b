"""From uint8 images to batches of inputs and targets: mixture, binarisation, input noise."""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from robustvae.data import binarize
from robustvae.data.contaminated import share
from robustvae.params import InputNoiseSettings, MixtureSettings
from robustvae.runtime import seeding


class Source:
    """uint8 images [N, C, H, W], on the device where they fit; gives batches in [0, 1].

    What is drawn depends on the seed, the stream's name and the draw's number alone, so that a
    resumed training has no generators to restore.
    """

    def __init__(
        self,
        inputs: np.ndarray,
        targets: np.ndarray,
        dynamic: bool,
        seed: int,
        device: torch.device,
    ) -> None:
        self.targets = _stored(targets, device)
        self.inputs = self.targets if inputs is targets else _stored(inputs, device)
        self.dynamic, self.seed, self.device = dynamic, seed, device
        self.rng = torch.Generator(device)

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def inside(self) -> bool:
        """Are the images on the device?"""
        return self.inputs.device.type == self.targets.device.type == self.device.type

    def draw(self, *names: str | int) -> None:
        """Set what the next batch draws."""
        if self.dynamic:
            self.rng.manual_seed(seeding.seed(self.seed, "binarize", *names))

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and targets, float32 [B, C, H, W]; one tensor where they are the same images."""
        target = self._take(self.targets, index)
        x = target if self.inputs is self.targets else self._take(self.inputs, index)
        if not self.dynamic:
            return x, target
        levels = torch.rand(x.shape, device=self.device, generator=self.rng)
        white = binarize.above(target, levels)  # what is its own target is drawn once
        return (white if x is target else binarize.above(x, levels)), white

    def _take(self, images: Tensor, index: Tensor) -> Tensor:
        x = images.index_select(0, index.to(images.device)).to(self.device)
        return x.contiguous(memory_format=torch.channels_last).to(torch.float32).div_(255)


def _stored(images: np.ndarray, device: torch.device) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # mapped read-only, and only read
        host = torch.from_numpy(images)
    if device.type == "cuda" and images.nbytes > torch.cuda.mem_get_info(device)[0] // 2:
        return host
    return host.to(device)


def batches(order: Tensor, size: int, least: int = 2) -> list[Tensor]:
    """Consecutive batches; fewer than `least` left over join the one before.

    Batch norm needs two images, a robust objective some more.
    """
    parts = list(torch.split(order, size))
    if len(parts) > 1 and len(parts[-1]) < min(least, size):
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def add_noise(x: Tensor, noise: InputNoiseSettings, rng: torch.Generator) -> Tensor:
    """dropout: pixels (all channels) to 0, the others not rescaled; gaussian: not clipped."""
    if noise.name == "dropout":
        shape = (len(x), 1, *x.shape[2:])
        return x * (torch.rand(shape, device=x.device, generator=rng) >= noise.amount)
    if noise.name == "gaussian":
        return x + noise.amount * torch.randn(x.shape, device=x.device, generator=rng)
    return x


def mix(
    images: np.ndarray,
    corrupted: Callable[[np.ndarray], np.ndarray],
    settings: MixtureSettings,
    seed: int,
    mode: str,
    threshold: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Copy of `images` with an exact share replaced by corrupted ones; sorted indices of these.

    `corrupted`: indices -> images, grey, which are binarised here as `images` were before.
    """
    count = share(len(images), settings.fraction)
    index = np.sort(seeding.numpy_rng(seed, "mixture").permutation(len(images))[:count])
    changed = corrupted(index)
    if mode in ("threshold", "static"):
        rng = seeding.generator(seed, "mixture", "binarize")
        changed = binarize.apply(torch.from_numpy(changed), mode, threshold, rng).numpy()
    mixed = np.array(images)
    mixed[index] = changed
    return mixed, index
