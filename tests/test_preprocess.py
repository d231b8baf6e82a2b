"""From pictures to arrays: geometry, channels, bad files, folders, binarisation, both stages."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from robustvae import params
from robustvae.data import binarize, downloads, prepared
from robustvae.data import prepare as preparing
from robustvae.data.catalogue import DATASETS
from robustvae.data.pictures import Files, Geometry, Pictures, Pixels
from robustvae.errors import UserError
from robustvae.runtime import files

GREY = Geometry(side=8, channels=1, crop=None)
COLOUR = Geometry(side=8, channels=3, crop=None)


def stripes(width: int, height: int) -> Image.Image:
    """Red left half, blue right half."""
    x = np.zeros((height, width, 3), np.uint8)
    x[:, : width // 2, 0] = x[:, width // 2 :, 2] = 255
    return Image.fromarray(x)


def test_the_middle_square_is_taken() -> None:
    x = np.zeros((30, 20, 3), np.uint8)
    x[5:25] = 200  # the rows of the middle square
    out = COLOUR.bring(Image.fromarray(x), "a")
    assert out.shape == (3, 8, 8)
    assert (out == 200).all()


def test_crop_takes_so_many_pixels_of_the_middle() -> None:
    x = np.zeros((218, 178), np.uint8)
    x[35:183, 15:163] = 9  # CelebA's customary square: 148 of 178 x 218
    out = Geometry(side=64, channels=1, crop=148).bring(Image.fromarray(x), "a")
    assert (out == 9).all()


def test_a_crop_larger_than_the_picture_is_a_mistake() -> None:
    with pytest.raises(UserError) as error:
        Geometry(side=8, channels=1, crop=148).bring(stripes(100, 80), "a.jpg")
    assert str(error.value) == (
        "preprocess.crop: 148 is more than a.jpg has, 100 x 80 pixels; give a smaller one, or auto"
    )


def test_reducing_averages_over_all_pixels() -> None:
    checks = np.indices((64, 64)).sum(0) % 2 * 255  # aliasing would give 0 or 255
    out = GREY.bring(Image.fromarray(checks.astype(np.uint8)), "a")
    assert np.abs(out.astype(int) - 127.5).max() <= 1


def test_a_picture_of_the_right_size_is_not_touched() -> None:
    x = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(COLOUR.bring(Image.fromarray(x), "a"), np.moveaxis(x, -1, 0))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("RGBA", (8, 8), (0, 0, 0, 0)), 255),
        (Image.new("LA", (8, 8), (40, 255)), 40),
        (Image.new("1", (8, 8), 1), 255),
        (Image.fromarray(np.full((8, 8), 40 * 256 + 7, np.uint16)), 40),
        (Image.new("P", (8, 8)), 0),
        (Image.new("CMYK", (8, 8), (0, 0, 0, 0)), 255),
    ],
    ids=["transparent", "grey with alpha", "bits", "16 bits", "palette", "CMYK"],
)
def test_every_mode_becomes_grey_or_rgb(image: Image.Image, expected: int) -> None:
    for geometry in (GREY, COLOUR):
        out = geometry.bring(image, "a")
        assert out.shape == geometry.shape
        assert (out == expected).all()


def test_the_camera_s_orientation_is_respected() -> None:
    exif = Image.Exif()
    exif[274] = 3  # upside down
    buffer = io.BytesIO()
    stripes(16, 16).save(buffer, "PNG", exif=exif)
    out = Geometry(side=16, channels=3, crop=None).bring(Image.open(buffer), "a")
    assert (out[2, :, :8] == 255).all()
    assert (out[0, :, 8:] == 255).all()


def make_folder(root: Path, names: list[str]) -> None:
    rng = np.random.default_rng(0)
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 10, 3), dtype=np.uint8)).save(path)


def read_folder(root: Path, raw: Path) -> Pictures:
    raw.mkdir(exist_ok=True)
    library = downloads.Library(raw / "cache")
    DATASETS["folder"].download(raw, root, library)
    return DATASETS["folder"].read(raw, root)


def test_classes_are_the_folders_below_the_split_at_any_depth(tmp_path: Path) -> None:
    names = ["train/b/1.png", "train/a/x/1.png", "train/a/y/1.png", "test/b/1.png", "val/c/1.png"]
    make_folder(tmp_path / "root", names)
    pictures = read_folder(tmp_path / "root", tmp_path / "raw")
    assert pictures.classes == ["a/x", "a/y", "b", "c"]
    named = {
        split: [(pictures.classes or [])[label] for label in pictures.labels[members]]
        for split, members in pictures.splits.items()
    }
    assert named == {"train": ["a/x", "a/y", "b"], "val": ["c"], "test": ["b"]}


def test_one_folder_without_classes_is_split_and_unlabelled(
    tmp_path: Path, make_params: Any
) -> None:
    make_folder(tmp_path / "root", [f"{i}.png" for i in range(20)])
    (tmp_path / "root" / ".hidden").write_text("not a picture")
    (tmp_path / "root" / "README.md").write_text("not a picture")
    pictures = read_folder(tmp_path / "root", tmp_path / "raw")
    members = preparing.split(pictures, make_params().preprocess, None)
    assert {name: len(m) for name, m in members.items()} == {"train": 14, "val": 2, "test": 4}
    assert pictures.classes is None
    assert set(pictures.labels) == {-1}


@pytest.mark.parametrize("exists", [False, True], ids=["missing", "empty"])
def test_a_folder_with_nothing_in_it_is_named(tmp_path: Path, exists: bool) -> None:
    if exists:
        (tmp_path / "root").mkdir()
    with pytest.raises(UserError, match=r"data\.root: no .*/root; put your images there"):
        read_folder(tmp_path / "root", tmp_path / "raw")


@pytest.fixture
def with_bad(tmp_path: Path) -> Pictures:
    """Ten pictures of each of two classes, a text and a picture cut short among them."""
    root = tmp_path / "root"
    make_folder(root, [f"{name}/{i}.png" for name in "ab" for i in range(10)])
    (root / "a" / "3.png").write_text("not a picture")
    path = root / "b" / "4.png"
    path.write_bytes(path.read_bytes()[:200])
    return read_folder(root, tmp_path / "raw")


def test_a_bad_file_is_named_and_stops(
    with_bad: Pictures, tmp_path: Path, make_params: Any
) -> None:
    settings = make_params({"data.name": "folder", "preprocess.image_size": 8})
    with pytest.raises(
        UserError, match=r"root/[ab]/[34]\.png: cannot be read as an image \(.*skip_"
    ):
        preparing.prepare(with_bad, settings.data, settings.preprocess, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_bad_files_are_skipped_and_counted(
    with_bad: Pictures, tmp_path: Path, make_params: Any
) -> None:
    settings = make_params(
        {"data.name": "folder", "data.skip_bad": True, "preprocess.image_size": 8}
    )
    info = preparing.prepare(with_bad, settings.data, settings.preprocess, tmp_path / "out")
    assert info["skipped"] == 2
    assert info["counts"] == {"train": 13, "val": 1, "test": 4}


def test_too_few_images_to_split_is_a_mistake(tmp_path: Path, make_params: Any) -> None:
    make_folder(tmp_path / "root", ["a/1.png"])
    pictures = read_folder(tmp_path / "root", tmp_path / "raw")
    with pytest.raises(UserError, match=r"preprocess\.test_fraction: 0\.2 of 1 training images"):
        preparing.split(pictures, make_params().preprocess, None)


def test_a_draw_gives_every_stratum_its_share() -> None:
    strata = np.repeat([0, 1, 2], [50, 30, 21])
    for count in (1, 7, 20, 101):
        drawn = preparing.draw(strata, count, np.random.default_rng(0))
        assert len(set(drawn)) == count
        exact = count * np.array([50, 30, 21]) / 101
        assert (np.abs(np.bincount(strata[drawn], minlength=3) - exact) < 1).all()


@pytest.mark.slow
def test_processes_write_what_one_process_writes(
    tmp_path: Path, make_params: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder(tmp_path / "root", [f"{i}.png" for i in range(600)])
    pictures = read_folder(tmp_path / "root", tmp_path / "raw")
    settings = make_params({"data.name": "folder", "preprocess.image_size": 8})
    sums = []
    for few in (1000, 100):
        monkeypatch.setattr(preparing, "FEW", few)
        out = tmp_path / str(few)
        info = preparing.prepare(pictures, settings.data, settings.preprocess, out)
        sums.append(info["checksums"])
    assert sums[0] == sums[1]
    (tmp_path / "root" / "77.png").write_text("not a picture")
    with pytest.raises(UserError, match=r"77\.png: cannot be read as an image"):
        preparing.prepare(pictures, settings.data, settings.preprocess, tmp_path / "bad")


def test_pictures_that_are_enlarged_are_counted(tmp_path: Path) -> None:
    for i, side in enumerate((7, 8, 9, 5)):
        stripes(side, side + 3).save(tmp_path / f"{i}.png")
    reader = Files(tmp_path, [f"{i}.png" for i in range(4)])
    assert preparing.write_images(reader, GREY, {tmp_path / "x.npy": np.arange(4)}) == 2


@pytest.mark.parametrize("enlarged", [False, True])
def test_a_source_that_enlarges_says_so(tmp_path: Path, make_params: Any, enlarged: bool) -> None:
    x = np.zeros((40, 1, 28, 28), np.uint8)
    splits, labels = {"train": np.arange(40)}, np.zeros(40, np.int64)
    pictures = Pictures(Pixels(x), splits, labels, enlarged=enlarged)
    settings = make_params()
    info = preparing.prepare(pictures, settings.data, settings.preprocess, tmp_path)
    assert info["enlarged"] == (40 if enlarged else 0)
    assert DATASETS["digits"].read(tmp_path, tmp_path).enlarged


def test_arrays_that_fit_are_stored_as_they_are(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (300, 1, 8, 8), dtype=np.uint8)
    path = tmp_path / "x.npy"
    members = np.arange(299, -1, -1)
    assert preparing.write_images(Pixels(x), GREY, {path: members}) == 0
    np.testing.assert_array_equal(np.load(path), x[::-1])
    sideways = dataclasses.replace(GREY, crop=6)
    assert preparing.write_images(Pixels(x), sideways, {path: members}) == 300
    assert not np.array_equal(np.load(path), x[::-1])


@pytest.mark.parametrize("mode", ["none", "threshold", "static", "dynamic"])
def test_grey_originals_stand_beside_what_is_binarised_on_disk(
    tmp_path: Path, make_params: Any, mode: str
) -> None:
    x = np.random.default_rng(0).integers(0, 256, (1000, 1, 28, 28), dtype=np.uint8)
    labels = np.zeros(1000, np.int64)
    pictures = Pictures(Pixels(x), {"train": np.arange(800), "test": np.arange(800, 1000)}, labels)
    settings = make_params({"data.name": "mnist", "preprocess.binarize": mode})
    info = preparing.prepare(pictures, settings.data, settings.preprocess, tmp_path)
    files.write_json(tmp_path / "info.json", info)
    data = prepared.load(tmp_path)
    np.testing.assert_array_equal(data.grey("test"), x[800:])
    assert (tmp_path / "test_grey.npy").exists() == (mode in ("threshold", "static"))
    if mode == "threshold":
        np.testing.assert_array_equal(data.test, np.where(x[800:] / 255 > 0.5, 255, 0))
    elif mode == "static":
        assert set(np.unique(data.test)) == {0, 255}
        assert data.test.mean() == pytest.approx(x[800:].mean(), abs=2)
        assert not np.array_equal(data.test[:100], data.train[:100])
    else:
        np.testing.assert_array_equal(data.test, x[800:])


@pytest.mark.parametrize("threshold", [0.2, 0.5, 128 / 255, 0.999])
def test_threshold_is_the_same_for_bytes_and_floats(threshold: float) -> None:
    x = torch.arange(256, dtype=torch.uint8)
    expected = torch.tensor([v / 255 > threshold for v in range(256)])
    assert torch.equal(binarize.apply(x, "threshold", threshold, None), expected.byte() * 255)
    y = x.double() / 255
    assert torch.equal(binarize.apply(y, "threshold", threshold, None), expected.double())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("level", [0, 1, 64, 254, 255])
def test_drawn_pixels_are_white_as_often_as_they_are_bright(dtype: torch.dtype, level: int) -> None:
    n = 200_000
    x = torch.full((n,), level, dtype=dtype)
    x = x if dtype == torch.uint8 else x / 255
    rng = torch.Generator().manual_seed(0)
    y = binarize.apply(x, "dynamic", 0.5, rng)
    white = 255 if dtype == torch.uint8 else 1
    assert y.dtype == dtype
    assert set(y.unique().tolist()) <= {0, white}
    p = level / 255
    assert abs((y == white).double().mean().item() - p) <= 4 * (p * (1 - p) / n) ** 0.5


def test_binarize_none_returns_the_images_and_an_unknown_mode_is_refused() -> None:
    x = torch.zeros(3)
    assert binarize.apply(x, "none", 0.5, None) is x
    with pytest.raises(ValueError, match="no such mode"):
        binarize.apply(x, "sometimes", 0.5, torch.Generator())


def test_prepared_files_that_do_not_fit_are_named(tmp_path: Path, make_params: Any) -> None:
    settings = make_params({"data.limit": 20})
    pictures = DATASETS["digits"].read(tmp_path, tmp_path)
    info = preparing.prepare(pictures, settings.data, settings.preprocess, tmp_path)
    files.write_json(tmp_path / "info.json", info)
    files.save_npy(tmp_path / "val_labels.npy", np.zeros(3, np.int64))
    with pytest.raises(UserError, match=r"val\.npy: .* 3 labels do not fit info\.json"):
        prepared.load(tmp_path)


def run_stages(settings: params.Params) -> None:
    from stages import download, preprocess

    Path("params.yaml").write_text(json.dumps(settings.model_dump(mode="json")))
    download.main()
    preprocess.main()


def test_the_stages_leave_only_their_own_files(
    tmp_path: Path, make_params: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    changes = {"data.name": "digits", "preprocess.binarize": "static", "data.limit": 50}
    run_stages(make_params(changes))
    data = prepared.load(Path("data/prepared"))
    assert data.info["counts"] == {"train": 45, "val": 5, "test": 50}
    assert data.info["binarize"] == "static"
    assert data.info["licence"].startswith("CC BY 4.0")
    make_folder(tmp_path / "images", [f"{name}/{i}.png" for name in "ab" for i in range(10)])
    changes = {"data.name": "folder", "data.root": "images", "preprocess.image_size": 8}
    run_stages(make_params(changes))
    assert sorted(p.name for p in Path("data/raw").iterdir()) == ["info.json", "manifest.json"]
    data = prepared.load(Path("data/prepared"))
    assert data.shape == (3, 8, 8)
    assert data.info["sources"] == {"manifest.json": files.sha256(Path("data/raw/manifest.json"))}
    assert not list(Path("data/prepared").glob("*_grey.npy"))


def test_a_picture_gone_since_the_download_is_named(tmp_path: Path, make_params: Any) -> None:
    settings = make_params({"data.name": "folder", "preprocess.image_size": 8})
    reader = Files(tmp_path, ["gone.png"] * 10)
    pictures = Pictures(reader, {"train": np.arange(10)}, np.full(10, -1))
    with pytest.raises(UserError, match=r"gone\.png: cannot be read as an image"):
        preparing.prepare(pictures, settings.data, settings.preprocess, tmp_path / "out")
