"""Robust objectives: what an image's loss counts for in its batch. Nothing here knows a model."""

import math

import torch
from torch import Tensor

from robustvae.params import RobustSettings

LEAST = 16  # images in a batch: of fewer, median and spread say little
SPREAD = 1.4826  # standard deviations in a median absolute deviation of a normal law
SMALLEST = 1e-6  # of the median, or 1: the spread is not taken to be less


def weights(robust: RobustSettings, losses: Tensor) -> Tensor:
    """What each image of a batch counts for, [B], from its loss; without gradient.

    trimmed: the largest share c not at all. With median m and spread s (1.4826 median |d - m|) of
    the losses d, and one-sided, since an image that is easier than the rest is no outlier:
    rejected: not at all above m + c s; huber: min(1, c s / max(d - m, c s)); welsch:
    exp(-u^2 / 2), u = max(0, d - m) / (c s).
    """
    assert robust.strength is not None
    d, c = losses.detach(), robust.strength
    if robust.name == "trimmed":
        kept = len(d) - math.floor(c * len(d) + 1e-9)
        found = torch.zeros_like(d)
        return found.index_fill(0, d.argsort(stable=True)[:kept], 1.0)
    m = _median(d)
    s = SPREAD * _median((d - m).abs())
    s = c * torch.maximum(s, SMALLEST * m.abs().clamp(min=1))
    over = (d - m).clamp(min=0)
    if robust.name == "rejected":
        return (d <= m + s).to(d.dtype)
    if robust.name == "huber":
        return (s / torch.maximum(over, s)).clamp(max=1)
    return (-0.5 * (over / s).square()).exp()


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
