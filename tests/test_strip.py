"""The strip: the same validation images at a few epochs, which leave the training as it was."""

from typing import Any

import numpy as np
import pytest
import torch
from short import VAL, content, fit

from robustvae.models.autoencoder import Autoencoder
from robustvae.training import loop, strip


@pytest.mark.parametrize(
    ("epochs", "stops"),
    [(1, {1}), (3, {1, 2, 3}), (25, {1, 2, 4, 7, 13, 25}), (100, {1, 3, 6, 16, 40, 100})],
)
def test_epochs_are_even_in_their_logarithm(epochs: int, stops: set[int]) -> None:
    assert strip.stops(epochs) == stops


def watched(changes: dict[str, Any]) -> tuple[dict[str, np.ndarray], Autoencoder]:
    seen: list[dict[str, np.ndarray]] = []
    _, model = fit(changes, watched=seen.append)
    return seen[0], model


def test_what_is_kept_is_what_the_model_makes_of_validation_images() -> None:
    found, model = watched({"train.epochs": 3})
    index = [0, 4, 8, 11, 15, 19]
    np.testing.assert_array_equal(found["images"], VAL[index])
    assert found["epochs"].tolist() == [1, 2, 3]
    assert found["seen"].shape == (3, 7, 1, 8, 8)
    with torch.inference_mode():  # the last epoch is the best
        means = model.reconstruct(torch.from_numpy(VAL[index]).float() / 255).numpy()
    assert np.abs(found["seen"][-1, :-1] - 255 * means).max() <= 0.51
    noise = found["seen"][:, -1].astype(float) - found["seen"][:, 0]
    assert (noise != 0).any(axis=(1, 2, 3)).all()


def test_the_last_epoch_before_an_early_stop_is_kept() -> None:
    seen: list[dict[str, np.ndarray]] = []
    how = {"train.epochs": 1000, "train.early_stopping": 1, "train.lr": 0.05}
    rows, _ = fit(how, watched=seen.append)
    assert len(rows) < 1000
    assert len(rows) not in strip.stops(1000)
    assert seen[0]["epochs"][-1] == len(rows)


@pytest.mark.parametrize(
    "changes",
    [{}, {"train.ema": 0.9, "model.architecture": {"name": "conv", "channels": [4, 4]}},
     {"model.latent.name": "vq", "model.architecture": {"name": "conv", "channels": [4]}}],
    ids=["plain", "averaged", "vq"],
)  # fmt: skip
def test_weights_and_history_are_the_same_to_the_bit_without_it(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, model = fit(changes, mode="dynamic")
    monkeypatch.setattr(loop.Trainer, "picture", lambda _: None)
    again, other = fit(changes, mode="dynamic", watched=None)
    assert again == rows
    assert content(other) == content(model)
