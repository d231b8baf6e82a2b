"""Metrics against torchmetrics, scikit-image, scikit-learn, SciPy, and cases worked by hand."""

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from robustvae.api import testing
from robustvae.models.distributions import DiagNormal, DiagStudentT
from robustvae.robustness import metrics
from robustvae.robustness.catalogue import METRICS
from robustvae.robustness.metrics import Pair, Probe
from robustvae.runtime import torchvision_shim


def images(count: int, channels: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Blotches and noisy versions of them; the first pair is black twice, the second equal."""
    x = torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(1))
    x = (x.cumsum(-1) / side).clamp(0, 1)
    y = (x + 0.2 * torch.randn(x.shape, generator=torch.Generator().manual_seed(2))).clamp(0, 1)
    x[0], y[0], y[1] = 0, 0, x[1]
    return x, y


SHAPES = pytest.mark.parametrize(("channels", "side"), [(1, 8), (1, 28), (3, 32), (3, 65)])


@SHAPES
def test_ssim_is_that_of_torchmetrics(channels: int, side: int) -> None:
    torchvision_shim.prepare()
    from torchmetrics.functional.image import structural_similarity_index_measure as reference

    x, y = (t.double() for t in images(6, channels, side))
    expected = reference(y, x, data_range=1.0, reduction="none")
    torch.testing.assert_close(metrics.ssim(y, x), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(metrics.ssim(y.float(), x.float()), expected, rtol=0, atol=2e-4)


@SHAPES
def test_ssim_is_that_of_scikit_image_on_mirrored_images(channels: int, side: int) -> None:
    from skimage.metrics import structural_similarity as reference

    x, y = (t.double().numpy() for t in images(4, channels, side))
    # scikit-image leaves a border of 5 pixels out of the mean: give it that border.
    wide = [np.pad(t, ((0, 0), (0, 0), (5, 5), (5, 5)), mode="reflect") for t in (x, y)]
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = [
        reference(a, b, data_range=1.0, channel_axis=0, **options)
        for a, b in zip(*wide, strict=True)
    ]
    found = metrics.ssim(torch.from_numpy(y), torch.from_numpy(x))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_symmetric_kl_of_normals_by_hand() -> None:
    q = DiagNormal(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 0.0]]))
    r = DiagNormal(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    # mean shift of 1 at variance 1: 1/2 each way; variances 1 and e: (e + 1/e - 2) / 2
    expected = 1 + (np.e + 1 / np.e - 2) / 2
    assert metrics.symmetric_kl(q, r).item() == pytest.approx(expected, rel=1e-6)


def test_symmetric_kl_of_student_t_against_quadrature() -> None:
    q = DiagStudentT(torch.tensor([[0.0]]), torch.tensor([[0.0]]), 3.0)
    r = DiagStudentT(torch.tensor([[0.8]]), torch.tensor([[0.5]]), 3.0)
    a, b = stats.t(3), stats.t(3, 0.8, np.exp(0.25))
    integrand = lambda z: (a.pdf(z) - b.pdf(z)) * (a.logpdf(z) - b.logpdf(z))  # noqa: E731
    expected = integrate.quad(integrand, -np.inf, np.inf)[0]
    torch.manual_seed(0)
    zeros = torch.zeros(1, 1)
    noise = DiagStudentT(zeros, zeros, 3.0).rsample(200_000)
    found = metrics.symmetric_kl(q, r, torch.cat([noise, -noise])).item()
    assert found == pytest.approx(expected, rel=0.02)


def test_drift_is_in_standard_deviations_of_active_dimensions() -> None:
    mu = torch.zeros(1, 3)
    moved = torch.tensor([[2.0, 3.0, 100.0]])
    spread = torch.tensor([4.0, 1.0, 0.0])  # the third dimension is inactive
    assert metrics.drift(mu, moved, spread).item() == pytest.approx(np.sqrt((1 + 9) / 2))


def test_skill_is_zero_for_doing_nothing_and_its_error_that_of_a_bootstrap() -> None:
    rng = np.random.default_rng(4)
    e_id = rng.gamma(2, 1, 500)
    e_den = 0.5 * e_id + rng.gamma(2, 0.2, 500)
    assert metrics.skill(e_id, e_id) == (0.0, 0.0)
    value, error = metrics.skill(e_den, e_id)
    assert value == 1 - e_den.mean() / e_id.mean()
    picks = rng.integers(500, size=(2000, 500))
    spread = (1 - e_den[picks].mean(1) / e_id[picks].mean(1)).std()
    assert error == pytest.approx(spread, rel=0.1)
    assert np.isnan(metrics.skill(e_den, np.zeros(500))).all()


def test_skill_counts_against_the_better_baseline() -> None:
    e_den, e_id = np.array([1.0, 3.0]), np.array([4.0, 4.0])
    for constant, best, wanted in ((1.0, 1.0, -1.0), (8.0, 4.0, 0.5)):
        found = metrics.skills(e_den, e_id, np.full(2, constant))
        assert found["skill"][0] == wanted
        assert found["e_best"][0] == best
        assert found["skill_id"][0] == 0.5
        assert found["skill_const"][0] == 1 - 2 / constant
    assert all(
        np.isnan(metrics.skills(e_den, np.zeros(2), e_id)[n][0]) for n in ("skill", "skill_id")
    )


def test_psnr_by_hand() -> None:
    assert metrics.psnr(np.array([0.01, 1.0, 0.0])).tolist() == [20, 0, np.inf]
    clean = {"e_id": np.array([0.1, 0.2]), "e_den": np.array([0.01, 0.1])}
    found = metrics.summarise(clean, clean, np.ones(2))
    assert found["psnr"] == pytest.approx((15, 5))  # 20 and 10 dB
    whole = clean | {"e_den": np.array([0.0, 0.1])}
    assert "psnr" not in metrics.summarise(whole, clean, np.ones(2))


def test_error_of_the_median_is_the_spread_over_repeated_samples() -> None:
    draws = np.random.default_rng(5).exponential(size=(400, 300))
    errors = [metrics.median(row)[1] for row in draws[:50]]
    assert np.mean(errors) == pytest.approx(np.median(draws, axis=1).std(), rel=0.15)


def test_probe_tells_separable_classes_apart_and_nothing_from_noise() -> None:
    rng = np.random.default_rng(6)
    labels = rng.integers(3, size=600)
    features = rng.normal(size=(600, 2)) + 20 * np.array([[0, 0], [1, 0], [0, 1]])[labels]
    assert Probe(features[:300], labels[:300]).correct(features[300:], labels[300:]).mean() == 1
    noise = rng.normal(size=(600, 2))
    chance = Probe(noise[:300], labels[:300]).correct(noise[300:], labels[300:]).mean()
    assert chance == pytest.approx(1 / 3, abs=0.1)


@pytest.mark.parametrize("name", METRICS)
def test_laws(name: str) -> None:
    testing.check_metric(name)


def test_errors_by_hand() -> None:
    x, y = torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.5)
    x_hat = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    pair = Pair(x, y, x, x_hat)
    assert METRICS["e_den"](pair)["e_id"].item() == 0.25
    assert METRICS["e_den"](pair)["e_den"].item() == 0.25  # one pixel of four is off by 1
    assert METRICS["e_self"](pair)["e_self"].item() == 0.25
    assert METRICS["e_stab"](pair)["e_stab"].item() == 0.25
