"""Which of your images do not belong? A model trained robustly on all of them, or one you have."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustvae.api.fit import fit
from robustvae.api.images import Images, Source, in_unit, read, usual_shape
from robustvae.api.vae import VAE, load
from robustvae.errors import UserError

LEAST = 50  # images: of fewer, hardly anything can be learnt
SPREAD = 1.4826  # standard deviations in a median absolute deviation of a normal law
OBJECTIVES = {"welsch": 3.0, "rejected": 3.0, "huber": 1.0, "trimmed": 0.1}  # usual strengths
QUICK: Mapping[str, Any] = {
    "model.architecture.name": "mlp", "train.precision": "fp32", "train.ema": None,
    "train.scheduler.name": "constant", "train.input_noise": {"name": "none", "amount": 0.0},
}  # fmt: skip


@dataclass(frozen=True)
class Screening:
    """Images with what makes each suspicious, in the order in which they came.

    >>> import numpy as np, robustvae as rv
    >>> x = np.random.default_rng(0).integers(0, 99, (64, 8, 8), dtype=np.uint8)
    >>> found = rv.screen(x, epochs=1)  # doctest: +ELLIPSIS
    mlp autoencoder, ...
    >>> found.suspicion.shape, sorted(found.order) == list(range(64))
    ((64,), True)
    """

    images: Images
    suspicion: NDArray[np.float64]  # robust standard deviations of neg_elbo above its median
    neg_elbo: NDArray[np.float64]  # nats
    error: NDArray[np.float64]  # squared error per pixel of the reconstruction
    weight: NDArray[np.float16] | None  # what it counted in the last epoch; None: own model
    model: VAE

    @property
    def order(self) -> NDArray[np.int64]:
        """The most suspicious first."""
        return np.argsort(-self.suspicion, kind="stable")


def screen(
    source: Source,
    *,
    model: VAE | Path | str | None = None,
    objective: str = "welsch",
    strength: float | None = None,
    epochs: int = 30,
    size: int | None = None,
    seed: int = 0,
    device: str = "auto",
) -> Screening:
    """Rank images by suspicion, with a model (or its folder) or one trained on these very images.

    `source`: a folder of pictures, a .npy file, an array. `size`: side to which images are
    brought; None: their own where they are square arrays of at most 64 pixels, else 32.

    >>> import numpy as np, robustvae as rv
    >>> x = np.random.default_rng(0).integers(0, 99, (64, 8, 8), dtype=np.uint8)
    >>> x[5] = 255
    >>> found = rv.screen(x, epochs=2)  # doctest: +ELLIPSIS
    mlp autoencoder, ...
    >>> int(found.order[0])
    5
    """
    if model is not None:
        vae = model if isinstance(model, VAE) else load(model, device)
        return _ranked(vae, vae.images(source, resize=True, seed=seed), seed)
    if objective not in OBJECTIVES:
        raise UserError(f"objective: must be one of {', '.join(OBJECTIVES)}, got {objective!r}")
    found = _learnable(source, size)
    usual = OBJECTIVES[objective] if strength is None else strength
    robust = {"name": objective, "strength": usual}
    how = {**QUICK, "train.epochs": epochs, "loss.robust": robust, "run.device": device}
    pixels = found.pixels
    vae = fit(pixels, how, val=pixels[::10], seed=seed, name="screened images")
    return _ranked(vae, found, seed)


def _learnable(source: Source, size: int | None) -> Images:
    """The images as they are trained on: enough of them, uint8."""
    found = read(source, usual_shape(source, size), Path("data/prepared"), resize=True)
    if len(found) < LEAST:
        raise UserError(
            f"screen: needs {LEAST} images or more to learn what is usual, got {len(found)}; give "
            "more, or a trained model"
        )
    if found.pixels.dtype == np.uint8:
        return found
    whole = np.rint(in_unit(found.pixels) * 255).astype(np.uint8)
    return Images(whole, found.names, found.pictures)


def _ranked(vae: VAE, images: Images, seed: int) -> Screening:
    cost = vae.score(images, seed=seed)
    middle = np.median(cost)
    scale = max(SPREAD * float(np.median(np.abs(cost - middle))), 1e-6 * max(1, abs(middle)))
    far = vae.reconstruct(images) - in_unit(images.pixels)
    error = np.square(far, dtype=np.float64).mean((1, 2, 3))
    weight = None if vae.weights is None else vae.weights[-1]
    return Screening(images, (cost - middle) / scale, cost, error, weight, vae)
