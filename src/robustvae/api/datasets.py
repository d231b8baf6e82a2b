"""Data sets as arrays."""

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robustvae import params
from robustvae.data import prepared
from robustvae.data.catalogue import DATASETS
from robustvae.data.downloads import Library
from robustvae.data.prepare import prepare
from robustvae.errors import UserError, did_you_mean
from robustvae.runtime import files


def load(
    name: str = "mnist-5k",
    split: str = "train",
    *,
    limit: int | None = None,
    image_size: int | None = None,
    mirror: str | None = None,
    cache: Path | str | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images [N, C, H, W], uint8, and their classes of a split: train, val or test.

    The splits are those of the pipeline. mnist-5k and digits need no network; others are fetched
    once, verified, into `cache` (robustvae's folder among the user's caches). `mirror`: as
    data.mirror. `limit`: a seeded subset of so many images of train and of test.

    >>> import robustvae as rv
    >>> x, y = rv.datasets.load("mnist-5k")
    >>> x.shape, y.shape
    ((4000, 1, 28, 28), (4000,))
    """
    if name == "folder" or name not in DATASETS:
        known = [name for name in DATASETS if name != "folder"]
        raise UserError(f"data set: unknown {name!r}{did_you_mean(name, known)}; one of "
                        f"{', '.join(known)}")  # fmt: skip
    if split not in prepared.SPLITS:
        raise UserError(f"split: must be one of {', '.join(prepared.SPLITS)}, got {split!r}")
    chosen = params.complete({
        "data.name": name, "data.limit": limit,
        "preprocess.image_size": "auto" if image_size is None else image_size,
    })  # fmt: skip
    place = files.user_cache() if cache is None else Path(cache)
    with tempfile.TemporaryDirectory(prefix="robustvae-", ignore_cleanup_errors=True) as folder:
        raw, out = Path(folder) / "raw", Path(folder) / "prepared"
        raw.mkdir()
        DATASETS[name].download(raw, raw, Library.of(place / "downloads", mirror))
        info = prepare(DATASETS[name].read(raw, raw), chosen.data, chosen.preprocess, out)
        files.write_json(out / "info.json", info)
        data = prepared.load(out)
        return np.array(getattr(data, split)), data.labels[split]
