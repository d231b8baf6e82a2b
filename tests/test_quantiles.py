"""Q-Q points, band and distance against SciPy and by simulation."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from robustvae.robustness import quantiles
from robustvae.robustness.quantiles import Law

LAWS = {
    "normal": Law(),
    "shifted normal": Law(1.5, 0.3),
    "student-t 3": Law(0.0, 1.0, 3.0),
    "t3 generating": Law(0.0, 0.24, 787.0),
}


@pytest.fixture(params=LAWS.values(), ids=LAWS.keys())
def law(request: pytest.FixtureRequest) -> Law:
    return request.param


def of_scipy(law: Law) -> Any:
    """The same law, independently."""
    if law.df:
        return stats.t(law.df, law.location, law.scale)
    return stats.norm(law.location, law.scale)


def draw(law: Law, n: int, seed: int = 0) -> np.ndarray:
    return of_scipy(law).rvs(n, random_state=np.random.default_rng(seed))


def test_points_are_those_of_scipys_probplot(law: Law) -> None:
    sample = draw(law, 150)
    (theory, ordered), _ = stats.probplot(sample, dist=of_scipy(law))
    points = quantiles.qq(sample, law)
    np.testing.assert_allclose(points.theory, theory, rtol=1e-12)
    np.testing.assert_array_equal(points.sample, ordered)


def test_distance_is_scipys_kolmogorov_smirnov_statistic(law: Law) -> None:
    sample = draw(law, 500) + 0.1
    expected = stats.kstest(sample, of_scipy(law).cdf).statistic
    assert quantiles.qq(sample, law).distance == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n", [50, 360, 2000])
def test_band_holds_the_whole_sample_in_95_of_100_cases(n: int) -> None:
    rng = np.random.default_rng(1)
    runs = 1500
    held = np.mean(
        [quantiles.qq(rng.standard_normal(n), Law(), n).outside == 0 for _ in range(runs)]
    )
    assert abs(held - 0.95) < 0.01 + 3 * np.sqrt(0.95 * 0.05 / runs)


@pytest.mark.parametrize(("n", "count"), [(50, 16), (360, 16), (360, 64), (2000, 4)])
def test_no_panel_of_several_leaves_its_band_in_95_of_100_cases(n: int, count: int) -> None:
    rng, runs = np.random.default_rng(1), 25_600 // (count * 2 if n > 1000 else count)
    u = np.sort(rng.random((runs, count, n)))
    low, high = quantiles.band(n, n, count)
    held = ((u >= low) & (u <= high)).all((1, 2)).mean()
    assert abs(held - 0.95) < 0.015 + 3 * np.sqrt(0.95 * 0.05 / runs)


def test_band_and_sample_cross_where_outside_says_so() -> None:
    points = quantiles.qq(draw(Law(), 150) * 1.5, Law())
    crossed = (points.sample < points.lower) | (points.sample > points.upper)
    assert crossed.any()
    assert points.outside == pytest.approx(crossed.mean())


def test_many_points_are_thinned_but_the_extremes_stay() -> None:
    sample = draw(Law(), 10_000)
    points = quantiles.qq(sample, Law(), points=200)
    assert len(points.sample) <= 200
    assert (points.sample[0], points.sample[-1]) == (sample.min(), sample.max())
    assert np.isin(np.sort(sample)[:5], points.sample).all()
    assert points.distance == pytest.approx(stats.kstest(sample, "norm").statistic, abs=1e-12)


@pytest.mark.parametrize("df", [0.0, 5.0])
def test_aggregate_sample_follows_the_posterior_law(df: float) -> None:
    n = 4000
    mu, logvar = np.full((n, 2), [1.0, -2.0]), np.full((n, 2), np.log([0.25, 4.0]))
    z = quantiles.aggregate_sample(mu, logvar, df, np.random.default_rng(3))
    for dim, law in enumerate([Law(1.0, 0.5, df), Law(-2.0, 2.0, df)]):
        assert stats.kstest(z[:, dim], of_scipy(law).cdf).pvalue > 0.01


def test_student_t_dimensions_of_an_image_share_one_chi_square() -> None:
    df, n = 9.0, 200_000
    z = quantiles.aggregate_sample(np.zeros((n, 2)), np.zeros((n, 2)), df, np.random.default_rng(0))
    # E[z1^2 z2^2] = df^2 / ((df - 2)(df - 4)); with one chi-square each, df^2 / (df - 2)^2.
    assert np.mean(z[:, 0] ** 2 * z[:, 1] ** 2) == pytest.approx(df**2 / (7 * 5), rel=0.05)


def test_laws_name_themselves() -> None:
    assert str(Law()) == "N(0, 1²)"
    assert str(Law(0, 0.5, 3.0)) == "t₃(0, 0.5²)"
