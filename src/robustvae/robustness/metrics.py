"""What is measured on clean and corrupted images, per image, and how many values make one.

Squared errors are per pixel on [0, 1]; divergences and bounds are in nats.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustvae.models.distributions import DiagNormal, Diagonal, wide
from robustvae.robustness import rates
from robustvae.robustness.rates import Rate

Values = NDArray[np.float64]  # [N], one per image
Compare = Callable[[Tensor, Tensor], Tensor]  # images [B, C, H, W], twice -> [B]
Summary = tuple[float, float]  # value, standard error; NaN where there is none
PROBE_ITERATIONS = 1000


def mse(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference over channels and pixels, [B], accumulated in float64 if there is."""
    return (a - b).square().flatten(1).mean(1, dtype=wide(a.device))


@functools.lru_cache(maxsize=8)
def _window(side: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Gaussian smoothing of one axis as a matrix: sigma 1.5, 11 taps, mirrored at the edges."""
    taps = torch.exp(-0.5 * (torch.arange(-5, 6, dtype=torch.float64) / 1.5) ** 2)
    matrix = torch.zeros(side, side, dtype=torch.float64)
    for row in range(side):
        for offset, tap in zip(range(-5, 6), taps / taps.sum(), strict=True):
            column = abs(row + offset)
            matrix[row, min(column, 2 * (side - 1) - column)] += tap
    return matrix.to(device, dtype)


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity of images on [0, 1], [B]; the value of torchmetrics with data_range 1.

    Smoothing is two small matrix products where torchmetrics has a convolution: about twenty times
    faster on 28 pixels, and its import takes seconds. Sides of at least 6 pixels.
    """
    rows, columns = (_window(n, a.dtype, a.device) for n in a.shape[-2:])
    smooth = rows @ torch.stack([a, b, a * a, b * b, a * b]) @ columns.T
    mean_a, mean_b = smooth[0], smooth[1]
    var_a, var_b = (smooth[2] - mean_a**2).clamp(min=0), (smooth[3] - mean_b**2).clamp(min=0)
    covariance = smooth[4] - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    value = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    value = value / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return value.flatten(1).mean(1, dtype=wide(a.device))


@dataclass(frozen=True)
class Pair:
    """A batch of clean images x, their corrupted versions y, and what a model makes of both.

    The baselines fill only the images.
    """

    x: Tensor  # [B, C, H, W]
    y: Tensor
    x_hat: Tensor  # deterministic reconstruction of x
    y_hat: Tensor  # and of y
    code_x: Tensor | None = None  # [B, Z]
    code_y: Tensor | None = None
    q_x: Diagonal | None = None  # posteriors; None: the codes have no law
    q_y: Diagonal | None = None
    spread: Tensor | None = None  # [Z], variance of mu(x) over the test set; 0: inactive
    noise: Tensor | None = None  # [K, B, Z], draws of q's family at location 0 and scale 1
    neg_elbo: Callable[[], Tensor] | None = None  # of y
    correct: Callable[[], Tensor] | None = None  # 1 where the probe names y's class
    squared: Compare = mse
    similar: Compare = ssim


def drift(mu_x: Tensor, mu_y: Tensor, spread: Tensor) -> Tensor:
    """Root mean square over active dimensions of (mu(y) - mu(x)) / sd of mu(x), [B]."""
    active = spread > 0
    ratio = (mu_y - mu_x)[:, active].to(spread.dtype).square() / spread[active]
    return ratio.mean(1).sqrt()


def symmetric_kl(q: Diagonal, r: Diagonal, noise: Tensor | None = None) -> Tensor:
    """KL(q || r) + KL(r || q) in nats, [B]: closed for normals, else a mean over draws.

    `noise` [K, B, Z]: draws of the family at location 0 and scale 1.
    """
    if isinstance(q, DiagNormal):
        dtype = wide(q.mu.device)
        vq, vr = q.logvar.to(dtype).exp(), r.logvar.to(dtype).exp()
        distance = (q.mu.to(dtype) - r.mu.to(dtype)).square()
        return 0.5 * ((vq + distance) / vr + (vr + distance) / vq - 2).sum(1)
    if noise is None:
        raise ValueError("no closed form for the KL of Student-t posteriors; pass noise")
    z, w = (law.mu + (0.5 * law.logvar).exp() * noise for law in (q, r))
    return (q.log_prob(z) - r.log_prob(z) + r.log_prob(w) - q.log_prob(w)).mean(0)


def _e_den(pair: Pair) -> dict[str, Tensor]:
    """Squared error of the reconstruction to the clean image, and of the image itself."""
    return {"e_id": pair.squared(pair.y, pair.x), "e_den": pair.squared(pair.y_hat, pair.x)}


def _e_self(pair: Pair) -> dict[str, Tensor]:
    """Squared error of the reconstruction to the corrupted image."""
    return {"e_self": pair.squared(pair.y_hat, pair.y)}


def _e_stab(pair: Pair) -> dict[str, Tensor]:
    """Squared distance of the reconstructions of corrupted and clean image."""
    return {"e_stab": pair.squared(pair.y_hat, pair.x_hat)}


def _ssim_den(pair: Pair) -> dict[str, Tensor]:
    """Structural similarity of the reconstruction, and of the image itself, to the clean image."""
    return {"ssim_id": pair.similar(pair.y, pair.x), "ssim_den": pair.similar(pair.y_hat, pair.x)}


def _delta_elbo(pair: Pair) -> dict[str, Tensor]:
    """Negative ELBO of the corrupted image, of which its rise and the detection rates are made."""
    return {} if pair.neg_elbo is None else {"neg_elbo": pair.neg_elbo()}


def _probe(pair: Pair) -> dict[str, Tensor]:
    """Does a linear probe learnt on clean images name the class?"""
    return {} if pair.correct is None else {"probe": pair.correct()}


def _drift(pair: Pair) -> dict[str, Tensor]:
    """Shift of the posterior mean in its own standard deviations."""
    codes = pair.code_x, pair.code_y
    if codes[0] is None or codes[1] is None or pair.spread is None or not pair.spread.any():
        return {}
    return {"drift": drift(codes[0], codes[1], pair.spread)}


def _skl(pair: Pair) -> dict[str, Tensor]:
    """Symmetric KL between the posteriors of the clean and the corrupted image."""
    if pair.q_x is None or pair.q_y is None:
        return {}
    return {"skl": symmetric_kl(pair.q_x, pair.q_y, pair.noise)}


def mean(values: Values) -> Summary:
    """Mean and its standard error."""
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return float(values.mean()), float(error)


def psnr(errors: Values) -> Values:
    """Peak signal-to-noise ratio of squared errors per pixel on [0, 1], in dB; inf for 0."""
    with np.errstate(divide="ignore"):
        return np.asarray(-10 * np.log10(errors))


def median(values: Values) -> Summary:
    """Median; its error is a quarter of the width of the 95 % order-statistic interval."""
    ordered, n = np.sort(values), len(values)
    from scipy import stats  # late: most of what is measured does without this second

    low, high = (int(stats.binom.ppf(u, n, 0.5)) for u in (0.025, 0.975))
    error = (ordered[min(high, n - 1)] - ordered[low]) / (2 * 1.96) if n > 5 else np.nan
    return float(np.median(ordered)), float(error)


def skill(e_den: Values, e_base: Values) -> Summary:
    """1 - mean(e_den) / mean(e_base), with its error by the delta method.

    Above 0 is better than the baseline: the image left alone, or a constant.
    """
    if not e_base.any():
        return np.nan, np.nan
    ratio = e_den.mean() / e_base.mean()
    return float(1 - ratio), float(mean(e_den - ratio * e_base)[1] / e_base.mean())


def skills(e_den: Values, e_id: Values, e_const: Values) -> dict[str, Summary]:
    """Against either baseline, and against the one that is better on the set, with its error."""
    if not e_id.any():  # the images are the clean ones
        return dict.fromkeys(("skill", "skill_id", "skill_const"), (np.nan, np.nan))
    found = {"skill_id": skill(e_den, e_id), "skill_const": skill(e_den, e_const)}
    best = "id" if e_id.mean() <= e_const.mean() else "const"
    error = mean(e_id if best == "id" else e_const)
    return {"e_best": error, "skill": found[f"skill_{best}"], **found}


def summarise(
    columns: dict[str, Values], clean: dict[str, Values], e_const: Values | None
) -> dict[str, Summary | Rate]:
    """Every quantity of one set from its values per image.

    `clean`: those of the clean images; `e_const`: errors of the mean training image to them.
    """
    of: dict[str, Callable[[Values], Summary | Rate]] = {"skl": median, "probe": rates.accuracy}
    table = {name: of.get(name, mean)(values) for name, values in columns.items()}
    if e_const is not None and "e_id" in columns:
        table["e_const"] = mean(e_const)
        if "e_den" in columns and columns["e_den"].all():
            table["psnr"] = mean(psnr(columns["e_den"]))
        if "e_den" in columns:
            table |= skills(columns["e_den"], columns["e_id"], e_const)
    if "neg_elbo" in columns:
        scores = clean["neg_elbo"], columns["neg_elbo"]
        table["delta_elbo"] = mean(scores[1] - scores[0])
        table |= {"auroc": rates.auroc(*scores), "fpr95": rates.fpr95(*scores)}
    return table


class Probe:
    """Multinomial logistic regression on standardised features: what codes say of the class."""

    def __init__(self, features: Values, labels: NDArray[np.int64]) -> None:
        """Fit on clean training features [N, F] and their classes [N]."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        model = LogisticRegression(max_iter=PROBE_ITERATIONS)
        self.model = make_pipeline(StandardScaler(), model).fit(features, labels)

    def correct(self, features: Values, labels: NDArray[np.int64]) -> Values:
        """1 where the class is right, else 0, [N]."""
        return np.asarray(self.model.predict(features) == labels, dtype=np.float64)
