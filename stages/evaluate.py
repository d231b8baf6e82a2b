"""Evaluate the model: losses, likelihood, use of the latents, robustness to every corrupted set."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from robustvae import params
from robustvae.data import prepared
from robustvae.data.prepared import SPLITS, Prepared
from robustvae.models import folder as model_folder
from robustvae.models.autoencoder import Autoencoder
from robustvae.models.distributions import Diagonal
from robustvae.params import EvaluateSettings, RunSettings
from robustvae.robustness import batches, bounds, collapse, measure, table
from robustvae.robustness.bounds import Draws, Report
from robustvae.robustness.collapse import Collapse
from robustvae.runtime import device, distributed, files
from robustvae.runtime.progress import say
from stages import CORRUPTED, MODELS, PREPARED, REPORTS, run

SHORT = ("elbo", "bits_per_dim")  # of the likelihood, with the bound: what metrics.json has
TERMS = ("recon", "divergence", "total", "mse")  # what `dvc metrics show` has of each split
KEPT = ("neg_elbo", "e_den", "ssim_den")  # quantities whose values per image are kept
HEADLINE = ("e_den", "skill", "constant_wins", "auroc", "worst", "active_units", "perplexity")
SAID = ("e_den", "skill", "skill_id", "constant_wins", "ssim_den", "clean_e_den", "worst")
CLEAN = {"name": "clean", "corruption": "clean", "group": "clean", "severity": 0, "default": True}
HALF = float(np.finfo(np.float16).max)


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
    draws, size = Draws(running.seed), batches.size_on(where, settings.batch_size)
    settings = settings.model_copy(update={"batch_size": size})
    listed, sets = _sets(data, running.seed)
    chosen = measure.of_training(len(data.train), running.seed)
    images = _images(data, chosen, running.seed) | {"test": sets["clean"]}
    q = {s: bounds.posteriors(model, images[s], size) for s in SPLITS}
    losses = {s: measure.losses(model, images[s], q[s], s, size, draws) for s in SPLITS}
    binary = data.info["binarize"] != "none"
    enlarged = bool(data.info.get("enlarged"))
    likelihood = bounds.likelihood(
        model, images["test"], q["test"], binary, settings, draws, enlarged
    )
    if likelihood.cost is not None:
        say(f"importance-weighted bound: {1000 * likelihood.cost:.1f} ms per image")
    use, latents = collapse.latents(model, images["test"], q["test"], size, draws)
    known = _known(model, data, images["train"], chosen, q, settings, draws)
    values, means = measure.measure(model, sets, known, settings)
    if distributed.rank() > 0:
        return
    gaps = measure.gaps(model, known, binary, settings)
    rows, reasons = table.tabulate(values, listed, gaps)
    reasons |= table.missing(rows, gaps)

    reports = {**losses, "likelihood": likelihood}
    evaluation = _evaluation(reports, use, values, rows, reasons)
    evaluation["warnings"] = measure.too_sure(model, losses) + evaluation["warnings"]
    evaluation |= {"data": data.info, "parameters": model.config["parameters"]}
    proper = model.likelihood.proper(binary)
    evaluation["score"] = "negative ELBO" if proper else "cross-entropy + KL"
    metrics = _metrics(losses, likelihood, bounds.bound_name(settings))
    metrics["robustness"] = {**table.headline(rows), **use.headline}
    _write(metrics, evaluation, rows)
    _write_arrays(values, means, latents, data.labels["test"])
    _show(metrics, use.verdict, evaluation["warnings"])


def _images(data: Prepared, chosen: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Training images of `chosen` and validation images, as the model sees them."""
    seen = partial(measure.binarized, info=data.info, seed=seed)
    return {"train": seen(data.train[chosen], "train"), "val": seen(data.val, "val")}


def _known(
    model: Autoencoder,
    data: Prepared,
    train: np.ndarray,
    chosen: np.ndarray,
    q: Mapping[str, Diagonal | None],
    settings: EvaluateSettings,
    draws: Draws,
) -> measure.Known:
    """What is known before any corrupted image is seen; `train`: the images of `chosen`."""
    features = partial(measure.features, model, train, q["train"], settings.batch_size)
    labels = data.labels["train"][chosen], data.labels["test"]
    probe = measure.fit_probe(features, *labels, settings)
    mean_image = np.asarray(data.train.mean(axis=0) / 255, dtype=np.float32)
    return measure.Known(q["test"], data.labels["test"], mean_image, probe, draws)


def _metrics(losses: dict[str, Report], likelihood: Report, bound: str) -> dict[str, Any]:
    """What metrics.json has, but for robustness."""
    short = {name: v for name, v in likelihood.means.items() if name in {*SHORT, bound}}
    return {**{s: losses[s].means for s in SPLITS}, "likelihood": short}


