"""Rates with 95 % intervals that stay honest near 0 and 1: AUROC, FPR95, precision, accuracy.

All have Wilson's form, with the number of images that the variance of the rate stands for;
docs/statistics.md gives their simulated coverage.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

Values = NDArray[np.floating[Any]]
FOUND = 0.95  # share of the corrupted that the threshold of FPR95 finds
AROUND = 0.03  # share on either side over which the ROC curve's slope is taken there, at most,
BAND = 0.1  # or this times n ** -0.2
ROUNDING = 1e-20  # variances below it are none
PARTS = 50  # of the jackknife
PRIOR = 10  # images with an error that the usual variance counts as, beside those seen
Z = float(special.ndtri(0.975))


class Rate(NamedTuple):
    """A share of 1; `se` is half the interval over 1.96, so that it is never 0."""

    value: float
    se: float
    low: float
    high: float


def wilson(p: float, n: float) -> Rate:
    """Wilson's score interval of a share p among n (perhaps no whole number)."""
    z2 = Z * Z / n
    centre = (p + z2 / 2) / (1 + z2)
    half = Z * np.sqrt(p * (1 - p) / n + z2 / (4 * n)) / (1 + z2)
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return Rate(float(p), float(half / Z), float(min(low, p)), float(max(high, p)))


def accuracy(correct: Values) -> Rate:
    """Share of ones among independent zeros and ones."""
    return wilson(float(correct.mean()), len(correct))


def auroc(clean: Values, corrupted: Values, *, paired: bool = True) -> Rate:
    """Chance that a corrupted image scores above a clean one, ties half.

    The variance is DeLong's; `paired`: scores of the same images, where an image adds what both of
    its do. It rests on the images that are ranked wrongly at all: where these are few, it is drawn
    to that of 2 n independent trials.
    """
    n = min(len(clean), len(corrupted))
    below, above = _below(clean, corrupted), 1 - _below(corrupted, clean)
    value = float(below.mean())
    if n < 2:
        return Rate(value, *[np.nan] * 3)
    wrong = min(sum(int((v < 1).sum()) for v in (below, above)),
                sum(int((v > 0).sum()) for v in (below, above)))  # fmt: skip
    weight = wrong / (wrong + PRIOR)
    delong, usual = _variance(below, above, paired), value * (1 - value) / (2 * n)
    return _interval(value, weight * delong + (1 - weight) * usual, 2 * n)


def _variance(a: Values, b: Values, paired: bool) -> float:
    """Of the sum of two means, of the same images or not."""
    if paired:
        return float((a + b).var(ddof=1) / len(a))
    return float(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))


def _below(reference: Values, scores: Values) -> Values:
    """Share of the reference below each score, ties half."""
    ordered = np.sort(reference)
    both = (np.searchsorted(ordered, scores, side) for side in ("left", "right"))
    return np.asarray(sum(both) / (2 * len(ordered)), float)


def fpr95(clean: Values, corrupted: Values, *, paired: bool = True) -> Rate:
    """Share of clean images at or above the highest score that finds 95 % of the corrupted.

    The threshold is an estimate too: it adds the slope of the ROC curve times the error of 95 %.
    Without that, at a rate of 0.3, intervals of 95 % cover 70 %.
    """
    n, ordered = len(corrupted), np.sort(corrupted)[::-1]

    def at(found: float) -> float:
        place = int(np.ceil(found * n - 1e-9))
        return float(ordered[min(max(place, 1), n) - 1])

    around = min(AROUND, BAND * n**-0.2)
    threshold, high, low = (at(found) for found in (FOUND, FOUND - around, FOUND + around))
    alarms, hits = (scores >= threshold for scores in (clean, corrupted))
    value = float(alarms.mean())
    if min(n, len(clean)) < 2:
        return Rate(value, *[np.nan] * 3)
    rise = [float(((scores >= low) & (scores < high)).mean()) for scores in (clean, corrupted)]
    slope = rise[0] / rise[1] if rise[1] > 0 else 0.0
    return _interval(value, _variance(alarms.astype(float), -slope * hits, paired), len(clean))


def average_precision(clean: Values, corrupted: Values) -> Rate:
    """Mean precision over the corrupted images, each at its own score as the threshold.

    The variance comes from leaving out fiftieths in turn, of both samples at once.
    """

    def precision(c: Values, d: Values) -> float:
        c, d = np.sort(c), np.sort(d)
        hits, alarms = len(d) - np.searchsorted(d, d), len(c) - np.searchsorted(c, d)
        return float((hits / (hits + alarms)).mean())

    value, n = precision(clean, corrupted), min(len(clean), len(corrupted))
    if n < PARTS:
        return Rate(value, *[np.nan] * 3)
    places = [np.arange(len(scores)) % PARTS for scores in (clean, corrupted)]
    left = [
        precision(*(s[p != k] for s, p in zip((clean, corrupted), places, strict=True)))
        for k in range(PARTS)
    ]
    return _interval(value, float((PARTS - 1) * np.var(left)), n)


def detection(clean: Values, corrupted: Values, *, paired: bool) -> dict[str, float]:
    """AUROC, false alarms and average precision as columns of a table, each with error and ends."""
    found = {name: Rate(*[np.nan] * 4) for name in ("auroc", "fpr95", "ap")}
    if len(clean) and len(corrupted):
        found["auroc"] = auroc(clean, corrupted, paired=paired)
        found["fpr95"] = fpr95(clean, corrupted, paired=paired)
        found["ap"] = average_precision(clean, corrupted)
    ends = ("", "_se", "_low", "_high")
    return {f"{n}{e}": v for n, r in found.items() for e, v in zip(ends, r, strict=True)}


def _interval(value: float, variance: float, most: float) -> Rate:
    """Wilson's, of as many images as the variance stands for; `most` where it is 0."""
    spread = value * (1 - value)
    return wilson(value, spread / variance if spread > 0 and variance > ROUNDING else most)
