"""Robust objectives: weights by hand, and that they act, from when they should, on every path."""

import math
from typing import Any

import numpy as np
import pytest
import short
import torch

from robustvae.api import testing
from robustvae.errors import UserError
from robustvae.models.autoencoder import Autoencoder
from robustvae.params import RobustSettings
from robustvae.training import fit
from robustvae.training.catalogue import ROBUST
from robustvae.training.fitting import summary
from robustvae.training.robust import bounded, weights

WEIGHING = {"trimmed": 0.25, "rejected": 1.0, "huber": 0.3, "welsch": 0.5}


def robust(name: str, strength: float) -> RobustSettings:
    return RobustSettings(name=name, strength=strength, after=1.0)


def found(name: str, strength: float, losses: list[float]) -> list[float]:
    values: list[float] = weights(robust(name, strength), torch.tensor(losses).double()).tolist()
    return values


# Losses with median 3.5 (of 3 and 4); distances 2.5, 1.5, .5, .5, 1.5, 96.5, of median 1.5.
LOSSES = [1.0, 2.0, 3.0, 4.0, 5.0, 100.0]
S = 1.4826 * 1.5


@pytest.mark.parametrize(
    ("name", "strength", "expected"),
    [
        ("trimmed", 0.3, [1, 1, 1, 1, 1, 0]),  # floor(0.3 * 6) = 1
        ("trimmed", 0.5, [1, 1, 1, 0, 0, 0]),
        ("rejected", 0.6, [1, 1, 1, 1, 0, 0]),  # above 3.5 + 0.6 * 2.2239 = 4.83
        ("rejected", 3.0, [1, 1, 1, 1, 1, 0]),
        ("huber", 0.5, [1, 1, 1, 1, 0.5 * S / 1.5, 0.5 * S / 96.5]),
        ("welsch", 3, [1, 1, 1, *(math.exp(-0.5 * (u / 3 / S) ** 2) for u in (0.5, 1.5, 96.5))]),
    ],
)  # fmt: skip
def test_weights_by_hand(name: str, strength: float, expected: list[float]) -> None:
    assert found(name, strength, LOSSES) == pytest.approx(expected, rel=1e-12)


def test_equal_losses_and_ties() -> None:
    assert found("trimmed", 0.5, [2.0] * 4) == [1, 1, 0, 0]  # the lower index stays
    for name in ("rejected", "huber", "welsch"):
        assert found(name, 1.0, [2.0] * 4) == [1, 1, 1, 1]
    # The spread is at least a millionth of the median: 1e-6 * 1e4 = 0.01 times c.
    assert found("rejected", 3.0, [1e4, 1e4, 1e4, 1e4, 1e4 + 0.02, 1e4 + 0.04]) == [1] * 5 + [0]


@pytest.mark.parametrize("name", WEIGHING)
def test_laws(name: str) -> None:
    testing.check_robust(name, WEIGHING[name])


def test_every_objective_has_an_example() -> None:
    assert set(WEIGHING) == {*ROBUST} - {"beta"}


def test_the_bounded_loss_by_hand_and_its_limits() -> None:
    losses = torch.tensor([0.0, 10.0, 1e6], dtype=torch.float64)
    b, integral = 0.1, torch.full((3,), 0.7, dtype=torch.float64)
    expected = [0.7, 11 * (1 - math.exp(-1)) + 0.7, 11 + 0.7]
    assert bounded(b, losses, integral).tolist() == pytest.approx(expected)
    small = bounded(1e-9, losses[:2], torch.zeros(2))
    assert small.tolist() == pytest.approx([0, 10], rel=1e-6)


def trained(changes: dict[str, Any], epochs: int = 2, **how: Any) -> tuple[list[Any], bytes]:
    s = short.settings({"train.epochs": epochs, **changes})
    torch.manual_seed(0)
    model = Autoencoder.build(s.model, s.loss, (1, 8, 8))
    rows = fit(model, short.TRAIN, short.VAL, s.train, s.run, **how)
    return rows, b"".join(v.numpy().tobytes() for v in model.state_dict().values())


def settings(name: str, after: float) -> dict[str, Any]:
    strength = WEIGHING.get(name, 0.01)
    likelihood = {"model.likelihood.name": "bernoulli"} if name == "beta" else {}
    return {"loss.robust": {"name": name, "strength": strength, "after": after}, **likelihood}


