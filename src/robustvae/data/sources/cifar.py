"""CIFAR-10 and CIFAR-100: 32x32 colour images in Python pickles, read without running them."""

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy._core.multiarray import _reconstruct

from robustvae.data import downloads
from robustvae.data.downloads import Library, Source
from robustvae.data.pictures import Pictures, Pixels
from robustvae.errors import UserError


@dataclasses.dataclass(frozen=True)
class Cifar:
    """One of the two; data/raw holds the archive's files, which a mirror may hold unpacked."""

    archive: Source
    folder: str
    train: dict[str, str]  # file -> md5
    test: dict[str, str]
    meta: dict[str, str]
    labels: str
    names: str

    def download(self, raw: Path, root: Path, library: Library) -> None:
        """Fetch the archive, or the files out of it."""
        md5s = self.train | self.test | self.meta
        members = [Source(f"{self.folder}/{name}", f"md5:{md5}") for name, md5 in md5s.items()]
        found = library.fetch(members[0], self.archive)
        if found.name == Path(self.archive.path).name:
            downloads.unpack_tar(found, [source.path for source in members], raw)
        else:
            for source in members:
                library.deliver(source, raw)
        for source in members:
            if problem := source.problem(raw / Path(source.path).name):
                raise UserError(f"{found}: {source.path}: {problem}; get it from its publisher")

    def read(self, raw: Path, root: Path) -> Pictures:
        """Training images first, then the test images; fine classes for CIFAR-100."""
        parts = [self._batch(raw / name) for name in self.train | self.test]
        images, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
        train, (meta,) = sum(len(x) for x, _ in parts[: len(self.train)]), self.meta
        splits = {"train": np.arange(train), "test": np.arange(train, len(images))}
        return Pictures(Pixels(images), splits, labels, list(_unpickle(raw / meta)[self.names]))

    def _batch(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        content = _unpickle(path)
        images, labels = np.asarray(content["data"]), np.asarray(content[self.labels], np.int64)
        if images.dtype != np.uint8 or images.shape != (len(labels), 3 * 32 * 32):
            raise UserError(f"{path}: not a CIFAR batch: {images.dtype} {images.shape}")
        return images.reshape(-1, 3, 32, 32), labels


class _Arrays(pickle.Unpickler):
    """Builds arrays, and nothing else that a pickle may ask for."""

    ALLOWED = {  # noqa: RUF012 (a constant)
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return self.ALLOWED[module, name]


def _unpickle(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content: dict[str, Any] = _Arrays(file, encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, ValueError, KeyError, IndexError) as error:
        raise UserError(f"{path}: refused: not a CIFAR pickle ({error})") from error
    return content


def _archive(name: str, md5: str) -> Source:
    return Source(name, f"md5:{md5}", (f"https://www.cs.toronto.edu/~kriz/{name}",))


CIFAR10 = Cifar(
    _archive("cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"),
    "cifar-10-batches-py",
    train={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    },
    test={"test_batch": "40351d587109b95175f43aff81a1287e"},
    meta={"batches.meta": "5ff9c542aee3614f3951f8cda6e48888"},
    labels="labels",
    names="label_names",
)
CIFAR100 = Cifar(
    _archive("cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85"),
    "cifar-100-python",
    train={"train": "16019d7e3df5f24257cddd939b257f8d"},
    test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    meta={"meta": "7973b15100ade9c7d40fb424638fde48"},
    labels="fine_labels",
    names="fine_label_names",
)
