"""How far an adversary pushes a reconstruction: projected gradient in a ball of small changes.

Output attack: the most || R(x + d) - R(x) ||^2, with R the deterministic reconstruction (Camuto et
al., arXiv:2007.07365); latent attack: the largest symmetric KL between the posteriors of x + d and
x (Kuzina et al., arXiv:2203.09940); random: the worst of as many directions as the attack has
steps. The ball is L2 or L-infinity, within [0, 1]. What is done to an image depends on it, its
place and the seed alone, not on the batch that it comes in.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustvae.errors import UserError
from robustvae.models.autoencoder import Autoencoder
from robustvae.robustness.batches import slices
from robustvae.robustness.metrics import mse
from robustvae.runtime import seeding
from robustvae.runtime.threads import side_by_side

Norm = Literal["l2", "linf"]
Goal = Callable[[Tensor], Tensor]  # images [B, C, H, W] -> what is to be large, [B]
START = 0.01  # of the radius: noise at the start of the first try, where the gradient is zero
STRIDE = 2.5  # a step is this share of radius / steps, so that the edge is reached and followed
TINY = 1e-30


class Reconstructs(Protocol):
    """All that an output attack needs of a model."""

    def reconstruct(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] on [0, 1] -> the same shape, differentiable."""
        ...


@dataclass(frozen=True)
class Plan:
    """How hard is tried."""

    norm: Norm = "l2"
    steps: int = 40
    restarts: int = 2
    seed: int = 0


def reconstruction(model: Any) -> Goal:
    """R of the model; for vq codes the gradient goes straight through to the features."""
    if getattr(model, "family", None) != "vq":
        return model.reconstruct  # type: ignore[no-any-return]
    return lambda x: model.likelihood.mean(model.decode(model.latent(model.encoder(x)).z))


def output_goal(model: Any, x: Tensor) -> Goal:
    """Squared distance per pixel between the reconstructions of x + d and of x."""
    through = reconstruction(model)
    with torch.no_grad():
        clean = through(x)
    return lambda y: mse(through(y), clean)


def latent_goal(model: Any, x: Tensor) -> Goal:
    """Symmetric KL between the posteriors of x + d and of x, nats; for Student-t that of normals
    with their locations and scales, which needs no draws."""
    if getattr(model, "family", None) not in ("gaussian", "student_t"):
        raise UserError(
            "kind: latent needs a posterior density, and this model has none; use output"
        )
    with torch.no_grad():
        q = model.posterior(x)
        mu, logvar = q.mu.double(), q.logvar.double()

    def goal(y: Tensor) -> Tensor:
        r = model.posterior(y)
        apart = (r.mu.double() - mu).square()
        other = r.logvar.double()
        each = (other - logvar).cosh() - 1 + apart * ((-other).exp() + (-logvar).exp()) / 2
        total: Tensor = each.sum(-1)
        return total

    return goal


GOALS: dict[str, Callable[[Any, Tensor], Goal]] = {"output": output_goal, "latent": latent_goal}


def pgd(
    goal: Goal, x: Tensor, radius: float, plan: Plan, indices: Sequence[int],
    known: Sequence[Tensor] = (),
) -> Tensor:  # fmt: skip
    """Changes d [B, C, H, W] of each image that make the goal largest, of all iterates of all
    restarts, of one step to the edge, and of those `known`; `indices` are the images' places in
    the whole set.

    The first try goes in steps of 2.5 radius / steps. Together they reach too little to part nearly
    equal singular values, so the second and every other one steps 2.5 radii: a power iteration.
    Codes make R a staircase, on which a single step or chance may get further than a climb.
    """
    best = _Best(goal, x)
    for delta in known:
        best.see(delta, with_gradient=False)
    for restart in range(plan.restarts):
        start = _directions(x, plan, indices, f"start {restart}", 1)[0]
        scale = START if restart == 0 else 1.0
        step = STRIDE * radius / (1 if restart % 2 else plan.steps)
        delta = _within(x, scale * radius * start, radius, plan.norm)
        for k in range(plan.steps):
            up = _uphill(best.see(delta, with_gradient=True), plan.norm)
            if restart == k == 0:
                edge = _within(x, delta + radius * up, radius, plan.norm)
                best.see(edge, with_gradient=False)
            delta = _within(x, delta + step * up, radius, plan.norm)
        best.see(delta, with_gradient=False)
    return best.delta


