"""Independent random streams by name, all from one seed, so that a new stream moves no other."""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def seed(root: int, *names: str | int) -> int:
    """63-bit seed of the stream `names` under `root`, by SHA-256: no two streams overlap."""
    text = "/".join([str(root), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_rng(root: int, *names: str | int) -> np.random.Generator:
    """NumPy generator of a named stream."""
    return np.random.default_rng(seed(root, *names))


def generator(root: int, *names: str | int, device: str = "cpu") -> "torch.Generator":
    """Torch generator of a named stream."""
    import torch

    return torch.Generator(device=device).manual_seed(seed(root, *names))
