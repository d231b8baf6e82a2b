"""Training and validation images of which an exact share are outliers; the masks are kept apart."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustvae import corruptions
from robustvae.data.contaminated import SPLITS, share
from robustvae.data.downloads import Library
from robustvae.data.pictures import Geometry
from robustvae.data.prepare import write_images
from robustvae.data.prepared import Prepared
from robustvae.data.sources import folder
from robustvae.errors import UserError
from robustvae.params import ContaminationSettings
from robustvae.runtime import files, seeding

Images = NDArray[np.uint8]
# (images to replace, split, how many) -> outliers; a split's stream is its own
Maker = Callable[[Images, str, int], Images]


def contaminate(data: Prepared, settings: ContaminationSettings, out: Path) -> dict[str, Any]:
    """Write images, labels and masks of train and val, and test outliers; what info.json says.

    Nothing but that is written where no image would be another one.
    """
    facts: dict[str, Any] = {"kind": settings.kind, "fraction": settings.fraction}
    if settings.kind == "none" or (settings.fraction == 0 and settings.inliers is None):
        return {**facts, "contaminated": False}
    own = {"corruption": ("names", "severity"), "classes": ("inliers",)}.get(settings.kind, ())
    facts |= {name: getattr(settings, name) for name in own}
    if settings.kind == "classes":
        parts = {split: _of_classes(data, settings, split) for split in SPLITS}
        test = data.grey("test")[~_inside(data, settings, "test")]
    else:
        make = _maker(data, settings)
        parts = {split: _replaced(data, settings, split, make) for split in SPLITS}
        test = make(np.array(data.grey("test")), "test", len(data.test))
    for split, (images, labels, mask) in parts.items():
        files.save_npy(out / f"{split}.npy", _binarised(images, data, settings.seed, split))
        files.save_npy(out / f"{split}_labels.npy", labels)
        files.save_npy(out / f"{split}_mask.npy", mask)
    files.save_npy(out / "test_outliers.npy", _binarised(test, data, settings.seed, "test"))
    if settings.kind == "classes":
        clean = np.flatnonzero(_inside(data, settings, "test"))
    else:
        clean = np.arange(len(data.test))
    files.save_npy(out / "test_clean.npy", clean)
    return {
        **facts, "contaminated": True,
        "counts": {split: len(images) for split, (images, _, _) in parts.items()},
        "outliers": {split: int(mask.sum()) for split, (_, _, mask) in parts.items()},
        "test_outliers": len(test), "test_clean": len(clean),
        "checksums": {path.name: files.sha256(path) for path in sorted(out.glob("*.npy"))},
    }  # fmt: skip


def _replaced(
    data: Prepared, settings: ContaminationSettings, split: str, make: Maker
) -> tuple[Images, NDArray[np.int64], NDArray[np.bool_]]:
    """Images of a split, a share of which `make` replaces at seeded places."""
    images, labels = np.array(data.grey(split)), data.labels[split]
    rng = seeding.numpy_rng(settings.seed, "contamination", split)
    where = np.sort(rng.permutation(len(images))[: share(len(images), settings.fraction)])
    mask = np.zeros(len(images), bool)
    mask[where] = True
    if len(where):
        images[where] = make(images[where], split, len(where))
    return images, labels, mask


def _of_classes(
    data: Prepared, settings: ContaminationSettings, split: str
) -> tuple[Images, NDArray[np.int64], NDArray[np.bool_]]:
    """Images of the inlying classes, and of others so many that they are the share of all."""
    inside = _inside(data, settings, split)
    inliers, others = np.flatnonzero(inside), np.flatnonzero(~inside)
    odds = settings.fraction / (1 - settings.fraction)
    count = share(len(inliers), odds)
    if not len(inliers):
        raise UserError(
            f"contamination.inliers: no image of {split} is of class "
            f"{', '.join(map(str, settings.inliers or ()))}; use classes of this data set"
        )
    if count > len(others):
        raise UserError(
            f"contamination.fraction: {settings.fraction:g} needs {count} {split} images of other "
            f"classes, there are {len(others)}; lower it, or name more inliers"
        )
    rng = seeding.numpy_rng(settings.seed, "contamination", split)
    outliers = rng.permutation(others)[:count]
    chosen = rng.permutation(np.concatenate([inliers, outliers]))
    return np.array(data.grey(split)[chosen]), data.labels[split][chosen], ~inside[chosen]


def _inside(data: Prepared, settings: ContaminationSettings, split: str) -> NDArray[np.bool_]:
    labels = data.labels[split]
    if labels.ndim > 1 or labels.max(initial=-1) < 0:
        raise UserError(
            "contamination.kind: classes needs images with one class each, which this data set "
            "has not; use corruption, noise, invert or pictures"
        )
    return np.isin(labels, settings.inliers or ())


def _maker(data: Prepared, settings: ContaminationSettings) -> Maker:
    if settings.kind == "corruption":
        return lambda images, split, n: _corrupted(images, settings, split)
    if settings.kind == "noise":
        return lambda images, split, n: seeding.numpy_rng(
            settings.seed, "contamination", "noise", split
        ).integers(0, 256, (n, *data.shape), dtype=np.uint8)
    if settings.kind == "invert":
        return lambda images, split, n: 255 - images
    return _Pictures(data, settings)


def _corrupted(images: Images, settings: ContaminationSettings, split: str) -> Images:
    """Each image under one of the corruptions, drawn for it."""
    rng = seeding.numpy_rng(settings.seed, "contamination", "names", split)
    drawn = rng.integers(0, len(settings.names), len(images))
    found = np.empty_like(images)
    for number, name in enumerate(settings.names):
        chosen, stream = drawn == number, seeding.seed(settings.seed, "contamination", split)
        if chosen.any():
            found[chosen] = corruptions.corrupt_images(
                images[chosen], name, settings.severity, stream
            )
    return found


class _Pictures:
    """Pictures of a folder, cropped and resized like the data; other ones for testing."""

    def __init__(self, data: Prepared, settings: ContaminationSettings) -> None:
        with tempfile.TemporaryDirectory(prefix="robustvae-") as place:
            folder.download(Path(place), Path(settings.root), Library(Path(place)))
            source = folder.read(Path(place), Path(settings.root))
        names = sorted(range(len(source.labels)), key=source.reader.name)
        self.reader, self.shape = source.reader, data.shape
        halves = {"train": names[0::2], "test": names[1::2]}
        # Validation has its own part of the training half.
        some = max(1, len(halves["train"]) // 10)
        self.parts: dict[str, Sequence[int]] = {
            "train": halves["train"][some:], "val": halves["train"][:some], "test": halves["test"],
        }  # fmt: skip
        self.settings = settings

    def __call__(self, images: Images, split: str, count: int) -> Images:
        """So many of the split's part; again from the start where there are fewer."""
        part = np.array(self.parts[split])
        if not len(part):
            raise UserError(
                f"contamination.root: too few pictures in {self.settings.root} for training and "
                "testing; give at least four"
            )
        rng = seeding.numpy_rng(self.settings.seed, "contamination", "pictures", split)
        chosen = np.resize(rng.permutation(part), count)
        with tempfile.TemporaryDirectory(prefix="robustvae-") as place:
            path = Path(place) / "pictures.npy"
            channels, side = self.shape[0], self.shape[1]
            write_images(self.reader, Geometry(side, channels, None), {path: chosen})
            return np.array(files.open_npy(path))


def _binarised(images: Images, data: Prepared, seed: int, split: str) -> Images:
    """Black and white as the data are on disk; `dynamic` is drawn in training."""
    mode = data.info["binarize"]
    if mode not in ("threshold", "static"):
        return images
    import torch  # not at the top: most runs have nothing to replace, and do without

    from robustvae.data import binarize

    rng = seeding.generator(seed, "contamination", "binarize", split)
    found = binarize.apply(torch.from_numpy(images), mode, data.info["threshold"], rng)
    return found.numpy()
