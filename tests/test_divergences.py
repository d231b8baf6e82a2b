import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy import integrate, stats
from torch import Tensor

from robustvae import params
from robustvae.api import testing
from robustvae.errors import UserError
from robustvae.models import divergences
from robustvae.models.distributions import DiagNormal, log_student_constant
from robustvae.models.divergence_errors import (
    DivergenceInfiniteError,
    DivergenceOverflowError,
    NonFiniteLatentError,
)
from robustvae.models.divergences import (
    DIVERGENCES,
    T3,
    Alpha,
    Gamma,
    Renyi,
)
from robustvae.models.likelihoods import Bernoulli, Gaussian, StudentT
from robustvae.models.objective import Objective
from robustvae.params import CapacitySettings
from robustvae.training import fitting

ROOT = Path(__file__).parents[1]
CASES = json.loads((ROOT / "tests" / "golden" / "divergence_cases.json").read_text())["cases"]
NO_CAPACITY = CapacitySettings(weight=None, start=0.0, max=25.0, steps=10)

EXAMPLES = {
    "alpha": [Alpha(a) for a in (-1.0, 0.0, 1e-9, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0)],
    "renyi": [Renyi(a) for a in (0.2, 0.5, 1.0, 2.0)],
    "gamma": [Gamma(df) for df in (2.5, 5.0, 1e6)],
    "t3": [T3(3.0, 3, 4, 0.8), T3(30.0, 3, 784, 0.3)],
}
LAW = [
    pytest.param(d, id=f"{name}-{'-'.join(f'{v:g}' for v in list(vars(d).values())[1:])}")
    for name, examples in EXAMPLES.items()
    for d in examples
]


