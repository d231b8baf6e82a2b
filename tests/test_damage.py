"""Every file that a stage reads, damaged in seven ways: one clear line, and no traceback."""

import contextlib
import importlib
import io
import os
import random
import shutil
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, overlay

from robustvae import params
from robustvae.errors import UserError

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
TINY = {
    "data.name": "digits", "data.limit": 60, "run.threads": 1, "train.epochs": 1,
    "model.architecture.name": "mlp", "model.latent_dim": 2, "evaluate.iwae_samples": 2,
    "evaluate.iwae_images": 5, "evaluate.elbo_samples": 1, "corruptions.names": ["fog", "stripe"],
    "contamination.kind": "noise", "contamination.fraction": 0.2, "plots.examples": 2,
    "plots.dpi": 50, "plots.vector": "none", "loss.robust.name": "huber",
    "loss.robust.strength": 1.0, "loss.robust.after": 0.0, "evaluate.metrics": ["e_den"],
}  # fmt: skip
DAMAGES = ("gone", "folder", "empty", "half", "noise", "header", "page")
TRIED = {
    "train": 0.4,
    "plot": 0.1,
    "evaluate": 0.25,
    "report": 0.4,
}  # share of their cases, to save time; others: all
# Files that are part of a folder that a stage lists, and of no interest to it.
UNREAD = {
    "train": ("data/contaminated/test_*", "data/contaminated/*_mask.npy"),
    "evaluate": ("data/contaminated/*_labels.npy", "data/contaminated/val*", "reports/train/*.json",
                 "reports/train/history.csv", "reports/train/strip.npz"),
    "plot": ("data/contaminated/*_labels.npy", "data/contaminated/val*", "reports/train/w*"),
    "report": ("reports/charts/examples.json",),
}  # fmt: skip
# What a stage cannot know to be missing: a table that ends early at a whole line, what need not be.
LOST = {("report", "robustness.csv", "half"), ("report", "warnings.json", "gone"),
        ("evaluate", "weights.npy", "gone"), ("plot", "strip.npz", "gone")}  # fmt: skip


def damage(path: Path, how: str, rng: random.Random) -> None:
    content = path.read_bytes()
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how != "gone":
        some = rng.randbytes(min(64, len(content)))
        page = b"<!DOCTYPE html><html><body>Please log in</body></html>\n"
        path.write_bytes({"empty": b"", "half": content[: len(content) // 2], "page": page,
                          "noise": rng.randbytes(len(content)),
                          "header": some + content[64:]}[how])  # fmt: skip


def run(name: str) -> str | None:
    """Run a stage here: what it says of a user's mistake; None: it was content."""
    quiet = io.StringIO()
    try:
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            importlib.import_module(f"stages.{name}").main()
    except UserError as error:
        return str(error)
    return None


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run of the pipeline, in this process."""
    folder = tmp_path_factory.mktemp("whole")
    content = overlay(params.read(ROOT / "params.yaml"), TINY)
    (folder / "params.yaml").write_text(yaml.safe_dump(content))
    with inside(folder):
        for name in STAGES:
            assert run(name) is None
    return folder


def read_by(name: str, folder: Path) -> list[str]:
    """Files that a stage reads: what other stages made, of its deps."""
    made = [
        folder / dep for dep in STAGES[name]["deps"] if not dep.startswith(("src", "stages", "$"))
    ]
    found = [path for top in made for path in ([top] if top.is_file() else sorted(top.rglob("*")))]
    return [path.relative_to(folder).as_posix() for path in found if path.is_file()]


@pytest.mark.slow
def test_damaged_files_are_one_line(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Missing or not, a file that a stage reads is named, or the stage had no need of it."""
    rng = random.Random(0)
    every = ((s, f, h) for s in STAGES for f in read_by(s, whole) for h in DAMAGES)
    cases = [(s, f, h) for s, f, h in every if rng.random() < TRIED.get(s, 1)]
    told = 0
    for number, (stage, file, how) in enumerate(cases):
        place = tmp_path / str(number)
        shutil.copytree(whole, place, ignore=shutil.ignore_patterns(".cache"))
        damage(place / file, how, rng)
        try:
            with inside(place):
                text = run(stage)
        except Exception as error:
            raise AssertionError(f"{stage}, {file}, {how}: a traceback") from error
        shutil.rmtree(place)
        if text is None:
            unread = any(fnmatch(file, pattern) for pattern in UNREAD.get(stage, ()))
            unread |= stage == "report" and how == "gone" and file.endswith(".png")  # left out
            assert unread or (stage, Path(file).name, how) in LOST, (
                f"{stage}, {file}, {how}: silence"
            )
            continue
        told += 1
        assert len(text.splitlines()) <= 2, text
        assert Path(file).name in text, f"{stage}, {file}, {how}: {text}"
    with capsys.disabled():
        print(f"\n{len(cases)} damaged files, {told} of which a stage reads: one clear line each")
