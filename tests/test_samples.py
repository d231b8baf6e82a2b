"""Distances between samples by a classifier's features."""

import numpy as np
import pytest
import tiny
import torch
from scipy import linalg
from sklearn.datasets import load_digits

from robustvae.models import folder
from robustvae.params.results import SampleSettings
from robustvae.robustness import samples


@pytest.fixture(scope="module")
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    data = load_digits()
    x = torch.from_numpy(data.images / 16).float().unsqueeze(1)
    return x, torch.from_numpy(data.target).long()


def test_frechet_distance_is_the_formula() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, (300, 5)), rng.normal(1, 2, (200, 5)) @ rng.normal(size=(5, 5))
    root = linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    known = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
    assert samples.frechet(a, b) == pytest.approx(known, rel=1e-6)
    assert samples.frechet(a, a) == pytest.approx(0, abs=1e-8)


def test_kernel_distance_is_unbiased_and_sees_a_shift() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(6, 3)), rng.normal(size=(4, 3))

    def k(u: np.ndarray, v: np.ndarray) -> float:
        return float((u @ v / 3 + 1) ** 3)

    known = np.mean([k(u, v) for i, u in enumerate(a) for j, v in enumerate(a) if i != j])
    known += np.mean([k(u, v) for i, u in enumerate(b) for j, v in enumerate(b) if i != j])
    known -= 2 * np.mean([k(u, v) for u in a for v in b])
    assert samples.mmd2(a, b) == pytest.approx(known)
    same, shifted = rng.normal(size=(400, 3)), rng.normal(1, 1, (400, 3))
    value, error = samples.kernel(rng.normal(size=(400, 3)), same, 0)
    assert abs(value) < 10 * error
    assert samples.kernel(same, shifted, 0)[0] > 0.5


def test_precision_and_recall_see_what_is_missing() -> None:
    rng = np.random.default_rng(2)
    real = np.concatenate([rng.normal(0, 1, (200, 2)), rng.normal(20, 1, (200, 2))])
    half = rng.normal(0, 1, (200, 2))
    precision, recall = samples.precision_recall(real, half)
    assert precision > 0.9
    assert 0.4 < recall < 0.55
    assert samples.precision_recall(real, half + 100) == (0, 0)


def test_shares_of_classes() -> None:
    probability = np.array([[0.95, 0.05], [0.2, 0.8], [0.01, 0.99], [0.6, 0.4]])
    assert samples.sure(probability) == 0.5
    assert samples.class_entropy(probability) == pytest.approx(np.log(2))


def test_the_classifier_learns_and_repeats(digits: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, labels = digits
    net = samples.fit(x[:1200], labels[:1200], 10, seed=0)
    probability = net.see(x[1200:])[1]
    assert (probability.argmax(1) == labels[1200:].numpy()).mean() > 0.8
    again = samples.fit(x[:1200], labels[:1200], 10, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))


def test_training_images_are_the_nearest_to_test_images(
    digits: tuple[torch.Tensor, torch.Tensor],
) -> None:
    x, labels = digits

    def noisy(y: torch.Tensor) -> torch.Tensor:
        return (y + 0.1 * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))).clamp(
            0, 1
        )

    laws = {"prior": lambda n: noisy(noisy(noisy(x[:n]))), "mixture": "none"}
    found = samples.find(x[1200:], x[:1200], labels[:1200].numpy(), laws, noisy, 500, 0, "digits",
                         labels[1200:].numpy())  # fmt: skip
    assert found.table is not None
    distance = found.table.set_index("images")["fd"]
    assert list(distance.index) == ["train", "reconstructions", "prior", "mean image"]
    assert distance.is_monotonic_increasing
    assert found.headline["fd"] == distance["prior"]
    assert found.sentence.endswith("of the test images rightly.")
    assert found.reasons == {"samples.mixture": "none"}
    assert found.sentence.startswith("FD (digits net) to test images")
    certainty = found.arrays["prior/certainty"]
    assert (np.diff(certainty) <= 0).all()
    assert len(found.arrays["prior/images"]) == samples.SHOWN


def test_without_labels_or_switched_off_nothing_is_measured(
    digits: tuple[torch.Tensor, torch.Tensor],
) -> None:
    x, labels = digits[0][:10], digits[1][:10].numpy()
    unlabelled = samples.find(x, x, -np.ones(10, np.int64), {}, lambda y: y, 5, 0, "digits")
    assert unlabelled.reasons == {"samples": samples.UNLABELLED}
    off = samples.find(x, x, labels, {}, lambda y: y, 0, 0, "digits")
    assert off.table is None
    assert "images is 0" in off.reasons["samples"]


@pytest.mark.parametrize("kind", ["gaussian", "t3", "vq"])
def test_every_kind_of_model_has_its_laws(kind: str) -> None:
    model = folder.load(tiny.model(kind))
    train = np.load(tiny.data(kind) / "train.npy")
    settings = SampleSettings(images=20, components=3)
    laws = samples.ours(model, train, settings, 16, 0)
    first, again = (samples.ours(model, train, settings, 5, 0)["prior"] for _ in range(2))
    assert not isinstance(first, str)
    assert not isinstance(again, str)
    assert torch.equal(first(20), again(20))
    assert first(20).shape == (20, 1, 16, 16)
    mixture = laws["mixture"]
    assert isinstance(mixture, str) == (kind == "vq")
    if not isinstance(mixture, str):
        assert mixture(20).shape == (20, 1, 16, 16)


def test_the_mixture_follows_the_codes() -> None:
    rng = np.random.default_rng(3)
    codes = np.concatenate([rng.normal(c, 0.1, (200, 2)) for c in (-3, 0, 3)])
    drawn = samples.ex_post(codes, 500, 0, components=3)
    assert abs(samples.ex_post(codes, 500, 0, components=1)).mean() > 1.5  # one normal over all
    assert np.abs(drawn - np.round(drawn / 3) * 3).max() < 0.6
    assert (drawn == samples.ex_post(codes, 500, 0, components=3)).all()
