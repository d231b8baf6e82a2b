"""The autoencoder as a whole: learns, repeats, leaves no trace, and every setting acts."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import BaseModel
from scipy import stats
from torch import Tensor, nn

from robustvae.errors import UserError
from robustvae.models.autoencoder import Autoencoder
from robustvae.models.catalogue import NETS
from robustvae.params import ModelSettings

SIDE = 12
NARROW = {
    "conv": {"model.architecture.channels": [8, 16]},
    "small": {"model.architecture.name": "small", "model.architecture.channels": [4, 8]},
    "wide": {
        "model.architecture.name": "wide",
        "model.architecture.channels": [8, 16],
        "model.architecture.hidden": 32,
    },
    "resnet": {"model.architecture.name": "resnet", "model.architecture.channels": [8, 16]},
    "mlp": {"model.architecture.name": "mlp", "model.architecture.channels": [32, 32]},
}
VQ = {"model.latent.name": "vq", "model.latent.codes": 32}
FAMILIES = {
    "gaussian": {},
    "gamma": {"loss.df": 5.0},
    "t3": {"loss.df": 5.0, "loss.divergence": "t3", "model.likelihood.name": "student_t"},
    "vq": VQ,
}
BERNOULLI = {"model.likelihood.name": "bernoulli"}
PER_PIXEL = {"model.likelihood.variance": "per_pixel"}
LIKELIHOODS = {"bernoulli": BERNOULLI, "gaussian": {}}
COMBINATIONS = [
    pytest.param(net, family, likelihood, id=f"{net}-{family}-{likelihood}")
    for net in NETS
    for family in FAMILIES
    for likelihood in LIKELIHOODS
    if not (net == "mlp" and family == "vq")
    and not (family == "t3" and likelihood != "gaussian")  # t3 brings its own
]


def build(make_params, *changes, shape=(1, SIDE, SIDE), seed=0) -> Autoencoder:
    settings = make_params({"model.latent_dim": 4, **{k: v for c in changes for k, v in c.items()}})
    torch.manual_seed(seed)
    return Autoencoder.build(settings.model, settings.loss, shape)


def without_hidden(net: str, family: str) -> dict[str, Any]:
    dropped = {"model.architecture.hidden"} if family == "vq" else set()
    return {k: v for k, v in NARROW[net].items() if k not in dropped}


def squares(colours: int = 1, side: int = SIDE) -> Tensor:
    """Eight images of one bright square each."""
    x = torch.full((8, colours, side, side), 0.1)
    for i in range(8):
        x[i, :, 2 + i % 4 * 2 : 5 + i % 4 * 2, 1 + i // 4 * 5 : 6 + i // 4 * 5] = 0.9
    return x


def noisy() -> Tensor:
    x = squares()
    return x + 0.1 * torch.rand(x.shape, generator=torch.Generator().manual_seed(0))


def step(
    model: Autoencoder, x: Tensor, optimizer: torch.optim.Optimizer, beta: float = 1
) -> Tensor:
    terms = model.terms(x)
    optimizer.zero_grad()
    (terms.recon.mean() + beta * terms.divergence.mean()).backward()
    optimizer.step()
    return torch.stack([terms.recon, terms.divergence]).detach()


def unexplained(model: Autoencoder, x: Tensor) -> float:
    """Share of the images' squared distance from their mean that the reconstructions leave."""
    rest = (model.reconstruct(x) - x).square().sum() / (x - x.mean(0)).square().sum()
    return rest.item()


def rounds(model: Autoencoder, x: Tensor, lr: float = 0.02):
    """Twenty rounds of training, the model in eval mode after each."""
    optimizer = torch.optim.Adam(model.parameters(), lr)
    for _ in range(20):
        for _ in range(20):
            step(model.train(), x, optimizer, beta=0.01)
        yield model.eval()


@pytest.mark.parametrize(("net", "family", "likelihood"), COMBINATIONS)
def test_eight_images_are_learnt(make_params, net, family, likelihood):
    sigma = {"model.likelihood.sigma": 0.1} if family == "t3" else {}
    parts = (without_hidden(net, family), FAMILIES[family], LIKELIHOODS[likelihood], sigma)
    model, x = build(make_params, *parts), noisy()
    assert any(unexplained(trained, x) < 0.3 for trained in rounds(model, x))


