"""Sections data, preprocess and corruptions."""

from typing import Annotated, Literal, Self

from pydantic import Field, Strict, model_validator

from robustvae.params.base import (
    Classes,
    Fraction,
    Natural,
    Positive,
    Settings,
    Severities,
    Severity,
)
from robustvae.params.parts import Open, Word

CorruptionName = Annotated[str, Word("corruption")]
Corruptions = Annotated[tuple[CorruptionName, ...], Strict(False), Field(min_length=1)]


class DataSettings(Settings):
    """Which images, and where they come from."""

    name: Annotated[str, Word("dataset")]
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


class ContaminationSettings(Settings):
    """Outliers among the images to train on."""

    kind: Literal["none", "corruption", "classes", "noise", "invert", "pictures"]
    fraction: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
    names: Corruptions
    severity: Severity | Literal["default"]
    inliers: Classes | None
    root: str
    seed: Natural

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kind == "none" and self.fraction:
            raise ValueError(
                f"fraction: has no effect with kind none, got {self.fraction:g}; set kind to "
                "corruption, classes, noise, invert or pictures"
            )
        if self.kind == "classes" and self.inliers is None:
            raise ValueError("inliers: classes needs the inlying ones, e.g. [3], got null")
        if self.kind != "classes" and self.inliers is not None:
            raise ValueError(
                f"inliers: belongs to kind classes, got {list(self.inliers)} with {self.kind}; "
                "use null"
            )
        return self


class CorruptionSettings(Open):
    """Which corrupted test sets."""

    parts, naming = "corruption", "names"

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
