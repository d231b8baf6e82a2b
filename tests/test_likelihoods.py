import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor, nn

from robustvae import params
from robustvae.api import testing
from robustvae.models import likelihoods
from robustvae.models.catalogue import LIKELIHOODS
from robustvae.models.likelihoods import (
    LOGVAR_FLOOR,
    Bernoulli,
    Gaussian,
    ImageT,
    Laplace,
    PixelT,
    StudentT,
)

SIGMA, DF, DIM = 0.3, 3.0, 4
EXAMPLES = {
    "bernoulli": [Bernoulli()],
    "gaussian": [Gaussian(v, SIGMA) for v in ("fixed", "scalar", "per_pixel")],
    "t3": [StudentT(SIGMA, DF, DIM)],
    "student_t": [ImageT(v, SIGMA, DF) for v in ("fixed", "scalar")],
    "student_t_pixel": [PixelT(v, SIGMA, DF) for v in ("fixed", "scalar")],
    "laplace": [Laplace(v, SIGMA) for v in ("fixed", "scalar")],
}
LAW = [
    pytest.param(item, id=f"{name}-{getattr(item, 'variance', '')}".strip("-"))
    for name, items in EXAMPLES.items()
    for item in items
]


def batch(likelihood, rows: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Binary x (valid for every likelihood), raw decoder output and z."""
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(rows, 2, 4, 5, generator=rng).round()
    out = torch.randn(rows, 2 * likelihood.outputs, 4, 5, generator=rng)
    return x, out, torch.randn(rows, DIM, generator=rng)


def test_every_likelihood_has_an_example():
    assert set(EXAMPLES) == {*LIKELIHOODS, "t3"}
    kinds = {**LIKELIHOODS, "t3": StudentT}
    assert all(type(i) is kinds[name] for name, items in EXAMPLES.items() for i in items)


# Laws.


@pytest.mark.parametrize("likelihood", LAW)
def test_laws(likelihood):
    testing.check_likelihood(likelihood)


@pytest.mark.parametrize("likelihood", LAW)
def test_draws_follow_the_density(likelihood):
    """The density of a draw averages to minus the entropy, which each law knows."""
    _, out, z = batch(likelihood, rows=1)
    torch.manual_seed(0)
    out, z = out.expand(4000, -1, -1, -1), z.expand(4000, -1)
    x = likelihood.sample(out, z)
    logvar = 2 * math.log(SIGMA)
    if isinstance(likelihood, Bernoulli):
        entropy = stats.bernoulli(likelihood.mean(out[0])).entropy().sum()
    elif isinstance(likelihood, Gaussian):
        logvar = likelihood.logvar(out[0]).detach().expand(2, 4, 5)
        entropy = stats.norm(0, (0.5 * logvar).exp().numpy()).entropy().sum()
    elif not isinstance(likelihood, StudentT):
        scale = (0.5 * likelihood.logvar(out)).exp().item()
        one = {
            ImageT: stats.multivariate_t(None, scale**2 * np.eye(40), DF),
            PixelT: stats.t(DF, 0, scale), Laplace: stats.laplace(0, scale / math.sqrt(2)),
        }[type(likelihood)]  # fmt: skip
        entropy = one.entropy() * (1 if isinstance(likelihood, ImageT) else 40)
    else:
        scale = (DF + z[0].square().sum().item()) / (DF + DIM) * SIGMA**2
        entropy = stats.multivariate_t(None, scale * np.eye(40), DF + DIM).entropy()
    found = likelihood.log_prob(x, out, z).detach()
    error = found.std() / math.sqrt(4000)
    assert abs(found.mean().item() + entropy) < 4 * error.item()


@pytest.mark.parametrize("likelihood", LAW)
def test_half_precision_outputs_are_scored_in_full(likelihood):
    x, out, z = batch(likelihood)
    half = out.bfloat16()
    for score in (likelihood.log_prob, likelihood.distortion):
        assert torch.equal(score(x, half, z), score(x, half.float(), z))
    assert likelihood.mean(half).dtype == torch.float32


@pytest.mark.parametrize("likelihood", LAW)
def test_only_the_cross_entropy_of_grey_pixels_is_no_likelihood(likelihood):
    assert likelihood.proper(binary=True)
    assert likelihood.proper(binary=False) == (not isinstance(likelihood, Bernoulli))


# References from outside.


@pytest.mark.parametrize("likelihood", LAW)
def test_squared_residuals_of_draws_are_the_variance_on_average(likelihood):
    torch.manual_seed(0)
    x, out, z = (t.repeat(2000, *[1] * (t.dim() - 1)) for t in batch(likelihood))
    found = likelihood.standardised(likelihood.sample(out, z), out, z)
    if isinstance(likelihood, likelihoods.Bernoulli):
        assert found is None
    else:
        assert found.shape == (len(x),)
        heavy = isinstance(likelihood, ImageT)  # of df 3 the square has no variance
        assert found.mean().item() == pytest.approx(1, abs=0.2 if heavy else 0.05)


def test_bernoulli_agrees_with_scipy_and_survives_extreme_logits():
    x, out, z = batch(Bernoulli())
    expected = stats.bernoulli.logpmf(x.double(), out.double().sigmoid()).sum((1, 2, 3))
    np.testing.assert_allclose(Bernoulli().log_prob(x, out, z), expected, rtol=1e-6)
    extreme = Bernoulli().log_prob(x, torch.full_like(x, -1e4), z)
    np.testing.assert_allclose(extreme, -1e4 * x.sum((1, 2, 3)))


@pytest.mark.parametrize("likelihood", EXAMPLES["gaussian"], ids=lambda g: g.variance)
def test_gaussian_agrees_with_scipy(likelihood):
    x, out, z = batch(likelihood)
    raw = {"fixed": None, "scalar": torch.zeros(()), "per_pixel": out[:, 2:]}[likelihood.variance]
    sigma = (
        SIGMA if raw is None else 1 / 256 * np.exp(np.logaddexp(0, raw.numpy() - LOGVAR_FLOOR) / 2)
    )
    expected = stats.norm(out[:, :2].sigmoid(), sigma).logpdf(x).sum((1, 2, 3))
    np.testing.assert_allclose(likelihood.log_prob(x, out, z).detach(), expected, rtol=1e-5)
    np.testing.assert_allclose(likelihood.distortion(x, out, z).detach(), -expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["student_t", "student_t_pixel", "laplace"])
@pytest.mark.parametrize("pixels", [1, 2])
def test_robust_decoders_integrate_to_one(name, pixels):
    for likelihood in EXAMPLES[name]:
        with torch.no_grad():
            for p in likelihood.parameters():
                p.fill_(-0.05)
        out = torch.linspace(-1, 1, pixels).view(1, 1, 1, pixels).double()
        # x = mean + u / (1 - u ** 2), with Gauss's nodes on both sides of where Laplace bends.
        nodes, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(150))
        u, weights = torch.cat([nodes - 1, nodes + 1]) / 2, weights.repeat(2) / 2
        steps, weights = u / (1 - u**2), weights * (1 + u**2) / (1 - u**2) ** 2
        away = torch.cartesian_prod(*[steps] * pixels).view(-1, 1, 1, pixels)
        share = torch.cartesian_prod(*[weights] * pixels).view(-1, pixels).prod(1)
        x = out.sigmoid() + away
        with torch.no_grad():
            density = likelihood.log_prob(x, out.expand_as(x), torch.zeros(len(x), DIM)).exp()
        assert (density * share).sum().item() == pytest.approx(1, abs=1e-5)


def test_robust_decoders_agree_with_scipy():
    for name in ("student_t", "student_t_pixel", "laplace"):
        for likelihood in EXAMPLES[name]:
            x, out, z = batch(likelihood)
            scale = (0.5 * likelihood.logvar(out)).exp().item()
            far = (x - out.sigmoid()).double()
            if name == "student_t":
                law = stats.multivariate_t(None, scale**2 * np.eye(40), DF)
                expected = law.logpdf(far.flatten(1).numpy())
            else:
                one = stats.laplace(0, scale / math.sqrt(2)) if name == "laplace" else None
                one = one or stats.t(DF, 0, scale)
                expected = one.logpdf(far.numpy()).sum((1, 2, 3))
            np.testing.assert_allclose(likelihood.log_prob(x, out, z).detach(), expected, rtol=1e-5)


def test_the_power_integral_is_that_of_quadrature_and_of_all_images():
    out, b = torch.tensor([0.3, -1.2]).view(1, 1, 1, 2), 0.4
    images = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1.0]]).view(4, 1, 1, 2)
    every = Bernoulli().log_prob(images, out.expand(4, -1, -1, -1), torch.zeros(4, DIM))
    found = Bernoulli().power(out, b).item()
    assert found == pytest.approx(((1 + b) * every).exp().sum().item(), rel=1e-6)
    normal = stats.norm(0, SIGMA)
    expected = integrate.quad(lambda x: normal.pdf(x) ** (1 + b), -5, 5)[0] ** 2
    assert Gaussian("fixed", SIGMA).power(out, b).item() == pytest.approx(expected, rel=1e-6)
    with pytest.raises(NotImplementedError, match="Laplace"):
        Laplace("fixed", SIGMA).power(out, b)


def test_student_t_agrees_with_scipy():
    likelihood = EXAMPLES["t3"][0]
    x, out, z = batch(likelihood)
    found = likelihood.log_prob(x, out, z)
    for i in range(3):
        scale = (DF + z[i].square().sum().item()) / (DF + DIM) * SIGMA**2 * np.eye(40)
        law = stats.multivariate_t(out[i].sigmoid().flatten(), scale, df=DF + DIM)
        assert found[i].item() == pytest.approx(law.logpdf(x[i].flatten()), rel=1e-5)


def test_student_t_distortion_is_half_the_squared_error_over_the_variance():
    likelihood = EXAMPLES["t3"][0]
    x, out, z = batch(likelihood)
    expected = ((x - out.sigmoid()) ** 2).sum((1, 2, 3)) / (2 * 0.09)
    torch.testing.assert_close(likelihood.distortion(x, out, z), expected)


# The learned variance.


def test_learned_scalar_variance_starts_at_one_and_ends_at_the_mean_squared_error():
    likelihood = Gaussian("scalar", SIGMA)
    x, out, z = batch(likelihood)
    assert likelihood.logvar(out).item() == pytest.approx(0, abs=1e-4)
    optimiser = torch.optim.LBFGS(
        likelihood.parameters(), max_iter=50, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = likelihood.distortion(x, out, z).mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    error = (x - out.sigmoid()).square().mean().item()
    assert likelihood.logvar(out).item() == pytest.approx(math.log(error), abs=1e-4)


@pytest.mark.parametrize("variance", ["scalar", "per_pixel"])
def test_learned_variance_has_a_floor_of_one_grey_level(variance):
    likelihood = Gaussian(variance, SIGMA)
    out = torch.full((1, likelihood.outputs, 4, 4), -1e3)
    if variance == "scalar":
        nn.init.constant_(likelihood.raw, -1e3)
    assert likelihood.logvar(out).exp().sqrt().min().item() == pytest.approx(1 / 256)
    x = likelihood.mean(out)
    assert likelihood.log_prob(x, out, torch.zeros(1, DIM)).isfinite().all()


# The builder.


@pytest.mark.parametrize("name", EXAMPLES)
def test_settings_select_the_likelihood(name):
    settings = params.load("params.yaml")
    t3 = name == "t3"
    loss = settings.loss.model_copy(update={"df": 5.0, "divergence": "t3"} if t3 else {})
    chosen = settings.model.likelihood.model_copy(
        update={"name": "gaussian" if t3 else name, "variance": "fixed", "sigma": 0.5, "df": 4.0}
    )
    built = likelihoods.build(chosen, loss, 16)
    assert type(built) is (StudentT if t3 else LIKELIHOODS[name])
    wanted = {"gaussian": {"sigma": 0.5, "variance": "fixed"}}
    wanted["student_t"] = {"sigma": 0.5, "df": 4.0}
    wanted["t3"] = {"sigma": 0.5, "df": 5.0, "latent_dim": 16}
    assert {key: getattr(built, key) for key in wanted.get(name, {})} == wanted.get(name, {})
