"""Sections evaluate, plots and report."""

from typing import Annotated, Literal, Self

from pydantic import Field, Strict, field_validator, model_validator

from robustvae.errors import did_you_mean
from robustvae.params.base import Natural, Positive, PositiveReal, Settings
from robustvae.params.parts import TABLES, Chosen, Item

Metrics = Annotated[tuple[Annotated[Chosen, Item("metric")], ...], Strict(False)]


Radii = Annotated[tuple[PositiveReal, ...], Strict(False), Field(min_length=1)]
AttackKinds = Annotated[tuple[Literal["output", "latent"], ...], Strict(False), Field(min_length=1)]
MADE = ("noise", "constant", "black", "invert", "shuffle", "flip")  # foreign sets from nothing


class AttackSettings(Settings):
    """How hard an adversary tries."""

    images: Natural
    norm: Literal["l2", "linf"]
    radii: Radii
    steps: Positive
    restarts: Positive
    kinds: AttackKinds

    @model_validator(mode="after")
    def _check(self) -> Self:
        if list(self.radii) != sorted(set(self.radii)):
            raise ValueError(f"radii: must rise, got {list(self.radii)}")
        return self


class SampleSettings(Settings):
    """How many samples are judged, and the density that is fitted to codes."""

    images: Natural
    components: Positive


class EvaluateSettings(Settings):
    """What is measured, and on how many draws."""

    batch_size: Positive
    elbo_samples: Positive
    iwae_samples: Natural
    iwae_images: Positive | None
    iwae_scale: PositiveReal
    metrics: Metrics
    attacks: AttackSettings
    outliers: Annotated[tuple[str, ...], Strict(False)]
    regret: Natural
    samples: SampleSettings

    @field_validator("outliers")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name in MADE or "/" in name or (name != "folder" and name in TABLES["dataset"]):
                continue
            known = (*MADE, *(other for other in TABLES["dataset"] if other != "folder"))
            raise ValueError(
                f"no set is named {name!r}{did_you_mean(name, known)}; one of "
                f"{', '.join(known)}, or a folder of pictures, written with a /"
            )
        return tuple(dict.fromkeys(names))


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
