"""Divergences of a posterior q from a prior p: nats per sample, summed over Z."""

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields, make_dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from robustvae.errors import UserError
from robustvae.models import divergence_errors as errors
from robustvae.models.catalogue import DIVERGENCES
from robustvae.models.distributions import DiagNormal, Diagonal, DiagStudentT, wide
from robustvae.models.distributions import log_student_constant as log_constant
from robustvae.params import LossSettings

MARGIN = 0.05  # of logvar_bound: auto, in log-variance, to the edge of the finite region


_checks: ContextVar[list[Tensor] | None] = ContextVar("checks", default=None)


@contextmanager
def deferred() -> Iterator[list[Tensor]]:
    """Inside, no value raises or is read: what is finite only if all is well is put into a list."""
    checks: list[Tensor] = []
    token = _checks.set(checks)
    try:
        yield checks
    finally:
        _checks.reset(token)


@dataclass(frozen=True)
class Divergence(ABC):
    """D(q, p) -> [B], >= 0, and 0 exactly at q = minimum(p).

    Values that are no number raise, unless `strict` is off: then infinite ones are returned as inf.
    """

    strict: bool = field(default=True, kw_only=True)

    @abstractmethod
    def formula(self, mu: Tensor, logvar: Tensor, mu0: Tensor, logvar0: Tensor) -> Tensor:
        """Values [B] of q = (mu, logvar), p = (mu0, logvar0); inf or NaN where infinite."""

    def posterior(self, mu: Tensor, logvar: Tensor) -> Diagonal:
        """What the encoder's two outputs [B, Z] stand for."""
        return DiagNormal(mu, logvar)

    def prior(self, mu: Tensor, logvar: Tensor) -> Diagonal:
        """Prior of the generative model."""
        return DiagNormal(mu, logvar)

    def minimum(self, p: Diagonal) -> Diagonal:
        """The posterior that costs nothing, from which new samples are drawn."""
        return p

    def stats(self, values: Tensor) -> dict[str, Tensor]:
        """What is logged at each step beside the values [B]."""
        if self.strict:
            return {}
        return {"divergence_infinite_fraction": values.isinf().float().mean()}

    def __call__(self, q: Diagonal, p: Diagonal) -> Tensor:
        """Values [B], differentiable in q."""
        inputs = _inputs(q, p)
        with torch.autocast(q.mu.device.type, enabled=False):
            values = self.formula(*inputs)
        out = values.to(torch.promote_types(q.mu.dtype, torch.float32))
        # 0 * inf and 0 * nan are nan, which compares false: one number, one synchronisation.
        with torch.no_grad():
            latents = 0 * (inputs[0].sum() + inputs[1].sum())
            probe = values.sum() + latents
        if (checks := _checks.get()) is not None:
            checks.append((probe if self.strict else latents).to(out.dtype))
            return out if self.strict else out.detach().nan_to_num(nan=math.inf, posinf=math.inf)
        if probe.item() <= torch.finfo(out.dtype).max:
            return out
        _refuse_non_finite(q)
        if not self.strict:
            return out.detach().nan_to_num(nan=math.inf, posinf=math.inf)
        self.refuse_infinite(*inputs)
        rows = (~out.isfinite()).nonzero().flatten().tolist() or [int(out.argmax())]
        size = self.size(*(t.expand(inputs[0].shape)[rows[0]] for t in inputs))
        raise errors.DivergenceOverflowError(rows, size, q.mu.shape[-1], out.dtype)

    def evaluate(self, q: Diagonal, p: Diagonal) -> tuple[Tensor, Tensor]:
        """Values [B] in float64, and the mask [B] of those that are infinite or beyond float64."""
        _refuse_non_finite(q)
        with torch.no_grad():
            values = self.formula(*_inputs(q, p))
        infinite = ~values.isfinite()
        return values.masked_fill(infinite, math.inf), infinite

    def refuse_infinite(self, mu: Tensor, logvar: Tensor, mu0: Tensor, logvar0: Tensor) -> None:
        """Raise DivergenceInfiniteError where the definition, not the number type, says so."""
        return

    def size(self, mu: Tensor, logvar: Tensor, mu0: Tensor, logvar0: Tensor) -> str:
        """What makes one sample's value so large and what to do, for the message of an overflow."""
        return (
            f"largest |mu| {mu.abs().max().item():.6g}, |logvar| {logvar.abs().max().item():.6g}; "
            "set model.logvar_bound or lower train.lr"
        )


