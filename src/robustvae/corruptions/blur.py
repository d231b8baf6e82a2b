"""Blurs. Channels never mix, and share what is drawn."""

import functools
import math
from itertools import chain

import torch
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
def _disk(radius: int, sigma: float) -> Tensor:
    """`[k, k]`: a disk of weight 1, smoothed a little and, as the original, not normalised."""
    half = max(8, radius)
    i = torch.arange(-half, half + 1)
    disk = (i[:, None] ** 2 + i**2 <= radius**2).double()
    reach = 1 if radius <= 8 else 2
    j = torch.arange(-reach, reach + 1)
    k = torch.exp(-(j.double() ** 2) / (2 * sigma**2))
    places = sampling.border(torch.arange(2 * half + 1)[:, None] + j, 2 * half + 1, "mirror")
    smooth = torch.zeros(2 * half + 1, 2 * half + 1, dtype=torch.float64)
    smooth.scatter_add_(1, places, (k / k.sum()).expand(places.shape))
    return (smooth @ (disk / disk.sum()) @ smooth.T).float()


def defocus_blur(x: Tensor, p: tuple[float, float], rng: Generator, rules: Rules) -> Tensor:
    """Correlation with a soft disk, border mirrored."""
    kernel = _disk(rules.length(p[0]), p[1] * rules.unit)
    half = len(kernel) // 2
    channels, height, width = x.shape[1:]
    for axis in (2, 3):
        places = torch.arange(-half, x.shape[axis] + half)
        x = x.index_select(axis, sampling.border(places, x.shape[axis], "mirror"))
    planes = x.flatten(0, 1)[:, None].float()
    y = functional.conv2d(planes, kernel[None, None])
    return rules.levels(y.view(-1, channels, height, width))


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


def pixelate(x: Tensor, share: float, rng: Generator, rules: Rules) -> Tensor:
    """Averaged down to `share` of each side and back up by boxes, 8 bits in between."""
    from PIL.Image import Resampling

    height, width = x.shape[2:]
    small = max(1, int(width * share)), max(1, int(height * share))
    return sampling.by_pillow(
        x, lambda image: image.resize(small, Resampling.BOX).resize((width, height), Resampling.BOX)
    )
