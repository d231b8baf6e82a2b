"""A training that was killed, at any moment, ends in the same bytes as one that was not."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import copy_project, overlay
from short import content, fit

from robustvae import params
from robustvae.errors import UserError
from robustvae.models.autoencoder import Autoencoder
from robustvae.training import loop, resume

DIGEST = "0123456789abcdef" * 4
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "everything at once": {
        "train.ema": 0.9,
        "train.optimizer": "adamw",
        "train.weight_decay": 0.1,
        "train.grad_clip": 5.0,
        "train.beta_warmup": 2,
        "train.input_noise": {"name": "dropout", "amount": 0.2},
        "train.mixture.fraction": 0.5,
        "train.scheduler": {"name": "plateau", "patience": 1, "monitor": "val_divergence"},
    },
    "batch norm and capacity": {
        "model.architecture": {"name": "conv", "channels": [4, 4]},
        "loss.capacity": {"weight": 10.0, "max": 5.0, "steps": 8},
    },
    "moving codebook": {
        "model.latent.name": "vq",
        "model.architecture": {"name": "conv", "channels": [4]},
    },
    "heavy tails": {"loss.df": 3.0, "model.likelihood.name": "bernoulli"},
}


class Killed(BaseException):
    """As a power cut: nothing in the code expects it."""


def _killed_after(
    steps: int, changes: dict[str, Any], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = loop.Trainer.epoch

    def epoch(self: loop.Trainer) -> Any:
        nonlocal steps
        for done in plain(self):
            steps -= 1
            if steps == 0:
                raise Killed
            yield done

    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "epoch", epoch)
        with pytest.raises(Killed), resume.Checkpoint(cache, DIGEST) as keep:
            fit(changes, keep, mode="dynamic")


@pytest.mark.parametrize("every", [0.0, 1e9], ids=["saved at each step", "saved at each epoch"])
@pytest.mark.parametrize("case", CASES)
def test_a_resumed_training_ends_in_the_same_bytes(
    case: str, every: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY", every)
    changes = {"train.epochs": 4, **CASES[case]}  # twelve steps
    strips: list[dict[str, np.ndarray]] = []
    rows, model = fit(
        changes, mode="dynamic", history=tmp_path / "whole.csv", watched=strips.append
    )
    for kill in random.Random(case).sample(range(1, 12), 2):
        _killed_after(kill, changes, tmp_path, monkeypatch)
        # killed again on the way, then left alone
        _killed_after(1, changes, tmp_path, monkeypatch)
        with resume.Checkpoint(tmp_path, DIGEST) as keep:
            again, other = fit(
                changes, keep, mode="dynamic", history=tmp_path / "resumed.csv",
                watched=strips.append,
            )  # fmt: skip
        assert again == rows
        assert content(other) == content(model)
        assert (tmp_path / "resumed.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
        assert {k: v.tobytes() for k, v in strips[-1].items()} == {
            k: v.tobytes() for k, v in strips[0].items()
        }


def test_the_step_count_of_the_capacity_is_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    _killed_after(5, {}, tmp_path, monkeypatch)
    state, _ = resume.Checkpoint(tmp_path, DIGEST).load()
    assert state is not None
    assert (state["step"], state["epoch"], state["position"]) in [(4, 1, 1), (5, 1, 2)]


def test_a_finished_training_leaves_no_checkpoint(tmp_path: Path) -> None:
    with resume.Checkpoint(tmp_path, DIGEST) as keep:
        fit(keep=keep)
        assert keep.path.exists()
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_training_killed_after_its_last_epoch_is_finished_without_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, model = fit()

    def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Autoencoder, "cpu", killed)  # what fit does when the loop is over
        with pytest.raises(Killed), resume.Checkpoint(tmp_path, DIGEST) as keep:
            fit(keep=keep)
    monkeypatch.setattr(loop.Trainer, "step", None)
    with resume.Checkpoint(tmp_path, DIGEST) as keep:
        again, other = fit(keep=keep)
    assert again == rows
    assert content(other) == content(model)


def _damaged(content: bytes, how: str) -> bytes:
    middle = len(content) // 2
    changed = bytes([content[middle] ^ 1])
    return {
        "truncated": content[:middle],
        "one bit": content[:middle] + changed + content[middle + 1 :],
        "garbage": b"\x00\xff" * 500,
        "empty": b"",
        "json": b"[1]\n",
        "foreign": content.replace(DIGEST.encode(), b"f" * 64),
    }[how]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("truncated", "truncated or damaged checkpoint"),
        ("one bit", "truncated or damaged checkpoint"),
        ("garbage", "not a checkpoint of this version"),
        ("empty", "not a checkpoint of this version"),
        ("json", "not a checkpoint of this version"),
        ("foreign", "checkpoint of another training"),
    ],
)
def test_a_bad_checkpoint_is_named_and_not_used(
    how: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wanted = fit()[0]
    _killed_after(4, {}, tmp_path, monkeypatch)
    keep = resume.Checkpoint(tmp_path, DIGEST)
    keep.path.write_bytes(_damaged(keep.path.read_bytes(), how))
    capsys.readouterr()
    with keep:
        assert fit(keep=keep)[0] == wanted
    line = capsys.readouterr().out.splitlines()[0]
    assert str(keep.path) in line
    assert said in line
    assert "training starts anew" in line


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    class Mischief:
        def __reduce__(self) -> Any:
            return (print, ("executed",))

    with pytest.raises(Exception, match="Weights only load failed"):
        resume.unpack(resume.pack({"x": Mischief()}, DIGEST), DIGEST)


def test_the_environment_can_ask_for_a_fresh_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _killed_after(4, {}, tmp_path, monkeypatch)
    keep = resume.Checkpoint(tmp_path, DIGEST)
    assert keep.load()[0] is not None
    monkeypatch.setenv("ROBUSTVAE_FRESH", "1")
    state, note = keep.load()
    assert state is None
    assert "ROBUSTVAE_FRESH=1" in note


def test_identity_covers_parameters_data_and_code(monkeypatch: pytest.MonkeyPatch) -> None:
    found = resume.identity(lr=1, data="a")
    assert found == resume.identity(data="a", lr=1)
    assert found != resume.identity(lr=2, data="a")
    assert found != resume.identity(lr=1, data="b")
    assert "models/divergences.py" in resume.sources()
    monkeypatch.setattr(resume, "sources", lambda: {"robustvae.models.autoencoder": "changed"})
    assert found != resume.identity(lr=1, data="a")


HOLD = """
import sys, time
from pathlib import Path
from robustvae.training import resume
with resume.Checkpoint(Path(sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_two_trainings_do_not_race_and_a_dead_ones_lock_is_taken_over(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path), DIGEST]
    environment = os.environ | {"PYTHONPATH": str(Path(resume.__file__).parents[2])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with (
            pytest.raises(UserError, match=f"process {other.pid} is training.*`kill {other.pid}`"),
            resume.Checkpoint(tmp_path, DIGEST),
        ):
            pass
        other.kill()
    with resume.Checkpoint(tmp_path, DIGEST) as keep:
        assert (keep.folder / "pid").read_text() == str(os.getpid())


# --- real processes, killed by the system

TRAIN = [sys.executable, "-m", "stages.train"]
RESULTS = ["models/model.safetensors", "models/config.json", "reports/train/history.csv"]
SMALL = {
    "data.limit": 300,
    "run.threads": 1,
    "train.epochs": 12,
    "train.ema": 0.9,
    "train.scheduler.name": "cosine",
    "train.input_noise": {"name": "gaussian", "amount": 0.1},
    "model.architecture": {"name": "mlp", "channels": [64]},
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A project whose data are prepared."""
    home = tmp_path_factory.mktemp("resume")
    environment = copy_project(home / "project", home)
    path = home / "project" / "params.yaml"
    path.write_text(yaml.safe_dump(overlay(params.read(path), SMALL), sort_keys=False))
    for command in ("git init -q", "git add -A", "git commit -qm Start", "dvc repro contaminate"):
        subprocess.run(command.split(), cwd=path.parent, env=environment, check=True)
    return path.parent, environment


@pytest.fixture
def wanted(project: tuple[Path, dict[str, str]]) -> dict[str, bytes]:
    """What an uninterrupted training writes; its files are gone again."""
    folder, environment = project
    if not (folder / "wanted").exists():
        subprocess.run(TRAIN, cwd=folder, env=environment, check=True)
        for name in RESULTS:
            (folder / "wanted" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).rename(folder / "wanted" / name)
    for name in RESULTS:
        (folder / name).unlink(missing_ok=True)
    return _results(folder / "wanted")


def _results(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in RESULTS}


def _epochs(folder: Path) -> int:
    history = folder / "reports" / "train" / "history.csv"
    return len(history.read_text().splitlines()) - 1 if history.exists() else 0


@pytest.mark.slow
def test_a_killed_process_resumes_to_the_same_bytes(
    project: tuple[Path, dict[str, str]], wanted: dict[str, bytes]
) -> None:
    folder, environment = project
    rng = random.Random(0)
    kills = [1, *sorted(rng.sample(range(1, 11), 3))]
    for target, sign in zip(kills, [signal.SIGTERM] + [signal.SIGKILL] * 3, strict=True):
        with subprocess.Popen(
            TRAIN, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            while _epochs(folder) < target and process.poll() is None:
                time.sleep(0.005)
            time.sleep(rng.random() * 0.02)
            process.send_signal(sign)
            said = process.communicate()[1].decode()
        assert process.returncode == (-signal.SIGKILL if sign == signal.SIGKILL else 130), said
        assert said.count("\n") == (0 if sign == signal.SIGKILL else 1)
        assert not (folder / "models" / "model.safetensors").exists()
    done = subprocess.run(
        TRAIN, cwd=folder, env=environment, check=True, capture_output=True, text=True
    )
    assert "training goes on from" in done.stdout
    assert _results(folder) == wanted
    assert list((folder / ".cache" / "checkpoints").iterdir()) == []


@pytest.mark.slow
def test_dvc_repro_finishes_what_a_kill_cut_short(
    project: tuple[Path, dict[str, str]], wanted: dict[str, bytes]
) -> None:
    """kill -9 of dvc leaves a trainer: the next run names it, and resumes once it is gone."""
    folder, environment = project
    repro = ["dvc", "repro", "train"]
    with subprocess.Popen(repro, cwd=folder, env=environment, stdout=subprocess.DEVNULL) as dvc:
        while _epochs(folder) < 1:
            time.sleep(0.01)
            assert dvc.poll() is None
        (owner,) = (folder / ".cache" / "checkpoints").glob("*/pid")
        trainer = owner.read_text()
        os.kill(int(trainer), signal.SIGSTOP)  # as if there were much left to do
        dvc.kill()
    done = subprocess.run(
        repro, cwd=folder, env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert f"process {trainer} is training" in done.stdout + done.stderr
    os.kill(int(trainer), signal.SIGKILL)
    subprocess.run(repro, cwd=folder, env=environment, check=True)
    assert _results(folder) == wanted
