"""Figures of a training with outliers: which score finds them, what they weighed, the first."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from robustvae.reporting.figures.charts import roc_points
from robustvae.reporting.figures.pictures import GAP, Images, mosaic
from robustvae.reporting.figures.style import (
    BLUE,
    CYCLE,
    MUTED,
    RED,
    WIDTH,
    grid,
    legend,
    place,
    sheet,
    styled,
)

Arrays = Mapping[str, NDArray[Any]]
SCORES = {
    "neg_elbo": "negative ELBO", "e_self": "error to itself", "divergence": "divergence",
    "mean_grey": "mean grey level", "pca": "principal components",
    "isolation_forest": "isolation forest",
}  # fmt: skip
BINS = 40
ACROSS, DOWN = 20, 5  # pictures of the grid


@styled
def curves(arrays: Arrays, title: str, note: str) -> Figure:
    """ROC and precision-recall of every score, for training and for test images."""
    figure = sheet(6.5, title, note)
    axes, mask = grid(figure, 4, 2, gap=(0.55, 0.6), top=0.5), arrays["mask"]
    for row, (where, label) in enumerate((("train", "training"), ("test", "test"))):
        for colour, (score, name) in zip(CYCLE, SCORES.items(), strict=False):
            if where == "train":
                values = arrays[f"{score}/train"]
                inside, outside = values[~mask], values[mask]
            else:
                inside, outside = arrays[f"{score}/clean"], arrays[f"{score}/outliers"]
            if not len(inside) or not len(outside):
                continue
            alarms, found = roc_points(inside, outside)
            hits, false = found * len(outside), alarms * len(inside)
            precision = np.divide(
                hits, hits + false, out=np.ones_like(hits), where=hits + false > 0
            )
            axes[2 * row].plot(alarms, found, color=colour, lw=1.3, label=name)
            axes[2 * row + 1].plot(found, precision, color=colour, lw=1.3, label=name)
        axes[2 * row].plot([0, 1], [0, 1], color=MUTED, lw=0.8, ls=":")
        axes[2 * row].set(xlabel="inliers taken for outliers", ylabel="outliers found")
        axes[2 * row + 1].set(xlabel="outliers found", ylabel="precision", ylim=(0, 1.03))
        for side in (0, 1):
            axes[2 * row + side].set_title(f"{label} images", loc="left")
    legend(figure, *axes[0].get_legend_handles_labels(), handlelength=1.2)
    return figure


@styled
def histogram(arrays: Arrays, title: str, note: str) -> Figure:
    """The negative ELBO of training images, by what they are."""
    figure = sheet(2.6, title, note)
    (axes,) = grid(figure, 1, 1)
    values, mask = arrays["neg_elbo/train"].astype(float), arrays["mask"]
    low, high = np.quantile(values, [0.0, 0.995])
    edges = np.linspace(low, max(high, low + 1e-9), BINS + 1)
    kinds = {"inliers": (~mask, BLUE), "outliers": (mask, RED)}
    for name, (chosen, colour) in kinds.items():
        axes.hist(
            np.clip(values[chosen], low, high), list(edges), color=colour, alpha=0.6, label=name
        )
    axes.set(xlabel="negative ELBO, nats (the largest together in the last bar)", ylabel="images")
    axes.legend()
    return figure


@styled
def weights(means: NDArray[Any], title: str, note: str) -> Figure:
    """Mean weight by epoch, [epochs, inliers and outliers]."""
    figure = sheet(2.4, title, note)
    (axes,) = grid(figure, 1, 1)
    epochs = np.arange(1, len(means) + 1)
    for column, (name, colour) in enumerate((("inliers", BLUE), ("outliers", RED))):
        axes.plot(epochs, means[:, column], color=colour, label=name)
    axes.set(xlabel="epoch", ylabel="mean weight", ylim=(0, 1.05))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return figure


@styled
def first(images: Images, mask: NDArray[np.bool_], title: str, note: str) -> Figure:
    """The images that would be thrown out first, outliers in a red frame, inliers in a blue one."""
    count = min(len(images), ACROSS * DOWN)
    rows = -(-count // ACROSS)
    blank = np.full((rows * ACROSS, *images.shape[1:]), 255, np.uint8)
    blank[:count] = images[:count]
    tiles = blank.reshape(rows, ACROSS, *images.shape[1:])
    height = (WIDTH - 0.3) / ACROSS * rows
    figure = sheet(height + 0.25, title, note)
    axes = place(figure, 0.15, 0.1, WIDTH - 0.3, height)
    axes.imshow(mosaic(tiles), cmap="gray", vmin=0, vmax=255, aspect="auto")
    axes.set_axis_off()
    side, across = images.shape[-2] + GAP, images.shape[-1] + GAP
    for i in range(count):
        row, column = divmod(i, ACROSS)
        frame = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]) * (across - GAP, side - GAP)
        corner = np.array([column * across - 0.5, row * side - 0.5])
        x, y = (frame + corner).T
        axes.plot(x, y, color=RED if mask[i] else BLUE, lw=1.4)
    return figure
