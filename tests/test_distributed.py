"""Several processes train as one does, end together, and only the first of them writes."""

import contextlib
import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import curves
import pytest
import torch
import yaml
from conftest import ROOT, copy_project, overlay
from stages import train
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from robustvae import params, training
from robustvae.errors import UserError
from robustvae.runtime import distributed
from robustvae.runtime.distributed import Share

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


@pytest.mark.parametrize(
    ("failures", "said"),
    [
        (
            {0: (3, "reset by peer"), 1: (-9, "")},
            r"process 1 died \(SIGKILL\); `dvc repro` goes on",
        ),
        ({0: (2, "UserError: lower train.lr"), 1: (-15, "")}, "^lower train.lr$"),
        ({0: (3, "reset by peer"), 1: (2, "UserError: no space")}, "^no space$"),
        ({0: (-15, ""), 1: (7, "")}, r"process 1 died \(exit status 7\)"),
        ({2: (3, "reset by peer"), 3: (-15, "")}, "process 2 lost another one, whose machine says"),
        ({0: (3, "reset by peer"), 1: (1, "KeyError: 4")}, "^process 1: Traceback$"),
    ],
)
def test_the_first_cause_is_what_the_run_ends_with(
    failures: dict[int, tuple[int, str]], said: str, tmp_path: Path
) -> None:
    found = {}
    for rank, (code, message) in failures.items():
        file = tmp_path / f"{rank}.json"
        if message:
            extra = {"py_callstack": "Traceback", "timestamp": "0"}
            file.write_text(json.dumps({"message": {"message": message, "extraInfo": extra}}))
        found[rank] = ProcessFailure(rank, 4000 + rank, code, str(file))
    with pytest.raises((UserError, SystemExit), match=said):
        distributed._blame(found)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes write, of which the second is killed in the end."""
    folder = tmp_path_factory.mktemp("curves")
    path = os.pathsep.join(map(str, (ROOT / "tests", ROOT / "src", ROOT)))
    command = [sys.executable, "-m", "curves", str(folder)]
    environment = os.environ | TWO | {"PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    ended = time.time()
    (folder / "said.json").write_text(json.dumps([done.returncode, done.stderr, ended]))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("case", curves.CASES)
def test_two_processes_follow_the_curve_of_one(case: str, folder: Path) -> None:
    """To rounding."""
    double = case in curves.DOUBLE
    one = curves.curve(curves.CASES[case], double)
    two = json.loads((folder / "curves.json").read_text())[case]
    near = 1e-7 if double else 1e-4
    assert len(one["losses"]) >= 50
    assert two["losses"] == pytest.approx(one["losses"], rel=near)
    for row, wanted in zip(two["rows"], one["rows"], strict=True):
        assert row == pytest.approx(wanted, rel=near)


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_run_soon_with_one_message(folder: Path) -> None:
    code, error, ended = json.loads((folder / "said.json").read_text())
    assert error == "process 1 died (SIGKILL); `dvc repro` goes on from the last checkpoint\n"
    assert code == 2
    assert ended - (folder / "curves.json").stat().st_mtime < 30
    assert not _alive(json.loads((folder / "curves.json").read_text())["pid"])


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_all_and_one_process_can_replay_it(folder: Path) -> None:
    said = json.loads((folder / "curves.json").read_text())["stopped"]
    assert said.startswith("training stopped at step 1, epoch 1: ")
    (failure,) = (folder / "failures").iterdir()
    assert str(failure) in said
    with contextlib.suppress(ArithmeticError):
        assert not training.replay(failure)[2].isfinite()


# --- stages as a user runs them

SMALL = {
    "data.limit": 100,
    "run.threads": 1,
    "train.epochs": 60,
    "train.scheduler": {"name": "plateau", "patience": 2},
    "train.ema": 0.9,
    "model.architecture": {"name": "mlp", "channels": [16]},
}
PREPARE = (
    "from stages import contaminate, download, preprocess; "
    "download.main(); preprocess.main(); contaminate.main()"
)


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


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if "__pycache__" not in path.parts]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_a_training_goes_on_with_another_number_of_processes_and_machines(
    project: tuple[Path, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two machines, interrupted; one process, killed; then two to the end."""
    folder, environment = project
    other = tmp_path / "other"
    copy_project(other, tmp_path)
    _set(other, SMALL)
    for name in ("prepared", "contaminated"):
        (other / "data" / name).symlink_to(folder / "data" / name)
    before = _files(other)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    nodes = {"PET_NNODES": "2", "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": port}
    with (
        _start(folder, environment, PET_NODE_RANK="0", **nodes) as process,
        _start(other, environment, PET_NODE_RANK="1", **nodes) as second,
    ):
        _until(5, folder, process)
        workers = _workers(process) + _workers(second)
        process.terminate()
        assert process.communicate(timeout=30)[1] == "interrupted; `dvc repro` goes on from here\n"
        assert second.communicate(timeout=30) == (
            "", "process 1 lost another one, whose machine says why\n"
        )  # fmt: skip
    assert (process.returncode, second.returncode) == (130, 2)
    assert not any(map(_alive, workers))
    assert _files(other) == before

    with _start(folder, environment) as process:
        _until(20, folder, process)
        process.kill()
        assert "training goes on from" in process.communicate()[0]

    subprocess.run(["git", "init", "-q"], cwd=folder, env=environment, check=True)
    repro = ["dvc", "repro", "--single-item", "train"]
    done = subprocess.run(
        repro, cwd=folder, env=environment | TWO, check=True, capture_output=True, text=True
    )
    lines = done.stdout.splitlines()
    assert sum("training goes on from" in line for line in lines) == 1
    assert sum(line.startswith("epoch 60/60") for line in lines) == 1
    assert (folder / "models" / "model.safetensors").exists()
    found = _history(folder)
    monkeypatch.chdir(folder)
    train.main()
    for row, expected in zip(found, _history(folder), strict=True):
        assert row == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_machines_that_are_badly_named_are_one_message(
    project: tuple[Path, dict[str, str]],
) -> None:
    folder, environment = project
    process = _start(folder, environment, PET_NNODES="two", PET_NODE_RANK="1")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "PET_NNODES=two" in said
    assert "the machines did not find each other" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_the_wait_for_another_machine_can_be_ended(
    project: tuple[Path, dict[str, str]],
) -> None:
    folder, environment = project
    where = {"PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": "9"}  # where nobody listens
    process = _start(folder, environment, PET_NNODES="2", PET_NODE_RANK="1", **where)
    time.sleep(8)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=5)
    assert process.returncode != 0