def batch(seed: int = 0, rows: int = 6, dims: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """mu, logvar, mu0, logvar0; variances within a factor of 1.9, where every example is finite."""
    rng = torch.Generator().manual_seed(seed)
    mu, logvar = torch.randn(2, rows, dims, generator=rng, dtype=torch.float64)
    mu0, logvar0 = 0.5 * torch.randn(2, dims, generator=rng, dtype=torch.float64)
    return mu0 + 0.5 * mu, logvar0 + 0.6 * torch.tanh(logvar), mu0, logvar0


def laws(divergence, mu, logvar, mu0, logvar0):
    if isinstance(divergence, T3):  # defined for the standard prior
        mu0, logvar0 = torch.zeros_like(mu0), torch.zeros_like(logvar0)
    return divergence.posterior(mu, logvar), divergence.prior(mu0, logvar0)


def value(divergence, *inputs: Tensor) -> Tensor:
    return divergence(*laws(divergence, *inputs))


def gradients(divergence, mu, logvar, mu0, logvar0) -> tuple[Tensor, Tensor]:
    mu, logvar = mu.clone().requires_grad_(), logvar.clone().requires_grad_()
    value(divergence, mu, logvar, mu0, logvar0).sum().backward()
    return mu.grad, logvar.grad


def assert_gradient_reaches_mu_and_logvar(divergence) -> None:
    mu, logvar, mu0, logvar0 = batch()
    q, _ = laws(divergence, mu.requires_grad_(), logvar.requires_grad_(), mu0, logvar0)
    assert value(divergence, q.mu, logvar, mu0, logvar0).requires_grad, "detached"
    for gradient in gradients(divergence, mu.detach(), logvar.detach(), mu0, logvar0):
        assert (gradient != 0).all()


def constants(*values: float) -> list[Tensor]:
    return [torch.tensor([v], dtype=torch.float64) for v in values]


# The golden cases.


def tensors(inputs: dict, dtype: torch.dtype) -> list[Tensor]:
    dims = len(inputs["mu"][0])
    zeros = [0.0] * dims
    keys = ("mu", "logvar", "mu0", "logvar0")
    return [torch.tensor(inputs.get(key, zeros), dtype=dtype) for key in keys]


def divergence_of(kind: str, inputs: dict):
    dims = len(inputs["mu"][0])
    made = {
        "kl": lambda: Alpha(1.0),
        "kl_reverse": lambda: Alpha(0.0),
        "alpha": lambda: Alpha(inputs["alpha"]),
        "renyi": lambda: Renyi(inputs["alpha"]),
        "gamma": lambda: Gamma(inputs["df"]),
        "t3_regulariser": lambda: T3(inputs["df"], dims, inputs["n"], inputs["sigma"]),
    }
    return made[kind]()


def check_value(case, dtype):
    inputs = case["inputs"]
    values = value(divergence_of(case["kind"], inputs), *tensors(inputs, dtype))
    return {"per_sample": values, "batch_mean": values.mean()}


def check_power(case, dtype):
    inputs = case["inputs"]
    mu, logvar, mu0, logvar0 = tensors(inputs, dtype)
    df, m = inputs["df"], mu.shape[-1]
    order = -2 / (df + m)
    volume = order * (log_student_constant(df, m) - 0.5 * logvar.double().sum(-1))
    norm = ((volume + math.log1p(m / (df - 2))) / (1 + order)).exp()
    log_type = value(Gamma(df), mu, logvar, mu0, logvar0)
    return {"per_sample": norm * torch.expm1(-order * log_type) / -order}


def check_gradient(case, dtype):
    inputs = case["inputs"]
    divergence = divergence_of(inputs["divergence"], inputs)
    mu, logvar = gradients(divergence, *tensors(inputs, dtype))
    return {"grad_mu": mu[0], "grad_logvar": logvar[0]}


def check_constants(case, dtype):
    df, n, m, sigma = (case["inputs"][key] for key in ("df", "n", "m", "sigma"))
    t3 = T3(df, m, n, sigma)
    prior = t3.prior(torch.zeros(1, m, dtype=dtype), torch.zeros(1, m, dtype=dtype))
    # C1 and C2 as section 8.2 writes them, which nothing in the package uses
    total = df + n + m
    order = -2 / total
    log_c1 = order * log_student_constant(df + n, m) - order * m / 2 * math.log(df / (df + n))
    log_c1 = (log_c1 + math.log1p(m / (df + n - 2))) / (1 + order)
    log_c2 = log_student_constant(df, n + m) - n * math.log(sigma)
    log_c2 = (log_c2 + math.log((df - 2) / (total - 2))) * order / (1 + order)
    ratio = (1 + m / (df + n - 2)) * math.exp(t3.log_s * (df + n - 2) / (total - 2))
    assert ratio == pytest.approx(math.exp(log_c1 - log_c2), rel=1e-8)
    return {
        "log_s": t3.log_s,
        "tau2": t3.tau2,
        "c1_over_c2": ratio,
        "prior_star_second_moment_per_dim": t3.minimum(prior).variance[0, 0],
    }


def check_capacity(case, dtype):
    i = case["inputs"]
    settings = CapacitySettings(
        weight=i["weight"], start=i["c_start"], max=i["c_max"], steps=i["steps"]
    )
    objective = Objective(1.0, settings)
    kl = value(Alpha(1.0), *tensors(i, dtype))
    return {
        "kl": kl.mean(),
        "capacity": objective.capacity_at(i["step"]),
        "penalty": objective(torch.zeros_like(kl), kl, i["step"]),
    }


def check_infinite(case, dtype):
    with pytest.raises(DivergenceInfiniteError) as caught:
        value(Alpha(case["inputs"]["alpha"]), *tensors(case["inputs"], dtype))
    return {"rows": caught.value.rows, "dims": caught.value.dims}


def check_overflow(case, dtype):
    with pytest.raises(DivergenceOverflowError) as caught:
        value(Alpha(case["inputs"]["alpha"]), *tensors(case["inputs"], dtype))
    return {"rows": caught.value.rows}


def check_config_error(case, tmp_path):
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content["loss"].update(case["inputs"]["loss"])
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=case["expected"]["field"]):
        params.load(path)


class Straight:
    """A decoder whose output is the mean image itself."""

    def mean(self, out: Tensor) -> Tensor:
        return out


class StraightGaussian(Straight, Gaussian):
    pass


class StraightStudentT(Straight, StudentT):
    pass


def image(values, dtype) -> Tensor:
    return torch.as_tensor(values, dtype=dtype)[..., None, None, :]


def check_densities(case, dtype):
    i = case["inputs"]
    t3 = T3(i["df"], len(i["z"]), len(i["x"]), i["sigma"])
    z = torch.tensor([i["z"]], dtype=dtype)
    mu, logvar, mu0, logvar0 = tensors(i, dtype)
    decoder = StraightStudentT(i["sigma"], i["df"], len(i["z"]))
    log_x = decoder.log_prob(image(i["x"], dtype), image(i["x_hat"], dtype), z)
    prior, posterior = t3.prior(mu0, logvar0).log_prob(z), t3.posterior(mu, logvar).log_prob(z)
    return {
        "log_prior": prior,
        "log_decoder": log_x,
        "log_posterior": posterior,
        "log_weight": log_x + prior - posterior,
    }


