"""Sections run and train."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from robustvae.params.base import (
    Epochs,
    Fraction,
    Natural,
    NonNegativeReal,
    Positive,
    PositiveReal,
    Settings,
    Severity,
)
from robustvae.params.data import CorruptionName


class RunSettings(Settings):
    """Seed, device and threads."""

    seed: Natural
    device: Literal["auto", "cpu", "cuda", "mps"]
    threads: Positive
    deterministic: bool
    # It changes no result, so that no description of a training has it.
    tracker: Annotated[
        Literal["none", "tensorboard", "mlflow"], Field(default="none", exclude=True)
    ]


class SchedulerSettings(Settings):
    """How the learning rate moves."""

    name: Literal["constant", "step", "plateau", "cosine"]
    milestones: Epochs
    monitor: Literal["val_total", "val_recon", "val_divergence", "train_total"]
    patience: Positive
    warmup: Natural

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.name == "step" and not self.milestones:
            raise ValueError("milestones: step needs at least one epoch, e.g. [50, 80], got []")
        return self


class InputNoiseSettings(Settings):
    """Noise on the input during training; the target stays clean."""

    name: Literal["none", "dropout", "gaussian"]
    amount: NonNegativeReal

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.name == "dropout" and self.amount > 1:
            raise ValueError(f"amount: dropout is a probability, 0 .. 1, got {self.amount:g}")
        if self.name == "none" and self.amount:
            raise ValueError(
                f"amount: has no effect with name none, got {self.amount:g}; "
                "set name to dropout or gaussian"
            )
        return self


class MixtureSettings(Settings):
    """Training images replaced by corrupted ones."""

    fraction: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    corruption: CorruptionName
    severity: Severity | Literal["default"]
    target: Literal["clean", "corrupted"]
    source: Literal["generate", "official"]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.source == "official" and self.severity != "default":
            raise ValueError(
                "severity: the official archive holds the default severities only; use default"
            )
        return self


class TrainSettings(Settings):
    """The optimisation."""

    epochs: Positive
    batch_size: Positive
    lr: PositiveReal
    optimizer: Literal["adam", "adamw"]
    weight_decay: NonNegativeReal
    scheduler: SchedulerSettings
    early_stopping: Positive | None
    grad_clip: PositiveReal | Literal["auto"] | None
    beta_warmup: Natural
    input_noise: InputNoiseSettings
    mixture: MixtureSettings
    ema: Fraction | None
    precision: Literal["auto", "fp32", "bf16"]
    compile: Literal["auto", "on", "off"]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.scheduler.name == "cosine" and self.scheduler.warmup >= self.epochs:
            raise ValueError(
                f"scheduler.warmup: must be below train.epochs ({self.epochs}), "
                f"got {self.scheduler.warmup}"
            )
        return self
