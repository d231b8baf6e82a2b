"""What params.yaml may say: a frozen model per section, with ranges and rules beside the fields."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, model_validator

from robustvae.errors import UserError
from robustvae.params.mistakes import lines
from robustvae.params.yaml12 import read

DatasetName = Literal[
    "digits", "mnist", "fashion-mnist", "kmnist", "cifar10", "cifar100", "celeba", "folder"
]
CorruptionName = Literal[
    # MNIST-C
    "shot_noise",
    "impulse_noise",
    "glass_blur",
    "motion_blur",
    "shear",
    "scale",
    "rotate",
    "brightness",
    "translate",
    "stripe",
    "fog",
    "spatter",
    "dotted_line",
    "zigzag",
    "canny_edges",
    # extras
    "gaussian_noise",
    "speckle_noise",
    "gaussian_blur",
    "defocus_blur",
    "zoom_blur",
    "snow",
    "contrast",
    "saturate",
    "jpeg_compression",
    "pixelate",
    "elastic_transform",
    "quantize",
    "line",
    "inverse",
]
MetricName = Literal["e_den", "e_self", "e_stab", "ssim_den", "delta_elbo", "drift", "skl", "probe"]

# Side in pixels and channels of each data set as it comes (CelebA: as it is customarily resized).
NATIVE: dict[str, tuple[int, int] | None] = {
    "digits": (28, 1),
    "mnist": (28, 1),
    "fashion-mnist": (28, 1),
    "kmnist": (28, 1),
    "cifar10": (32, 3),
    "cifar100": (32, 3),
    "celeba": (64, 3),
    "folder": None,
}

Natural = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
PositiveReal = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeReal = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Severity = Annotated[int, Field(ge=1, le=5)]


# YAML has lists, not tuples: strictness is lifted for the outer type only.
Numbers = Annotated[tuple[Finite, ...], Strict(False), Field(min_length=1)]
Widths = Annotated[tuple[Positive, ...], Strict(False), Field(min_length=1)]
Epochs = Annotated[tuple[Positive, ...], Strict(False)]
Severities = Annotated[tuple[Severity, ...], Strict(False), Field(min_length=1)]
Corruptions = Annotated[tuple[CorruptionName, ...], Strict(False), Field(min_length=1)]
Metrics = Annotated[tuple[MetricName, ...], Strict(False)]


class Settings(BaseModel):
    """Base of the sections: every key is required; unknown keys and conversions are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class RunSettings(Settings):
    """Seed, device and threads."""

    seed: Natural
    device: Literal["auto", "cpu", "cuda", "mps"]
    threads: Positive
    deterministic: bool


class DataSettings(Settings):
    """Which images, and where they come from."""

    name: DatasetName
    root: str
    mirror: str | None
    limit: Positive | None
    skip_bad: bool


class PreprocessSettings(Settings):
    """Geometry, splits and binarisation."""

    image_size: Annotated[int, Field(ge=8, le=512)] | Literal["auto"]
    channels: Literal[1, 3, "auto"]
    crop: Annotated[int, Field(ge=8)] | Literal["auto"]
    val_fraction: Fraction
    test_fraction: Fraction
    split_seed: Natural
    binarize: Literal["none", "threshold", "static", "dynamic"]
    threshold: Fraction


class CorruptionSettings(Settings):
    """Which corrupted test sets."""

    source: Literal["generate", "official"]
    names: Corruptions
    severities: Literal["default"] | Severities
    seed: Natural

    @model_validator(mode="after")
    def _check(self) -> Self:
        for key in ("names", "severities"):
            values = getattr(self, key)
            twice = [v for v in values if values.count(v) > 1] if values != "default" else []
            if twice:
                raise ValueError(f"{key}: {twice[0]} stands there twice; remove one")
        if self.source == "official" and self.severities != "default":
            raise ValueError(
                "severities: the official archive holds the default severities only; use default"
            )
        return self


