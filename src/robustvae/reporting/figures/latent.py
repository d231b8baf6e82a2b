"""What the latents look like: Q-Q plots, divergence per dimension, scatter, use of the codes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from robustvae.reporting.figures.style import (
    BLUE,
    CLASSES,
    FAINT,
    INK,
    MUTED,
    ORANGE,
    RED,
    grid,
    legend,
    sheet,
    styled,
)
from robustvae.robustness.quantiles import QQ, Law

Values = NDArray[Any]
HEAVY = 30  # degrees of freedom below which tails need a scale of their own
HEAVY_TICKS = [-100, -30, -10, -3, 0, 3, 10, 30, 100]
HALO = [withStroke(linewidth=2.5, foreground="white")]


@styled
def qq_grid(panels: Mapping[int, QQ], active: Sequence[bool], law: Law,
            title: str, note: str) -> Figure:  # fmt: skip
    """One Q-Q panel per latent dimension, in the given order, all on the same scales."""
    columns = min(8, int(np.ceil(np.sqrt(len(panels)))))
    lines = -(-len(panels) // columns)
    side = min(3.6, 7.3 / columns)
    figure = sheet(lines * side + 0.75, title, note, max(5.5, columns * side + 0.7))
    places = grid(figure, len(panels), columns, top=0.18, bottom=0.45, gap=(0.06, 0.06), share=True)
    dot, size = (1.4, 6.5) if columns > 5 else (2.2, 7.5)
    for axes, (dim, points) in zip(places, panels.items(), strict=True):
        _qq(axes, points, dot)
        name, colour = (f"z{dim}", INK) if active[dim] else (f"z{dim} inactive", MUTED)
        axes.text(0.06, 0.93, name, size=size, color=colour, va="top", transform=axes.transAxes)
        axes.text(0.96, 0.06, f"D {points.distance:.3f}", size=size, ha="right",
                  color=RED if points.outside else MUTED, transform=axes.transAxes)  # fmt: skip
        axes.spines[:].set_visible(True)
        axes.spines[:].set_color(FAINT)
        axes.tick_params(labelsize=7, length=2)
    _scale(places[0], list(panels.values()), HEAVY > law.df > 0)
    _name_axes(figure, f"quantiles of {law}", "aggregate posterior")
    return figure


@styled
def qq_pooled(points: QQ, law: Law, title: str, note: str) -> Figure:
    """One Q-Q plot of all dimensions together."""
    figure = sheet(4.6, title, note, width=5.6)
    (axes,) = grid(figure, 1, 1, top=0.1)
    _qq(axes, points, 3.0)
    _scale(axes, [points], HEAVY > law.df > 0)
    axes.set(xlabel=f"quantiles of {law}", ylabel="pooled posterior")
    axes.text(0.97, 0.04, f"K-S distance {points.distance:.3f}", ha="right", color=MUTED,
              transform=axes.transAxes)  # fmt: skip
    axes.legend(loc="upper left")
    return figure


def _qq(axes: Axes, points: QQ, size: float) -> None:
    axes.fill_between(points.theory, points.lower, points.upper, color=BLUE, alpha=0.18, lw=0,
                      label="95 % band")  # fmt: skip
    ends = [-1e4, 0.0, 1e4]
    axes.plot(ends, ends, color=MUTED, lw=0.7, label="equal")
    axes.plot(points.theory, points.sample, "o", ms=size, mew=0, color=INK, label="posterior")


def _scale(axes: Axes, panels: Sequence[QQ], heavy: bool) -> None:
    """Common limits; for heavy tails both axes shrink like asinh, which keeps the diagonal."""
    x = max(float(np.abs(points.theory).max()) for points in panels)
    y = max(x, *(float(np.abs(points.sample).max()) for points in panels))
    if heavy:
        axes.set_xscale("asinh", linear_width=2.0)
        axes.set_yscale("asinh", linear_width=2.0)
    for axis in (axes.xaxis, axes.yaxis):
        if heavy:
            axis.set_major_locator(FixedLocator(HEAVY_TICKS[:: 1 if len(panels) <= 9 else 2]))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter("{x:g}")
        else:
            axis.set_major_locator(MaxNLocator(3, symmetric=True))
    axes.set(xlim=(-1.1 * x, 1.1 * x), ylim=(-1.1 * y, 1.1 * y))


@styled
def kl_per_dimension(kl: Values, active: Values, title: str, note: str) -> Figure:
    """Divergence of each dimension from its prior, largest first; inactive ones pale."""
    figure = sheet(2.6, title, note)
    (axes,) = grid(figure, 1, 1, top=0.15)
    order = np.argsort(-kl, kind="stable")
    x = np.arange(len(kl))
    for on, colour, name in ((True, BLUE, "active"), (False, ORANGE, "inactive")):
        part = active[order].astype(bool) == on
        if part.any():
            axes.bar(x[part], kl[order][part], 0.75, color=colour, label=name)
    if len(kl) <= 40:
        axes.set_xticks(x, [str(dim) for dim in order])
    axes.grid(axis="x", visible=False)
    axes.set(xlabel="latent dimension", ylabel="nats per image")
    axes.legend(loc="upper right")
    return figure


@styled
def scatter(points: Mapping[str, Values], labels: NDArray[np.int64], classes: Sequence[str],
            dims: tuple[int, int], title: str, note: str) -> Figure:  # fmt: skip
    """Two latent dimensions of the same images, one panel per set; the first is the clean one.

    Points [N, 2]; labels -1 stand for no class, and only the first ten classes get a colour."""
    columns = min(4, len(points))
    lines = -(-len(points) // columns)
    side = 7.4 / columns
    figure = sheet(lines * (side + 0.2) + 0.95, title, note)
    panels = grid(figure, len(points), columns, bottom=0.5, top=0.5, gap=(0.08, 0.26), share=True)
    shown = [c for c in range(min(len(classes), len(CLASSES))) if (labels == c).any()]
    palette = np.array([*CLASSES, "#b8c0c8"])
    colour = palette[np.where((labels >= 0) & (labels < len(CLASSES)), labels, len(CLASSES))]
    clean = next(iter(points.values()))
    for axes, (name, z) in zip(panels, points.items(), strict=True):
        axes.scatter(z[:, 0], z[:, 1], s=5, c=colour, lw=0, alpha=0.75, rasterized=True)
        axes.set_title(name, loc="left", pad=3)
        axes.tick_params(labelsize=7, length=2)
    for c in shown if all(len(str(name)) < 3 for name in classes) else ():  # longer ones collide
        centre = np.median(clean[labels == c], axis=0)
        panels[0].text(centre[0], centre[1], str(classes[c]), size=8, weight="bold", ha="center",
                       va="center", path_effects=HALO)  # fmt: skip
    low, high = np.percentile(clean, [0.2, 99.8], axis=0)
    margin = 0.25 * (high - low) + 1e-6
    x, y = np.stack([low - margin, high + margin], 1).tolist()
    panels[0].set(xlim=x, ylim=y)
    handles = [Line2D([], [], marker="o", ls="", ms=5, color=CLASSES[c]) for c in shown]
    legend(figure, handles, [str(classes[c]) for c in shown], handletextpad=0.1)
    _name_axes(figure, *(f"posterior mean of z{dim}" for dim in dims))
    return figure


def _name_axes(figure: Figure, x: str, y: str) -> None:
    """Below and beside all panels."""
    figure.supxlabel(x, size=9, y=0.08 / figure.get_size_inches()[1])
    figure.supylabel(y, size=9, x=0.012)


@styled
def code_usage(counts: NDArray[np.int64], title: str, note: str) -> Figure:
    """How often each code of the codebook is chosen, most used first."""
    figure = sheet(2.6, title, note)
    (axes,) = grid(figure, 1, 1, top=0.15)
    share = np.sort(counts)[::-1] / counts.sum()
    axes.bar(np.arange(1, len(share) + 1), share, 1.0, color=BLUE, lw=0, label="codes")
    axes.axhline(1 / len(share), color=RED, lw=1, ls="--", label="all equally often")
    axes.set(xlabel="code, most used first", ylabel="share of positions", xlim=(0, len(share) + 1))
    axes.legend()
    return figure
