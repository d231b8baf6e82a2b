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
    train: np.memmap
    val: np.memmap
    test: np.memmap
    labels: dict[str, np.ndarray]

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H, W of one image."""
        channels, height, width = self.info["shape"]
        return channels, height, width

    def grey(self, split: str) -> np.memmap:
        """The images of a split before binarisation."""
        path = self.folder / f"{split}_grey.npy"
        return files.open_npy(path) if path.exists() else getattr(self, split)


def load(folder: Path) -> Prepared:
    """Open what the preprocess stage wrote."""
    info = files.read_json(folder / "info.json")
    images = {split: files.open_npy(folder / f"{split}.npy") for split in SPLITS}
    labels = {split: np.asarray(files.open_npy(folder / f"{split}_labels.npy")) for split in SPLITS}
    for split in SPLITS:
        expected = (info["counts"][split], *info["shape"])
        if images[split].shape != expected or len(labels[split]) != expected[0]:
            raise UserError(
                f"{folder / split}.npy: {images[split].shape} images, {len(labels[split])} labels "
                f"do not fit info.json, which says {expected}; run the preprocess stage again"
            )
    return Prepared(folder, info, labels=labels, **images)
