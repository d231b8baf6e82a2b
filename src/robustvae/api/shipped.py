"""The trained models that come along, in the folder pretrained/ of the repository, by name."""

from pathlib import Path
from typing import NamedTuple

from robustvae.errors import UserError, did_you_mean
from robustvae.models.folder import CONFIG, WEIGHTS
from robustvae.runtime import files

PRETRAINED = "pretrained"
SOURCE = Path(__file__).resolve().parents[3] / PRETRAINED  # where the package is used from a clone


class Shipped(NamedTuple):
    """What it is, and the SHA-256 of its weights."""

    about: str
    sha256: str


MODELS = {
    "mnist": Shipped(
        "64 Gaussian latents, KL, Bernoulli; all of MNIST",
        "c17137ca42097f20a0851600631224c56690eea61866f5ff975cbcc9ac06fa0d",
    ),
    "mnist-df3": Shipped(
        "32 Student-t latents, df 3; all of MNIST",
        "557c31e6139454154ee18161f8aea0be9d3eb16288fc649f38f682e9d08a4c2c",
    ),
    "mnist-hellinger": Shipped(
        "32 Gaussian latents, alpha 0.5; all of MNIST",
        "b4ee01cbf8d45767b49d39529e43945c1f20b4d288fea4064d1405ad27bcdf99",
    ),
    "cifar10-conv": Shipped(
        "64 Gaussian latents, KL; 4,500 pictures of CIFAR-10",
        "2d9cbf36f6d4577e9ff556789005acb376d303f9777dcfd487f9ccf6dd4966ac",
    ),
    "cifar10-vq": Shipped(
        "8 x 8 codes of 256; 4,500 pictures of CIFAR-10",
        "2bfe4a4bdd76a5c5daca9726e00eaf18a32c35998f01f093454024bcd982b318",
    ),
}


def place(name: str) -> Path | None:
    """The folder of a model that comes along: here, or beside the package; None without it."""
    roots = (Path(PRETRAINED), SOURCE)
    return next((root / name for root in roots if (root / name / CONFIG).is_file()), None)


def resolve(folder: Path | str) -> Path:
    """The folder that is meant: a folder with a model, or else a name, its weights verified."""
    given, name = Path(folder), str(folder)
    if (given / CONFIG).is_file() or name not in MODELS:
        if not given.exists() and (near := did_you_mean(name, MODELS)):
            raise UserError(f"{name}: no such folder, and no model of that name comes along{near}; "
                            "`robustvae models` lists them")  # fmt: skip
        return given
    if (found := place(name)) is None:
        raise UserError(
            f"{name}: this model comes with robustvae's repository, not with the installed "
            f"package; get the repository and name the folder, as in path/to/{PRETRAINED}/{name}"
        )
    path = found / WEIGHTS
    if not path.is_file() or files.sha256(path) != MODELS[name].sha256:
        raise UserError(
            f"{path}: missing or damaged, its SHA-256 is not that of {name}; "
            f"restore it with `git checkout -- {PRETRAINED}/{name}`"
        )
    return found
