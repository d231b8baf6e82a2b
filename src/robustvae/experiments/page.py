"""A comparison as tables (CSV, Markdown), one figure per quantity, and one HTML page."""

import math
import textwrap
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from robustvae.errors import UserError
from robustvae.experiments import together as rank
from robustvae.experiments.compare import QUANTITIES, Group
from robustvae.experiments.statistics import ENOUGH
from robustvae.reporting import sheet
from robustvae.reporting.figures import style
from robustvae.reporting.figures.style import DPI
from robustvae.reporting.sheet import Table
from robustvae.robustness.inference import LEVEL
from robustvae.runtime import files

WIDE = 48  # characters of a group's name on one line of a figure
INTRO = (
    "Training runs that differ in run.seed alone make a group. ± is half a 95 % t interval "
    "over seeds, [ ] a 95 % interval, (n = k) says that a quantity is known for only k of "
    "them. RE = e / e of the baseline's run of the same seed, per corruption; mRE, in per "
    "cent: exp of the mean over the groups noise, blur, photometric, overlay of the mean "
    "within the group of log RE. Relative mRE: the same of one ratio per group, Σ (e − "
    "e_clean) / Σ (e_base − e_base,clean). Geometric corruptions stand apart. Against the "
    "baseline: errors as ratios in per cent, others as differences, paired by seed; p of a t "
    "test (of logs, for ratios). Holm: together for all comparisons of the table; * marks "
    "those below 5 %. Detectable: the effect that is found with a chance of 80 % at this "
    "spread and number of seeds. Equal: two one-sided t tests against the margin. "
)


def write(
    groups: Sequence[Group],
    means: pd.DataFrame,
    paired: pd.DataFrame,
    notes: Sequence[str],
    out: Path,
    together: Sequence[str],
) -> None:
    """compare.csv, differences.csv, compare.md, QUANTITY.png, compare.html.

    `means` and `paired`: of `judging.summary` and `judging.differences`.
    """
    for name, frame in (("compare", means), ("differences", paired)):
        with files.replace(out / f"{name}.csv") as temporary:
            frame.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
    known = means.groupby("quantity")["mean"].count()
    shown = [quantity for quantity in QUANTITIES if known[quantity]]
    listed = [*glance(paired), *tables(means, paired, shown)]
    drawn = {q: (QUANTITIES[q].heading, partial(figure, groups, means, q)) for q in shown}
    if together:
        listed.append(rank.table(rank.correlations(groups, together)))
        drawn["together"] = ", ".join(together), partial(rank.figure, groups, means, together)
    pictures = []
    for name, (heading, draw) in drawn.items():
        path = out / f"{name}.png"
        with files.replace(path) as temporary:
            style.save(draw(), temporary, DPI)
        pictures.append((heading, sheet.uri(path.read_bytes())))
    notes = [*notes, *remarks(groups, means, paired)]
    texts = {
        "md": markdown(listed, notes),
        "html": sheet.sheet("Comparison over seeds", INTRO, notes, listed, pictures),
    }
    for suffix, text in texts.items():
        with files.replace(out / f"compare.{suffix}") as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")


def study(
    groups: Sequence[Group],
    means: pd.DataFrame,
    paired: pd.DataFrame,
    judged: Sequence[str],
    together: Sequence[str],
) -> str:
    """The tables of a published study: what is judged, and the comparisons in the first of it."""
    first, _, *rest = tables(means, paired, judged)
    of_first = [
        (
            f"{judged[0]}: {title.lower()}",
            head[1:],
            [row[1:] for row in rows if row[0] == judged[0]],
        )
        for title, head, rows in rest
    ]
    last = [rank.table(rank.correlations(groups, together))] if together else []
    return markdown([first, *of_first, *last], list(remarks(groups, means, paired)))


