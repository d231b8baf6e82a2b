"""Latents: the law of a fresh head, bounds on the log-variance, and the codebook."""

import math

import pytest
import torch
from torch import Tensor

from robustvae.api import testing
from robustvae.models import divergences
from robustvae.models.catalogue import LATENTS
from robustvae.models.latents import VQ, Continuous, perplexity
from robustvae.params.geometry import geometry

PIXELS = 28 * 28
KINDS = {
    "kl": {},
    "reverse_kl": {"loss.alpha": 0.0},
    "renyi": {"loss.divergence": "renyi", "loss.alpha": 0.5},
    "gamma": {"loss.df": 3.0},
    "t3": {"loss.divergence": "t3", "loss.df": 3.0, "model.likelihood.name": "student_t"},
}


def latent(make_params, changes=None, vq=False):
    if vq:
        changes = {"model.latent.name": "vq", **(changes or {})}
    settings = make_params({"model.latent_dim": 3, **(changes or {})})
    g = geometry(settings.model.architecture, 28, vq)
    divergence = divergences.build(settings.loss, 3, PIXELS, settings.model.likelihood.sigma)
    torch.manual_seed(0)
    return LATENTS[settings.model.latent.name](g, settings.model, settings.loss, divergence)


def same_vectors(part: VQ, vectors: Tensor) -> Tensor:
    """Feature maps [1, W, h, w] for which the head's output is `vectors`, [h * w, Z]."""
    part.head = torch.nn.Identity()
    return vectors.T.reshape(1, vectors.shape[1], 1, -1).clone()


@pytest.mark.parametrize("name", LATENTS)
def test_laws(name):
    testing.check_latent(name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_head_starts_where_the_divergence_is_zero(make_params, kind):
    prior = {} if kind == "t3" else {"loss.prior.mu": [1.0, -2.0, 0.0], "loss.prior.logvar": 0.7}
    part = latent(make_params, {**KINDS[kind], **prior})
    torch.nn.init.zeros_(part.head.weight)
    penalty = part(torch.randn(4, part.head.in_features)).penalty
    assert penalty.shape == (4,)
    assert penalty.abs().max() < 1e-5


def test_prior_takes_one_number_or_one_per_dimension(make_params):
    one = latent(make_params, {"loss.prior.mu": 2, "loss.prior.logvar": [0.0, 1.0, -1.0]}).prior()
    assert one.mu.tolist() == [2.0, 2.0, 2.0]
    assert one.logvar.tolist() == [0.0, 1.0, -1.0]


def test_samples_come_from_the_prior_that_was_given(make_params):
    part = latent(make_params, {"loss.prior.mu": [5.0, 0.0, -5.0], "loss.prior.logvar": -2.0})
    z = part.sample(4000)
    assert z.mean(0).tolist() == pytest.approx([5.0, 0.0, -5.0], abs=0.03)
    assert z.var(0).tolist() == pytest.approx([math.exp(-2)] * 3, rel=0.1)


def test_t3_draws_new_samples_from_another_law_than_its_prior(make_params):
    part = latent(make_params, KINDS["t3"])
    assert (part.prior().df, part.generating_prior().df) == (3.0, 3.0 + PIXELS)
    assert part.generating_prior().logvar.exp().tolist() == pytest.approx([0.0582] * 3, rel=2e-3)


def log_variances(part: Continuous, raw: list[float]) -> Tensor:
    """What the head's raw log-variances become; dimension 0."""
    h = torch.zeros(len(raw), part.head.in_features)
    h[:, 0] = torch.tensor(raw)
    with torch.no_grad():
        part.head.weight.zero_()
        part.head.bias.zero_()
        part.head.weight[3, 0] = 1 / part.scale
    return part.posterior(h).logvar[:, 0]


def test_a_number_bounds_the_log_variance_on_both_sides(make_params):
    got = log_variances(latent(make_params, {"model.logvar_bound": 2.0}), [-1e6, -0.01, 0.01, 1e6])
    assert got.tolist() == pytest.approx([-2.0, -0.01, 0.01, 2.0], rel=1e-4)


@pytest.mark.parametrize(
    ("alpha", "edge", "inside"),
    [(2.0, math.log(2) - 0.05, -20.0), (-1.0, math.log(0.5) + 0.05, 20.0)],
)
def test_auto_bounds_the_log_variance_on_the_side_where_alpha_is_infinite(
    make_params, alpha, edge, inside
):
    changes = {"loss.alpha": alpha, "loss.prior.logvar": 1.5, "model.logvar_bound": "auto"}
    raw = [math.copysign(1e6, alpha), inside]
    got = log_variances(latent(make_params, changes), raw)
    assert got.tolist() == pytest.approx([1.5 + edge, inside], rel=1e-4)


def test_half_precision_features_give_single_precision_posteriors(make_params):
    part = latent(make_params)
    with torch.autocast("cpu", torch.bfloat16):
        draw = part(torch.randn(4, part.head.in_features))
    assert (draw.z.dtype, draw.penalty.dtype) == (torch.float32, torch.float32)


def test_vq_takes_the_nearest_codeword(make_params):
    part = latent(make_params, {"model.latent.codes": 20}, vq=True)
    vectors = torch.randn(50, 3)
    codes = part.codes(same_vectors(part, vectors))
    brute = (vectors[:, None] - part.codebook[None]).square().sum(-1).argmin(1)
    assert codes.shape == (1, 1, 50)
    assert codes.flatten().tolist() == brute.tolist()
    assert torch.equal(part.embed(codes)[0, :, 0].T, part.codebook[brute])


@pytest.mark.parametrize(("update", "value"), [("ema", 0.5 * 1.25), ("gradient", 1.5 * 1.25)])
def test_vq_penalty_is_summed_over_positions_and_components(make_params, update, value):
    changes = {"model.latent.update": update, "model.latent.commitment": 0.5}
    part = latent(make_params, {**changes, "model.latent.codes": 2}, vq=True).eval()
    with torch.no_grad():
        part.codebook.copy_(torch.tensor([[0.0, 0.0, 0.0], [9.0, 9.0, 9.0]]))
    h = same_vectors(part, torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.5, 0.0]]))
    assert part(h).penalty.tolist() == pytest.approx([value])