class _Best:
    """The change of each image that the goal was largest for."""

    def __init__(self, goal: Goal, x: Tensor) -> None:
        self.goal, self.x, self.delta = goal, x, torch.zeros_like(x)
        self.value = torch.full((len(x),), -torch.inf, dtype=torch.float64, device=x.device)

    def see(self, delta: Tensor, *, with_gradient: bool) -> Tensor:
        """Keep what is better; the gradient there (or zeros)."""
        value, gradient = _value(self.goal, self.x, delta, with_gradient=with_gradient)
        better = value > self.value
        self.value = torch.where(better, value, self.value)
        self.delta = torch.where(_wide(better), delta, self.delta)
        return gradient


def fgsm(goal: Goal, x: Tensor, radius: float, plan: Plan, indices: Sequence[int]) -> Tensor:
    """One step to the edge from the same start as the first try of `pgd`."""
    start = _directions(x, plan, indices, "start 0", 1)[0]
    delta = _within(x, START * radius * start, radius, plan.norm)
    gradient = _value(goal, x, delta, with_gradient=True)[1]
    return _within(x, delta + radius * _uphill(gradient, plan.norm), radius, plan.norm)


def random(goal: Goal, x: Tensor, radius: float, plan: Plan, indices: Sequence[int]) -> Tensor:
    """The worst of `steps` directions, the same ones for every radius."""
    best = _Best(goal, x)
    for direction in _directions(x, plan, indices, "random", plan.steps):
        best.see(_within(x, radius * direction, radius, plan.norm), with_gradient=False)
    return best.delta


