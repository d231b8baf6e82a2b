"""Do quantities go together over groups of runs? Spearman's rank correlation, and the picture."""

import math
import textwrap
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from robustvae.errors import UserError
from robustvae.experiments.compare import Group
from robustvae.reporting.figures import style
from robustvae.runtime import seeding

FEWEST = 4  # groups
RESAMPLES = 2000
ACROSS = 3  # panels
WIDE = 150  # characters of a line that says which number is which group


def correlations(groups: Sequence[Group], quantities: Sequence[str]) -> pd.DataFrame:
    """A row per pair of quantities: rho over the groups' means, and its 95 % interval.

    The interval is a bootstrap's, of groups and of the seeds within each: other losses, trained
    again, might have been compared.
    """
    if len(groups) < FEWEST or len(quantities) < 2:
        raise UserError(
            f"--together: needs {FEWEST} groups or more and two quantities, "
            f"got {len(groups)} and {len(quantities)}"
        )
    values = [one.values[list(quantities)].to_numpy(float) for one in groups]
    rng = seeding.numpy_rng(0, "together")

    def again() -> NDArray[np.float64]:
        chosen = [values[k] for k in rng.integers(len(values), size=len(values))]
        return _rho([one[rng.integers(len(one), size=len(one))] for one in chosen])

    rho, draws = _rho(values), np.stack([again() for _ in range(RESAMPLES)])
    low, high = np.nanpercentile(draws, [2.5, 97.5], axis=0)
    return pd.DataFrame([
        {"x": quantities[i], "y": quantities[j], "groups": len(groups),
         "rho": rho[i, j], "low": low[i, j], "high": high[i, j]}
        for i, j in combinations(range(len(quantities)), 2)
    ])  # fmt: skip


def _rho(values: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Of the means of each group's runs [S, Q], all pairs [Q, Q]; nan where all ranks agree."""
    ranks = stats.rankdata(np.stack([one.mean(0) for one in values]), axis=0, nan_policy="omit")
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.corrcoef(ranks.T), np.float64)


def table(found: pd.DataFrame) -> tuple[str, list[str], list[list[str]]]:
    """As the page shows it: rho with its interval for each pair, a triangle."""
    rows, columns = found["y"].unique(), found["x"].unique()
    cells = {
        (row.y, row.x): f"{row.rho:.2f} [{row.low:.2f}, {row.high:.2f}]"
        for row in found.dropna().itertuples()
    }
    title = f"Spearman's rho over the {found['groups'].iloc[0]} groups"
    return title, ["", *columns], [[y, *(cells.get((y, x), "") for x in columns)] for y in rows]


@style.styled
def figure(groups: Sequence[Group], means: pd.DataFrame, quantities: Sequence[str]) -> Any:
    """matplotlib Figure: each other quantity against the first, a numbered cross per group."""
    first, *others = quantities
    names = " · ".join(f"{k} {one.label}" for k, one in enumerate(groups, 1))
    key = textwrap.wrap(names, WIDE)
    down, below = math.ceil(len(others) / ACROSS), 0.15 * len(key)
    note = "crosses: means over seeds and their 95 % t intervals"
    made = style.sheet(2.9 * down + below, "Do they go together?", note)
    made.text(0.01, 0.02, "\n".join(key), fontsize=8)
    panels = style.grid(
        made, len(others), ACROSS, left=0.75, bottom=0.6 + below, top=0.15, gap=(0.75, 0.6)
    )
    of = {name: means[means["quantity"] == name] for name in quantities}
    x = of[first]
    for axes, name in zip(panels, others, strict=True):
        y = of[name]
        axes.hlines(y["mean"], x["low"], x["high"], color=style.BLUE, lw=1)
        axes.vlines(x["mean"], y["low"], y["high"], color=style.BLUE, lw=1)
        for k, place in enumerate(zip(x["mean"], y["mean"], strict=True), 1):
            axes.annotate(f"{k}", place, (3, 3), textcoords="offset points", fontsize=8)
        axes.set_xlabel(first)
        axes.set_ylabel(name)
    return made