def test_vq_passes_the_decoders_gradient_straight_to_the_features(make_params):
    part = latent(make_params, {"model.latent.commitment": 0.0}, vq=True).eval()
    h = same_vectors(part, torch.randn(6, 3)).requires_grad_()
    z = part(h).z
    weights = torch.randn_like(z)
    (z * weights).sum().backward()
    assert torch.equal(h.grad, weights)
    assert torch.allclose(z, part.embed(part.codes(h)), atol=1e-6)


def test_gradient_codebook_is_pulled_towards_what_it_stands_for(make_params):
    part = latent(make_params, {"model.latent.update": "gradient"}, vq=True)
    torch.nn.init.normal_(part.codebook)
    h = same_vectors(part, part.codebook[:1].detach() + 0.01)
    part(h).penalty.sum().backward()
    assert part.codebook.grad[0].tolist() == pytest.approx([-0.02] * 3, rel=1e-3)
    assert part.codebook.grad[1:].abs().max() == 0


def test_ema_codebook_follows_the_smoothed_mean(make_params):
    part = latent(make_params, {"model.latent.codes": 2, "model.latent.decay": 0.5}, vq=True)
    start = torch.tensor([[0.0, 0.0, 0.0], [9.0, 9.0, 9.0]])
    for values in (part.codebook, part.sums):
        values.copy_(start)
    part(same_vectors(part, torch.tensor([[1.0, 0.0, 0.0], [2.0, 0.0, 0.0], [3.0, 0.0, 0.0]])))
    # counts (1 + 3) / 2 and (1 + 0) / 2, sums (0 + 6) / 2 and (9 + 0) / 2
    assert part.counts.tolist() == [2.0, 0.5]
    assert part.codebook[0].tolist() == pytest.approx([1.5, 0.0, 0.0], rel=1e-4)
    assert part.codebook[1].tolist() == pytest.approx([9.0, 9.0, 9.0], rel=1e-4)
    assert part.usage.tolist() == pytest.approx([0.8, 0.2])


def test_ema_codebook_survives_codes_that_are_never_used(make_params):
    part = latent(make_params, {"model.latent.decay": 0.01}, vq=True)
    h = same_vectors(part, part.codebook[:1].clone())
    for _ in range(100):
        part(h)
    assert part.codebook.isfinite().all()


def test_vq_logs_perplexity_and_dead_codes(make_params):
    part = latent(make_params, {"model.latent.codes": 8}, vq=True)
    stats = part(same_vectors(part, part.codebook[[0, 0, 1, 1, 2, 2]].detach().clone())).stats
    assert stats["perplexity"].item() == pytest.approx(3.0)
    assert stats["dead_codes"].item() == 5


@pytest.mark.parametrize(("counts", "value"), [([1.0] * 7, 7.0), ([0.0, 4.0, 0.0], 1.0)])
def test_perplexity_is_the_effective_number_of_codes(counts, value):
    assert perplexity(torch.tensor(counts)).item() == pytest.approx(value)


def test_vq_draws_every_code_with_the_same_probability(make_params):
    part = latent(make_params, {"model.latent.codes": 4}, vq=True)
    z = part.sample(400)
    assert z.shape == (400, 3, 7, 7)
    share = part.count(part._nearest(z)) / (400 * 49)
    assert share.tolist() == pytest.approx([0.25] * 4, abs=0.02)
