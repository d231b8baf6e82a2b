import mpmath
import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from robustvae.models.distributions import DiagNormal, DiagStudentT, log_student_constant

DRAWS = 200_000
MU, LOGVAR = torch.tensor([0.5, -1.0]), torch.tensor([-0.6, 0.8])
NORMAL = DiagNormal(MU.double(), LOGVAR.double())
STUDENTS = [DiagStudentT(MU.double(), LOGVAR.double(), df) for df in (3.0, 10.0)]
LAWS = [pytest.param(NORMAL, stats.norm(), id="normal")] + [
    pytest.param(law, stats.t(law.df), id=f"student-{law.df:g}") for law in STUDENTS
]


def standardised(law: DiagNormal | DiagStudentT, samples: int = DRAWS) -> Tensor:
    torch.manual_seed(0)
    return (law.rsample(samples) - law.mu) / (0.5 * law.logvar).exp()


@pytest.mark.parametrize(("law", "reference"), LAWS)
def test_each_dimension_is_drawn_from_its_marginal(law, reference):
    for column in standardised(law).T:
        assert stats.kstest(column.numpy(), reference.cdf).pvalue > 0.01


@pytest.mark.parametrize(("law", "reference"), LAWS)
def test_mean_variance_and_quantiles_agree_with_scipy(law, reference):
    scale = (0.5 * law.logvar).exp().numpy()
    np.testing.assert_allclose(law.mean, law.mu)
    np.testing.assert_allclose(law.variance, reference.var() * scale**2)
    for u in (1e-6, 0.3, 0.5, 0.999):
        expected = law.mu.numpy() + scale * reference.ppf(u)
        np.testing.assert_allclose(
            law.quantile(torch.tensor(u, dtype=torch.float64)), expected, rtol=1e-9
        )


def test_student_dimensions_share_one_chi_square():
    # E z1^2 z2^2 = k^2 / ((k-2)(k-4)) = 2.0833; with one chi-square per dimension 1.5625.
    product = standardised(STUDENTS[1], 1_000_000).square().prod(-1).mean().item()
    assert product == pytest.approx(100 / 48, rel=0.02)


def test_normal_log_density_agrees_with_scipy():
    z = torch.tensor([[0.0, 3.0], [1.0, -2.0]]).double()
    expected = stats.norm(MU, (0.5 * LOGVAR).exp()).logpdf(z).sum(-1)
    np.testing.assert_allclose(NORMAL.log_prob(z), expected, rtol=1e-6)


@pytest.mark.parametrize("law", STUDENTS, ids=lambda law: f"df-{law.df:g}")
def test_student_log_density_agrees_with_scipy(law):
    z = torch.tensor([[0.0, 3.0], [1.0, -200.0]]).double()
    joint = stats.multivariate_t(law.mu, np.diag(law.logvar.exp()), df=law.df)
    np.testing.assert_allclose(law.log_prob(z), joint.logpdf(z), rtol=1e-10)


def test_scale_shared_by_all_dimensions_counts_once_for_each():
    z = torch.tensor([0.3, -1.0, 2.0]).double()
    for law in (DiagNormal, lambda mu, logvar: DiagStudentT(mu, logvar, 3.0)):
        shared = law(torch.zeros(1).double(), torch.tensor([0.7]).double())
        each = law(torch.zeros(3).double(), torch.full((3,), 0.7).double())
        assert shared.log_prob(z).item() == pytest.approx(each.log_prob(z).item(), rel=1e-12)


@pytest.mark.parametrize("df", [2.1, 199.9, 200.0, 1e4, 1e8])
@pytest.mark.parametrize("dim", [1, 16, 3072])
def test_student_normaliser_keeps_its_digits_at_large_df(df, dim):
    with mpmath.workdps(40):
        k, d = mpmath.mpf(df), mpmath.mpf(dim)
        exact = (
            mpmath.loggamma((k + d) / 2)
            - mpmath.loggamma(k / 2)
            - d / 2 * mpmath.log(k * mpmath.pi)
        )
    assert log_student_constant(df, dim) == pytest.approx(float(exact), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("law", [NORMAL, STUDENTS[0]], ids=["normal", "student"])
def test_draws_carry_the_gradient_of_location_and_scale(law):
    mu, logvar = law.mu.clone().requires_grad_(), law.logvar.clone().requires_grad_()
    z = DiagNormal(mu, logvar) if law is NORMAL else DiagStudentT(mu, logvar, law.df)
    draw = z.rsample()
    draw.sum().backward()
    assert torch.equal(mu.grad, torch.ones(2).double())
    torch.testing.assert_close(logvar.grad, 0.5 * (draw - mu).detach())


@pytest.mark.parametrize("law", [NORMAL, STUDENTS[0]], ids=["normal", "student"])
def test_same_seed_gives_the_same_draws_in_the_shape_asked_for(law):
    batch = type(law)(
        **{**vars(law), "mu": law.mu.float().expand(5, 2), "logvar": LOGVAR.expand(5, 2)}
    )
    torch.manual_seed(3)
    first, many = batch.rsample(), batch.rsample(7)
    torch.manual_seed(3)
    assert torch.equal(first, batch.rsample())
    assert (first.shape, many.shape) == ((5, 2), (7, 5, 2))
    assert first.dtype == torch.float32
    assert batch.log_prob(many).shape == (7, 5)
