"""Sections evaluate, plots and report."""

from typing import Annotated, Literal

from pydantic import Field, Strict

from robustvae.params.base import Natural, Positive, PositiveReal, Settings

MetricName = Literal["e_den", "e_self", "e_stab", "ssim_den", "delta_elbo", "drift", "skl", "probe"]

Metrics = Annotated[tuple[MetricName, ...], Strict(False)]


class EvaluateSettings(Settings):
    """What is measured, and on how many draws."""

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
