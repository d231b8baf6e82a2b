"""What params.yaml may say: a frozen model per section, with ranges and rules beside the fields."""

from robustvae.params.base import Settings
from robustvae.params.data import (
    ContaminationSettings,
    CorruptionSettings,
    DataSettings,
    PreprocessSettings,
)
from robustvae.params.loading import check, complete, flatten, load, overlay, spellings
from robustvae.params.model import (
    ArchitectureSettings,
    CapacitySettings,
    LatentSettings,
    LikelihoodSettings,
    LossSettings,
    ModelSettings,
    PriorSettings,
    RobustSettings,
    flat,
)
from robustvae.params.results import EvaluateSettings, PlotSettings, ReportSettings
from robustvae.params.rules import cautions
from robustvae.params.train import (
    InputNoiseSettings,
    MixtureSettings,
    RunSettings,
    SchedulerSettings,
    TrainSettings,
)
from robustvae.params.whole import Params
from robustvae.params.yaml12 import read

__all__ = [
    "ArchitectureSettings",
    "CapacitySettings",
    "ContaminationSettings",
    "CorruptionSettings",
    "DataSettings",
    "EvaluateSettings",
    "InputNoiseSettings",
    "LatentSettings",
    "LikelihoodSettings",
    "LossSettings",
    "MixtureSettings",
    "ModelSettings",
    "Params",
    "PlotSettings",
    "PreprocessSettings",
    "PriorSettings",
    "ReportSettings",
    "RobustSettings",
    "RunSettings",
    "SchedulerSettings",
    "Settings",
    "TrainSettings",
    "cautions",
    "check",
    "complete",
    "flat",
    "flatten",
    "load",
    "overlay",
    "read",
    "spellings",
]
