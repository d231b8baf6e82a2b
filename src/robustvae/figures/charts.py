"""Charts of the tables: losses, robustness per corruption, severity, detection."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from robustvae.figures.style import (
    BLUE,
    CYCLE,
    INK,
    MUTED,
    ORANGE,
    RED,
    grid,
    sheet,
    styled,
)  # fmt: skip

Values = NDArray[Any]
GROUPS = ["noise", "blur", "photometric", "overlay", "geometric"]
TERMS = {"total": "total", "recon": "reconstruction", "divergence": "divergence"}
SPLITS = {"train": "training", "val": "validation"}
Z95 = 1.96  # half width of a normal 95 % interval in standard errors
NAMES = {
    "e_den": "error to the clean image, e_den (squared, per pixel)",
    "skill": "skill (1 - e_den / e_id)",
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
def losses(history: pd.DataFrame, best: int | None, title: str, note: str) -> Figure:
    """Total, reconstruction and divergence per epoch, training and validation."""
    figure = sheet(2.9, title, note)
    for axes, term in zip(grid(figure, 1, 3, top=0.3, gap=(0.55, 0)), TERMS, strict=True):
        for split, colour, dash in (("train", BLUE, "-"), ("val", ORANGE, "--")):
            column = history[f"{split}_{term}"]
            axes.plot(history["epoch"], column, color=colour, ls=dash, label=SPLITS[split])
        if best is not None:
            axes.axvline(best, color=MUTED, lw=0.8, ls=":", label="kept")
        axes.set_title(TERMS[term], loc="left")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    figure.axes[0].set_ylabel("nats per image")
    figure.axes[0].legend()
    return figure


@styled
def bars(table: pd.DataFrame, names: Sequence[str], quantities: Sequence[str],
         baselines: Mapping[str, pd.DataFrame], title: str, note: str) -> Figure:  # fmt: skip
    """Horizontal bars with 95 % intervals, one panel per quantity; baselines as marks beside them.

    `table` and every baseline have the same rows, in the order of `names`."""
    height = 0.21 * len(table) + 0.2
    figure = sheet(height + 0.8, title, note)
    left = 0.35 + 0.068 * max(map(len, names))
    panels = grid(figure, 1, len(quantities), left=left, bottom=0.45, top=0.35, gap=(0.25, 0))
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
    figure.legend(
        handles[::-1], labels[::-1], loc="upper left", ncols=3,
        bbox_to_anchor=(0, 1 - 0.52 / figure.get_size_inches()[1]),
    )  # fmt: skip
    return figure


def _bars(axes: Axes, y: Values, table: pd.DataFrame, quantity: str,
          baselines: Mapping[str, pd.DataFrame]) -> None:  # fmt: skip
    value = table[quantity].to_numpy(float)
    error = Z95 * table.get(f"{quantity}_se", pd.Series(np.nan, table.index)).to_numpy(float)
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


@styled
def severity_curves(table: pd.DataFrame, quantity: str, clean: float | None,
                    title: str, note: str) -> Figure:  # fmt: skip
    """One panel per group, one line per corruption; severity 0 is the clean image."""
    groups = list(dict.fromkeys(by_group(table)["group"]))
    columns = min(3, len(groups))
    lines = -(-len(groups) // columns)
    figure = sheet(2.6 * lines + 0.4, title, note)
    panels = grid(figure, lines, columns, gap=(0.2, 0.5), share=True)
    for axes, group in zip(panels, groups, strict=False):
        members = table[table["group"] == group]
        for colour, (name, part) in zip(
            CYCLE * 5, members.groupby("corruption", sort=False), strict=False
        ):
            part = part.sort_values("severity")
            x = np.r_[0, part["severity"]] if clean is not None else part["severity"].to_numpy()
            y = np.r_[clean, part[quantity]] if clean is not None else part[quantity].to_numpy()
            axes.plot(x, y, "o-", ms=3, color=colour, label=str(name).replace("_", " "))
            axes.errorbar(part["severity"], part[quantity], Z95 * part[f"{quantity}_se"],
                          fmt="none", ecolor=colour, elinewidth=1)  # fmt: skip
        axes.set_title(group, loc="left")
        axes.legend(fontsize=7.5, labelcolor=INK)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _finish_small_multiples(panels, len(groups), columns, "severity", quantity)
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
    columns = min(3, len(corrupted))
    lines = -(-len(corrupted) // columns)
    figure = sheet(2.75 * lines + 0.4, title, note)
    panels = grid(figure, lines, columns, gap=(0.2, 0.5), share=True)
    for axes, (group, members) in zip(panels, corrupted.items(), strict=False):
        for colour, (name, scores) in zip(CYCLE * 5, members.items(), strict=False):
            x, y = roc_points(clean, scores)
            area = float(np.trapezoid(y, x))
            axes.plot(x, y, color=colour, lw=1.4, label=f"{name}  {area:.3f}")
        axes.plot([0, 1], [0, 1], color=MUTED, lw=0.8, ls=":")
        axes.set_title(group, loc="left")
        axes.legend(loc="lower right", fontsize=7.5, title="AUROC", title_fontsize=7.5)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    _finish_small_multiples(
        panels, len(corrupted), columns, "false alarms on clean images", "corrupted images found"
    )
    return figure


def roc_points(clean: Values, corrupted: Values) -> tuple[Values, Values]:
    """False and true positive rates as the threshold falls through the distinct scores."""
    score = np.concatenate([clean, corrupted]).astype(float)
    positive = np.repeat([0.0, 1.0], [len(clean), len(corrupted)])
    order = np.argsort(-score, kind="stable")
    last = np.r_[np.flatnonzero(np.diff(score[order])), len(score) - 1]  # ties count half
    found = np.cumsum(positive[order])[last]
    alarms = last + 1 - found
    return np.r_[0, alarms / len(clean)], np.r_[0, found / len(corrupted)]


def _finish_small_multiples(
    panels: Sequence[Axes], used: int, columns: int, x: str, y: str
) -> None:
    for place, axes in enumerate(panels):
        axes.set_visible(place < used)
        if place % columns == 0:
            axes.set_ylabel(y)
        if place + columns >= used:
            axes.set_xlabel(x)
            axes.tick_params(labelbottom=True)
