"""Figures of attacks: damage by radius, and what attacked images look like."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from robustvae.reporting.figures import pictures
from robustvae.reporting.figures.charts import Z95, Values
from robustvae.reporting.figures.pictures import as_bytes
from robustvae.reporting.figures.style import BLUE, MUTED, ORANGE, grid, sheet, styled

TIMES = 5  # the change is shown so many times as strong, around grey


@styled
def damage(
    radii: Sequence[float], curves: dict[str, Values], own: float, title: str, note: str
) -> Figure:
    """Mean damage with its 95 % interval over images by radius, a line per curve [R, N]."""
    figure = sheet(2.8, title, note)
    (axes,) = grid(figure, 1, 1)
    for (name, values), colour in zip(curves.items(), (BLUE, MUTED), strict=False):
        mean, error = values.mean(1), Z95 * values.std(1, ddof=1) / np.sqrt(values.shape[1])
        axes.errorbar(radii, mean, error, color=colour, marker="o", ms=3, capsize=2, label=name)
    axes.axhline(own, color=ORANGE, lw=1, ls="--", label="the model's own error on clean images")
    axes.set(xlabel="radius", ylabel="damage per pixel", yscale="log")
    axes.legend()
    return figure


def strips(
    clean: Values, attacked: Values, back: Values, back_attacked: Values, title: str, note: str
) -> Figure:
    """Rows of images in [0, 1], [N, C, H, W]: clean, attacked, the change, both reconstructions."""
    change = 0.5 + TIMES * (attacked - clean)
    rows = np.stack([as_bytes(part) for part in (clean, attacked, change, back, back_attacked)])
    names = ["clean", "attacked", f"change x {TIMES}", "back from clean", "back from attacked"]
    return pictures.rows(rows, names, title, note)
