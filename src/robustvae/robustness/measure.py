"""What a model makes of clean and corrupted images: losses, probe, and every metric per image."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustvae.data import binarize
from robustvae.errors import UserError
from robustvae.models.autoencoder import Autoencoder
from robustvae.models.distributions import Diagonal, wide
from robustvae.models.likelihoods import Gaussian
from robustvae.models.objective import Objective
from robustvae.params import EvaluateSettings
from robustvae.params.parts import Chosen
from robustvae.robustness import metrics
from robustvae.robustness.batches import each, on, pixels, slices
from robustvae.robustness.bounds import Draws, Report, select, shifted
from robustvae.robustness.catalogue import METRICS, OF_METRIC
from robustvae.robustness.metrics import Pair, Probe
from robustvae.robustness.subject import Seen, Subject
from robustvae.robustness.table import Columns
from robustvae.runtime import seeding

K = TypeVar("K")
Place = tuple[str, str, str]  # set, method, quantity
Block = tuple[list[K], Tensor]  # names, and a row for each, [names, images, ...]

TRAIN_IMAGES = 10_000  # at most, for the training images' losses and for the probe
RECENT = 12  # comparisons of two images that are remembered; a set has 8
SURE = 1.2  # squared residual over its variance above which a decoder is called too sure


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


def of_training(count: int, seed: int) -> NDArray[np.int64]:
    """Which of `count` training images are evaluated: all, or 10,000 of them."""
    order = seeding.numpy_rng(seed, "evaluate", "probe").permutation(count)
    return np.sort(order[:TRAIN_IMAGES])


def losses(
    model: Autoencoder,
    images: NDArray[np.uint8],
    q: Diagonal | None,
    name: str,
    size: int,
    draws: Draws,
) -> Report:
    """Terms of the training loss on one split, one draw per image, and mse of reconstructions."""
    noise = None if q is None else draws.standard(q, "losses", name)

    def work(where: slice) -> Tensor:
        x = pixels(model, images, where)
        if q is None or noise is None:
            terms = model.terms(x)
            recon, divergence, out = terms.recon, terms.divergence, terms.out
            z = drawn = out  # what scores images of codes does not look at z
        else:
            part = select(q, where)
            z = shifted(part, noise[where])
            drawn = model.decode(z)
            recon = model.likelihood.distortion(x, drawn, z)
            divergence, _ = model.divergence.evaluate(part, model.prior())
            out = model.decode(part.mean)
        residual = model.likelihood.standardised(x, drawn, z)
        found = [recon, divergence, metrics.mse(model.likelihood.mean(out), x)]
        found += [] if residual is None else [residual]
        return torch.stack([values.cpu().double() for values in found])

    parts = each(work, len(images), size, f"losses, {name}")
    return _summed_up(model, *torch.cat(parts, 1))


def _summed_up(
    model: Autoencoder,
    recon: Tensor,
    divergence: Tensor,
    mse: Tensor,
    residual: Tensor | None = None,
) -> Report:
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
    report.put("psnr", metrics.psnr(mse.numpy()))
    none = None if residual is not None else "the likelihood has no variance of its own"
    report.put("residual", None if residual is None else residual.numpy(), none)
    report.facts |= {"divergence_infinite_fraction": infinite, "images": len(recon)}
    return report


def too_sure(model: Autoencoder, found: Mapping[str, Report]) -> list[str]:
    """A warning where the variance that a decoder has learned is too small for test images."""
    means = {split: report.means.get("residual") for split, report in found.items()}
    test, train = means.get("test"), means.get("train")
    learned = isinstance(model.likelihood, Gaussian) and model.likelihood.variance != "fixed"
    if not learned or test is None or test <= SURE:
        return []
    seen = "" if train is None else f" ({train:.2f} times on training images)"
    return [
        f"the decoder is too sure of itself: on test images its squared residuals are {test:.2f} "
        f"times the variance that it learned{seen}; likelihoods and samples with noise suffer"
    ]


def fit_probe(
    features: Callable[[], NDArray[np.float64]],
    labels: NDArray[np.int64],
    asked: NDArray[np.int64],
    settings: EvaluateSettings,
) -> Probe | str:
    """Fitted to training images, or why there is none; `asked`: the labels of the test images."""
    if "probe" not in settings.metrics:
        return "evaluate.metrics leaves probe out"
    if labels.ndim > 1:
        return "the images have attributes, not one class each"
    classes = np.unique(labels)
    if classes[0] < 0 or len(classes) < 2:
        return "the images are not labelled with two classes or more"
    if asked.min() < 0:
        return "not every test image is labelled"
    if strange := np.setdiff1d(asked, classes).tolist():
        return f"test images have classes that training images lack: {str(strange)[1:-1]}"
    return Probe(features(), labels)


@dataclass
class Known:
    """What is known before any corrupted image is seen."""

    labels: NDArray[np.int64]  # of the test images
    mean_image: NDArray[np.float32]  # [C, H, W], of the training images
    probe: Probe | str  # or why there is none


def measure(
    subject: Subject,
    sets: dict[str, NDArray[np.uint8]],
    known: Known,
    settings: EvaluateSettings,
) -> tuple[Columns, dict[str, NDArray[np.float32]]]:
    """Values per image of every set and method, and posterior means; the first set is `clean`.

    A batch of every set at a time, so that clean images are encoded once. An image and its
    corruptions meet the same latent noise: a difference between them is theirs.
    """
    clean = next(iter(sets.values()))

    def work(where: slice) -> tuple[Block[Place], Block[str]]:
        found: dict[Place, Tensor] = {}
        means: dict[str, Tensor] = {}
        x = on(subject.device, clean, where)
        mean_image = torch.from_numpy(known.mean_image).to(x).expand_as(x)
        seen_x = subject.see(x)
        # Model and baselines ask for many of the same comparisons, and each set for the last one's.
        shared = functools.lru_cache(maxsize=RECENT)
        of = partial(Pair, squared=shared(metrics.mse), similar=shared(metrics.ssim))
        for name, images in sets.items():
            y = x if images is clean else on(subject.device, images, where)
            seen_y = seen_x if images is clean else subject.see(y)
            pair = of(x, y, seen_x.x_hat, seen_y.x_hat)
            pairs = {
                "model": _scored(subject, known, pair, seen_x, seen_y, where),
                "identity": of(x, y, x, y),
                "mean_image": of(x, y, mean_image, mean_image),
            }
            for method, pair in pairs.items():
                for metric in settings.metrics:
                    if method == "model" or METRICS.part(metric).facts["pixels"]:
                        for quantity, values in _values(metric, pair).items():
                            found[name, method, quantity] = values.to(x.device, wide(x.device))
            if seen_y.code is not None:
                means[name] = seen_y.code.float()
        return _block(found), _block(means)

    done = each(work, len(clean), settings.batch_size, "robustness", subject.alone)
    parts, means = zip(*done, strict=True)
    columns: Columns = {}
    for (name, method, quantity), values in _joined(parts).items():
        columns.setdefault((name, method), {})[quantity] = values
    return columns, _joined(means)


def _values(metric: Chosen, pair: Pair) -> dict[str, Tensor]:
    """Quantities of a metric; UserError where a plug-in gives others, or not one per image."""
    found = METRICS[metric](pair, **metric.own)
    declared = METRICS.part(metric).facts["quantities"]
    for quantity, values in found.items():
        if quantity not in declared or values.shape != (len(pair.y),):
            raise UserError(
                f"metric {metric!r}: must give [{len(pair.y)}] of {', '.join(declared)}, got "
                f"{quantity} {list(values.shape)}"
            )
    return found


def _block(found: dict[K, Tensor]) -> Block[K]:
    """One piece of memory for a batch, copied from a GPU at once."""
    return list(found), torch.stack(list(found.values())).cpu() if found else torch.empty(0, 0)


def _joined(parts: Sequence[Block[K]]) -> dict[K, NDArray[Any]]:
    values = torch.cat([block for _, block in parts], 1).numpy()
    return dict(zip(parts[0][0], values, strict=True))


def gaps(
    missing: Mapping[str, str], probe: Probe | str, settings: EvaluateSettings
) -> dict[str, str]:
    """Quantities that stay empty in every row, and why; `missing`: those of the subject."""
    found = {
        quantity: f"evaluate.metrics leaves {metric} out"
        for metric, quantities in OF_METRIC.items()
        if metric not in settings.metrics
        for quantity in quantities
    }
    found |= missing
    return found | ({"probe": probe} if isinstance(probe, str) else {})


def _answers(probe: Probe, features: Tensor, labels: NDArray[np.int64]) -> Tensor:
    return torch.from_numpy(probe.correct(features.cpu().double().numpy(), labels))


def _scored(
    subject: Subject, known: Known, pair: Pair, seen_x: Seen, seen_y: Seen, where: slice
) -> Pair:
    """The pair with all that only a model has."""
    correct = None
    if isinstance(known.probe, Probe) and seen_y.features is not None:
        correct = partial(_answers, known.probe, seen_y.features, known.labels[where])
    return replace(
        pair,
        code_x=seen_x.code,
        code_y=seen_y.code,
        q_x=seen_x.q,
        q_y=seen_y.q,
        spread=subject.spread,
        noise=None if subject.mirrored is None else subject.mirrored[:, where],
        neg_elbo=subject.score(pair.y, seen_y, where),
        correct=correct,
    )
