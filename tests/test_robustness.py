"""Bounds against a solvable model, collapse on constructed posteriors, tables, the stage."""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
import yaml
from conftest import ROOT, overlay
from scipy import integrate, stats
from torch import Tensor, nn

from robustvae import params
from robustvae.models import folder as model_folder
from robustvae.models import likelihoods
from robustvae.models.distributions import DiagNormal, DiagStudentT
from robustvae.robustness import bounds, collapse, measure, table
from robustvae.robustness.batches import each
from robustvae.robustness.bounds import Draws
from robustvae.robustness.catalogue import OF_METRIC, QUANTITIES
from robustvae.runtime import files

DIM, PIXELS = 2, (1, 2, 3)
SETTINGS = params.check(params.read(ROOT / "params.yaml")).evaluate


class Linear(nn.Module):
    """z ~ N(0, I), x ~ N(W z + b, s^2 I), W orthogonal: log p(x) and the posterior are known.

    `width` multiplies the posterior's standard deviations: 1 is exact, others make bounds loose.
    """

    family, loss_settings, shape = "gaussian", SimpleNamespace(kind="alpha", df=0.0), PIXELS

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(0)
        basis = torch.linalg.qr(torch.randn(math.prod(PIXELS), DIM, generator=rng)).Q
        self.weight = nn.Parameter(basis * torch.tensor([0.3, 0.1]))
        self.sigma, self.width, self.likelihood = 0.05, width, self

    def posterior(self, x: Tensor) -> DiagNormal:
        precision = 1 + (self.weight**2).sum(0) / self.sigma**2
        mu = (x.flatten(1) - 0.5) @ self.weight / self.sigma**2 / precision
        logvar = (self.width**2 / precision).log().expand_as(mu)
        return DiagNormal(mu, logvar)

    def prior(self, n: int | None = None) -> DiagNormal:
        return DiagNormal(torch.zeros(DIM), torch.zeros(DIM))

    generating_prior = prior

    def decode(self, z: Tensor) -> Tensor:
        return (0.5 + z @ self.weight.T).reshape(-1, *PIXELS)

    def mean(self, out: Tensor) -> Tensor:
        return out

    def log_prob(self, x: Tensor, out: Tensor, z: Tensor) -> Tensor:
        law = torch.distributions.Normal(out.double(), self.sigma)
        return law.log_prob(x.double()).sum((1, 2, 3))

    def proper(self, binary: bool) -> bool:
        return True

    def exact(self, x: np.ndarray) -> np.ndarray:
        """log p(x), [N]."""
        weight = self.weight.detach().double().numpy()
        covariance = weight @ weight.T + self.sigma**2 * np.eye(len(weight))
        law = stats.multivariate_normal(np.full(len(weight), 0.5), covariance)
        return law.logpdf(x.reshape(len(x), -1))


