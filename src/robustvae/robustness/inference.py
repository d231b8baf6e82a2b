"""Differences with their intervals and tests; many tests at once."""

import numpy as np
import pandas as pd

from robustvae.robustness.metrics import Values


def paired(a: Values, b: Values) -> dict[str, float]:
    """Mean of a - b over images, its 95 % t interval, two-sided p; nan where they do not vary."""
    difference = a - b
    found = {"difference": float(difference.mean())}
    if len(difference) < 2 or not difference.std():
        nothing = 0.0 if not difference.any() else np.nan
        return found | {"low": nothing, "high": nothing, "p": np.nan}
    from scipy import stats  # late: it takes a second

    test = stats.ttest_1samp(difference, 0)
    low, high = test.confidence_interval()
    return found | {"low": float(low), "high": float(high), "p": float(test.pvalue)}


def holm(values: "pd.Series[float]") -> "pd.Series[float]":
    """Holm's adjusted p values, which hold for all comparisons together; nan is not counted."""
    known = values.dropna().sort_values()
    return (known * np.arange(len(known), 0, -1)).cummax().clip(upper=1).reindex(values.index)