def margins(
    damage: NDArray[np.float64], radii: Sequence[float], own: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Smallest radius at which the damage [R, N] reaches the clean error [N], [N]; linear between
    the radii, from no damage at radius 0; infinite where the last radius is not enough."""
    grid, found = np.array([0.0, *radii]), np.full(len(own), np.inf)
    curve = np.vstack([np.zeros(len(own)), damage])
    for low in range(len(radii) - 1, -1, -1):
        crossed = (curve[low] < own) & (curve[low + 1] >= own)
        rise = np.where(crossed, curve[low + 1] - curve[low], 1.0)
        share = np.where(crossed, own - curve[low], 0.0) / rise
        found = np.where(crossed, grid[low] + share * (grid[low + 1] - grid[low]), found)
    return found


def _value(goal: Goal, x: Tensor, delta: Tensor, *, with_gradient: bool) -> tuple[Tensor, Tensor]:
    """The goal at x + delta, [B], and its gradient, or zeros; no other tensor gets one."""
    if not with_gradient:
        with torch.no_grad():
            return goal(x + delta).double(), torch.zeros_like(delta)
    with torch.enable_grad():
        delta = delta.detach().requires_grad_()
        value = goal(x + delta)
        if not value.requires_grad:
            raise UserError(
                "attacks: reconstruct has no gradient with respect to the images; "
                "compute it in torch, without no_grad, detach or rounding"
            )
        (gradient,) = torch.autograd.grad(value.sum(), delta)
    return value.detach().double(), gradient.nan_to_num()


def _within(x: Tensor, delta: Tensor, radius: float, norm: Norm) -> Tensor:
    """Into the ball, then into the box; the second makes no component larger."""
    if norm == "linf":
        delta = delta.clamp(-radius, radius)
    else:
        delta = delta * _wide((radius / _length(delta).clamp(min=TINY)).clamp(max=1))
    return (x + delta).clamp(0, 1) - x


def _uphill(gradient: Tensor, norm: Norm) -> Tensor:
    """Direction of the steepest rise, of length 1 in its norm."""
    if norm == "linf":
        signs: Tensor = gradient.sign()
        return signs
    # Scaled first: squares of a small gradient would vanish.
    largest = gradient.flatten(1).abs().amax(1).clamp(min=TINY)
    scaled = gradient / _wide(largest)
    direction: Tensor = scaled / _wide(_length(scaled).clamp(min=TINY))
    return direction


def _directions(x: Tensor, plan: Plan, indices: Sequence[int], name: str, count: int) -> Tensor:
    """Of length 1, uniform on the sphere (l2) or of the corners (linf), [count, B, C, H, W]."""
    drawn = []
    for index in indices:
        rng = seeding.generator(plan.seed, "attack", name, int(index))
        drawn.append(torch.randn((count, *x.shape[1:]), generator=rng, dtype=torch.float64))
    noise = torch.stack(drawn, 1)
    if plan.norm == "linf":
        return noise.sign().to(x)
    length = torch.linalg.vector_norm(noise.flatten(2), dim=2)
    unit: Tensor = (noise / length[..., None, None, None]).to(x)
    return unit


def _length(delta: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(delta.flatten(1), dim=1)
    return length


def _wide(values: Tensor) -> Tensor:
    """[B] -> [B, 1, 1, 1]."""
    return values[:, None, None, None]


ATTACKS = {"pgd": pgd, "fgsm": fgsm, "random": random}


@dataclass(frozen=True)
class Hit:
    """What attacks of one kind did: values per image [N] at each radius, images of the last."""

    damage: NDArray[np.float64]  # [R, N], squared distance of reconstructions per pixel
    chance: NDArray[np.float64]  # [R, N], the same for the random baseline
    error: NDArray[np.float64]  # [R, N], of the attacked image's reconstruction to the clean image
    clean: NDArray[np.float64]  # [N], the model's own error on clean images
    margin: NDArray[np.float64]  # [N], radius at which the damage reaches it; inf: beyond the last
    attacked: NDArray[np.float32]  # [R, N, C, H, W]


@contextmanager
def _fixed(model: Any) -> Iterator[None]:
    """Without gradients of its weights, which no attack asks for and some layers would make."""
    learnt = [p for p in getattr(model, "parameters", list)() if p.requires_grad]
    try:
        for p in learnt:
            p.requires_grad_(False)
        yield
    finally:
        for p in learnt:
            p.requires_grad_(True)


def strike(
    model: Any,
    x: Tensor,
    kind: str,
    radii: Sequence[float],
    plan: Plan,
    size: int,
    progress: Callable[[Iterable[list[Tensor]], int], Iterable[list[Tensor]]],
) -> Hit:
    """Attack images [N, C, H, W] of a model at every radius, so many at a time.

    Of our models several batches side by side; others may not bear it.
    """
    through, batches = reconstruction(model), slices(len(x), size)

    def work(where: slice) -> list[Tensor]:
        part, places = x[where], range(where.start, where.stop)
        goal, harm = GOALS[kind](model, part), output_goal(model, part)
        with torch.no_grad():
            clean = mse(through(part), part)
        rows = []
        for radius in radii:
            drawn = random(goal, part, radius, plan, places)
            attacked, chance = part + pgd(goal, part, radius, plan, places, [drawn]), part + drawn
            with torch.no_grad():
                error = mse(through(attacked), part)
                rows.append((harm(attacked), harm(chance), error, attacked))
        damage, chances, errors, images = (torch.stack(t).cpu() for t in zip(*rows, strict=True))
        return [damage.double(), chances.double(), errors.double(), clean.cpu().double(),
                images.float()]  # fmt: skip

    together = isinstance(model, Autoencoder) and x.device.type == "cpu"
    results = side_by_side(work, batches) if together else map(work, batches)
    parts = progress(results, len(batches))
    with _fixed(model):
        columns = list(zip(*parts, strict=True))
    whole = [torch.cat(t, 0 if t[0].ndim == 1 else 1).numpy() for t in columns]
    every, by_chance, error_of, own, pictures = whole
    return Hit(every, by_chance, error_of, own, margins(every, radii, own), pictures)