def check_moments(case, dtype):
    i = case["inputs"]
    mu, logvar, *_ = tensors(i, dtype)
    torch.manual_seed(0)
    draws = T3(i["df"], mu.shape[-1], i["n"], 1.0).posterior(mu, logvar).rsample(1_000_000)
    square = (draws - mu).square().double()[:, 0]
    return {"second": square.mean(0), "cross_fourth": square.prod(-1).mean()}


def check_gaussian(case, dtype):
    i = case["inputs"]
    decoder = StraightGaussian("fixed", math.exp(i["logvar_x"] / 2)).to(dtype)
    return score(decoder, image(i["x"], dtype), image(i["x_hat"], dtype))


def check_bernoulli(case, dtype):
    i = case["inputs"]
    return score(Bernoulli(), image(i["x"], dtype), image(i["logits"], dtype))


def score(decoder, x: Tensor, out: Tensor) -> dict:
    log_lik = decoder.log_prob(x, out, torch.zeros(1))
    return {"log_lik": log_lik, "bits_per_dim": -log_lik / (x.numel() * math.log(2))}


def check_weights(case, dtype):
    log_w = torch.tensor(case["inputs"]["log_w"], dtype=dtype).double()
    return {"value": log_w.logsumexp(0) - math.log(len(log_w))}


def check_marginal(case, dtype):
    i = case["inputs"]
    mu, logvar, mu0, logvar0 = tensors(i, dtype)
    n = len(i["x"])
    divergence = {
        "gaussian": lambda: Alpha(1.0),
        "gamma": lambda: Gamma(i["df"]),
        "t3": lambda: T3(i["df"], 1, n, i["sigma"]),
    }[i["family"]]()
    decoder = {
        "gaussian": lambda: StraightGaussian("fixed", i["sigma"]),
        "bernoulli": Bernoulli,
        "t3": lambda: StraightStudentT(i["sigma"], i["df"], 1),
    }[i["decoder"]]().to(dtype)
    torch.manual_seed(0)
    q, p = divergence.posterior(mu, logvar), divergence.prior(mu0, logvar0)
    z = q.rsample(case["tol"]["K"])
    out = z * torch.tensor(i["a"], dtype=dtype) + torch.tensor(i["b"], dtype=dtype)
    log_x = decoder.log_prob(image(i["x"], dtype), image(out, dtype), z)
    log_w = log_x + p.log_prob(z) - q.log_prob(z)
    return {"log_px": log_w.logsumexp(0) - math.log(len(log_w)), "elbo": log_w.mean()}


