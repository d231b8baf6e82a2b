"""Images from wherever people have them, in the shape that a model takes, or a clear refusal."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from robustvae.data import prepared
from robustvae.data.pictures import BROKEN, Files, Geometry, Pixels
from robustvae.errors import UserError
from robustvae.runtime.progress import track

Shape = tuple[int, int, int]
Array = NDArray[Any]
LOOKED_AT = 20  # pictures that say whether a folder is grey
USUAL_SIDE, LARGEST_SIDE = 32, 64  # pixels that images to be compared are brought to
SMALLEST = 8  # pixels of a side: an axis shorter than this is not rows or columns
KINDS = "pictures, a folder of them, a .npy file, or train, val or test of the prepared data"
REMEDY = "--resize (in Python resize=True) crops and scales"


@dataclass(frozen=True)
class Images:
    """Pixels uint8, or float32 in [0, 1], [N, C, H, W]; what each image is called."""

    pixels: Array
    names: Sequence[str]
    pictures: bool = False  # are the names those of picture files?

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, where: slice) -> "Images":
        return Images(self.pixels[where], self.names[where], self.pictures)


Source = Images | str | Path | Sequence[str] | ArrayLike


def read(source: Source, shape: Shape, data: Path, resize: bool = False) -> Images:
    """Images of `shape` from an array, a path, a prepared split, or several of the latter."""
    if isinstance(source, Images):
        return source
    if isinstance(source, str | Path):
        return _named(str(source), shape, data, resize)
    if isinstance(source, list | tuple) and all(isinstance(s, str | Path) for s in source):
        parts = [_named(str(s), shape, data, resize) for s in source]
        arrays = [part.pixels for part in parts]
        if len({array.dtype for array in arrays}) > 1:
            arrays = [in_unit(array) for array in arrays]
        pixels = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
        names = [name for part in parts for name in part.names]
        return Images(pixels, names, all(part.pictures for part in parts))
    return _numbered(_fitted(np.asarray(source), shape, "the array", resize))


def usual_shape(source: Source, size: int | None) -> Shape:
    """Channels and side that these images are best brought to; `size` where it is given."""
    if isinstance(source, str | Path) and Path(source).is_dir():
        some = inside(Path(source))[:LOOKED_AT]
        return max(map(_bands, some)), *(size or USUAL_SIDE,) * 2
    opened = _opened(Path(source)) if isinstance(source, str | Path) else source
    array = opened.pixels if isinstance(opened, Images) else np.asarray(opened)
    layouts = [x for x in ("NHW", "NCHW", "NHWC") if len(x) == array.ndim]
    views = [view for x in layouts if (view := _view(array, x)) is not None]
    if not views:
        raise UserError(
            f"{source if isinstance(source, str | Path) else 'the array'}: {array.dtype} "
            f"{list(array.shape)}; images must be [N, H, W], [N, H, W, 1 or 3] or [N, 1 or 3, H, W]"
        )
    channels, height, width = views[0].shape[1:]
    own = height if height == width <= LARGEST_SIDE else USUAL_SIDE
    return channels, *(size or own,) * 2


def _bands(path: Path) -> int:
    try:
        with Image.open(path) as picture:
            return _channels(picture, 1)
    except BROKEN as error:
        raise UserError(f"{path}: not a readable picture ({error})") from None


def in_unit(pixels: Array) -> NDArray[np.float32]:
    """Pixels as floats in [0, 1]."""
    return np.divide(pixels, 255 if pixels.dtype == np.uint8 else 1, dtype=np.float32)


def kind(shape: Shape) -> str:
    """Width, height and channels: `28 x 28 grey`."""
    channels, height, width = shape
    return f"{width} x {height} {'grey' if channels == 1 else 'colour'}"


def _named(text: str, shape: Shape, data: Path, resize: bool) -> Images:
    """Pictures; or `test`, `test:7` (one), `test:0:16` (those below 16); likewise of a .npy."""
    path = Path(text)
    if path.is_dir():
        return _pictures(inside(path), shape, resize)
    if path.is_file() and path.suffix != ".npy":
        return _pictures([path], shape, resize)
    parts = re.fullmatch(r"(.*?)(?::(\d+))?(?::(\d+))?", text, re.DOTALL)
    name, first, stop = parts.groups() if parts else (text, None, None)
    if name in prepared.SPLITS:
        images = _fitted(_split(data, name), shape, f"{data / name}.npy", resize)
    elif name.endswith(".npy") and Path(name).is_file():
        images = _fitted(_opened(Path(name)), shape, name, resize)
    else:
        raise UserError(f"{text}: no such file or folder; name {KINDS}")
    if first is None:
        return _numbered(images)
    start, end = int(first), int(first) + 1 if stop is None else int(stop)
    if not start < min(end, len(images)):
        raise UserError(f"{text}: no image there; there are {len(images)}, numbered from 0")
    return _numbered(images[start:end], start)


def _numbered(pixels: Array, first: int = 0) -> Images:
    return Images(pixels, [str(first + i) for i in range(len(pixels))])


def _split(folder: Path, name: str) -> Array:
    if not (folder / "info.json").is_file():
        raise UserError(
            f"{folder}: no prepared data for {name!r}; run `dvc repro preprocess`, or name {KINDS}"
        )
    images: Array = getattr(prepared.load(folder), name)
    return images


def _opened(path: Path) -> Array:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: not a readable .npy file ({error})") from None
    return np.asanyarray(array)


def inside(folder: Path) -> list[Path]:
    """Every picture below a folder, in order; other files and hidden ones do not count."""
    known = Image.registered_extensions()
    files = [p for p in folder.rglob("*") if p.is_file() and p.suffix.lower() in known]
    found = [p for p in files if not any(s.startswith(".") for s in p.relative_to(folder).parts)]
    if not found:
        raise UserError(f"{folder}: no pictures in this folder; name {KINDS}")
    return sorted(found)


def _pictures(paths: list[Path], shape: Shape, resize: bool) -> Images:
    """Decode pictures; turned as their camera says, transparency on white."""
    geometry, reader = Geometry(shape[1], shape[0], None), Files(Path(), [str(p) for p in paths])
    pixels = np.empty((len(paths), *shape), np.uint8)
    for i in track(range(len(paths)), "reading", unit="picture"):
        try:
            with reader.image(i) as picture:
                pixels[i] = geometry.bring(picture, reader.name(i))
                found = (_channels(picture, shape[0]), picture.height, picture.width)
        except BROKEN as error:
            raise UserError(f"{paths[i]}: not a readable picture ({error})") from None
        if not resize and found != shape:
            raise UserError(f"{paths[i]}: {kind(found)}; the model takes {kind(shape)}; {REMEDY}")
    return Images(pixels, reader.names, pictures=True)


def _channels(picture: Image.Image, wanted: int) -> int:
    """1 or 3; grey that was saved as colour is grey to a model that wants grey."""
    if len(picture.getbands()) < 3 and picture.mode != "P":
        return 1
    bands = np.asarray(picture.convert("RGB"))
    return 1 if wanted == 1 and (bands == bands[..., :1]).all() else 3


def _fitted(array: Array, shape: Shape, what: str, resize: bool) -> Array:
    """An array of any usual layout as [N, C, H, W], uint8 or float32."""
    layouts = [x for x in ("HW", "NHW", "CHW", "HWC", "NCHW", "NHWC") if len(x) == array.ndim]
    views = [view for x in layouts if (view := _view(array, x)) is not None]
    # What could be read in two ways ([3, 28, 28]) is decided by the model's channels.
    fitting = [view for view in views if view.shape[1:] == shape] or [
        view for view in views if resize and (view.shape[1] == shape[0] or len(views) == 1)
    ]
    if not fitting or not len(array):
        c, h, w = shape
        grey = f" or [N, {h}, {w}]" if c == 1 else ""
        raise UserError(
            f"{what}: {array.dtype} {list(array.shape)}; the model takes [N, {c}, {h}, {w}], "
            f"[N, {h}, {w}, {c}]{grey}" + ("" if resize else f"; {REMEDY}")
        )
    pixels = values(fitting[0], what)
    if pixels.shape[1:] == shape:
        return pixels
    geometry = Geometry(shape[1], shape[0], None)
    reader = Pixels(np.rint(in_unit(pixels) * 255).astype(np.uint8))
    return np.stack([geometry.bring(reader.image(i), what) for i in range(len(pixels))])


def _view(array: Array, layout: str) -> Array | None:
    """[N, C, H, W] if the axes can be these."""
    size = {"N": 1, "C": 1, **dict(zip(layout, array.shape, strict=True))}
    if size["C"] not in (1, 3) or min(size["H"], size["W"]) < SMALLEST:
        return None
    ordered = array.transpose([layout.index(axis) for axis in "NCHW" if axis in layout])
    return ordered.reshape([size[axis] for axis in "NCHW"])


def values(array: Array, what: str) -> Array:
    """uint8, or float32 in [0, 1]; True is white."""
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind not in "f" and array.dtype != np.uint8:
        raise UserError(f"{what}: {array.dtype}; use uint8 in 0 .. 255, or floats in [0, 1]")
    if array.dtype == np.uint8:
        return array
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 1):
        raise UserError(f"{what}: floats must lie in [0, 1], found {low:g} .. {high:g}")
    return array.astype(np.float32)
