"""Small trained models and their prepared data, made once per test run."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conftest import ROOT, overlay

from robustvae import params
from robustvae.data import binarize
from robustvae.models import folder as model_folder
from robustvae.models.autoencoder import Autoencoder
from robustvae.runtime import files

SIDE = 16
SMALL = {
    "model.latent_dim": 4,
    "model.architecture": {"max_filters": 32, "depth": 2},
    "model.likelihood.variance": "fixed",
    "model.likelihood.sigma": 0.1,
}
KINDS: dict[str, dict[str, Any]] = {
    "gaussian": {},
    "colour": {},
    "binary": {"model.likelihood.name": "bernoulli"},
    "cross_entropy": {"model.likelihood.name": "bernoulli"},
    "gamma": {"loss.df": 3.0},
    "t3": {"loss.df": 3.0, "loss.divergence": "t3", "model.likelihood.name": "student_t",
           "model.likelihood.sigma": 1.0},
    "vq": {"model.latent": {"name": "vq", "codes": 32}},
}  # fmt: skip
STEPS = {"gaussian": 120, "colour": 1, "t3": 5}


@functools.cache
def home() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="robustvae-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def shapes(count: int, channels: int = 1) -> np.ndarray:
    """Soft bright rectangles on black, uint8 [N, C, 16, 16]; each has its own place and size."""
    rng, grid = np.random.default_rng(0), np.arange(SIDE)
    low, size = rng.integers(1, 8, (2, count, 1)), rng.integers(4, 8, (2, count, 1))
    rows, columns = ((grid >= a) & (grid < a + b) for a, b in zip(low, size, strict=True))
    images = rows[:, :, None] & columns[:, None, :]
    return np.repeat(np.uint8(230) * images[:, None], channels, axis=1)


@functools.cache
def data(kind: str) -> Path:
    """data/prepared of the shapes, with the attributes Wide and Tall."""
    folder = home() / kind / "prepared"
    images = shapes(64, 3 if kind == "colour" else 1)
    mode = "threshold" if kind == "binary" else "none"
    images = binarize.apply(torch.from_numpy(images), mode, 0.5, None).numpy()
    inked = images[:, 0] > 0
    marks = np.stack([inked.any(1).sum(1) > 5, inked.any(2).sum(1) > 5], 1).astype(np.int64)
    splits = {"train": slice(0, 32), "val": slice(32, 40), "test": slice(32, 64)}
    for name, where in splits.items():
        files.save_npy(folder / f"{name}.npy", images[where])
        files.save_npy(folder / f"{name}_labels.npy", marks[where])
    counts = {name: where.stop - where.start for name, where in splits.items()}
    info = {"name": "shapes", "shape": list(images.shape[1:]), "counts": counts, "binarize": mode,
            "threshold": 0.5, "classes": None, "attributes": ["Wide", "Tall"], "licence": "CC0",
            "checksums": {"train.npy": files.sha256(folder / "train.npy")}}  # fmt: skip
    files.write_json(folder / "info.json", info)
    return folder


@functools.cache
def model(kind: str) -> Path:
    """A model folder; the kind `gaussian` has learned its training images."""
    settings = params.check(overlay(params.read(ROOT / "params.yaml"), SMALL | KINDS[kind]))
    x = torch.from_numpy(np.load(data(kind) / "train.npy")).float() / 255
    folder, shape = home() / kind / "models", (x.shape[1], x.shape[2], x.shape[3])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = Autoencoder.build(settings.model, settings.loss, shape)
        optimizer = torch.optim.Adam(vae.parameters(), lr=5e-3)
        for _ in range(STEPS.get(kind, 30)):
            terms = vae.terms(x)
            optimizer.zero_grad()
            (terms.recon + terms.divergence).mean().backward()
            optimizer.step()
    info = files.read_json(data(kind) / "info.json")
    run = {"run": settings.run.model_dump(mode="json"), "best_epoch": 3}
    model_folder.save(vae.eval(), {"data": info, "train": {"epochs": 5}, **run}, folder)
    return folder
