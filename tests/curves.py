"""Losses of some fifty steps, by one process or several: `python -m curves FOLDER`."""

import contextlib
import json
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import short
from stages import run
from torch import Tensor

from robustvae import training
from robustvae.errors import UserError
from robustvae.models.autoencoder import Autoencoder
from robustvae.runtime import device, distributed
from robustvae.training import resume
from robustvae.training.batches import Source
from robustvae.training.loop import Trainer

# 43 images in batches of 16 (the last of 11), 20 for validation: odd shares among two.
CONV = {"name": "conv", "channels": [4, 4]}
CASES: dict[str, dict[str, Any]] = {
    "default net": {"model.architecture": {"name": "conv", "channels": None}, "train.epochs": 25},
    "mlp": {},
    "student-t": {"loss.df": 3.0},
    "moving codebook": {"model.latent.name": "vq", "model.architecture": CONV},
    "everything at once": {
        "train.ema": 0.9,
        "train.grad_clip": 5.0,
        "train.input_noise": {"name": "dropout", "amount": 0.2},
        "train.early_stopping": 9,
        "train.scheduler": {"name": "plateau", "patience": 1, "monitor": "val_divergence"},
        "loss.alpha": 0.5,
        "model.architecture": CONV,
    },
    "capacity": {
        "loss.capacity": {"weight": 10.0, "max": 5.0, "steps": 30},
        "model.architecture": CONV,
    },
    "batches of one": {"train.batch_size": 1, "train.epochs": 2},
}
DOUBLE = ("default net",)  # precision: batch norm of so few pixels amplifies rounding


def curve(changes: dict[str, Any], double: bool = False) -> dict[str, list[Any]]:
    """The loss of each step, and the history; in single precision, or double."""
    losses: list[float] = []
    step, take = Trainer.step, Source._take

    def noted(self: Trainer, index: Tensor, warmup: float) -> Tensor:
        total = step(self, index, warmup)
        losses.append(total.item())
        return total

    def doubled(self: Source, *args: Any) -> Tensor:
        return take(self, *args).double()

    s = short.settings({"train.epochs": 17, **changes})
    device.setup(**s.run.model_dump())
    model = Autoencoder.build(s.model, s.loss, (1, 8, 8))
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(Trainer, "step", noted))
        if double:
            model.double()
            stack.enter_context(mock.patch.object(Source, "_take", doubled))
        rows = training.fit(model, short.TRAIN, short.VAL, s.train, s.run, mode="dynamic")
    return {"losses": losses, "rows": list(rows)}


def stopped(cache: Path) -> str:
    """What a training says whose loss is soon not finite."""
    s = short.settings({"train.lr": 1e30})
    device.setup(**s.run.model_dump())
    model = Autoencoder.build(s.model, s.loss, (1, 8, 8))
    keep = resume.Checkpoint(cache, "0" * 64)
    try:
        training.fit(model, short.TRAIN, short.VAL, s.train, s.run, keep=keep)
    except UserError as error:
        return str(error)
    raise AssertionError("it should have stopped")


def main() -> None:
    """Write the message and all curves, then lose a process.

    Processes that had not stopped together would not come to the curves.
    """
    folder = Path(sys.argv[1])
    found = {"stopped": stopped(folder)}
    found |= {case: curve(changes, case in DOUBLE) for case, changes in CASES.items()}
    if distributed.rank() == 0:
        (folder / "curves.json").write_text(json.dumps(found | {"pid": os.getpid()}))
    distributed.first(lambda: None)
    if distributed.rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    distributed.first(lambda: None)  # which needs process 1


if __name__ == "__main__":
    run(partial(distributed.spread, main))
