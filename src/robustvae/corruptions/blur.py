"""Blurs. Channels never mix, and share what is drawn."""

import functools
import math
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Generator, Tensor
from torch.nn import functional

from robustvae.corruptions import sampling
from robustvae.corruptions.sampling import Rules


def gaussian_blur(x: Tensor, sigma: float, rng: Generator, rules: Rules) -> Tensor:
    """Gaussian blur, edge repeated."""
    return rules.levels(sampling.blur(x.float(), sigma * rules.unit, vertical=rules.vertical_blur))


def motion_blur(x: Tensor, p: tuple[float, float], rng: Generator, rules: Rules) -> Tensor:
    """One-sided Gaussian smear at -45 to 45 degrees, one angle per image; always rounded."""
    radius, sigma = p
    degrees = torch.rand(len(x), generator=rng) * 90 - 45
    return sampling.rounded(sampling.motion(x, degrees, radius * rules.unit, sigma * rules.unit))


def glass_blur(x: Tensor, p: tuple[float, int, int], rng: Generator, rules: Rules) -> Tensor:
    """Blur, exchange pixels with near neighbours, blur again."""
    sigma, reach, passes = p
    reach = rules.length(reach)
    x = gaussian_blur(x, sigma, rng, rules)
    for _ in range(passes):
        x = _exchange(x, reach, rng)
    return gaussian_blur(x, sigma, rng, rules)


@functools.cache
def _waves(height: int, width: int, reach: int) -> list[range]:
    """Places to visit, in groups that touch disjoint pixels.

    The scan goes down the rows and columns from the end; a visit touches the square of side
    2 * reach around it. Visits that agree in 2 * reach * row + column touch disjoint squares, and
    none overtakes one that it overlaps: the result is that of the scan, in far fewer steps.
    """
    groups: dict[int, list[int]] = {}
    for h in range(height - reach, reach, -1):
        for w in range(width - reach, reach, -1):
            groups.setdefault(2 * reach * h + w, []).append(h * width + w)
    step = width - 2 * reach
    return [range(groups[key][-1], groups[key][0] + 1, step) for key in sorted(groups)[::-1]]


def _exchange(x: Tensor, reach: int, rng: Generator) -> Tensor:
    """One pass: half of the pixels, by a draw each, trade places with one up to `reach` away.

    The offsets are uniform in -reach .. reach - 1, drawn for rows and columns.
    """
    batch, channels, height, width = x.shape
    if channels == 1:
        pixels = x.view(batch, -1).T.contiguous()  # [H*W, B]
    else:  # whole pixels move: four bytes seen as one number
        packed = functional.pad(x.permute(2, 3, 0, 1), (0, 4 - channels)).contiguous()
        pixels = packed.view(torch.int32).view(-1, batch)
    steps = torch.arange(-reach, reach)
    offsets = (steps[:, None] * width + steps).flatten() * batch
    offsets = torch.cat([torch.zeros_like(offsets), offsets])
    waves = _waves(height, width, reach)
    places = torch.tensor(list(chain.from_iterable(waves)), dtype=torch.int64)
    draws = torch.randint(len(offsets), (len(places) * batch,), dtype=torch.int32, generator=rng)
    partners = offsets.index_select(0, draws).view(len(places), batch)
    partners += places[:, None] * batch
    partners += torch.arange(batch)
    array, at = pixels.numpy(), 0  # torch has no put_ where run.deterministic is on, and is slower
    flat, indices = array.reshape(-1), partners.numpy()
    for wave in waves:
        place = array[wave.start : wave.stop : wave.step]
        partner, at = indices[at : at + len(wave)], at + len(wave)
        here = place.copy()
        place[:] = flat[partner]
        flat[partner] = here
    if channels == 1:
        return pixels.T.reshape(x.shape)
    return (
        pixels.view(torch.uint8).view(height, width, batch, 4)[..., :channels].permute(2, 3, 0, 1)
    )


@functools.cache
def _disk(radius: int, sigma: float) -> tuple[Tensor, Tensor]:
    """A disk of weight 1, smoothed a little and, as the original, not normalised: `[k, k]`.

    And the weights `[taps]` of the smoothing, along either axis.
    """
    half = max(8, radius)
    i = torch.arange(-half, half + 1)
    disk = (i[:, None] ** 2 + i**2 <= radius**2).double()
    reach = 1 if radius <= 8 else 2
    j = torch.arange(-reach, reach + 1)
    k = torch.exp(-(j.double() ** 2) / (2 * sigma**2))
    k /= k.sum()
    places = sampling.border(torch.arange(2 * half + 1)[:, None] + j, 2 * half + 1, "mirror")
    smooth = torch.zeros(2 * half + 1, 2 * half + 1, dtype=torch.float64)
    smooth.scatter_add_(1, places, k.expand(places.shape))
    return smooth @ (disk / disk.sum()) @ smooth.T, k


@functools.cache
def _rest(radius: int, sigma: float) -> list[tuple[int, int, float]]:
    """Where the smoothed disk differs from a smoothing of the disk alone: rows, columns, weights.

    The disk reaches the border of its square, where the original mirrors.
    """
    kernel, k = _disk(radius, sigma)
    reach = len(k) // 2
    half = len(kernel) // 2 + reach
    i = torch.arange(-half, half + 1)
    disk = (i[:, None] ** 2 + i**2 <= radius**2).double()
    plain = functional.conv2d(
        (disk / disk.sum())[None, None], k.outer(k)[None, None], padding=reach
    )
    rest = functional.pad(kernel, [reach] * 4) - plain[0, 0]
    places = (rest.abs() > 1e-9).nonzero().tolist()
    return [(r - half, c - half, float(rest[r, c])) for r, c in places]


