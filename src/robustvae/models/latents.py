"""What z is: how features become latents, what they cost, and where new ones are drawn from."""

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustvae.models.distributions import Diagonal, wide
from robustvae.models.divergences import Divergence, logvar_bounds
from robustvae.params import LossSettings, ModelSettings
from robustvae.params.geometry import Geometry
from robustvae.runtime import distributed

WIDTH = 16  # square root of the features beyond which a head is scaled
SMOOTHING = 1e-5  # Laplace smoothing of the average counts of codes (arXiv:1711.00937, A.1)


class Draw(NamedTuple):
    """One stochastic training pass through the latents."""

    z: Tensor  # [B, Z], or [B, Z, h, w]
    penalty: Tensor  # [B]
    stats: dict[str, Tensor]  # scalars to log


class Continuous(nn.Module):
    """Gaussian or Student-t: a linear head gives mu and logvar, a divergence law and penalty.

    A fresh head's biases are where the divergence is zero: mu0 and logvar0, for t3 0 and log s.
    What it sees is scaled by 16 / sqrt(features) where that is below 1: Adam moves every weight by
    about the learning rate, so that a step would move a latent in proportion to the features, by 2
    for the default net, and alpha outside [0, 1] soon be infinite.
    """

    stochastic = True

    def __init__(
        self, g: Geometry, settings: ModelSettings, loss: LossSettings, divergence: Divergence
    ) -> None:
        super().__init__()
        self.divergence, dim = divergence, settings.latent_dim
        self.bound = settings.logvar_bound
        low, high = logvar_bounds(loss) if self.bound == "auto" else (None, None)
        self.low = None if low is None else _constant(low, dim)
        self.high = None if high is None else _constant(high, dim)
        self.mu0, self.logvar0 = (_constant(v, dim) for v in (loss.prior.mu, loss.prior.logvar))
        self.head, self.scale = nn.Linear(g.features, 2 * dim), min(1.0, WIDTH / g.features**0.5)
        if self.head.bias.is_meta:  # an outline; arithmetic there imports torch's compiler, 2 s
            return
        with torch.no_grad():
            best = self.generating_prior()
            shift = divergence.posterior(self.mu0, torch.zeros(dim)).logvar
            self.head.bias.copy_(torch.cat([best.mu, best.logvar - shift]))

    def forward(self, h: Tensor) -> Draw:
        """Features [B, F] -> z drawn from the posterior, and its divergence in nats."""
        q = self.posterior(h)
        penalty = self.divergence(q, self.prior())
        return Draw(_drawn(q), penalty, self.divergence.stats(penalty.detach()))

    def posterior(self, h: Tensor) -> Diagonal:
        """q(z given x) in float32 or wider, log-variances within the bounds."""
        mu, logvar = self.head(self.scale * h).chunk(2, dim=-1)
        with torch.autocast(h.device.type, enabled=False):
            mu, logvar = (t.to(torch.promote_types(t.dtype, torch.float32)) for t in (mu, logvar))
            return self.divergence.posterior(mu, self._bounded(logvar))

    def prior(self) -> Diagonal:
        """p(z) of the generative model, parameters [Z]."""
        return self.divergence.prior(self.mu0, self.logvar0)

    def generating_prior(self) -> Diagonal:
        """The law that new samples are drawn from: p(z), except for t3."""
        return self.divergence.minimum(self.prior())

    def mode(self, h: Tensor) -> Tensor:
        """The posterior mean."""
        return self.posterior(h).mean

    def sample(self, n: int) -> Tensor:
        """New latents [n, Z]."""
        return self.generating_prior().rsample(n)

    def weighted(self, h: Tensor, samples: int) -> tuple[Tensor, Tensor]:
        """Draws [K, B, Z] from the posterior with log p(z) - log q(z given x), [K, B]."""
        q = self.posterior(h)
        z = q.rsample(samples)
        return z, self.prior().log_prob(z) - q.log_prob(z)

    def _bounded(self, logvar: Tensor) -> Tensor:
        """Smoothly within the bounds; nearly unchanged far from them."""
        if isinstance(self.bound, float):
            return self.bound * (logvar / self.bound).tanh()
        if self.high is not None:
            logvar = self.high - F.softplus(self.high - logvar)
        if self.low is not None:
            logvar = self.low + F.softplus(logvar - self.low)
        return logvar


def _drawn(q: Diagonal) -> Tensor:
    """A draw, [B, Z]: rows of the one that a single process would make for the whole batch."""
    share = distributed.share()
    if share is None:
        return q.rsample()
    whole = replace(q, mu=share.padded(q.mu), logvar=share.padded(q.logvar))
    return whole.rsample()[share.rows]


def _constant(value: Tensor | float | tuple[float, ...], dim: int) -> nn.Buffer:
    """[Z], and no part of the weights: the settings say it."""
    full = torch.empty(dim).copy_(torch.as_tensor(value, dtype=torch.get_default_dtype()))
    return nn.Buffer(full, persistent=False)