def grey(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    basis = Linear().weight.detach().numpy()
    x = 0.5 + rng.normal(size=(count, DIM)) @ basis.T + 0.05 * rng.normal(size=(count, len(basis)))
    return x.reshape(-1, *PIXELS).astype(np.float32)


def weighted(model: Any, x: np.ndarray, samples: int, seed: int = 0) -> bounds.Weighted:
    q = bounds.posteriors(model, x, 64)
    return bounds.importance_weighted(model, x, q, samples, 64, Draws(seed))


def test_bounds_are_exact_where_the_posterior_is() -> None:
    model, x = Linear(), grey(50)
    q, exact = bounds.posteriors(model, x, 64), model.exact(x)
    for samples in (1, 5):
        result = weighted(model, x, samples)
        np.testing.assert_allclose(result.bound, exact, atol=1e-3)
        np.testing.assert_allclose(result.effective, samples, rtol=1e-3)
    fit, rate = bounds.mean_elbo(model, x, q, 400, 64, Draws(0))
    assert (fit - rate).mean() == pytest.approx(exact.mean(), abs=0.03)


def test_importance_weighted_bound_reaches_the_exact_value_from_below() -> None:
    model, x = Linear(width=1.6), grey(200)
    exact = model.exact(x).mean()
    means = {k: [weighted(model, x, k, seed).bound.mean() for seed in range(8)] for k in (1, 4, 64)}
    error = {k: np.std(v) / math.sqrt(8) for k, v in means.items()}
    rising = [np.mean(v) for v in means.values()]
    assert rising == sorted(rising)
    assert rising[0] < exact - 0.3  # loose at K = 1, where it is the ELBO:
    fit, rate = bounds.mean_elbo(model, x, bounds.posteriors(model, x, 64), 200, 64, Draws(0))
    assert rising[0] == pytest.approx((fit - rate).mean(), abs=4 * error[1])
    assert rising[-1] == pytest.approx(exact, abs=0.02 + 4 * error[64])


def test_the_bounds_growth_with_the_number_of_draws_is_that_towards_the_exact_value() -> None:
    model, x = Linear(width=1.6), grey(8)
    exact, q = model.exact(x), bounds.posteriors(model, x, 64)
    found = bounds.growth(model, x, q, 20, 64, Draws(0))
    assert list(found) == [20, 80, 320]
    means = [bound.mean() for bound in found.values()]
    assert means == sorted(means)
    np.testing.assert_allclose(found[320], exact, atol=0.15)
    single = np.mean([weighted(model, x, 20, seed).bound.mean() for seed in range(16)])
    assert means[0] == pytest.approx(single, abs=0.05)


def test_a_proposal_as_wide_as_the_true_posterior_is_exact() -> None:
    model, x = Linear(width=0.5), (255 * grey(20).clip(0, 1)).astype(np.uint8)
    q = bounds.posteriors(model, x, 64)
    exact = model.exact(x / 255).mean()
    for scale, name, off in ((2.0, "iwae_4_wide_2", False), (1.0, "iwae_4", True)):
        settings = SETTINGS.model_copy(update={"iwae_samples": 4, "iwae_scale": scale})
        report = bounds.likelihood(model, x, q, True, settings, Draws(0))
        assert (report.values[name][0] < exact - 0.1) == off
        assert report.facts["log_likelihood_is"] == bounds.bound_name(settings) == name
        assert {"rise_16", "rise_64"} <= report.values.keys()
        if not off:
            assert report.values[name][0] == pytest.approx(exact, abs=1e-3)


@pytest.mark.parametrize("binary", [False, True])
def test_enlarged_images_have_no_bits_per_dimension(binary: bool) -> None:
    model, images = Flat(1.0), np.zeros((4, *PIXELS), dtype=np.uint8)
    q = bounds.posteriors(model, images, 4)
    report = bounds.likelihood(model, images, q, binary, SETTINGS, Draws(0), enlarged=True)
    assert report.values["bits_per_dim"] is None
    assert report.reasons["bits_per_dim"].startswith("the images were enlarged")


def test_closed_and_sampled_kl_agree() -> None:
    model, x = Linear(width=1.6), torch.from_numpy(grey(64))
    q = model.posterior(x)
    draw = Draws(0).standard(q, "here")
    _, closed = bounds.elbo(model, x, q, draw)
    z = bounds.shifted(q, torch.randn(4000, *q.mu.shape))
    sampled = (q.log_prob(z) - model.prior().log_prob(z)).mean(0)
    torch.testing.assert_close(closed, sampled, rtol=0.02, atol=0.1)


def test_draws_depend_on_neither_batch_size_nor_other_draws() -> None:
    model, x = Linear(width=1.6), grey(50)
    q = bounds.posteriors(model, x, 7)
    one = bounds.mean_elbo(model, x, q, 3, 7, Draws(5))[0]
    torch.manual_seed(99)
    other = bounds.mean_elbo(model, x, q, 3, 50, Draws(5))[0]
    np.testing.assert_allclose(one, other, rtol=1e-5)
    assert not np.allclose(one, bounds.mean_elbo(model, x, q, 3, 50, Draws(6))[0])


def test_dequantised_pixels_fill_the_cells_of_the_grey_levels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, *PIXELS), dtype=np.uint8)
    noisy = bounds.dequantised(images, 0)
    assert ((noisy * 256).astype(int) == images).all()
    assert (noisy * 256 - images).std() == pytest.approx(math.sqrt(1 / 12), rel=0.05)


class Flat(Linear):
    """Nothing depends on z, the posterior is the prior, each pixel has probability `level`."""

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = level

    def posterior(self, x: Tensor) -> DiagNormal:
        return DiagNormal(torch.zeros(len(x), DIM), torch.zeros(len(x), DIM))

    def log_prob(self, x: Tensor, out: Tensor, z: Tensor) -> Tensor:
        return torch.full((len(x),), math.log(self.level) * x[0].numel(), dtype=torch.float64)


def test_a_flat_density_costs_eight_bits_per_dimension() -> None:
    model, images = Flat(1.0), np.zeros((4, *PIXELS), dtype=np.uint8)
    q = bounds.posteriors(model, images, 4)
    report = bounds.likelihood(model, images, q, False, SETTINGS, Draws(0))
    assert report.values["bits_per_dim"] == (8.0, 0.0)
    assert report.facts["density_only"] is True


def test_a_fair_coin_costs_one_bit_per_dimension(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "Bernoulli", Flat)
    model, images = Flat(0.5), np.zeros((4, *PIXELS), dtype=np.uint8)
    q = bounds.posteriors(model, images, 4)
    report = bounds.likelihood(model, images, q, True, SETTINGS, Draws(0))
    assert report.values["bits_per_dim"][0] == pytest.approx(1, rel=1e-9)


def test_few_effective_draws_raise_a_warning() -> None:
    model, x = Linear(width=20), (255 * grey(20).clip(0, 1)).astype(np.uint8)
    q = bounds.posteriors(model, x, 64)
    report = bounds.likelihood(model, x, q, False, SETTINGS, Draws(0))
    assert "effective sample size below 2" in report.warnings[0]


# Use of the latents


def normal(mu: np.ndarray, sd: float) -> DiagNormal:
    mu = torch.from_numpy(mu.astype(np.float32))
    return DiagNormal(mu, torch.full_like(mu, 2 * math.log(sd)))


PRIOR = DiagNormal(torch.zeros(3), torch.zeros(3))


