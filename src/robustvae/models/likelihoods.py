"""How an image x [..., C, H, W] is scored given the decoder's output: log-densities in nats."""

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from robustvae.models.catalogue import LIKELIHOODS
from robustvae.models.distributions import chi_square, log_student_constant, wide
from robustvae.params import LikelihoodSettings, LossSettings

PIXELS = (-3, -2, -1)  # channels, rows, columns
PACE = 20.0
LOGVAR_FLOOR = 2 * math.log(1 / 256)  # one grey level: a density of discrete pixels has no maximum
LOG_2PI = math.log(2 * math.pi)


class Likelihood(nn.Module, ABC):
    """Scores x given `out` [..., outputs * C, H, W] (raw decoder output) and z [..., Z]."""

    outputs = 1  # decoder channels per image channel

    @abstractmethod
    def score(self, x: Tensor, out: Tensor, z: Tensor, dtype: torch.dtype) -> Tensor:
        """Log-density [...], summed over pixels in `dtype`."""

    @abstractmethod
    def sample(self, out: Tensor, z: Tensor) -> Tensor:
        """One image drawn from the density; unbounded for continuous ones."""

    def log_prob(self, x: Tensor, out: Tensor, z: Tensor) -> Tensor:
        """Normalised log-density of each image, [...], in nats, accumulated in float64."""
        return self.score(x, _single(out), z, wide(out.device))

    def distortion(self, x: Tensor, out: Tensor, z: Tensor) -> Tensor:
        """What training minimises, [...], in nats: minus the log-density."""
        out = _single(out)
        return -self.score(x, out, z, out.dtype)

    def standardised(self, x: Tensor, out: Tensor, z: Tensor) -> Tensor | None:
        """Squared residual over its variance, mean over pixels, [...]; None where there is none.

        1 on average where the decoder knows how far it is from the image.
        """
        return None

    def mean(self, out: Tensor) -> Tensor:
        """Mean image, [..., C, H, W], in [0, 1]."""
        return _single(out).sigmoid()

    def power(self, out: Tensor, b: float) -> Tensor:
        """Integral of the density to the power 1 + b over all images, [...], for the beta-ELBO."""
        raise NotImplementedError(type(self).__name__)

    def proper(self, binary: bool) -> bool:
        """Is the value a likelihood of such data (binary or grey)?"""
        return True


class Bernoulli(Likelihood):
    """Independent binary pixels, `out` their logits; on grey pixels only a cross-entropy."""

    @override
    def score(self, x: Tensor, out: Tensor, z: Tensor, dtype: torch.dtype) -> Tensor:
        return (x * out - F.softplus(out)).sum(PIXELS, dtype=dtype)

    @override
    def sample(self, out: Tensor, z: Tensor) -> Tensor:
        return torch.bernoulli(self.mean(out))

    @override
    def power(self, out: Tensor, b: float) -> Tensor:
        white, black = (1 + b) * F.logsigmoid(_single(out)), (1 + b) * F.logsigmoid(-_single(out))
        return torch.logaddexp(white, black).sum(PIXELS).exp()

    @override
    def proper(self, binary: bool) -> bool:
        return binary


class Scaled(Likelihood):
    """Continuous pixels around sigmoid(out) with one scale, fixed or learned.

    A learned log-variance is floor + softplus(raw - floor), raw starting at 0. The one scalar's
    raw is PACE times its parameter: Adam moves a parameter by about lr a step, and the
    log-variance has some five units to go, which would take thousands of steps.
    """

    def __init__(self, variance: str, sigma: float) -> None:
        super().__init__()
        self.variance, self.sigma = variance, sigma
        if variance == "scalar":
            self.raw = nn.Parameter(torch.zeros(()))

    def logvar(self, out: Tensor) -> Tensor:
        """Log of the squared scale."""
        if self.variance == "fixed":
            return out.new_full((), 2 * math.log(self.sigma))
        return _floored(PACE * self.raw)

    @override
    def standardised(self, x: Tensor, out: Tensor, z: Tensor) -> Tensor | None:
        out = _single(out)
        ratio = _square(x, self.mean(out)) * (-self.logvar(out)).exp()
        return ratio.mean(PIXELS, dtype=wide(out.device))


