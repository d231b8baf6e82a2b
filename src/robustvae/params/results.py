"""Sections evaluate, plots and report."""

from typing import Annotated, Literal

from pydantic import Field, Strict

from robustvae.params.base import Natural, Positive, PositiveReal, Settings
from robustvae.params.parts import Open, Word

Metrics = Annotated[tuple[Annotated[str, Word("metric")], ...], Strict(False)]


class EvaluateSettings(Open):
    """What is measured, and on how many draws."""

    parts, naming = "metric", "metrics"

    batch_size: Positive
    elbo_samples: Positive
    iwae_samples: Natural
    iwae_images: Positive | None
    iwae_scale: PositiveReal
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