def test_active_units_are_those_whose_mean_varies() -> None:
    rng = np.random.default_rng(0)
    q = normal(rng.normal(size=(5000, 3)) * np.array([1, 0.2, 0.05]) + 7, 0.1)
    assert (collapse.spread(q) > 0).tolist() == [True, True, False]  # variances 1, 0.04, 0.0025


def test_mutual_information_of_four_far_clusters_is_log_four() -> None:
    mu = np.zeros((1000, 3))
    mu[:, 0] = 10 * (np.arange(1000) % 4)
    found, _ = collapse.information(normal(mu, 0.5), PRIOR, Draws(0))
    assert found["mutual_information"] == pytest.approx(math.log(4), abs=1e-6)


def test_mutual_information_of_a_linear_channel_is_known() -> None:
    # mu ~ N(0, 3), z | x ~ N(mu, 1): I = log(1 + 3) / 2 in each dimension, and q(z) = N(0, 4).
    mu = np.random.default_rng(1).normal(size=(1000, 3)) * np.array([math.sqrt(3), 0, 0])
    found, _ = collapse.information(normal(mu, 1.0), PRIOR, Draws(0))
    assert found["mutual_information"] == pytest.approx(0.5 * math.log(4), abs=0.05)
    gap = 0.5 * (4 - 1 - math.log(4))
    assert found["aggregate_gap"] == pytest.approx(gap, abs=0.15)


@pytest.mark.parametrize(("dims", "known"), [(2, True), (16, False)])
def test_an_aggregate_equal_to_the_prior_has_no_gap_or_one_that_cannot_be_known(
    dims: int, known: bool
) -> None:
    # mu ~ N(0, 1/2), z | x ~ N(mu, 1/2): q(z) = N(0, I) and I = dims * log(2) / 2 nats
    sd = math.sqrt(0.5) if known else 0.1
    mu = np.random.default_rng(2).normal(size=(1000, dims)) * math.sqrt(1 - sd**2)
    prior = DiagNormal(torch.zeros(dims), torch.zeros(dims))
    found = collapse.continuous(normal(mu, sd), prior, Draws(0))
    if known:
        assert found.values["mutual_information"] == pytest.approx(math.log(2), abs=0.1)
        assert found.values["aggregate_gap"] == pytest.approx(0, abs=0.1)
        assert found.reasons == {}
    else:  # dims * log(10) nats, beyond what 1,000 images can show
        assert found.values["aggregate_gap"] is None
        assert found.reasons["aggregate_gap"].startswith("at least about log 1000 = 6.9 nats")


def test_a_posterior_equal_to_the_prior_is_collapsed_in_words() -> None:
    found = collapse.continuous(normal(np.zeros((500, 3)), 1.0), PRIOR, Draws(0))
    assert found.collapsed
    assert found.verdict.startswith("collapsed: 0 of 3 latent dimensions vary")
    assert found.verdict.endswith("; every image gets nearly the same code")
    assert found.values["active_units"] == 0
    for name in ("kl_sum_of_dims", "mutual_information", "aggregate_gap"):
        assert found.values[name] == pytest.approx(0, abs=1e-6)


def test_latents_that_leave_the_prior_are_counted_and_the_farthest_is_named() -> None:
    from scipy.stats import kstest

    model = model_folder.load(tiny.model("gaussian"))
    rng = np.random.default_rng(0)
    mu = rng.normal(size=(400, 4)) * np.sqrt(0.75)
    mu[:, 1] += 0.4
    mu[:, 2] += 2.0
    q = normal(mu, 0.5)  # dimensions 0 and 3 follow N(0, 1)
    found, _ = collapse.latents(model, np.zeros((400, 1, 16, 16), np.uint8), q, 100, Draws(0))
    assert found.values["outside_prior"] == 2
    z = mu[:, 2] + 0.5 * collapse.one_each(0).standard_normal((400, 4))[:, 2]
    assert found.values["prior_distance"] == pytest.approx(kstest(z, "norm").statistic, abs=1e-6)
    (text,) = found.warnings
    assert text.startswith("2 of 4 latents are not distributed as new ones are drawn")
    assert f"up to {found.values['prior_distance']:.3f} (z2)" in text


@pytest.mark.parametrize(
    ("active", "words"), [(16, "not collapsed"), (9, "partly unused"), (2, "collapsed")]
)
def test_the_verdict_follows_the_active_units(active: int, words: str) -> None:
    mu = np.random.default_rng(0).normal(size=(300, 16)) * (np.arange(16) < active)
    prior = DiagNormal(torch.zeros(16), torch.zeros(16))
    found = collapse.continuous(normal(mu, 0.5), prior, Draws(0))
    assert found.verdict.startswith(words)
    assert found.collapsed == (words == "collapsed")


