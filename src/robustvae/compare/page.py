"""A comparison as tables (CSV, Markdown), one figure per quantity, and one HTML page."""

import base64
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from robustvae import files
from robustvae.compare import QUANTITIES, Group, differences, summary
from robustvae.compare.statistics import ENOUGH
from robustvae.figures import style

HEADINGS = {
    "e_den": "error to the clean image, squared, per pixel",
    "mRE": "mRE, % of the baseline's error",
    "relative_mRE": "relative mRE, % of the baseline's rise in error",
    "skill": "skill, 1 perfect, 0 as doing nothing",
    "ssim_den": "SSIM with the clean image",
    "auroc": "AUROC of the negative ELBO",
    "clean_e_den": "error on clean images, squared, per pixel",
    "geometric_e_den": "error to the clean image, geometric corruptions",
    "geometric_mRE": "mRE of the geometric corruptions, %",
    "skill_below_0": "corruptions worse than doing nothing",
    "active_units": "active units",
    "log_likelihood": "log-likelihood, best bound, nats",
}
DPI = 110


def write(groups: Sequence[Group], notes: Sequence[str], out: Path) -> None:
    """compare.csv, differences.csv, compare.md, QUANTITY.png, compare.html."""
    table, paired = summary(groups), differences(groups)
    notes = [*notes, *_few(groups)]
    for name, frame in (("compare", table), ("differences", paired)):
        with files.replace(out / f"{name}.csv") as temporary:
            frame.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
    shown = [q for q in QUANTITIES if table.loc[table["quantity"] == q, "mean"].notna().any()]
    pictures = []
    for quantity in shown:
        with files.replace(out / f"{quantity}.png") as temporary:
            style.save(figure(groups, table, quantity), temporary, DPI)
        data = base64.b64encode((out / f"{quantity}.png").read_bytes()).decode()
        pictures.append((HEADINGS[quantity], f"data:image/png;base64,{data}"))
    head, rows = _means(groups, table, shown)
    tables = [("Means over seeds", head, rows)]
    if len(paired):
        tables.append(("Differences from the baseline, paired by seed", *_paired(paired)))
    _text(out / "compare.md", markdown(tables, notes))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent.parent), autoescape=True,
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    content = {"tables": tables, "notes": notes, "pictures": pictures}
    _text(out / "compare.html", environment.get_template("compare.html").render(content))


@style.styled
def figure(groups: Sequence[Group], table: pd.DataFrame, quantity: str) -> Any:
    """matplotlib Figure, one row per group: seeds as dots, their mean, the 95 % t interval."""
    names = [group.label for group in groups]
    size = 0.3 * len(groups) + 0.2
    seeds = sorted({len(group.runs) for group in groups})
    count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    note = f"dots: seeds, {count} per row · line: mean · bar: 95 % t interval over seeds"
    made = style.sheet(size + 0.7, HEADINGS[quantity], note)
    left = 0.35 + 0.068 * max(map(len, names))
    (axes,) = style.grid(made, 1, 1, left=left, bottom=0.45, top=0.1)
    rows = table[table["quantity"] == quantity]
    for place, group in enumerate(groups):
        values = list(group.values(quantity).values())
        axes.plot(values, [place] * len(values), "o", color=style.BLUE, ms=4, alpha=0.6)
    y = np.arange(len(groups))
    axes.plot(rows["mean"], y, "|", color=style.INK, ms=14, mew=1.8)
    axes.hlines(y, rows["low"], rows["high"], color=style.INK, lw=1.2)
    axes.set_yticks(y, names)
    axes.set_ylim(len(groups) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(HEADINGS[quantity])
    return made


def markdown(tables: Sequence[tuple[str, list[str], list[list[str]]]], notes: Sequence[str]) -> str:
    """The tables and notes for a README."""
    parts = []
    for title, head, rows in tables:
        lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
        parts.append(f"## {title}\n\n" + "\n".join(lines))
    if notes:
        parts.append("\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts) + "\n"


def _means(
    groups: Sequence[Group], table: pd.DataFrame, shown: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    cells = table.set_index(["group", "quantity"])
    rows = []
    for group in groups:
        found = [cells.loc[(group.label, quantity)] for quantity in shown]
        rows.append([group.label, str(len(group.runs)), *map(_cell, found)])
    return ["group", "seeds", *shown], rows


def _paired(paired: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    rows = [
        [
            str(row["quantity"]), str(row["group"]), str(row["baseline"]), str(row["pairs"]),
            _cell(row), _number(row["p"]), _number(row["p_holm"]),
        ]
        for _, row in paired.iterrows()
    ]  # fmt: skip
    head = ["quantity", "group", "baseline", "pairs", "difference", "p", "p, Holm"]
    return head, rows


def _cell(row: Any) -> str:
    """Mean, and half the 95 % interval where there is one."""
    text = _number(row["mean"])
    return text if math.isnan(row["low"]) else f"{text} ± {(row['high'] - row['low']) / 2:.2g}"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4g}"


def _few(groups: Sequence[Group]) -> list[str]:
    found = [f"{g.label} ({len(g.runs)})" for g in groups if len(g.runs) < ENOUGH]
    notes = [f"no interval below {ENOUGH} seeds: {', '.join(found)}"] if found else []
    if any(group.base is None for group in groups):
        notes.append("no baseline (KL, beta 1) for some groups: no relative errors or differences")
    return notes


def _text(path: Path, text: str) -> None:
    with files.replace(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
