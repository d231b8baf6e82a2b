"""What a model makes of clean and corrupted images: losses, probe, and every metric per image."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from robustvae import binarize, metrics, seeding
from robustvae.distributions import Diagonal, DiagStudentT
from robustvae.divergences import Objective
from robustvae.metrics import METRICS, Pair, Probe
from robustvae.model import Autoencoder
from robustvae.params import EvaluateSettings
from robustvae.progress import track
from robustvae.robustness import bounds, collapse, table
from robustvae.robustness.bounds import Draws, Report, batches, pixels, shifted, slices
from robustvae.robustness.table import Columns

PIXEL_METRICS = {"e_den", "e_self", "e_stab", "ssim_den"}  # what the baselines have too
PROBE_IMAGES = 10_000
POOLED = 4  # side to which the probe pools codewords (vq)
SKL_PAIRS = 4  # mirrored pairs of draws for the symmetric KL of Student-t posteriors


def binarized(
    images: NDArray[np.uint8], split: str, info: Mapping[str, Any], seed: int
) -> NDArray[np.uint8]:
    """The images as the model sees them; `dynamic` is drawn here, other modes are in the files.

    The clean and the corrupted images of a split share their draws, so that they differ by the
    corruption alone. `info` is that of the prepared data.
    """
    if info["binarize"] != "dynamic":
        return images
    rng, result = seeding.generator(seed, "evaluate", "binarize", split), np.empty_like(images)
    for where in slices(len(images), 1000):
        part = torch.from_numpy(np.array(images[where]))
        result[where] = binarize.apply(part, "dynamic", info["threshold"], rng).numpy()
    return result


@torch.inference_mode()
def losses(
    model: Autoencoder,
    images: NDArray[np.uint8],
    q: Diagonal | None,
    name: str,
    size: int,
    draws: Draws,
) -> Report:
    """Terms of the training loss on one split, one draw per image, and mse of reconstructions."""
    parts: dict[str, list[Tensor]] = {"recon": [], "divergence": [], "mse": []}
    noise = None if q is None else draws.standard(q, "losses", name)
    known = batches(model, images, q, noise, size)
    total = len(slices(len(images), size))
    for _, x, part, draw in track(known, f"losses, {name}", total, "batch"):
        if part is None or draw is None:
            recon, divergence, x_hat, _ = model.terms(x)
        else:
            z = shifted(part, draw)
            recon = model.likelihood.distortion(x, model.decode(z), z)
            divergence, _ = model.divergence.evaluate(part, model.prior())
            x_hat = model.likelihood.mean(model.decode(part.mean))
        for key, value in zip(parts, (recon, divergence, metrics.mse(x_hat, x)), strict=True):
            parts[key].append(value.cpu().double())
    return _summed_up(model, *(torch.cat(values) for values in parts.values()))


def _summed_up(model: Autoencoder, recon: Tensor, divergence: Tensor, mse: Tensor) -> Report:
    """Means; the total is recon + beta * divergence, as it is in validation."""
    report, settings = Report(), model.loss_settings
    infinite = float(divergence.isinf().double().mean())
    reason = f"infinite for {infinite:.2%} of the images" if infinite else None
    report.put("recon", recon.numpy())
    report.put("divergence", divergence.numpy(), reason)
    fixed = settings.capacity.model_copy(update={"weight": None})
    total = Objective(settings.beta, fixed)(recon, divergence, step=0)
    report.put("total", total.reshape(1).numpy(), reason if settings.beta else None)
    report.put("mse", mse.numpy())
    report.facts["divergence_infinite_fraction"] = infinite
    return report


@dataclass(frozen=True)
class Seen:
    """What the model makes of a batch."""

    q: Diagonal | None  # None: vq
    x_hat: Tensor  # [B, C, H, W], deterministic
    features: Tensor  # [B, F], for the probe


def see(model: Autoencoder, x: Tensor) -> Seen:
    """Encode, and decode the posterior mean (vq: the codewords)."""
    if model.family == "vq":
        z = model.quantise(x)
        pooled = F.adaptive_avg_pool2d(z, min(POOLED, z.shape[-1])).flatten(1)
        return Seen(None, model.likelihood.mean(model.decode(z)), pooled)
    q = model.posterior(x)
    return Seen(q, model.likelihood.mean(model.decode(q.mean)), q.mean)


@torch.inference_mode()
def fit_probe(
    model: Autoencoder,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    asked: NDArray[np.int64],
    settings: EvaluateSettings,
    draws: Draws,
) -> Probe | str:
    """Fitted to at most 10,000 clean training images; or why there is none.

    `asked` are the labels of the test images.
    """
    if "probe" not in settings.metrics:
        return "evaluate.metrics leaves probe out"
    if labels.ndim > 1:
        return "the images have attributes, not one class each"
    chosen = seeding.numpy_rng(draws.seed, "evaluate", "probe").permutation(len(images))
    chosen = np.sort(chosen[:PROBE_IMAGES])
    classes = np.unique(labels[chosen])
    if classes[0] < 0 or len(classes) < 2:
        return "the images are not labelled with two classes or more"
    if asked.min() < 0:
        return "not every test image is labelled"
    if strange := np.setdiff1d(asked, classes).tolist():
        return f"test images have classes that training images lack: {str(strange)[1:-1]}"
    subset = images[chosen]
    batches = slices(len(subset), settings.batch_size)
    features = [see(model, pixels(model, subset, where)).features.cpu() for where in batches]
    return Probe(torch.cat(features).double().numpy(), labels[chosen])


@dataclass(frozen=True)
class Known:
    """What is known before any corrupted image is seen."""

    q: Diagonal | None  # posteriors of the clean test images; None: vq
    labels: NDArray[np.int64]  # of the test images
    mean_image: NDArray[np.float32]  # [C, H, W], of the training images
    probe: Probe | str  # or why there is none
    draws: Draws

    @cached_property
    def spread(self) -> Tensor | None:
        """Variance of each latent's mean over the clean test images."""
        return None if self.q is None else collapse.spread(self.q)

    @cached_property
    def noise(self) -> Tensor | None:
        """What an image and its corruptions have in common for the ELBO, [N, Z]."""
        return None if self.q is None else self.draws.standard(self.q, "score")

    @cached_property
    def mirrored(self) -> Tensor | None:
        """Draws in pairs for the symmetric KL, [K, N, Z]; normals need none."""
        if not isinstance(self.q, DiagStudentT):
            return None
        one_side = torch.stack([self.draws.standard(self.q, "skl", k) for k in range(SKL_PAIRS)])
        return torch.cat([one_side, -one_side])


