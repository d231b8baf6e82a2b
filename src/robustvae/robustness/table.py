"""Values per image -> the table of quantities, aggregates over groups, warnings in words."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from robustvae import metrics, seeding
from robustvae.metrics import Values
from robustvae.params import EvaluateSettings

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
    one asks of a model there.
    """
    result: dict[str, dict[str, dict[str, float]]] = {}
    corrupted = table[table["corruption"] != "clean"]
    for method, rows in corrupted.groupby("method", sort=False):
        groups = rows.groupby("group", sort=False)[list(QUANTITIES)].mean()
        parts = {str(name): dict(values) for name, values in groups.iterrows()}
        counted = groups.loc[[name for name in HEADLINE if name in groups.index]]
        result[str(method)] = {"headline": dict(counted.mean(skipna=False)), **parts}
    return result


def headline(table: pd.DataFrame) -> dict[str, float | str | int | None]:
    """The few numbers that stand first: means over groups, clean error, worst corruption."""
    rows = table[table["method"] == "model"]
    judged = rows[rows["group"].isin(HEADLINE)]
    groups = aggregate(table).get("model", {})
    means, geometric = groups.get("headline", {}), groups.get("geometric", {})
    known = judged.dropna(subset="e_den").sort_values("e_den")
    worst = known.iloc[-1] if len(known) else None
    return {
        "e_den": means.get("e_den"),
        "skill": means.get("skill"),
        "ssim_den": means.get("ssim_den"),
        "auroc": means.get("auroc"),
        "geometric_e_den": geometric.get("e_den"),
        "clean_e_den": rows[rows["corruption"] == "clean"]["e_den"].iloc[0],
        "worst": None if worst is None else _name(worst),
        "worst_e_den": None if worst is None else worst["e_den"],
        "skill_below_0": int((judged["skill"] < 0).sum()),
    }


def warnings(table: pd.DataFrame) -> list[str]:
    """What a reader must not overlook, one sentence each."""
    rows = table[(table["method"] == "model") & (table["corruption"] != "clean")]
    clean = table[table["corruption"] == "clean"].set_index("method")["e_den"]
    found = []
    for kind, geometric in (("", False), ("geometric ", True)):
        bad = rows[(rows["skill"] < 0) & ((rows["group"] == "geometric") == geometric)]
        if len(bad):
            worse = "worse than doing nothing (skill below 0)"
            found.append(f"{worse} on {len(bad)} {kind}corruptions: {_listed(bad, 'skill')}")
    missed = rows[rows["auroc"] < 0.5]
    if len(missed):
        listed = _listed(missed, "auroc")
        found.append(
            f"corrupted images seem more likely than clean ones, AUROC below 0.5: {listed}"
        )
    if clean["model"] >= clean["mean_image"]:  # False where e_den is left out
        found.append("clean images come back no better than the mean training image")
    return found


def _name(row: pd.Series) -> str:
    return f"{row['corruption']}-{row['severity']}"


def _listed(rows: pd.DataFrame, quantity: str) -> str:
    return ", ".join(f"{_name(row)} ({row[quantity]:.3f})" for _, row in rows.iterrows())
