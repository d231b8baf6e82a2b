"""Lower bounds of log p(x) in nats, and which of them may be reported as what."""

import dataclasses
import math
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustvae.models.autoencoder import Autoencoder
from robustvae.models.distributions import DiagNormal, Diagonal
from robustvae.models.divergences import kl
from robustvae.models.likelihoods import Bernoulli, Gaussian
from robustvae.params import EvaluateSettings
from robustvae.robustness import metrics
from robustvae.robustness.batches import Images, each, pixels
from robustvae.robustness.metrics import Summary, Values
from robustvae.runtime import seeding
from robustvae.runtime.progress import track

FEW_DRAWS = 2  # an effective sample size below this leaves the importance-weighted bound very loose
IMPROPER = "the cross-entropy of grey pixels is no normalised likelihood"
ENLARGED = "the images were enlarged: most pixels follow from others, bits per pixel mean nothing"
SOME, FACTORS = 8, (1, 4, 16)  # images at most, and multiples of K, that show the bound's growth
HEAVY_DF = 4  # up to this df, log-weights that grow like |z|^2 have no variance


@dataclass(frozen=True)
class Draws:
    """The latent noise of an evaluation: by name, the same for any batch size and device."""

    seed: int

    def standard(self, q: Diagonal, *name: str | int) -> Tensor:
        """Draws of q's family at location 0 and scale 1, [N, Z]."""
        zeros = torch.zeros(q.mu.shape)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeding.seed(self.seed, "evaluate", *name))
            return dataclasses.replace(q, mu=zeros, logvar=zeros).rsample().to(q.mu)


def select(q: Diagonal, where: slice) -> Diagonal:
    """The posteriors of a batch."""
    return dataclasses.replace(q, mu=q.mu[where], logvar=q.logvar[where])


def shifted(q: Diagonal, draw: Tensor) -> Tensor:
    """Draws of q from draws of its family at location 0 and scale 1."""
    return q.mu + (0.5 * q.logvar).exp() * draw


@torch.inference_mode()
def posteriors(model: Autoencoder, images: Images, size: int) -> Diagonal | None:
    """Posteriors of all images, parameters [N, Z]; None for vq."""
    if model.family == "vq":
        return None

    def encode(where: slice) -> Diagonal:
        q = model.posterior(pixels(model, images, where))
        return dataclasses.replace(q, mu=q.mu.cpu(), logvar=q.logvar.cpu())

    parts, device = each(encode, len(images), size), next(model.parameters()).device
    mu, logvar = (torch.cat([getattr(q, n) for q in parts]).to(device) for n in ("mu", "logvar"))
    return dataclasses.replace(parts[0], mu=mu, logvar=logvar)


def elbo(
    model: Autoencoder, x: Tensor, q: Diagonal | None, draw: Tensor | None
) -> tuple[Tensor, Tensor]:
    """E log p(x|z) and KL(q || p) of each image, [B], from one draw; closed for the KL of normals.

    vq has one deterministic code and a uniform prior: nothing is drawn, the KL is its length.
    """
    if q is None or draw is None:
        z = model.quantise(x)
        fit = model.likelihood.log_prob(x, model.decode(z), z)
        return fit, fit - model.log_weights(x, 1)[0]
    z, p = shifted(q, draw), model.prior(None)
    fit = model.likelihood.log_prob(x, model.decode(z), z)
    if isinstance(q, DiagNormal):
        inputs = (t.to(fit.dtype) for t in (q.mu, q.logvar, p.mu, p.logvar))
        return fit, kl(*inputs).sum(-1)
    return fit, q.log_prob(z) - p.log_prob(z)


def score(model: Autoencoder, x: Tensor, q: Diagonal | None, draw: Tensor | None) -> Tensor:
    """Negative ELBO that tells corrupted from clean images, [B], from one draw.

    The same draw for an image and its corruptions. On the default model its noise is a fifteenth of
    the spread between images, and another seed moves an AUROC by 0.0002.
    """
    fit, rate = elbo(model, x, q, draw)
    return rate - fit


def mean_elbo(
    model: Autoencoder, images: Images, q: Diagonal | None, samples: int, size: int, draws: Draws
) -> tuple[Values, Values]:
    """E log p(x|z) and KL(q || p) of each image, [N], from `samples` draws."""
    total = np.zeros((2, len(images)))
    count = 1 if q is None else samples
    for k in track(range(count), "ELBO", unit="draw"):
        noise = None if q is None else draws.standard(q, "elbo", k)

        def terms(where: slice, noise: Tensor | None = noise) -> Tensor:
            known = None if q is None else select(q, where)
            draw = None if noise is None else noise[where]
            return torch.stack(elbo(model, pixels(model, images, where), known, draw)).cpu()

        total += torch.cat(each(terms, len(images), size), 1).numpy()
    return total[0] / count, total[1] / count


