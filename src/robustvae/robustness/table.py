"""Values per image -> the table of quantities, aggregates over groups, warnings in words."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from robustvae.params import EvaluateSettings
from robustvae.robustness import metrics
from robustvae.robustness.metrics import Values
from robustvae.runtime import seeding

HEADLINE = ("noise", "blur", "photometric", "overlay")  # geometric stands apart
METHODS = ("model", "identity", "mean_image")
OF_METRIC = {
    "e_den": ("e_id", "e_den", "skill"),
    "e_self": ("e_self",),
    "e_stab": ("e_stab",),
    "ssim_den": ("ssim_id", "ssim_den"),
    "delta_elbo": ("neg_elbo", "delta_elbo", "auroc", "fpr95"),
    "drift": ("drift",),
    "skl": ("skl",),
    "probe": ("probe",),
}
QUANTITIES = tuple(name for names in OF_METRIC.values() for name in names)
SOURCE = {  # numbers of the headline that are named otherwise than what they are made of
    "geometric_e_den": "e_den",
    "clean_e_den": "e_den",
    "worst": "e_den",
    "worst_e_den": "e_den",
    "skill_below_0": "skill",
}
AGAINST_CLEAN = ("skill", "auroc", "fpr95")  # the clean images themselves have none

Columns = dict[tuple[str, str], dict[str, Values]]  # (set, method) -> quantity -> [N]
Labels = dict[str, str | int | bool]  # what a row says of its set


def tabulate(
    columns: Columns,
    sets: Sequence[Labels],
    settings: EvaluateSettings,
    seed: int,
    gaps: dict[str, str],
) -> tuple[pd.DataFrame, dict[str, str]]:
    """One row per set and method, a column per quantity and per standard error; all gaps' reasons.

    `sets` have `name`, the first of them `clean`; `gaps` are the columns to leave empty, with why.
    """
    rows, reasons = [], dict(gaps)
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
            rng = seeding.numpy_rng(seed, "evaluate", "bootstrap", name)
            clean = columns["clean", method]
            summary = metrics.summarise(finite, clean, rng, settings.bootstrap)
            row: dict[str, Any] = {k: v for k, v in labels.items() if k != "name"}
            row |= {"method": method, "n": count}
            for quantity in QUANTITIES:
                missing = quantity in gaps or (name == "clean" and quantity in AGAINST_CLEAN)
                pair = (np.nan, np.nan) if missing else summary.get(quantity, (np.nan, np.nan))
                row[quantity], row[f"{quantity}_se"] = pair
            if "skill" in summary and name != "clean" and np.isnan(summary["skill"][0]):
                reasons[f"{name}.{method}.skill"] = "the images are those of the clean set"
            rows.append(row)
    return pd.DataFrame(rows), {f"robustness.{k}": v for k, v in sorted(reasons.items())}


def aggregate(table: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """Method -> group -> quantity: means within groups, and `headline`, the mean over the four.

    Geometric corruptions have no part in the headline: bringing the clean image back is not what
    one asks of a model there. A mean over sets of which one has no value is NaN.
    """
    result: dict[str, dict[str, dict[str, float]]] = {}
    corrupted = table[table["corruption"] != "clean"]
    for method, rows in corrupted.groupby("method", sort=False):
        groups = rows.groupby("group", sort=False)[list(QUANTITIES)].mean(skipna=False)
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
    skills = _skills(judged)
    return {
        "e_den": means.get("e_den"),
        "skill": means.get("skill"),
        "ssim_den": means.get("ssim_den"),
        "auroc": means.get("auroc"),
        "geometric_e_den": geometric.get("e_den"),
        "clean_e_den": _judged(table, ("clean",))["e_den"].iloc[0],
        "worst": _name(judged.sort_values("e_den").iloc[-1]) if whole else None,
        "worst_e_den": errors.max() if whole else None,
        "skill_below_0": int((skills < 0).sum()) if len(skills) else None,
    }


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
    for kind, geometric in (("", False), ("geometric ", True)):
        skills = _skills(rows[(rows["group"] == "geometric") == geometric])
        bad = skills[skills < 0]
        if len(bad):
            worse = f"skill below 0{' on average over severities' if several else ''}"
            counted = _count(len(bad), f"{kind}corruption")
            listed = ", ".join(f"{name} ({skill:.3f})" for name, skill in bad.items())
            found.append(f"worse than doing nothing ({worse}) on {counted}: {listed}")
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


def _skills(rows: pd.DataFrame) -> "pd.Series[float]":
    """Skill of each corruption, the mean over its severities; none where one is missing."""
    return rows.groupby("corruption", sort=False)["skill"].mean(skipna=False).dropna()


def _without(rows: pd.DataFrame, quantity: str) -> str:
    names = [_name(row) for _, row in rows[rows[quantity].isna()].iterrows()]
    return f"no value for {', '.join(names)}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _name(row: pd.Series) -> str:
    return "clean" if row["corruption"] == "clean" else f"{row['corruption']}-{row['severity']}"
