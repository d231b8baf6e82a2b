"""Changes of the grey levels: light, contrast, colour, coding (its file of its own), edges."""

import functools

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional

from robustvae.corruptions import sampling
from robustvae.corruptions.jpeg import jpeg_compression as jpeg_compression
from robustvae.corruptions.sampling import Rules

LEVELS = torch.arange(256, dtype=torch.float64)


def brightness(x: Tensor, amount: float, rng: Generator, rules: Rules) -> Tensor:
    """Add `amount` to V of HSV; hue and saturation stay."""
    if x.shape[1] == 1:
        return sampling.by_table(x, rules.levels(LEVELS + 255 * amount))
    value = x.amax(1, keepdim=True).float()
    brighter = (value + 255 * amount).clamp(max=255)
    return rules.levels(torch.where(value > 0, x * (brighter / value.clamp(min=1)), brighter))


def contrast(x: Tensor, factor: float, rng: Generator, rules: Rules) -> Tensor:
    """(v - mean) * factor + mean, with the mean of each image and channel."""
    mean = x.float().mean((2, 3), keepdim=True)
    return rules.levels((x - mean) * factor + mean)


def quantize(x: Tensor, bits: int, rng: Generator, rules: Rules) -> Tensor:
    """2 ** bits grey levels, halves to even."""
    top = 2**bits - 1
    return sampling.by_table(x, rules.levels(torch.round(LEVELS * top / 255) * (255 / top)))


def inverse(x: Tensor, amount: float, rng: Generator, rules: Rules) -> Tensor:
    """(1 - amount) v + amount (1 - v)."""
    return sampling.by_table(x, rules.levels((1 - amount) * LEVELS + amount * (255 - LEVELS)))


def saturate(x: Tensor, p: tuple[float, float], rng: Generator, rules: Rules) -> Tensor:
    """clip(factor * hsv + offset) on all three of H, S and V."""
    factor, offset = p
    v = x.expand(-1, 3, -1, -1) / 255
    value, low = v.amax(1), v.amin(1)
    spread = (value - low).clamp(min=1e-12)
    r, g, b = v.unbind(1)
    hue = torch.where(
        value == r,
        (g - b) / spread % 6,
        torch.where(value == g, 2 + (b - r) / spread, 4 + (r - g) / spread),
    )
    hsv = torch.stack([hue / 6, spread / value.clamp(min=1e-12), value]) * (value > low)[None]
    hsv[2] = value
    hue, saturation, value = (factor * hsv + offset).clamp(0, 1)
    k = (torch.tensor([5.0, 3.0, 1.0]).view(3, 1, 1, 1) + 6 * hue) % 6
    rgb = value * (1 - saturation * torch.minimum(k, 4 - k).clamp(0, 1))  # [3, B, H, W]
    y = 255 * rgb.transpose(0, 1)
    return rules.levels(y if x.shape[1] == 3 else sampling.luma(y))


def fog(x: Tensor, p: tuple[float, float], rng: Generator, rules: Rules) -> Tensor:
    """A fractal map is added, and the sum scaled back to the brightest value of the image."""
    amount, decay = p
    y = x.float()
    brightest = y.flatten(1).amax(1).view(-1, 1, 1, 1)
    haze = _plasma(len(x), x.shape[2], x.shape[3], decay, rng)[:, None]
    y.add_(haze.mul_(255 * amount)).mul_(brightest / (brightest + 255 * amount))
    return rules.levels(y)


