"""The autoencoder: architecture, latent, divergence, likelihood. x is [B, C, H, W] in [0, 1]."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from robustvae.errors import UserError
from robustvae.models import divergences, likelihoods
from robustvae.models.catalogue import LATENTS, NETS
from robustvae.models.distributions import Diagonal
from robustvae.models.latents import VQ, Continuous, Latent
from robustvae.models.nets import Net
from robustvae.params import LossSettings, ModelSettings
from robustvae.params.geometry import geometry
from robustvae.params.parts import foreign

RARE = 1e-3  # a pixel's least share of white, or of black, that a fresh bias stands for
ROWS = 1000  # latents decoded at once by log_weights: bounds its memory


class Terms(NamedTuple):
    """One stochastic training pass; the training step takes the means over the batch."""

    recon: Tensor  # [B], nats
    divergence: Tensor  # [B], nats (vq: squared distances)
    out: Tensor  # [B, k*C, H, W], the decoder's
    stats: dict[str, Tensor]  # scalars to log
    integral: Tensor | None = None  # [B], of p^(1 + b) over images, where the beta-ELBO needs it
    weights: Tensor | None = None  # [B], what a robust objective gives each image


class Autoencoder(nn.Module):
    """The four parts joined; torch's own generator initialises and draws."""

    config: dict[str, Any]  # of the folder it was loaded from

    def __init__(
        self, settings: ModelSettings, loss: LossSettings, shape: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.settings, self.loss_settings, self.shape = settings, loss, shape
        continuous = "student_t" if loss.df else "gaussian"
        self.family = "vq" if settings.latent.name == "vq" else continuous
        channels, side, dim = shape[0], shape[-1], settings.latent_dim
        self.geometry = geometry(settings.architecture, side, vq=self.family == "vq")
        architecture, latent = settings.architecture, settings.latent
        net: Net = NETS[architecture.name](**architecture.own(architecture.name))
        self.likelihood = likelihoods.build(settings.likelihood, loss, dim)
        sigma = settings.likelihood.sigma
        self.divergence = divergences.build(loss, dim, channels * side**2, sigma)
        self.encoder = net.encoder(self.geometry, channels)
        make, own = LATENTS[latent.name], latent.own(latent.name)
        self.latent: Latent = make(self.geometry, settings, loss, self.divergence, **own)
        self.decoder = net.decoder(self.geometry, dim, channels * self.likelihood.outputs)

    @classmethod
    def build(
        cls, model: ModelSettings, loss: LossSettings, shape: tuple[int, int, int]
    ) -> "Autoencoder":
        """A fresh model for images of `shape`; UserError where the settings do not fit it."""
        if shape[1] != shape[2]:
            raise UserError(f"model: images must be square, got {shape[2]} x {shape[1]} pixels")
        try:
            return cls(model, loss, shape)
        except ValueError as error:
            raise UserError(f"model.architecture.{error}") from None

    @torch.no_grad()
    def start(self, images: np.ndarray) -> None:
        """Have Bernoulli pixels with a bias each (mlp) begin at the mean of `images`, uint8.

        As in arXiv:1509.00519; training need not find it first.
        """
        if self.geometry.name == "mlp" and isinstance(self.likelihood, likelihoods.Bernoulli):
            mean = torch.from_numpy(images.mean(0) / 255).clamp(RARE, 1 - RARE)
            last = next(m for m in reversed(self.decoder) if isinstance(m, nn.Linear))
            last.bias.copy_(mean.logit().flatten())

    def terms(self, x: Tensor, target: Tensor | None = None) -> Terms:
        """One stochastic pass; `target` is what must be reproduced, x where it is not given."""
        z, penalty, stats = self.latent(self.encoder(x))
        out = self.decode(z)
        recon = self.likelihood.distortion(x if target is None else target, out, z)
        robust = self.loss_settings.robust
        if robust.name != "beta" or robust.strength is None:
            return Terms(recon, penalty, out, stats)
        return Terms(recon, penalty, out, stats, self.likelihood.power(out, robust.strength))

    forward = terms  # for wrappers such as DistributedDataParallel

    def posterior(self, x: Tensor) -> Diagonal:
        """q(z given x), parameters [B, Z]."""
        return self._continuous.posterior(self.encoder(x))

    def prior(self, n: int | None = None) -> Diagonal:
        """p(z) of the generative model, for importance weights; parameters [Z], or [n, Z]."""
        return _repeated(self._continuous.prior(), n)

    def generating_prior(self, n: int | None = None) -> Diagonal:
        """The law that samples are drawn from: p(z), except for t3."""
        return _repeated(self._continuous.generating_prior(), n)

    def codes(self, x: Tensor) -> Tensor:
        """Index of the codeword at each position, int64 [B, h, w] (vq)."""
        return self._codebook.codes(self.encoder(x))

    def quantise(self, x: Tensor) -> Tensor:
        """Codewords of x, [B, Z, h, w] (vq)."""
        return self._codebook.mode(self.encoder(x))

    def reconstruct(self, x: Tensor) -> Tensor:
        """Decoder mean at the posterior mean (vq: at the codewords), nothing random."""
        return self.likelihood.mean(self.decode(self.latent.mode(self.encoder(x))))

    def sample(self, n: int) -> Tensor:
        """Mean images of n latents from the generating prior (vq: of uniform codes)."""
        return self.likelihood.mean(self.decode(self.latent.sample(n)))

    def decode(self, z: Tensor) -> Tensor:
        """The likelihood's raw input [B, k*C, H, W] (logits, or before the sigmoid)."""
        return self.decoder(z)  # type: ignore[no-any-return]

    @torch.no_grad()
    def log_weights(self, x: Tensor, samples: int) -> Tensor:
        """log p(x|z) + log p(z) - log q(z|x) at `samples` draws z, [K, B], float64 (vq: K = 1)."""
        h = self.encoder(x)
        left, rows = samples if self.latent.stochastic else 1, max(1, ROWS // len(x))
        blocks = []
        while left > 0:
            z, ratio = self.latent.weighted(h, min(left, rows))
            out = self.decode(z.flatten(0, 1)).view(*z.shape[:2], -1, *self.shape[1:])
            blocks.append(self.likelihood.log_prob(x, out, z) + ratio)
            left -= rows
        return torch.cat(blocks)

    def plugins(self) -> list[dict[str, Any]]:
        """Kind, name, origin and digest of the parts that are not built in."""
        model, loss = self.settings, self.loss_settings
        return foreign([
            ("net", model.architecture.name), ("likelihood", model.likelihood.name),
            ("latent", model.latent.name), ("divergence", loss.divergence),
            ("robust", loss.robust.name),
        ])  # fmt: skip

    @property
    def parameters_count(self) -> int:
        """Trained numbers; an ema codebook counts, since it is learned too."""
        learned: list[Tensor] = [*self.parameters()]
        if isinstance(self.latent, VQ) and self.settings.latent.update == "ema":
            learned.append(self.latent.codebook)
        return sum(p.numel() for p in learned)

    def describe(self) -> str:
        """Parameter count and shapes, one line per part."""
        g, (c, height, width) = self.geometry, self.shape
        image = f"{c}x{height}x{width}"
        stages = [f"{w}x{s}x{s}" for w, s in zip(g.widths, g.sides[1:], strict=False)]
        steps = [*(stages or map(str, g.widths)), *([str(g.hidden)] if g.hidden else [])]
        z = str(self.settings.latent_dim) + (f"x{g.sides[-1]}x{g.sides[-1]}" if g.spatial else "")
        codes = f", {self.settings.latent.codes} codes" if g.spatial else ""
        return (
            f"{g.name} autoencoder, {self.parameters_count:,} parameters\n"
            f"  encoder     {' -> '.join([image, *steps])}\n"
            f"  latents     {self.family}, {z}{codes}\n"
            f"  decoder     {' -> '.join([z, *reversed(steps), image])}\n"
            f"  likelihood  {type(self.likelihood).__name__}, {self.likelihood.outputs} per pixel"
        )

    @property
    def _continuous(self) -> Continuous:
        if isinstance(self.latent, Continuous):
            return self.latent
        raise TypeError(f"{self.family} latents have codes, not a density; use codes or quantise")

    @property
    def _codebook(self) -> VQ:
        if isinstance(self.latent, VQ):
            return self.latent
        raise TypeError(f"{self.family} latents have a density, not codes; use posterior")


def _repeated(p: Diagonal, n: int | None) -> Diagonal:
    if n is None:
        return p
    return replace(p, mu=p.mu.expand(n, -1), logvar=p.logvar.expand(n, -1))
