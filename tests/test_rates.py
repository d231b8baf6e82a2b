"""Rates against scikit-learn and SciPy, their variance by hand, and what their intervals cover."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from robustvae.robustness import metrics, rates
from robustvae.robustness.rates import Rate


@pytest.mark.parametrize("decimals", [0, 1, 6], ids=lambda d: f"{d} decimals")
def test_auroc_and_fpr95_are_those_of_scikit_learn(decimals: int) -> None:
    rng = np.random.default_rng(decimals)
    clean = rng.normal(size=300).round(decimals)
    corrupted = rng.normal(0.7, 1.3, size=300).round(decimals)
    labels, scores = np.repeat([0, 1], 300), np.concatenate([clean, corrupted])
    found = rates.auroc(clean, corrupted).value
    assert found == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    assert rates.fpr95(clean, corrupted).value == fpr[np.argmax(tpr >= 0.95)]


def test_auroc_counts_ties_half() -> None:
    clean, corrupted = np.array([1.0, 2.0, 2.0, 3.0]), np.array([2.0, 2.0, 3.0, 4.0])
    # 2 and 2 beat 1, 3 beats 1, 2, 2, and 4 beats all; each 2 ties with two, 3 with one.
    wins, ties = 1 + 1 + 3 + 4, 2 + 2 + 1
    found = rates.auroc(clean, corrupted).value
    assert found == (wins + ties / 2) / 16
    assert found == stats.mannwhitneyu(corrupted, clean).statistic / 16


@pytest.mark.parametrize(("p", "n"), [(0, 20), (3, 359), (50, 100), (359, 359)])
def test_wilson_is_that_of_scipy(p: int, n: int) -> None:
    expected = stats.binomtest(p, n).proportion_ci(method="wilson")
    found = rates.wilson(p / n, n)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert found.low <= found.value <= found.high
    assert found.se > 0
    right = np.repeat([1.0, 0.0], [p, n - p])
    assert rates.accuracy(right) == found


def test_the_variance_of_an_auroc_by_hand() -> None:
    # clean 1 .. 3, corrupted 2.5, 0.5, 4: below them 2/3, 0, 1; above the clean 2/3, 2/3, 1/3.
    found = rates.auroc(np.array([1.0, 2, 3]), np.array([2.5, 0.5, 4]))
    assert found.value == pytest.approx(5 / 9)
    delong = np.var([2 / 3 + 2 / 3, 0 + 2 / 3, 1 + 1 / 3], ddof=1) / 3
    wrong = 2 + 3  # images of which something is ranked wrongly; rightly: 2 + 3
    usual = 5 / 9 * 4 / 9 / 6
    variance = (wrong * delong + 10 * usual) / (wrong + 10)
    assert found == pytest.approx(rates.wilson(5 / 9, 5 / 9 * 4 / 9 / variance))


def test_equal_scores_cannot_be_told_apart() -> None:
    found = rates.auroc(np.ones(200), np.ones(200))
    assert found.value == 0.5
    assert found.high - found.low < 0.05
    assert rates.fpr95(np.ones(200), np.ones(200)).value == 1


@pytest.mark.parametrize("count", [20, 359])
def test_images_that_are_all_told_apart_are_no_certainty(count: int) -> None:
    found = rates.auroc(np.zeros(count), np.ones(count))
    assert (found.value, found.high) == (1, 1)
    assert 1 - found.low == pytest.approx(3.84 / (2 * count + 3.84), rel=1e-3)
    found = rates.fpr95(np.zeros(count), np.ones(count))
    assert (found.value, found.low) == (0, 0)
    assert found.high == pytest.approx(3.84 / (count + 3.84), rel=1e-3)


def test_one_image_has_no_interval() -> None:
    for rate in (rates.auroc, rates.fpr95):
        assert np.isnan(rate(np.zeros(1), np.ones(1))[1:]).all()


def test_the_error_is_the_spread_over_repeated_samples() -> None:
    rng = np.random.default_rng(3)
    shared = rng.normal(size=(300, 400))  # both scores of an image rise with it
    draws = [(s + rng.normal(size=400), s + rng.normal(1.5, 1, 400)) for s in shared]
    for rate in (rates.auroc, rates.fpr95):
        found = [rate(*draw) for draw in draws]
        assert np.mean([r.se for r in found]) == pytest.approx(
            np.std([r.value for r in found]), rel=0.15
        )


def test_rates_of_unequal_samples_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    inside, outside = rng.normal(0, 1, 300).round(1), rng.normal(1, 1, 80).round(1)  # with ties
    found = rates.detection(inside, outside, paired=False)
    labels, both = np.repeat([0, 1], [300, 80]), np.concatenate([inside, outside])
    assert found["auroc"] == pytest.approx(roc_auc_score(labels, both), abs=1e-12)
    assert found["ap"] == pytest.approx(average_precision_score(labels, both), abs=1e-12)
    threshold = np.sort(outside)[::-1][75]  # 76 of 80 are 95 %
    assert found["fpr95"] == (inside >= threshold).mean()
    # Hanley and McNeil's error of an AUROC is near DeLong's.
    a = found["auroc"]
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    error = np.sqrt((a * (1 - a) + 79 * (q1 - a * a) + 299 * (q2 - a * a)) / (300 * 80))
    assert found["auroc_se"] == pytest.approx(error, rel=0.25)


def test_rates_of_nothing_are_null_and_of_what_is_told_apart_end_at_one() -> None:
    assert np.isnan(list(rates.detection(np.arange(9.0), np.zeros(0), paired=False).values())).all()
    apart = rates.detection(np.zeros(60), np.ones(60), paired=True)
    assert (apart["auroc"], apart["fpr95"], apart["ap"]) == (1, 0, 1)
    assert apart["ap_low"] == pytest.approx(60 / (60 + 1.96**2), rel=1e-4)  # no error in 60 trials
    assert apart["ap_high"] == 1


IMAGES = [(100, 1500), (359, 1000), (10_000, 300)]


def coverage(
    interval: Callable[..., tuple[float, float]], truth: float, draws: list[tuple[np.ndarray, ...]]
) -> float:
    ends = [interval(*draw) for draw in draws]
    return float(np.mean([low <= truth <= high for low, high in ends]))


def two_sided(rate: Callable[..., Rate]) -> Callable[..., tuple[float, float]]:
    return lambda *draw: rate(*draw)[2:]


def usual(summary: Callable[..., tuple[float, float]]) -> Callable[..., tuple[float, float]]:
    def interval(*draw: np.ndarray) -> tuple[float, float]:
        value, se = summary(*draw)
        return value - 1.96 * se, value + 1.96 * se

    return interval


def unpaired(clean: np.ndarray, corrupted: np.ndarray) -> Rate:
    return rates.auroc(clean, corrupted, paired=False)


def scores(n: int, count: int, distance: float, share: float = 0.5) -> list[tuple[np.ndarray, ...]]:
    """Clean and corrupted normal scores of the same images, a share of their variance common."""
    rng = np.random.default_rng(n)
    shared = rng.normal(0, math.sqrt(share), (count, 1, n))
    noise = rng.normal(0, math.sqrt(1 - share), (count, 2, n))
    return [(a, b + distance) for a, b in shared + noise]


@pytest.mark.slow
@pytest.mark.parametrize(("n", "count"), IMAGES)
def test_intervals_over_images_cover_the_truth(
    n: int, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Skewed errors; detection from poor to nearly perfect. Printed: what the page may be held to.

    Near 1 an AUROC's interval is wider than it need be; near 0 no interval of a rate is exact,
    since only a few values can be seen.
    """
    found: dict[str, float] = {}
    for auroc in (0.7, 0.95, 0.998):
        draws = scores(n, count, math.sqrt(2) * stats.norm.ppf(auroc))
        found[f"AUROC {auroc}"] = coverage(two_sided(rates.auroc), auroc, draws)
    for fpr in (0.005, 0.05, 0.3):
        draws = scores(n, count, stats.norm.isf(fpr) + stats.norm.ppf(0.95))
        found[f"FPR95 {fpr}"] = coverage(two_sided(rates.fpr95), fpr, draws)
    half = [(a, b[: n // 2]) for a, b in scores(n, count, math.sqrt(2) * stats.norm.ppf(0.9), 0)]
    found["AUROC 0.9, apart"] = coverage(two_sided(unpaired), 0.9, half)
    z, distance = np.linspace(-8, 12, 20_001), math.sqrt(2) * stats.norm.ppf(0.9)
    hits, alarms = stats.norm.sf(z - distance) / 2, stats.norm.sf(z)
    precision = float(np.trapezoid(hits / (hits + alarms) * stats.norm.pdf(z - distance), z))
    found["precision"] = coverage(two_sided(rates.average_precision), precision, half)
    rng = np.random.default_rng(n)
    right = [(row,) for row in (rng.random((count, n)) < 0.9).astype(float)]
    found["accuracy 0.9"] = coverage(two_sided(rates.accuracy), 0.9, right)
    base = rng.gamma(3, 1 / 3, (count, n))
    pairs = list(zip(0.5 * base * rng.gamma(5, 1 / 5, (count, n)), base, strict=True))
    found["error"] = coverage(usual(lambda e, _: metrics.mean(e)), 0.5, pairs)
    found["skill"] = coverage(usual(metrics.skill), 0.5, pairs)
    median = stats.gamma(3, scale=1 / 3).median()
    found["median"] = coverage(usual(lambda _, b: metrics.median(b)), median, pairs)
    with capsys.disabled():
        print(f"\n{n} images:", ", ".join(f"{name} {share:.3f}" for name, share in found.items()))
    noise = 2.6 * math.sqrt(0.05 * 0.95 / count)  # of the simulation itself
    for name, share in found.items():
        assert share > 0.93 - noise, name
        assert share < (0.99 if name == "AUROC 0.998" else 0.97 + noise), name