def put(path: Path, name: str, made: str) -> None:
    """Write a study's tables into a page, between the marks that name it."""
    start, end = (f"<!-- {word} of {name} -->\n" for word in ("tables", "end"))
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); name a page") from None
    before, found, rest = text.partition(start)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise UserError(f"{path}: lacks the lines {start.strip()} and {end.strip()}; add them")
    with files.replace(path) as temporary:
        whole = f"{before}{start}\n{made}\n{end}{after}"
        temporary.write_text(whole, encoding="utf-8", newline="\n")


@style.styled
def figure(groups: Sequence[Group], table: pd.DataFrame, quantity: str) -> Any:
    """matplotlib Figure, one row per group: seeds as dots, their mean, the 95 % t interval."""
    names = [textwrap.fill(group.label, WIDE) for group in groups]
    size = len(groups) * (0.1 + 0.2 * max(name.count("\n") + 1 for name in names)) + 0.2
    seeds = sorted({len(group.runs) for group in groups})
    count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    note = f"dots: seeds, {count} per row · line: mean · bar: 95 % t interval over seeds"
    heading = QUANTITIES[quantity].heading
    made = style.sheet(size + 0.7, heading, note)
    left = 0.35 + 0.068 * max(len(line) for name in names for line in name.splitlines())
    (axes,) = style.grid(made, 1, 1, left=left, bottom=0.45, top=0.1)
    rows = table[table["quantity"] == quantity]
    y, values = np.arange(len(groups)), [group.values[quantity] for group in groups]
    dots = np.concatenate(values), np.repeat(y, [len(part) for part in values])
    axes.plot(*dots, "o", color=style.BLUE, ms=4, alpha=0.6)
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
        parts.append(f"### {title}\n\n" + "\n".join(lines))
    if notes:
        parts.append("\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts) + "\n"


def glance(paired: pd.DataFrame) -> Iterator[Table]:
    """A row per group: each quantity against the baseline, and what may be said of it."""
    if not len(paired):
        return
    of = paired.assign(cell=paired.apply(_judged, axis=1)).pivot(
        index="group", columns="quantity", values="cell"
    )
    of = of.loc[paired["group"].unique(), paired["quantity"].unique()].fillna("–")
    bases = paired["baseline"].unique()
    base = bases[0] if len(bases) == 1 else "the baseline of each"
    yield f"Against {base}", ["group", *of], of.reset_index().values.tolist()


def _judged(row: pd.Series) -> str:
    """A ratio in per cent or a difference, with its interval; better or worse only if sure."""
    good, bad = ("lower", "higher") if QUANTITIES[row["quantity"]].lower else ("higher", "lower")
    word = str(row["verdict"]).replace(good, "better").replace(bad, "worse")
    unit = f" {row['unit']}" if row["unit"] else ""
    return f"{_cell(row)}{unit}: {word}"


def tables(means: pd.DataFrame, paired: pd.DataFrame, shown: Sequence[str]) -> Iterator[Table]:
    """Means, worst seeds and comparisons as text, groups in their order."""
    part = pd.concat([means[means["quantity"] == quantity] for quantity in shown])
    sure = paired[paired["p_holm"] < LEVEL] if len(paired) else paired
    stars = set(zip(sure["quantity"], sure["group"], strict=True)) if len(sure) else set()
    marks = ["*" * (pair in stars) for pair in zip(part["quantity"], part["group"], strict=True)]
    part["cell"], part["least"] = part.apply(_cell, axis=1) + marks, part["worst"].map(_number)
    yield "Means over seeds", ["group", "seeds", *shown], _wide(part, "cell")
    yield "Worst of the seeds", ["group", "seeds", *shown], _wide(part, "least")
    if len(paired):
        head = {"quantity": "quantity", "group": "group", "baseline": "baseline", "seeds": "pairs",
                "cell": "ratio, % or difference", "p": "p", "p_holm": "p, Holm",
                "detectable": "detectable", "seeds_needed": "seeds for the margin",
                "p_equal_holm": "p of not equal, Holm", "verdict": "verdict"}  # fmt: skip
        text = paired.assign(
            cell=paired.apply(_cell, axis=1), seeds=paired["seeds"].astype(str),
            detectable=paired.apply(_detectable, axis=1),
            seeds_needed=paired["seeds_needed"].map(_number),
            **{name: paired[name].map(_number) for name in ("p", "p_holm", "p_equal_holm")},
        )  # fmt: skip
        title = "Against the baseline, paired by seed"
        yield title, list(head.values()), text[list(head)].values.tolist()


def _wide(part: pd.DataFrame, column: str) -> list[list[str]]:
    groups = part.groupby("group", sort=False)
    return [[str(label), str(rows["runs"].iloc[0]), *rows[column]] for label, rows in groups]


def _cell(row: pd.Series) -> str:
    """Mean, its 95 % interval where there is one, the number of seeds where some are null.

    A ratio's interval is not symmetric: both ends are shown.
    """
    text = _number(row["mean"])
    if not math.isnan(row["low"]):
        ratio = row.get("unit") == "%" or QUANTITIES[row["quantity"]].place is None
        half = f" ± {(row['high'] - row['low']) / 2:.2g}"
        text += f" [{_number(row['low'])}, {_number(row['high'])}]" if ratio else half
    return f"{text} (n = {row['seeds']})" if 0 < row["seeds"] < row["runs"] else text


def _detectable(row: pd.Series) -> str:
    if math.isnan(row["detectable"]):
        return "–"
    return f"{_short(row['detectable'])}{' %' if row['unit'] else ''}"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4g}"


