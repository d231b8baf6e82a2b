"""Everything that is measured of one model, put together: numbers, tables, arrays for figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from robustvae.data.prepared import SPLITS
from robustvae.models.autoencoder import Autoencoder
from robustvae.params import EvaluateSettings
from robustvae.robustness import bounds, collapse, measure, table
from robustvae.robustness.bounds import Draws
from robustvae.robustness.metrics import Probe
from robustvae.robustness.subject import Own, Subject, features
from robustvae.runtime import distributed
from robustvae.runtime.progress import say

SHORT = ("elbo", "bits_per_dim")  # of the likelihood, with the bound: what is among the metrics
KEPT = ("neg_elbo", "e_den", "ssim_den")  # quantities whose values per image are kept
CLEAN = {"name": "clean", "corruption": "clean", "group": "clean", "severity": 0, "default": True}
HALF = float(np.finfo(np.float16).max)
Images = NDArray[np.uint8]
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Material:
    """What a model is measured on; the images are as it sees them, black and white or grey."""

    splits: Mapping[str, Images]  # test; perhaps train and val
    sets: dict[str, Images]  # test images: clean, then every corrupted set by name
    listed: Sequence[table.Labels]  # what rows of the table say of each set
    mean_image: NDArray[np.float32]  # [C, H, W], of the training images
    labels: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)  # of test; of train
    binary: bool = False  # are pixels black or white?
    enlarged: bool = False  # were images smaller than they are here?


@dataclass(frozen=True)
class Evaluation:
    """What came of it."""

    metrics: dict[str, Any]
    details: dict[str, Any]  # all that metrics has no room for
    losses: pd.DataFrame
    rows: pd.DataFrame  # the table
    values: table.Columns
    latents: Arrays

    @property
    def scores(self) -> Arrays:
        """What figures need of the values per image."""
        return {
            f"{name}/{quantity}": columns[quantity].astype(np.float32)
            for (name, method), columns in self.values.items()
            for quantity in KEPT
            if method == "model" and quantity in columns
        }


def own(
    model: Autoencoder, material: Material, settings: EvaluateSettings, seed: int
) -> Evaluation | None:
    """Of one of our models; None in processes that only help."""
    draws, size, images = Draws(seed), settings.batch_size, material.splits
    splits = [name for name in SPLITS if name in images]
    q = {s: bounds.posteriors(model, images[s], size) for s in splits}
    losses = {s: measure.losses(model, images[s], q[s], s, size, draws) for s in splits}
    binary = material.binary
    likelihood = bounds.likelihood(
        model, images["test"], q["test"], binary, settings, draws, material.enlarged
    )
    if likelihood.cost is not None:
        say(f"importance-weighted bound: {1000 * likelihood.cost:.1f} ms per image")
    use, latents = collapse.latents(model, images["test"], q["test"], size, draws)
    seen: Probe | str = "no labelled training images were given"
    if "train" in images and {"train", "test"} <= material.labels.keys():
        codes = partial(features, model, images["train"], q["train"], size)
        labels = material.labels["train"], material.labels["test"]
        seen = measure.fit_probe(codes, *labels, settings)
    subject = Own(model, q["test"], draws)
    found = _robustness(subject, material, seen, subject.missing(binary), settings, seed)
    if distributed.rank() > 0:
        return None
    values, means, rows, reasons = found
    reports = {**losses, "likelihood": likelihood}
    details = {
        "warnings": measure.too_sure(model, losses) + _said(use, reports) + table.warnings(rows),
        "collapse": {"verdict": use.verdict, **use.values},
        "losses": {s: reports[s].content for s in splits},
        "likelihood": likelihood.content,
        **_summaries(values, rows),
        "reasons": reasons | _gone({**reports, "collapse": use}),
        "score": "negative ELBO" if model.likelihood.proper(binary) else "cross-entropy + KL",
    }
    wanted = {*SHORT, bounds.bound_name(settings)}
    short = {name: v for name, v in likelihood.means.items() if name in wanted}
    metrics: dict[str, Any] = {**{s: losses[s].means for s in splits}, "likelihood": short}
    metrics["robustness"] = {**table.headline(rows), **use.headline}
    shown = pd.DataFrame([{"split": s, **metrics[s]} for s in splits])
    return Evaluation(metrics, details, shown, rows, values, {**latents, **_halves(means)})


def _said(use: collapse.Collapse, reports: Mapping[str, Any]) -> list[str]:
    """Warnings of the latents, and of each report."""
    texts = [text for report in reports.values() for text in report.warnings]
    return [*([use.verdict] if use.collapsed else []), *use.warnings, *texts]


def _gone(parts: Mapping[str, Any]) -> dict[str, str]:
    """What is missing of each part, by its place, and why."""
    return {f"{place}.{n}": why for place, part in parts.items() for n, why in part.reasons.items()}


def foreign(
    subject: Subject,
    material: Material,
    probe: Probe | str,
    missing: Mapping[str, str],
    settings: EvaluateSettings,
    seed: int,
) -> Evaluation:
    """Of any model that gives images back; `missing`: quantities that it lacks, and why."""
    values, means, rows, reasons = _robustness(subject, material, probe, missing, settings, seed)
    details = {"warnings": table.warnings(rows), **_summaries(values, rows), "reasons": reasons}
    clean = rows[(rows["corruption"] == "clean") & (rows["method"] == "model")]
    metrics = {"test": {"mse": float(clean["e_den"].iloc[0])}, "robustness": table.headline(rows)}
    latents = {"mu": means["clean"], **_halves(means)} if means else {}
    return Evaluation(metrics, details, pd.DataFrame(), rows, values, latents)


def _robustness(
    subject: Subject,
    material: Material,
    probe: Probe | str,
    missing: Mapping[str, str],
    settings: EvaluateSettings,
    seed: int,
) -> tuple[table.Columns, dict[str, NDArray[np.float32]], pd.DataFrame, dict[str, str]]:
    """Values per image, means of posteriors, the table, and why numbers are missing."""
    asked = material.labels.get("test", np.zeros(0, np.int64))
    known = measure.Known(asked, material.mean_image, probe)
    values, means = measure.measure(subject, material.sets, known, settings)
    gaps = measure.gaps(missing, probe, settings)
    rows, reasons = table.tabulate(values, material.listed, gaps)
    return values, means, rows, reasons | table.missing(rows, gaps)


def _summaries(values: table.Columns, rows: pd.DataFrame) -> dict[str, Any]:
    return {
        "headline": table.headline(rows),
        "headline_se": table.headline_errors(values, rows),
        "aggregates": table.aggregate(rows),
        "shares": table.shares(rows),
    }


def _halves(means: Mapping[str, NDArray[np.float32]]) -> Arrays:
    """In half the room, which is enough for figures."""
    corrupted = {name: z for name, z in means.items() if name != "clean"}
    return {f"mu/{n}": np.clip(z, -HALF, HALF).astype(np.float16) for n, z in corrupted.items()}
