"""Grey images -> black and white ones; the same function for clean and corrupted images alike."""

import torch
from torch import Tensor


def apply(x: Tensor, mode: str, threshold: float, rng: torch.Generator | None) -> Tensor:
    """Binarise uint8 images (0..255 -> {0, 255}) or float ones ([0, 1] -> {0, 1}); the dtype stays.

    `threshold`: x > threshold. `static`, `dynamic`: Bernoulli(x) from `rng`. `none`: as is.
    """
    if mode == "none":
        return x
    white = 255 if x.dtype == torch.uint8 else 1
    if mode == "threshold":
        return (x > _level(threshold, x.dtype)).to(x.dtype) * white
    if mode in ("static", "dynamic"):
        if rng is None:
            raise ValueError(f"binarize {mode}: needs a generator to draw from")
        p = x / white if white == 255 else x
        return torch.bernoulli(p, generator=rng).to(x.dtype) * white
    raise ValueError(f"unknown binarize mode {mode!r}")


def _level(threshold: float, dtype: torch.dtype) -> float:
    """Bound of the same comparison: of 8-bit levels, the highest v with v / 255 <= threshold."""
    if dtype != torch.uint8:
        return threshold
    return sum(v / 255 <= threshold for v in range(256)) - 1
