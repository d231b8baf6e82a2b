"""The 1,797 handwritten digits inside scikit-learn, brought to MNIST's look; no network."""

from pathlib import Path

import numpy as np
from PIL import Image

from robustvae.data.downloads import Library
from robustvae.data.pictures import Pictures, Pixels

GAIN = 2.0  # contrast about mid-grey, so that strokes are as crisp as MNIST's


def download(raw: Path, root: Path, library: Library) -> None:
    """Nothing to fetch."""


def read(raw: Path, root: Path) -> Pictures:
    """All digits as one set without a test split."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.stack([_enlarge(image) for image in digits.images])[:, None]
    labels, names = digits.target.astype(np.int64), [str(d) for d in range(10)]
    splits = {"train": np.arange(len(pixels))}
    return Pictures(Pixels(pixels), splits, labels, names, enlarged=True)


def _enlarge(image: np.ndarray) -> np.ndarray:
    """8x8 counts 0..16 of inked dots -> 20x20 by bicubic interpolation, in MNIST's margin of 4."""
    smooth = Image.fromarray((image / 16).astype(np.float32))
    x = np.asarray(smooth.resize((20, 20), Image.Resampling.BICUBIC))
    ink = np.clip((x - 0.5) * GAIN + 0.5, 0, 1)
    return np.pad(np.rint(ink * 255).astype(np.uint8), 4)
