"""Fit one model to the prepared images and keep the best by validation."""

from contextlib import nullcontext
from functools import partial

import numpy as np

from robustvae import corruptions, params, training
from robustvae.corruptions import official
from robustvae.data import prepared
from robustvae.models import folder as model_folder
from robustvae.models.autoencoder import Autoencoder
from robustvae.params import MixtureSettings
from robustvae.runtime import device, distributed, files, seeding
from robustvae.runtime.progress import say
from robustvae.training import resume, speed_trial
from stages import CACHE, MODELS, PREPARED, RAW, REPORTS, run


def main() -> None:
    """Train, or go on training; write models/ and reports/train/."""
    settings = params.load()
    data = prepared.load(PREPARED)
    where = device.setup(**settings.run.model_dump())
    model = Autoencoder.build(settings.model, settings.loss, data.shape)
    model.start(data.train)
    say(model.describe())
    sections = {"train": settings.train, "run": settings.run}
    sections |= {"model": settings.model, "loss": settings.loss}
    config = {name: section.model_dump(mode="json") for name, section in sections.items()}
    config |= {"data": data.info}
    train, images = settings.train, len(data.train)
    train = distributed.first(
        partial(speed_trial.settle, model, train, settings.run, images, where)
    )
    ways = {"precision": train.precision, "compile": train.compile}
    identity = resume.identity(**config, **ways, device=where.type)
    keep, lead = resume.Checkpoint(CACHE, identity), distributed.rank() == 0
    with keep if lead else nullcontext():
        rows = training.fit(
            model,
            data.train,
            data.val,
            train,
            settings.run,
            corrupted=partial(corrupted, data, settings.train.mixture, settings.run.seed),
            mode=data.info["binarize"],
            threshold=data.info["threshold"],
            keep=keep,
            history=REPORTS / "train" / "history.csv" if lead else None,
        )
        if not lead:
            return
        found = training.warnings(settings.loss, rows)
        files.write_json(REPORTS / "train" / "warnings.json", found)
        best_epoch = training.best_epoch(rows) + 1
        model_folder.save(model, config | ways | {"best_epoch": best_epoch}, MODELS)
    for text in found:
        say(f"warning: {text}")


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
