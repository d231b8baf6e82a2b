"""Attacks: an exact case, what never happens, and what must not matter."""

import copy
from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np
import pytest
import short
import torch
from conftest import ROOT
from torch import Tensor
from torch.nn import functional as F

import robustvae
from robustvae.api import shipped
from robustvae.errors import UserError
from robustvae.models import folder
from robustvae.models.autoencoder import Autoencoder
from robustvae.robustness import attacked, attacks
from robustvae.robustness.attacks import Plan

COUNT = 50


class Linear:
    """R(x) = A x on images of 3x3 grey pixels."""

    def __init__(self) -> None:
        self.matrix = torch.randn(9, 9, generator=torch.Generator().manual_seed(3)).double()

    def reconstruct(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self.matrix.T).view_as(x)


@pytest.fixture(scope="module")
def model() -> Autoencoder:
    trained = short.fit({"train.epochs": 40})[1].eval()
    trained.zero_grad(set_to_none=True)
    return trained


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.from_numpy(short.images(COUNT, 5)).float() / 255


def _damage(kind: str, model: Autoencoder, x: Tensor, radius: float, plan: Plan) -> Tensor:
    goal = attacks.output_goal(model, x)
    return goal(x + attacks.ATTACKS[kind](goal, x, radius, plan, range(len(x)))).detach()


def test_the_largest_damage_of_a_linear_autoencoder_is_found() -> None:
    linear, radius = Linear(), 0.05
    x = torch.full((4, 1, 3, 3), 0.5, dtype=torch.float64)  # so far inside that the box is idle
    goal = attacks.output_goal(linear, x)
    delta = attacks.pgd(goal, x, radius, Plan(), range(4))
    known = radius**2 * float(torch.linalg.matrix_norm(linear.matrix, 2)) ** 2 / 9
    assert (goal(x + delta) >= 0.99 * known).all()
    assert (goal(x + delta) <= 1.0001 * known).all()


@pytest.mark.parametrize(("norm", "radius"), [("l2", 1.0), ("linf", 0.1)])
def test_pgd_is_never_below_one_step_nor_chance(
    model: Autoencoder, x: Tensor, norm: attacks.Norm, radius: float
) -> None:
    plan = Plan(norm)
    found = {kind: _damage(kind, model, x, radius, plan) for kind in attacks.ATTACKS}
    assert (found["pgd"] >= found["fgsm"]).all()
    assert (found["pgd"] >= found["random"]).all()
    assert found["pgd"].mean() > 2 * found["random"].mean()


@pytest.mark.parametrize(("norm", "radius"), [("l2", 1.0), ("linf", 0.1)])
@pytest.mark.parametrize("kind", attacks.ATTACKS)
def test_changes_stay_in_ball_and_box(
    model: Autoencoder, x: Tensor, kind: str, norm: attacks.Norm, radius: float
) -> None:
    goal = attacks.output_goal(model, x)
    delta = attacks.ATTACKS[kind](goal, x, radius, Plan(norm, steps=10), range(COUNT))
    order = 2 if norm == "l2" else np.inf
    assert torch.linalg.vector_norm(delta.flatten(1), order, 1).max() <= radius + 1e-6
    assert -1e-6 <= (x + delta).min() <= (x + delta).max() <= 1 + 1e-6


@pytest.mark.parametrize("kind", ["pgd", "random"])
@pytest.mark.parametrize(("precision", "each"), [(torch.float64, 1e-9), (torch.float32, 1e-3)])
def test_batches_do_not_matter(
    model: Autoencoder, x: Tensor, kind: str, precision: torch.dtype, each: float
) -> None:
    """Forty steps let the rounding of single precision grow on an image that could go two ways."""
    other, y = copy.deepcopy(model).to(precision), x.to(precision)
    whole = _damage(kind, other, y, 1.0, Plan())
    for size in (1, 7):
        found = []
        for places in torch.arange(COUNT).split(size):
            goal = attacks.output_goal(other, y[places])
            part = attacks.ATTACKS[kind](goal, y[places], 1.0, Plan(), places.tolist())
            found.append(goal(y[places] + part).detach())
        assert torch.allclose(torch.cat(found), whole, rtol=0, atol=each)
        assert torch.cat(found).mean() == pytest.approx(float(whole.mean()), abs=1e-5)


def test_precision_does_not_matter(model: Autoencoder, x: Tensor) -> None:
    single = _damage("pgd", model, x, 1.0, Plan()).mean()
    try:
        double = _damage("pgd", model.double(), x.double(), 1.0, Plan()).mean()
    finally:
        model.float()
    assert single == pytest.approx(float(double), rel=0.02)


