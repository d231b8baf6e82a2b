"""The corruptions against a loop over images in NumPy and SciPy, both measured in turns.

The loop is written from the description of the algorithms, one grey image at a time, in float64:
what a straightforward program does, and what the tests compare the batched one with.
"""

import itertools
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import ndimage

from robustvae import corruptions
from robustvae.runtime import seeding

Image = np.ndarray  # uint8 [H, W]
IMAGES, COLOUR = 10_000, 500
SIZE = 28
COLUMNS = ("ms", "loop_ms", "colour64_ms")


def cut(v: np.ndarray) -> Image:
    """0..1 to uint8 as the official files: clipped, to float32, cut."""
    return (np.clip(v, 0, 1) * 255).astype(np.float32).astype(np.uint8)


def shot_noise(x: Image, peak: int, rng: np.random.Generator) -> Image:
    """Poisson counts."""
    return cut(rng.poisson(x / 255 * peak) / peak)


def impulse_noise(x: Image, share: float, rng: np.random.Generator) -> Image:
    """Black and white pixels."""
    hit, white = rng.random(x.shape) < share, rng.random(x.shape) < 0.5
    return np.where(hit, np.where(white, 255, 0), x).astype(np.uint8)


def glass_blur(x: Image, p: tuple[float, int, int], rng: np.random.Generator) -> Image:
    """Vertical blur, exchanges in scan order, vertical blur."""
    sigma, d, passes = p
    y = cut(ndimage.gaussian_filter1d(x / 255, sigma, axis=0, mode="nearest"))
    height, width = y.shape
    for _ in range(passes):
        for h in range(height - d, d, -1):
            for w in range(width - d, d, -1):
                if rng.random() < 0.5:
                    dx, dy = rng.integers(-d, d, 2)
                    y[h, w], y[h + dy, w + dx] = y[h + dy, w + dx], y[h, w]
    return cut(ndimage.gaussian_filter1d(y / 255, sigma, axis=0, mode="nearest"))


def motion_blur(x: Image, p: tuple[float, float], rng: np.random.Generator) -> Image:
    """One-sided smear along a line."""
    radius, sigma = p
    taps = np.arange(2 * math.ceil(radius) + 1)
    weights = np.exp(-(taps**2) / (2 * sigma**2))
    angle = math.radians(rng.uniform(-45, 45))
    y = np.zeros(x.shape)
    rows, columns = np.arange(x.shape[0]), np.arange(x.shape[1])
    for i, weight in zip(taps, weights / weights.sum(), strict=True):
        dx, dy = math.ceil(i * math.cos(angle) - 0.5), math.ceil(i * math.sin(angle) - 0.5)
        r, c = np.clip(rows + dy, 0, len(rows) - 1), np.clip(columns + dx, 0, len(columns) - 1)
        y += weight * x[r[:, None], c]
    return np.floor(y + 0.5).astype(np.uint8)


def warp(x: Image, a: list[list[float]]) -> Image:
    """Bilinear warp about the centre, zeros outside."""
    matrix = np.array(a)[::-1, ::-1]  # (x, y) to (row, column)
    centre = (np.array(x.shape) - 1) / 2
    v = ndimage.affine_transform(
        np.pad(x / 255, 1), matrix, centre + 1 - matrix @ centre, x.shape, order=1, mode="constant"
    )
    return cut(v)


def coin(rng: np.random.Generator) -> int:
    """-1 or 1."""
    return int(rng.choice([-1, 1]))


def shear(x: Image, amount: float, rng: np.random.Generator) -> Image:
    """The matrix of MNIST-C."""
    q = coin(rng) * amount
    return warp(x, [[1, -math.sin(q)], [0, math.cos(q)]])


def rotate(x: Image, amount: float, rng: np.random.Generator) -> Image:
    """Either way."""
    q = coin(rng) * amount
    return warp(x, [[math.cos(q), -math.sin(q)], [math.sin(q), math.cos(q)]])


def scale(x: Image, factor: float, rng: np.random.Generator) -> Image:
    """About the centre."""
    return warp(x, [[1 / factor, 0], [0, 1 / factor]])


def brightness(x: Image, amount: float, rng: np.random.Generator) -> Image:
    """Grey: V of HSV is the value itself."""
    return cut(x / 255 + amount)


def translate(x: Image, pixels: int, rng: np.random.Generator) -> Image:
    """Two coins."""
    shift = (-coin(rng) * pixels, -coin(rng) * pixels)
    return ndimage.shift(x, shift, order=0, mode="constant")