CHECKS = {
    **dict.fromkeys(("kl", "kl_reverse", "alpha", "renyi", "gamma", "t3_regulariser"), check_value),
    "gamma_power": check_power,
    "grad": check_gradient,
    "t3_constants": check_constants,
    "capacity": check_capacity,
    "infinite": check_infinite,
    "overflow": check_overflow,
    "log_density": check_densities,
    "t_posterior_moments": check_moments,
    "gaussian_loglik": check_gaussian,
    "bernoulli_loglik": check_bernoulli,
    "iwae_from_weights": check_weights,
    "marginal": check_marginal,
}
NUMBERS = [c for c in CASES if c["kind"] != "config_error"]
REFUSED = [c for c in CASES if c["kind"] == "config_error"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("case", NUMBERS, ids=lambda c: c["id"])
def test_golden_case(case, dtype):
    found = CHECKS[case["kind"]](case, dtype)
    tol = case.get("tol", {"rtol": 0, "atol": 0})
    if dtype == torch.float32:
        tol = case.get("tol_float32", tol)
    expected = {key: want for key, want in case["expected"].items() if key != "error"}
    assert set(found) <= set(expected)
    assert set(expected) - set(found) <= {"batch_mean"}
    for key, got in found.items():
        got = np.asarray(got.detach().squeeze() if isinstance(got, Tensor) else got)
        want = np.squeeze(expected[key])
        np.testing.assert_allclose(got.squeeze(), want, tol["rtol"], tol["atol"], err_msg=key)


@pytest.mark.parametrize("case", REFUSED, ids=lambda c: c["id"])
def test_golden_case_refused_by_the_parameters(case, tmp_path):
    check_config_error(case, tmp_path)


def test_golden_file_holds_all_its_cases():
    assert len(CASES) == 59


# Laws.


def test_every_divergence_has_an_example():
    assert set(EXAMPLES) == set(DIVERGENCES)
    assert all(type(d) is DIVERGENCES[name] for name, ds in EXAMPLES.items() for d in ds)


@pytest.mark.parametrize("divergence", LAW)
def test_laws(divergence):
    testing.check_divergence(divergence)


@pytest.mark.parametrize("kind", [Alpha, Gamma])
def test_gradient_law_catches_a_detached_divergence(kind):
    class Detached(kind):
        def formula(self, *inputs: Tensor) -> Tensor:
            return super().formula(*(torch.tensor(t.tolist(), dtype=t.dtype) for t in inputs))

    with pytest.raises(AssertionError, match="detached"):
        testing.check_divergence(Detached(3.0 if kind is Gamma else 0.5))


@pytest.mark.parametrize("divergence", LAW)
def test_autocast_and_half_precision_latents_do_not_coarsen_the_value(divergence):
    inputs = [t.bfloat16() for t in batch()]
    exact = [t.double() for t in inputs]
    if isinstance(divergence, T3):  # the posterior's own shift must not be rounded to bfloat16
        inputs[1] = inputs[1].float()
    with torch.autocast("cpu", torch.bfloat16):
        found = value(divergence, *inputs)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), value(divergence, *exact), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("divergence", LAW)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["mu", "logvar"])
def test_latent_that_is_no_number_is_named(divergence, bad, name):
    mu, logvar, mu0, logvar0 = batch()
    (mu if name == "mu" else logvar)[4, 2] = bad
    q, p = laws(divergence, mu, logvar, mu0, logvar0)
    for act in (divergence, divergence.evaluate):
        with pytest.raises(
            NonFiniteLatentError, match=f"{name} is .* at sample 4, latent dimen"
        ) as e:
            act(q, p)
        assert (e.value.rows, e.value.dims) == ([4], [2])


@pytest.mark.parametrize(
    "divergence", [Alpha(0.5), Alpha(1.0), Alpha(0.0), Gamma(3.0), *EXAMPLES["t3"]]
)
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_log_variance_of_twenty_needs_no_clamp(divergence, sign):
    logvar = torch.full((2, 3), 20.0 * sign, requires_grad=True)
    values = value(divergence, torch.ones(2, 3), logvar, torch.zeros(3), torch.zeros(3))
    values.sum().backward()
    assert values.isfinite().all()
    assert logvar.grad.isfinite().all()


# References from outside.


def integral(f, *scales: float) -> float:
    width = 40 * max(scales)
    return integrate.quad(f, -width, width, limit=400, points=(-1, 0, 1), epsabs=1e-13)[0]


ONE = (0.7, -0.3, -0.2, 0.2)  # mu, logvar, mu0, logvar0
Q, P = [stats.norm(ONE[i], math.exp(ONE[i + 1] / 2)) for i in (0, 2)]


@pytest.mark.parametrize("alpha", [-1.0, -0.2, 0.3, 0.5, 0.999, 1.3, 2.0])
def test_alpha_and_renyi_agree_with_quadrature(alpha):
    mass = integral(lambda x: math.exp(alpha * Q.logpdf(x) + (1 - alpha) * P.logpdf(x)), 1.0)
    found = value(Alpha(alpha), *constants(*ONE)).item()
    assert found == pytest.approx((1 - mass) / (alpha * (1 - alpha)), rel=1e-8)
    if alpha > 0:
        found = value(Renyi(alpha), *constants(*ONE)).item()
        assert found == pytest.approx(math.log(mass) / (alpha - 1), rel=1e-8)


@pytest.mark.parametrize(
    ("alpha", "first", "second"), [(1.0, Q, P), (0.0, P, Q)], ids=["KL", "reverse"]
)
def test_kl_agrees_with_quadrature(alpha, first, second):
    expected = integral(lambda x: first.pdf(x) * (first.logpdf(x) - second.logpdf(x)), 1.0)
    assert value(Alpha(alpha), *constants(*ONE)).item() == pytest.approx(expected, rel=1e-8)