@dataclass(frozen=True)
class Weighted:
    """Importance-weighted bound of each image, [N]."""

    bound: Values
    alternative: Values  # under the law that samples are drawn from, for t3 not the prior
    effective: Values  # effective number of draws, 1 .. K


def importance_weighted(
    model: Autoencoder, images: Images, q: Diagonal, samples: int, size: int, draws: Draws
) -> Weighted:
    r""":math:`\log \frac1K \sum_k w_k`, w = p(x|z) p(z) / q(z|x), running logsumexp over draws."""
    laws = [model.prior(None)]
    if model.loss_settings.kind == "t3":
        laws.append(model.generating_prior())
    first, second, other = (np.full(len(images), -np.inf) for _ in range(3))
    for k in track(range(samples), f"importance-weighted bound, K = {samples}", unit="draw"):
        noise = draws.standard(q, "weighted", k)

        def weights(where: slice, noise: Tensor = noise) -> Tensor:
            part, x = select(q, where), pixels(model, images, where)
            z = shifted(part, noise[where])
            fit = model.likelihood.log_prob(x, model.decode(z), z) - part.log_prob(z)
            return torch.stack([fit + law.log_prob(z) for law in laws]).cpu()

        found = torch.cat(each(weights, len(images), size), 1).double().numpy()
        first = np.logaddexp(first, found[0])
        second = np.logaddexp(second, 2 * found[0])
        other = np.logaddexp(other, found[-1])
    count = math.log(samples)
    return Weighted(first - count, other - count, np.exp(2 * first - second))


def widened(q: Diagonal, scale: float) -> Diagonal:
    """The posteriors as proposals, `scale` times as wide: they miss less of the true ones."""
    return dataclasses.replace(q, logvar=q.logvar + 2 * math.log(scale))


def growth(
    model: Autoencoder, images: Images, q: Diagonal, samples: int, size: int, draws: Draws
) -> dict[int, Values]:
    """Importance-weighted bound of a few images at K, 4 K and 16 K, from the same draws.

    The smaller K: means over blocks of the draws.
    """
    few, most = len(images), max(FACTORS) * samples
    index = torch.arange(most * few) % few
    repeated = dataclasses.replace(q, mu=q.mu[index], logvar=q.logvar[index])
    x, p = pixels(model, images, slice(few)), model.prior()
    noise = draws.standard(repeated, "growth")

    def weights(where: slice) -> Tensor:
        part = select(repeated, where)
        z = shifted(part, noise[where])
        fit = model.likelihood.log_prob(x[index[where]], model.decode(z), z)
        return (fit + p.log_prob(z) - part.log_prob(z)).cpu().double()

    found = torch.cat(each(weights, len(index), size)).view(most, few)
    bounds = {
        k: found.view(-1, k, few).logsumexp(1).mean(0) for k in (f * samples for f in FACTORS)
    }
    return {k: (bound - math.log(k)).numpy() for k, bound in bounds.items()}


def dequantised(images: NDArray[np.uint8], seed: int) -> NDArray[np.float32]:
    """(k + u) / 256 with u uniform on [0, 1): their density bounds the code length of 8 bits."""
    noise = seeding.numpy_rng(seed, "evaluate", "dequantise").random(images.shape)
    return ((images + noise) / 256).astype(np.float32)


@dataclass
class Report:
    """Values with standard errors over images, why some are missing, what a reader must know."""

    values: dict[str, Summary | None] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    facts: dict[str, str | bool | int | float] = field(default_factory=dict)
    cost: float | None = None  # of the importance-weighted bound, seconds per image

    @property
    def means(self) -> dict[str, float | None]:
        """Values alone."""
        return {name: value and value[0] for name, value in self.values.items()}

    @property
    def content(self) -> dict[str, Any]:
        """Values with their errors, and facts."""
        pairs = {
            name: value and dict(zip(("value", "se"), value, strict=True))
            for name, value in self.values.items()
        }
        return pairs | self.facts

    def put(self, name: str, values: Values | None, reason: str | None = None) -> None:
        """Mean and its standard error, or null where there is a reason or a value is not finite."""
        if values is not None and reason is None and not np.isfinite(values).all():
            wrong = int((~np.isfinite(values)).sum())
            reason = f"not finite for {wrong} of {len(values)} images"
        self.values[name] = None if reason or values is None else metrics.mean(values)
        if reason:
            self.reasons[name] = reason


def no_elbo(model: Autoencoder) -> str | None:
    """Why a Monte-Carlo ELBO of this model is not to be relied on, or None."""
    df = model.loss_settings.df
    gaussian = isinstance(model.likelihood, Gaussian)
    if model.loss_settings.kind == "gamma" and df <= HEAVY_DF and gaussian:
        return (
            f"for df <= {HEAVY_DF} with a Gaussian decoder the Monte-Carlo ELBO may have infinite "
            "variance; read the importance-weighted bound"
        )
    return None


