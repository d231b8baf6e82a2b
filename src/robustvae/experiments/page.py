"""A comparison as tables (CSV, Markdown), one figure per quantity, and one HTML page."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from robustvae.experiments.compare import QUANTITIES, Group, differences, summary
from robustvae.experiments.statistics import ENOUGH
from robustvae.reporting import sheet
from robustvae.reporting.figures import style
from robustvae.reporting.figures.style import DPI
from robustvae.reporting.sheet import Table
from robustvae.runtime import files

INTRO = (
    "Training runs that differ in run.seed alone make a group. ± is half a 95 % t interval over "
    "seeds, (n = k) says that a quantity is known for only k of them. RE = 100 · e_den / e_den "
    "of the baseline, per corruption, the baseline being the mean over its seeds; mRE: mean "
    "over the groups noise, blur, photometric, overlay of the mean within the group. Relative "
    "mRE: 100 times the mean over groups of Σ (e − e_clean) / Σ (e_base − e_base,clean). "
    "Geometric corruptions stand apart. Differences are between runs of the same seed; their p "
    "values are of a t test, the last column holds for all groups of a quantity together "
    "(Holm). "
)


def write(groups: Sequence[Group], notes: Sequence[str], out: Path) -> None:
    """compare.csv, differences.csv, compare.md, QUANTITY.png, compare.html."""
    means, paired = summary(groups), differences(groups)
    for name, frame in (("compare", means), ("differences", paired)):
        with files.replace(out / f"{name}.csv") as temporary:
            frame.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
    known = means.groupby("quantity")["mean"].count()
    shown = [quantity for quantity in QUANTITIES if known[quantity]]
    pictures = []
    for quantity in shown:
        heading, path = QUANTITIES[quantity][1], out / f"{quantity}.png"
        with files.replace(path) as temporary:
            style.save(figure(groups, means, quantity), temporary, DPI)
        pictures.append((heading, sheet.uri(path.read_bytes())))
    listed, notes = list(tables(means, paired, shown)), [*notes, *remarks(means, paired)]
    texts = {
        "md": markdown(listed, notes),
        "html": sheet.sheet("Comparison over seeds", INTRO, notes, listed, pictures),
    }
    for suffix, text in texts.items():
        with files.replace(out / f"compare.{suffix}") as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")


@style.styled
def figure(groups: Sequence[Group], table: pd.DataFrame, quantity: str) -> Any:
    """matplotlib Figure, one row per group: seeds as dots, their mean, the 95 % t interval."""
    names = [group.label for group in groups]
    size = 0.3 * len(groups) + 0.2
    seeds = sorted({len(group.runs) for group in groups})
    count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    note = f"dots: seeds, {count} per row · line: mean · bar: 95 % t interval over seeds"
    heading = QUANTITIES[quantity][1]
    made = style.sheet(size + 0.7, heading, note)
    left = 0.35 + 0.068 * max(map(len, names))
    (axes,) = style.grid(made, 1, 1, left=left, bottom=0.45, top=0.1)
    rows = table[table["quantity"] == quantity]
    for place, group in enumerate(groups):
        values = group.values[quantity]
        axes.plot(values, [place] * len(values), "o", color=style.BLUE, ms=4, alpha=0.6)
    y = np.arange(len(groups))
    axes.plot(rows["mean"], y, "|", color=style.INK, ms=14, mew=1.8)
    axes.hlines(y, rows["low"], rows["high"], color=style.INK, lw=1.2)
    axes.set_yticks(y, names)
    axes.set_ylim(len(groups) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(heading)
    return made


def markdown(tables: Sequence[Table], notes: Sequence[str]) -> str:
    """The tables and notes for a README."""
    parts = []
    for title, head, rows in tables:
        lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
        parts.append(f"## {title}\n\n" + "\n".join(lines))
    if notes:
        parts.append("\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts) + "\n"


def tables(means: pd.DataFrame, paired: pd.DataFrame, shown: Sequence[str]) -> Iterator[Table]:
    """Both tables as text, groups in their order."""
    cells = means[means["quantity"].isin(shown)].assign(
        cell=lambda frame: frame.apply(_cell, axis=1)
    )
    rows = [
        [str(label), str(part["runs"].iloc[0]), *part["cell"]]
        for label, part in cells.groupby("group", sort=False)
    ]
    yield "Means over seeds", ["group", "seeds", *shown], rows
    if len(paired):
        head = ["quantity", "group", "baseline", "pairs", "difference", "p", "p, Holm"]
        columns = ["quantity", "group", "baseline", "seeds", "cell", "p", "p_holm"]
        text = paired.assign(
            cell=paired.apply(_cell, axis=1), seeds=paired["seeds"].astype(str),
            p=paired["p"].map(_number), p_holm=paired["p_holm"].map(_number),
        )  # fmt: skip
        yield "Differences from the baseline, paired by seed", head, text[columns].values.tolist()


def _cell(row: pd.Series) -> str:
    """Mean, half the 95 % interval where there is one, the number of seeds where some are null."""
    text = _number(row["mean"])
    if not math.isnan(row["low"]):
        text += f" ± {(row['high'] - row['low']) / 2:.2g}"
    return f"{text} (n = {row['seeds']})" if 0 < row["seeds"] < row["runs"] else text


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4g}"


def remarks(means: pd.DataFrame, paired: pd.DataFrame) -> Iterator[str]:
    """Where intervals, tests and relative errors are left out, and why."""
    runs = means.groupby("group", sort=False)["runs"].first()
    if (runs < ENOUGH).any():
        few = ", ".join(f"{label} ({n})" for label, n in runs[runs < ENOUGH].items())
        yield f"no interval below {ENOUGH} seeds: {few}"
    for frame, what in ((means, "interval"), (paired, "interval or test of the difference")):
        if len(frame):
            equal = frame[(frame["seeds"] >= ENOUGH) & frame["low"].isna()]
            for quantity, part in equal.groupby("quantity", sort=False):
                labels = "; ".join(part["group"])
                yield f"no {what} where all seeds agree up to rounding: {quantity} ({labels})"
    known = means.pivot(index="group", columns="quantity", values="seeds").loc[runs.index]
    flat = known.index[known["relative_mRE"] < known["mRE"]]
    if len(flat):
        yield (
            "no relative mRE where the baseline's error does not rise above its clean error under "
            f"some group of corruptions: {'; '.join(flat)}"
        )