@torch.inference_mode()
def measure(
    model: Autoencoder,
    sets: dict[str, NDArray[np.uint8]],
    known: Known,
    settings: EvaluateSettings,
) -> tuple[Columns, dict[str, NDArray[np.float32]]]:
    """Values per image of every set and method, and posterior means; the first set is `clean`.

    A batch of every set at a time, so that clean images are encoded once. An image and its
    corruptions meet the same latent noise: a difference between them is theirs.
    """
    clean = next(iter(sets.values()))
    parts: dict[tuple[str, str], dict[str, list[Tensor]]] = {}
    means: dict[str, list[Tensor]] = {}
    for where in track(slices(len(clean), settings.batch_size), "robustness", unit="batch"):
        x = pixels(model, clean, where)
        seen_x = see(model, x)
        for name, images in sets.items():
            y = x if images is clean else pixels(model, images, where)
            seen_y = seen_x if images is clean else see(model, y)
            for method, pair in _pairs(model, known, x, y, seen_x, seen_y, where):
                columns = parts.setdefault((name, method), {})
                for metric in settings.metrics:
                    if method == "model" or metric in PIXEL_METRICS:
                        for quantity, values in METRICS[metric](pair).items():
                            columns.setdefault(quantity, []).append(values.cpu().double())
            if seen_y.q is not None:
                means.setdefault(name, []).append(seen_y.q.mean.float().cpu())
    done = {k: {n: torch.cat(v).numpy() for n, v in c.items()} for k, c in parts.items()}
    return done, {name: torch.cat(v).numpy() for name, v in means.items()}


def gaps(
    model: Autoencoder, known: Known, binary: bool, settings: EvaluateSettings
) -> dict[str, str]:
    """Quantities that stay empty in every row, and why; `binary`: are the pixels?"""
    found = {
        quantity: f"evaluate.metrics leaves {metric} out"
        for metric, quantities in table.OF_METRIC.items()
        if metric not in settings.metrics
        for quantity in quantities
    }
    if known.spread is None:
        found |= dict.fromkeys(("drift", "skl"), "vq: codes have no posterior density")
    elif not known.spread.any():
        found["drift"] = "no latent dimension is active"
    proper = model.likelihood.proper(binary)
    reason = bounds.no_elbo(model) if proper else bounds.IMPROPER
    if reason is not None:  # the scores still rank images, their mean means nothing
        found |= dict.fromkeys(("neg_elbo", "delta_elbo"), reason)
    if isinstance(known.probe, str):
        found["probe"] = known.probe
    return found


def _answers(probe: Probe, features: Tensor, labels: NDArray[np.int64]) -> Tensor:
    return torch.from_numpy(probe.correct(features.cpu().double().numpy(), labels))


def _pairs(
    model: Autoencoder, known: Known, x: Tensor, y: Tensor, seen_x: Seen, seen_y: Seen, where: slice
) -> Iterator[tuple[str, Pair]]:
    """Clean and corrupted batch -> a Pair for the model and one for each baseline."""
    noise = None if known.noise is None else known.noise[where]
    mirrored = None if known.mirrored is None else known.mirrored[:, where]

    neg_elbo = partial(bounds.score, model, y, seen_y.q, noise)
    correct = None
    if isinstance(known.probe, Probe):
        correct = partial(_answers, known.probe, seen_y.features, known.labels[where])
    yield "model", Pair(
        x, y, seen_x.x_hat, seen_y.x_hat, seen_x.q, seen_y.q, known.spread, mirrored,
        neg_elbo=neg_elbo, correct=correct,
    )  # fmt: skip
    yield "identity", Pair(x, y, x, y)
    mean_image = torch.from_numpy(known.mean_image).to(x).expand_as(x)
    yield "mean_image", Pair(x, y, mean_image, mean_image)
