"""Groups of runs -> means over seeds, and what may be said of their differences from a baseline."""

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd

from robustvae.experiments.compare import QUANTITIES, Group
from robustvae.experiments.statistics import (
    detectable,
    equivalence,
    estimate,
    estimate_ratio,
    seeds_needed,
)
from robustvae.robustness.inference import LEVEL, holm

# What a comparison is about: its tests are corrected for each other, so that each costs the rest.
JUDGED = ("mRE", "relative_mRE", "geometric_mRE", "clean_e_den", "auroc", "active_units")
MARGIN = 0.05  # of a ratio: within it two errors are equal for practical purposes
Row = dict[str, str | int | float]
JUDGEMENT = ("detectable", "seeds_needed", "p_equal")


def summary(groups: Sequence[Group]) -> pd.DataFrame:
    """One row per group and quantity: mean, t interval, worst seed, seeds known, runs there are."""
    rows = []
    for one, (name, quantity) in product(groups, QUANTITIES.items()):
        values = one.values[name]
        found = estimate(values) if quantity.place else estimate_ratio(values)
        worst = values.max() if quantity.lower else values.min()
        row: Row = {"group": one.label, "quantity": name, "runs": len(one.runs)}
        rows.append(row | found | {"worst": float(worst)})
    return pd.DataFrame(rows).drop(columns="p")


def differences(
    groups: Sequence[Group], judged: Sequence[str] = JUDGED, margin: float = MARGIN
) -> pd.DataFrame:
    """Groups against their baselines, paired by seed, and what may be said of each comparison.

    Errors as ratios in per cent, others as differences. Holm's correction, and the level that
    detectable effects refer to, take all comparisons of the table together.
    """
    found = [
        pair
        for name, one in product(judged, groups)
        if one.base not in (None, one) and (pair := _pair(name, one, margin)) is not None
    ]
    table = pd.DataFrame([row for row, _, _ in found])
    if table.empty:
        return table
    tested = table["p"].notna()
    level = LEVEL / max(1, int(tested.sum()))
    judgements = [
        _judgement(change, limit, level) if known else dict.fromkeys(JUDGEMENT, math.nan)
        for (_, change, limit), known in zip(found, tested, strict=True)
    ]
    table = pd.concat([table, pd.DataFrame(judgements)], axis=1)
    ratios = table["unit"] == "%"
    table["detectable"] = table["detectable"].where(~ratios, 100 * np.expm1(table["detectable"]))
    table["p_holm"], table["p_equal_holm"] = holm(table["p"]), holm(table["p_equal"])
    table["verdict"] = table.apply(_verdict, axis=1)
    return table


def _pair(name: str, one: Group, margin: float) -> tuple[Row, pd.Series, float] | None:
    """A row of the table; the differences (of logs, for ratios), one per seed; their margin."""
    quantity, base = QUANTITIES[name], one.base
    if base is None:
        return None
    table = pd.concat({"one": one.values[name], "base": base.values[name]}, axis=1).dropna()
    ratio = quantity.margin is None
    values = pd.DataFrame(np.log(table.where(table > 0))) if ratio else table
    if values.empty:
        return None
    change, limit = values["one"] - values["base"], quantity.margin or math.log1p(margin)
    found = estimate(change, 1.0 if ratio else float(table.abs().to_numpy().max()))
    if ratio:
        found |= {part: 100 * math.exp(found[part]) for part in ("mean", "low", "high")}
    row: Row = {"quantity": name, "group": one.label, "baseline": base.label, "runs": len(one.runs)}
    unit: Row = {"unit": "%" if ratio else "", "margin": 100 * margin if ratio else limit}
    return row | found | unit, change, limit


def _judgement(change: pd.Series, limit: float, level: float) -> dict[str, float]:
    """Power and equivalence of one comparison, for effects of the size `limit`."""
    sd, seeds = float(change.std()), int(change.count())
    needed = seeds_needed(limit, sd, level)
    found = detectable(sd, seeds, level), needed or math.nan, equivalence(change, limit)
    return dict(zip(JUDGEMENT, found, strict=True))


def _verdict(row: pd.Series) -> str:
    if math.isnan(row["p"]):
        return "not tested"
    differs, equal = row["p_holm"] < LEVEL, row["p_equal_holm"] < LEVEL
    margin = f"{row['margin']:g}{' %' if row['unit'] else ''}"
    if differs:
        word = "higher" if row["mean"] > (100 if row["unit"] else 0) else "lower"
        return f"{word}, by less than {margin}" if equal else word
    return f"equal within {margin}" if equal else "cannot tell"
