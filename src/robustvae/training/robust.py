"""Robust objectives: what an image's loss counts for in its batch. Nothing here knows a model."""

import math

import torch
from torch import Tensor

from robustvae.errors import UserError
from robustvae.params import RobustSettings
from robustvae.training.catalogue import ROBUST

LEAST = 16  # images in a batch: of fewer, median and spread say little
SPREAD = 1.4826  # standard deviations in a median absolute deviation of a normal law
SMALLEST = 1e-6  # of the median, or 1: the spread is not taken to be less


def weights(robust: RobustSettings, losses: Tensor) -> Tensor:
    """What each image of a batch counts for, [B], from its loss; without gradient.

    With median m and spread s (1.4826 median |d - m|) of the losses d, those that look at them do
    so on one side, since an image that is easier than the rest is no outlier.
    """
    own = robust.own(robust.name)
    found = ROBUST[robust.name](losses.detach(), robust.strength, **own)
    if found.shape != losses.shape:
        shapes = list(losses.shape), list(found.shape)
        raise UserError(f"robust {robust.name!r}: must give {shapes[0]}, got {shapes[1]}")
    return found


def trimmed(losses: Tensor, share: float) -> Tensor:
    """The largest share c of a batch not at all."""
    kept = len(losses) - math.floor(share * len(losses) + 1e-9)
    found = torch.zeros_like(losses)
    return found.index_fill(0, losses.argsort(stable=True)[:kept], 1.0)


def rejected(losses: Tensor, strength: float) -> Tensor:
    """Not at all above m + c s."""
    m, s = _located(losses, strength)
    return (losses <= m + s).to(losses.dtype)


def huber(losses: Tensor, strength: float) -> Tensor:
    """min(1, c s / max(d - m, c s))."""
    m, s = _located(losses, strength)
    return (s / torch.maximum((losses - m).clamp(min=0), s)).clamp(max=1)


def welsch(losses: Tensor, strength: float) -> Tensor:
    """exp(-u^2 / 2), u = max(0, d - m) / (c s)."""
    m, s = _located(losses, strength)
    return (-0.5 * ((losses - m).clamp(min=0) / s).square()).exp()


def _located(losses: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """m, and c s."""
    m = _median(losses)
    s = SPREAD * _median((losses - m).abs())
    return m, strength * torch.maximum(s, SMALLEST * m.abs().clamp(min=1))


def bounded(strength: float, recon: Tensor, integral: Tensor) -> Tensor:
    """The beta-ELBO's own term of each image, [B], from minus its log-density l (RVAE).

    (1 + b) / b * (1 - exp(-b l)) + the integral of p^(1 + b): an unlikely image costs no more than
    a bounded amount.
    """
    return (1 + strength) / strength * -torch.expm1(-strength * recon) + integral


def _median(x: Tensor) -> Tensor:
    """The mean of the middle two."""
    ordered = x.sort().values
    return (ordered[(len(x) - 1) // 2] + ordered[len(x) // 2]) / 2