def kl(mu: Tensor, logvar: Tensor, mu0: Tensor, logvar0: Tensor) -> Tensor:
    """KL(q || p) of diagonal normals, per dimension: [B, Z]."""
    ratio = logvar - logvar0
    return 0.5 * (torch.expm1(ratio) - ratio + (mu - mu0).square() * (-logvar0).exp())


@dataclass(frozen=True)
class Alpha(Divergence):
    r"""Alpha-divergence of normals: KL(q || p) at alpha = 1, KL(p || q) at 0.

    .. math:: \frac{1 - \int q^\alpha p^{1 - \alpha} dz}{\alpha (1 - \alpha)}

    Bounded by :math:`1 / (\alpha (1 - \alpha))` for 0 < alpha < 1; outside [0, 1] infinite where
    :math:`(1 - \alpha) v_q + \alpha v_p \le 0` in any dimension.
    """

    alpha: float

    @override
    def formula(self, mu: Tensor, logvar: Tensor, mu0: Tensor, logvar0: Tensor) -> Tensor:
        if self.alpha == 1:
            return kl(mu, logvar, mu0, logvar0).sum(-1)
        if self.alpha == 0:
            return kl(mu0, logvar0, mu, logvar).sum(-1)
        log_integral = self.log_integral(mu, logvar, mu0, logvar0)
        return -torch.expm1(log_integral) / self.alpha / (1 - self.alpha)

    def log_integral(self, mu: Tensor, logvar: Tensor, mu0: Tensor, logvar0: Tensor) -> Tensor:
        r"""Log of :math:`\int q^\alpha p^{1 - \alpha} dz`, [B]; alpha is neither 0 nor 1."""
        excess = self.excess(logvar, logvar0)
        small, ratio, nearer = 1 - self.alpha, logvar - logvar0, logvar0
        if self.alpha < 0.5:  # the integral stays when q and p, alpha and 1 - alpha change places
            small, ratio, nearer = self.alpha, -ratio, logvar
        distance = small * (1 - small) * (mu - mu0).square() * (-nearer).exp() / (1 + excess)
        return 0.5 * (small * ratio - torch.log1p(excess) - distance).sum(-1)

    def excess(self, logvar: Tensor, logvar0: Tensor) -> Tensor:
        r"""V / v - 1, [B, Z], for :math:`V = (1 - \alpha) v_q + \alpha v_p`; infinite where <= -1.

        v is what V tends to at the nearer of alpha = 1 and alpha = 0, so that nothing cancels.
        """
        if self.alpha < 0.5:
            return self.alpha * torch.expm1(logvar0 - logvar)
        return (1 - self.alpha) * torch.expm1(logvar - logvar0)

    @override
    def stats(self, values: Tensor) -> dict[str, Tensor]:
        """Adds the batch mean of the integral, for 0 < alpha < 1: near 0 the gradient is gone."""
        if not 0 < self.alpha < 1:
            return super().stats(values)
        saturation = 1 - self.alpha * (1 - self.alpha) * values.detach().mean()
        return {**super().stats(values), "alpha_saturation": saturation}

    @override
    def refuse_infinite(self, mu: Tensor, logvar: Tensor, mu0: Tensor, logvar0: Tensor) -> None:
        infinite = self.excess(logvar, logvar0) <= -1
        if infinite.any():
            vp = logvar0.exp().expand(infinite.shape)
            raise errors.DivergenceInfiniteError(self.alpha, logvar.exp(), vp, infinite)

    @override
    def size(self, mu: Tensor, logvar: Tensor, mu0: Tensor, logvar0: Tensor) -> str:
        if self.alpha in (0, 1):
            return super().size(mu, logvar, mu0, logvar0)
        log_integral = self.log_integral(mu, logvar, mu0, logvar0).item()
        return (
            f"L = log of the integral of q^alpha p^(1-alpha) = {log_integral:.6g}; "
            "lower train.lr, or take loss.divergence: renyi or loss.alpha in [0, 1]; "
            "model.logvar_bound bounds no mean"
        )


