"""The data sources: how each gets to data/raw, how it is read from there, and its licence."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from robustvae.datasets import celeba, cifar, digits, folder, idx
from robustvae.datasets.pictures import Pictures
from robustvae.downloads import Library
from robustvae.prepared import Prepared, load

__all__ = ["DATASETS", "Dataset", "Prepared", "load"]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One data source; `root` is where the user's own images are."""

    download: Callable[[Path, Path, Library], None]  # raw, root, library
    read: Callable[[Path, Path], Pictures]  # raw, root
    licence: str


CIFAR_LICENCE = (
    "no explicit licence; cite A. Krizhevsky, Learning Multiple Layers of Features from "
    "Tiny Images, 2009"
)

DATASETS: dict[str, Dataset] = {
    "digits": Dataset(
        digits.download,
        digits.read,
        "CC BY 4.0 (Optical Recognition of Handwritten Digits, UCI Machine Learning Repository)",
    ),
    "mnist": Dataset(
        idx.MNIST.download, idx.MNIST.read, "CC BY-SA 3.0, as commonly stated (LeCun and Cortes)"
    ),
    "fashion-mnist": Dataset(idx.FASHION.download, idx.FASHION.read, "MIT (Zalando SE)"),
    "kmnist": Dataset(
        idx.KMNIST.download, idx.KMNIST.read, "CC BY-SA 4.0 (KMNIST Dataset, created by CODH)"
    ),
    "cifar10": Dataset(cifar.CIFAR10.download, cifar.CIFAR10.read, CIFAR_LICENCE),
    "cifar100": Dataset(cifar.CIFAR100.download, cifar.CIFAR100.read, CIFAR_LICENCE),
    "celeba": Dataset(
        celeba.CELEBA.download,
        celeba.CELEBA.read,
        "non-commercial research only (CelebA agreement, CUHK)",
    ),
    "folder": Dataset(folder.download, folder.read, "your own images"),
}
