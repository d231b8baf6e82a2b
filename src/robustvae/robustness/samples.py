"""How good samples are, by features of a small classifier of the same images.

Distances hold for these features only; none is the FID of the literature.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from robustvae.errors import UserError
from robustvae.models.autoencoder import Autoencoder
from robustvae.params.results import SampleSettings
from robustvae.robustness import bounds
from robustvae.robustness.batches import BUSY, slices, spread
from robustvae.robustness.bounds import Draws
from robustvae.robustness.finding import Finding
from robustvae.runtime import seeding

Features = NDArray[np.float64]  # [N, F]
WIDTH = 64  # of the features
SUBSETS, SUBSET = 100, 100  # of the kernel distance, and images in each, at most
BATCH, RATE, MOMENTUM = 64, 0.1, 0.9  # of the classifier's training; the rate falls to 0
NEAREST = 3  # neighbour whose distance is the radius of an image, for precision and recall
SURE = 0.9  # probability from which the classifier counts as certain
SHOWN = 36  # samples of each kind that are kept for the figure, at even ranks of certainty
DIGITS = ("mnist-5k", "mnist", "digits")
UNLABELLED = "features need one label per training image; this data has none"
Generate = Callable[[int], Tensor]  # n -> images [n, C, H, W] on [0, 1]


class Classifier(nn.Module):
    """Two halvings, a layer of 64 features, and classes."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, WIDTH), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, K]."""
        logits: Tensor = self.head(self.body(x))
        return logits

    @torch.no_grad()
    def see(self, x: Tensor, size: int = 500) -> tuple[Features, Features]:
        """Features [N, 64] and probabilities of the classes [N, K] of images on [0, 1]."""
        h = torch.cat([self.body(part) for part in torch.split(x, size)])
        probability = self.head(h).double().softmax(1)
        return h.double().cpu().numpy(), probability.cpu().numpy()


