"""Training: fit() a model to images, and what is to be said about it."""

import csv
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from robustvae.errors import UserError
from robustvae.models.autoencoder import Autoencoder
from robustvae.params import LossSettings, RunSettings, TrainSettings
from robustvae.runtime import distributed, files, progress
from robustvae.runtime.device import setup
from robustvae.runtime.progress import say
from robustvae.training import resume, strip
from robustvae.training.batches import Source, mix
from robustvae.training.loop import Trainer
from robustvae.training.parallel import parallel
from robustvae.training.robust import LEAST
from robustvae.training.schedule import Row, stops_early
from robustvae.training.step import LARGEST

SATURATED = 1e-3  # alpha_saturation below this for a whole epoch: the penalty no longer acts


def fit(
    model: Autoencoder,
    train: np.ndarray,
    val: np.ndarray,
    settings: TrainSettings,
    run: RunSettings,
    *,
    corrupted: Callable[[np.ndarray], np.ndarray] | None = None,
    mode: str = "none",
    threshold: float = 0.5,
    keep: resume.Checkpoint | None = None,
    history: Path | None = None,
    on_epoch: Callable[[Row], None] | None = None,
    weighed: Callable[[np.ndarray], None] | None = None,
    watched: Callable[[dict[str, np.ndarray]], None] | None = None,
) -> list[Row]:
    """Train on uint8 images [N, C, H, W]; the model ends on the CPU, as it was at its best epoch.

    `mode`, `threshold`: how the images are binarised. `corrupted`: indices of training images ->
    corrupted, grey ones, for train.mixture. Returns the history, a row per epoch; after each, the
    file `history` is rewritten, `keep` takes a checkpoint and `on_epoch` the row.
    At the end `weighed` is given what a robust objective gave each image, [epochs, N], and
    `watched` a few validation images as the model gave them back at some epochs.
    """
    device = setup(**run.model_dump())
    distributed.refuse(device)
    _check_batches(model, settings.batch_size, len(train))
    if model.loss_settings.robust.weighs and len(train) < LEAST:
        raise UserError(
            f"loss.robust.name: {model.loss_settings.robust.name} compares at least {LEAST} images "
            f"of a batch, got {len(train)} training images; use none, or more images"
        )
    inputs, mixture = train, settings.mixture
    if mixture.fraction and corrupted is not None:
        inputs, index = mix(train, corrupted, mixture, run.seed, mode, threshold)
        say(f"{len(index)} of {len(train)} training images replaced by {mixture.corruption}")
    target = inputs if mixture.target == "corrupted" else train
    source = Source(inputs, target, mode == "dynamic", run.seed, device)
    validation = Source(val, val, mode == "dynamic", run.seed, device)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    trainer = Trainer(parallel(model), settings, run, source, validation, keep)
    for note in (trainer.restore(), trainer.note()):
        if note:
            say(note)
    at = trainer.at
    while at.epoch < settings.epochs and not stops_early(at.rows, settings.early_stopping):
        row, speed = _epoch(trainer, settings.epochs)
        trainer.save()
        if history is not None:
            write_history(history, at.rows)
        say(summary(row, settings.epochs, speed))
        if on_epoch is not None:
            on_epoch(row)
    if weighed is not None and at.weighed:
        weighed(torch.stack(at.weighed).numpy())
    if watched is not None:
        watched(strip.arrays(at.strip, val))
    model.load_state_dict(at.best)
    model.cpu().eval()
    if history is not None:
        write_history(history, at.rows)
    return at.rows


def _epoch(trainer: Trainer, epochs: int) -> tuple[Row, float]:
    """What is left of the epoch under way, with a bar: its row, and images a second."""
    start, left = time.monotonic(), trainer.left()
    label = f"epoch {trainer.at.epoch + 1}/{epochs}"
    with progress.bar(desc=label, total=left, unit=" images", mininterval=0.3) as bar:
        for count, loss in trainer.epoch():
            if bar.update(count):  # when it is drawn anew
                bar.set_postfix_str(f"loss {loss.item():.4g}", refresh=False)
        row = trainer.finish()
    return row, left / (time.monotonic() - start)


def _check_batches(model: Autoencoder, size: int, images: int) -> None:
    """Batch norm has nothing to average over where one image of one pixel is left."""
    if min(size, images) > 1 or not any("BatchNorm" in type(m).__name__ for m in model.modules()):
        return
    other = "or choose an architecture without batch norm (model.architecture.name)"
    if images == 1:
        raise UserError(
            "data.limit: batch norm needs at least 2 training images, got 1; raise it, "
            f"give more images, {other}"
        )
    raise UserError(
        f"train.batch_size: batch norm needs at least 2 images in a batch, got {size}; raise it, "
        f"{other}"
    )


def write_history(path: Path, rows: list[Row]) -> None:
    """CSV, a line per epoch; empty where a value is infinite."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with files.replace(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def warnings(loss: LossSettings, rows: list[Row]) -> list[str]:
    """What a reader of the results must know about this training."""
    found = []
    if 2 < loss.df < 2.1:
        found.append(
            f"loss.df {loss.df:g}: near 2 the variance has no bound, and with gamma the means cost "
            "next to nothing; take 2.1 or more"
        )
    saturated = (row.get(LARGEST) for row in rows)
    texts = (saturation_warning(loss, value) for value in saturated if value is not None)
    found += [text for text in texts if text][:1]
    if "t3_effective_beta" in rows[-1]:
        found.append(
            "t3: on images nearly a Gaussian VAE with loss.beta "
            f"{rows[-1]['t3_effective_beta']:.3g}, for loss.df below about 30; "
            "compare with that one"
        )
    return found


def saturation_warning(loss: LossSettings, largest: float) -> str | None:
    """Text for an epoch whose largest `alpha_saturation` is given; None while the penalty acts."""
    if largest >= SATURATED:
        return None
    return (
        f"loss.alpha {loss.order:g}: alpha_saturation stayed below {SATURATED:g} for an epoch "
        f"(at most {largest:.2g}), the divergence is at its bound and no longer acts; "
        "loss.divergence: renyi has no bound"
    )


def summary(row: Row, epochs: int, speed: float) -> str:
    """An epoch in one line; images a second with validation included."""
    penalty = math.inf if row["val_divergence"] is None else row["val_divergence"]
    # Totals of a robust objective are no sum of recon and divergence, which are over all images.
    share, weight = row.get("effective_share"), row.get("beta_weight")
    robust = f"; totals: weights as of {share:.1%} of the images" if share else ""
    robust = f"; beta loss: mean weight {weight:.2g}" if weight else robust
    parts = f"recon {row['val_recon']:.2f}, divergence {penalty:.2f}{robust}"
    return (
        f"epoch {row['epoch']}/{epochs}  train {row['train_total']:.2f}  "
        f"val {row['val_total']:.2f} ({parts})  lr {row['lr']:.2g}  {speed:,.0f} images/s"
    )