def student_norms(q, p, order: float) -> tuple[float, float, float]:
    """||q||, ||p|| and the integral of q p^order, by quadrature."""

    edge = math.pi / 2 - 1e-9

    def total(f) -> float:  # x = tan(u)
        return integrate.quad(
            lambda u: f(math.tan(u)) / math.cos(u) ** 2, -edge, edge, points=(0,)
        )[0]

    power = 1 / (1 + order)
    return (
        total(lambda x: q.pdf(x) ** (1 + order)) ** power,
        total(lambda x: p.pdf(x) ** (1 + order)) ** power,
        total(lambda x: q.pdf(x) * p.pdf(x) ** order),
    )


@pytest.mark.parametrize("df", [3.0, 8.0])
def test_gamma_agrees_with_quadrature(df):
    q, p = [stats.t(df, ONE[i], math.exp(ONE[i + 1] / 2)) for i in (0, 2)]
    order = -2 / (df + 1)
    norm_q, norm_p, cross = student_norms(q, p, order)
    expected = (math.log(norm_q) - math.log(cross / norm_p**order)) / order
    assert value(Gamma(df), *constants(*ONE)).item() == pytest.approx(expected, rel=1e-6)


def test_t3_is_proportional_to_the_power_divergence_from_its_minimum():
    t3 = T3(3.0, 1, 4, 0.8)
    q = t3.posterior(*constants(0.7, -0.5))
    best = t3.minimum(t3.prior(*constants(0.0, 0.0)))
    laws_ = [stats.t(law.df, law.mu.item(), math.exp(law.logvar.item() / 2)) for law in (q, best)]
    order, total = -2 / 8, 8
    norm_q, norm_p, cross = student_norms(*laws_, order)
    power_type = (norm_q - cross / norm_p**order) / order
    coefficient = 3 * math.exp(t3.log_s) * (1 + 1 / 5) / (total * norm_p)
    found = t3(q, t3.prior(*constants(0.0, 0.0))).item()
    assert found == pytest.approx(coefficient * power_type, rel=1e-6)


@pytest.mark.parametrize(
    ("n", "df", "tau2"),
    [
        (784, 2.1, 0.0577),
        (784, 30, 0.0643),
        (784, 1e3, 0.287),
        (3072, 3, 0.0584),
        (3072, 1e3, 0.117),
    ],
)
def test_t3_effective_beta_agrees_with_the_table_of_the_specification(n, df, tau2):
    t3 = T3(df, 32, n, 1.0)
    assert t3.stats(torch.ones(2))["t3_effective_beta"].item() == pytest.approx(tau2, rel=6e-3)


# Limits and continuity.


@pytest.mark.parametrize("kind", [Alpha, Renyi])
def test_order_one_is_the_limit_from_both_sides(kind):
    inputs = batch()
    kl = value(kind(1.0), *inputs)
    assert torch.equal(kl, value(Alpha(1.0), *inputs))
    slope = (value(kind(1.0001), *inputs) - value(kind(0.9999), *inputs)) / 2e-4
    for step in (1e-5, 1e-7, 1e-12, -1e-5, -1e-7, -1e-12):
        torch.testing.assert_close(
            value(kind(1 + step), *inputs), kl + step * slope, rtol=1e-8, atol=0
        )


def test_order_zero_is_the_limit_from_both_sides():
    inputs = batch()
    reverse = value(Alpha(0.0), *inputs)
    slope = (value(Alpha(1e-4), *inputs) - value(Alpha(-1e-4), *inputs)) / 2e-4
    for step in (1e-5, 1e-7, 1e-12, 1e-100, -1e-5, -1e-7, -1e-12, -1e-100):
        torch.testing.assert_close(
            value(Alpha(step), *inputs), reverse + step * slope, rtol=1e-8, atol=0
        )
    scaled = value(Renyi(1e-9), *inputs) / 1e-9
    torch.testing.assert_close(scaled, reverse, rtol=1e-7, atol=0)


@pytest.mark.parametrize("kind", [Alpha, Renyi])
def test_nothing_jumps_anywhere_in_alpha(kind):
    inputs = batch()
    low = 0.001 if kind is Renyi else -0.9
    special = (0.0, 1e-12, 1e-6, 1e-3, 0.5, 1 - 1e-3, 1 - 1e-6, 1 - 1e-12, 1.0, 1 + 1e-6)
    for order in [*np.linspace(low, 1.9, 200), *(a for a in special if a >= low)]:
        step = 1e-9
        near = [value(kind(float(a)), *inputs) for a in (order - step, order, order + step)]
        assert ((near[0] - 2 * near[1] + near[2]) / near[1]).abs().max() < 1e-11
        assert ((near[2] - near[0]) / near[1]).abs().max() < 1e-5


