"""Charts of the tables: losses, robustness per corruption, severity, detection."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from robustvae.reporting.figures.style import (
    BLUE,
    CYCLE,
    INK,
    MUTED,
    ORANGE,
    RED,
    grid,
    legend,
    sheet,
    styled,
)

Values = NDArray[Any]
GROUPS = ["noise", "blur", "photometric", "overlay", "geometric"]
TERMS = {"total": "total", "recon": "reconstruction", "divergence": "divergence"}
Z95 = 1.96  # half width of a normal 95 % interval in standard errors
NAMES = {
    "e_den": "error to the clean image, e_den (squared, per pixel)",
    "skill": "skill (1 - e_den / better baseline)",
    "ssim_den": "SSIM to the clean image",
    "auroc": "AUROC, corrupted or clean",
    "probe": "accuracy of the linear probe",
}


def rank(group: str) -> int:
    """Place of a group; those that MNIST-C does not have come last."""
    return GROUPS.index(group) if group in GROUPS else len(GROUPS)


def by_group(table: pd.DataFrame) -> pd.DataFrame:
    """Rows in the order of the groups, within a group as they came."""
    return table.sort_values("group", key=lambda names: names.map(rank), kind="stable")


@styled
def losses(history: pd.DataFrame, best: int | None, unit: str, title: str, note: str) -> Figure:
    """Total, reconstruction and divergence per epoch, training and validation."""
    figure = sheet(2.9, title, note)
    panels = grid(figure, 3, 3, left=0.75, top=0.3, gap=(0.55, 0))
    for axes, term in zip(panels, TERMS, strict=True):
        x, train, val = (history[name] for name in ("epoch", f"train_{term}", f"val_{term}"))
        axes.plot(x, train, color=BLUE, label="training")
        axes.plot(x, val, color=ORANGE, ls="--", label="validation")
        if best is not None:
            axes.axvline(best, color=MUTED, lw=0.8, ls=":", label=f"kept: {best}")
        axes.set_title(TERMS[term], loc="left")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    figure.axes[0].set_ylabel(unit)
    figure.axes[0].legend()
    return figure


@styled
def bars(table: pd.DataFrame, names: Sequence[str], quantities: Sequence[str],
         baselines: Mapping[str, pd.DataFrame], title: str, note: str) -> Figure:  # fmt: skip
    """Horizontal bars with 95 % intervals, one panel per quantity; baselines as marks beside them.

    `table` and every baseline have the same rows, in the order of `names`."""
    figure = sheet(0.21 * len(table) + 1.0, title, note)
    left, count = 0.35 + 0.068 * max(map(len, names)), len(quantities)
    panels = grid(figure, count, count, left=left, bottom=0.45, top=0.35, gap=(0.25, 0))
    y = np.arange(len(table))
    for axes, quantity in zip(panels, quantities, strict=True):
        _bars(axes, y, table, quantity, baselines)
        axes.set_yticks(y, names if axes is panels[0] else [], size=8.5, color=INK)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(table) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(NAMES[quantity])
        group = table["group"].to_numpy()
        for row in np.flatnonzero(group[1:] != group[:-1]):
            axes.axhline(row + 0.5, color=MUTED, lw=0.6)
    handles, labels = panels[0].get_legend_handles_labels()
    legend(figure, handles[::-1], labels[::-1])
    return figure


def _bars(axes: Axes, y: Values, table: pd.DataFrame, quantity: str,
          baselines: Mapping[str, pd.DataFrame]) -> None:  # fmt: skip
    value = table[quantity].to_numpy(float)
    error = _arms(table, quantity)
    shown = np.maximum(value, -1.0) if quantity == "skill" else value  # skill has no lower limit
    colour = np.where(value < 0, RED, BLUE) if quantity == "skill" else BLUE
    axes.barh(y, shown, 0.62, color=colour, alpha=0.85, label="this model")
    axes.errorbar(
        shown, y, xerr=np.where(shown == value, error, np.nan), fmt="none", ecolor=INK, elinewidth=1
    )
    for row in np.flatnonzero(shown > value).tolist():
        axes.text(-0.97, row, f"{value[row]:.1f}", color="white", size=7.5, va="center")
    for mark, (name, baseline) in zip("|x", baselines.items(), strict=False):
        if quantity in baseline and quantity != "skill" and baseline[quantity].notna().any():
            colour, size = (RED, 9) if mark == "|" else (INK, 5)
            axes.plot(baseline[quantity].to_numpy(float), y, mark, color=colour, ms=size, mew=1.6,
                      ls="", label=name)  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(4))
    if quantity == "skill":
        axes.axvline(0, color=INK, lw=0.8)
        axes.set_xlim(right=1)
    elif quantity == "auroc":
        axes.axvline(0.5, color=MUTED, lw=0.8, ls=":")


def _arms(table: pd.DataFrame, quantity: str) -> Values:
    """Down and up to the ends of the 95 % interval, [2, N]; of rates they differ."""
    if f"{quantity}_low" in table:
        ends = (
            table[quantity] - table[f"{quantity}_low"],
            table[f"{quantity}_high"] - table[quantity],
        )
        return np.stack([end.to_numpy(float) for end in ends])
    errors = table.get(f"{quantity}_se", pd.Series(np.nan, table.index))
    return np.tile(Z95 * errors.to_numpy(float), (2, 1))


@styled
def severity_curves(table: pd.DataFrame, quantity: str, clean: float,
                    title: str, note: str) -> Figure:  # fmt: skip
    """One panel per group, one line per corruption; severity 0 is the clean image."""
    groups = by_group(table)["group"].unique().tolist()
    figure, panels = _per_group(groups, 2.6, "severity", quantity, title, note)
    for group, axes in panels.items():
        members = table[table["group"] == group].groupby("corruption", sort=False)
        for colour, (name, part) in zip(CYCLE * 5, members, strict=False):
            part = part.sort_values("severity")
            x, y = part["severity"], part[quantity]
            axes.plot(np.r_[0, x], np.r_[clean, y], "o-", ms=3, color=colour,
                      label=str(name).replace("_", " "))  # fmt: skip
            axes.errorbar(x, y, _arms(part, quantity),
                          fmt="none", ecolor=colour, elinewidth=1)  # fmt: skip
        axes.legend(fontsize=7.5, labelcolor=INK)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


@styled
def heat_map(table: pd.DataFrame, quantity: str, title: str, note: str) -> Figure:
    """Corruption by severity, the value in each cell; colours centred on 0, cut at -1 and 1."""
    cells = by_group(table).pivot_table(
        index="corruption", columns="severity", values=quantity, sort=False
    )
    cells = cells[sorted(cells.columns)]
    figure = sheet(0.27 * len(cells) + 0.75, title, note)
    left = 0.35 + 0.075 * max(map(len, cells.index))
    (axes,) = grid(figure, 1, 1, left=left, bottom=0.5, top=0.15)
    value = cells.to_numpy(float)
    axes.imshow(value, cmap="PuOr", vmin=-1, vmax=1, aspect="auto")
    axes.grid(visible=False)
    axes.set_xticks(range(len(cells.columns)), [f"{name:g}" for name in cells.columns])
    axes.set_yticks(range(len(cells)), [name.replace("_", " ") for name in cells.index])
    axes.tick_params(length=0)
    axes.set_xlabel("severity")
    for (row, column), number in np.ndenumerate(value):
        if np.isfinite(number):
            axes.text(column, row, f"{number:.2f}", ha="center", va="center", size=8,
                      color="white" if abs(number) > 0.6 else INK)  # fmt: skip
    return figure


@styled
def roc(
    clean: Values, corrupted: Mapping[str, Mapping[str, Values]], title: str, note: str
) -> Figure:
    """ROC of the negative ELBO as a detector: one panel per group, one line per corruption."""
    x, y = "false alarms on clean images", "corrupted images found"
    figure, panels = _per_group(list(corrupted), 2.75, x, y, title, note)
    for group, axes in panels.items():
        _curves(axes, {name: (clean, scores) for name, scores in corrupted[group].items()})
    return figure


def _curves(axes: Axes, pairs: Mapping[str, tuple[Values, Values]]) -> None:
    """ROC of pairs of scores, what must be told apart second, with their areas."""
    areas = []
    for colour, (name, (inside, outside)) in zip(CYCLE * 5, pairs.items(), strict=False):
        alarms, found = roc_points(inside, outside)
        areas.append(float(np.trapezoid(found, alarms)))
        axes.plot(alarms, found, color=colour, lw=1.4, label=f"{name}  {areas[-1]:.3f}")
    axes.plot([0, 1], [0, 1], color=MUTED, lw=0.8, ls=":")
    axes.legend(
        loc="lower right" if np.mean(areas) > 0.5 else "upper left",  # where fewer curves are
        fontsize=7.5, title="AUROC", title_fontsize=7.5,
    )  # fmt: skip
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))


@styled
def foreign(
    sets: Mapping[str, Mapping[str, tuple[Values, Values]]], title: str, note: str
) -> Figure:
    """ROC of every score as a detector of foreign images: one panel per set."""
    x, y = "false alarms on own images", "foreign images found"
    figure, panels = _per_group(list(sets), 2.75, x, y, title, note)
    for name, axes in panels.items():
        _curves(axes, sets[name])
    return figure


def roc_points(clean: Values, corrupted: Values) -> tuple[Values, Values]:
    """False and true positive rates as the threshold falls through the distinct scores."""
    thresholds = np.unique(np.concatenate([clean, corrupted]))[::-1]

    def rate(scores: Values) -> Values:
        below: Values = np.searchsorted(np.sort(scores), thresholds)
        return np.concatenate([[0.0], (len(scores) - below) / len(scores)])

    return rate(clean), rate(corrupted)


def _per_group(groups: Sequence[str], height: float, x: str, y: str,
               title: str, note: str) -> tuple[Figure, dict[str, Axes]]:  # fmt: skip
    """A figure with one panel per group, named, labelled at its outer edges."""
    columns = min(3, len(groups))
    figure = sheet(height * -(-len(groups) // columns) + 0.4, title, note)
    panels = dict(
        zip(groups, grid(figure, len(groups), columns, gap=(0.2, 0.5), share=True), strict=True)
    )
    for place, (group, axes) in enumerate(panels.items()):
        axes.set_title(group, loc="left")
        if place % columns == 0:
            axes.set_ylabel(y)
        if place + columns >= len(groups):
            axes.set_xlabel(x)
            axes.tick_params(labelbottom=True)
    return figure, panels
