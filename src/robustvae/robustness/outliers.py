"""Outliers in training and testing: which score finds them, and how many the model generates."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from robustvae.models.autoencoder import Autoencoder
from robustvae.models.distributions import Diagonal
from robustvae.robustness import bounds, metrics, rates
from robustvae.robustness.batches import each, pixels
from robustvae.robustness.bounds import Draws, select
from robustvae.robustness.metrics import Values
from robustvae.runtime import seeding

Images = NDArray[np.uint8]
Places = NDArray[np.intp]
SHOWN = 100  # images that are found least likely, of which the sentence speaks
SAMPLES = 10_000  # from the prior, whose purity is reported
FITTED = 4000  # images of each kind that the detector learns from, at most
FOREST = 100  # trees


@dataclass
class Found:
    """Tables, the headline, and what figures need."""

    table: pd.DataFrame
    headline: dict[str, float | None]
    purity: dict[str, Any]
    sentence: str
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)


def find(
    model: Autoencoder,
    train: Images,
    mask: NDArray[np.bool_],
    clean: Images,
    outliers: Images,
    weights: NDArray[np.float16] | None,
    size: int,
    seed: int,
) -> Found:
    """Which images of training, and of testing, are outliers, by the model and by simple means.

    The images are as the model sees them; the mask was never shown to it. `weights`: [epochs, N].
    """
    sets = {"train": train, "clean": clean, "outliers": outliers}
    simple, draws = _simple(sets, model, seed), Draws(seed)
    scores = {
        name: _scores(model, images, name, size, draws) | simple[name]
        for name, images in sets.items()
    }
    table = _table(scores, mask)
    purity = _purity(model, clean, outliers, seed)
    first = np.argsort(-scores["train"]["neg_elbo"], kind="stable")[:SHOWN]
    hits, count = int(mask[first].sum()), len(first)
    sentence = (
        f"Of the {count} training images that this model finds least likely {hits} are outliers, "
        f"where {mask.mean():.1%} of all are."
    )
    headline: dict[str, float | None] = {
        "outliers": float(mask.mean()), "found_first": hits / count if count else None,
        **_rates(table), "impurity": purity.get("outlier_like"),
    }  # fmt: skip
    arrays: dict[str, NDArray[Any]]
    arrays = {f"{s}/{n}": v.astype(np.float32) for n, f in scores.items() for s, v in f.items()}
    arrays |= {"mask": mask, "first": first}
    if weights is not None:
        means = [weights[:, chosen].mean(1, dtype=np.float32) for chosen in (~mask, mask)]
        arrays["weights"] = np.stack(means, 1)
        names = ("weight_inliers", "weight_outliers")
        headline |= {name: float(mean[-1]) for name, mean in zip(names, means, strict=True)}
    return Found(table, headline, purity, sentence, arrays)


def _table(scores: Mapping[str, Mapping[str, Values]], mask: NDArray[np.bool_]) -> pd.DataFrame:
    """A row per score, for training and for test images."""
    rows = []
    for score in scores["train"]:
        values = {name: found[score] for name, found in scores.items()}
        pairs = {
            "train": (values["train"][~mask], values["train"][mask]),
            "test": (values["clean"], values["outliers"]),
        }
        for place, (inside, outside) in pairs.items():
            row: dict[str, Any] = {"set": place, "score": score, "model": score in MODEL_SCORES}
            row |= {"inliers": len(inside), "outliers": len(outside)}
            rows.append(row | rates.detection(inside, outside, paired=False))
    return pd.DataFrame(rows)


def _rates(table: pd.DataFrame) -> dict[str, float | None]:
    """AUROC and average precision of the negative ELBO, AUROC of two simple means beside it."""
    known = table.set_index(["set", "score"])
    said = {"": "neg_elbo", "_pca": "pca", "_forest": "isolation_forest"}
    places = ("train", "test")
    found = {f"{p}_auroc{s}": known["auroc"][p, n] for p in places for s, n in said.items()}
    found |= {f"{place}_ap": known["ap"][place, "neg_elbo"] for place in places}
    return {name: float(value) for name, value in found.items()}


MODEL_SCORES = ("neg_elbo", "e_self", "divergence")


def _scores(
    model: Autoencoder, images: Images, name: str, size: int, draws: Draws
) -> dict[str, Values]:
    """Negative ELBO at beta 1, squared error to the image itself, divergence, [N] each."""
    q = bounds.posteriors(model, images, size)
    noise = None if q is None else draws.standard(q, "outliers", name)

    def work(where: slice) -> torch.Tensor:
        x = pixels(model, images, where)
        part: Diagonal | None = None if q is None else select(q, where)
        draw = None if noise is None else noise[where]
        fit, rate = bounds.elbo(model, x, part, draw)
        if part is None:
            terms = model.terms(x)
            out, divergence = terms.out, terms.divergence
        else:
            out = model.decode(part.mean)
            divergence, _ = model.divergence.evaluate(part, model.prior())
        error = metrics.mse(model.likelihood.mean(out), x)
        return torch.stack([v.cpu().double() for v in (rate - fit, error, divergence)])

    found = torch.cat(each(work, len(images), size, f"outliers, {name}"), 1).numpy()
    return dict(zip(MODEL_SCORES, found, strict=True))


def _simple(
    sets: Mapping[str, Images], model: Autoencoder, seed: int
) -> dict[str, dict[str, Values]]:
    """What anyone would try first, fitted to the same training images, outliers among them."""
    from sklearn.decomposition import PCA
    from sklearn.ensemble import IsolationForest

    flat = {
        name: images.reshape(len(images), -1) / np.float32(255) for name, images in sets.items()
    }
    rng = seeding.numpy_rng(seed, "outliers", "fit")
    chosen = flat["train"][np.sort(rng.permutation(len(flat["train"]))[: 2 * FITTED])]
    dims = min(model.settings.latent_dim, *chosen.shape)
    pca = PCA(dims, svd_solver="randomized", random_state=0).fit(chosen)
    forest = IsolationForest(n_estimators=FOREST, random_state=0).fit(chosen)
    grey = float(chosen.mean())
    return {
        name: {
            "mean_grey": np.abs(x.mean(1, dtype=np.float64) - grey),
            "pca": np.square(x - pca.inverse_transform(pca.transform(x))).mean(1, dtype=np.float64),
            "isolation_forest": -np.asarray(forest.score_samples(x), np.float64),
        }
        for name, x in flat.items()
    }


@torch.inference_mode()
def _purity(model: Autoencoder, clean: Images, outliers: Images, seed: int) -> dict[str, Any]:
    """The share of samples from the prior that a detector takes for outliers, and its own errors.

    A logistic regression on pixels and their local contrast, fitted to half of the clean test
    images and half of the test outliers, tried on the other halves.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if min(len(clean), len(outliers)) < 20:
        return {"reason": "fewer than 20 clean images or outliers to learn a detector from"}
    rng = seeding.numpy_rng(seed, "outliers", "detector")
    halves = []
    for images in (clean, outliers):
        order = rng.permutation(len(images))
        cut = min(len(order) // 2, FITTED)
        halves.append((images[np.sort(order[:cut])], images[np.sort(order[cut : cut + FITTED])]))
    fitted, tried = zip(*halves, strict=True)
    detector = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200, C=0.01))
    told = np.repeat([0, 1], [len(part) for part in fitted])
    detector.fit(np.concatenate([_features(part) for part in fitted]), told)
    wrong = [float(detector.predict(_features(part)).mean()) for part in tried]
    device = next(model.parameters()).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seeding.seed(seed, "outliers", "samples"))
        drawn = [model.sample(500).float().cpu().numpy() for _ in range(SAMPLES // 500)]
    hits = sum(int(detector.predict(_features(part)).sum()) for part in drawn)
    share = rates.wilson(hits / SAMPLES, SAMPLES)
    return {
        "outlier_like": share.value, "low": share.low, "high": share.high, "samples": SAMPLES,
        "false_alarms": wrong[0], "misses": 1 - wrong[1],
    }  # fmt: skip


def _features(images: NDArray[Any]) -> NDArray[np.float32]:
    """Mean, spread and roughness of each image, and its pixels pooled to 7 a side at most."""
    x = images.astype(np.float32) / np.float32(255 if images.dtype == np.uint8 else 1)
    down, across = np.abs(np.diff(x, axis=2)), np.abs(np.diff(x, axis=3))
    every = (1, 2, 3)
    parts = [x.mean(every), x.std(every), down.mean(every), across.mean(every)]
    parts += [(x < 0.02).mean(every), (x > 0.98).mean(every), np.square(down).mean(every)]
    pooled = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(x), min(7, x.shape[-1]))
    return np.concatenate([np.stack(parts, 1), pooled.flatten(1).numpy()], 1)