def stripe(x: Image, share: int, rng: np.random.Generator) -> Image:
    """Inverted at both sides."""
    y, columns = x.copy(), x.shape[1] * share // 28
    y[:, :columns] = 255 - y[:, :columns]
    y[:, -columns:] = 255 - y[:, -columns:]
    return y


def fog(x: Image, p: tuple[float, float], rng: np.random.Generator) -> Image:
    """The whole map of 256 x 256 points."""
    amount, decay = p
    grid, step, w = np.zeros((256, 256)), 256, 100.0
    while step >= 2:
        h = step // 2
        corners = grid[::step, ::step]
        total = corners + np.roll(corners, -1, 0)
        total = total + np.roll(total, -1, 1)
        grid[h::step, h::step] = total / 4 + w * rng.uniform(-w, w, total.shape)
        centres = grid[h::step, h::step]
        total = centres + np.roll(centres, 1, 0) + corners + np.roll(corners, -1, 1)
        grid[::step, h::step] = total / 4 + w * rng.uniform(-w, w, total.shape)
        total = centres + np.roll(centres, 1, 1) + corners + np.roll(corners, -1, 0)
        grid[h::step, ::step] = total / 4 + w * rng.uniform(-w, w, total.shape)
        step, w = h, w / decay
    grid -= grid.min()
    haze = grid[: x.shape[0], : x.shape[1]] / grid.max()
    v, brightest = x / 255, x.max() / 255
    return cut((v + amount * haze) * brightest / (brightest + amount))


def spatter(x: Image, p: tuple[float, ...], rng: np.random.Generator) -> Image:
    """Mud."""
    mean, sd, fine, threshold, soft = p
    field = ndimage.gaussian_filter(rng.normal(mean, sd, x.shape), fine, mode="nearest")
    mask = ndimage.gaussian_filter((field > threshold).astype(float), soft, mode="nearest")
    mask[mask < 0.8] = 0
    return cut(x / 255 * (1 - mask) + 63 / 255 * mask)


