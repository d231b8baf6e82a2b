"""What corruptions share: grey levels, borders, blurs, warps. Images `[B, C, H, W]` of 0..255."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

LUMA = (0.2125, 0.7154, 0.0721)
Matrix = tuple[float, float, float, float]  # row by row
BLOCK = 56  # rows of a blur that are computed together where an axis has twice as many
CUT = 1e-4  # grey levels; float32 leaves 2.9999998 where the exact value is 3


@dataclass(frozen=True)
class Rules:
    """The unit of length, and three accidents of the official generator that shaped MNIST-C.

    `cut`: grey levels are cut, not rounded. `vertical_blur`: glass_blur and gaussian_blur mix rows
    only (columns were taken for colour channels). `stretched_shear`: shear stretches vertically by
    1 / cos too. All three are the default for grey images, none for colour. `unit` multiplies
    every length in pixels: `min(H, W) / 28` keeps their proportion to the image.
    """

    unit: float = 1.0
    cut: bool = True
    vertical_blur: bool = True
    stretched_shear: bool = True

    def length(self, pixels: float) -> int:
        """A whole number of pixels, at least 1."""
        return max(1, round(pixels * self.unit))

    def levels(self, y: Tensor) -> Tensor:
        """Values in grey levels to uint8: clipped, then cut or rounded."""
        return rounded(y, CUT if self.cut else 0.5)


MNIST_C = Rules()
SANE = Rules(cut=False, vertical_blur=False, stretched_shear=False)


def rounded(y: Tensor, offset: float | Tensor = 0.5) -> Tensor:
    """Clip to 0..255 and cut after adding `offset`: 0.5 rounds to the nearest level."""
    levels = (y + offset).clamp_(0, 255).numpy()
    return torch.from_numpy(levels.astype(np.uint8))  # a seventh of the time that torch takes


def where(compare: Callable[..., Any], x: Tensor, y: Tensor | float) -> Tensor:
    """1.0 where it is so, else 0.0: `torch.lerp(a, b, where(...))` is exact.

    In Booleans a comparison takes three times as long, and `torch.where` twenty times.
    """
    return compare(x, y, out=torch.empty_like(x))  # type: ignore[no-any-return]


def by_table(x: Tensor, table: Tensor) -> Tensor:
    """Each grey level replaced by its entry in `table` `[256]`."""
    return table.index_select(0, x.flatten().int()).view(x.shape)


def luma(x: Tensor) -> Tensor:
    """`[B, 1, H, W]`: the image itself when grey, its brightness when colour."""
    if x.shape[1] == 1:
        return x
    return torch.einsum("c,bchw->bhw", torch.tensor(LUMA), x)[:, None]


def border(i: Tensor, size: int, mode: str) -> Tensor:
    """The pixel that stands for a place: nearest, mirror (edge once) or symmetric (edge twice)."""
    if mode == "nearest":
        return i.clamp(0, size - 1)
    period = 2 * size - (2 if mode == "mirror" else 0)
    i = i % period
    return torch.minimum(i, period - int(mode == "symmetric") - i)


def gaussian(sigma: float, truncate: float = 4.0) -> Tensor:
    """Gaussian weights of sum 1, float64, out to `truncate` standard deviations."""
    radius = int(truncate * sigma + 0.5)
    i = torch.arange(-radius, radius + 1, dtype=torch.float64)
    k = torch.exp(-(i**2) / (2 * sigma**2))
    return k / k.sum()


@functools.cache
def blur_matrix(size: int, sigma: float, mode: str = "nearest", truncate: float = 4.0) -> Tensor:
    """`[size, size]`: Gaussian blur of an axis as a matrix; mode as in `border`, or "zeros"."""
    k = gaussian(sigma, truncate)
    places = torch.arange(size)[:, None] + torch.arange(len(k)) - len(k) // 2  # [size, taps]
    weights = k.expand(places.shape)
    if mode == "zeros":
        weights = weights * ((places >= 0) & (places < size))
        mode = "nearest"
    matrix = torch.zeros(size, size, dtype=torch.float64)
    return matrix.scatter_add_(1, border(places, size, mode), weights).float()


@functools.cache
def _bands(size: int, sigma: float, mode: str) -> list[tuple[slice, slice, Tensor]]:
    """The matrix in blocks of rows: which rows, which columns are not 0 there, and the block."""
    matrix, bands = blur_matrix(size, sigma, mode), []
    height = BLOCK if size >= 2 * BLOCK else size
    for start in range(0, size, height):
        rows = slice(start, start + height)
        used = matrix[rows].any(0).nonzero()
        columns = slice(int(used[0]), int(used[-1]) + 1)
        bands.append((rows, columns, matrix[rows, columns]))
    return bands


def blur(x: Tensor, sigma: float, mode: str = "nearest", vertical: bool = False) -> Tensor:
    """Gaussian blur along both axes, or along the columns alone."""
    height, width = x.shape[-2:]
    y = x.new_empty(x.shape)
    for rows, columns, block in _bands(height, sigma, mode):
        torch.matmul(block, x[..., columns, :], out=y[..., rows, :])
    if vertical:
        return y
    lines = y.view(-1, width)
    out = torch.empty_like(lines)
    for rows, columns, block in _bands(width, sigma, mode):
        torch.mm(lines[:, columns], block.T, out=out[:, rows])
    return out.view(x.shape)


@functools.cache
def bilinear(height: int, width: int, a: Matrix) -> tuple[Tensor, Tensor]:
    """The four neighbours and their weights `[4, H*W]` of a warp about the centre.

    Output (x, y) takes the input at A (x - cx, y - cy) + (cx, cy); a neighbour outside weighs 0.
    """
    cy, cx = (height - 1) / 2, (width - 1) / 2
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float64) - cy,
        torch.arange(width, dtype=torch.float64) - cx,
        indexing="ij",
    )
    u, v = a[0] * x + a[1] * y + cx, a[2] * x + a[3] * y + cy
    left, top = u.floor(), v.floor()
    indices, weights = [], []
    for dy in (0, 1):
        for dx in (0, 1):
            column, row = left + dx, top + dy
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            weight = (1 - (u - column).abs()) * (1 - (v - row).abs()) * inside
            index = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
            indices.append(index.long().flatten())
            weights.append(weight.float().flatten())
    return torch.stack(indices), torch.stack(weights)


def warp(x: Tensor, a: Matrix) -> Tensor:
    """Bilinear warp about the centre, zeros outside; else never darker than the image itself."""
    batch, channels, height, width = x.shape
    indices, weights = bilinear(height, width, a)
    flat = x.reshape(batch * channels, -1).float()
    y = torch.zeros_like(flat)
    for index, weight in zip(indices, weights, strict=True):
        y.addcmul_(flat.index_select(1, index), weight)
    y = y.view(x.shape)
    darkest = flat.view(batch, -1).amin(1).view(-1, 1, 1, 1)
    return torch.maximum(y, darkest * where(torch.gt, y, 0))


def motion(x: Tensor, degrees: Tensor, radius: float, sigma: float) -> Tensor:
    """One-sided Gaussian motion blur, angles `[B]` (0 looks right, 90 down); edge repeated.

    Tap i lies at (ceil(i cos a - 1/2), ceil(i sin a - 1/2)). Sorted by angle, the images that share
    a tap's place stand together, so a tap is a few shifted sums over slices.
    """
    height, width = x.shape[-2:]
    taps = torch.arange(2 * math.ceil(radius) + 1, dtype=torch.float64)
    k = torch.exp(-(taps**2) / (2 * sigma**2))
    weights = (k / k.sum()).tolist()
    order = torch.argsort(degrees, stable=True)
    angles = torch.deg2rad(degrees[order].double())
    dx = torch.ceil(taps[:, None] * torch.cos(angles) - 0.5).long().numpy()  # [taps, B]
    dy = torch.ceil(taps[:, None] * torch.sin(angles) - 0.5).long().numpy()
    left, top = -min(dx.min(), 0), -min(dy.min(), 0)
    rows = torch.arange(-top, height + max(dy.max(), 0) + 1).clamp(0, height - 1)
    columns = torch.arange(-left, width + max(dx.max(), 0)).clamp(0, width - 1)
    places = (rows[:, None] * width + columns).flatten()
    padded = x.flatten(0, 1).flatten(1).float().index_select(1, places)
    padded = padded.view(*x.shape[:2], -1).index_select(0, order)
    y = torch.zeros(*x.shape[:2], height * len(columns))  # rows as long as the padded ones
    shifts = (dy + top) * len(columns) + dx + left
    bounds = np.pad(shifts[:, 1:] != shifts[:, :-1], ((0, 0), (1, 1)), constant_values=True)
    for weight, shift, bound in zip(weights, shifts, bounds, strict=True):
        ends = np.flatnonzero(bound)  # of the images that share a place
        sizes = (ends[1:] - ends[:-1]).tolist()
        parts = zip(padded.split_with_sizes(sizes), shift[ends[:-1]].tolist(), strict=True)
        moved = [part.narrow(2, at, y.shape[2]) for part, at in parts]
        torch._foreach_add_(y.split_with_sizes(sizes), moved, alpha=weight)
    y = y.view(*x.shape[:3], len(columns))[..., :width]
    return y.index_select(0, torch.argsort(order))
