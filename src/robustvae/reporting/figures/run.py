"""What there is to draw of a run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustvae.models.autoencoder import Autoencoder
from robustvae.params import PlotSettings
from robustvae.reporting.figures import charts
from robustvae.reporting.figures.pictures import Images
from robustvae.robustness.quantiles import Law

Array = NDArray[Any]


@dataclass(frozen=True)
class Run:
    """What there is to draw, as the stages before plot wrote it."""

    name: str  # of the data set
    own: Autoencoder | None  # one of our models; None: anyone's, which gives images back
    reconstruct: Callable[[Tensor], Tensor]
    generate: Callable[[int], Tensor] | None  # mean images, where it can
    score: str  # what the ROC curves are of
    seed: int
    settings: PlotSettings
    clean: Images  # test images as the model sees them, [N, C, H, W]
    sets: list[dict[str, Any]]  # name, severity, group, default of each corrupted test set
    corrupted: Mapping[str, Images]  # by key
    labels: Array  # [N], -1: unlabelled
    classes: list[str]
    history: pd.DataFrame | None  # None: it was trained elsewhere
    table: pd.DataFrame  # robustness.csv
    latents: Mapping[str, Array]
    scores: Mapping[str, Array]
    outliers: Mapping[str, Array] = field(default_factory=dict)  # empty: none were trained on
    trained: Images | None = None  # images to train on, outliers among them
    attack: Mapping[str, Array] = field(default_factory=dict)  # empty: not measured
    foreign: Mapping[str, Array] = field(default_factory=dict)
    sample: Mapping[str, Array] = field(default_factory=dict)
    strip: Mapping[str, Array] = field(default_factory=dict)  # validation images while training

    @property
    def model(self) -> Autoencoder:
        """Our model, for figures of which the table says that they need one."""
        assert self.own is not None
        return self.own

    @property
    def n(self) -> str:
        """Number of test images, for a note."""
        return f"n = {len(self.clean):,} test images"

    @property
    def shown(self) -> list[dict[str, Any]]:
        """One set per corruption, by group: MNIST-C's own severity, or else the strongest."""
        rising = sorted(self.sets, key=lambda item: (item["default"], item["severity"]))
        best = {item["name"]: item for item in rising}  # the last of a name stays
        first = dict.fromkeys(item["name"] for item in self.sets)
        return sorted((best[name] for name in first), key=lambda item: charts.rank(item["group"]))

    @property
    def several(self) -> bool:
        """Does a corruption have more than one severity?"""
        return len(self.sets) > len(self.shown)

    def rows(self, method: str) -> pd.DataFrame:
        """The rows of the table for the sets shown, in their order."""
        table = self.table[self.table["method"] == method].set_index(["corruption", "severity"])
        wanted = [(item["name"], item["severity"]) for item in self.shown]
        return table.reindex(wanted).reset_index()

    def law(self, dim: int) -> Law:
        """Marginal of the law that new latents are drawn from."""
        p = self.model.generating_prior()
        return Law(float(p.mu[dim]), float(torch.exp(p.logvar[dim] / 2)), getattr(p, "df", 0.0))

    def note(self, *parts: str) -> str:
        """The line below a title."""
        return " · ".join([self.name, *parts])


def label(item: Mapping[str, Any]) -> str:
    """A set's name for people."""
    return f"{item['name']} {item['severity']}".replace("_", " ")


def key(item: Mapping[str, Any]) -> str:
    """A set's name in files."""
    return f"{item['name']}-{item['severity']}"
