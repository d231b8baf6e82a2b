"""Evaluate the model: losses, likelihood, use of the latents, robustness to every corrupted set."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from robustvae import checkpoint, device, files, params, prepared, robustness
from robustvae.metrics import Summary
from robustvae.params import RunSettings
from robustvae.prepared import SPLITS, Prepared
from robustvae.progress import say
from robustvae.robustness import bounds, collapse, table
from robustvae.robustness.bounds import Draws, Report
from robustvae.robustness.collapse import Collapse
from stages import CORRUPTED, MODELS, PREPARED, REPORTS, run

LOSSES = ("recon", "divergence", "total", "mse")
KEPT = ("neg_elbo", "e_den", "ssim_den")  # quantities whose values per image are kept
CLEAN = {"name": "clean", "corruption": "clean", "group": "clean", "severity": 0, "default": True}
HALF = float(np.finfo(np.float16).max)


def main() -> None:
    """Write {metrics,evaluation}.json, {losses,robustness}.csv, {latents,scores}.npz."""
    settings = params.load().evaluate
    data, model = prepared.load(PREPARED), checkpoint.load(MODELS)
    running = RunSettings.model_validate(model.config["run"])
    model.to(device.setup(running), memory_format=torch.channels_last)
    draws, size = Draws(running.seed), settings.batch_size
    images = {s: _seen(data, getattr(data, s), s, running.seed) for s in SPLITS}
    q = {s: bounds.posteriors(model, images[s], size) for s in SPLITS}
    losses = {s: robustness.losses(model, images[s], q[s], s, size, draws) for s in SPLITS}
    binary = data.info["binarize"] != "none"
    likelihood = bounds.likelihood(model, images["test"], q["test"], binary, settings, draws)
    if likelihood.cost is not None:
        say(f"importance-weighted bound: {1000 * likelihood.cost:.1f} ms per image")
    use, latents = collapse.latents(model, images["test"], q["test"], size, draws)

    probe = robustness.fit_probe(model, images["train"], data.labels["train"], settings, draws)
    mean_image = np.asarray(data.train.mean(axis=0) / 255, dtype=np.float32)
    known = robustness.Known(q["test"], data.labels["test"], mean_image, probe, draws)
    listed, sets = _sets(data, images["test"], running.seed)
    values, means = robustness.measure(model, sets, known, settings)
    gaps = robustness.gaps(model, known, settings)
    rows, reasons = table.tabulate(values, listed, settings, running.seed, gaps)

    metrics = {
        **{s: {name: _value(losses[s], name) for name in LOSSES} for s in SPLITS},
        "likelihood": {name: _value(likelihood, name) for name in likelihood.values},
        "collapse": use.values,
        "robustness": {**table.headline(rows), **use.headline},
    }
    evaluation = _evaluation(losses, likelihood, use, rows, reasons)
    evaluation |= {"data": data.info, "parameters": model.config["parameters"]}
    files.write_json(REPORTS / "metrics.json", _plain(metrics))
    files.write_json(REPORTS / "evaluation.json", _plain(evaluation))
    _csv(pd.DataFrame([{"split": s, **metrics[s]} for s in SPLITS]), "losses")
    _csv(rows, "robustness")
    files.save_npz(REPORTS / "latents.npz", **latents, **_half(means), labels=data.labels["test"])
    kept = {s: v for (s, method), v in values.items() if method == "model"}
    scores = {f"{s}/{k}": v[k].astype(np.float32) for s, v in kept.items() for k in KEPT if k in v}
    files.save_npz(REPORTS / "scores.npz", **scores)
    _show(metrics, use.verdict, evaluation["warnings"])


def _evaluation(
    losses: dict[str, Report],
    likelihood: Report,
    use: Collapse,
    rows: pd.DataFrame,
    reasons: dict[str, str],
) -> dict[str, Any]:
    """All that metrics.json has no room for: warnings, reasons, standard errors, aggregates."""
    warnings, reasons = [use.verdict] if use.collapsed else [], dict(reasons)
    for place, report in {**losses, "likelihood": likelihood}.items():
        reasons |= {f"{place}.{name}": reason for name, reason in report.reasons.items()}
        warnings += report.warnings
    return {
        "warnings": warnings + table.warnings(rows),
        "collapse": {"verdict": use.verdict, **use.values},
        "losses": {s: {**_summaries(losses[s]), **losses[s].facts} for s in SPLITS},
        "likelihood": {**_summaries(likelihood), **likelihood.facts},
        "headline": table.headline(rows),
        "aggregates": table.aggregate(rows),
        "reasons": reasons,
    }


def _sets(
    data: Prepared, clean: np.ndarray, seed: int
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """What rows of the table say of each set, and the images by name; the clean ones first."""
    listed, sets = [CLEAN], {"clean": clean}
    for entry in files.read_json(CORRUPTED / "info.json")["sets"]:
        name = f"{entry['name']}-{entry['severity']}"
        sets[name] = _seen(data, files.open_npy(CORRUPTED / entry["file"]), name, seed)
        kept = {key: entry[key] for key in ("group", "severity", "default")}
        listed.append({"name": name, "corruption": entry["name"], **kept})
    return listed, sets


def _seen(data: Prepared, images: np.ndarray, name: str, seed: int) -> np.ndarray:
    """Images as the model sees them; the clean test images are the set `clean`."""
    name, info = "clean" if name == "test" else name, data.info
    return robustness.binarized(images, info["binarize"], info["threshold"], seed, name)


def _half(means: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Posterior means of the corrupted sets in half the room, which is enough for figures."""
    half = {k: np.clip(v, -HALF, HALF).astype(np.float16) for k, v in means.items() if k != "clean"}
    return {f"mu/{name}": array for name, array in half.items()}


def _value(report: Report, name: str) -> float | None:
    summary = report.values.get(name)
    return None if summary is None else summary[0]


def _summaries(report: Report) -> dict[str, Any]:
    def pair(summary: Summary | None) -> dict[str, float] | None:
        return None if summary is None else {"value": summary[0], "se": summary[1]}

    return {name: pair(summary) for name, summary in report.values.items()}


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
    cell = "{:>12.5g}".format
    say(f"{'':8}" + "".join(f"{name:>12}" for name in LOSSES))
    for split in SPLITS:
        shown = [metrics[split][name] for name in LOSSES]
        say(f"{split:8}" + "".join(f"{'-':>12}" if v is None else cell(v) for v in shown))
    named = ("e_den", "skill", "ssim_den", "clean_e_den", "worst", "worst_e_den", "skill_below_0")
    shown = [f"{name} {_plain(metrics['robustness'][name])}" for name in named]
    say("robustness: " + ", ".join(shown))
    say(f"latents: {verdict}")
    for warning in warnings:
        say(f"warning: {warning}")


if __name__ == "__main__":
    run(main)
