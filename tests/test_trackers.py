"""Trackers see every epoch, change no result, and say what is missing."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from short import TRAIN

import robustvae as rv
from robustvae import params
from robustvae.errors import UserError
from robustvae.training import trackers

ROWS: list[dict[str, float | int | None]] = [
    {"epoch": 1, "train_total": 3.5, "val_total": None},
    {"epoch": 2, "train_total": 2.5, "val_total": 2.75},
]


def follow(name: str, folder: Path) -> None:
    with trackers.tracked(name, folder, "toy-1", {"train": {"lr": 0.1}}) as see:
        for row in ROWS:
            see(row)


def test_tensorboard_has_a_scalar_per_column(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    follow("tensorboard", tmp_path)
    found = EventAccumulator(str(tmp_path / "tensorboard" / "toy-1")).Reload()
    assert [(e.step, e.value) for e in found.Scalars("train_total")] == [(1, 3.5), (2, 2.5)]
    assert [(e.step, e.value) for e in found.Scalars("val_total")] == [(2, 2.75)]


def test_mlflow_has_a_metric_per_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    monkeypatch.setattr(os, "environ", dict(os.environ))  # what it sets is gone afterwards
    follow("mlflow", tmp_path)
    client = MlflowClient((tmp_path / "mlflow").as_uri())
    experiment = client.get_experiment_by_name("robustvae")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.data.params, run.info.status) == ({"train.lr": "0.1"}, "FINISHED")
    seen = client.get_metric_history(run.info.run_id, "train_total")
    assert [(metric.step, metric.value) for metric in seen] == [(1, 3.5), (2, 2.5)]


@pytest.mark.parametrize("name", trackers.TRACKERS)
def test_a_missing_package_is_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda _: None)
    with pytest.raises(UserError) as error:
        follow(name, tmp_path)
    assert str(error.value) == (
        f"run.tracker: the package {name} is missing; "
        f"pip install 'robustvae[{name}]', or set run.tracker to none"
    )


def test_no_description_of_a_training_has_its_tracker() -> None:
    settings = params.complete({"run.tracker": "mlflow"})
    assert settings.run.tracker == "mlflow"
    assert settings.run.model_dump() == params.complete().run.model_dump()


def test_a_tracked_training_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    how: dict[str, Any] = {
        "model.architecture": {"name": "mlp", "channels": [16]}, "model.latent_dim": 3,
        "train.epochs": 2,
    }  # fmt: skip
    plain = rv.fit(TRAIN, how)
    seen = rv.fit(TRAIN, how | {"run.tracker": "tensorboard"})
    for model, name in ((plain, "a"), (seen, "b")):
        model.save(tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    assert len(list((tmp_path / "runs" / "tensorboard").iterdir())) == 1
    np.testing.assert_array_equal(plain.history, seen.history)
