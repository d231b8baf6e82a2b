"""The prepared data set as the later stages read it: memory-mapped arrays and their facts."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from robustvae.errors import UserError
from robustvae.runtime import files

SPLITS = ("train", "val", "test")


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Images uint8 [N, C, H, W], read-only; labels int64 [N], or [N, A] attributes; -1: none."""

    folder: Path
    info: dict[str, Any]
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    labels: dict[str, np.ndarray]

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H, W of one image."""
        channels, height, width = self.info["shape"]
        return channels, height, width

    def grey(self, split: str) -> np.ndarray:
        """The images of a split before binarisation."""
        path = self.folder / f"{split}_grey.npy"
        return files.open_npy(path) if path.exists() else getattr(self, split)


def load(folder: Path) -> Prepared:
    """Open what the preprocess stage wrote."""
    info = files.read_json(folder / "info.json")
    there = [split for split in SPLITS if split in info["counts"]]
    empty = np.zeros((0, *info["shape"]), np.uint8)
    images: dict[str, np.ndarray] = dict.fromkeys(SPLITS, empty)
    images |= {split: files.open_npy(folder / f"{split}.npy") for split in there}
    labels = {split: np.asarray(files.open_npy(folder / f"{split}_labels.npy")) for split in there}
    for split in there:
        expected = (info["counts"][split], *info["shape"])
        if images[split].shape != expected or len(labels[split]) != expected[0]:
            raise UserError(
                f"{folder / split}.npy: {images[split].shape} images, {len(labels[split])} labels "
                f"do not fit info.json, which says {expected}; run the preprocess stage again"
            )
    return Prepared(folder, info, labels=labels, **images)