class VQ(nn.Module):
    """A codebook: each position's feature vector becomes the nearest codeword (arXiv:1711.00937).

    The penalty is a squared distance, not nats: commitment * |h - sg(e)|^2, plus |sg(h) - e|^2
    where the codebook learns by gradient, summed over positions and components. Codes are
    uniform a priori.
    """

    stochastic = False

    def __init__(
        self, g: Geometry, settings: ModelSettings, _loss: LossSettings, _divergence: Divergence
    ) -> None:
        super().__init__()
        self.settings, dim, codes = settings.latent, settings.latent_dim, settings.latent.codes
        self.side = g.sides[-1]
        self.head = nn.Conv2d(g.features, dim, 1)
        # Small, so that no code starts nearest to everything; a unit normal left one code in use.
        codebook = (2 * torch.rand(codes, dim) - 1) / codes
        self.codebook: Tensor
        if self.settings.update == "ema":
            self.codebook = nn.Buffer(codebook)
            self.sums = nn.Buffer(codebook.clone())
        else:
            self.codebook = nn.Parameter(codebook)
        self.counts = nn.Buffer(torch.ones(codes))  # moving average of each code's uses per step

    def forward(self, h: Tensor) -> Draw:
        """Features [B, W, h, w] -> codewords; in training mode the moving averages go on."""
        h = self._vectors(h)
        codes = self._nearest(h)
        z = self.embed(codes)
        distance = (h - z.detach()).square().sum((1, 2, 3))
        penalty = self.settings.commitment * distance
        if self.settings.update == "gradient":
            penalty = penalty + (h.detach() - z).square().sum((1, 2, 3))
        seen = distributed.summed(self.count(codes))
        if self.training:
            self._follow(h.detach(), codes, seen)
        stats = {"perplexity": perplexity(seen), "dead_codes": (seen == 0).float().sum()}
        # argmin has no gradient, so the decoder's goes to h unchanged.
        return Draw(h + (z - h).detach(), penalty, stats)

    def codes(self, h: Tensor) -> Tensor:
        """Index of the nearest codeword at each position, int64 [B, h, w]."""
        return self._nearest(self._vectors(h))

    def embed(self, codes: Tensor) -> Tensor:
        """Codewords at [B, h, w] indices, [B, Z, h, w]."""
        return F.embedding(codes, self.codebook).permute(0, 3, 1, 2)

    def count(self, codes: Tensor) -> Tensor:
        """How often each code occurs, [codes]."""
        ones = torch.ones_like(codes, dtype=self.counts.dtype).flatten()
        return torch.zeros_like(self.counts).index_add_(0, codes.flatten(), ones)

    @property
    def usage(self) -> Tensor:
        """Share of each code in recent training steps, [codes]."""
        return self.counts / self.counts.sum()

    def mode(self, h: Tensor) -> Tensor:
        """The codewords of the nearest codes."""
        return self.embed(self.codes(h))

    def sample(self, n: int) -> Tensor:
        """Codewords of codes drawn uniformly and independently, [n, Z, h, w]."""
        shape = (n, self.side, self.side)
        return self.embed(torch.randint(len(self.codebook), shape, device=self.codebook.device))

    def weighted(self, h: Tensor, samples: int) -> tuple[Tensor, Tensor]:
        """The one deterministic draw, [1, B, Z, h, w], with log p(z) = -h w log(codes), [1, B]."""
        z = self.mode(h).unsqueeze(0)
        log_prior = -(self.side**2) * math.log(len(self.codebook))
        return z, torch.full(z.shape[:2], log_prior, dtype=wide(z.device), device=z.device)

    def _vectors(self, h: Tensor) -> Tensor:
        """What is compared with codewords, float32 or wider, [B, Z, h, w]."""
        h = self.head(h)
        return h.to(torch.promote_types(h.dtype, torch.float32))

    @torch.no_grad()
    def _nearest(self, h: Tensor) -> Tensor:
        with torch.autocast(h.device.type, enabled=False):
            # |h - e|^2 without |h|^2, which is the same for every code.
            products = h.permute(0, 2, 3, 1) @ self.codebook.T
            return (self.codebook.square().sum(1) - 2 * products).argmin(-1)

    @torch.no_grad()
    def _follow(self, h: Tensor, codes: Tensor, seen: Tensor) -> None:
        """Move the averages; with ema, codewords to the smoothed mean of what they stood for."""
        rate = 1 - self.settings.decay
        self.counts.lerp_(seen, rate)
        if self.settings.update == "ema":
            vectors = h.permute(0, 2, 3, 1).flatten(0, 2)
            found = torch.zeros_like(self.sums).index_add_(0, codes.flatten(), vectors)
            self.sums.lerp_(distributed.summed(found), rate)
            total, k = self.counts.sum(), len(self.counts)
            smoothed = (self.counts + SMOOTHING) / (total + k * SMOOTHING) * total
            self.codebook.copy_(self.sums / smoothed.unsqueeze(1))


def perplexity(counts: Tensor) -> Tensor:
    """exp of the entropy of code frequencies: the effective number of codes in use."""
    share = counts / counts.sum()
    entropy: Tensor = -torch.special.xlogy(share, share).sum()
    return entropy.exp()


Latent = Continuous | VQ
