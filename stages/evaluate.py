"""Evaluate the model: losses, likelihood, use of the latents, robustness to every corrupted set."""

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from robustvae import params
from robustvae.data import prepared
from robustvae.data.contaminated import Outliers
from robustvae.data.prepared import SPLITS, Prepared
from robustvae.models import folder as model_folder
from robustvae.models.autoencoder import Autoencoder
from robustvae.params import EvaluateSettings, RunSettings
from robustvae.robustness import batches, evaluation, measure, outliers
from robustvae.robustness.evaluation import Evaluation, Material
from robustvae.robustness.finding import plain
from robustvae.runtime import device, distributed, files
from robustvae.runtime.progress import say
from stages import CONTAMINATED, CORRUPTED, MODELS, PREPARED, REPORTS, run

TERMS = ("recon", "divergence", "total", "mse")  # what `dvc metrics show` has of each split
HEADLINE = ("e_den", "skill", "constant_wins", "auroc", "worst", "active_units", "perplexity")
SAID = ("e_den", "skill", "skill_id", "constant_wins", "ssim_den", "clean_e_den", "worst")


def main() -> None:
    """Write {metrics,evaluation}.json, {losses,robustness}.csv, {latents,scores}.npz.

    And the lines of the table that `dvc metrics show` prints, each a file.
    """
    settings = params.load().evaluate
    data, model = prepared.load(PREPARED), model_folder.load(MODELS)
    running = RunSettings.model_validate(model.config["run"])
    where = device.setup(**running.model_dump())
    distributed.refuse(where)
    model.to(where, memory_format=torch.channels_last)
    size = batches.size_on(where, settings.batch_size)
    settings = settings.model_copy(update={"batch_size": size})
    found = evaluation.own(model, _material(data, running.seed), settings, running.seed)
    if found is None:
        return
    facts = {"data": data.info, "parameters": model.config["parameters"]}
    facts["outliers"] = _outliers(model, data, settings, running.seed)
    _write(found, {**found.details, **facts}, data.labels["test"])
    _show(found)


def _material(data: Prepared, seed: int) -> Material:
    """Training images to look at, validation and test images, the latter also corrupted."""
    chosen = measure.of_training(len(data.train), seed)
    seen = partial(measure.binarized, info=data.info, seed=seed)
    listed: list[dict[str, Any]] = [evaluation.CLEAN]
    images = {"clean": data.test}
    for entry in files.read_json(CORRUPTED / "info.json")["sets"]:
        name = f"{entry['name']}-{entry['severity']}"
        images[name] = files.open_npy(CORRUPTED / entry["file"])
        kept = {key: entry[key] for key in ("group", "severity", "default")}
        listed.append({"name": name, "corruption": entry["name"], **kept})
    sets = {name: seen(array, "test") for name, array in images.items()}
    return Material(
        {"train": seen(data.train[chosen], "train"), "val": seen(data.val, "val"),
         "test": sets["clean"]},
        sets, listed, np.asarray(data.train.mean(axis=0) / 255, dtype=np.float32),
        {"train": data.labels["train"][chosen], "test": data.labels["test"]},
        data.info["binarize"] != "none", bool(data.info.get("enlarged")),
    )  # fmt: skip


def _write(found: Evaluation, details: dict[str, Any], labels: np.ndarray) -> None:
    """Numbers for people and for DVC, and what figures are made of."""
    outlying = (details["outliers"] or {}).get("headline", {})
    more = {"outliers": outlying} if outlying else {}
    files.write_json(REPORTS / "metrics.json", plain({**found.metrics, **more}))
    rows = _rows(found.metrics)
    rows["robustness"] |= outlying
    for name, row in rows.items():
        files.write_json(REPORTS / f"{name}.json", plain(row))
    files.write_json(REPORTS / "evaluation.json", plain(details))
    _csv(found.losses, "losses")
    _csv(found.rows, "robustness")
    files.save_npz(REPORTS / "latents.npz", **found.latents, labels=labels)
    files.save_npz(REPORTS / "scores.npz", **found.scores)


def _outliers(
    model: Autoencoder, data: Prepared, settings: EvaluateSettings, seed: int
) -> dict[str, Any] | None:
    """What the model and simpler means make of the outliers that it was trained on, if it was."""
    known, path = Outliers.load(CONTAMINATED), REPORTS / "train" / "weights.npy"
    if known is None:
        files.save_npz(REPORTS / "outliers.npz")
        return None
    seen = partial(measure.binarized, info=data.info, seed=seed)
    found = outliers.find(
        model, seen(known.train, "train"), np.asarray(known.mask),
        seen(np.array(data.test[known.clean]), "test"), seen(known.test, "outliers"),
        files.open_npy(path) if path.exists() else None, settings.batch_size, seed,
    )  # fmt: skip
    files.save_npz(REPORTS / "outliers.npz", **found.arrays)
    say(found.sentence)
    rows = found.table.to_dict("records")
    told = {"sentence": found.sentence, "headline": found.headline, "purity": found.purity}
    return {**told, "table": rows}


def _rows(metrics: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Train, val and test with columns in common, and the headline: not too wide for a screen."""
    bounds = {name: v for name, v in metrics["likelihood"].items() if name != "bits_per_dim"}
    headline = {name: v for name, v in metrics["robustness"].items() if name in HEADLINE}
    splits = {s: {name: metrics[s][name] for name in TERMS} for s in SPLITS}
    return splits | {"test": splits["test"] | bounds, "robustness": headline}


def _csv(frame: pd.DataFrame, name: str) -> None:
    with files.replace(REPORTS / f"{name}.csv") as temporary:
        frame.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")


def _show(found: Evaluation) -> None:
    """The table that a reader expects, on standard output."""
    metrics, details = found.metrics, found.details
    say(f"{'':8}" + "".join(f"{name:>12}" for name in metrics["test"]))
    for split in SPLITS:
        cells = ["-" if value is None else f"{value:.5g}" for value in metrics[split].values()]
        say(f"{split:8}" + "".join(f"{cell:>12}" for cell in cells))
    numbers = {name: plain(metrics["robustness"][name]) for name in SAID}
    said = [f"{name} {'-' if value is None else value}" for name, value in numbers.items()]
    say(f"robustness: {', '.join(said)}")
    say(f"latents: {details['collapse']['verdict']}")
    for warning in details["warnings"]:
        say(f"warning: {warning}")


if __name__ == "__main__":
    run(partial(distributed.spread, main))