@pytest.mark.parametrize("name", [*WEIGHING, "beta"])
def test_it_acts_from_the_first_step_after_after(name: str) -> None:
    plain = {"model.likelihood.name": "bernoulli"} if name == "beta" else {}
    even = {"train.batch_size": 43}
    none = trained({**plain, **even}, 1)[0][0]["train_total"]
    waits, acts = (
        trained({**settings(name, after), **even}, 1)[0][0]["train_total"] for after in (1.0, 0.0)
    )
    assert waits == pytest.approx(none, rel=1e-5)  # not yet
    assert acts != pytest.approx(none, rel=1e-5)
    half = trained(settings(name, 0.5), 1)[0][0]["train_total"]  # of two batches the second
    assert half != pytest.approx(trained(settings(name, 0.0), 1)[0][0]["train_total"], rel=1e-6)
    assert half != pytest.approx(trained(settings(name, 1.0), 1)[0][0]["train_total"], rel=1e-6)
    row = trained(settings(name, 1.0))[0]
    shown = "beta_weight" if name == "beta" else "effective_share"
    assert 0 < row[1][shown] < 1
    if name != "beta":
        assert row[0][shown] == 1


def test_the_log_and_the_weights_of_each_image() -> None:
    seen: list[np.ndarray] = []
    rows, _ = trained(settings("trimmed", 1.0), 3, weighed=seen.append)
    assert seen[0].shape == (3, len(short.TRAIN))
    assert (seen[0][0] == 1).all()
    assert set(np.unique(seen[0][2])) == {0, 1}
    kept = seen[0][2].mean()
    assert rows[2]["effective_share"] == pytest.approx(kept, abs=1e-3)
    nothing: list[np.ndarray] = []
    trained({}, 1, weighed=nothing.append)
    assert not nothing


def test_outliers_are_left_out_by_their_loss() -> None:
    images = short.TRAIN.copy()
    rng = np.random.default_rng(0)
    outliers = rng.permutation(len(images))[: len(images) // 8]
    images[outliers] = rng.integers(0, 256, images[outliers].shape, dtype=np.uint8)
    s = short.settings({"train.epochs": 25, **settings("rejected", 2.0)})
    torch.manual_seed(0)
    model, seen = Autoencoder.build(s.model, s.loss, (1, 8, 8)), list[np.ndarray]()
    fit(model, images, short.VAL, s.train, s.run, weighed=seen.append)
    is_outlier = np.isin(np.arange(len(images)), outliers)
    last = seen[0][-5:].mean(0)
    assert last[is_outlier].mean() < last[~is_outlier].mean() - 0.3


def test_few_images_are_refused_and_leftovers_join_the_batch_before() -> None:
    s = short.settings(settings("welsch", 0.0))
    model = Autoencoder.build(s.model, s.loss, (1, 8, 8))
    with pytest.raises(UserError, match="welsch compares at least 16 images of a batch, got 9"):
        fit(model, short.TRAIN[:9], short.VAL, s.train, s.run)
    from robustvae.training.batches import batches

    sizes = [len(part) for part in batches(torch.arange(75), 20, 16)]
    assert sizes == [20, 20, 35]
    assert [len(part) for part in batches(torch.arange(75), 20)] == [20, 20, 20, 15]


def test_the_best_epoch_is_chosen_by_the_robust_objective() -> None:
    """Outliers among the validation images would make every epoch after the first look worse."""
    rng = np.random.default_rng(1)
    val = np.concatenate([short.VAL, rng.integers(0, 256, (8, 1, 8, 8), dtype=np.uint8)])
    s = short.settings({"train.epochs": 12, **settings("rejected", 1.0)})
    torch.manual_seed(0)
    model = Autoencoder.build(s.model, s.loss, (1, 8, 8))
    rows = fit(model, short.TRAIN, val, s.train, s.run)
    plain = [row["val_recon"] + row["val_divergence"] for row in rows]  # type: ignore[operator]
    assert rows[0]["val_total"] == pytest.approx(plain[0], rel=1e-6)  # it does not act yet
    assert all(row["val_total"] < p for row, p in zip(rows[1:], plain[1:], strict=True))  # type: ignore[operator]
    assert f"weights as of {100 * float(rows[1]['effective_share'] or 0):.1f}%" in summary(
        rows[1], 12, 0
    )
    totals = [float(row["val_total"] or 0) for row in rows]
    assert np.argmin(totals) > np.argmin(plain)  # which thinks that learning does harm