@pytest.mark.parametrize("net", NETS)
def test_variance_per_pixel_beats_the_best_law_without_latents(make_params, net):
    model, x = build(make_params, NARROW[net], PER_PIXEL), noisy()
    best = 0.5 * (2 * math.pi * math.e * x.var(0, correction=0)).log().sum()
    assert any(trained.terms(x).recon.mean() < best for trained in rounds(model, x, 0.01))


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_takes_grey_and_colour_of_28_32_and_64_pixels(make_params, family, colours):
    for side in (28, 32, 64):
        shape = (colours, side, side)
        model = build(make_params, NARROW["conv"], FAMILIES[family], PER_PIXEL, shape=shape)
        terms = model.terms(torch.rand(2, *shape))
        assert model.likelihood.mean(terms.out).shape == (2, *shape)
        assert terms.recon.shape == terms.divergence.shape == (2,)
        images = model.sample(3)
        assert images.shape == (3, *shape)
        assert images.min() >= 0
        assert images.max() <= 1


@pytest.mark.parametrize("term", ["recon", "divergence"])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_of_each_term_reaches_the_encoder(make_params, family, term):
    model = build(make_params, NARROW["conv"], FAMILIES[family])
    value = getattr(model.terms(squares()), term).mean()
    gradient = torch.autograd.grad(value, model.encoder[0].weight)[0]
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_same_seed_gives_the_same_bits(make_params, family):
    def run(seed):
        model = build(make_params, NARROW["conv"], FAMILIES[family], seed=seed)
        fresh = copy.deepcopy(model.state_dict())
        optimizer = torch.optim.Adam(model.parameters())
        losses = torch.stack([step(model, squares(), optimizer) for _ in range(3)])
        return fresh, losses, model.state_dict()

    first, second, other = run(1), run(1), run(2)
    for before, after in ((first[0], second[0]), (first[2], second[2])):
        assert all(torch.equal(before[k], after[k]) for k in before)
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[1], other[1])


@pytest.mark.parametrize("family", FAMILIES)
def test_evaluating_changes_nothing(make_params, family):
    model, x = build(make_params, NARROW["conv"], FAMILIES[family]).eval(), squares()
    before = copy.deepcopy(model.state_dict())
    model.terms(x)
    model.reconstruct(x)
    model.sample(4)
    model.log_weights(x, 3)
    model.codes(x) if family == "vq" else model.posterior(x)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("family", FAMILIES)
def test_training_moves_batch_norm_and_codebook(make_params, family):
    model = build(make_params, NARROW["conv"], FAMILIES[family])
    before = copy.deepcopy(model.state_dict())
    model.terms(squares())
    moved = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    expected = {k for k in before if "running" in k or "num_batches" in k}
    codebook = {"latent.codebook", "latent.sums", "latent.counts"} if family == "vq" else set()
    assert moved == expected | codebook


@pytest.mark.parametrize("family", FAMILIES)
def test_reconstruction_has_no_randomness(make_params, family):
    model = build(make_params, NARROW["conv"], FAMILIES[family]).eval()
    assert torch.equal(model.reconstruct(squares()), model.reconstruct(squares()))


def test_target_is_what_must_be_reproduced(make_params):
    model, x = build(make_params, NARROW["mlp"]).double(), squares().double()
    target = 1 - x
    torch.manual_seed(3)
    same = model.terms(x)
    torch.manual_seed(3)
    other = model.terms(x, target)
    assert torch.equal(same.out, other.out)
    assert torch.equal(same.divergence, other.divergence)
    x_hat = model.likelihood.mean(same.out)
    gap = 0.5 * ((x_hat - target).square() - (x_hat - x).square()).sum((1, 2, 3))
    variance = model.likelihood.logvar(x_hat).exp()
    assert torch.allclose(other.recon - same.recon, gap / variance)


@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_computes_the_terms_in_single_precision(make_params, family):
    model, x = build(make_params, NARROW["conv"], FAMILIES[family]), squares()
    with torch.autocast("cpu", torch.bfloat16):
        torch.manual_seed(3)
        half = model.terms(x)
    torch.manual_seed(3)
    single = model.terms(x)
    assert {half.recon.dtype, half.divergence.dtype} == {torch.float32}
    assert torch.allclose(half.recon, single.recon, rtol=0.05)


# Every setting under `model` acts: what must hold for it to do so, and another value.
ACTS: dict[str, tuple[dict[str, Any], Any]] = {
    "latent_dim": ({}, 5),
    "architecture.name": ({}, "resnet"),
    "architecture.channels": ({}, [4, 8]),
    "architecture.depth": ({}, 1),
    "architecture.max_filters": ({}, 32),
    "architecture.hidden": ({}, 10),
    "architecture.activation": ({}, "tanh"),
    "likelihood.name": ({}, "bernoulli"),
    "likelihood.variance": ({}, "fixed"),
    "likelihood.sigma": ({"model.likelihood.variance": "fixed"}, 0.3),
    "likelihood.df": ({"model.likelihood": {"name": "student_t", "df": 3.0}}, 5.0),
    "latent.name": ({}, "vq"),
    "latent.codes": (VQ, 16),
    "latent.update": (VQ, "gradient"),
    "latent.decay": (VQ, 0.5),
    "latent.commitment": (VQ, 1.0),
    "logvar_bound": ({}, 0.5),
}