def test_kl_and_its_neighbours_have_the_same_scale_in_eight_dimensions():
    mu, zeros = torch.ones(1, 8), torch.zeros(8)
    values = [value(Alpha(a), mu, torch.zeros(1, 8), zeros, zeros).item() for a in (1.0, 0.999)]
    assert values == pytest.approx([4.0, 3.992], abs=2e-3)


def test_alpha_is_dual_in_q_and_p():
    mu, logvar, mu0, logvar0 = batch(rows=1)
    for alpha in (-0.5, 0.2, 0.9):
        swapped = value(Alpha(1 - alpha), mu0[None], logvar0[None], mu[0], logvar[0])
        torch.testing.assert_close(value(Alpha(alpha), mu, logvar, mu0, logvar0), swapped)


def test_renyi_grows_with_its_order_and_adds_over_dimensions():
    inputs = batch()
    values = torch.stack([value(Renyi(a), *inputs) for a in (0.1, 0.5, 0.9, 1.0, 1.5, 2.0)])
    assert (values.diff(dim=0) > 0).all()
    parts = sum(value(Renyi(0.5), *(t[..., [i]] for t in inputs)) for i in range(3))
    torch.testing.assert_close(value(Renyi(0.5), *inputs), parts)


def test_renyi_of_a_batch_is_the_mean_of_logarithms():
    mu = torch.tensor([[0.0], [3.0]], dtype=torch.float64)
    zero = torch.zeros(1, dtype=torch.float64)
    found = value(Renyi(0.5), mu, torch.zeros_like(mu), zero, zero).mean().item()
    assert found == pytest.approx(1.125)  # the logarithm of the mean gives 0.824


def test_gamma_tends_to_kl_with_the_first_order_of_the_specification():
    mu, logvar, mu0, logvar0 = batch()
    d, square = logvar - logvar0, (mu - mu0).square() * (-logvar0).exp()
    first = (torch.expm1(d) - d).sum(-1) - 0.25 * (torch.expm1(d) + square).sum(-1).square()
    kl = value(Alpha(1.0), mu, logvar, mu0, logvar0)
    found = 1e5 * (value(Gamma(1e5), mu, logvar, mu0, logvar0) - kl)
    torch.testing.assert_close(found, first, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("df", "expected"), [(1e3, -1.2694), (1e4, -1.27919), (1e5, -1.28018)])
def test_t3_tends_to_kl_as_the_specification_says(df, expected):
    inputs = torch.tensor([[[0.5, -1.0]], [[0.3, -0.9]]], dtype=torch.float64)
    zeros = torch.zeros(2, 2, dtype=torch.float64)
    kl = value(Alpha(1.0), *inputs, *zeros)
    found = df * (value(T3(df, 2, 3, 0.7), *inputs, *zeros) - kl)
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_gamma_at_two_degrees_of_freedom_does_not_see_the_means():
    found = value(Gamma(2 + 1e-9), *constants(5.0, 0.0, 0.0, 0.0)).item()
    assert 0 < found < 1e-7


def test_prior_given_by_name_enters_every_divergence_that_takes_one():
    mu, logvar, mu0, logvar0 = batch()
    for divergence in (d for name in ("alpha", "renyi", "gamma") for d in EXAMPLES[name]):
        here = value(divergence, mu, logvar, mu0, logvar0)
        assert (value(divergence, mu, logvar, mu0 + 0.1, logvar0) != here).all()
        assert (value(divergence, mu, logvar, mu0, logvar0 + 0.05) != here).all()


def test_samples_of_t3_come_from_its_minimum_whatever_sigma_is():
    for sigma in (0.3, 2.0):
        t3 = T3(5.0, 2, 10, sigma)
        law = t3.minimum(t3.prior(torch.zeros(2), torch.zeros(2)))
        assert law.df == 15.0
        torch.testing.assert_close(law.logvar.exp(), torch.full((2,), t3.tau2))


# Infinite, overflowing, saturated.


def normal(mu, logvar) -> DiagNormal:
    return DiagNormal(
        torch.tensor(mu, dtype=torch.float64), torch.tensor(logvar, dtype=torch.float64)
    )