def bound_name(settings: EvaluateSettings) -> str:
    """The importance-weighted bound with its K, and the width of its proposal where it is not 1."""
    scale = settings.iwae_scale
    return f"iwae_{settings.iwae_samples}" + (f"_wide_{scale:g}" if scale != 1 else "")


def likelihood(
    model: Autoencoder,
    images: NDArray[np.uint8],
    q: Diagonal | None,
    binary: bool,
    settings: EvaluateSettings,
    draws: Draws,
    enlarged: bool = False,
) -> Report:
    """What may be said about log p(x) of the first iwae_images, of posteriors q (None: vq)."""
    report, size = Report(), settings.batch_size
    weighted, count = bound_name(settings), settings.iwae_images or len(images)
    images, q = images[:count], None if q is None else select(q, slice(0, count))
    fit, rate = mean_elbo(model, images, q, settings.elbo_samples, size, draws)
    report.facts["images"] = len(images)
    if not model.likelihood.proper(binary):
        report.put("bernoulli_cross_entropy", -fit)
        asked = [weighted] if settings.iwae_samples else []
        for name in ("elbo", *asked, "log_likelihood", "bits_per_dim"):
            report.put(name, None, IMPROPER)
        return report
    reason = no_elbo(model)
    report.put("elbo", fit - rate, reason)
    best = _bound(model, images, q, settings, draws, report, weighted)
    if best is not None and q is not None:
        _rise(model, images, q, settings, draws, report)
    source, best = ("elbo", fit - rate) if best is None else (weighted, best)
    report.put("log_likelihood", best, report.reasons.get(source))
    density = not isinstance(model.likelihood, Bernoulli)
    report.facts |= {"log_likelihood_is": source, "density_only": density}
    if enlarged:
        report.put("bits_per_dim", None, ENLARGED)
    elif not density:
        report.put("bits_per_dim", _bits(best, images), report.reasons.get(source))
    elif binary:
        report.put("bits_per_dim", None, "a density of binary pixels is no code length")
    else:
        noisy = _of_dequantised(model, images, settings, draws)
        unsure = reason if source == "elbo" else None
        report.put("bits_per_dim", 8 + _bits(noisy, images), unsure)
    return report


def _bits(bound: Values, images: Images) -> Values:
    return -bound / (math.prod(images.shape[1:]) * math.log(2))


def _of_dequantised(
    model: Autoencoder, images: NDArray[np.uint8], settings: EvaluateSettings, draws: Draws
) -> Values:
    """The best bound again, of images whose pixels are no longer whole numbers."""
    noisy, size = dequantised(images, draws.seed), settings.batch_size
    q = posteriors(model, noisy, size)
    best = _bound(model, noisy, q, settings, draws, Report(), bound_name(settings))
    if best is None:
        fit, rate = mean_elbo(model, noisy, q, settings.elbo_samples, size, draws)
        best = fit - rate
    return best


def _rise(
    model: Autoencoder,
    images: Images,
    q: Diagonal,
    settings: EvaluateSettings,
    draws: Draws,
    report: Report,
) -> None:
    """Add how much more the bound says with 4 and 16 times the draws, on a few images."""
    few = min(SOME, max(1, len(images) // 100))  # so that it takes a tenth of the bound's time
    proposal = widened(select(q, slice(few)), settings.iwae_scale)
    samples, size = settings.iwae_samples, settings.batch_size
    first, *others = growth(model, images[:few], proposal, samples, size, draws).items()
    for k, bound in others:
        report.put(f"rise_{k}", bound - first[1])
    report.facts["rise_images"] = few


def _bound(
    model: Autoencoder,
    images: Images,
    q: Diagonal | None,
    settings: EvaluateSettings,
    draws: Draws,
    report: Report,
    name: str,
) -> Values | None:
    """Add the importance-weighted bound to the report and return it, None where there is none."""
    if settings.iwae_samples == 0:
        return None
    if q is None:
        report.put(name, None, "vq: the code is deterministic, there is nothing to weight")
        return None
    q = widened(q, settings.iwae_scale)
    start = time.perf_counter()
    result = importance_weighted(
        model, images, q, settings.iwae_samples, settings.batch_size, draws
    )
    report.cost = (time.perf_counter() - start) / len(images)
    report.put(name, result.bound)
    if model.loss_settings.kind == "t3":
        report.put(name.replace("iwae_", "iwae_alt_prior_"), result.alternative)
    report.put("effective_samples", result.effective)
    mean = result.effective.mean()
    if mean < FEW_DRAWS:
        report.warnings.append(
            f"the importance-weighted bound is very loose: of {settings.iwae_samples} draws only "
            f"{mean:.2f} count (effective sample size below {FEW_DRAWS})"
        )
    return result.bound
