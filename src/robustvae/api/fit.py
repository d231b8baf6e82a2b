"""Training from a notebook: images and settings in, a model that is ready to use out."""

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from robustvae import corruptions, params
from robustvae.api.gathering import gather, pictures, pictures_of
from robustvae.api.vae import VAE, Reference
from robustvae.data import prepared
from robustvae.data.prepare import prepare
from robustvae.data.prepared import Prepared
from robustvae.errors import UserError
from robustvae.models import folder as model_folder
from robustvae.params import MixtureSettings, Params
from robustvae.robustness.measure import of_training
from robustvae.runtime import device as devices
from robustvae.runtime import files, seeding
from robustvae.training.run import Trained, train
from robustvae.training.schedule import Row

SOURCES = ("data.name", "data.root", "data.mirror")  # settings of a pipeline, not of a notebook


def fit(
    images: Any,
    settings: Mapping[str, Any] | str | Path | None = None,
    *,
    labels: Any = None,
    val: Any = None,
    val_labels: Any = None,
    seed: int | None = None,
    device: str | None = None,
    resume: Path | str | None = None,
    on_epoch: Callable[[Row], None] | None = None,
    name: str = "images",
) -> VAE:
    """Train a variational autoencoder on images, as the pipeline's train stage does.

    `images`: an array or tensor (uint8, or float in [0, 1]), a Dataset, a folder of pictures.
    `settings`: names and values of params.yaml, flat or nested, or the path of such a file; all
    else is at its default. Without `val`, a share of `preprocess.val_fraction` is held out. In the
    folder `resume` a training that was cut leaves its state, and goes on when called again. The
    same seed gives the same bytes.

    >>> import numpy as np, robustvae as rv
    >>> x = np.random.default_rng(0).integers(0, 256, (64, 8, 8), dtype=np.uint8)
    >>> how = {"model.architecture.name": "mlp", "loss.df": 3.0, "train.epochs": 1}
    >>> vae = rv.fit(x, how, seed=0)  # doctest: +ELLIPSIS
    mlp autoencoder, ...
    >>> vae.reconstruct(x).shape
    (64, 1, 8, 8)
    """
    changes: dict[str, Any] = {} if seed is None else {"run.seed": seed}
    changes |= {} if device is None else {"run.device": device}
    with tempfile.TemporaryDirectory(prefix="robustvae-", ignore_cleanup_errors=True) as place:
        chosen, data = _prepared(images, labels, val, val_labels, settings, changes, name, place)
        return _fit(chosen, data, resume, on_epoch)


def _prepared(
    images: Any,
    labels: Any,
    val: Any,
    val_labels: Any,
    settings: Mapping[str, Any] | str | Path | None,
    changes: dict[str, Any],
    name: str,
    place: str,
) -> tuple[Params, Prepared]:
    """Checked settings, and the images as the train stage would find them, in `place`."""
    changes["data.name"] = "folder"  # of a size of its own
    given = params.flatten(settings if isinstance(settings, Mapping) else {})
    if unused := [key for key in SOURCES if key in given]:
        raise UserError(
            f"settings: {unused[0]}: has no effect, the images are given; leave it out, or load "
            "a data set with robustvae.datasets.load"
        )
    if isinstance(settings, str | Path):
        given = params.flatten(params.read(settings))
    root, raw = Path(place), Path(place) / "raw"
    sized = given.get("preprocess.image_size", "auto") != "auto"
    if isinstance(images, str | Path) and Path(images).is_dir() and sized and val is None:
        source = pictures_of(Path(images), raw)
        source.splits.setdefault("test", np.zeros(0, np.int64))
    else:
        of = gather(images, labels)
        source = pictures(of, None if val is None else gather(val, val_labels, "val"))
        channels, height, width = of.pixels.shape[1:]
        if not sized:
            changes["preprocess.image_size"] = min(height, width)
        if given.get("preprocess.channels", "auto") == "auto":
            changes["preprocess.channels"] = channels
    chosen = params.complete(settings, **changes)
    out = root / "prepared"
    info = prepare(source, chosen.data, chosen.preprocess, out) | {"name": name}
    files.write_json(out / "info.json", info)
    return chosen, prepared.load(out)


def _fit(
    chosen: Params,
    data: Prepared,
    resume: Path | str | None,
    on_epoch: Callable[[Row], None] | None,
) -> VAE:
    box: list[Trained] = []
    cache = None if resume is None else Path(resume)
    others = partial(_corrupted, data, chosen.train.mixture, chosen.run.seed)
    with devices.restored():
        train(
            chosen.model, chosen.loss, chosen.train, chosen.run, data, box.append,
            cache=cache, corrupted=others, on_epoch=on_epoch,
        )  # fmt: skip
        trained = box[0]
        trained.model.zero_grad(set_to_none=True)
        trained.model.config = model_folder.described(trained.model, trained.config)
        where = devices.settle(chosen.run.device, "run.device")
    index = of_training(len(data.train), chosen.run.seed)
    reference = Reference(
        np.array(data.train[index]), data.labels["train"][index],
        np.asarray(data.train.mean(axis=0) / 255, np.float32),
    )  # fmt: skip
    vae = VAE(trained.model, where.type, history=pd.DataFrame(trained.rows), reference=reference)
    vae.weights = trained.weights
    return vae


def _corrupted(
    data: Prepared, mixture: MixtureSettings, seed: int, index: np.ndarray
) -> np.ndarray:
    stream = seeding.seed(seed, "mixture", "draws")
    grey = data.grey("train")[index]
    return corruptions.corrupt_images(grey, mixture.corruption, mixture.severity, stream)
