"""The corrupt stage: files, their description, binarisation, the official archive."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stages import corrupt

from robustvae import corruptions, params
from robustvae.corruptions import official
from robustvae.data import binarize
from robustvae.errors import UserError
from robustvae.runtime import files, seeding

SHAPE = (1, 28, 28)
Stage = Callable[..., dict[str, Any]]


@pytest.fixture
def stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_params: Callable[..., params.Params]
) -> Stage:
    """Runs the stage on 20 prepared test images and returns info.json."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    counts = {"train": 2, "val": 2, "test": 20}
    for split, count in counts.items():
        files.save_npy(Path(f"data/prepared/{split}_labels.npy"), np.arange(count) % 10)
        images = rng.integers(0, 256, (count, *SHAPE), np.uint8)
        files.save_npy(Path(f"data/prepared/{split}.npy"), images)

    def run(changes: dict[str, Any], mode: str = "none") -> dict[str, Any]:
        if mode in ("threshold", "static"):
            grey = np.load("data/prepared/test.npy")
            files.save_npy(Path("data/prepared/test_grey.npy"), grey)
        info = {"counts": counts, "shape": SHAPE, "binarize": mode, "threshold": 0.5}
        info["split_seed"] = 0
        files.write_json(Path("data/prepared/info.json"), info)
        settings = make_params(changes)
        monkeypatch.setattr(params, "load", lambda: settings)
        corrupt.main()
        return files.read_json(Path("data/corrupted/info.json"))

    return run


def test_writes_what_the_parameters_name_in_their_order(stage: Stage) -> None:
    names = ["zigzag", "fog"]
    info = stage(
        {"corruptions.names": names, "corruptions.severities": [5, 1], "corruptions.seed": 7}
    )
    assert [(s["name"], s["severity"]) for s in info["sets"]] == [
        ("zigzag", 5), ("zigzag", 1), ("fog", 5), ("fog", 1)]  # fmt: skip
    assert [s["default"] for s in info["sets"]] == [False, True, True, False]
    assert [s["group"] for s in info["sets"]] == [
        "overlay",
        "overlay",
        "photometric",
        "photometric",
    ]
    assert (info["seed"], info["source"]) == (7, "generate")
    clean = np.load("data/prepared/test.npy")
    for entry in info["sets"]:
        path = Path("data/corrupted") / entry["file"]
        assert files.sha256(path) == entry["sha256"]
        expected = corruptions.corrupt_images(clean, entry["name"], entry["severity"], 7)
        assert (np.load(path) == expected).all()


def test_default_severities_are_numbers_in_the_file_names(stage: Stage) -> None:
    info = stage({})
    assert len(info["sets"]) == 15
    assert all(s["default"] for s in info["sets"])
    assert {"stripe-3.npy", "canny_edges-5.npy"} <= {s["file"] for s in info["sets"]}


@pytest.mark.parametrize("mode", ["none", "dynamic", "threshold", "static"])
def test_binarises_after_corrupting(stage: Stage, mode: str) -> None:
    changes = {"corruptions.names": ["fog", "scale"], "preprocess.binarize": mode}
    info = stage(changes, mode)
    grey = np.load("data/prepared/test.npy")
    for entry in info["sets"]:
        out = np.load(Path("data/corrupted") / entry["file"])
        corrupted = corruptions.corrupt_images(grey, entry["name"])
        if mode in ("none", "dynamic"):
            assert (out == corrupted).all()
        elif mode == "threshold":
            assert (out == (corrupted > 127) * 255).all()
        else:
            assert set(np.unique(out)) == {0, 255}
            assert abs(out.mean() / corrupted.mean() - 1) < 0.1
            rng = seeding.generator(0, "binarize", "test")  # as the clean images were drawn
            clean = binarize.apply(torch.from_numpy(grey), mode, 0.5, rng).numpy()
            assert (out == clean)[corrupted == grey].all()
    again = stage(changes, mode)
    assert again == info


def write_archive(names: list[str], clean: np.ndarray) -> None:
    order = np.arange(len(clean))[::-1]  # not the order of the prepared images
    for name in ("identity", *names):
        folder = Path("data/raw/mnist_c.zip") / name  # an unpacked folder does as well
        folder.mkdir(parents=True)
        out = clean if name == "identity" else 255 - clean
        np.save(folder / "test_images.npy", out[order].reshape(-1, 28, 28, 1))
        np.save(folder / "test_labels.npy", (np.arange(len(clean)) % 10)[order])


def test_official_sets_are_put_in_the_order_of_the_test_images(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(official, "COUNTS", {"test": 20})
    clean = np.load("data/prepared/test.npy")
    write_archive(["fog"], clean)
    changes = {"data.name": "mnist", "corruptions.source": "official", "corruptions.names": ["fog"]}
    assert stage(changes)["source"] == "official"
    assert (np.load("data/corrupted/fog-5.npy") == 255 - clean).all()


def test_nothing_is_left_of_a_set_that_fails(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(official, "COUNTS", {"test": 20})
    write_archive([], np.load("data/prepared/test.npy"))
    changes = {"data.name": "mnist", "corruptions.source": "official", "corruptions.names": ["fog"]}
    with pytest.raises(UserError, match=r"no fog/test_labels\.npy inside"):
        stage(changes)
    assert not list(Path("data").glob("corrupted/*"))
