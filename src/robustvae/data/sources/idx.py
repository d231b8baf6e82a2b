"""MNIST and its look-alikes: four files in the idx format, gzipped or plain."""

import dataclasses
import gzip
import shutil
import zlib
from pathlib import Path

import numpy as np

from robustvae.data.downloads import Library, Source
from robustvae.data.pictures import Pictures, Pixels
from robustvae.errors import UserError
from robustvae.runtime import files

COUNTS = {"train": 60_000, "t10k": 10_000}
MNIST_C = Source(
    "mnist_c.zip",
    "sha256:af9ee8c6a815870c7fdde5af84c7bf8db0bcfa1f41056db83871037fba70e493",
    ("https://zenodo.org/records/3239543/files/mnist_c.zip?download=1",),
)


@dataclasses.dataclass(frozen=True)
class Idx:
    """A data set of 28x28 grey images; data/raw holds it unpacked, wherever it came from."""

    folder: str  # below a mirror
    addresses: tuple[str, ...]
    gzipped: dict[str, str]  # file name without .gz -> md5 of the .gz
    classes: list[str]
    plain: dict[str, str] = dataclasses.field(default_factory=dict)  # md5 of the unpacked file
    counts: dict[str, int] = dataclasses.field(default_factory=lambda: COUNTS)

    def download(self, raw: Path, root: Path, library: Library) -> None:
        """Fetch the four files, unpack and check them."""
        for name, md5 in self.gzipped.items():
            urls = tuple(f"{address}{name}.gz" for address in self.addresses)
            plain = f"md5:{self.plain[name]}" if name in self.plain else None
            found = library.fetch(
                Source(f"{self.folder}/{name}", plain),
                Source(f"{self.folder}/{name}.gz", f"md5:{md5}", urls),
            )
            opener = gzip.open if found.suffix == ".gz" else open
            with files.replace(raw / name) as temporary:
                try:
                    with opener(found, "rb") as packed, temporary.open("wb") as file:
                        shutil.copyfileobj(packed, file)
                except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                    raise UserError(f"{found}: damaged ({error}); delete it, run again") from error
                self._array(temporary, name, found)

    def read(self, raw: Path, root: Path) -> Pictures:
        """Training images first, then the test images."""
        arrays = {name: self._array(raw / name, name, raw / name) for name in self.gzipped}
        images = [a for a in arrays.values() if a.ndim == 3]
        labels = [a for a in arrays.values() if a.ndim == 1]
        pixels, train = np.concatenate(images)[:, None], len(images[0])
        splits = {"train": np.arange(train), "test": np.arange(train, len(pixels))}
        return Pictures(
            Pixels(pixels), splits, np.concatenate(labels).astype(np.int64), self.classes
        )

    def _array(self, path: Path, name: str, origin: Path) -> np.ndarray:
        """Content of an idx file: magic 0, 0, 8 (bytes), number of axes; their sizes; the bytes."""
        count = self.counts[name.partition("-")[0]]
        shape = (count, 28, 28) if "images" in name else (count,)
        header = bytes([0, 0, 8, len(shape)]) + np.array(shape, dtype=">u4").tobytes()
        data = np.fromfile(path, dtype=np.uint8)
        body = data[len(header) :]
        if data[: len(header)].tobytes() != header or body.size != np.prod(shape):
            raise UserError(f"{origin}: not an idx file of {shape} bytes; replace it by {name}")
        if len(shape) == 1 and body.max() >= len(self.classes):
            raise UserError(f"{origin}: label {body.max()}, but there are {len(self.classes)}")
        return body.reshape(shape)


FILES = tuple(f"{part}-{kind}-ubyte" for part in COUNTS for kind in ("images-idx3", "labels-idx1"))


def _by_file(*md5s: str) -> dict[str, str]:
    return dict(zip(FILES, md5s, strict=True))


MNIST = Idx(
    "MNIST/raw",
    ("https://ossci-datasets.s3.amazonaws.com/mnist/",
     "https://storage.googleapis.com/cvdf-datasets/mnist/"),
    _by_file("f68b3c2dcbeaaa9fbdd348bbdeb94873", "d53e105ee54ea40749a09fcbcd1e9432",
             "9fb629c4189551a2d022fa330f9573f3", "ec29112dd5afa0611ce80d1b7f02629c"),
    [str(d) for d in range(10)],
    _by_file("6bbc9ace898e44ae57da46a324031adb", "a25bea736e30d166cdddb491f175f624",
             "2646ac647ad5339dbf082846283269ea", "27ae3e4e09519cfbb04c329615203637"),
)  # fmt: skip
FASHION = Idx(
    "FashionMNIST/raw",
    ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    _by_file("8d4fb7e6c68d591d4c3dfef9ec88bf0d", "25c81989df183df01b3e8a0aad5dffbe",
             "bef4ecab320f06d8554ea6380940ec79", "bb300cfdad3c16e7a12a480ee83cd310"),
    ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
     "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"],
)  # fmt: skip
KMNIST = Idx(
    "KMNIST/raw",
    ("http://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
    _by_file("bdb82020997e1d708af4cf47b453dcf7", "e144d726b3acfaa3e44228e80efcd344",
             "5c965bf0a639b31b8f53240b1b52f4d7", "7320c461ea6c1c855c0b718fb2a4b134"),
    ["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"],
)  # fmt: skip
