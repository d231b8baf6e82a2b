"""A set of images as people have it in a notebook, as uint8 pixels [N, C, H, W]."""

from collections.abc import Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from robustvae.api.images import SMALLEST, Array, in_unit, inside, values
from robustvae.data.downloads import Library
from robustvae.data.pictures import BROKEN, Pictures, Pixels
from robustvae.data.sources import folder
from robustvae.errors import UserError
from robustvae.runtime.progress import track

FORMS = "an array or tensor [N, H, W], [N, C, H, W] or [N, H, W, C], a Dataset of images, a folder"
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Gathered:
    """Images, and a class for each where they have one."""

    pixels: NDArray[np.uint8]  # [N, C, H, W]
    labels: Labels | None = None


def gather(images: Any, labels: Any = None, what: str = "images") -> Gathered:
    """Images of any usual form; `what` names them in messages.

    Floats in [0, 1] become the nearest of 256 grey levels.
    """
    if isinstance(images, str | Path):
        images = _opened(Path(images), what)
    if not hasattr(images, "__array__") and not isinstance(images, list | tuple):
        if not (hasattr(images, "__getitem__") and isinstance(images, Sized)):
            raise UserError(f"{what}: {type(images).__name__} holds no images; give {FORMS}")
        images, found = _listed(images, what)
        labels = found if labels is None else labels
    pixels = _levels(_ordered(np.asarray(images), what), what)
    return Gathered(pixels, None if labels is None else classes(labels, len(pixels), what))


def pictures_of(root: Path, raw: Path) -> Pictures:
    """A folder of pictures; `raw` takes a list of them."""
    folder.download(raw, root, Library(raw))
    return folder.read(raw, root)


def pictures(of: Gathered, val: Gathered | None) -> Pictures:
    """Arrays as a data source; validation images are the last ones where they are given."""
    train, parts = np.arange(len(of.pixels)), [of]
    splits = {"train": train, "test": np.zeros(0, np.int64)}
    if val is not None:
        if val.pixels.shape[1:] != of.pixels.shape[1:]:
            shapes = [list(part.pixels.shape[1:]) for part in (of, val)]
            raise UserError(f"val: images {shapes[1]}, but those to train on are {shapes[0]}")
        splits["val"] = len(train) + np.arange(len(val.pixels))
        parts.append(val)
    found = [np.full(len(p.pixels), -1) if p.labels is None else p.labels for p in parts]
    names = [str(c) for c in range(int(np.concatenate(found).max()) + 1)] or None
    pixels = np.concatenate([p.pixels for p in parts]) if val is not None else of.pixels
    return Pictures(Pixels(pixels), splits, np.concatenate(found).astype(np.int64), names)


def classes(labels: Any, count: int, what: str) -> Labels:
    """One whole number for each image."""
    array = np.asarray(labels)
    if array.shape != (count,) or array.dtype.kind not in "iub":
        raise UserError(
            f"labels: {array.dtype} {list(array.shape)} for {count} {what}; give a whole number "
            "for each, -1 where it has none"
        )
    return array.astype(np.int64)


def _opened(path: Path, what: str) -> Any:
    if path.is_dir():
        return _Files(inside(path))
    if not path.is_file() or path.suffix != ".npy":
        raise UserError(f"{what}: {path} is no .npy file; give {FORMS}")
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: not a readable .npy file ({error})") from None


class _Files:
    """Picture files as a Dataset."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> Image.Image:
        try:
            with Image.open(self.paths[i]) as picture:
                return picture.convert("L" if len(picture.getbands()) < 3 else "RGB")
        except BROKEN as error:
            raise UserError(f"{self.paths[i]}: not a readable picture ({error})") from None


def _listed(images: Any, what: str) -> tuple[Array, list[int] | None]:
    """The images of a Dataset, whose items are images, or tuples that begin with one."""
    pixels: list[Array] = []
    labels: list[int] = []
    for i in track(range(len(images)), "reading", len(images), "image"):
        item = images[i]
        image, *rest = item if isinstance(item, tuple | list) else (item,)
        array = np.asarray(image)
        if isinstance(image, Image.Image) and array.ndim == 3:
            array = np.moveaxis(array, -1, 0)
        pixels.append(array[None] if array.ndim == 2 else array)
        labels.extend(int(label) for label in rest[:1] if np.ndim(label) == 0)
    shapes = {array.shape for array in pixels}
    if len(shapes) != 1:
        raise UserError(
            f"{what}: images of {len(shapes)} different shapes, e.g. "
            f"{' and '.join(str(list(s)) for s in sorted(shapes)[:2])}; resize them to one size"
            if shapes
            else f"{what}: none are there; give at least one image"
        )
    return np.stack(pixels), labels if len(labels) == len(pixels) else None


def _ordered(array: Array, what: str) -> Array:
    """[N, C, H, W]."""
    views = {3: array[:, None] if array.ndim == 3 else None}
    if array.ndim == 4:
        channels = [axis for axis in (1, 3) if array.shape[axis] in (1, 3)]
        views[4] = np.moveaxis(array, channels[0], 1) if channels else None
    view = views.get(array.ndim)
    if view is None or min(view.shape[2:]) < SMALLEST or not len(view):
        raise UserError(
            f"{what}: {array.dtype} {list(array.shape)}; give {FORMS}, of 1 or 3 channels and at "
            f"least {SMALLEST} pixels a side"
        )
    return view


def _levels(array: Array, what: str) -> NDArray[np.uint8]:
    pixels = values(array, what)
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    return np.rint(in_unit(pixels) * 255).astype(np.uint8)
