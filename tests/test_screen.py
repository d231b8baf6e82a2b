"""`robustvae screen`: images that do not belong come first, from folders, files and arrays."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from PIL import Image

import robustvae
from robustvae import cli
from robustvae.api import images
from robustvae.errors import UserError

ODD = 12  # of 120


@pytest.fixture(scope="module")
def mixed() -> np.ndarray:
    """Rectangles, of which the first ones are noise."""
    pixels = tiny.shapes(120)
    pixels[:ODD] = np.random.default_rng(0).integers(0, 256, (ODD, 1, 16, 16))
    return pixels


@pytest.fixture(scope="module")
def found(mixed: np.ndarray) -> Any:
    return robustvae.screen(mixed, epochs=60, device="cpu")


def test_what_does_not_belong_comes_first(found: Any) -> None:
    assert set(found.order[:ODD]) == set(range(ODD))
    assert (np.diff(found.suspicion[found.order]) <= 0).all()
    assert np.median(found.suspicion) == pytest.approx(0, abs=0.1)
    assert found.weight[:ODD].mean() < found.weight[ODD:].mean()


def test_the_same_seed_ranks_the_same(found: Any, mixed: np.ndarray) -> None:
    again = robustvae.screen(mixed, epochs=60, device="cpu")
    assert (again.suspicion == found.suspicion).all()


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_verb_writes_a_table_a_page_thumbnails_and_a_model(
    mixed: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for i, image in enumerate(mixed):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(image[0]).save(tmp_path / "photos" / f"{i:03}.png")
    cli.main(["screen", "photos", "--epochs", "60", "--size", "16", "--show", "20",
              "--device", "cpu"])  # fmt: skip
    assert "robust standard deviations above the median" in capsys.readouterr().out
    out = tmp_path / "out" / "screen"
    table = rows(out / "suspicion.csv")
    assert list(table[0]) == ["rank", "image", "suspicion", "negative_elbo", "mse", "weight"]
    assert len(table) == 120
    first = {Path(row["image"]).stem for row in table[:ODD]}
    assert len(first & {f"{i:03}" for i in range(ODD)}) >= ODD - 1
    page = (out / "screen.html").read_text()
    assert page.count("data:image/png;base64,") == 20
    assert "http" not in page.replace("http-equiv", "")
    assert len(list((out / "thumbnails").iterdir())) == 20
    np.save("more.npy", mixed[:5])
    cli.main(["screen", "more.npy", "--model", str(out / "model"), "--out", "again"])
    assert len(rows(tmp_path / "again" / "suspicion.csv")) == 5
    assert not (tmp_path / "again" / "model").exists()


WRONG = [
    (["photos", "--strength", "-1"], "--strength: must be > 0, and below 1 for trimmed"),
    (["photos", "--objective", "trimmed", "--strength", "2"], "--strength: must be > 0"),
    (["photos", "--size", "4"], "--size: must be 8 or more pixels, got 4"),
    (["few.npy"], "screen: needs 50 images or more to learn what is usual, got 5;"),
    (["flat.npy"], "flat.npy: uint8 [9]; images must be [N, H, W]"),
    (["nowhere"], "nowhere: not a readable .npy file"),
    (["few.npy", "--model", "nothing"], "nothing: no such folder, and no model of that name"),
    (["few.npy", "--model", "x", "--size", "16"], "--size: has no effect with --model"),
]


@pytest.mark.parametrize(("words", "line"), WRONG)
def test_what_cannot_be_screened_is_one_line(
    words: list[str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    np.save("few.npy", tiny.shapes(5))
    np.save("flat.npy", np.zeros(9, np.uint8))
    with pytest.raises(SystemExit) as stop:
        cli.main(["screen", *words])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith(line)


def test_an_unknown_objective_is_named() -> None:
    with pytest.raises(UserError, match=r"^objective: must be one of welsch, .*, got 'x'$"):
        robustvae.screen(tiny.shapes(60), objective="x")


@pytest.mark.parametrize(
    ("shape", "size", "wanted"),
    [((9, 16, 16), None, (1, 16, 16)), ((9, 16, 20), None, (1, 32, 32)),
     ((9, 100, 100, 3), None, (3, 32, 32)), ((9, 3, 28, 28), 20, (3, 20, 20))],
)  # fmt: skip
def test_images_are_brought_to_a_usual_size(shape: Any, size: Any, wanted: Any) -> None:
    assert images.usual_shape(np.zeros(shape, np.uint8), size) == wanted
