"""A training small enough for many in one test run: 43 synthetic images of 8x8 pixels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conftest import ROOT, overlay

from robustvae import corruptions, params, training
from robustvae.models.autoencoder import Autoencoder
from robustvae.runtime import device
from robustvae.training import resume
from robustvae.training.schedule import Row

TINY = {
    "run.threads": 1,
    "run.device": "cpu",
    "model.latent_dim": 3,
    "model.architecture": {"name": "mlp", "channels": [16]},
    "train.epochs": 3,
    "train.batch_size": 16,
    "train.lr": 0.01,
    "train.scheduler.name": "constant",
    "train.input_noise": {"name": "none", "amount": 0.0},
    "train.ema": None,
}


def images(count: int = 43, seed: int = 0) -> np.ndarray:
    """Bright bars on dark ground, uint8 [N, 1, 8, 8]."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 60, (count, 1, 8, 8))
    for image, row in zip(x, rng.integers(0, 7, count), strict=True):
        image[0, row : row + 2] += 150
    return x.astype(np.uint8)


TRAIN, VAL = images(), images(20, 1)


def settings(changes: dict[str, Any] | None = None) -> params.Params:
    """The tiny settings with changes."""
    base = overlay(params.read(ROOT / "params.yaml"), TINY)
    return params.check(overlay(base, changes or {}))


def corrupted(s: params.Params) -> Callable[[np.ndarray], np.ndarray]:
    """What the stage hands to fit for train.mixture."""
    m = s.train.mixture
    return lambda index: corruptions.corrupt_images(TRAIN[index], m.corruption, m.severity)


def fit(
    changes: dict[str, Any] | None = None,
    keep: resume.Checkpoint | None = None,
    history: Path | None = None,
    mode: str = "none",
    watched: Callable[[dict[str, np.ndarray]], None] | None = None,
) -> tuple[list[Row], Autoencoder]:
    """Train from the start, or from the checkpoint; history and model."""
    s = settings(changes)
    device.setup(**s.run.model_dump())
    model = Autoencoder.build(s.model, s.loss, (1, 8, 8))
    rows = training.fit(
        model, TRAIN, VAL, s.train, s.run,
        corrupted=corrupted(s), mode=mode, keep=keep, history=history, watched=watched,
    )  # fmt: skip
    return rows, model


def content(model: torch.nn.Module) -> bytes:
    """Every bit of the weights."""
    return b"".join(v.numpy().tobytes() for v in model.state_dict().values())