def leaves(settings: type[BaseModel]) -> set[str]:
    found = set()
    for name, field in settings.model_fields.items():
        section = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        inner = leaves(field.annotation) if section else {""}
        found |= {f"{name}.{key}".rstrip(".") for key in inner}
    return found


def test_every_model_setting_has_an_example():
    assert set(ACTS) == leaves(ModelSettings)


@pytest.mark.parametrize("key", ACTS)
def test_every_model_setting_changes_the_first_steps(make_params, key):
    base, value = ACTS[key]

    def losses(changes):
        model = build(make_params, {"model.architecture.max_filters": 16, **base, **changes})
        optimizer = torch.optim.Adam(model.parameters())
        return torch.stack([step(model, squares(), optimizer) for _ in range(3)])

    changes = {f"model.{key}": value}
    if key in ("architecture.channels", "architecture.name"):
        changes["model.architecture.max_filters"] = None
    first, second = losses({}), losses(changes)
    assert first.isfinite().all()
    assert second.isfinite().all()
    assert not torch.equal(first, second)


def test_auto_bound_changes_the_first_steps(make_params):
    def losses(bound):
        changes = {"loss.alpha": -0.5, "model.logvar_bound": bound}
        model = build(make_params, NARROW["mlp"], changes)
        return step(model, squares(), torch.optim.Adam(model.parameters()))

    assert not torch.equal(losses(None), losses("auto"))


# A linear decoder with orthogonal columns W: x = W z + b + noise has a diagonal exact posterior, at
# which every importance weight is p(x) itself, whatever the draw.
DIM, N, SIGMA = 2, 16, 0.2
ORTHOGONAL = torch.linalg.qr(torch.randn(N, DIM, generator=torch.Generator().manual_seed(0)))[0]
W = (ORTHOGONAL * torch.tensor([0.12, 0.07])).double()
B = 0.5


class Linear(nn.Module):
    """logit(W z + b) as an image, so that the likelihood's sigmoid gives W z + b."""

    def forward(self, z: Tensor) -> Tensor:
        return (z @ W.T + B).logit().unflatten(1, (1, 4, 4))


class Exact(nn.Module):
    """mu and log(variance + spread |residual|^2) of the exact posterior, from flat images."""

    def __init__(self, vp: Tensor, mu0: Tensor, df: float = 0) -> None:
        super().__init__()
        self.vp, self.mu0, self.df = vp, mu0, df

    def forward(self, x: Tensor) -> Tensor:
        precision = 1 / self.vp + W.square().sum(0) / SIGMA**2
        residual = x - B - W @ self.mu0
        mu = self.mu0 + residual @ W / SIGMA**2 / precision
        scale = (1 / precision).expand_as(mu)
        if self.df:  # joint t: the scale grows with the distance of x from its centre
            marginal = torch.diag(torch.full((N,), SIGMA**2)) + (W * self.vp) @ W.T
            distance = (residual @ marginal.inverse().double() * residual).sum(1, keepdim=True)
            scale = scale * (self.df + distance) / self.df
        return torch.cat([mu, scale.log()], 1)


def exactly_solvable(make_params, changes, head) -> Autoencoder:
    fixed = {"model.likelihood.variance": "fixed", "model.likelihood.sigma": SIGMA}
    mlp = {"model.architecture.name": "mlp", "model.latent_dim": DIM}
    model = build(make_params, mlp, fixed, changes, shape=(1, 4, 4)).double().eval()
    model.encoder, model.decoder, model.latent.head = nn.Flatten(), Linear(), head
    return model


def test_log_weights_are_exact_for_a_linear_gaussian_model(make_params):
    mu0, logvar0 = torch.tensor([0.3, -0.5]).double(), torch.tensor([0.4, -0.2]).double()
    prior = {"loss.prior.mu": [0.3, -0.5], "loss.prior.logvar": [0.4, -0.2]}
    model = exactly_solvable(make_params, prior, Exact(logvar0.exp(), mu0))
    x = torch.rand(5, 1, 4, 4).double()
    covariance = (W * logvar0.exp()) @ W.T + SIGMA**2 * torch.eye(N)
    law = stats.multivariate_normal((W @ mu0 + B).numpy(), covariance.numpy())
    got = model.log_weights(x, 7)
    assert got.shape == (7, 5)
    assert got.dtype == torch.float64
    for row in got:
        assert row.tolist() == pytest.approx(law.logpdf(x.flatten(1)).tolist(), abs=2e-6)


