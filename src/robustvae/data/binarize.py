"""Grey images -> black and white ones; the same function for clean and corrupted images alike."""

import torch
from torch import Tensor


def apply(x: Tensor, mode: str, threshold: float, rng: torch.Generator | None) -> Tensor:
    """Binarise uint8 images (0..255 -> {0, 255}) or float ones ([0, 1] -> {0, 1}); the dtype stays.

    `threshold`: x > threshold. `static`, `dynamic`: Bernoulli(x) from `rng`. `none`: as is.
    """
    if mode == "none":
        return x
    if mode == "threshold":
        ones = x > _level(threshold, x.dtype)
    elif mode not in ("static", "dynamic") or rng is None:
        raise ValueError(f"binarize {mode!r}: no such mode, or no generator to draw from")
    elif x.dtype == torch.uint8:
        draw = torch.randint(0, 255, x.shape, dtype=x.dtype, device=x.device, generator=rng)
        ones = draw < x  # x of the 255 equally likely values 0 .. 254
    else:
        return above(x, torch.rand(x.shape, dtype=x.dtype, device=x.device, generator=rng))
    return ones.to(x.dtype) * (255 if x.dtype == torch.uint8 else 1)


def above(x: Tensor, levels: Tensor) -> Tensor:
    """1 where float pixels exceed levels in [0, 1), else 0: white with probability x."""
    return (levels < x).to(x.dtype)


def _level(threshold: float, dtype: torch.dtype) -> float:
    """Bound of the same comparison: of 8-bit levels, the highest v with v / 255 <= threshold."""
    if dtype != torch.uint8:
        return threshold
    return sum(v / 255 <= threshold for v in range(256)) - 1