def fit(x: Tensor, labels: Tensor, classes: int, seed: int, epochs: int = 3) -> Classifier:
    """A classifier of images on [0, 1] and their labels, int64 [N]; repeats for a seed."""
    if labels.ndim != 1 or len(labels) < 1 or labels.min() < 0:
        raise UserError(f"samples: {UNLABELLED}")
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seeding.seed(seed, "samples", "classifier"))
        net = Classifier(x.shape[1], classes).to(x.device)
        weights = list(net.parameters())
        speed = [torch.zeros_like(w) for w in weights]
        steps = epochs * -(-len(x) // BATCH)
        for step in range(steps):  # by hand: an optimiser of torch imports its compiler, 2 s
            places = torch.randint(len(x), (BATCH,))
            loss = F.cross_entropy(net(x[places]), labels[places])
            gradients = torch.autograd.grad(loss, weights)
            rate = RATE * (1 - step / steps)
            with torch.no_grad():
                for w, v, g in zip(weights, speed, gradients, strict=True):
                    w.sub_(rate * v.mul_(MOMENTUM).add_(g))
    return net.eval()


def frechet(a: Features, b: Features) -> float:
    """|mean a - mean b|^2 + tr(A + B - 2 (A B)^(1/2)) of two samples, A and B their covariances.

    The root's trace is the sum of the singular values of A^(1/2) B^(1/2).
    """
    roots, total = [], float(((a.mean(0) - b.mean(0)) ** 2).sum())
    for sample in (a, b):
        covariance = np.atleast_2d(np.cov(sample, rowvar=False))
        values, vectors = np.linalg.eigh(covariance)
        roots.append(vectors * np.sqrt(values.clip(0)) @ vectors.T)
        total += float(np.trace(covariance))
    return max(total - 2 * float(np.linalg.svd(roots[0] @ roots[1], compute_uv=False).sum()), 0.0)


def kernel(a: Features, b: Features, seed: int) -> tuple[float, float]:
    """Unbiased squared MMD of the kernel (u.v / F + 1)^3: mean over subsets, and its error."""
    rng = seeding.numpy_rng(seed, "samples", "kernel")
    m = min(len(a), len(b), SUBSET)
    found = [
        mmd2(a[rng.choice(len(a), m, replace=False)], b[rng.choice(len(b), m, replace=False)])
        for _ in range(SUBSETS)
    ]
    return float(np.mean(found)), float(np.std(found, ddof=1) / SUBSETS**0.5)


def mmd2(a: Features, b: Features) -> float:
    """Unbiased squared MMD of the polynomial kernel of degree 3."""

    def k(u: Features, v: Features) -> Features:
        s = u @ v.T / u.shape[1] + 1
        return np.asarray(s * s * s)

    n, m, aa, bb = len(a), len(b), k(a, a), k(b, b)
    within = (aa.sum() - np.trace(aa)) / (n * (n - 1)) + (bb.sum() - np.trace(bb)) / (m * (m - 1))
    return float(within - 2 * k(a, b).mean())


def precision_recall(real: Features, made: Features) -> tuple[float, float]:
    """Share of made images within the real ones' neighbourhoods, and the other way round
    (Kynkäänniemi et al., arXiv:1904.06991); a neighbourhood reaches to the third neighbour."""
    return _covered(real, made), _covered(made, real)


def _covered(centres: Features, points: Features) -> float:
    own, others = torch.from_numpy(centres), torch.from_numpy(points)
    nearest = min(NEAREST, len(own) - 1)
    reach = torch.cdist(own, own).sort(1).values[:, nearest]
    return float((torch.cdist(others, own) <= reach).any(1).double().mean())


def sure(probability: Features) -> float:
    """Share of images that the classifier names with more than 0.9."""
    return float((probability.max(1) > SURE).mean())


def class_entropy(probability: Features) -> float:
    """Entropy of the shares of the named classes, nats."""
    share = np.bincount(probability.argmax(1)) / len(probability)
    share = share[share > 0]
    return float((share * np.log(1 / share)).sum())


def find(
    test: Tensor,
    train: Tensor,
    labels: NDArray[np.int64],
    laws: Mapping[str, Generate | str],
    reconstruct: Callable[[Tensor], Tensor],
    n: int,
    seed: int,
    name: str,
    asked: NDArray[np.int64] | None = None,
) -> Finding:
    """Samples of every law against as many test images, beside train images, their
    reconstructions, and the mean image repeated. A law that is a text says why there is none.

    `name`: of the data set, whose classifier's features these are; `asked`: labels of the test
    images, for its accuracy.
    """
    if not n:
        return Finding(reasons={"samples": "evaluate.samples.images is 0"})
    if labels.ndim != 1 or not len(labels) or labels.min() < 0 or len(np.unique(labels)) < 2:
        return Finding(reasons={"samples": UNLABELLED})
    n = min(n, len(test), len(train))
    net = fit(train, torch.from_numpy(labels).to(train.device), int(labels.max()) + 1, seed)
    chosen = train[np.sort(seeding.numpy_rng(seed, "samples", "train").permutation(len(train))[:n])]
    sets = {"train": chosen, "reconstructions": reconstruct(chosen)}
    sets |= {of: law(n) for of, law in laws.items() if not isinstance(law, str)}
    sets["mean image"] = train.mean(0).expand(n, *train.shape[1:])
    real = net.see(test[spread(len(test), n)])[0]
    arrays: dict[str, NDArray[Any]] = {}
    rows = []
    for of, made in sets.items():
        features, probability = net.see(made)
        rows.append({"images": of, "n": n, **judged(real, features, probability, seed)})
        if of in laws:
            arrays |= _kept(of, made, probability)
    table = pd.DataFrame(rows)
    distance = table.set_index("images")["fd"]
    names = {"prior": "fd", "mixture": "fd_mixture", "train": "fd_floor"}
    headline: dict[str, Any] = {new: distance.get(old) for old, new in names.items()}
    said = _sentence(distance, label(name))
    if asked is not None and asked.ndim == 1:
        right = float((net.see(test)[1].argmax(1) == asked).mean())
        said += f" The classifier names {right:.1%} of the test images rightly."
    reasons = {f"samples.{of}": law for of, law in laws.items() if isinstance(law, str)}
    return Finding(table, headline, said, [], reasons, arrays)


def label(name: str) -> str:
    """Of the Frechet distance: it says whose features."""
    return f"FD ({'digits' if name in DIGITS else name} net)"


def judged(real: Features, made: Features, probability: Features, seed: int) -> dict[str, float]:
    """What a set of images is worth beside real ones."""
    value, error = kernel(real, made, seed)
    precision, recall = precision_recall(real, made)
    return {
        "fd": frechet(real, made), "kd": value, "kd_se": error, "precision": precision,
        "recall": recall, "sure": sure(probability), "entropy": class_entropy(probability),
    }  # fmt: skip


def _kept(name: str, made: Tensor, probability: Features) -> dict[str, NDArray[Any]]:
    """Some samples as bytes, at even ranks of the classifier's certainty, and that."""
    certainty = probability.max(1)
    order = np.argsort(-certainty, kind="stable")
    order = order[np.linspace(0, len(order) - 1, min(SHOWN, len(order))).astype(int)]
    images = (made[torch.from_numpy(order).to(made.device)].clamp(0, 1) * 255).round()
    shown = images.to(torch.uint8).cpu().numpy()
    return {f"{name}/images": shown, f"{name}/certainty": certainty[order].astype(np.float32)}


def _sentence(distance: "pd.Series[float]", what: str) -> str:
    """Is the decoder or the prior to blame?"""
    text = f"{what} to test images: {distance['train']:.3g} for training images, "
    text += f"{distance['reconstructions']:.3g} for reconstructions"
    for name, words in (("mixture", "a mixture fitted to the codes"), ("prior", "the prior")):
        if name in distance:
            text += f", {distance[name]:.3g} for samples of {words}"
    if not {"prior", "mixture"} <= set(distance.index):
        return f"{text}."
    decoder = distance["mixture"] - distance["train"]
    law = distance["prior"] - distance["mixture"]
    blame = "the prior, which is not where the codes are," if law > decoder else "the decoder"
    return f"{text}: {blame} costs more."


def ours(
    model: Autoencoder, train: NDArray[np.uint8], settings: SampleSettings, size: int, seed: int
) -> dict[str, Generate | str]:
    """The laws of one of our models: its prior (of t3 p*, of vq codes), a mixture of its codes."""
    device = next(model.parameters()).device

    @torch.inference_mode()
    def prior(n: int) -> Tensor:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seeding.seed(seed, "samples", "prior"))
            parts = [model.sample(part.stop - part.start) for part in slices(n, BUSY)]
        return torch.cat(parts).float()

    @torch.inference_mode()
    def mixture(n: int) -> Tensor:
        codes = drawn_codes(model, train, size, seed)
        z = torch.from_numpy(ex_post(codes, n, seed, settings.components)).float().to(device)
        return torch.cat(
            [model.likelihood.mean(model.decode(part)) for part in torch.split(z, BUSY)]
        )

    if model.family == "vq":
        return {"prior": prior, "mixture": "vq: codes are discrete, no mixture of normals fits"}
    return {"prior": prior, "mixture": mixture}


def drawn_codes(model: Autoencoder, images: NDArray[Any], size: int, seed: int) -> Features:
    """One draw of each image's posterior, [N, Z]: of the aggregate posterior, with its width."""
    q = bounds.posteriors(model, images, size)
    if q is None:
        raise UserError("mixture: codes of a vq model are discrete; leave it out")
    z = bounds.shifted(q, Draws(seed).standard(q, "samples", "codes"))
    return z.double().cpu().numpy()


def ex_post(codes: Features, n: int, seed: int, components: int) -> Features:
    """Draws [n, Z] from a Gaussian mixture fitted to codes [N, Z] (arXiv:1903.12436)."""
    from sklearn.mixture import GaussianMixture

    state = seeding.seed(seed, "samples", "mixture") % 2**32
    mixture = GaussianMixture(  # a finer tolerance gains nothing on codes that it has not seen
        min(components, len(codes)), random_state=state, reg_covar=1e-5, tol=1e-2
    )
    return np.asarray(mixture.fit(codes).sample(n)[0])