def segment(c0: float, r0: float, c1: float, r1: float) -> np.ndarray:
    """Light of a line between two points."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    d = np.abs(rows - (r0 + (r1 - r0) / (c1 - c0) * (columns - c0)))
    light = np.clip(1 + np.log(1 - np.minimum(d, 2.3 - 1e-10) / 2.3), 0, 1)
    return light * ((columns >= math.floor(c0)) & (columns < math.ceil(c1)))


def dotted_line(x: Image, lines: int, rng: np.random.Generator) -> Image:
    """Two columns on, two off."""
    v = x / 255
    for _ in range(lines):
        r0, r1 = rng.integers(0, 27, 2)
        v = np.clip(v + segment(0, r0, 27, r1) * (np.arange(SIZE) // 2 % 2), 0, 1)
    return cut(v)


def zigzag(x: Image, lines: int, rng: np.random.Generator) -> Image:
    """Corners in the frame along the line, turned."""
    v = x / 255
    for _ in range(lines):
        start, rise = rng.integers(0, 27), rng.integers(-5, 5)
        angle = math.atan(rise / 23)
        length = 23 / math.cos(angle)
        corners = [(0.0, 0.0)]
        corners += [(2.0 * (2 * i + 1), 2.0 * (-1) ** i) for i in range(int((length - 2) // 4) + 1)]
        corners.append((length, corners[-1][1] / (2 * (length - 4 * (length // 4)))))
        c, s = math.cos(angle), math.sin(angle)
        turned = [(a * c - b * s + 2, a * s + b * c + start) for a, b in corners]
        for (c0, r0), (c1, r1) in itertools.pairwise(turned):
            v = np.clip(v + segment(c0, r0, c1, r1), 0, 1)
    return cut(v)


def canny_edges(x: Image, share: float, rng: np.random.Generator) -> Image:
    """Canny with sigma 1 and thresholds 0.1 and 0.2."""
    v = x / 255
    inside = ndimage.gaussian_filter(np.ones(v.shape), 1, mode="constant") + 2.2e-16
    smooth = ndimage.gaussian_filter(v, 1, mode="constant") / inside
    gy, gx = ndimage.sobel(smooth, 0), ndimage.sobel(smooth, 1)
    strength = np.hypot(gy, gx)
    ay, ax = np.abs(gy), np.abs(gx)
    thin = np.zeros(v.shape, bool)
    near = {
        (dy, dx): np.roll(strength, (-dy, -dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)
    }
    ahead, behind = np.zeros(v.shape), np.zeros(v.shape)
    with np.errstate(invalid="ignore", divide="ignore"):
        w = np.nan_to_num(np.minimum(ay, ax) / np.maximum(ay, ax))
    for steep in (False, True):
        for same in (False, True):
            sign = 1 if same else -1
            axial = (1, 0) if steep else (0, 1)
            diagonal = (1, sign) if steep else (sign, 1)
            at = ((ay >= ax) == steep) & ((gy * gx >= 0) == same)
            for side, value in ((1, ahead), (-1, behind)):
                a = near[side * axial[0], side * axial[1]]
                b = near[side * diagonal[0], side * diagonal[1]]
                value[at] = (b * w + a * (1 - w))[at]
    thin = (ahead <= strength) & (behind <= strength)
    thin[[0, -1]] = thin[:, [0, -1]] = False
    labels, _ = ndimage.label(thin & (strength >= 0.1), np.ones((3, 3)))
    strong = np.unique(labels[thin & (strength >= 0.2)])
    return cut((1 - share) * v + share * np.isin(labels, strong[strong > 0]))


LOOP: dict[str, Callable[[Image, Any, np.random.Generator], Image]] = {
    "shot_noise": shot_noise,
    "impulse_noise": impulse_noise,
    "glass_blur": glass_blur,
    "motion_blur": motion_blur,
    "shear": shear,
    "scale": scale,
    "rotate": rotate,
    "brightness": brightness,
    "translate": translate,
    "stripe": stripe,
    "fog": fog,
    "spatter": spatter,
    "dotted_line": dotted_line,
    "zigzag": zigzag,
    "canny_edges": canny_edges,
}


def loop(images: np.ndarray, name: str, severity: int, seed: int = 0) -> np.ndarray:
    """Corrupt grey images `[N, H, W]` one by one."""
    rng = seeding.numpy_rng(seed, "loop", name, severity)
    parameter = corruptions.CORRUPTIONS[name].parameters[severity - 1]
    return np.stack([LOOP[name](image, parameter, rng) for image in images])


def blobs(count: int, channels: int, side: int) -> np.ndarray:
    """Images `[N, C, H, W]` with smooth shapes on black, for timing."""
    rng = np.random.default_rng(0)
    field = ndimage.gaussian_filter(rng.normal(size=(count, channels, side, side)), (0, 0, 3, 3))
    return np.clip(255 * 8 * field, 0, 255).astype(np.uint8)


def seconds(work: Callable[..., object], *arguments: Any) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start


def measure(rounds: int = 5, looped: int = 50) -> dict[str, dict[str, float]]:
    """Milliseconds per image at the default severity, best of `rounds`, and the ratio to the loop.

    `ms`: grey images of 28 x 28, all cores. `loop_ms`: in turns with it, `looped` of them on one
    core. `colour64_ms`: colour images of 64 x 64, all cores.
    """
    grey, colour = blobs(IMAGES, 1, SIZE), blobs(COLOUR, 3, 64)
    table: dict[str, dict[str, float]] = {}
    for name in corruptions.FIFTEEN:
        severity = corruptions.resolve(name, "default")
        rows = [
            (
                seconds(corruptions.corrupt_images, grey, name) / IMAGES,
                seconds(loop, grey[:looped, 0], name, severity) / looped,
                seconds(corruptions.corrupt_images, colour, name) / len(colour),
            )
            for _ in range(rounds)
        ]
        best = (1000 * min(column) for column in zip(*rows, strict=True))
        table[name] = dict(zip(COLUMNS, best, strict=True))
    table["all fifteen"] = {key: sum(row[key] for row in table.values()) for key in COLUMNS}
    for row in table.values():
        row["ratio"] = row["loop_ms"] / row["ms"]
    return table


def main() -> None:
    """Print the table."""
    print(f"{'ms per image':14} {'28x28x1':>9} {'loop':>9} {'ratio':>7} {'64x64x3':>9}")
    for name, row in measure().items():
        values = f"{row['ms']:9.4f} {row['loop_ms']:9.3f} {row['ratio']:7.0f}"
        print(f"{name:14} {values} {row['colour64_ms']:9.4f}")


if __name__ == "__main__":
    main()
