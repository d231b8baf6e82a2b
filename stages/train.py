"""Fit one model to the prepared images and keep the best by validation."""

from functools import partial

import numpy as np

from robustvae import corruptions, params
from robustvae.corruptions import official
from robustvae.data import contaminated, prepared
from robustvae.models import folder as model_folder
from robustvae.params import MixtureSettings
from robustvae.runtime import distributed, files, progress, seeding
from robustvae.training.run import Trained, train
from robustvae.training.schedule import Row
from stages import CACHE, CONTAMINATED, MODELS, PREPARED, RAW, REPORTS, run

LIVE = ("epoch", "val_total")  # what `dvc exp show` follows


def main() -> None:
    """Train, or go on training; write models/ and reports/train/."""
    settings, data = params.load(), contaminated.load(prepared.load(PREPARED), CONTAMINATED)
    for text in params.spellings(params.read(), settings):
        progress.say(f"note: {text}")
    others = partial(corrupted, data, settings.train.mixture, settings.run.seed)
    history = REPORTS / "train" / "history.csv"
    sections = settings.model, settings.loss, settings.train, settings.run
    train(
        *sections, data, deliver, cache=CACHE, corrupted=others, history=history, on_epoch=follow,
        logs=CACHE,
    )  # fmt: skip


def follow(row: Row) -> None:
    """Write the epoch as metrics, which DVC shows of a training under way."""
    files.write_json(REPORTS / "live.json", {name: row[name] for name in LIVE})


def deliver(trained: Trained) -> None:
    """Write what is to be kept."""
    follow(trained.rows[-1])
    files.write_json(REPORTS / "train" / "warnings.json", trained.warnings)
    (REPORTS / "train" / "weights.npy").unlink(missing_ok=True)
    if trained.weights is not None:
        files.save_npy(REPORTS / "train" / "weights.npy", trained.weights)
    files.save_npz(REPORTS / "train" / "strip.npz", **trained.strip)
    model_folder.save(trained.model, trained.config, MODELS)


def corrupted(
    data: prepared.Prepared, mixture: MixtureSettings, seed: int, index: np.ndarray
) -> np.ndarray:
    """Corrupted versions of the training images of `index`, before binarisation."""
    name, grey = mixture.corruption, data.grey("train")
    if mixture.source == "official":
        archive = RAW / "mnist_c.zip"
        places = official.verify(archive, [name], grey, data.labels["train"], "train")
        return official.read(archive, name, "train")[places[index]]
    stream = seeding.seed(seed, "mixture", "draws")
    return corruptions.corrupt_images(grey[index], name, mixture.severity, stream)


if __name__ == "__main__":
    run(partial(distributed.spread, main))
