"""Values per image -> the table of quantities, aggregates over groups, warnings in words."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from robustvae.robustness import metrics
from robustvae.robustness.catalogue import QUANTITIES
from robustvae.robustness.metrics import Values

HEADLINE = ("noise", "blur", "photometric", "overlay")  # geometric stands apart
METHODS = ("model", "identity", "mean_image")
SOURCE = {  # numbers of the headline that are named otherwise than what they are made of
    "geometric_e_den": "e_den",
    "clean_e_den": "e_den",
    "worst": "e_den",
    "worst_e_den": "e_den",
    "skill_below_0": "skill",
    "constant_wins": "skill_const",
}
RATES = ("auroc", "fpr95", "probe")
SKILLS = ("skill", "skill_id", "skill_const")
AGAINST_CLEAN = (*SKILLS, "e_best", "auroc", "fpr95")  # the clean images themselves have none

Columns = dict[tuple[str, str], dict[str, Values]]  # (set, method) -> quantity -> [N]
Labels = dict[str, str | int | bool]  # what a row says of its set


def tabulate(
    columns: Columns,
    sets: Sequence[Labels],
    gaps: dict[str, str],
) -> tuple[pd.DataFrame, dict[str, str]]:
    """One row per set and method, a column per quantity and per standard error; all gaps' reasons.

    Rates have the ends of their 95 % interval too, which is not symmetric.
    `sets` have `name`, the first of them `clean`; `gaps` are the columns to leave empty, with why.
    """
    rows, reasons = [], dict(gaps)
    own = (q for found in columns.values() for q in found if q not in QUANTITIES)
    quantities = (*QUANTITIES, *dict.fromkeys(own))
    for labels in sets:
        name = str(labels["name"])
        for method in METHODS:
            values = columns[name, method]
            count = len(next(iter(values.values()), []))
            finite = {k: v for k, v in values.items() if np.isfinite(v).all()}
            for quantity in values.keys() - finite.keys():
                wrong = int((~np.isfinite(values[quantity])).sum())
                place = f"{name}.{method}.{quantity}"
                reasons[place] = f"not finite for {wrong} of {count} images"
            clean = columns["clean", method]
            constant = columns[name, "mean_image"].get("e_den")
            summary = metrics.summarise(finite, clean, constant)
            row: dict[str, Any] = {k: v for k, v in labels.items() if k != "name"}
            row |= {"method": method, "n": count}
            for quantity in quantities:
                missing = quantity in gaps or (name == "clean" and quantity in AGAINST_CLEAN)
                found = (np.nan, np.nan) if missing else summary.get(quantity, (np.nan, np.nan))
                row[quantity], row[f"{quantity}_se"] = found[:2]
                if quantity in RATES:
                    ends = found[2:] or (np.nan, np.nan)
                    row[f"{quantity}_low"], row[f"{quantity}_high"] = ends
            if "skill" in summary and name != "clean" and np.isnan(summary["skill"][0]):
                reasons[f"{name}.{method}.skill"] = "the images are those of the clean set"
            if method == "model" and "e_den" in finite and "psnr" not in summary:
                reasons[f"{name}.model.psnr"] = "infinite for images without any error"
            rows.append(row)
    return pd.DataFrame(rows), {f"robustness.{k}": v for k, v in sorted(reasons.items())}


def aggregate(table: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """Method -> group -> quantity: means within groups, and `headline`, the mean over the four.

    Geometric corruptions have no part in the headline: bringing the clean image back is not what
    one asks of a model there. A mean over sets of which one has no value is NaN.
    """
    result: dict[str, dict[str, dict[str, float]]] = {}
    corrupted = table[table["corruption"] != "clean"]
    own = (name for name in table if f"{name}_se" in table and name not in QUANTITIES)
    quantities = [*QUANTITIES, *own]
    for method, rows in corrupted.groupby("method", sort=False):
        groups = rows.groupby("group", sort=False)[quantities].mean(skipna=False)
        parts = {str(name): dict(values) for name, values in groups.iterrows()}
        counted = groups.loc[[name for name in HEADLINE if name in groups.index]]
        result[str(method)] = {"headline": dict(counted.mean(skipna=False)), **parts}
    return result


def headline(table: pd.DataFrame) -> dict[str, float | str | int | None]:
    """The few numbers that stand first: means over groups, clean error, worst corruption."""
    judged = _judged(table)
    groups = aggregate(table).get("model", {})
    means, geometric = groups.get("headline", {}), groups.get("geometric", {})
    errors = judged["e_den"]
    whole = len(judged) > 0 and bool(errors.notna().all())
    skills, constant = (_skills(judged, name) for name in ("skill", "skill_const"))
    return {
        "e_den": means.get("e_den"),
        "skill": means.get("skill"),
        "skill_id": means.get("skill_id"),
        "ssim_den": means.get("ssim_den"),
        "auroc": means.get("auroc"),
        "geometric_e_den": geometric.get("e_den"),
        "clean_e_den": _judged(table, ("clean",))["e_den"].iloc[0],
        "worst": _name(judged.sort_values("e_den").iloc[-1]) if whole else None,
        "worst_e_den": errors.max() if whole else None,
        "skill_below_0": int((skills < 0).sum()) if len(skills) else None,
        "constant_wins": int((constant < 0).sum()) if len(constant) else None,
    }


def headline_errors(columns: Columns, table: pd.DataFrame) -> dict[str, float]:
    """Standard errors of the headline's means, of which all corruptions share their images.

    Of a skill, by the delta method: what an image adds to it.
    """
    rows, added = _judged(table), dict[str, list[Values]]()
    of_group = rows.groupby("group")["group"].transform("size") * rows["group"].nunique()
    for share, (_, row) in zip(of_group, rows.iterrows(), strict=True):
        name = f"{row['corruption']}-{row['severity']}"
        values = dict(columns[name, "model"])
        for skill, base in (("skill", "e_best"), ("skill_id", "e_id"), ("skill_const", "e_const")):
            if np.isfinite(row[skill]) and row[base] > 0:
                of_base = columns[name, "mean_image"]["e_den"]
                if base == "e_id" or (base == "e_best" and row["e_id"] <= row["e_const"]):
                    of_base = values["e_id"]
                values[skill] = (values["e_den"] - (1 - row[skill]) * of_base) / row[base]
        for quantity in ("e_den", "ssim_den", *SKILLS):
            if quantity in values:
                added.setdefault(quantity, []).append(values[quantity] / share)
    whole = {q: np.sum(parts, 0) for q, parts in added.items() if len(parts) == len(rows)}
    return {quantity: metrics.mean(values)[1] for quantity, values in whole.items()}


def missing(table: pd.DataFrame, gaps: dict[str, str]) -> dict[str, str]:
    """Why numbers of the headline and means over groups are NaN or None.

    A quantity that no set has is no matter of a group: its reason is that of `gaps`.
    """
    reasons = {}
    for name, value in headline(table).items():
        quantity = SOURCE.get(name, name)
        if not pd.isna(value):
            continue
        part, which = _judged(table), "corruption of the headline groups"
        if name == "clean_e_den":
            part = _judged(table, ("clean",))
        elif name == "geometric_e_den":
            part, which = _judged(table, ("geometric",)), "geometric corruption"
        chosen = _without(part, quantity) if len(part) else f"no {which} was chosen"
        reasons[f"robustness.{name}"] = gaps.get(quantity, chosen)
    corrupted = table[table["corruption"] != "clean"]
    for method, groups in aggregate(table).items():
        rows = corrupted[corrupted["method"] == method]
        for group, values in groups.items():
            part = rows[rows["group"].isin(HEADLINE if group == "headline" else (group,))]
            for quantity, value in values.items():
                if np.isnan(value) and len(part) and rows[quantity].notna().any():
                    place = f"aggregates.{method}.{group}.{quantity}"
                    reasons[place] = _without(part, quantity)
    return reasons


def warnings(table: pd.DataFrame) -> list[str]:
    """What a reader must not overlook, one sentence each."""
    rows = table[(table["method"] == "model") & (table["corruption"] != "clean")]
    clean = table[table["corruption"] == "clean"].set_index("method")["e_den"]
    several = bool(rows.duplicated("corruption").any())
    found = []
    than = {"skill_id": "doing nothing", "skill_const": "a constant, the mean training image,"}
    for (name, base), geometric in itertools.product(than.items(), (False, True)):
        skills = _skills(rows[(rows["group"] == "geometric") == geometric], name)
        bad = skills[skills < 0]
        if len(bad):
            worse = f"skill below 0{' on average over severities' if several else ''}"
            counted = _count(len(bad), f"{'geometric ' if geometric else ''}corruption")
            listed = ", ".join(f"{name} ({skill:.3f})" for name, skill in bad.items())
            found.append(f"worse than {base} ({worse}) on {counted}: {listed}")
    missed = rows[rows["auroc"] < 0.5]
    if len(missed):
        counted = _count(len(missed), "set" if several else "corruption")
        listed = ", ".join(f"{_name(row)} ({row['auroc']:.3f})" for _, row in missed.iterrows())
        found.append(
            "corrupted images seem more likely than clean ones, AUROC below 0.5 on "
            f"{counted}: {listed}"
        )
    if clean["model"] >= clean["mean_image"]:  # False where e_den is left out
        found.append("clean images come back no better than the mean training image")
    return found


def _judged(table: pd.DataFrame, groups: Sequence[str] = HEADLINE) -> pd.DataFrame:
    """What the model makes of the sets of some groups."""
    return table[(table["method"] == "model") & table["group"].isin(groups)]


def shares(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """How much of the headline's error is each group's, and each corruption's, shares of 1."""
    rows = _judged(table)
    errors = rows.groupby(["group", "corruption"], sort=False)["e_den"].mean()
    weighed = errors / errors.groupby("group").transform("size")
    weighed = weighed / weighed.sum(skipna=False)
    if weighed.isna().any():
        return {}
    groups = weighed.groupby("group", sort=False).sum()
    return {"groups": dict(groups), "corruptions": dict(weighed.droplevel("group"))}


def _skills(rows: pd.DataFrame, name: str) -> "pd.Series[float]":
    """A skill of each corruption, the mean over its severities; none where one is missing."""
    return rows.groupby("corruption", sort=False)[name].mean(skipna=False).dropna()


def _without(rows: pd.DataFrame, quantity: str) -> str:
    names = [_name(row) for _, row in rows[rows[quantity].isna()].iterrows()]
    return f"no value for {', '.join(names)}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _name(row: pd.Series) -> str:
    return "clean" if row["corruption"] == "clean" else f"{row['corruption']}-{row['severity']}"
