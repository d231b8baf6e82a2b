"""Over seeds: t intervals, ratios and differences of pairs, power, equivalence, Holm's correction.

docs/statistics.md says why these.
"""

import functools
import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special, stats

from robustvae.robustness.inference import t_test

GROUPS = ("noise", "blur", "photometric", "overlay")
ENOUGH = 3  # seeds from which on there is an interval
ROUNDING = 1e-12  # relative; values that vary less are equal
POWER = 0.8  # with which an effect of the detectable size is found
MOST = 10_000  # seeds; who would need more is not helped by the number
SPREAD = ("low", "high", "p")


def relative(errors: pd.Series, base: pd.Series) -> dict[str, float]:
    """Errors of one run in per cent of those of its pair; nan where undefined.

    mRE: 100 exp of the mean over groups of the mean within the group of log(e / e_base). Relative
    mRE: the same of one ratio per group, sum(e - e_clean) / sum(e_base - e_base,clean), which has
    no meaning, and is nan, where one of the sums is not above 0. The geometric group is apart.
    """
    if not errors.index.equals(base.index):
        both = errors.index.intersection(base.index)
        errors, base = errors[both], base[both]
    of, table = errors.index.get_level_values("group"), np.stack([errors, base])
    rises = table - table[:, of == "clean"][:, :1]
    logs = {"mRE": dict[str, float](), "relative_mRE": dict[str, float]()}
    for group in dict.fromkeys(of[of != "clean"]):
        members = of == group
        logs["mRE"][group] = float(_log_ratio(table[:, members]).mean())
        logs["relative_mRE"][group] = float(_log_ratio(rises[:, members].sum(1)))
    found = {}
    for name, known in logs.items():
        values = [value for group, value in known.items() if group in GROUPS]
        found[name] = 100 * math.exp(np.mean(values)) if values else math.nan
    return found | {"geometric_mRE": 100 * math.exp(logs["mRE"].get("geometric", math.nan))}


def _log_ratio(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """nan where one of the two is not above 0."""
    logs = np.log(np.where(table > 0, table, math.nan))
    return np.asarray(logs[0] - logs[1])


def estimate(values: pd.Series, scale: float = 0.0) -> dict[str, float]:
    """Seeds with a value, mean, 95 % t interval, two-sided p of mean 0; nan where undefined.

    Below three seeds, and where the values agree up to the rounding of numbers of size `scale` (at
    least their own), there is neither interval nor test.
    """
    known = values.dropna().to_numpy()
    found = {"seeds": len(known), "mean": float(values.mean()), **dict.fromkeys(SPREAD, math.nan)}
    if len(known) < ENOUGH:
        return found
    error = known.std(ddof=1) / math.sqrt(len(known))
    return found | t_test(known) if error > ROUNDING * max(abs(known).max(), scale) else found


def estimate_ratio(values: pd.Series) -> dict[str, float]:
    """As `estimate`, of the logs of `values` (in per cent), and back: p is that of 100."""
    found = estimate(np.log(values.where(values > 0) / 100), 1.0)
    return found | {name: 100 * math.exp(found[name]) for name in ("mean", "low", "high")}


def equivalence(values: pd.Series, margin: float) -> float:
    """p of two one-sided t tests: small where the mean lies within +- margin of 0."""
    known = values.dropna()
    distance = (margin - abs(known.mean())) / known.std() * math.sqrt(len(known))
    return float(special.stdtr(len(known) - 1, -distance))


def power(effect: float, sd: float, seeds: int, level: float) -> float:
    """Chance that a two-sided t test of `seeds` differences of this sd finds their mean."""
    if seeds < 2:
        return 0.0
    critical = special.stdtrit(seeds - 1, 1 - level / 2)
    found = float(stats.nct.sf(critical, seeds - 1, effect / sd * math.sqrt(seeds)))
    return 1.0 if math.isnan(found) else found  # SciPy gives up where it is certain


@functools.cache
def _detectable(seeds: int, level: float) -> float:
    low, high = 0.0, 1.0
    while power(high, 1, seeds, level) < POWER:
        high *= 2
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle, 1, seeds, level) >= POWER else (middle, high)
    return high


def detectable(sd: float, seeds: int, level: float) -> float:
    """The smallest mean difference that is found with a power of 80 %, by bisection."""
    return sd * _detectable(seeds, level)


def seeds_needed(effect: float, sd: float, level: float) -> int | None:
    """How many seeds find this effect with a power of 80 %; None: more than ten thousand."""
    low, high = ENOUGH - 1, ENOUGH
    while power(effect, sd, high, level) < POWER:
        low, high = high, 2 * high
        if low > MOST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(effect, sd, middle, level) >= POWER else (middle, high)
    return high