def test_kl_per_dimension_of_student_t_marginals_against_quadrature() -> None:
    q = DiagStudentT(torch.tensor([[0.5, 0.0]]), torch.tensor([[-1.0, 0.0]]), 5.0)
    p = DiagStudentT(torch.zeros(2), torch.zeros(2), 3.0)
    for dim, (location, scale) in enumerate([(0.5, math.exp(-0.5)), (0.0, 1.0)]):
        a, b = stats.t(5, location, scale), stats.t(3)
        integrand = lambda z, a=a, b=b: a.pdf(z) * (a.logpdf(z) - b.logpdf(z))  # noqa: E731
        expected = integrate.quad(integrand, -np.inf, np.inf)[0]
        assert collapse.kl_per_dim(q, p)[dim].item() == pytest.approx(expected, abs=2e-3)


def test_code_usage_by_hand() -> None:
    found = collapse.codes(np.array([5, 5, 0, 0]))
    assert found.values == {"codes": 4, "dead_codes": 2, "perplexity": pytest.approx(2)}
    assert not found.collapsed
    assert collapse.codes(np.array([50, 1, 0, 0])).collapsed


# Tables


def row(corruption: str, group: str, method: str = "model", **values: float) -> dict[str, Any]:
    filled = {"severity": 3} | dict.fromkeys(QUANTITIES, 1.0) | values
    return {"corruption": corruption, "group": group, "method": method} | filled


TABLE = pd.DataFrame(
    [
        row("clean", "clean", e_den=0.1, skill=math.nan),
        row("clean", "clean", "mean_image", e_den=0.2),
        row("shot_noise", "noise", e_den=0.2, skill=0.5, auroc=0.9),
        row("impulse_noise", "noise", e_den=0.4, skill=-0.1, skill_id=-0.1, auroc=0.8),
        row("fog", "photometric", e_den=0.9, skill=0.2, skill_const=-0.3, auroc=0.4),
        row("rotate", "geometric", e_den=5.0, skill=-2.0, skill_id=-2.0, auroc=0.7),
    ]
)


def test_the_headline_is_a_mean_over_groups_without_the_geometric() -> None:
    found = table.headline(TABLE)
    assert found["e_den"] == pytest.approx(((0.2 + 0.4) / 2 + 0.9) / 2)
    assert found["geometric_e_den"] == 5.0
    assert found["clean_e_den"] == 0.1
    assert (found["worst"], found["worst_e_den"]) == ("fog-3", 0.9)
    assert (found["skill_below_0"], found["constant_wins"]) == (1, 1)
    shares = table.shares(TABLE)
    assert shares["groups"] == pytest.approx({"noise": 0.25, "photometric": 0.75})
    each = {"shot_noise": 1 / 12, "impulse_noise": 1 / 6, "fog": 0.75}
    assert shares["corruptions"] == pytest.approx(each)


def test_what_a_reader_must_not_overlook_is_said_in_words() -> None:
    found = table.warnings(TABLE)
    assert found == [
        "worse than doing nothing (skill below 0) on 1 corruption: impulse_noise (-0.100)",
        "worse than doing nothing (skill below 0) on 1 geometric corruption: rotate (-2.000)",
        "worse than a constant, the mean training image, (skill below 0) on 1 corruption: "
        "fog (-0.300)",
        "corrupted images seem more likely than clean ones, AUROC below 0.5 on 1 corruption: "
        "fog-3 (0.400)",
    ]
    poor = TABLE.assign(e_den=1.0)
    assert "clean images come back no better than the mean training image" in table.warnings(poor)


HEADLINE = {
    "e_den", "skill", "skill_id", "ssim_den", "auroc", "clean_e_den", "worst", "worst_e_den",
    "skill_below_0", "constant_wins", "geometric_e_den",
}  # fmt: skip
SEVERITIES = pd.DataFrame(
    [
        row("clean", "clean"),
        row("clean", "clean", "mean_image", e_den=2.0),
        row("fog", "photometric", severity=1, skill=-0.3, skill_id=-0.3, auroc=0.4),
        row("fog", "photometric", severity=2, skill=0.9, skill_id=0.9, auroc=0.3),
        row("stripe", "overlay", severity=1, skill=0.1, skill_id=0.1),
        row("stripe", "overlay", severity=2, skill=-0.3, skill_id=-0.3),
        row("zigzag", "overlay", severity=1, skill=-0.1, skill_id=-0.1),
        row("zigzag", "overlay", severity=2, skill=-0.3, skill_id=-0.3),
    ]
)


def test_corruptions_of_several_severities_count_once() -> None:
    assert table.headline(SEVERITIES)["skill_below_0"] == 2
    assert table.warnings(SEVERITIES) == [
        "worse than doing nothing (skill below 0 on average over severities) on 2 corruptions: "
        "stripe (-0.100), zigzag (-0.200)",
        "corrupted images seem more likely than clean ones, AUROC below 0.5 on 2 sets: "
        "fog-1 (0.400), fog-2 (0.300)",
    ]