def test_damage_grows_with_the_radius(model: Autoencoder, x: Tensor) -> None:
    means = [float(_damage("pgd", model, x, r, Plan()).mean()) for r in (0.25, 0.5, 1.0, 2.0)]
    assert all(a < b for a, b in pairwise(means))


def test_nothing_is_left_in_the_model(model: Autoencoder, x: Tensor) -> None:
    before = short.content(model)
    for make in attacks.GOALS.values():
        attacks.pgd(make(model, x), x, 1.0, Plan(steps=3), range(COUNT))
    first = next(model.parameters()).requires_grad_(False)  # as a user may have it
    with pytest.raises(KeyboardInterrupt):
        attacks.strike(model, x, "output", [1.0], Plan(steps=3), 4, _interrupted)
    attacks.strike(model, x, "output", [1.0], Plan(steps=3), 4, lambda batches, _: batches)
    assert all(p.requires_grad != (p is first) for p in model.parameters())
    first.requires_grad_(True)
    assert all(p.grad is None for p in model.parameters())
    assert short.content(model) == before


def _interrupted(batches: Iterable[list[Tensor]], _count: int) -> Iterator[list[Tensor]]:
    yield next(iter(batches))
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("count", "shape", "size"),
    [(50, (1, 28, 28), 25), (200, (1, 28, 28), 50), (7, (1, 28, 28), 4), (1, (1, 8, 8), 1),
     (101, (1, 28, 28), 26), (40, (3, 224, 224), 5)],
)  # fmt: skip
def test_batches_come_in_pairs_and_fit(count: int, shape: tuple[int, ...], size: int) -> None:
    images = torch.zeros(1).expand(count, *shape)
    assert attacked._size(images) == size
    assert size * images[0].numel() <= attacked.VALUES or size == 1


def test_the_latent_goal_is_the_symmetric_kl(model: Autoencoder, x: Tensor) -> None:
    y = x.flip(0)
    with torch.no_grad():
        q, r = model.posterior(x), model.posterior(y)
        normals = [
            torch.distributions.Normal(p.mu.double(), (p.logvar.double() / 2).exp()) for p in (q, r)
        ]
        both = sum(torch.distributions.kl_divergence(a, b) for a, b in (normals, normals[::-1]))
        assert torch.allclose(attacks.latent_goal(model, x)(y), both.sum(-1))


def test_codes_are_attacked_through_the_straight_through_gradient(x: Tensor) -> None:
    changes = {
        "model.latent.name": "vq",
        "model.architecture": {"name": "conv", "channels": [8]},
    }
    vq = short.fit(changes)[1].eval()
    through = attacks.reconstruction(vq)
    with torch.no_grad():
        assert torch.allclose(through(x), vq.reconstruct(x), atol=1e-5)
    assert _damage("pgd", vq, x, 1.0, Plan(steps=10)).mean() > 0
    with pytest.raises(UserError, match="latent needs a posterior"):
        attacks.latent_goal(vq, x)


def test_a_reconstruction_without_gradient_says_so(x: Tensor) -> None:
    class Rounds:
        def reconstruct(self, x: Tensor) -> Tensor:
            return x.detach().round()

    goal = attacks.output_goal(Rounds(), x)
    with pytest.raises(UserError, match="no gradient"):
        attacks.pgd(goal, x, 1.0, Plan(), range(COUNT))


def test_margins_are_interpolated_and_open_at_the_end() -> None:
    damage = np.array([[1.0, 0.5, 0.1], [3.0, 2.5, 0.2]])
    found = attacks.margins(damage, [1.0, 2.0], np.array([0.5, 1.5, 1.0]))
    assert found.tolist() == [0.5, 1.5, np.inf]


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped.MODELS)
def test_pgd_beats_one_step_and_chance_on_every_model_that_comes_along(name: str) -> None:
    model, rng = folder.load(ROOT / "pretrained" / name), torch.Generator().manual_seed(0)
    images = F.interpolate(torch.rand((100, model.shape[0], 4, 4), generator=rng), model.shape[1:])
    if model.shape[0] == 1:
        digits, _ = robustvae.datasets.load("mnist-5k", "test", limit=100)
        images = torch.from_numpy(digits).float() / 255
    for radius in (0.5, 3.0):
        hit = attacks.strike(model, images, "output", [radius], Plan(steps=10), 50, lambda b, n: b)
        assert (hit.damage >= hit.chance).all()
        assert (hit.damage[0] >= _damage("fgsm", model, images, radius, Plan()).numpy()).all()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_an_attack_on_cuda_is_that_of_the_cpu(model: Autoencoder, x: Tensor) -> None:
    own = _damage("pgd", model, x, 1.0, Plan()).mean()
    other = _damage("pgd", copy.deepcopy(model).cuda(), x.cuda(), 1.0, Plan()).mean()
    assert float(other) == pytest.approx(float(own), rel=0.02)
