"""Changes of place, shared by the channels."""

from collections.abc import Callable
from math import cos, sin, tan

import torch
from torch import Generator, Tensor
from torch.nn import functional

from robustvae.corruptions import sampling
from robustvae.corruptions.sampling import Rules


def _coin(x: Tensor, rng: Generator, either: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Half of the images, by a fair draw each, go one way (-1) and half the other (+1)."""
    heads = torch.randint(0, 2, (len(x),), generator=rng)
    y = torch.empty_like(x)
    for side, way in enumerate((-1, 1)):
        rows = torch.nonzero(heads == side).flatten()
        if len(rows):
            y[rows] = either(x[rows], way)
    return y


def shear(x: Tensor, amount: float, rng: Generator, rules: Rules) -> Tensor:
    """Shear to the left or right; MNIST-C has -sin and cos in the matrix in place of -tan and 1."""

    def matrix(q: float) -> sampling.Matrix:
        return (1, -sin(q), 0, cos(q)) if rules.stretched_shear else (1, -tan(q), 0, 1)

    return _coin(x, rng, lambda part, way: rules.levels(sampling.warp(part, matrix(way * amount))))


def rotate(x: Tensor, amount: float, rng: Generator, rules: Rules) -> Tensor:
    """Rotation by `amount` radians either way."""

    def matrix(q: float) -> sampling.Matrix:
        return (cos(q), -sin(q), sin(q), cos(q))

    return _coin(x, rng, lambda part, way: rules.levels(sampling.warp(part, matrix(way * amount))))


def scale(x: Tensor, factor: float, rng: Generator, rules: Rules) -> Tensor:
    """Shrunk to `factor` about the centre, without a low-pass."""
    return rules.levels(sampling.warp(x, (1 / factor, 0, 0, 1 / factor)))


def translate(x: Tensor, pixels: int, rng: Generator, rules: Rules) -> Tensor:
    """Moved along a diagonal, zeros behind; a coin for each axis."""
    s = rules.length(pixels)

    # Negative padding cuts off.
    x = _coin(x, rng, lambda part, way: functional.pad(part, (-way * s, way * s)))
    return _coin(x, rng, lambda part, way: functional.pad(part, (0, 0, -way * s, way * s)))


def elastic_transform(
    x: Tensor, p: tuple[float, float, float], rng: Generator, rules: Rules
) -> Tensor:
    """An affine warp by three moved anchors, then smooth displacements; lengths in 28 pixels."""
    alpha, sigma, affine = (28 * rules.unit * value for value in p)
    batch, _, height, width = x.shape
    centre = torch.tensor([width // 2, height // 2], dtype=torch.float64)
    anchors = centre + min(height, width) // 3 * torch.tensor([[1, 1], [1, -1], [-1, -1]])
    moved = anchors + affine * (2 * torch.rand(batch, 3, 2, generator=rng).double() - 1)
    back = torch.linalg.solve(
        functional.pad(moved, (0, 1), value=1.0), anchors.expand(batch, 3, 2)
    )  # [B, 3, 2]
    y, x0 = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([x0, y, torch.ones_like(y)], 2).double()  # [H, W, 3]
    warped = _sample(x.float(), (places.view(-1, 3) @ back).view(batch, height, width, 2))
    shifts = 2 * torch.rand(batch, 2, height, width, generator=rng) - 1
    rows = sampling.blur_matrix(height, sigma, "symmetric", 3.0)
    columns = sampling.blur_matrix(width, sigma, "symmetric", 3.0)
    shifts = alpha * (rows @ shifts @ columns.T)
    return rules.levels(_sample(warped, places[..., :2] + shifts.permute(0, 2, 3, 1)))


def _sample(x: Tensor, places: Tensor) -> Tensor:
    """Bilinear values of x at (column, row) `[B, H, W, 2]`, zeros outside."""
    size = torch.tensor([x.shape[3] - 1, x.shape[2] - 1])
    grid = (2 * places / size - 1).float()
    return functional.grid_sample(x, grid, align_corners=True, padding_mode="zeros")
