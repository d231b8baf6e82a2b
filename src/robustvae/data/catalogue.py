"""The data sets by name: where their code is, their images as they come, their licences."""

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from robustvae.params import register
from robustvae.params.parts import TABLES, Table

if TYPE_CHECKING:
    from robustvae.data.downloads import Library
    from robustvae.data.pictures import Pictures


class Dataset(Protocol):
    """One data source; `root` is where the user's own images are."""

    def download(self, raw: Path, root: Path, library: "Library") -> None:
        """Bring it to data/raw."""

    def read(self, raw: Path, root: Path) -> "Pictures":
        """Its pictures, from there."""


def made(code: Any, **_facts: Any) -> Dataset:
    """A module or an object as it is, a class as one of it."""
    return cast(Dataset, code() if inspect.isclass(code) else code)


DATASETS: Table[Dataset] = TABLES["dataset"]
KRIZHEVSKY = "cite A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009"
MNIST = "CC BY-SA 3.0, as commonly stated (LeCun and Cortes)"
UCI = "Optical Recognition of Handwritten Digits, UCI Machine Learning Repository"
# Name -> file of sources/ and what it calls it; side in pixels and channels as the images come
# (CelebA: as it is customarily resized); licence
SOURCES: dict[str, tuple[str, tuple[int, int] | None, str]] = {
    "mnist-5k": ("mnist5k", (28, 1), MNIST),
    "digits": ("digits", (28, 1), f"CC BY 4.0 ({UCI})"),
    "mnist": ("idx:MNIST", (28, 1), MNIST),
    "fashion-mnist": ("idx:FASHION", (28, 1), "MIT (Zalando SE)"),
    "kmnist": ("idx:KMNIST", (28, 1), "CC BY-SA 4.0 (KMNIST Dataset, created by CODH)"),
    "cifar10": ("cifar:CIFAR10", (32, 3), f"no explicit licence; {KRIZHEVSKY}"),
    "cifar100": ("cifar:CIFAR100", (32, 3), f"no explicit licence; {KRIZHEVSKY}"),
    "celeba": (
        "celeba:CELEBA", (64, 3), "non-commercial research only (CelebA agreement, CUHK)",
    ),
    "folder": ("folder", None, "your own images"),
}  # fmt: skip
for _name, (_place, _native, _licence) in SOURCES.items():
    register.dataset(_name, f"robustvae.data.sources.{_place}", native=_native, licence=_licence)
