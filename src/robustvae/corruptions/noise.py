"""Noise: a draw per pixel and channel, the same number of draws whatever the image shows."""

import functools

import torch
from scipy import special
from torch import Generator, Tensor

from robustvae.corruptions.sampling import Rules


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
    count = torch.zeros(u.shape, dtype=torch.int32)
    for table in _poisson_table(peak):
        count += u >= table.index_select(0, level)
    shades = rules.levels(torch.arange(peak + 1) * (255 / peak))
    return shades.index_select(0, count).view(x.shape)


def impulse_noise(x: Tensor, share: float, rng: Generator, rules: Rules) -> Tensor:
    """Each value is hit with probability `share`, and then black or white."""
    u = torch.rand(x.shape, generator=rng)
    return x.masked_fill(u < share, 255).masked_fill_(u < share / 2, 0)


def gaussian_noise(x: Tensor, sd: float, rng: Generator, rules: Rules) -> Tensor:
    """Add Normal(0, sd)."""
    return rules.levels(x + 255 * sd * torch.randn(x.shape, generator=rng))


def speckle_noise(x: Tensor, sd: float, rng: Generator, rules: Rules) -> Tensor:
    """Add v * Normal(0, sd)."""
    return rules.levels(x + x * sd * torch.randn(x.shape, generator=rng))
