"""Things drawn over the image, the same on all channels."""

import functools
import math
from itertools import pairwise

import torch
from torch import Generator, Tensor

from robustvae.corruptions import sampling
from robustvae.corruptions.blur import zoom_matrix
from robustvae.corruptions.sampling import Rules

MUD = (63.0, 42.0, 20.0)  # grey images take the first


def stripe(x: Tensor, share: int, rng: Generator, rules: Rules) -> Tensor:
    """Inverted in the first and last `share` / 28 of the columns."""
    columns = max(1, x.shape[3] * share // 28)
    y = x.clone()
    y[..., :columns] = 255 - x[..., :columns]
    y[..., -columns:] = 255 - x[..., -columns:]
    return y


def spatter(
    x: Tensor, p: tuple[float, float, float, float, float], rng: Generator, rules: Rules
) -> Tensor:
    """Spots of mud where a smoothed normal field exceeds a threshold, their rims soft above 0.8."""
    mean, sd, fine, threshold, soft = p
    field = mean + sd * torch.randn(len(x), 1, *x.shape[2:], generator=rng)
    spots = sampling.where(torch.gt, sampling.blur(field, fine * rules.unit), threshold)
    mask = sampling.blur(spots, soft * rules.unit)
    mask = mask * sampling.where(torch.ge, mask, 0.8)
    return rules.levels(torch.lerp(x.float(), torch.tensor(MUD[: x.shape[1]]).view(-1, 1, 1), mask))


def snow(x: Tensor, p: tuple[float, ...], rng: Generator, rules: Rules) -> Tensor:
    """Blown flakes and the same turned by 180 degrees, over a whitened image."""
    mean, sd, zoom, threshold, radius, sigma, keep = p
    height, width = x.shape[2:]
    field = mean + sd * torch.randn(len(x), 1, height, width, generator=rng)
    flakes = zoom_matrix(height, zoom) @ field @ zoom_matrix(width, zoom).T
    flakes = rules.levels(255 * flakes * (flakes >= threshold))
    degrees = torch.rand(len(x), generator=rng) * 90 - 135
    blown = sampling.rounded(
        sampling.motion(flakes, degrees, radius * rules.unit, sigma * rules.unit)
    ).float()
    white = torch.maximum(x.float(), 1.5 * sampling.luma(x.float()) + 127.5)
    return rules.levels(keep * x + (1 - keep) * white + blown + blown.flip(2, 3))


def _stroke(distance: Tensor, rules: Rules) -> Tensor:
    """Light of a line at a vertical distance in pixels: 255 on it, 0 from 1.454 units on."""
    width = 2.3 * rules.unit
    return 255 * (1 + torch.log1p(-distance.clamp(max=width - 1e-5) / width)).clamp(min=0)


def _integers(low: int, high: int, count: int, rng: Generator) -> Tensor:
    return torch.randint(low, max(high, low + 1), (count,), generator=rng)


def dotted_line(x: Tensor, lines: int, rng: Generator, rules: Rules) -> Tensor:
    """Straight dotted lines from the left edge to the right, two columns on, two off."""
    height, width = x.shape[2:]
    columns = torch.arange(width - 1)
    columns = columns[columns // 2 % 2 == 1]
    y = x.float()
    for _ in range(lines):
        start, end = (
            _integers(0, height - 1, len(x), rng).float().view(-1, 1, 1) for _ in range(2)
        )
        row = start + (end - start) * (columns / (width - 1))  # [B, 1, columns]
        light = _stroke((torch.arange(height)[:, None] - row).abs(), rules)
        y[..., columns] += light[:, None]
    return rules.levels(y)


def line(x: Tensor, lines: int, rng: Generator, rules: Rules) -> Tensor:
    """Straight lines from near the left edge to near the right."""
    height, width = x.shape[2:]
    columns = torch.arange(width)
    y = x.float()
    for _ in range(lines):
        first, last = _integers(0, 5, len(x), rng), _integers(width - 6, width - 1, len(x), rng)
        start, end = (_integers(0, height - 1, len(x), rng) for _ in range(2))
        first, last, start, end = (value.view(-1, 1, 1) for value in (first, last, start, end))
        row = start + (end - start) / (last - first).clamp(min=1) * (columns - first)
        light = _stroke((torch.arange(height)[:, None] - row).abs(), rules)
        y += (light * ((columns >= first) & (columns < last)))[:, None]
    return rules.levels(y)


def zigzag(x: Tensor, lines: int, rng: Generator, rules: Rules) -> Tensor:
    """Zigzag lines across the image: a start row and a rise are drawn for each."""
    height, width = x.shape[2:]
    steepest = rules.length(5)
    pictures = _zigzags(height, width, rules)
    y = x.float()
    rows = torch.arange(height) + height
    for _ in range(lines):
        start = _integers(0, height - 1, len(x), rng)
        rise = _integers(0, 2 * steepest, len(x), rng)
        y += pictures[rise[:, None], rows - start[:, None]][:, None]
    return rules.levels(y)


@functools.lru_cache(maxsize=4)
def _zigzags(height: int, width: int, rules: Rules) -> Tensor:
    """`[rises, 2H, W]`: the line of each rise; its start row is row H of the picture."""
    steepest = rules.length(5)
    rows = torch.arange(-height, height, dtype=torch.float64)[:, None]
    pictures = torch.zeros(2 * steepest, 2 * height, width)
    for picture, rise in zip(pictures, range(-steepest, steepest), strict=True):
        corners = _corners(width, rise, rules.length(2))
        for (c0, r0), (c1, r1) in pairwise(corners):
            if c1 <= c0:
                continue  # a vertical segment draws nothing
            columns = torch.arange(max(0, math.floor(c0)), min(width, math.ceil(c1)))
            picture[:, columns] += _stroke(
                (rows - r0 - (r1 - r0) / (c1 - c0) * (columns - c0)).abs(), rules
            ).float()
    return pictures


def _corners(width: int, rise: int, size: int) -> list[tuple[float, float]]:
    """Corners (column, row) of a zigzag from row 0, `size` high, with a corner every 2 * `size`.

    The official row of the end grows without bound where the length is just above a multiple of 4;
    it is kept within the zigzag here, which never acts at 28 pixels.
    """
    run = width - 1 - 2 * size
    angle = math.atan(rise / run)
    length = run / math.cos(angle)
    along = [(0.0, 0.0)]
    along += [
        (size * (2 * i + 1), size * (-1) ** i)
        for i in range(int((length - size) // (2 * size)) + 1)
    ]
    rest = length - 2 * size * math.floor(length / (2 * size))
    if rest > 0:
        along.append((length, min(max(along[-1][1] / (2 * rest), -size), size)))
    cos, sin = math.cos(angle), math.sin(angle)
    return [(x * cos - y * sin + size, x * sin + y * cos) for x, y in along]
