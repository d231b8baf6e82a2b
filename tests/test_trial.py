"""The trial that settles train.precision: auto: when it is made, what it decides, what is kept."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import short
import torch

from robustvae import trial
from robustvae.model import Autoencoder

CPU = torch.device("cpu")
LONG = 10**9  # images, so that a trial is worth it
Rates = Callable[..., list[dict[str, float]]]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "robustvae"


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> Rates:
    """Have trials find these speeds, the last one for ever; the list grows with each trial."""

    def prepare(*bf16: float) -> list[dict[str, float]]:
        made: list[dict[str, float]] = []
        found = itertools.chain(bf16, itertools.repeat(bf16[-1]))

        def measure(*_: Any) -> dict[str, float]:
            made.append({"fp32": 100.0, "bf16": next(found)})
            return made[-1]

        monkeypatch.setattr(trial, "measure", measure)
        return made

    return prepare


def settle(changes: dict[str, Any] | None = None, images: int = LONG, side: int = 8) -> str:
    s = short.settings({"train.precision": "auto", **(changes or {})})
    model = Autoencoder.build(s.model, s.loss, (1, side, side))
    return trial.precision(model, s.train, s.run, images, CPU)


@pytest.mark.parametrize(("speed", "chosen"), [(90, "fp32"), (114, "fp32"), (116, "bf16")])
def test_bf16_needs_a_margin(rates: Rates, speed: float, chosen: str) -> None:
    rates(speed)
    assert settle() == chosen


def test_a_choice_is_kept_and_said_with_its_rates(
    rates: Rates, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = rates(200.0, 50.0)
    assert [settle(), settle()] == ["bf16", "bf16"]
    assert len(made) == 1
    (path,) = cache.glob("precision-*.json")
    line = f"precision: bf16 (fp32 100, bf16 200 images/s in the trial kept in {path})\n"
    assert capsys.readouterr().out == 2 * line
    assert json.loads(path.read_text())["images_per_s"] == made[0]


@pytest.mark.parametrize("content", ["{", "[]", '{"images_per_s": {"fp32": 1}}', ""])
def test_a_damaged_file_is_said_and_measured_anew(
    rates: Rates, cache: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    made = rates(200.0)
    settle()
    (path,) = cache.glob("precision-*.json")
    path.write_text(content)
    assert settle() == "bf16"
    assert len(made) == 2
    assert f"{path}: damaged, the trial is made anew" in capsys.readouterr().out
    assert json.loads(path.read_text())["images_per_s"] == made[0]


@pytest.mark.parametrize(
    ("changes", "images", "settled"),
    [
        ({}, 1000, "fp32"),
        ({"train.batch_size": 10**7}, LONG, "fp32"),
        ({"train.precision": "bf16"}, LONG, "bf16"),
        ({"train.precision": "fp32"}, LONG, "fp32"),
        ({"model.architecture": {"name": "resnet", "channels": [8, 16]}}, LONG, "fp32"),
        ({"loss.df": 3.0}, LONG, "fp32"),
    ],
    ids=["short", "few steps", "bf16", "fp32", "unchecked net", "unchecked latents"],
)
def test_nothing_is_tried_where(
    rates: Rates, changes: dict[str, Any], images: int, settled: str
) -> None:
    made = rates(200.0)
    assert settle(changes, images) == settled
    assert not made


@pytest.mark.parametrize(
    ("changes", "side"),
    [
        ({"model.latent_dim": 4}, 8),
        ({"model.architecture.channels": [17]}, 8),
        ({"train.batch_size": 8}, 8),
        ({"run.threads": 2}, 8),
        ({}, 9),
    ],
    ids=["latents", "widths", "batch", "threads", "side"],
)
def test_another_load_has_a_trial_of_its_own(
    rates: Rates, changes: dict[str, Any], side: int
) -> None:
    rates(200.0, 50.0)
    assert [settle(), settle(changes, side=side), settle()] == ["bf16", "fp32", "bf16"]


def test_without_a_place_to_keep_it_no_trial_decides(
    rates: Rates, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = rates(200.0)
    cache.write_text("a file, not a folder")
    assert settle() == "fp32"
    assert not made
    assert "precision: fp32, for want of a trial (" in capsys.readouterr().out


def test_a_trial_takes_medians_of_steps_after_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    now, steps = 0.0, {"fp32": [9, 9, 2, 2, 8, 2, 2], "bf16": [9, 9, 1, 1, 1, 7, 1]}

    def step(trainer: trial.Trainer, *_: Any) -> None:
        nonlocal now
        now += steps[trainer.precision].pop(0)

    monkeypatch.setattr(trial.Trainer, "step", step)
    monkeypatch.setattr(trial, "perf_counter", lambda: now)
    s = short.settings()
    model = Autoencoder.build(s.model, s.loss, (1, 8, 8))
    assert trial.measure(model, s.train, s.run) == {"fp32": 16 / 2, "bf16": 16 / 1}


def test_a_trial_changes_neither_model_nor_random_stream() -> None:
    s = short.settings()
    model = Autoencoder.build(s.model, s.loss, (1, 8, 8))
    before = short.content(model)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    assert min(trial.measure(model, s.train, s.run).values()) > 0
    assert torch.equal(torch.rand(2), expected)
    assert short.content(model) == before


def test_work_is_the_number_of_multiply_adds() -> None:
    s = short.settings()
    model = Autoencoder.build(s.model, s.loss, (1, 8, 8))
    assert trial.work(model) == 64 * 16 + 16 * 6 + 3 * 16 + 16 * 64


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert trial.folder() == tmp_path / "robustvae"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert trial.folder() == tmp_path / "home" / ".cache" / "robustvae"


def test_bf16_on_two_threads_repeats_to_the_bit() -> None:
    net = {"name": "conv", "channels": [8, 16]}
    changes = {"model.architecture": net, "train.precision": "bf16", "run.threads": 2}
    first, second = (short.content(short.fit(changes)[1]) for _ in range(2))
    assert first == second
