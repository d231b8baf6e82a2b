"""Differences with their intervals and tests; many tests at once."""

import math

import numpy as np
import pandas as pd
from scipy import special

from robustvae.robustness.metrics import Values

LEVEL = 0.05  # chance of any wrong claim in a table


def t_test(values: Values) -> dict[str, float]:
    """95 % t interval of the mean, two-sided p of mean 0; scipy.stats takes a second to import."""
    n, mean = len(values), float(values.mean())
    error = float(values.std(ddof=1)) / math.sqrt(n)
    half = float(special.stdtrit(n - 1, 0.975)) * error
    p = 2 * float(special.stdtr(n - 1, -abs(mean) / error))
    return {"low": mean - half, "high": mean + half, "p": p}


def paired(a: Values, b: Values) -> dict[str, float]:
    """Mean of a - b over images, its 95 % t interval, two-sided p; nan where they do not vary."""
    difference = a - b
    found = {"difference": float(difference.mean())}
    if len(difference) < 2 or not difference.std():
        nothing = 0.0 if not difference.any() else np.nan
        return found | {"low": nothing, "high": nothing, "p": np.nan}
    return found | t_test(difference)


def holm(values: "pd.Series[float]") -> "pd.Series[float]":
    """Holm's adjusted p values, which hold for all comparisons together; nan is not counted."""
    known = values.dropna().sort_values()
    return (known * np.arange(len(known), 0, -1)).cummax().clip(upper=1).reindex(values.index)