STANDARD = normal([0.0, 0.0], [0.0, 0.0])
WIDE = normal([[0.0, 0.0], [0.1, 0.0], [0.0, 0.0]], [[0.0, 0.9], [0.1, 0.2], [0.8, 0.7]])


@pytest.mark.parametrize("kind", [Alpha, Renyi])
def test_infinite_divergence_names_every_offending_pair(kind):
    with pytest.raises(DivergenceInfiniteError) as caught:
        kind(2.0)(WIDE, STANDARD)
    assert (caught.value.rows, caught.value.dims) == ([0, 2, 2], [1, 0, 1])
    assert str(caught.value) == (
        "divergence infinite with alpha 2, first at sample 0, latent dimension 1: vq 2.4596, vp 1, "
        "V = (1-alpha)*vq + alpha*vp = -0.459603, but alpha > 1 needs vq < vp * alpha/(alpha-1) = "
        "2; violated by 3 of 6 (sample, dimension) pairs; take loss.alpha in [0, 1] or "
        "model.logvar_bound: auto (divergence: renyi does not help, same condition)"
    )


def test_narrow_posterior_is_infinite_below_order_zero():
    with pytest.raises(
        DivergenceInfiniteError, match=r"vq > vp \* \|alpha\|/\(1\+\|alpha\|\) = 0.5"
    ):
        Alpha(-1.0)(normal([[0.0, 0.0]], [[0.0, -0.7]]), STANDARD)


def test_edge_of_the_finite_region_is_infinite():
    edge = math.log(2.0)
    with pytest.raises(DivergenceInfiniteError):
        Alpha(2.0)(normal([[0.0, 0.0]], [[0.0, math.nextafter(edge, 1)]]), STANDARD)


def test_evaluation_counts_infinite_rows_and_goes_on():
    values, infinite = Alpha(2.0).evaluate(WIDE, STANDARD)
    assert infinite.tolist() == [True, False, True]
    assert values.dtype == torch.float64
    assert values.isinf().tolist() == infinite.tolist()
    assert values[1].item() == Alpha(2.0)(normal([[0.1, 0.0]], [[0.1, 0.2]]), STANDARD).item()


def test_beta_zero_counts_infinite_rows_and_keeps_them_out_of_the_objective():
    divergence = Alpha(2.0, strict=False)
    values = divergence(WIDE, STANDARD)
    assert values.isinf().tolist() == [True, False, True]
    assert divergence.stats(values)["divergence_infinite_fraction"].item() == pytest.approx(2 / 3)
    recon = torch.ones(3, requires_grad=True)
    total = Objective(0.0, NO_CAPACITY)(recon, values, step=0)
    total.backward()
    assert total.item() == 1.0
    assert recon.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_overflow_is_that_of_the_type_returned(dtype):
    q = DiagNormal(torch.tensor([[0.0], [10.0]], dtype=dtype), torch.zeros(2, 1, dtype=dtype))
    p = DiagNormal(torch.zeros(1, dtype=dtype), torch.zeros(1, dtype=dtype))
    if dtype == torch.float64:
        assert Alpha(2.0)(q, p)[1].item() == pytest.approx(math.exp(100) / 2)
        return
    with pytest.raises(
        DivergenceOverflowError, match=r"sample 1 .*float32.* L = .* = 100; lower train\.lr"
    ) as e:
        Alpha(2.0)(q, p)
    assert e.value.rows == [1]


def test_overflow_of_a_divergence_without_order_says_what_is_large():
    q = DiagNormal(torch.zeros(1, 1), torch.full((1, 1), 200.0))
    with pytest.raises(DivergenceOverflowError, match=r"\|logvar\| 200; set model.logvar_bound"):
        Alpha(1.0)(q, DiagNormal(torch.zeros(1), torch.zeros(1)))


def test_batch_whose_mean_would_overflow_is_refused():
    mu = torch.full((100, 1), math.sqrt(88.0))
    with pytest.raises(DivergenceOverflowError):
        Alpha(2.0)(DiagNormal(mu, torch.zeros(100, 1)), DiagNormal(torch.zeros(1), torch.zeros(1)))