def test_log_weights_are_exact_for_a_linear_t3_model(make_params):
    df = 6.0
    head = Exact(torch.ones(DIM).double(), torch.zeros(DIM).double(), df)
    model = exactly_solvable(make_params, {**FAMILIES["t3"], "loss.df": df}, head)
    x = torch.rand(5, 1, 4, 4).double()
    covariance = W @ W.T + SIGMA**2 * torch.eye(N)
    law = stats.multivariate_t(torch.full((N,), B).numpy(), covariance.numpy(), df)
    for row in model.log_weights(x, 7):
        assert row.tolist() == pytest.approx(law.logpdf(x.flatten(1)).tolist(), abs=2e-6)


def test_log_weights_decode_many_draws_in_blocks(make_params, monkeypatch):
    model = build(make_params, NARROW["mlp"]).eval()
    monkeypatch.setattr(
        "robustvae.models.autoencoder.ROWS", 20
    )  # two draws of eight images at a time
    assert model.log_weights(squares(), 5).shape == (5, 8)


def test_vq_log_weight_is_that_of_its_one_code(make_params):
    model, x = build(make_params, NARROW["conv"], VQ).eval(), squares()
    z = model.quantise(x)
    fit = model.likelihood.log_prob(x, model.decode(z), z)
    got = model.log_weights(x, 5)
    assert got.shape == (1, 8)
    assert torch.allclose(got[0], fit - 3 * 3 * math.log(32))
    assert torch.equal(model.latent.embed(model.codes(x)), z)


@pytest.mark.parametrize("n", [None, 3])
def test_priors_can_be_repeated(make_params, n):
    model = build(make_params, NARROW["mlp"], {"loss.prior.mu": 2.0})
    for p in (model.prior(n), model.generating_prior(n)):
        assert p.mu.shape == p.logvar.shape == ((4,) if n is None else (3, 4))
        assert p.mu.unique().tolist() == [2.0]


def test_description_gives_shapes_and_parameter_count(make_params):
    model = build(make_params, NARROW["small"], VQ)
    assert model.describe().splitlines() == [
        f"small autoencoder, {model.parameters_count:,} parameters",
        "  encoder     1x12x12 -> 4x8x8 -> 8x4x4",
        "  latents     vq, 4x4x4, 32 codes",
        "  decoder     4x4x4 -> 8x4x4 -> 4x8x8 -> 1x12x12",
        "  likelihood  Gaussian, 1 per pixel",
    ]
    assert model.parameters_count == sum(p.numel() for p in model.parameters()) + 32 * 4


@pytest.mark.parametrize(
    ("changes", "shape", "text"),
    [
        ({}, (1, 28, 32), "model: images must be square, got 32 x 28 pixels"),
        ({"model.architecture.depth": 2}, (1, 30, 30),
         "model.architecture.depth: conv cannot halve 30 pixels twice; set depth to at most 1, "
         "or use an image size of at least 8 that 4 divides"),
    ],
)  # fmt: skip
def test_images_that_do_not_fit_are_refused(make_params, changes, shape, text):
    with pytest.raises(UserError) as error:
        build(make_params, changes, shape=shape)
    assert str(error.value) == text


def test_asking_for_the_wrong_kind_of_latents_says_what_to_use(make_params):
    with pytest.raises(TypeError, match="use codes or quantise"):
        build(make_params, VQ).posterior(squares())
    with pytest.raises(TypeError, match="use posterior"):
        build(make_params).codes(squares())


@pytest.mark.parametrize(
    ("changes", "starts"),
    [
        ({"model.architecture.name": "mlp", **BERNOULLI}, True),
        ({"model.architecture.name": "mlp"}, False),
        ({"model.architecture.channels": [8, 16], **BERNOULLI}, False),
    ],
    ids=["mlp, bernoulli", "mlp, gaussian", "conv, bernoulli"],
)
def test_a_bias_of_each_bernoulli_pixel_starts_at_the_mean_image(make_params, changes, starts):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (50, 1, SIDE, SIDE), dtype=np.uint8)
    images[..., :2] = 0  # never white: the odds stay finite
    model, fresh = build(make_params, changes), build(make_params, changes)
    model.start(images)
    moved = [n for n, p in model.named_parameters() if not torch.equal(p, fresh.get_parameter(n))]
    if not starts:
        assert not moved
        return
    (name,) = moved
    mean = torch.from_numpy(images / 255).mean(0).float()
    shown = model.get_parameter(name).detach().sigmoid().view(1, SIDE, SIDE)
    torch.testing.assert_close(shown[..., 2:], mean[..., 2:])
    torch.testing.assert_close(shown[..., :2], torch.full((1, SIDE, 2), 1e-3))
