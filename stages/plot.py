"""Draw what evaluate wrote and what the model makes -> reports/figures, reports/charts."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from robustvae import params
from robustvae.data import prepared
from robustvae.data.contaminated import Outliers
from robustvae.models import folder as model_folder
from robustvae.reporting import figures
from robustvae.reporting.figures import Run
from robustvae.robustness import measure
from robustvae.runtime import files
from stages import CONTAMINATED, CORRUPTED, MODELS, PREPARED, REPORTS, run


def main() -> None:
    """Every figure that has a meaning for this model; the list of them comes last."""
    settings = params.load().plots
    listed = figures.write(_gather(settings), REPORTS / "figures", REPORTS / "charts")
    files.write_json(REPORTS / "figures.json", listed)


def _gather(settings: params.PlotSettings) -> Run:
    model, data = model_folder.load(MODELS), prepared.load(PREPARED)
    torch.set_num_threads(model.config["run"]["threads"])
    sets = files.read_json(CORRUPTED / "info.json")["sets"]
    evaluation = files.read_json(REPORTS / "evaluation.json")
    images = {figures.key(item): files.open_npy(CORRUPTED / item["file"]) for item in sets}
    known, strip = Outliers.load(CONTAMINATED), REPORTS / "train" / "strip.npz"
    seen = partial(measure.binarized, info=data.info, seed=model.config["run"]["seed"])
    return Run(
        name=data.info["name"],
        own=model,
        reconstruct=model.reconstruct,
        generate=model.sample,
        score=f"{evaluation['score']}, nats",
        seed=model.config["run"]["seed"],
        settings=settings,
        clean=seen(data.test, "test"),
        sets=sets,
        corrupted={name: seen(array, "test") for name, array in images.items()},
        **_labels(data.labels["test"], data.info),
        history=files.read_csv(REPORTS / "train" / "history.csv"),
        table=files.read_csv(REPORTS / "robustness.csv"),
        latents=files.read_npz(REPORTS / "latents.npz"),
        scores=files.read_npz(REPORTS / "scores.npz"),
        outliers=files.read_npz(REPORTS / "outliers.npz"),
        trained=None if known is None else seen(known.train, "train"),
        attack=files.read_npz(REPORTS / "attack.npz"),
        foreign=files.read_npz(REPORTS / "foreign.npz"),
        sample=files.read_npz(REPORTS / "samples.npz"),
        strip=files.read_npz(strip) if strip.exists() else {},
    )


def _labels(labels: np.ndarray, info: Mapping[str, Any]) -> dict[str, Any]:
    """One class per image; of several attributes the one that divides the images most evenly."""
    if labels.ndim == 1:
        return {"labels": labels, "classes": [str(name) for name in info["classes"] or []]}
    even = int(np.abs((labels > 0).mean(0) - 0.5).argmin())
    name = info["attributes"][even]
    return {"labels": (labels[:, even] > 0).astype(int), "classes": [f"not {name}", name]}


if __name__ == "__main__":
    run(main)
