"""What a model makes of clean and corrupted images: losses, probe, and every metric per image."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

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
from robustvae.robustness.bounds import Draws, Report, pixels, select, shifted, slices
from robustvae.robustness.table import Columns

PIXEL_METRICS = {"e_den", "e_self", "e_stab", "ssim_den"}  # what the baselines have too
PROBE_IMAGES = 10_000
POOLED = 4  # side to which the probe pools codewords (vq)
SKL_PAIRS = 4  # mirrored pairs of draws for the symmetric KL of Student-t posteriors


def binarized(
    images: NDArray[np.uint8], mode: str, threshold: float, seed: int, name: str
) -> NDArray[np.uint8]:
    """The images as the model sees them; `dynamic` is drawn here, other modes are in the files."""
    if mode != "dynamic":
        return images
    rng, result = seeding.generator(seed, "evaluate", "binarize", name), np.empty_like(images)
    for where in slices(len(images), 1000):
        part = torch.from_numpy(np.array(images[where]))
        result[where] = binarize.apply(part, mode, threshold, rng).numpy()
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
    for where in track(slices(len(images), size), f"losses, {name}", unit="batch"):
        x = pixels(model, images, where)
        if q is None or noise is None:
            recon, divergence, x_hat, _ = model.terms(x)
        else:
            part = select(q, where)
            z = shifted(part, noise[where])
            recon = model.likelihood.distortion(x, model.decode(z), z)
            divergence, _ = model.divergence.evaluate(part, model.prior())
            x_hat = model.likelihood.mean(model.decode(part.mean))
        for key, value in zip(parts, (recon, divergence, metrics.mse(x_hat, x)), strict=True):
            parts[key].append(value.cpu().double())
    return _summed_up(model, {key: torch.cat(values) for key, values in parts.items()})


def _summed_up(model: Autoencoder, columns: dict[str, Tensor]) -> Report:
    """Means; the total is the objective of the means, as capacity annealing has it at its end."""
    report, settings = Report(), model.loss_settings
    infinite = float(columns["divergence"].isinf().double().mean())
    reason = f"infinite for {infinite:.2%} of the images" if infinite else None
    report.put("recon", columns["recon"].numpy())
    report.put("divergence", columns["divergence"].numpy(), reason)
    objective = Objective(settings.beta, settings.capacity)
    total = objective(columns["recon"], columns["divergence"], step=settings.capacity.steps)
    report.put("total", total.reshape(1).numpy(), reason if settings.beta else None)
    report.put("mse", columns["mse"].numpy())
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
    settings: EvaluateSettings,
    draws: Draws,
) -> Probe | str:
    """Fitted to at most 10,000 clean training images; or why there is none."""
    if "probe" not in settings.metrics:
        return "evaluate.metrics leaves probe out"
    if labels.ndim > 1:
        return "the images have attributes, not one class each"
    if labels.min() < 0 or labels.min() == labels.max():
        return "the images are not labelled with two classes or more"
    chosen = seeding.numpy_rng(draws.seed, "evaluate", "probe").permutation(len(images))
    chosen = np.sort(chosen[:PROBE_IMAGES])
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
    comparison = _Comparison(model, known)
    clean = next(iter(sets.values()))
    parts: dict[tuple[str, str], dict[str, list[Tensor]]] = {}
    means: dict[str, list[Tensor]] = {}
    for where in track(slices(len(clean), settings.batch_size), "robustness", unit="batch"):
        x = pixels(model, clean, where)
        seen_x = see(model, x)
        for name, images in sets.items():
            y = x if images is clean else pixels(model, images, where)
            seen_y = seen_x if images is clean else see(model, y)
            for method, pair in comparison(x, y, seen_x, seen_y, where):
                columns = parts.setdefault((name, method), {})
                for metric in settings.metrics:
                    if method == "model" or metric in PIXEL_METRICS:
                        for quantity, values in METRICS[metric](pair).items():
                            columns.setdefault(quantity, []).append(values.cpu().double())
            if seen_y.q is not None:
                means.setdefault(name, []).append(seen_y.q.mean.float().cpu())
    done = {k: {n: torch.cat(v).numpy() for n, v in c.items()} for k, c in parts.items()}
    return done, {name: torch.cat(v).numpy() for name, v in means.items()}


def gaps(model: Autoencoder, known: Known, settings: EvaluateSettings) -> dict[str, str]:
    """Quantities that stay empty in every row, and why."""
    found = {}
    for metric, quantities in table.OF_METRIC.items():
        if metric not in settings.metrics:
            for quantity in quantities:
                found[quantity] = f"evaluate.metrics leaves {metric} out"
    if known.q is None:
        found |= dict.fromkeys(("drift", "skl"), "vq: codes have no posterior density")
    elif not collapse.spread(known.q).any():
        found["drift"] = "no latent dimension is active"
    reason = bounds.no_elbo(model)
    if reason is not None:  # the scores still rank images, their mean means nothing
        found |= dict.fromkeys(("neg_elbo", "delta_elbo"), reason)
    if isinstance(known.probe, str):
        found["probe"] = known.probe
    return found


class _Comparison:
    """Clean and corrupted batch -> a Pair for the model and one for each baseline."""

    def __init__(self, model: Autoencoder, known: Known) -> None:
        self.model, self.known = model, known
        q, draws = known.q, known.draws
        self.spread = None if q is None else collapse.spread(q)
        self.noise = None if q is None else draws.standard(q, "score")
        self.mirrored = None
        if isinstance(q, DiagStudentT):
            one_side = torch.stack([draws.standard(q, "skl", k) for k in range(SKL_PAIRS)])
            self.mirrored = torch.cat([one_side, -one_side])
        self.mean_image = torch.from_numpy(known.mean_image)

    def __call__(
        self, x: Tensor, y: Tensor, seen_x: Seen, seen_y: Seen, where: slice
    ) -> Iterator[tuple[str, Pair]]:
        noise = None if self.noise is None else self.noise[where]
        model = Pair(
            x, y, seen_x.x_hat, seen_y.x_hat, seen_x.q, seen_y.q, self.spread,
            noise=None if self.mirrored is None else self.mirrored[:, where],
            neg_elbo=lambda: bounds.score(self.model, y, seen_y.q, noise),
        )  # fmt: skip
        probe, labels = self.known.probe, self.known.labels[where]
        if isinstance(probe, Probe):
            features = seen_y.features.cpu().double().numpy()
            answers = lambda: torch.from_numpy(probe.correct(features, labels))  # noqa: E731
            model = dataclasses.replace(model, correct=answers)
        yield "model", model
        yield "identity", Pair(x, y, x, y)
        mean_image = self.mean_image.to(x).expand_as(x)
        yield "mean_image", Pair(x, y, mean_image, mean_image)