class ArchitectureSettings(Settings):
    """Encoder and decoder nets; null means the preset's own value."""

    name: Literal["conv", "small", "wide", "resnet", "mlp"]
    channels: Widths | None
    depth: Positive | None
    max_filters: Positive | None
    hidden: Natural | None
    activation: Literal["auto", "relu", "leaky_relu", "elu", "silu", "tanh"]


class LikelihoodSettings(Settings):
    """How an image is scored."""

    name: Literal["bernoulli", "gaussian", "student_t"]
    variance: Literal["fixed", "scalar", "per_pixel"]
    sigma: PositiveReal


class LatentSettings(Settings):
    """What z is."""

    name: Literal["auto", "vq"]
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


class LossSettings(Settings):
    """The divergence and its weight."""

    divergence: Literal["auto", "alpha", "renyi", "gamma", "t3"]
    alpha: Finite | None
    beta: NonNegativeReal
    df: Finite
    capacity: CapacitySettings
    prior: PriorSettings

    @property
    def kind(self) -> Literal["alpha", "renyi", "gamma", "t3"]:
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
        if self.divergence in ("alpha", "renyi") and self.df > 0:
            raise ValueError(
                f"divergence: {self.divergence} needs loss.df 0 (Gaussian latents), got {self.df:g}"
            )
        if self.divergence in ("gamma", "t3") and self.df == 0:
            raise ValueError(f"divergence: {self.divergence} needs loss.df > 2, got {self.df:g}")
        if self.df > 2 and self.order != 1:
            raise ValueError(
                "alpha: has no effect when loss.df > 2; remove one of them "
                f"(got alpha {self.order}, df {self.df})"
            )
        if self.kind == "renyi" and self.order <= 0:
            raise ValueError(
                f"alpha: must be > 0 for renyi (the divergence vanishes at 0), got {self.order:g}"
            )
        if self.capacity.weight is not None and (
            self.kind != "alpha" or self.order != 1 or self.beta != 1
        ):
            raise ValueError(
                "capacity: defined for KL only: it needs loss.alpha 1, loss.df 0 and loss.beta 1 "
                f"(got alpha {self.order:g}, df {self.df:g}, beta {self.beta:g})"
            )
        return self


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


class EvaluateSettings(Settings):
    """What is measured, and on how many draws."""

    batch_size: Positive
    elbo_samples: Positive
    iwae_samples: Natural
    iwae_images: Positive | None
    bootstrap: Natural
    metrics: Metrics


class PlotSettings(Settings):
    """How the figures look."""

    examples: Annotated[int, Field(ge=1, le=32)]
    dpi: Annotated[int, Field(ge=50, le=600)]
    vector: Literal["svg", "pdf", "none"]
    qq_panels: Positive
    steps: Annotated[int, Field(ge=3)]


class ReportSettings(Settings):
    """The page."""

    title: str


class Params(Settings):
    """All of params.yaml."""

    run: RunSettings
    data: DataSettings
    preprocess: PreprocessSettings
    corruptions: CorruptionSettings
    model: ModelSettings
    loss: LossSettings
    train: TrainSettings
    evaluate: EvaluateSettings
    plots: PlotSettings
    report: ReportSettings

    @property
    def side(self) -> int | None:
        """Side of the prepared images in pixels; None where a folder of images does not say it."""
        size, native = self.preprocess.image_size, NATIVE[self.data.name]
        return size if size != "auto" else native and native[0]


def load(path: str | Path = "params.yaml") -> Params:
    """Parse and check the whole file; every mistake becomes one line of a single UserError."""
    return check(read(path), Path(path).name)


def check(content: dict[str, Any], source: str = "params.yaml") -> Params:
    """Typed settings from plain values; `source` names them in messages."""
    from robustvae.params.rules import broken  # which needs the sections above

    try:
        settings = Params.model_validate(content)
        found = broken(settings)
    except ValidationError as error:
        found = lines(error, Params)
    if found:
        raise UserError("\n".join(f"{source}: {line}" for line in found))
    return settings