def _write(metrics: dict[str, Any], evaluation: dict[str, Any], rows: pd.DataFrame) -> None:
    """Numbers for people and for DVC."""
    files.write_json(REPORTS / "metrics.json", _plain(metrics))
    for name, row in _rows(metrics).items():
        files.write_json(REPORTS / f"{name}.json", _plain(row))
    files.write_json(REPORTS / "evaluation.json", _plain(evaluation))
    _csv(pd.DataFrame([{"split": s, **metrics[s]} for s in SPLITS]), "losses")
    _csv(rows, "robustness")


def _write_arrays(
    values: table.Columns,
    means: dict[str, np.ndarray],
    latents: dict[str, np.ndarray],
    labels: np.ndarray,
) -> None:
    """What figures are made of: latents, and scores per image."""
    corrupted = {f"mu/{name}": _half(z) for name, z in means.items() if name != "clean"}
    files.save_npz(REPORTS / "latents.npz", **latents, **corrupted, labels=labels)
    scores = {
        f"{name}/{quantity}": columns[quantity].astype(np.float32)
        for (name, method), columns in values.items()
        for quantity in KEPT
        if method == "model" and quantity in columns
    }
    files.save_npz(REPORTS / "scores.npz", **scores)


def _sets(data: Prepared, seed: int) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """What rows of the table say of each set, and the images by name; the clean ones first."""
    listed, images = [CLEAN], {"clean": data.test}
    for entry in files.read_json(CORRUPTED / "info.json")["sets"]:
        name = f"{entry['name']}-{entry['severity']}"
        images[name] = files.open_npy(CORRUPTED / entry["file"])
        kept = {key: entry[key] for key in ("group", "severity", "default")}
        listed.append({"name": name, "corruption": entry["name"], **kept})
    return listed, {n: measure.binarized(x, "test", data.info, seed) for n, x in images.items()}


def _evaluation(
    reports: dict[str, Report],
    use: Collapse,
    values: table.Columns,
    rows: pd.DataFrame,
    reasons: dict[str, str],
) -> dict[str, Any]:
    """All that metrics.json has no room for."""
    warnings = [*([use.verdict] if use.collapsed else []), *use.warnings]
    warnings += [text for report in reports.values() for text in report.warnings]
    gone = {place: report.reasons for place, report in reports.items()} | {"collapse": use.reasons}
    for place, part in gone.items():
        reasons = reasons | {f"{place}.{name}": why for name, why in part.items()}
    return {
        "warnings": warnings + table.warnings(rows),
        "collapse": {"verdict": use.verdict, **use.values},
        "losses": {s: reports[s].content for s in SPLITS},
        "likelihood": reports["likelihood"].content,
        "headline": table.headline(rows),
        "headline_se": table.headline_errors(values, rows),
        "aggregates": table.aggregate(rows),
        "shares": table.shares(rows),
        "reasons": reasons,
    }


def _rows(metrics: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Train, val and test with columns in common, and the headline: not too wide for a screen."""
    bounds = {name: v for name, v in metrics["likelihood"].items() if name != "bits_per_dim"}
    headline = {name: v for name, v in metrics["robustness"].items() if name in HEADLINE}
    splits = {s: {name: metrics[s][name] for name in TERMS} for s in SPLITS}
    return splits | {"test": splits["test"] | bounds, "robustness": headline}


def _half(means: np.ndarray) -> np.ndarray:
    """In half the room, which is enough for figures."""
    return np.clip(means, -HALF, HALF).astype(np.float16)


def _plain(obj: Any) -> Any:
    """For JSON: six significant digits, null where there is no number."""
    if isinstance(obj, Mapping):
        return {key: _plain(value) for key, value in obj.items()}
    if isinstance(obj, float | np.floating):
        return float(f"{obj:.6g}") if math.isfinite(obj) else None
    return obj.item() if isinstance(obj, np.generic) else obj


def _csv(frame: pd.DataFrame, name: str) -> None:
    with files.replace(REPORTS / f"{name}.csv") as temporary:
        frame.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")


def _show(metrics: dict[str, Any], verdict: str, warnings: list[str]) -> None:
    """The table that a reader expects, on standard output."""
    say(f"{'':8}" + "".join(f"{name:>12}" for name in metrics["test"]))
    for split in SPLITS:
        cells = ["-" if value is None else f"{value:.5g}" for value in metrics[split].values()]
        say(f"{split:8}" + "".join(f"{cell:>12}" for cell in cells))
    found = {name: _plain(metrics["robustness"][name]) for name in SAID}
    said = [f"{name} {'-' if value is None else value}" for name, value in found.items()]
    say(f"robustness: {', '.join(said)}")
    say(f"latents: {verdict}")
    for warning in warnings:
        say(f"warning: {warning}")


if __name__ == "__main__":
    run(partial(distributed.spread, main))