def test_a_mean_over_sets_one_of_which_has_no_value_is_missing_and_says_so() -> None:
    gone = TABLE.copy()
    gone.loc[gone["corruption"] == "fog", list(OF_METRIC["e_den"])] = math.nan
    gone["probe"] = math.nan
    means = table.aggregate(gone)["model"]
    assert math.isnan(means["photometric"]["e_den"])
    assert means["noise"]["e_den"] == pytest.approx(0.3)
    assert math.isnan(means["headline"]["e_den"])
    found = table.headline(gone)
    assert found["worst"] is None  # it may be the fog
    assert found["skill_below_0"] == 1
    places = [f"aggregates.model.{g}.{q}" for g in ("headline", "photometric")
              for q in OF_METRIC["e_den"]]  # fmt: skip
    headline = ("e_den", "skill", "skill_id", "worst", "worst_e_den")
    places += [f"robustness.{name}" for name in headline]
    reasons = table.missing(gone, {"probe": "no labels"})
    assert reasons == dict.fromkeys(places, "no value for fog-3")


@pytest.mark.parametrize(
    ("kept", "gaps", "reasons"),
    [
        (["clean", "rotate"], {}, dict.fromkeys(
            HEADLINE - {"clean_e_den", "geometric_e_den"},
            "no corruption of the headline groups was chosen")),
        (["clean", "fog"], {}, {"geometric_e_den": "no geometric corruption was chosen"}),
        (["clean", "fog", "rotate"], dict.fromkeys(OF_METRIC["e_den"], "left out"),
            dict.fromkeys(HEADLINE - {"ssim_den", "auroc"}, "left out")),
    ],
    ids=["geometric only", "none geometric", "metric left out"],
)  # fmt: skip
def test_what_the_headline_lacks_has_its_reason(
    kept: list[str], gaps: dict[str, str], reasons: dict[str, str]
) -> None:
    part = TABLE[TABLE["corruption"].isin(kept)].copy()
    part[list(gaps)] = math.nan
    found = table.headline(part)
    assert {name for name, value in found.items() if pd.isna(value)} == reasons.keys()
    assert table.missing(part, gaps) == {f"robustness.{k}": v for k, v in reasons.items()}


def test_values_that_are_not_finite_leave_a_gap_with_a_reason() -> None:
    clean = {"e_id": np.zeros(3), "e_den": np.ones(3)}
    broken = {"e_id": np.ones(3), "e_den": np.array([1, np.inf, np.nan])}
    columns = {("clean", m): clean for m in table.METHODS} | {
        ("fog-1", m): clean for m in table.METHODS
    }
    columns["fog-1", "model"] = broken
    sets = [{"name": "clean", "corruption": "clean"}, {"name": "fog-1", "corruption": "fog"}]
    rows, reasons = table.tabulate(columns, sets, {})
    fog = rows[(rows["corruption"] == "fog") & (rows["method"] == "model")].iloc[0]
    assert math.isnan(fog["e_den"])
    assert math.isnan(fog["skill"])
    assert fog["e_id"] == 1
    assert reasons["robustness.fog-1.model.e_den"] == "not finite for 2 of 3 images"


# The stage


