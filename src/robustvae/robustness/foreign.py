"""Images from elsewhere, and scores that should tell them from the model's own.

Likelihoods of deep models are known to be higher for some foreign images than for their own
(arXiv:1810.09136), so no score is trusted alone: every one is compared on every set.
"""

import dataclasses
import io
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image

from robustvae.models.autoencoder import Autoencoder
from robustvae.models.distributions import Diagonal
from robustvae.robustness import bounds, metrics, rates
from robustvae.robustness.batches import each, pixels
from robustvae.robustness.bounds import Draws
from robustvae.robustness.finding import Finding
from robustvae.robustness.metrics import Values
from robustvae.runtime import seeding

Images = NDArray[np.uint8]  # [N, C, H, W]
Score = Callable[[Images, str], dict[str, Values]]  # and a name -> scores, higher is more foreign
MOST = 1000  # images of each set, at most
DRAWS = 8  # of the importance-weighted bound
RATE = 0.1  # of Adam on a posterior, for regret


def noise(x: Images, rng: np.random.Generator) -> Images:
    """Every pixel uniform and independent."""
    return rng.integers(0, 256, x.shape, dtype=np.uint8)


def constant(x: Images, rng: np.random.Generator) -> Images:
    """One level per image, the same in every channel."""
    levels = rng.integers(0, 256, (len(x), 1, 1, 1), dtype=np.uint8)
    return np.ascontiguousarray(np.broadcast_to(levels, x.shape))


def black(x: Images, _rng: np.random.Generator) -> Images:
    """All zero, the same for every image."""
    return np.zeros_like(x)


def invert(x: Images, _rng: np.random.Generator) -> Images:
    """Dark for bright."""
    return np.asarray(255 - x, dtype=np.uint8)


def shuffle(x: Images, rng: np.random.Generator) -> Images:
    """Pixels in another order, the same for every image and channel."""
    order = rng.permutation(x.shape[2] * x.shape[3])
    return x.reshape(*x.shape[:2], -1)[:, :, order].reshape(x.shape)


def flip(x: Images, _rng: np.random.Generator) -> Images:
    """Upside down."""
    return np.ascontiguousarray(x[:, :, ::-1])


FOREIGN: dict[str, Callable[[Images, np.random.Generator], Images]] = {
    "noise": noise,
    "constant": constant,
    "black": black,
    "invert": invert,
    "shuffle": shuffle,
    "flip": flip,
}


def make(name: str, x: Images, seed: int) -> Images:
    """A foreign set as large as x, made from it or from nothing."""
    return FOREIGN[name](np.asarray(x), seeding.numpy_rng(seed, "foreign", name))


def find(score: Score, own: Images, train: Images | None, sets: Mapping[str, Images]) -> Finding:
    """Every score on every set against as many of the model's own test images.

    `train`: what it learnt from, for typicality.
    """
    if not sets:
        return Finding(reasons={"outliers": "evaluate.outliers is empty"})
    expected = None
    if train is not None and "neg_elbo" in (seen := score(train, "train")):
        expected = float(seen["neg_elbo"].mean())
    scored = {"own": _scores(score, own, "own", expected)}
    scored |= {name: _scores(score, x, name, expected) for name, x in sets.items()}
    known = scored.pop("own")
    rows = table(known, scored)
    reasons = {} if "neg_elbo" in known else {"outliers.neg_elbo": "the model has no likelihood"}
    arrays = {f"own/{name}": v.astype(np.float32) for name, v in known.items()}
    arrays |= {f"{s}/{n}": v.astype(np.float32) for s, f in scored.items() for n, v in f.items()}
    elbo = rows[rows["score"] == "neg_elbo"]
    by_elbo = {str(s): float(v) for s, v in zip(elbo["set"], elbo["auroc"], strict=True)}
    likelier = [name for name, value in by_elbo.items() if value < 0.5]
    headline: dict[str, Any] = {}
    if by_elbo:
        values = list(by_elbo.values())
        headline = {"mean_auroc": np.mean(values), "worst_auroc": min(values)}
        headline |= {"likelier": len(likelier)}
    warned = [
        f"foreign images: {name} look likelier to the model than its own images (AUROC of the "
        f"negative ELBO {by_elbo[name]:.2f}); do not trust the likelihood alone to find them"
        for name in likelier
    ]
    return Finding(rows, headline, _sentence(rows), warned, reasons, arrays)


