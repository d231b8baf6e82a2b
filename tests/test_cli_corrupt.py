"""`python -m robustvae corrupt`: arrays or folders of pictures in, the same out."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robustvae import cli, corruptions

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 12, 16), np.uint8)
LAYOUTS = {
    "NHW": IMAGES,
    "NHW1": IMAGES[..., None],
    "N1HW": IMAGES[:, None],
    "NHW3": np.stack([IMAGES, 255 - IMAGES, IMAGES // 2], -1),
    "N3HW": np.stack([IMAGES, 255 - IMAGES, IMAGES // 2], 1),
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("images", LAYOUTS.values(), ids=LAYOUTS)
def test_writes_each_corruption_in_the_shape_of_the_input(images: np.ndarray) -> None:
    np.save("x.npy", images)
    cli.main(["corrupt", "x.npy", "--out", "made", "--names", "fog", "stripe", "--seed", "4"])
    assert sorted(p.name for p in Path("made").iterdir()) == ["fog.npy", "stripe.npy"]
    out = np.load("made/fog.npy")
    assert out.shape == images.shape
    assert out.dtype == np.uint8
    layout = "NHW" if images.ndim == 3 else "NCHW" if images.shape[-1] == 16 else "NHWC"
    assert (out == corruptions.corrupt_images(images, "fog", seed=4, layout=layout)).all()


def test_grey_layouts_hold_the_same_pictures() -> None:
    for key in ("NHW", "NHW1", "N1HW"):
        np.save("x.npy", LAYOUTS[key])
        cli.main(["corrupt", "x.npy", "--out", key, "--names", "zigzag"])
    made = [np.load(f"{key}/zigzag.npy").reshape(5, 12, 16) for key in ("NHW", "NHW1", "N1HW")]
    assert (made[0] == made[1]).all()
    assert (made[0] == made[2]).all()


def test_default_is_all_of_mnist_c_at_its_severities() -> None:
    np.save("x.npy", IMAGES)
    cli.main(["corrupt", "x.npy", "--out", "made"])
    assert {p.stem for p in Path("made").iterdir()} == set(corruptions.FIFTEEN)


def test_several_severities_stand_in_the_names() -> None:
    np.save("x.npy", IMAGES)
    words = ["--names", "stripe", "scale", "--severity", "0", "default", "5"]
    cli.main(["corrupt", "x.npy", "--out", "made", *words])
    expected = {"stripe-0", "stripe-3", "stripe-5", "scale-0", "scale-3", "scale-5"}
    assert {p.stem for p in Path("made").iterdir()} == expected
    assert (np.load("made/stripe-0.npy") == IMAGES).all()


def save_pictures(mode: str = "L") -> None:
    for i, image in enumerate(IMAGES):
        path = Path(f"photos/{'ab'[i % 2]}/{i}.bmp")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).convert(mode).save(path)


def test_a_folder_of_pictures_becomes_folders_of_pictures() -> None:
    save_pictures()
    cli.main(["corrupt", "photos", "--out", "made", "--names", "fog", "--severity", "2"])
    order = [0, 2, 4, 1, 3]  # by path
    expected = corruptions.corrupt_images(IMAGES[order], "fog", 2, layout="NHW")
    for i, image in zip(order, expected, strict=True):
        with Image.open(f"made/fog/{'ab'[i % 2]}/{i}.png") as made:
            assert made.mode == "L"
            assert (np.asarray(made) == image).all()


def test_one_colour_picture_makes_all_colour() -> None:
    save_pictures()
    Image.fromarray(LAYOUTS["NHW3"][0]).save("photos/z.png")
    cli.main(["corrupt", "photos", "--out", "made", "--names", "scale"])
    with Image.open("made/scale/a/0.png") as made:
        assert made.mode == "RGB"


def test_list_prints_every_corruption(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["corrupt", "--list"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(corruptions.CORRUPTIONS)
    assert lines[1].split() == ["shot_noise", "noise", "5", "60", "25", "12", "5", "3"]


def prepare(case: str) -> None:
    np.save("x.npy", IMAGES)
    if case == "float":
        np.save("x.npy", IMAGES / 255)
    elif case == "small":
        np.save("x.npy", IMAGES[:, :7])
    elif case == "channels":
        np.save("x.npy", np.zeros((2, 16, 16, 2), np.uint8))
    elif case == "text":
        Path("x.npy").write_text("hello")
    elif case == "archive":
        with Path("x.npy").open("wb") as file:
            np.savez(file, IMAGES)
    elif case in ("pictures", "inside", "sizes", "broken", "deep", "twice"):
        save_pictures()
    if case == "sizes":
        Image.new("L", (9, 9)).save("photos/z.png")
    elif case == "broken":
        Path("photos/z.png").write_text("hello")
    elif case == "deep":
        Image.new("I;16", (16, 12)).save("photos/z.png")
    elif case == "twice":
        Image.new("L", (16, 12)).save("photos/a/0.png")
    elif case == "empty":
        Path("photos").mkdir()


@pytest.mark.parametrize(
    ("case", "words", "message"),
    [
        ("", ["x.npy", "--out", "o", "--names", "fogg"], "unknown 'fogg' (did you mean 'fog'?)"),
        ("", ["x.npy", "--out", "o", "--severity", "6"], "must be default or 0 .. 5, got '6'"),
        ("", ["x.npy"], "corrupt: needs IMAGES and --out DIR, or --list"),
        ("", ["y.npy", "--out", "o"], "y.npy: no .npy file or folder of pictures"),
        ("", ["x.npy", "--out", "x.npy"], "--out: x.npy is a file"),
        ("float", ["x.npy", "--out", "o"], "must hold uint8 images (0 .. 255)"),
        ("small", ["x.npy", "--out", "o"], "with sides of 8 pixels or more, got [5, 7, 16]"),
        ("channels", ["x.npy", "--out", "o"], "got [2, 16, 16, 2]"),
        ("text", ["x.npy", "--out", "o"], "x.npy: no .npy file"),
        ("archive", ["x.npy", "--out", "o"], "got an archive of arrays"),
        ("empty", ["photos", "--out", "o"], "photos: no pictures inside"),
        ("sizes", ["photos", "--out", "o"], "z.png: is 9 x 9, but photos/a/0.bmp is 16 x 12"),
        ("broken", ["photos", "--out", "o"], "photos/z.png: no picture that can be read"),
        ("deep", ["photos", "--out", "o"], "photos/z.png: has more than 8 bits a channel"),
        ("twice", ["photos", "--out", "o"], "two pictures would both be written as a/0.png"),
        ("inside", ["photos", "--out", "photos/o"], "photos/o lies in the input folder"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(
    case: str, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(case)
    with pytest.raises(SystemExit) as stop:
        cli.main(["corrupt", *words])
    assert stop.value.code == 2
    text = capsys.readouterr().err
    assert message in text
    assert text.count("\n") == 1


def test_the_input_is_never_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    np.save("fog.npy", IMAGES)
    with pytest.raises(SystemExit):
        cli.main(["corrupt", "fog.npy", "--out", ".", "--names", "fog"])
    assert "fog.npy is the input itself" in capsys.readouterr().err
    assert (np.load("fog.npy") == IMAGES).all()


def test_a_place_that_cannot_be_written_to_is_one_message(
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_pictures()
    np.save("x.npy", IMAGES)
    Path("file").touch()
    for source, written in (("x.npy", "fog.npy"), ("photos", "fog/a/0.png")):
        with pytest.raises(SystemExit) as caught:
            cli.main(["corrupt", source, "--out", "file/made", "--names", "fog"])
        assert caught.value.code == 2
        assert (
            f"file/made/{written}: cannot be written (Not a directory)" in capsys.readouterr().err
        )


def test_a_negative_seed_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["corrupt", "x.npy", "--out", "made", "--seed", "-1"])
    assert "--seed: must be an integer >= 0, got '-1'" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_gets_no_traceback() -> None:
    command = f"{sys.executable} -m robustvae corrupt --list | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stderr == ""
