"""Contaminated images as training reads them, without the masks; and as evaluation does."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np

from robustvae.data.prepared import Prepared
from robustvae.runtime import files

SPLITS = ("train", "val")


def share(count: int, fraction: float) -> int:
    """The exact share of so many images."""
    return math.floor(fraction * count + 0.5)


def load(data: Prepared, place: Path) -> Prepared:
    """The prepared data with the images to train on as the stage contaminate left them; no mask."""
    info = files.read_json(place / "info.json")
    if not info["contaminated"]:
        return data
    train, val = (files.open_npy(place / f"{split}.npy") for split in SPLITS)
    labels = {s: np.asarray(files.open_npy(place / f"{s}_labels.npy")) for s in SPLITS}
    counts = {**data.info["counts"], "train": len(train), "val": len(val)}
    told = {**data.info, "counts": counts, "contamination": info}
    labels = {**data.labels, **labels}
    return dataclasses.replace(data, info=told, labels=labels, train=train, val=val)


@dataclasses.dataclass(frozen=True)
class Outliers:
    """What evaluation knows of outliers, and training does not."""

    info: dict[str, Any]
    train: np.ndarray  # [N, C, H, W], as trained on
    mask: np.ndarray  # [N], True for outliers
    test: np.ndarray  # outliers to test on
    clean: np.ndarray  # which of the test images are none

    @classmethod
    def load(cls, place: Path) -> "Outliers | None":
        """None where training was not contaminated."""
        info = files.read_json(place / "info.json")
        if not info["contaminated"]:
            return None
        names = ("train", "train_mask", "test_outliers", "test_clean")
        return cls(info, *(files.open_npy(place / f"{name}.npy") for name in names))
