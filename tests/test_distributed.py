"""Several processes train as one does, end together, and only the first of them writes."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import curves
import pytest
import torch
import yaml
from conftest import ROOT, copy_project, overlay

from robustvae import distributed, params
from robustvae.distributed import Share
from robustvae.errors import UserError

TRAIN = [sys.executable, "-m", "stages.train"]
TWO = {"ROBUSTVAE_NPROC": "2"}


@pytest.mark.parametrize(("total", "size"), [(0, 2), (1, 3), (7, 3), (8, 4), (64, 5)])
def test_shares_cover_a_batch_once_and_differ_by_one_row_at_most(
    total: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "size", lambda: size)
    parts = []
    for rank in range(size):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        rows = Share(total).rows
        parts.append(list(range(total))[rows])
        x = torch.arange(3.0 * total).view(total, 3)
        padded = Share(total).padded(x[rows])
        assert padded.shape == x.shape
        assert torch.equal(padded[rows], x[rows])
        assert padded.sum() == x[rows].sum()
    assert [row for part in parts for row in part] == list(range(total))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_alone_nothing_is_shared() -> None:
    x = torch.rand(5)
    with distributed.shared(5) as share:
        assert share is None
        assert distributed.summed(x) is x
    assert Share(5).rows == slice(0, 5)
    assert Share(5).whole(x) is x
    assert distributed.first(lambda: 3) == 3


@pytest.mark.parametrize("text", ["0", "-1", "x", "", "1.5", "²"])
def test_a_bad_number_of_processes_is_named(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBUSTVAE_NPROC", text)
    message = f"ROBUSTVAE_NPROC: must be a number of processes, 1 or more, got {text!r}"
    with pytest.raises(UserError, match=f"^{message}$"):
        distributed.spread(lambda: None)


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The curves of two processes."""
    path = tmp_path_factory.mktemp("curves") / "curves.json"
    folders = os.pathsep.join(map(str, (ROOT / "tests", ROOT / "src", ROOT)))
    environment = os.environ | TWO | {"PYTHONPATH": folders}
    command = [sys.executable, "-m", "curves", str(path)]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("case", curves.CASES)
def test_two_processes_follow_the_curve_of_one(case: str, by_two: dict[str, Any]) -> None:
    """To rounding: in double precision, but for nets that do not amplify it."""
    one, two = curves.curve(case), by_two[case]
    near = 1e-4 if case in curves.SINGLE else 1e-7
    assert len(one["losses"]) >= 50
    assert two["losses"] == pytest.approx(one["losses"], rel=near)
    for row, wanted in zip(two["rows"], one["rows"], strict=True):
        assert row == pytest.approx(wanted, rel=near)


# --- stages as a user runs them

SMALL = {
    "data.limit": 100,
    "run.threads": 1,
    "train.epochs": 60,
    "train.scheduler": {"name": "plateau", "patience": 2},
    "train.ema": 0.9,
    "model.architecture": {"name": "mlp", "channels": [16]},
}
PREPARE = "from stages import download, preprocess; download.main(); preprocess.main()"
Run = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A project whose data are prepared."""
    home = tmp_path_factory.mktemp("distributed")
    folder = home / "project"
    environment = copy_project(folder, home)
    _set(folder, SMALL)
    subprocess.run([sys.executable, "-c", PREPARE], cwd=folder, env=environment, check=True)
    return folder, environment


def _set(folder: Path, changes: dict[str, Any]) -> None:
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(overlay(params.read(path), changes), sort_keys=False))


def _start(folder: Path, environment: dict[str, str], **more: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        TRAIN, cwd=folder, env=environment | more, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def _history(folder: Path) -> list[dict[str, float]]:
    path = folder / "reports" / "train" / "history.csv"
    lines = csv.DictReader(path.read_text().splitlines()) if path.exists() else []
    return [{name: float(value) for name, value in line.items()} for line in lines]


def _until(epochs: int, folder: Path, process: "subprocess.Popen[str]") -> None:
    while len(_history(folder)) < epochs:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


def _workers(process: "subprocess.Popen[str]") -> list[int]:
    found = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    )
    return [int(line) for line in found.stdout.split()]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _end(process: "subprocess.Popen[str]", target: int, sign: signal.Signals) -> str:
    """Send a signal to one process; all are gone soon. What the first one said of it."""
    workers = _workers(process)
    os.kill(target, sign)
    error = process.communicate(timeout=30)[1]
    assert not any(map(_alive, workers))
    return error


@pytest.mark.slow
def test_a_training_goes_on_with_another_number_of_processes_and_machines(
    project: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    """One, two of which one is killed, two that are interrupted, then one each on two machines."""
    folder, environment = project
    subprocess.run(TRAIN, cwd=folder, env=environment, check=True, capture_output=True)
    wanted = _history(folder)
    for path in [*folder.glob("models/*"), *folder.glob("reports/train/*")]:
        path.unlink()

    with _start(folder, environment) as process:
        _until(2, folder, process)
        process.kill()
    with _start(folder, environment, **TWO) as process:
        _until(10, folder, process)
        error = _end(process, _workers(process)[1], signal.SIGKILL)
    assert error == "process 1 died (SIGKILL); `dvc repro` goes on from the last checkpoint\n"
    assert process.returncode == 2
    with _start(folder, environment, **TWO) as process:
        _until(20, folder, process)
        error = _end(process, process.pid, signal.SIGTERM)
    assert error == "interrupted; `dvc repro` goes on from here\n"
    assert process.returncode == 130

    other = tmp_path / "other"
    copy_project(other, tmp_path)
    _set(other, SMALL)
    (other / "data" / "prepared").symlink_to(folder / "data" / "prepared")
    before = sorted(other.rglob("*"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    two = {"PET_NNODES": "2", "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": port}
    with (
        _start(other, environment, PET_NODE_RANK="1", **two) as second,
        _start(folder, environment, PET_NODE_RANK="0", **two) as process,
    ):
        said, error = process.communicate()
        assert second.communicate() == ("", "")
    assert (process.returncode, second.returncode, error) == (0, 0, "")
    assert "training goes on from" in said
    assert len(said.splitlines()) == len(set(said.splitlines()))
    assert [p for p in sorted(other.rglob("*")) if "__pycache__" not in p.parts] == before
    assert (folder / "models" / "model.safetensors").exists()
    for row, expected in zip(_history(folder), wanted, strict=True):
        assert row == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_all_with_one_message(
    project: tuple[Path, dict[str, str]],
) -> None:
    folder, environment = project
    _set(folder, {"train.lr": 1e30})
    with _start(folder, environment, **TWO) as process:
        error = process.communicate(timeout=60)[1]
    _set(folder, SMALL | {"train.lr": 0.001})
    assert process.returncode == 2
    assert error.startswith("training stopped at step 1, epoch 1: ")
    assert error.count("\n") == 1
    assert len(list((folder / ".cache" / "failures").iterdir())) == 1
