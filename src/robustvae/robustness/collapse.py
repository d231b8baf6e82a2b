"""Does the model use its latents: active units, KL per dimension, mutual information, codes."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustvae.models.autoencoder import Autoencoder
from robustvae.models.distributions import DiagNormal, Diagonal, wide
from robustvae.models.divergences import kl
from robustvae.models.latents import perplexity
from robustvae.robustness import quantiles
from robustvae.robustness.batches import each, pixels
from robustvae.robustness.bounds import Draws, select, shifted
from robustvae.robustness.quantiles import Law
from robustvae.runtime import seeding

ACTIVE = 0.01  # a dimension is active where the variance of its posterior mean exceeds this
PAIRS = 1000  # images the aggregate posterior is estimated from
ROWS = 20  # images compared with all others at a time
SATURATED = 2  # nats: nearer to its bound the mutual information is made by the bound
NODES = 64  # quadrature nodes for the KL of Student-t marginals


def spread(q: Diagonal) -> Tensor:
    """Variance of the posterior mean over images, [Z]; 0 in inactive dimensions."""
    variance = q.mean.to(wide(q.mu.device)).var(0, unbiased=False)
    return torch.where(variance > ACTIVE, variance, 0.0)


def kl_per_dim(q: Diagonal, p: Diagonal) -> Tensor:
    """KL of each dimension's marginal posterior from its marginal prior, mean over images, [Z].

    In nats; closed for normals, otherwise by Gauss-Legendre quadrature over probabilities.
    """
    if isinstance(q, DiagNormal):
        return kl(q.mu.double(), q.logvar.double(), p.mu.double(), p.logvar.double()).mean(0)
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    total = torch.zeros_like(p.mu)
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        z = q.quantile(torch.full((1,), node, dtype=torch.float64))
        total += weight * (_marginal(q, z) - _marginal(p, z)).mean(0)
    return total


def _marginal(law: Diagonal, z: Tensor) -> Tensor:
    """Log-density of each dimension on its own, [N, Z]."""
    alone = dataclasses.replace(law, mu=law.mu.unsqueeze(-1), logvar=law.logvar.unsqueeze(-1))
    return alone.log_prob(z.unsqueeze(-1))


def information(
    q: Diagonal, p: Diagonal, draws: Draws
) -> tuple[dict[str, float | None], dict[str, str]]:
    r"""Mutual information of image and latent, and the gap KL(aggregate posterior || p), in nats.

    With :math:`q(z) = \frac1M \sum_j q(z|x_j)` over the first M = 1000 images and one draw from
    each: means of log q(z|x) - log q(z) and of log q(z) - log p(z). The first is a lower bound that
    cannot exceed log M; within 2 nats of it the second is mostly bias. Also why one is missing.
    """
    q = select(q, slice(0, PAIRS))
    count = len(q.mu)
    z = shifted(q, draws.standard(q, "information"))
    rows = [z[start : start + ROWS].unsqueeze(1) for start in range(0, count, ROWS)]
    aggregate = torch.cat([torch.logsumexp(q.log_prob(row), 1) for row in rows]) - math.log(count)
    bound, least = math.log(count), float((q.log_prob(z) - aggregate).mean())
    values: dict[str, float | None] = {
        "mutual_information": least,
        "mutual_information_at_most": bound,
        "aggregate_gap": float((aggregate - p.log_prob(z)).mean()),
    }
    if least <= bound - SATURATED:
        return values, {}
    reason = (
        f"at least about log {count} = {bound:.1f} nats of information: {count} images cannot "
        "tell the aggregate posterior from the prior"
    )
    return values | {"aggregate_gap": None}, {"aggregate_gap": reason}


@dataclass(frozen=True)
class Collapse:
    """What is reported, and whether the model has collapsed, in words."""

    values: dict[str, float | None]
    verdict: str
    collapsed: bool
    reasons: dict[str, str] = field(default_factory=dict)  # of values that are None
    warnings: tuple[str, ...] = ()

    @property
    def headline(self) -> dict[str, float | None]:
        """What stands beside every headline."""
        names = ("active_units", "perplexity")
        return {name: self.values[name] for name in names if name in self.values}


def latents(
    model: Autoencoder, images: NDArray[np.uint8], q: Diagonal | None, size: int, draws: Draws
) -> tuple[Collapse, dict[str, NDArray[Any]]]:
    """How the test images use the latents, and the arrays that figures of them need."""
    if q is None:
        used = each(lambda w: model.codes(pixels(model, images, w)).cpu(), len(images), size)
        every = torch.cat(used).flatten().numpy()
        counts = np.bincount(every, minlength=model.settings.latent.codes)
        return codes(counts), {"code_counts": counts}
    q, p = (_on_cpu(law) for law in (q, model.generating_prior()))
    arrays = {
        "mu": q.mu,
        "logvar": q.logvar,
        "df": torch.tensor(getattr(q, "df", 0.0)),
        "prior_mu": p.mu,
        "prior_logvar": p.logvar,
        "prior_df": torch.tensor(getattr(p, "df", 0.0)),
        "kl_per_dim": kl_per_dim(q, p),
    }
    found = {name: array.detach().float().numpy() for name, array in arrays.items()}
    found["active"] = (spread(q) > 0).numpy()
    return _with_fit(continuous(q, p, draws), found, q, p, draws.seed), found


def one_each(seed: int) -> np.random.Generator:
    """The draws by which the aggregate posterior is compared with the prior, figures included."""
    return seeding.numpy_rng(seed, "evaluate", "one latent each")


def _with_fit(
    use: Collapse, arrays: Mapping[str, NDArray[Any]], q: Diagonal, p: Diagonal, seed: int
) -> Collapse:
    """Is the aggregate posterior what new latents are drawn from, each dimension on its own?"""
    df = getattr(p, "df", 0.0)
    scales = np.exp(p.logvar.double().numpy() / 2)
    laws = [Law(float(c), float(s), df) for c, s in zip(p.mu, scales, strict=True)]
    mu, logvar = (arrays[name].astype(float) for name in ("mu", "logvar"))
    z, law = quantiles.standardised(mu, logvar, getattr(q, "df", 0.0), laws, one_each(seed))
    panels = quantiles.panels(z, law)
    worst = max(panels, key=lambda dim: panels[dim].distance)
    outside, largest = sum(part.outside > 0 for part in panels.values()), panels[worst].distance
    values: dict[str, float | None] = {"outside_prior": outside, "prior_distance": largest}
    if not outside:
        return dataclasses.replace(use, values=use.values | values)
    text = (
        f"{outside} of {len(panels)} latents are not distributed as new ones are drawn (beyond a "
        f"95 % band for all of them together), by a Kolmogorov-Smirnov distance of up to "
        f"{largest:.3f} (z{worst}): samples meet codes that no image has"
    )
    return dataclasses.replace(use, values=use.values | values, warnings=(text,))


def _on_cpu(law: Diagonal) -> Diagonal:
    return dataclasses.replace(law, mu=law.mu.detach().cpu(), logvar=law.logvar.detach().cpu())


def continuous(q: Diagonal, p: Diagonal, draws: Draws) -> Collapse:
    """Of posteriors [N, Z]; p is the law that samples are drawn from: at no cost."""
    active, size = int((spread(q) > 0).sum()), q.mu.shape[1]
    found, reasons = information(q, p, draws)
    values: dict[str, float | None] = {"active_units": active, "latent_dim": size}
    values |= {"kl_sum_of_dims": float(kl_per_dim(q, p).sum()), **found}
    used = f"{active} of {size} latent dimensions vary with the image (variance of mu > {ACTIVE})"
    if active == 0:
        words, collapsed = f"collapsed: {used}; every image gets nearly the same code", True
    elif active <= size // 8:
        words, collapsed = f"collapsed but for a few dimensions: only {used}", True
    elif active < size:
        words, collapsed = f"partly unused: {used}", False
    else:
        words, collapsed = f"not collapsed: all {used}", False
    return Collapse(values, words, collapsed, reasons)


def codes(counts: NDArray[np.int64]) -> Collapse:
    """Of a codebook, from how often the test images use each code, [codes]."""
    size, dead = len(counts), int((counts == 0).sum())
    effective = float(perplexity(torch.from_numpy(counts).double()))
    used = f"{size - dead} of {size} codes in use, perplexity {effective:.1f}"
    values: dict[str, float | None] = {"codes": size, "dead_codes": dead, "perplexity": effective}
    if effective < 2:
        return Collapse(values, f"collapsed: {used}", True)
    return Collapse(values, f"not collapsed: {used}", False)
