"""Over seeds: t intervals, paired tests with Holm's correction, errors relative to a baseline."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

GROUPS = ("noise", "blur", "photometric", "overlay")
ENOUGH = 3  # seeds from which on there is an interval


def relative(errors: pd.Series, base: pd.Series) -> dict[str, float]:
    """mRE, relative mRE and mRE of the geometric group, per cent of the base; nan where undefined.

    RE = 100 e / e_base per corruption; mRE: mean over groups of the mean within the group. Relative
    mRE: 100 times the mean over groups of sum(e - e_clean) / sum(e_base - e_base_clean).
    """
    table = pd.DataFrame({"e": errors, "base": base}).dropna()  # the sets that both have
    clean = table.xs("clean", level="group").iloc[0]
    table = table.drop("clean", level="group")
    table["ratio"] = 100 * table["e"] / table["base"]
    table["rise"], table["base_rise"] = table["e"] - clean["e"], table["base"] - clean["base"]
    means = table["ratio"].groupby("group").mean()
    sums = table[["rise", "base_rise"]].groupby("group").sum()
    rises = 100 * sums["rise"] / sums["base_rise"]
    counted = [name for name in GROUPS if name in means.index]
    nothing = float("nan")
    return {
        "mRE": float(means[counted].mean()) if counted else nothing,
        "relative_mRE": float(rises[counted].mean()) if counted else nothing,
        "geometric_mRE": float(means.get("geometric", nothing)),
    }


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """95 % t interval of a mean over seeds; None below three."""
    n = len(values)
    if n < ENOUGH:
        return None
    half = stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n)
    return float(np.mean(values) - half), float(np.mean(values) + half)


def p_value(differences: Sequence[float]) -> float | None:
    """Two-sided t test of mean 0; None below three pairs, and where they do not vary."""
    n = len(differences)
    if n < ENOUGH:
        return None
    mean, error = np.mean(differences), np.std(differences, ddof=1) / math.sqrt(n)
    if error == 0:
        return None
    return float(2 * stats.t.sf(abs(mean) / error, n - 1))


def holm(values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, which hold for all comparisons together."""
    order, adjusted, highest = np.argsort(values), [0.0] * len(values), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = highest
    return adjusted
