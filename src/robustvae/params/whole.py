"""All of params.yaml."""

from robustvae.params.base import Settings
from robustvae.params.data import (
    ContaminationSettings,
    CorruptionSettings,
    DataSettings,
    PreprocessSettings,
)
from robustvae.params.model import LossSettings, ModelSettings
from robustvae.params.parts import fact
from robustvae.params.results import EvaluateSettings, PlotSettings, ReportSettings
from robustvae.params.train import RunSettings, TrainSettings


class Params(Settings):
    """All of params.yaml."""

    run: RunSettings
    data: DataSettings
    preprocess: PreprocessSettings
    contamination: ContaminationSettings
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
        size, native = self.preprocess.image_size, fact("dataset", self.data.name, "native")
        return size if size != "auto" else native and native[0]
