"""Figures: arrays and tables in, matplotlib Figure out, files with the same bytes every time."""

from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from robustvae.reporting.figures import charts, latent, pictures
from robustvae.reporting.figures.catalogue import GALLERY
from robustvae.reporting.figures.examples import examples
from robustvae.reporting.figures.run import Run, key
from robustvae.reporting.figures.style import save
from robustvae.runtime import files, progress, seeding

__all__ = ["GALLERY", "Run", "charts", "draw", "key", "latent", "pictures", "save", "write"]


FOR_ANYONE = {  # figures that can be drawn of any model that gives images back
    "robustness", "structure", "severity", "heatmap", "corrupted", "worst", "roc", "corruptions",
    "reconstructions", "samples", "attack-output", "damage-output", "foreign", "sorted-samples",
}  # fmt: skip


def draw(run: Run, name: str) -> Figure | None:
    """One figure of the gallery, or None where it has no meaning for this run."""
    entry = GALLERY[name]
    if run.own is None and name not in FOR_ANYONE:
        return None
    torch.manual_seed(seeding.seed(run.seed, "plot", name))
    return entry.draw(run, entry.title)


def write(run: Run, folder: Path, vectors: Path) -> list[dict[str, Any]]:
    """Draw everything that has a meaning for this run; returns what the report needs to know.

    PNG files to `folder`, all of which DVC shows; vector files, and the small pictures of the
    first screen, to `vectors`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vectors.mkdir(parents=True, exist_ok=True)
    vector = run.settings.vector
    written = []
    for name, entry in progress.track(GALLERY.items(), "figures", len(GALLERY), "figure"):
        figure = draw(run, name)
        if figure is None:
            continue
        save(figure, folder / f"{name}.png", run.settings.dpi)
        drawn = entry.kind == "chart" and vector != "none"
        if drawn:
            save(figure, vectors / f"{name}.{vector}", run.settings.dpi)
        written.append({
            "file": f"{name}.png",
            "vector": f"{name}.{vector}" if drawn else None,
            "title": entry.title,
            "caption": entry.caption,
            "section": entry.section,
        })  # fmt: skip
    files.write_json(vectors / "examples.json", examples(run))
    return written
