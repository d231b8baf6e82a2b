"""Trials that settle train.precision and compile: when they are made, what they decide and keep."""

import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import short
import torch

from robustvae.errors import UserError
from robustvae.models.autoencoder import Autoencoder
from robustvae.params import TrainSettings
from robustvae.runtime import files
from robustvae.training import speed_trial

CPU = torch.device("cpu")
LONG = 10**9  # images, so that a trial is worth it
Rates = Callable[..., list[dict[str, float]]]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "robustvae"


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> Rates:
    """Have trials find these speeds of the other way, the last one for ever; lists each trial."""

    def prepare(*others: float) -> list[dict[str, float]]:
        made: list[dict[str, float]] = []
        found = itertools.chain(others, itertools.repeat(others[-1]))

        def measure(_: Any, ways: Mapping[str, Any], *__: Any) -> dict[str, float]:
            made.append(dict(zip(ways, (100.0, next(found)), strict=True)))
            return made[-1]

        monkeypatch.setattr(speed_trial, "measure", measure)
        return made

    return prepare


def settle(changes: dict[str, Any] | None = None, images: int = LONG, side: int = 8) -> str:
    s = short.settings({"train.precision": "auto", "train.compile": "off", **(changes or {})})
    model = Autoencoder.build(s.model, s.loss, (1, side, side))
    found = speed_trial.settle(model, s.train, s.run, images, CPU)
    changed = {"precision": found.precision, "compile": found.compile}
    assert found == s.train.model_copy(update=changed)
    return found.precision if s.train.compile == "off" else f"{found.precision} {found.compile}"


COMPILE = {"train.compile": "auto", "train.precision": "fp32"}
ENOUGH = 50_000 * 16 // 3  # images for so many steps of 16 in 3 epochs


@pytest.mark.parametrize(("speed", "chosen"), [(90, "off"), (114, "off"), (116, "on")])
def test_compilation_needs_a_margin(rates: Rates, speed: float, chosen: str) -> None:
    rates(speed)
    assert settle(COMPILE) == f"fp32 {chosen}"


def test_compilation_is_tried_in_the_chosen_precision_and_kept(
    rates: Rates, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = rates(200.0, 130.0)
    both = {"train.compile": "auto"}
    assert [settle(both), settle(both)] == ["bf16 on", "bf16 on"]
    assert made == [{"fp32": 100, "bf16": 200}, {"off": 100, "on": 130}]
    (path,) = cache.glob("compile-*.json")
    assert json.loads(path.read_text())["ways"] == {
        "off": ["bf16", "off", 16],
        "on": ["bf16", "on", 16],
    }
    assert (
        f"compile: on (off 100, on 130 images/s in the trial kept in {path})"
        in capsys.readouterr().out
    )


def test_compilation_is_tried_from_50_000_steps_on(rates: Rates) -> None:
    rates(200.0)
    assert [settle(COMPILE, ENOUGH), settle(COMPILE, ENOUGH + 1)] == ["fp32 off", "fp32 on"]


def test_where_nothing_compiles_the_trial_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def step(trainer: speed_trial.Trainer, *_: Any) -> None:
        if trainer.compiled:
            raise UserError("train.compile: torch cannot compile here")

    monkeypatch.setattr(speed_trial.Trainer, "step", step)
    assert settle(COMPILE) == "fp32 off"
    assert "compile: off, for want of a trial (train.compile: torch" in capsys.readouterr().out


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
        (COMPILE, ENOUGH, "fp32 off"),
        ({**COMPILE, "train.compile": "on"}, LONG, "fp32 on"),
    ],
    ids=[
        "short",
        "few steps",
        "bf16",
        "fp32",
        "unchecked net",
        "unchecked latents",
        "few steps to compile for",
        "compiled",
    ],
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

    def step(trainer: speed_trial.Trainer, *_: Any) -> None:
        nonlocal now
        now += steps[trainer.precision].pop(0)

    monkeypatch.setattr(speed_trial.Trainer, "step", step)
    monkeypatch.setattr(speed_trial, "perf_counter", lambda: now)
    s = short.settings()
    model = Autoencoder.build(s.model, s.loss, (1, 8, 8))
    assert speed_trial.measure(model, _ways(s.train), s.run, CPU) == {
        "fp32": 16 / 2,
        "bf16": 16 / 1,
    }


def _ways(train: TrainSettings) -> dict[str, TrainSettings]:
    return {name: train.model_copy(update={"precision": name}) for name in ("fp32", "bf16")}


def test_a_trial_changes_neither_model_nor_random_stream() -> None:
    s = short.settings()
    model = Autoencoder.build(s.model, s.loss, (1, 8, 8))
    before = short.content(model)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    assert min(speed_trial.measure(model, _ways(s.train), s.run, CPU).values()) > 0
    assert torch.equal(torch.rand(2), expected)
    assert short.content(model) == before


def test_work_is_the_number_of_multiply_adds() -> None:
    s = short.settings()
    model = Autoencoder.build(s.model, s.loss, (1, 8, 8))
    assert speed_trial.work(model) == 64 * 16 + 16 * 6 + 3 * 16 + 16 * 64


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert files.user_cache() == tmp_path / "robustvae"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert files.user_cache() == tmp_path / "home" / ".cache" / "robustvae"


def test_bf16_on_two_threads_repeats_to_the_bit() -> None:
    net = {"name": "conv", "channels": [8, 16]}
    changes = {"model.architecture": net, "train.precision": "bf16", "run.threads": 2}
    first, second = (short.content(short.fit(changes)[1]) for _ in range(2))
    assert first == second
