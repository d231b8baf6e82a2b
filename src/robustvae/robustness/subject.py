"""What is measured: our own models, and anyone's that gives images back."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from robustvae.models.autoencoder import Autoencoder
from robustvae.models.distributions import Diagonal, DiagStudentT
from robustvae.robustness import bounds, collapse
from robustvae.robustness.batches import each, pixels
from robustvae.robustness.bounds import Draws

POOLED = 4  # side to which the probe pools codewords (vq)
SKL_PAIRS = 4  # mirrored pairs of draws for the symmetric KL of Student-t posteriors


@dataclass(frozen=True)
class Seen:
    """What a model makes of a batch."""

    x_hat: Tensor  # [B, C, H, W], deterministic
    q: Diagonal | None = None  # posteriors, where there are any
    code: Tensor | None = None  # [B, Z], their location, or a code without a law
    features: Tensor | None = None  # [B, F], for the probe


class Subject(Protocol):
    """Anything that can be measured."""

    device: torch.device
    alone: bool  # must batches come one after the other?
    spread: Tensor | None  # variance of each latent's mean over the clean test images
    mirrored: Tensor | None  # [K, N, Z], draws in pairs for the symmetric KL of Student-t

    def see(self, x: Tensor) -> Seen:
        """Codes and reconstructions of a batch."""

    def score(self, x: Tensor, seen: Seen, where: slice) -> Callable[[], Tensor] | None:
        """How unlikely the images are, [B]: larger is less likely; None: it cannot tell."""


def see(model: Autoencoder, x: Tensor) -> Seen:
    """Encode, and decode the posterior mean (vq: the codewords)."""
    if model.family == "vq":
        z = model.quantise(x)
        pooled = F.adaptive_avg_pool2d(z, min(POOLED, z.shape[-1])).flatten(1)
        return Seen(model.likelihood.mean(model.decode(z)), features=pooled)
    q = model.posterior(x)
    return Seen(model.likelihood.mean(model.decode(q.mean)), q, q.mu, q.mean)


def features(
    model: Autoencoder, images: NDArray[np.uint8], q: Diagonal | None, size: int
) -> NDArray[np.float64]:
    """What the probe sees of images with posteriors q (None: vq), [N, F]."""
    if q is not None:
        return q.mean.cpu().double().numpy()
    parts = each(lambda w: see(model, pixels(model, images, w)).features, len(images), size)
    return torch.cat([part.cpu() for part in parts if part is not None]).double().numpy()


class Own:
    """One of our models, of which q are the posteriors of the clean test images (None: vq)."""

    alone = False

    def __init__(self, model: Autoencoder, q: Diagonal | None, draws: Draws) -> None:
        self.model, self.device = model, next(model.parameters()).device
        self.spread = None if q is None else collapse.spread(q)
        # [N, Z], what an image and its corruptions share for the ELBO
        self.noise = None if q is None else draws.standard(q, "score")
        self.mirrored = None
        if isinstance(q, DiagStudentT):
            pairs = [draws.standard(q, "skl", k) for k in range(SKL_PAIRS)]
            one_side = torch.stack(pairs)
            self.mirrored = torch.cat([one_side, -one_side])

    def see(self, x: Tensor) -> Seen:
        """As the function."""
        return see(self.model, x)

    def score(self, x: Tensor, seen: Seen, where: slice) -> Callable[[], Tensor]:
        """The negative ELBO."""
        noise = None if self.noise is None else self.noise[where]
        return partial(bounds.score, self.model, x, seen.q, noise)

    def missing(self, binary: bool) -> dict[str, str]:
        """Quantities that it has not, and why; `binary`: are the pixels?"""
        found: dict[str, str] = {}
        if self.spread is None:
            found |= dict.fromkeys(("drift", "skl"), "vq: codes have no posterior density")
        elif not self.spread.any():
            found["drift"] = "no latent dimension is active"
        proper = self.model.likelihood.proper(binary)
        reason = bounds.no_elbo(self.model) if proper else bounds.IMPROPER
        if reason is not None:  # the scores still rank images, their mean means nothing
            found |= dict.fromkeys(("neg_elbo", "delta_elbo"), reason)
        return found
