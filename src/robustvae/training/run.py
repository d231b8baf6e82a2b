"""One training, whole: settled, resumed, fitted, and what is to be kept of it."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from robustvae.data.prepared import Prepared
from robustvae.models.autoencoder import Autoencoder
from robustvae.params import LossSettings, ModelSettings, RunSettings, TrainSettings
from robustvae.params.parts import foreign
from robustvae.runtime import device, distributed
from robustvae.runtime.progress import say
from robustvae.training import fitting, resume, speed_trial, trackers
from robustvae.training.schedule import Row, best_epoch


@dataclass(frozen=True)
class Trained:
    """A model as it was at its best epoch; `config`: what its folder says that it does not know."""

    model: Autoencoder
    config: dict[str, Any]
    rows: list[Row]
    warnings: list[str]
    weights: np.ndarray | None = None  # [epochs, N], of a robust objective for each image
    strip: dict[str, np.ndarray] = field(default_factory=dict)  # validation images by epoch


def train(
    model: ModelSettings,
    loss: LossSettings,
    how: TrainSettings,
    run: RunSettings,
    data: Prepared,
    deliver: Callable[[Trained], None],
    *,
    cache: Path | None = None,
    corrupted: Callable[[np.ndarray], np.ndarray] | None = None,
    history: Path | None = None,
    on_epoch: Callable[[Row], None] | None = None,
    logs: Path = Path("runs"),
) -> None:
    """Fit a model to the images and hand it to `deliver`, in process 0 alone.

    Where there is a `cache`, a training that was cut goes on from there, until it is delivered.
    `corrupted`, `history`, `on_epoch`: as `fit` has them. `logs`: folder of a tracker.
    """
    where = device.setup(**run.model_dump())
    vae = Autoencoder.build(model, loss, data.shape)
    vae.start(data.train)
    say(vae.describe())
    sections = {"train": how, "run": run, "model": model, "loss": loss}
    config = {name: section.model_dump(mode="json") for name, section in sections.items()}
    settings = dict(config)
    config |= {"data": data.info}
    how = distributed.first(partial(speed_trial.settle, vae, how, run, len(data.train), where))
    ways: dict[str, Any] = {"precision": how.precision, "compile": how.compile}
    lead, keep = distributed.rank() == 0, None
    weighed: list[np.ndarray] = []
    strip: dict[str, np.ndarray] = {}
    others = [*vae.plugins(), *foreign([("corruption", how.mixture.corruption)])]
    digest = resume.identity(**config, **ways, device=where.type, plugins=others)
    if cache is not None:
        keep = resume.Checkpoint(cache, digest)
    with ExitStack() as stack:
        told = [on_epoch] if on_epoch is not None else []
        if lead:
            if keep is not None:
                stack.enter_context(keep)
            name = f"{data.info['name']}-{digest[:8]}"
            told.append(stack.enter_context(trackers.tracked(run.tracker, logs, name, settings)))
        rows = fitting.fit(
            vae, data.train, data.val, how, run, corrupted=corrupted,
            mode=data.info["binarize"], threshold=data.info["threshold"], keep=keep,
            history=history if lead else None, on_epoch=partial(_tell, told) if lead else None,
            weighed=weighed.append, watched=strip.update,
        )  # fmt: skip
        if not lead:
            return
        found = fitting.warnings(loss, rows)
        config |= ways | {"best_epoch": best_epoch(rows) + 1}
        deliver(Trained(vae, config, rows, found, weighed[0] if weighed else None, strip))
    for text in found:
        say(f"warning: {text}")


def _tell(listeners: list[Callable[[Row], None]], row: Row) -> None:
    for listener in listeners:
        listener(row)