def _defocused(x: Tensor, radius: int, sigma: float) -> Tensor:
    """Planes [N, H, W] with a mirrored border wide enough for the kernel; what is there is rubbish.

    The disk's columns grow from its sides to its middle, and are added up. All that is moved is
    moved in a row of all pixels, where rows and planes run into each other at the border.
    """
    n, line = x.numel(), x.shape[2]
    # Integers of 16 bits hold the sums of 257 grey levels; above 32,767 they wrap, and back.
    small = math.pi * (radius + 1) ** 2 < 257
    flat = x.flatten().to(torch.int16 if small else torch.int32)
    edge = radius * line
    column, tall = flat[edge : n - edge].clone(), 0
    total = flat.new_zeros(len(column) - 2 * radius)
    for across in range(radius, -1, -1):
        while (tall + 1) ** 2 + across**2 <= radius**2:
            tall += 1
            for place in (edge - tall * line, edge + tall * line):
                column += flat.narrow(0, place, len(column))
        for place in {radius - across, radius + across}:
            total += column.narrow(0, place, len(total))
    y = total.view(torch.uint16).float() if small else total.float()
    i = torch.arange(-radius, radius + 1)
    k = _disk(radius, sigma)[1] / (i[:, None] ** 2 + i**2 <= radius**2).sum() ** 0.5
    reach = len(k) // 2
    for step in (line, 1):
        total = y.narrow(0, reach * step, len(y) - 2 * reach * step) * float(k[reach])
        for tap in (*range(reach), *range(reach + 1, len(k))):
            total.add_(y.narrow(0, tap * step, len(total)), alpha=float(k[tap]))
        y = total
    edge = (n - len(y)) // 2
    for row, place, weight in _rest(radius, sigma):
        y.add_(flat.narrow(0, edge + row * line + place, len(y)), alpha=weight)
    return functional.pad(y, (edge, edge)).view(x.shape)


def defocus_blur(x: Tensor, p: tuple[float, float], rng: Generator, rules: Rules) -> Tensor:
    """Correlation with a soft disk, border mirrored."""
    radius, sigma = rules.length(p[0]), p[1] * rules.unit
    kernel, k = _disk(radius, sigma)
    half = len(kernel) // 2 + len(k) // 2
    shape = x.shape
    rim = torch.arange(half)
    for axis in (3, 2):
        ends = (rim - half, rim + x.shape[axis])
        left, right = (
            x.index_select(axis, sampling.border(end, x.shape[axis], "mirror")) for end in ends
        )
        x = torch.cat([left, x, right], axis)
    y = _defocused(x.flatten(0, 1).contiguous(), radius, sigma)
    return rules.levels(y[:, half:-half, half:-half]).view(shape)


@functools.cache
def zoom_matrix(size: int, zoom: float) -> Tensor:
    """`[size, size]`: an axis of the central 1 / zoom, enlarged with corners aligned, and cut."""
    part = math.ceil(size / zoom)
    long = round(part * zoom)
    place = torch.arange(long, dtype=torch.float64) * (part - 1) / max(long - 1, 1)
    weights = (1 - (place[:, None] - torch.arange(part)).abs()).clamp(min=0)  # [long, part]
    cut, first = (long - size) // 2, (size - part) // 2
    return functional.pad(weights[cut : cut + size], (first, size - part - first)).float()


def zoom_blur(x: Tensor, zooms: tuple[float, ...], rng: Generator, rules: Rules) -> Tensor:
    """Mean of the image and its zoomed copies."""
    v = x.float()
    total = v.clone()
    for zoom in zooms:
        total += zoom_matrix(x.shape[2], zoom) @ v @ zoom_matrix(x.shape[3], zoom).T
    return rules.levels(total / (len(zooms) + 1))


def _boxed(pixels: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """An array [H, W] averaged in boxes to `size`, width and height."""
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))


@functools.cache
def _enlarged(small: int, size: int) -> NDArray[Any]:
    """For each of `size` places the one of `small` whose box it is in."""
    return _boxed(np.arange(small, dtype=np.int32)[None], (size, 1)).reshape(size)


def pixelate(x: Tensor, share: float, rng: Generator, rules: Rules) -> Tensor:
    """Averaged down to `share` of each side and back up by boxes, as Pillow does it.

    Along the rows, all images are one tall picture to it; then along the columns a wide one.
    """
    batch, channels, height, width = x.shape
    planes, h, w = batch * channels, max(1, int(height * share)), max(1, int(width * share))
    rows = _boxed(x.reshape(-1, width).numpy(), (w, planes * height))
    beside = rows.reshape(planes, height, w).swapaxes(0, 1).reshape(height, -1)
    small = _boxed(beside, (planes * w, h)).reshape(-1, w)[:, _enlarged(w, width)]
    large = small.reshape(h, planes, width).swapaxes(0, 1).take(_enlarged(h, height), axis=1)
    return torch.from_numpy(large).view(x.shape)