def project(folder: Path, kind: str, changes: dict[str, Any] | None = None) -> None:
    """A working folder with a tiny trained model, its data, and two corrupted sets."""
    (folder / "data").mkdir()
    for link, target in {"data/prepared": tiny.data(kind), "models": tiny.model(kind)}.items():
        (folder / link).symlink_to(target)
    clean = np.load(tiny.data(kind) / "test.npy")
    bright = np.maximum(clean, 128) if kind != "binary" else 255 - clean
    entries = []
    for name, group, images in (("brightness", "photometric", bright), ("copy", "overlay", clean)):
        files.save_npy(folder / f"data/corrupted/{name}-2.npy", images)
        entries.append(
            {"name": name, "severity": 2, "group": group, "default": True, "file": f"{name}-2.npy"}
        )
    files.write_json(folder / "data/corrupted/info.json", {"sets": entries})
    files.write_json(folder / "data/contaminated/info.json", {"contaminated": False})
    small = {"evaluate.iwae_samples": 4, "evaluate.elbo_samples": 2}
    settings = overlay(params.read(ROOT / "params.yaml"), small | (changes or {}))
    (folder / "params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))


def evaluate(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    from stages import evaluate as stage

    monkeypatch.chdir(folder)
    deterministic = torch.are_deterministic_algorithms_enabled()
    threads = torch.get_num_threads()
    stage.main()
    torch.use_deterministic_algorithms(deterministic)
    torch.set_num_threads(threads)
    return {name: read(folder / "reports" / f"{name}.json") for name in ("metrics", "evaluation")}


def read(path: Path) -> Any:
    def refuse(text: str) -> None:
        raise AssertionError(f"{path}: {text}")

    return json.loads(path.read_text(), parse_constant=refuse)


EMPTY = {
    "gaussian": {"probe"},
    "colour": {"probe", "drift"},
    "binary": {"probe"},
    "cross_entropy": {"probe", "neg_elbo", "delta_elbo"},
    "gamma": {"probe", "neg_elbo", "delta_elbo"},
    "t3": {"probe", "drift"},  # hardly trained: no latent dimension is active
    "vq": {"probe", "drift", "skl"},
}
NULL = {  # of the likelihood
    "gaussian": set(),
    "colour": set(),
    "binary": set(),
    "cross_entropy": {"elbo", "iwae_4", "log_likelihood", "bits_per_dim"},
    "gamma": {"elbo"},
    "t3": set(),
    "vq": {"iwae_4"},
}
SHORT = {"elbo", "iwae_4", "bits_per_dim"}


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_every_kind_of_model_is_evaluated_and_each_gap_has_its_reason(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project(tmp_path, kind)
    found = evaluate(tmp_path, monkeypatch)
    metrics, reasons = found["metrics"], found["evaluation"]["reasons"]
    for split in ("train", "val", "test"):
        assert all(
            isinstance(metrics[split][n], float) for n in ("recon", "divergence", "total", "mse")
        )
    likelihood = found["evaluation"]["likelihood"]
    assert {k for k, v in likelihood.items() if v is None} == NULL[kind]
    assert all(f"likelihood.{name}" in reasons for name in NULL[kind])
    assert ("bernoulli_cross_entropy" in likelihood) == (kind == "cross_entropy")
    assert ("iwae_alt_prior_4" in likelihood) == (kind == "t3")
    known = found["evaluation"]["collapse"]
    assert all(f"collapse.{name}" in reasons for name, value in known.items() if value is None)
    unknown = {k for k, v in metrics["robustness"].items() if v is None}
    assert all(f"robustness.{name}" in reasons for name in unknown)
    rows = pd.read_csv(tmp_path / "reports/robustness.csv")
    assert rows["method"].tolist() == ["model", "identity", "mean_image"] * 3
    of_model = rows[(rows["method"] == "model") & (rows["corruption"] == "brightness")].iloc[0]
    assert {q for q in QUANTITIES if math.isnan(of_model[q])} == EMPTY[kind]
    assert all(f"robustness.{name}" in reasons for name in EMPTY[kind])
    assert of_model["auroc"] >= 0
    score = "cross-entropy + KL" if kind == "cross_entropy" else "negative ELBO"
    assert found["evaluation"]["score"] == score
    if kind in ("gamma", "cross_entropy"):
        assert reasons["robustness.delta_elbo"] == reasons["likelihood.elbo"]
    assert not np.isinf(rows.select_dtypes("number")).any().any()


@pytest.mark.parametrize(("kind", "use"), [("gaussian", "active_units"), ("vq", "perplexity")])
def test_metrics_are_few_and_the_rest_is_beside_them(
    kind: str, use: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stages import evaluate as stage

    project(tmp_path, kind)
    metrics = evaluate(tmp_path, monkeypatch)["metrics"]
    shown = {s: set(read(tmp_path / f"reports/{s}.json")) for s in ("train", "val", "test")}
    few = set(stage.TERMS)
    assert shown == {"train": few, "val": few, "test": few | SHORT - {"bits_per_dim"}}
    assert {name: set(part) for name, part in metrics.items()} == {
        **{split: few | {"psnr", "residual"} for split in shown},
        "likelihood": SHORT,
        "robustness": HEADLINE | {use},
    }


def test_a_set_equal_to_the_clean_one_differs_in_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project(tmp_path, "gaussian")
    evaluate(tmp_path, monkeypatch)
    rows = pd.read_csv(tmp_path / "reports/robustness.csv").set_index(["corruption", "method"])
    copy = rows.loc["copy", "model"]
    assert copy["delta_elbo"] == copy["drift"] == copy["skl"] == copy["e_stab"] == copy["e_id"] == 0
    assert copy["auroc"] == 0.5
    assert copy["e_den"] == rows.loc["clean", "model"]["e_den"]


def test_baselines_are_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project(tmp_path, "gaussian")
    evaluate(tmp_path, monkeypatch)
    rows = pd.read_csv(tmp_path / "reports/robustness.csv").set_index(["corruption", "method"])
    x, y = (
        np.load(p) / 255
        for p in (tmp_path / "data/prepared/test.npy", tmp_path / "data/corrupted/brightness-2.npy")
    )
    mean = (np.load(tmp_path / "data/prepared/train.npy") / 255).mean(0)
    identity, average = rows.loc["brightness", "identity"], rows.loc["brightness", "mean_image"]
    e_id = ((y - x) ** 2).mean()
    assert [identity[q] for q in ("e_id", "e_den", "e_stab")] == pytest.approx([e_id] * 3, rel=1e-5)
    assert identity["skill_id"] == identity["e_self"] == 0
    assert identity["skill"] <= 0
    assert identity["ssim_den"] == identity["ssim_id"]
    assert average["e_den"] == pytest.approx(((mean - x) ** 2).mean(), rel=1e-5)
    assert average["e_self"] == pytest.approx(((mean - y) ** 2).mean(), rel=1e-5)
    assert average["e_stab"] == 0
    assert average["skill_const"] == 0
    assert average["skill_id"] == pytest.approx(1 - ((mean - x) ** 2).mean() / e_id, abs=1e-5)
    assert average["e_const"] == identity["e_const"] == average["e_den"]
    assert average["e_best"] == min(average["e_const"], average["e_id"])


def test_evaluating_again_writes_the_same_bytes_and_a_batch_size_changes_only_last_digits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    for name, size in (("a", 500), ("b", 500), ("c", 7)):
        (tmp_path / name).mkdir()
        project(tmp_path / name, "gamma", {"evaluate.batch_size": size})
        evaluate(tmp_path / name, monkeypatch)
        reports = sorted((tmp_path / name / "reports").iterdir())
        written.append({path.name: path.read_bytes() for path in reports})
    assert written[0] == written[1]
    one, other = (pd.read_csv(tmp_path / n / "reports/robustness.csv") for n in ("a", "c"))
    pd.testing.assert_frame_equal(one, other, rtol=1e-3, atol=1e-4)


def test_a_model_that_ignores_its_input_is_reported_as_collapsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project(tmp_path, "gaussian")
    model = model_folder.load(tiny.model("gaussian"))
    nn.init.zeros_(model.latent.head.weight)
    (tmp_path / "models").unlink()
    model_folder.save(model, model.config, tmp_path / "models")
    found = evaluate(tmp_path, monkeypatch)["evaluation"]
    assert found["warnings"][0].startswith("collapsed: 0 of 4 latent dimensions vary")
    assert found["reasons"]["robustness.drift"] == "no latent dimension is active"


def test_under_capacity_the_total_is_the_negative_elbo() -> None:
    model = model_folder.load(tiny.model("gaussian"))
    budget = model.loss_settings.capacity.model_copy(update={"weight": 10.0, "max": 5.0})
    loss = model.loss_settings.model_copy(update={"capacity": budget})
    annealed = type(model).build(model.settings, loss, model.shape).eval()
    images = np.load(tiny.data("gaussian") / "test.npy")
    q = bounds.posteriors(annealed, images, 16)
    means = measure.losses(annealed, images, q, "test", 16, Draws(0)).means
    assert means["total"] == pytest.approx(means["recon"] + means["divergence"])


def test_an_infinite_divergence_is_counted_and_its_mean_left_out() -> None:
    model = model_folder.load(tiny.model("gaussian"))
    loss = model.loss_settings.model_copy(update={"alpha": 2.0})
    wide = type(model).build(model.settings, loss, model.shape).eval()
    with torch.no_grad():
        wide.latent.head.bias[4:] = torch.tensor(
            [2.0, 0, 0, 0]
        )  # variance e^2 > 2 in one dimension
        wide.latent.head.weight.zero_()
    images = np.load(tiny.data("gaussian") / "test.npy")
    q = bounds.posteriors(wide, images, 16)
    report = measure.losses(wide, images, q, "test", 16, Draws(0))
    assert report.values["divergence"] is None
    assert report.reasons["divergence"] == "infinite for 100.00% of the images"
    assert report.facts["divergence_infinite_fraction"] == 1
    assert report.values["recon"] is not None


@pytest.mark.parametrize(
    ("variance", "off", "words"),
    [
        ("scalar", 1.0, None),
        ("scalar", 2.0, "on test images its squared residuals are 3.9"),
        ("fixed", 2.0, None),  # chosen, not learned
    ],
)
def test_a_decoder_that_is_too_sure_of_itself_is_warned_of(
    variance: str, off: float, words: str | None
) -> None:
    """A decoder of black images with standard deviation 1 / 2, on noise `off` times as strong."""
    model: Any = SimpleNamespace(likelihood=likelihoods.Gaussian(variance, 0.5))
    rng, reports = np.random.default_rng(0), {}
    for split, scale in (("train", 0.5), ("test", 0.5 * off)):
        x = torch.from_numpy(rng.normal(0, scale, (500, *PIXELS)))
        gaussian = likelihoods.Gaussian("fixed", 0.5)
        residual = gaussian.standardised(x, torch.full_like(x, -40.0), x)
        reports[split] = bounds.Report()
        reports[split].put("residual", residual.numpy())
    found = measure.too_sure(model, reports)
    if words is None:
        assert found == []
    else:
        assert words in found[0]
        assert "(0.99 times on training images)" in found[0]


PARITY = np.arange(32) % 2


@pytest.mark.parametrize(
    ("labels", "asked", "words"),
    [
        (np.full(32, -1), PARITY, "the images are not labelled with two classes or more"),
        (np.zeros((32, 2), int), np.zeros((32, 2), int), "attributes"),
        (PARITY, np.full(32, -1), "not every test image is labelled"),
        (PARITY, PARITY + 1, "test images have classes that training images lack: 2"),
    ],
    ids=["no labels", "attributes", "no test labels", "other classes"],
)
def test_the_probe_needs_labels(labels: np.ndarray, asked: np.ndarray, words: str) -> None:
    found = measure.fit_probe(lambda: np.zeros((32, 2)), labels, asked, SETTINGS)
    assert words in found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gamma", "vq"])
def test_processes_share_an_evaluation_and_change_no_byte_of_it(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of 5 images: they divide evenly neither among two processes nor in themselves."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        project(tmp_path / name, kind, {"evaluate.batch_size": 5})
    evaluate(tmp_path / "one", monkeypatch)
    path = os.pathsep.join(map(str, (ROOT / "src", ROOT)))
    environment = os.environ | {"PYTHONPATH": path, "ROBUSTVAE_NPROC": "2"}
    command = [sys.executable, "-m", "stages.evaluate"]
    done = subprocess.run(
        command, cwd=tmp_path / "two", env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.count("latents: ") == 1
    one, two = (sorted((tmp_path / name / "reports").iterdir()) for name in ("one", "two"))
    assert [file.name for file in one] == [file.name for file in two]
    for file, other in zip(one, two, strict=True):
        assert file.read_bytes() == other.read_bytes(), file.name


@pytest.mark.parametrize("threads", [1, 3])
def test_batches_keep_their_order_on_any_number_of_threads(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    x = torch.rand(50, 300)

    def work(where: slice) -> Tensor:
        assert torch.is_inference_mode_enabled()
        assert torch.get_num_threads() == 1
        if where.start == 0:
            time.sleep(0.05)
        return (x[where] @ x[where].T).sum(1)

    found = each(work, len(x), 7)
    assert [len(part) for part in found] == [7] * 7 + [1]
    torch.testing.assert_close(found[1], (x[7:14] @ x[7:14].T).sum(1))
    with pytest.raises(ZeroDivisionError):
        each(lambda where: 1 / where.start, len(x), 7)
    assert torch.get_num_threads() == threads
    torch.set_num_threads(before)


SCALES = {"shot_noise-3": 0.5, "impulse_noise-3": 1.0, "fog-3": 2.0, "rotate-3": 9.0}
GROUPS = {"shot_noise": "noise", "impulse_noise": "noise", "fog": "photometric"}


def drawn_columns(rng: np.random.Generator, n: int) -> table.Columns:
    """Errors of images that are as hard under one corruption as under the others."""
    hard = rng.gamma(2, 0.5, n)
    constant = hard + rng.gamma(2, 0.1, n)
    columns: table.Columns = {}
    for name, scale in {"clean": 0.1, **SCALES}.items():
        model = scale * hard * rng.gamma(9, 1 / 9, n)
        e_id = np.zeros(n) if name == "clean" else 2.0 * hard * rng.gamma(4, 1 / 4, n)
        columns[name, "model"] = {"e_id": e_id, "e_den": model}
        columns[name, "identity"] = {"e_id": e_id, "e_den": e_id}
        columns[name, "mean_image"] = {"e_id": e_id, "e_den": constant}
    return columns


def tabulated(columns: table.Columns) -> pd.DataFrame:
    clean: table.Labels = {"name": "clean", "corruption": "clean", "group": "clean", "severity": 0}
    sets: list[table.Labels] = [clean]
    for name in SCALES:
        plain = name.removesuffix("-3")
        group = GROUPS.get(plain, "geometric")
        sets.append({"name": name, "corruption": plain, "group": group, "severity": 3})
    return table.tabulate(columns, sets, {})[0]


def test_errors_of_the_headline_are_those_of_a_bootstrap_over_images() -> None:
    """Images are drawn anew, all corruptions with them; and a single corruption has its own."""
    rng, n = np.random.default_rng(0), 400
    columns = drawn_columns(rng, n)
    found = table.headline_errors(columns, tabulated(columns))
    drawn: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(300):
        pick = rng.integers(n, size=n)
        again = {k: {q: v[pick] for q, v in part.items()} for k, part in columns.items()}
        for name, value in table.headline(tabulated(again)).items():
            if name in drawn and isinstance(value, float):
                drawn[name].append(value)
    assert {"e_den", "skill", "skill_id"} <= found.keys()
    for name in ("e_den", "skill", "skill_id"):
        assert found[name] == pytest.approx(np.std(drawn[name]), rel=0.15)
    alone = tabulated(columns)
    alone = alone[alone["corruption"].isin(["clean", "fog"])]
    row = alone[(alone["corruption"] == "fog") & (alone["method"] == "model")].iloc[0]
    single = table.headline_errors(columns, alone)
    assert single["e_den"] == pytest.approx(row["e_den_se"])
    assert single["skill"] == pytest.approx(row["skill_se"])


@pytest.mark.slow
@pytest.mark.parametrize(("n", "count"), [(100, 600), (359, 400), (10_000, 200)])
def test_intervals_of_the_headline_cover_the_truth(
    n: int, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the drawn errors a mean is its scale, that of doing nothing 2, of the constant 1.2."""
    noise, others = (0.5 + 1.0) / 2, 2.0  # means of the two groups
    truth = {
        "e_den": (noise + others) / 2,
        "skill_id": 1 - (noise + others) / 4,
        "skill": 1 - (noise + others) / 2.4,
    }
    rng, hits = np.random.default_rng(n), dict.fromkeys(truth, 0)
    for _ in range(count):
        columns = drawn_columns(rng, n)
        rows = tabulated(columns)
        values, errors = table.headline(rows), table.headline_errors(columns, rows)
        for name, true in truth.items():
            hits[name] += abs(float(values[name] or 0) - true) <= 1.96 * errors[name]
    shares = {name: hit / count for name, hit in hits.items()}
    with capsys.disabled():
        print(f"\n{n} images:", ", ".join(f"{name} {share:.3f}" for name, share in shares.items()))
    wrong = 2.6 * math.sqrt(0.05 * 0.95 / count)  # of the simulation itself
    assert all(0.93 - wrong < share < 0.97 + wrong for share in shares.values())
