"""Diagonal normal and multivariate Student-t: draws, log-densities in nats, moments, quantiles."""

import math
from dataclasses import dataclass

import torch
from scipy import special
from torch import Tensor


def wide(device: torch.device) -> torch.dtype:
    """Widest floating type of a device: float64, or float32 on mps, which has nothing wider."""
    return torch.float32 if device.type == "mps" else torch.float64


def log_student_constant(df: float, dim: int) -> float:
    r"""Log normaliser of the standard t in `dim` dimensions.

    .. math:: \ln\Gamma(\tfrac{k + d}{2}) - \ln\Gamma(\tfrac{k}{2}) - \tfrac{d}{2} \ln(k \pi)

    From df = 200 by Stirling's series of the difference: at df = 1e8 each lgamma is off by 1e-7.
    """
    x, a = df / 2, dim / 2
    if x < 100:
        return math.lgamma(x + a) - math.lgamma(x) - a * math.log(df * math.pi)
    series = [((x + a) ** -n - x**-n) / c for n, c in ((1, 12), (3, -360), (5, 1260))]
    return (x + a - 0.5) * math.log1p(a / x) - a - a * math.log(2 * math.pi) + math.fsum(series)


@dataclass(frozen=True, eq=False)
class DiagNormal:
    """Independent normals; `logvar` is the log of the variance."""

    mu: Tensor  # [..., Z]
    logvar: Tensor  # [..., Z]

    @property
    def mean(self) -> Tensor:
        """Mean, [..., Z]."""
        return self.mu

    @property
    def variance(self) -> Tensor:
        """Variance of each dimension, [..., Z]."""
        return self.logvar.exp()

    def rsample(self, samples: int | None = None) -> Tensor:
        """One reparametrised draw, [..., Z], or `samples` of them, [samples, ..., Z]."""
        noise = torch.randn(_shape(self.mu, samples), dtype=self.mu.dtype, device=self.mu.device)
        return self.mu + (0.5 * self.logvar).exp() * noise

    def log_prob(self, z: Tensor) -> Tensor:
        """Joint log-density over the last axis, [...], float64."""
        mu, logvar, z = _widened(self.mu, self.logvar, z)
        square = (z - mu).square() * (-logvar).exp()
        return -0.5 * (square + logvar + math.log(2 * math.pi)).sum(-1)

    def quantile(self, u: Tensor) -> Tensor:
        """Quantiles of the marginals at probabilities u, which broadcast against mu."""
        standard: Tensor = torch.special.ndtri(u)
        return self.mu + (0.5 * self.logvar).exp() * standard


@dataclass(frozen=True, eq=False)
class DiagStudentT:
    """Multivariate Student-t; `logvar` is the log of the squared scale, not of the variance.

    The dimensions share one chi-square variable: uncorrelated, not independent. df must exceed 2.
    """

    mu: Tensor  # [..., Z]
    logvar: Tensor  # [..., Z]
    df: float

    @property
    def mean(self) -> Tensor:
        """Mean, [..., Z]."""
        return self.mu

    @property
    def variance(self) -> Tensor:
        """Variance of each dimension, [..., Z]: df / (df - 2) times the squared scale."""
        return self.df / (self.df - 2) * self.logvar.exp()

    def rsample(self, samples: int | None = None) -> Tensor:
        """One reparametrised draw, [..., Z], or `samples` of them, [samples, ..., Z]."""
        shape = _shape(self.mu, samples)
        noise = torch.randn(shape, dtype=self.mu.dtype, device=self.mu.device)
        heavy = (self.df / chi_square(self.df, shape[:-1], self.mu)).sqrt().unsqueeze(-1)
        return self.mu + (0.5 * self.logvar).exp() * noise * heavy

    def log_prob(self, z: Tensor) -> Tensor:
        """Joint log-density over the last axis, [...], float64."""
        mu, logvar, z = _widened(self.mu, self.logvar, z)
        dim = z.shape[-1]
        square = ((z - mu).square() * (-logvar).exp()).sum(-1)
        tail = 0.5 * (self.df + dim) * torch.log1p(square / self.df)
        # expand: a scale shared by all dimensions counts once for each
        volume = 0.5 * logvar.expand(*logvar.shape[:-1], dim).sum(-1)
        return log_student_constant(self.df, dim) - volume - tail

    def quantile(self, u: Tensor) -> Tensor:
        """Quantiles of the marginals at probabilities u, which broadcast against mu."""
        standard = torch.as_tensor(special.stdtrit(self.df, u.double().cpu().numpy()))
        return self.mu + (0.5 * self.logvar).exp() * standard.to(self.mu)


Diagonal = DiagNormal | DiagStudentT


def chi_square(df: float, shape: torch.Size | tuple[int, ...], like: Tensor) -> Tensor:
    """Chi-square draws, of the type and device of `like`; mps has no sampler: drawn on the CPU."""
    device = torch.device("cpu") if like.device.type == "mps" else like.device
    half = torch.full(shape, df / 2, dtype=torch.float64, device=device)
    return (2 * torch._standard_gamma(half)).to(like)


def _shape(mu: Tensor, samples: int | None) -> torch.Size:
    return mu.shape if samples is None else torch.Size((samples, *mu.shape))


def _widened(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(t.to(wide(t.device)) for t in tensors)