def _plasma(batch: int, height: int, width: int, decay: float, rng: Generator) -> Tensor:
    """The corner `[B, H, W]` of a periodic diamond-square map, the whole map scaled to 0..1.

    Coarse points keep their values when finer levels are added, and the extremes lie on them (all
    but 0.1 % of the range): the whole map is made at every eighth point only, then a block around
    the corner is refined three times. Its rim comes out wrong, and is cut off at each level.
    """
    side = 256
    while side < max(height, width):
        side *= 2
    grid, amplitude = torch.zeros(batch, 1, 1), 100.0
    while grid.shape[1] < side // 8:
        grid = _refine(grid, amplitude, rng)
        amplitude /= decay
    low, high = grid.flatten(1).amin(1), grid.flatten(1).amax(1)
    rows, columns = _blocks(height), _blocks(width)
    grid = grid[:, torch.arange(-1, rows[0] + 1) % (side // 8)]
    grid = grid[:, :, torch.arange(-1, columns[0] + 1) % (side // 8)]
    for last_row, last_column in zip(rows[1:], columns[1:], strict=True):
        grid = _refine(grid, amplitude, rng)[:, 1 : last_row + 3, 1 : last_column + 3]
        amplitude /= decay
    crop = _refine(grid, amplitude, rng)[:, 2 : height + 2, 2 : width + 2]
    crop = crop.flatten(1)
    low = torch.minimum(low, crop.amin(1))[:, None]
    high = torch.maximum(high, crop.amax(1))[:, None]
    return ((crop - low) / (high - low)).view(batch, height, width)


def _blocks(size: int) -> list[int]:
    """Last points needed at spacings 8, 4 and 2 for 0 .. size-1 to come out right at spacing 1."""
    last = [size - 1]
    for _ in range(3):
        last.append(-(-(last[-1] + 1) // 2))
    return last[:0:-1]


def _refine(grid: Tensor, amplitude: float, rng: Generator) -> Tensor:
    """One diamond-square level on a periodic grid: [B, h, w] -> [B, 2h, 2w].

    The amplitude multiplies a draw whose range is the same amplitude: it acts squared.
    """
    batch, height, width = grid.shape
    noise = torch.empty(3, batch, height, width).uniform_(
        -(amplitude**2), amplitude**2, generator=rng
    )
    across = grid + grid.roll(-1, 2)
    centre = (across + across.roll(-1, 1)).mul_(0.25).add_(noise[0])
    fine = torch.empty(batch, height, 2, width, 2)
    fine[:, :, 0, :, 0] = grid
    fine[:, :, 1, :, 1] = centre
    fine[:, :, 0, :, 1] = (across + centre + centre.roll(1, 1)).mul_(0.25).add_(noise[1])
    down = grid + grid.roll(-1, 1)
    fine[:, :, 1, :, 0] = (down + centre + centre.roll(1, 2)).mul_(0.25).add_(noise[2])
    return fine.view(batch, 2 * height, 2 * width)


def canny_edges(x: Tensor, share: float, rng: Generator, rules: Rules) -> Tensor:
    """(1 - share) v + share * edges; the edges of MNIST-C at share 1."""
    edges = 255.0 * _edges(sampling.luma(x.float()))
    return rules.levels((1 - share) * x + share * edges)


@functools.cache
def _sobel(size: int) -> tuple[Tensor, Tensor]:
    """Smoothing [1, 2, 1] and slope [-1, 0, 1] of one axis, edge repeated, after a Gaussian blur.

    Outside the image the blur sees nothing, and is divided by the weight that lies inside.
    """
    gaussian = sampling.blur_matrix(size, 1.0, "zeros").double()
    gaussian = gaussian / gaussian.sum(1, keepdim=True)
    padded = functional.pad(gaussian.T, (1, 1), mode="replicate").T
    ahead, here, behind = padded[2:], padded[1:-1], padded[:-2]
    return (ahead + 2 * here + behind).float(), (ahead - behind).float()


def _edges(x: Tensor, low: float = 0.1 * 255, high: float = 0.2 * 255) -> Tensor:
    """Canny: blur, Sobel, thinning across the edge; weak edges stay where they touch strong.

    Images are `[B, H*W]`, so that a neighbour is a shift; the outermost ring is never an edge.
    """
    height, width = x.shape[2:]
    (smooth_y, slope_y), (smooth_x, slope_x) = _sobel(height), _sobel(width)
    gy, gx = (slope_y @ x @ smooth_x.T).flatten(1), (smooth_y @ x @ slope_x.T).flatten(1)
    strength = torch.hypot(gy, gx)
    margin, inside = width + 1, height * width - 2 * (width + 1)

    def near(dy: int, dx: int) -> Tensor:
        return strength.narrow(1, margin + dy * width + dx, inside)

    gy, gx, here = gy.narrow(1, margin, inside), gx.narrow(1, margin, inside), near(0, 0)
    same = sampling.where(torch.ge, gy * gx, 0)
    gy, gx = gy.abs(), gx.abs()
    steep = sampling.where(torch.ge, gy, gx)
    w = torch.minimum(gy, gx) / torch.maximum(gy, gx).clamp_(min=1e-30)
    rising, falling = near(-1, 1), near(1, -1)
    ahead = torch.lerp(torch.lerp(rising, falling, steep), near(1, 1), same)
    behind = torch.lerp(torch.lerp(falling, rising, steep), near(-1, -1), same)
    ahead = torch.lerp(torch.lerp(near(0, 1), near(1, 0), steep), ahead, w)
    behind = torch.lerp(torch.lerp(near(0, -1), near(-1, 0), steep), behind, w)
    middle = here.numpy()  # NumPy compares in a fifth of the time
    weak = np.zeros(strength.shape, bool)
    weak[:, margin:-margin] = (torch.maximum(ahead, behind).numpy() <= middle) & (middle >= low)
    weak.reshape(-1, height, width)[:, :, [0, -1]] = False
    edges = weak & (strength.numpy() >= high)
    while True:
        wider = edges.copy()
        wider[:, 1:] |= edges[:, :-1]
        wider[:, :-1] |= edges[:, 1:]
        grown = wider.copy()
        grown[:, width:] |= wider[:, :-width]
        grown[:, :-width] |= wider[:, width:]
        grown &= weak
        if np.array_equal(grown, edges):
            return torch.from_numpy(edges).view(x.shape)
        edges = grown