class Gaussian(Scaled):
    """Independent normal pixels; variance fixed, one learned, or per pixel."""

    def __init__(self, variance: str, sigma: float) -> None:
        super().__init__(variance, sigma)
        self.outputs = 2 if variance == "per_pixel" else 1

    @override
    def logvar(self, out: Tensor) -> Tensor:
        """Log-variance of the pixels: a scalar, or [..., C, H, W]."""
        return _floored(out.chunk(2, -3)[1]) if self.outputs == 2 else super().logvar(out)

    @override
    def score(self, x: Tensor, out: Tensor, z: Tensor, dtype: torch.dtype) -> Tensor:
        square, logvar = _square(x, self.mean(out)), self.logvar(out)
        if logvar.dim():
            terms = (square * (-logvar).exp() + logvar).sum(PIXELS, dtype=dtype)
        else:
            terms = square.sum(PIXELS, dtype=dtype) * (-logvar).exp() + _pixels(x) * logvar
        return -0.5 * (terms + _pixels(x) * LOG_2PI)

    @override
    def power(self, out: Tensor, b: float) -> Tensor:
        n = _pixels(out) * b / 2
        value = math.exp(-n * (LOG_2PI + 2 * math.log(self.sigma)) - n / b * math.log1p(b))
        return out.new_full(out.shape[:-3], value, dtype=_single(out).dtype)

    @override
    def mean(self, out: Tensor) -> Tensor:
        out = _single(out)
        return (out.chunk(2, -3)[0] if self.outputs == 2 else out).sigmoid()

    @override
    def sample(self, out: Tensor, z: Tensor) -> Tensor:
        mean = self.mean(out)
        return mean + (0.5 * self.logvar(_single(out))).exp() * torch.randn_like(mean)


class Tailed(Scaled):
    """With df degrees of freedom: what is far off costs little."""

    def __init__(self, variance: str, sigma: float, df: float) -> None:
        super().__init__(variance, sigma)
        self.df = df

    @override
    def standardised(self, x: Tensor, out: Tensor, z: Tensor) -> Tensor | None:
        found = super().standardised(x, out, z)
        # The variance is df / (df - 2) times the squared scale, and infinite up to df 2.
        return None if found is None or self.df <= 2 else found * (self.df - 2) / self.df


class ImageT(Tailed):
    """A multivariate Student-t over all pixels of an image: for images that are far off."""

    @override
    def score(self, x: Tensor, out: Tensor, z: Tensor, dtype: torch.dtype) -> Tensor:
        logvar, n = self.logvar(out), _pixels(x)
        square = _square(x, self.mean(out)).sum(PIXELS, dtype=dtype) * (-logvar).exp()
        tail = 0.5 * (self.df + n) * torch.log1p(square / self.df)
        return log_student_constant(self.df, n) - 0.5 * n * logvar - tail

    @override
    def sample(self, out: Tensor, z: Tensor) -> Tensor:
        mean, df = self.mean(out), self.df
        heavy = (df / chi_square(df, mean.shape[:-3], mean)).sqrt()[..., None, None, None]
        return mean + heavy * (0.5 * self.logvar(_single(out))).exp() * torch.randn_like(mean)


class PixelT(Tailed):
    """Independent Student-t pixels: for pixels that are far off."""

    @override
    def score(self, x: Tensor, out: Tensor, z: Tensor, dtype: torch.dtype) -> Tensor:
        logvar, n = self.logvar(out), _pixels(x)
        square = _square(x, self.mean(out)) * (-logvar).exp()
        tail = 0.5 * (self.df + 1) * torch.log1p(square / self.df).sum(PIXELS, dtype=dtype)
        return n * (log_student_constant(self.df, 1) - 0.5 * logvar) - tail

    @override
    def sample(self, out: Tensor, z: Tensor) -> Tensor:
        mean, df = self.mean(out), self.df
        heavy = (df / chi_square(df, mean.shape, mean)).sqrt()
        return mean + heavy * (0.5 * self.logvar(_single(out))).exp() * torch.randn_like(mean)