@dataclass(frozen=True)
class Renyi(Alpha):
    r"""Rényi divergence of order alpha > 0 of normals; KL(q || p) at alpha = 1.

    .. math:: \tfrac{1}{\alpha - 1} \log \int q^\alpha p^{1 - \alpha} dz

    Infinite where the alpha-divergence is. Near q = p it is alpha times KL.
    """

    @override
    def formula(self, mu: Tensor, logvar: Tensor, mu0: Tensor, logvar0: Tensor) -> Tensor:
        if self.alpha == 1:
            return kl(mu, logvar, mu0, logvar0).sum(-1)
        return self.log_integral(mu, logvar, mu0, logvar0) / (self.alpha - 1)

    @override
    def stats(self, values: Tensor) -> dict[str, Tensor]:
        """Nothing saturates here."""
        return Divergence.stats(self, values)


@dataclass(frozen=True)
class Gamma(Divergence):
    r"""Gamma-divergence (log type, :math:`\gamma = -2 / (df + m)`) of two Student-t of the same df.

    Tends to KL(q || p) of the normals as df grows; at df = 2 the means cost nothing.
    """

    df: float

    @override
    def posterior(self, mu: Tensor, logvar: Tensor) -> Diagonal:
        return DiagStudentT(mu, logvar, self.df)

    @override
    def prior(self, mu: Tensor, logvar: Tensor) -> Diagonal:
        return DiagStudentT(mu, logvar, self.df)

    @override
    def formula(self, mu: Tensor, logvar: Tensor, mu0: Tensor, logvar0: Tensor) -> Tensor:
        ratio, total = logvar - logvar0, self.df + mu.shape[-1]
        distance = (1 - 2 / self.df) * (mu - mu0).square() * (-logvar0).exp()
        spread = (torch.expm1(ratio) + distance).sum(-1) / (total - 2)
        return total / 2 * (torch.log1p(spread) - ratio.sum(-1) / (total - 2))


