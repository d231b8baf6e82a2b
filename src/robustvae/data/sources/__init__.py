"""The data sources: how each gets to data/raw, how it is read from there, and its licence."""

from pathlib import Path
from typing import Protocol

from robustvae.data.downloads import Library
from robustvae.data.pictures import Pictures
from robustvae.data.sources import celeba, cifar, digits, folder, idx, mnist5k


class Dataset(Protocol):
    """One data source; `root` is where the user's own images are."""

    def download(self, raw: Path, root: Path, library: Library) -> None:
        """Bring it to data/raw."""

    def read(self, raw: Path, root: Path) -> Pictures:
        """Its pictures, from there."""


DATASETS: dict[str, Dataset] = {
    "mnist-5k": mnist5k,
    "digits": digits,
    "mnist": idx.MNIST,
    "fashion-mnist": idx.FASHION,
    "kmnist": idx.KMNIST,
    "cifar10": cifar.CIFAR10,
    "cifar100": cifar.CIFAR100,
    "celeba": celeba.CELEBA,
    "folder": folder,
}
KRIZHEVSKY = "cite A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009"
MNIST = "CC BY-SA 3.0, as commonly stated (LeCun and Cortes)"
UCI = "Optical Recognition of Handwritten Digits, UCI Machine Learning Repository"
LICENCES = {
    "mnist-5k": MNIST,
    "digits": f"CC BY 4.0 ({UCI})",
    "mnist": MNIST,
    "fashion-mnist": "MIT (Zalando SE)",
    "kmnist": "CC BY-SA 4.0 (KMNIST Dataset, created by CODH)",
    "cifar10": f"no explicit licence; {KRIZHEVSKY}",
    "cifar100": f"no explicit licence; {KRIZHEVSKY}",
    "celeba": "non-commercial research only (CelebA agreement, CUHK)",
    "folder": "your own images",
}