class Laplace(Scaled):
    r"""Independent pixels of density :math:`e^{-|x - m| / s} / 2s`, the variance being 2 s^2."""

    @override
    def score(self, x: Tensor, out: Tensor, z: Tensor, dtype: torch.dtype) -> Tensor:
        scale = (0.5 * (self.logvar(out) - math.log(2))).exp()
        far = (x - self.mean(out)).abs().sum(PIXELS, dtype=dtype)
        return -far / scale - _pixels(x) * (2 * scale).log()

    @override
    def sample(self, out: Tensor, z: Tensor) -> Tensor:
        mean = self.mean(out)
        scale = (0.5 * (self.logvar(_single(out)) - math.log(2))).exp()
        u = torch.rand_like(mean) - 0.5  # inverse of the distribution function
        return mean - scale * u.sign() * torch.log1p(-2 * u.abs())


class StudentT(Likelihood):
    r"""Decoder of the t3VAE: multivariate t around sigmoid(out), fixed sigma, df + latent_dim.

    Squared scale :math:`\sigma^2 (\nu + \|z\|^2) / (\nu + m)`.
    """

    def __init__(self, sigma: float, df: float, latent_dim: int) -> None:
        super().__init__()
        self.sigma, self.df, self.latent_dim = sigma, df, latent_dim

    def log_scale2(self, z: Tensor) -> Tensor:
        """Log of the squared scale, [...], for z [..., Z]."""
        spread = torch.log1p(z.square().sum(-1) / self.df)
        return spread + 2 * math.log(self.sigma) - math.log1p(self.latent_dim / self.df)

    @override
    def score(self, x: Tensor, out: Tensor, z: Tensor, dtype: torch.dtype) -> Tensor:
        logvar, n = self.log_scale2(z.to(dtype)), _pixels(x)
        df = self.df + self.latent_dim
        square = _square(x, self.mean(out)).sum(PIXELS, dtype=dtype) * (-logvar).exp()
        tail = 0.5 * (df + n) * torch.log1p(square / df)
        return log_student_constant(df, n) - 0.5 * n * logvar - tail

    @override
    def standardised(self, x: Tensor, out: Tensor, z: Tensor) -> Tensor:
        df, dtype = self.df + self.latent_dim, wide(out.device)
        square = _square(x, self.mean(out)).mean(PIXELS, dtype=dtype)
        return square * (-self.log_scale2(z.to(dtype))).exp() * (df - 2) / df

    @override
    def distortion(self, x: Tensor, out: Tensor, z: Tensor) -> Tensor:
        r""":math:`\tfrac12 \|x - \hat x\|^2 / \sigma^2`, the t3 objective's own term, [...]."""
        return 0.5 / self.sigma**2 * _square(x, self.mean(out)).sum(PIXELS)

    @override
    def sample(self, out: Tensor, z: Tensor) -> Tensor:
        mean, df = self.mean(out), self.df + self.latent_dim
        heavy = df / chi_square(df, z.shape[:-1], mean)
        scale = (self.log_scale2(z).exp() * heavy).sqrt()[..., None, None, None]
        return mean + scale * torch.randn_like(mean)


def build(settings: LikelihoodSettings, loss: LossSettings, latent_dim: int) -> Likelihood:
    """The likelihood that the settings select; t3 brings its own, of the same sigma."""
    fixed = {"variance": settings.variance, "sigma": settings.sigma}
    t3 = loss.kind == "t3"
    values = {**fixed, "df": loss.df if t3 else settings.df, "latent_dim": latent_dim}
    kind: Callable[..., Likelihood] = StudentT if t3 else LIKELIHOODS[settings.name]
    wanted = [p.name for p in inspect.signature(kind).parameters.values() if p.name in values]
    own = {} if t3 else settings.own(settings.name)
    return kind(**{name: values[name] for name in wanted}, **own)


def _floored(raw: Tensor) -> Tensor:
    return LOGVAR_FLOOR + F.softplus(raw - LOGVAR_FLOOR)


def _single(out: Tensor) -> Tensor:
    """At least float32, for outputs computed in half precision."""
    return out.to(torch.promote_types(out.dtype, torch.float32))


def _square(x: Tensor, mean: Tensor) -> Tensor:
    """(x - mean)^2 [..., C, H, W], in one pass."""
    return F.mse_loss(mean, x.expand_as(mean), reduction="none")


def _pixels(x: Tensor) -> int:
    return math.prod(x.shape[-3:])
