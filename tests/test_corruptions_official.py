"""Reading MNIST-C as published: from the archive or a folder, checked against the clean images."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from robustvae.corruptions import official
from robustvae.errors import UserError

RNG = np.random.default_rng(0)
CLEAN = {split: RNG.integers(0, 256, (n, 28, 28, 1), np.uint8) for split, n in
         (("train", 30), ("test", 20))}  # fmt: skip
LABELS = {split: RNG.integers(0, 10, len(images)) for split, images in CLEAN.items()}
Sets = dict[str, np.ndarray]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(official, "COUNTS", {k: len(v) for k, v in CLEAN.items()})


def content() -> Sets:
    """Files of an archive with `identity` and `fog`."""
    sets = {}
    for split, images in CLEAN.items():
        for name, x in (("identity", images), ("fog", 255 - images)):
            sets[f"mnist_c/{name}/{split}_images.npy"] = x
            sets[f"mnist_c/{name}/{split}_labels.npy"] = LABELS[split].astype(np.int32)
    return sets


def as_zip(folder: Path, sets: Sets) -> Path:
    path = folder / "mnist_c.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in sets.items():
            with archive.open(name, "w") as file:
                np.lib.format.write_array(file, array)
    return path


def as_folder(folder: Path, sets: Sets) -> Path:
    for name, array in sets.items():
        path = folder / "somewhere" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, array)
    return folder


FORMS = [as_zip, as_folder]
Form = Callable[[Path, Sets], Path]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_reads_images_and_labels(form: Form, split: str, tmp_path: Path) -> None:
    path = form(tmp_path, content())
    images = official.read(path, "fog", split)
    assert images.shape == (len(CLEAN[split]), 1, 28, 28)
    assert (images[:, 0] == 255 - CLEAN[split][..., 0]).all()
    assert (official.read_labels(path, "fog", split) == LABELS[split]).all()


@pytest.mark.parametrize("form", FORMS)
def test_verify_gives_the_places_of_the_clean_images(form: Form, tmp_path: Path) -> None:
    path = form(tmp_path, content())
    chosen = np.array([7, 3, 19])
    images = CLEAN["test"][chosen].reshape(-1, 1, 28, 28)
    places = official.verify(path, ["fog"], images, LABELS["test"][chosen], "test")
    assert (places == chosen).all()
    assert (official.read(path, "fog", "test")[places] == 255 - images).all()


def test_equal_images_keep_their_order(tmp_path: Path) -> None:
    sets = content()
    sets["mnist_c/identity/test_images.npy"] = CLEAN["test"][[0, 0, *range(2, 20)]]
    path = as_zip(tmp_path, sets)
    images = official.read(path, "identity", "test")
    assert (official.order(path, images, "test") == np.arange(20)).all()


def broken(change: str) -> Sets:
    sets = content()
    images, labels = "mnist_c/fog/test_images.npy", "mnist_c/fog/test_labels.npy"
    if change == "missing":
        del sets[images]
    elif change == "float":
        sets[images] = sets[images] / 255
    elif change == "short":
        sets[images] = sets[images][:-1]
    elif change == "other labels":
        sets[labels] = 9 - sets[labels]
    elif change == "float labels":
        sets[labels] = sets[labels].astype(float)
    elif change == "other images":
        sets["mnist_c/identity/test_images.npy"] = 255 - CLEAN["test"]
    return sets


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", "no fog/test_images.npy inside"),
        ("float", r"fog/test_images.npy holds float64 \[20, 28, 28, 1\], must be uint8"),
        ("short", r"holds uint8 \[19, 28, 28, 1\]"),
        ("other labels", "the labels of fog are not those of MNIST"),
        ("float labels", "fog/test_labels.npy holds float64"),
        ("other images", "identity set lacks some of the test images"),
    ],
)
@pytest.mark.parametrize("form", FORMS)
def test_says_what_is_wrong(form: Form, change: str, message: str, tmp_path: Path) -> None:
    path = form(tmp_path, broken(change))
    images = CLEAN["test"].reshape(-1, 1, 28, 28)

    def use() -> None:
        official.verify(path, ["fog"], images, LABELS["test"], "test")
        official.read(path, "fog", "test")

    with pytest.raises(UserError, match=message) as error:
        use()
    assert "\n" not in str(error.value)


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    path = as_zip(tmp_path, content())
    data = bytearray(path.read_bytes())
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"mnist_c.zip: fog/test_images.npy cannot be read"):
        official.read(path, "fog", "test")
    with pytest.raises(UserError, match="cannot be read"):
        official.read(tmp_path / "none.zip", "fog", "test")


def test_a_flipped_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "mnist_c.zip"
    with zipfile.ZipFile(path, "w") as archive, archive.open("fog/test_images.npy", "w") as file:
        np.lib.format.write_array(file, CLEAN["test"])
    data = bytearray(path.read_bytes())
    data[2000] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="CRC"):
        official.read(path, "fog", "test")
