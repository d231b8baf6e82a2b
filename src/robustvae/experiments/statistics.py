"""Over seeds: t intervals, paired tests with Holm's correction, errors relative to a baseline."""

import math

import pandas as pd
from scipy import stats

GROUPS = ("noise", "blur", "photometric", "overlay")
ENOUGH = 3  # seeds from which on there is an interval
ROUNDING = 1e-12  # relative; values that vary less are equal
SPREAD = ("low", "high", "p")


def relative(errors: pd.Series, base: pd.Series) -> dict[str, float]:
    """mRE, relative mRE and mRE of the geometric group, per cent of the base; nan where undefined.

    RE = 100 e / e_base per corruption; mRE: mean over groups of the mean within the group. Relative
    mRE: 100 times the mean over groups of sum(e - e_clean) / sum(e_base - e_base_clean), which has
    no meaning, and is nan, where the base's error does not rise under one of the groups.
    """
    table = pd.concat({"e": errors, "base": base}, axis=1, join="inner")  # sets that both have
    clean = table.xs("clean", level="group").iloc[0]
    table = table.drop("clean", level="group")
    ratios = table["e"] / table["base"].where(table["base"] > 0)
    rises = (table - clean).groupby("group").sum(skipna=False)
    found = 100 * pd.DataFrame({
        "mRE": ratios.groupby("group").mean(skipna=False),
        "relative_mRE": rises["e"] / rises["base"].where(rises["base"] > 0),
    })  # fmt: skip
    means = found[found.index.isin(GROUPS)].mean(skipna=False)
    return {
        "mRE": float(means["mRE"]),
        "relative_mRE": float(means["relative_mRE"]),
        "geometric_mRE": float(found["mRE"].get("geometric", math.nan)),
    }


def estimate(values: pd.Series, scale: float = 0.0) -> dict[str, float]:
    """Seeds with a value, mean, 95 % t interval, two-sided p of mean 0; nan where undefined.

    Below three seeds, and where the values agree up to the rounding of numbers of size `scale` (at
    least their own), there is neither interval nor test.
    """
    known = values.dropna()
    found = {"seeds": len(known), "mean": float(known.mean()), **dict.fromkeys(SPREAD, math.nan)}
    if len(known) >= ENOUGH and known.sem() > ROUNDING * max(known.abs().max(), scale):
        test = stats.ttest_1samp(known, 0)
        found |= zip(SPREAD, map(float, (*test.confidence_interval(), test.pvalue)), strict=True)
    return found
