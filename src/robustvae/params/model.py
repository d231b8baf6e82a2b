"""Sections model and loss."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from robustvae.params.base import (
    Finite,
    Fraction,
    Natural,
    NonNegativeReal,
    Numbers,
    Positive,
    PositiveReal,
    Settings,
    Widths,
)
from robustvae.params.parts import Open, Word, fact


class ArchitectureSettings(Open):
    """Encoder and decoder nets; null means the preset's own value."""

    parts = "net"

    name: Annotated[str, Word("net")]
    channels: Widths | None
    depth: Positive | None
    max_filters: Positive | None
    hidden: Natural | None
    activation: Literal["auto", "relu", "leaky_relu", "elu", "silu", "tanh"]


class LikelihoodSettings(Open):
    """How an image is scored."""

    parts = "likelihood"

    name: Annotated[str, Word("likelihood")]
    variance: Literal["fixed", "scalar", "per_pixel"]
    sigma: PositiveReal
    df: PositiveReal | None


class LatentSettings(Open):
    """What z is."""

    parts = "latent"

    name: Annotated[str, Word("latent")]
    codes: Annotated[int, Field(ge=2)]
    update: Literal["ema", "gradient"]
    decay: Fraction
    commitment: NonNegativeReal


class ModelSettings(Settings):
    """The autoencoder's parts."""

    latent_dim: Positive
    architecture: ArchitectureSettings
    likelihood: LikelihoodSettings
    latent: LatentSettings
    logvar_bound: PositiveReal | Literal["auto"] | None


class CapacitySettings(Settings):
    """Capacity annealing, in nats of KL."""

    weight: PositiveReal | None
    start: NonNegativeReal
    max: NonNegativeReal
    steps: Positive

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max < self.start:
            raise ValueError(f"max: must be >= start, got max {self.max:g}, start {self.start:g}")
        return self


def flat(value: float | tuple[float, ...]) -> tuple[float, ...]:
    """One number or several, always as a tuple."""
    return value if isinstance(value, tuple) else (value,)


class PriorSettings(Settings):
    """Location and log-variance of the prior: one number, or one per latent dimension."""

    mu: Finite | Numbers
    logvar: Finite | Numbers

    @property
    def standard(self) -> bool:
        """Is it the standard normal (or standard Student-t) law?"""
        return not any(flat(self.mu) + flat(self.logvar))


class RobustSettings(Open):
    """What an image's loss counts for in its batch."""

    parts = "robust"

    name: Annotated[str, Word("robust", "none")]
    strength: PositiveReal | None
    after: NonNegativeReal

    @property
    def weighs(self) -> bool:
        """Does it weigh the images of a batch against each other?"""
        return self.name != "none" and bool(fact("robust", self.name, "weighs"))

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.name == "none" and self.strength is not None:
            raise ValueError(
                f"strength: has no effect with name none, got {self.strength:g}; use null, or set "
                "name to trimmed, rejected, huber, welsch or beta"
            )
        if self.name != "none" and self.strength is None:
            hint = fact("robust", self.name, "strength")
            raise ValueError(f"strength: {self.name} needs one, got null; {hint}")
        if self.name == "trimmed" and self.strength is not None and self.strength >= 1:
            raise ValueError(f"strength: trimmed leaves out a share < 1, got {self.strength:g}")
        return self


class LossSettings(Open):
    """The divergence and its weight."""

    parts, naming = "divergence", "divergence"

    divergence: Annotated[str, Word("divergence", "auto")]
    alpha: Finite | None
    beta: NonNegativeReal
    df: Finite
    robust: RobustSettings
    capacity: CapacitySettings
    prior: PriorSettings

    @property
    def kind(self) -> str:
        """The divergence that `auto` stands for: alpha, or gamma where df > 2."""
        if self.divergence == "auto":
            return "gamma" if self.df > 0 else "alpha"
        return self.divergence

    @property
    def order(self) -> float:
        """Order alpha; 1 where it is not set."""
        return 1.0 if self.alpha is None else self.alpha

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.df != 0 and self.df <= 2:
            raise ValueError(
                f"df: 0 switches it off; otherwise must be > 2 (second moments), got {self.df:g}"
            )
        if self.df > 1e8:
            raise ValueError(f"df: must be <= 1e8, got {self.df:g}; use 0 for the Gaussian limit")
        heavy = fact("divergence", self.kind, "student_t")
        if self.df > 0 and not heavy:
            raise ValueError(
                f"divergence: {self.divergence} needs loss.df 0 (Gaussian latents), got {self.df:g}"
            )
        if self.df == 0 and heavy:
            raise ValueError(f"divergence: {self.divergence} needs loss.df > 2, got {self.df:g}")
        if self.df > 2 and self.order != 1:
            raise ValueError(
                "alpha: has no effect when loss.df > 2; remove one of them "
                f"(got alpha {self.order}, df {self.df})"
            )
        if self.order != 1 and not heavy and "alpha" not in fact("divergence", self.kind, "takes"):
            raise ValueError(
                f"alpha: has no effect with {self.kind}; use 1 or null, got {self.order:g}"
            )
        if self.kind == "renyi" and self.order <= 0:
            raise ValueError(
                f"alpha: must be > 0 for renyi (the divergence vanishes at 0), got {self.order:g}"
            )
        if self.capacity.weight is not None and self.robust.name != "none":
            raise ValueError(
                "robust.name: capacity annealing is defined for means over a batch; use none, or "
                f"loss.capacity.weight null (got {self.robust.name})"
            )
        if self.capacity.weight is not None and (
            self.kind != "alpha" or self.order != 1 or self.beta != 1
        ):
            raise ValueError(
                "capacity: defined for KL only: it needs loss.alpha 1, loss.df 0 and loss.beta 1 "
                f"(got alpha {self.order:g}, df {self.df:g}, beta {self.beta:g})"
            )
        return self