@pytest.mark.parametrize(
    ("divergence", "std", "expected"),
    [
        (Alpha(2.0), 0.5, 2.8e5),
        (Alpha(2.0), 0.1, 8e26),
        (Alpha(1.0), 0.1, 58),
        (Alpha(0.5), 0.1, 4),
    ],
)
def test_sizes_in_32_dimensions_are_those_of_the_specification(divergence, std, expected):
    logvar, zeros = torch.full((1, 32), 2 * math.log(std)), torch.zeros(32)
    found = value(divergence, torch.zeros(1, 32), logvar, zeros, zeros).item()
    assert found == pytest.approx(expected, rel=0.04)


def test_saturation_is_the_mean_of_the_integral_and_warns_when_the_penalty_is_constant():
    settings = params.load(ROOT / "params.yaml").loss.model_copy(update={"alpha": 0.5})
    inputs = batch()
    values = value(Alpha(0.5), *inputs)
    saturation = Alpha(0.5).stats(values)["alpha_saturation"].item()
    assert saturation == pytest.approx(Alpha(0.5).log_integral(*inputs).exp().mean().item())
    assert fitting.saturation_warning(settings, saturation) is None
    assert "loss.divergence: renyi" in fitting.saturation_warning(settings, 9e-4)
    for other in (Alpha(1.0), Alpha(2.0), Renyi(0.5), Gamma(3.0)):
        assert "alpha_saturation" not in other.stats(values)


# The objective and the builder.

RECON, PENALTY = torch.tensor([10.0, 20.0]), torch.tensor([1.0, 5.0])


@pytest.mark.parametrize(
    ("beta", "warmup", "total"), [(1.0, 1.0, 18.0), (4.0, 1.0, 27.0), (4.0, 0.5, 21.0)]
)
def test_objective_weighs_batch_means_by_beta_and_its_warm_up(beta, warmup, total):
    assert Objective(beta, NO_CAPACITY)(RECON, PENALTY, 7, warmup).item() == total


@pytest.mark.parametrize(
    ("step", "budget", "total"), [(0, 1.0, 23.0), (5, 3.0, 15.0), (20, 5.0, 23.0)]
)
def test_capacity_takes_the_distance_of_the_batch_mean_from_its_budget(step, budget, total):
    objective = Objective(1.0, CapacitySettings(weight=4.0, start=1.0, max=5.0, steps=10))
    assert objective.capacity_at(step) == budget
    assert (
        objective(RECON, PENALTY, step).item() == total
    )  # the mean of distances would give 23 always


def loss(**changes):
    return params.load(ROOT / "params.yaml").loss.model_copy(update=changes)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Alpha(1.0)),
        ({"alpha": 0.5}, Alpha(0.5)),
        ({"df": 3.0}, Gamma(3.0)),
        ({"divergence": "renyi", "alpha": 2.0}, Renyi(2.0)),
        ({"divergence": "t3", "df": 3.0}, T3(3.0, 16, 784, 0.3)),
        ({"beta": 0.0}, Alpha(1.0, strict=False)),
    ],
    ids=str,
)
def test_settings_select_the_divergence(changes, expected):
    assert divergences.build(loss(**changes), 16, 784, 0.3) == expected


@pytest.mark.parametrize("alpha", [-3.0, -0.01, 1.01, 2.0, 50.0])
@pytest.mark.parametrize("logvar0", [0.4, (0.5, -1.0)], ids=["shared", "each"])
def test_automatic_bound_keeps_the_divergence_finite(alpha, logvar0):
    prior = params.load(ROOT / "params.yaml").loss.prior.model_copy(update={"logvar": logvar0})
    low, high = divergences.logvar_bounds(loss(alpha=alpha, prior=prior))
    assert (low is None) == (alpha > 1)
    edge = high if alpha > 1 else low
    p = DiagNormal(torch.zeros(2), torch.as_tensor(logvar0).expand(2))
    q = DiagNormal(torch.zeros(1, 2), edge.expand(1, 2))
    assert Renyi(alpha)(q, p).isfinite().all()
    over = math.copysign(0.06, alpha - 0.5)
    with pytest.raises(DivergenceInfiniteError):
        Renyi(alpha)(DiagNormal(q.mu, q.logvar + over), p)


@pytest.mark.parametrize(
    "changes", [{}, {"alpha": 0.3}, {"df": 3.0}, {"divergence": "t3", "df": 3.0}], ids=str
)
def test_no_bound_where_the_divergence_is_always_finite(changes):
    assert divergences.logvar_bounds(loss(**changes)) == (None, None)
