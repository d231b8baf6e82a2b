"""Noise: a draw per pixel and channel, the same number of draws whatever the image shows."""

import functools

import numpy as np
import torch
from scipy import special
from torch import Generator, Tensor

from robustvae.corruptions.sampling import Rules, by_table


@functools.cache
def _poisson_table(peak: int) -> Tensor:
    """`[peak, 256]`: P(Poisson(level / 255 * peak) <= k) for k = 0 .. peak - 1."""
    rates = torch.arange(256, dtype=torch.float64) / 255 * peak
    return torch.stack(
        [torch.from_numpy(special.pdtr(k, rates.numpy())) for k in range(peak)]
    ).float()


def shot_noise(x: Tensor, peak: int, rng: Generator, rules: Rules) -> Tensor:
    """Poisson(v * peak) / peak, by inversion: counts above `peak` are white anyway."""
    u = torch.rand(x.shape, generator=rng).flatten()
    level = x.flatten().int()
    count = np.zeros(u.shape, np.uint8)
    for table in _poisson_table(peak):
        count += u.numpy() >= table.index_select(0, level).numpy()
    shades = rules.levels(torch.arange(peak + 1) * (255 / peak))
    return by_table(torch.from_numpy(count), shades).view(x.shape)


def impulse_noise(x: Tensor, share: float, rng: Generator, rules: Rules) -> Tensor:
    """Each value is hit with probability `share`, and then black or white."""
    u = torch.rand(x.shape, generator=rng).numpy()
    hit, black = ((u < bound).view(np.uint8) for bound in (share, share / 2))
    return torch.from_numpy((x.numpy() | -hit) & (black - 1))  # a tenth of the time of masks


def gaussian_noise(x: Tensor, sd: float, rng: Generator, rules: Rules) -> Tensor:
    """Add Normal(0, sd)."""
    return rules.levels(x + 255 * sd * torch.randn(x.shape, generator=rng))


def speckle_noise(x: Tensor, sd: float, rng: Generator, rules: Rules) -> Tensor:
    """Add v * Normal(0, sd)."""
    return rules.levels(x + x * sd * torch.randn(x.shape, generator=rng))