def _sentence(rows: pd.DataFrame) -> str:
    """Which score is best where it is worst."""
    worst: dict[str, tuple[float, str]] = {}  # of each score, and the set that it is on
    for row in rows.to_dict("records"):
        at = float(row["auroc"]), str(row["set"])
        worst[row["score"]] = min(worst.get(row["score"], at), at)
    best = max(worst, key=lambda score: worst[score][0])
    text = f"Of {len(worst)} scores {LABELS[best]} is the most dependable: its lowest AUROC is "
    text += "{:.2f}, on {}".format(*worst[best])
    if "neg_elbo" in worst and best != "neg_elbo":
        text += "; that of the negative ELBO is {:.2f}, on {}".format(*worst["neg_elbo"])
    return f"{text}."


LABELS = {
    "neg_elbo": "the negative ELBO", "weighted": "the importance-weighted bound",
    "typicality": "typicality", "complexity": "the negative ELBO less the length of the PNG",
    "e_self": "the error to the image itself", "regret": "regret",
}  # fmt: skip


def _scores(score: Score, images: Images, name: str, expected: float | None) -> dict[str, Values]:
    """Those of the model, and those that follow from its negative ELBO."""
    found = score(images, name)
    if "neg_elbo" not in found:
        return found
    rate = found["neg_elbo"]
    more = {} if expected is None else {"typicality": np.abs(rate - expected)}
    return found | more | {"complexity": rate - png_nats(images)}


def png_nats(x: Images) -> Values:
    """Length of each image as a PNG file, in nats: 8 ln 2 for a byte (arXiv:1909.11480)."""
    return np.array([8 * math.log(2) * _png(image) for image in x], dtype=np.float64)


def _png(image: NDArray[np.uint8]) -> int:
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", optimize=True)
    return file.getbuffer().nbytes


def ours(model: Autoencoder, size: int, seed: int, regret_steps: int = 0) -> Score:
    """Scores of one of our models: negative ELBO, bound of 8 draws, error to itself, regret."""
    draws = Draws(seed)

    def score(images: Images, name: str) -> dict[str, Values]:
        q = bounds.posteriors(model, images, size)
        standard = None if q is None else draws.standard(q, "foreign", name)

        def work(where: slice) -> torch.Tensor:
            x = pixels(model, images, where)
            part = None if q is None else bounds.select(q, where)
            noise = None if standard is None else standard[where]
            rate = bounds.score(model, x, part, noise)
            error = metrics.mse(model.reconstruct(x), x)
            rows = [rate, error]
            if regret_steps and part is not None and noise is not None:
                rows.append(regret(model, x, part, noise, regret_steps))
            return torch.stack([row.cpu().double() for row in rows])

        found = torch.cat(each(work, len(images), size, f"foreign, {name}"), 1).numpy()
        named = dict(zip(("neg_elbo", "e_self", "regret"), found, strict=False))
        if q is not None:
            weighted = bounds.importance_weighted(model, images, q, DRAWS, size, draws)
            named["weighted"] = -weighted.bound
        return named

    return score


def regret(
    model: Autoencoder, x: torch.Tensor, q: Diagonal, noise: torch.Tensor, steps: int
) -> torch.Tensor:
    """How much the image's own posterior, fitted in so many steps, raises its ELBO, [B]
    (arXiv:2003.02977), from the same draws before and after.
    """
    with torch.inference_mode(False), torch.enable_grad():
        x, noise = x.clone(), noise.clone()
        mu, logvar = (t.clone().requires_grad_() for t in (q.mu, q.logvar))
        own = dataclasses.replace(q, mu=mu, logvar=logvar)
        before, best = None, None
        adam = torch.optim.Adam([mu, logvar], RATE)
        for step in range(steps + 1):
            fit, rate = bounds.elbo(model, x, own, noise)
            value = (fit - rate).detach()
            before = value if before is None else before
            best = value if best is None else torch.maximum(best, value)
            if step < steps:
                mu.grad, logvar.grad = torch.autograd.grad((rate - fit).sum(), (mu, logvar))
                adam.step()
        assert before is not None
        assert best is not None
        return best - before


def table(own: dict[str, Values], sets: Mapping[str, dict[str, Values]]) -> pd.DataFrame:
    """A row per set and score; both samples as large as the smaller one."""
    rows = []
    for name, by_score in sets.items():
        for score, values in by_score.items():
            n = min(len(values), len(own[score]))
            a, b = own[score][:n], values[:n]
            row: dict[str, Any] = {"set": name, "score": score, "images": n}
            row |= rates.detection(a, b, paired=True)
            rows.append(row | {"likelier": row["auroc"] < 0.5})
    return pd.DataFrame(rows)
