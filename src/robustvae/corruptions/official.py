"""MNIST-C as published: the archive, or the folder it unpacks to, wherever inside the sets lie."""

import zipfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustvae.errors import UserError

COUNTS = {"train": 60_000, "test": 10_000}


def read(path: Path, name: str, split: str) -> NDArray[np.uint8]:
    """Images `[N, 1, 28, 28]` of a set, in the order of MNIST; "identity" is the clean one."""
    wanted = f"{name}/{split}_images.npy"
    return _array(path, wanted, "uint8", np.uint8, (COUNTS[split], 28, 28, 1))[:, None, :, :, 0]


def read_labels(path: Path, name: str, split: str) -> NDArray[Any]:
    """Labels `[N]` of a set."""
    return _array(path, f"{name}/{split}_labels.npy", "integers", np.integer, (COUNTS[split],))


def order(path: Path, images: NDArray[np.uint8], split: str) -> NDArray[np.int64]:
    """Where each clean image `[N, 1, 28, 28]` stands in the archive, found in its identity set."""
    places: dict[bytes, list[int]] = defaultdict(list)
    for place, image in reversed(list(enumerate(read(path, "identity", split)))):
        places[image.tobytes()].append(place)
    try:
        return np.array([places[image.tobytes()].pop() for image in images], np.int64)
    except IndexError:
        raise UserError(
            f"{path}: its identity set lacks some of the {split} images; MNIST-C belongs to "
            "data.name mnist at 28 pixels, for others use corruptions.source generate"
        ) from None


def verify(
    path: Path, names: Sequence[str], images: NDArray[np.uint8], labels: NDArray[Any], split: str
) -> NDArray[np.int64]:
    """Check that every set is whole and belongs to these clean images and labels; their `order`."""
    places = order(path, images, split)
    for name in ("identity", *names):
        if not np.array_equal(read_labels(path, name, split)[places], labels):
            raise UserError(f"{path}: the labels of {name} are not those of MNIST; fetch it again")
    return places


def _array(
    path: Path, wanted: str, kind: str, dtype: type[Any], shape: tuple[int, ...]
) -> NDArray[Any]:
    """One array of the archive or folder, which must be of this type and shape."""
    array = _read(path, wanted)
    if not np.issubdtype(array.dtype, dtype) or array.shape != shape:
        raise UserError(
            f"{path}: {wanted} holds {array.dtype} {list(array.shape)}, must be {kind} "
            f"{list(shape)}; fetch mnist_c.zip of Zenodo record 3239543 again"
        )
    return array


def _read(path: Path, wanted: str) -> NDArray[Any]:
    try:
        if path.is_dir():
            found = [f"/{p.relative_to(path).as_posix()}" for p in path.rglob(Path(wanted).name)]
        else:
            with zipfile.ZipFile(path) as archive:
                found = [f"/{member}" for member in archive.namelist()]
        inside = min((p for p in found if p.endswith(f"/{wanted}")), key=len, default=None)
        if inside is None:
            raise UserError(f"{path}: no {wanted} inside; is it mnist_c.zip, or its folder?")
        if path.is_dir():
            array: NDArray[Any] = np.load(path / inside[1:], mmap_mode="r")
            return array
        with zipfile.ZipFile(path) as archive, archive.open(inside[1:]) as stream:
            return np.lib.format.read_array(stream)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: {wanted} cannot be read ({error}); fetch it again") from error