def remarks(groups: Sequence[Group], means: pd.DataFrame, paired: pd.DataFrame) -> Iterator[str]:
    """Where intervals, tests and relative errors are left out, and why; what was looked for."""
    runs = means.groupby("group", sort=False)["runs"].first()
    if (runs < ENOUGH).any():
        few = ", ".join(f"{label} ({n})" for label, n in runs[runs < ENOUGH].items())
        yield f"no interval below {ENOUGH} seeds: {few}"
    own = [group.label for group in groups if group.base is group]  # 100 % of themselves
    itself = means["group"].isin(own) & means["quantity"].map(lambda q: not QUANTITIES[q].place)
    for frame, what in ((means[~itself], "interval"), (paired, "interval or test of the pairs")):
        if len(frame):
            equal = frame[(frame["seeds"] >= ENOUGH) & frame["low"].isna()]
            for quantity, part in equal.groupby("quantity", sort=False):
                labels = "; ".join(part["group"])
                yield f"no {what} where all seeds agree up to rounding: {quantity} ({labels})"
    known = means.pivot(index="group", columns="quantity", values="seeds").loc[runs.index]
    flat = known.index[known["relative_mRE"] < known["mRE"]]
    if len(flat):
        yield (
            "no relative mRE where an error, or the baseline's, does not rise above its clean "
            f"error under some group of corruptions: {'; '.join(flat)}"
        )
    if len(paired) and paired["p"].notna().any():
        yield _looked_for(paired)


def _looked_for(paired: pd.DataFrame) -> str:
    """What this many seeds can show at all."""
    tested = paired[paired["p"].notna()]
    unsure = tested[tested["verdict"] == "cannot tell"]
    said = (
        f"{len(tested)} comparisons, corrected for each other (Holm): any star, 'higher' or "
        f"'lower' is wrong in {100 * LEVEL:g} % of such tables, and so is any 'equal'; "
        f"{len(unsure)} times the seeds cannot tell"
    )
    first = tested[tested["quantity"] == tested["quantity"].iloc[0]]
    least, most = (
        _detectable(first.loc[first["detectable"].idxmin()]),
        _detectable(first.loc[first["detectable"].idxmax()]),
    )
    margin = f"{first['margin'].iloc[0]:g}{' %' if first['unit'].iloc[0] else ''}"
    needed = first["seeds_needed"].max(skipna=False)
    many = "more than ten thousand" if math.isnan(needed) else f"{needed:.0f}"
    span = least if least == most else f"{least} to {most}"
    return (
        f"{said}. In {first['quantity'].iloc[0]} an effect of {span} would be found with a chance "
        f"of 80 %; one of {margin} in every comparison would need {many} seeds"
    )