@dataclass(frozen=True)
class T3(Divergence):
    r"""Regulariser of the t3VAE (arXiv:2312.01133), scaled to tend to KL as df grows.

    q = t(mu, nu/(nu+n) diag exp(encoder logvar), nu + n) for n pixels and a decoder of fixed sigma;
    p is the standard t of df nu, implied by the formula. Zero at t(0, tau^2 I, nu + n).
    On images close to beta = tau^2 with normals, which is logged as `t3_effective_beta`.
    """

    df: float
    latent_dim: int
    data_dim: int
    sigma: float

    @cached_property
    def log_s(self) -> float:
        """Log of s: exp(encoder logvar) = s where nothing is paid."""
        tail = self.df + self.data_dim - 2
        constant = log_constant(self.df, self.data_dim) - self.data_dim * math.log(self.sigma)
        return 2 / tail * (constant + math.log(self.df - 2) - math.log(tail))

    @cached_property
    def shift(self) -> float:
        """Log of nu / (nu + n), which turns the encoder's logvar into that of q's squared scale."""
        return -math.log1p(self.data_dim / self.df)

    @property
    def tau2(self) -> float:
        """Squared scale of the minimum, and of the law that samples are drawn from."""
        return math.exp(self.log_s + self.shift)

    @override
    def posterior(self, mu: Tensor, logvar: Tensor) -> Diagonal:
        return DiagStudentT(mu, logvar + self.shift, self.df + self.data_dim)

    @override
    def prior(self, mu: Tensor, logvar: Tensor) -> Diagonal:
        return DiagStudentT(mu, logvar, self.df)

    @override
    def minimum(self, p: Diagonal) -> Diagonal:
        logvar = torch.full_like(p.logvar, self.log_s + self.shift)
        return DiagStudentT(torch.zeros_like(p.mu), logvar, self.df + self.data_dim)

    @override
    def formula(self, mu: Tensor, logvar: Tensor, mu0: Tensor, logvar0: Tensor) -> Tensor:
        excess = logvar - (self.log_s + self.shift)
        order = self.df + self.data_dim + self.latent_dim - 2
        scale = self.df * math.exp(self.log_s) / (self.df + self.data_dim - 2)
        spread = torch.expm1(excess).sum(-1) - order * torch.expm1(excess.sum(-1) / order)
        return 0.5 * (mu.square().sum(-1) + scale * spread)

    @override
    def stats(self, values: Tensor) -> dict[str, Tensor]:
        """Adds tau^2, the weight at which a Gaussian VAE has nearly this objective."""
        effective = values.new_full((), self.tau2)
        return {**super().stats(values), "t3_effective_beta": effective}


def logvar_bounds(loss: LossSettings) -> tuple[Tensor | None, Tensor | None]:
    """Bounds (low, high), scalar or [Z], between which loss.alpha is finite; None: no bound."""
    if loss.kind not in ("alpha", "renyi") or 0 <= loss.order <= 1:
        return None, None
    edge = torch.as_tensor(loss.prior.logvar) - math.log1p(-1 / loss.order)  # V = 0
    return (None, edge - MARGIN) if loss.order > 1 else (edge + MARGIN, None)


def build(loss: LossSettings, latent_dim: int, data_dim: int, sigma: float) -> Divergence:
    """The divergence that the settings select; an infinite value is no error where beta is 0."""
    values: dict[str, Any] = {
        "alpha": loss.order, "df": loss.df, "strict": loss.beta > 0, "latent_dim": latent_dim,
        "data_dim": data_dim, "sigma": sigma, **loss.own(loss.kind),
    }  # fmt: skip
    kind: type[Divergence] = DIVERGENCES[loss.kind]
    return kind(**{f.name: values[f.name] for f in fields(kind) if f.name in values})


def made(code: Callable[..., Any], **_facts: Any) -> type[Divergence]:
    """A class as it is; a formula as a class with its keywords as fields."""
    if isinstance(code, type):
        return code
    keywords = list(inspect.signature(code).parameters.values())[4:]

    def formula(self: Divergence, *parameters: Tensor) -> Tensor:
        values: Tensor = code(*parameters, **{p.name: getattr(self, p.name) for p in keywords})
        if values.shape != parameters[0].shape[:-1]:
            shapes = [list(t.shape) for t in (parameters[0][..., 0], values)]
            raise UserError(f"divergence {code.__name__}: must give {shapes[0]}, got {shapes[1]}")
        return values

    kind: type[Divergence] = make_dataclass(
        code.__name__, [(p.name, Any, p.default) for p in keywords], bases=(Divergence,),
        frozen=True, kw_only=True, namespace={"formula": formula, "__doc__": code.__doc__},
    )  # fmt: skip
    return kind


def _inputs(q: Diagonal, p: Diagonal) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dtype = wide(q.mu.device)
    return q.mu.to(dtype), q.logvar.to(dtype), p.mu.to(dtype), p.logvar.to(dtype)


def _refuse_non_finite(q: Diagonal) -> None:
    for name, values in (("mu", q.mu), ("logvar", q.logvar)):
        if not values.isfinite().all():
            raise errors.NonFiniteLatentError(name, values)
