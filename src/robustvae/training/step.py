"""One optimiser step, the same on every device, that reads nothing back from the device.

What varies from step to step comes as tensors, what comes of it is added up in place, so that a GPU
can have it recorded once and replayed. A step that is not finite changes nothing, nor does any that
follows, until the host looks.
"""

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from robustvae.models import divergences
from robustvae.models.autoencoder import Autoencoder, Terms
from robustvae.models.distributions import wide
from robustvae.models.objective import Objective
from robustvae.params import LossSettings, RunSettings, TrainSettings
from robustvae.runtime import seeding
from robustvae.runtime.device import precision, reseed
from robustvae.training.average import Average
from robustvae.training.batches import Source, add_noise
from robustvae.training.parallel import Parallel
from robustvae.training.robust import bounded, weights
from robustvae.training.schedule import clip_norm

LARGEST = "alpha_saturation"  # of it the history has an epoch's largest value, else the mean
OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
GUARDED = ("add_param_group", "zero_grad", "step", "state_dict", "load_state_dict")
WARM = 3  # steps before one is recorded, in which libraries choose and allocate what they need


def losses(
    model: Autoencoder | Parallel,
    x: Tensor,
    target: Tensor,
    *,
    precision: str,
    weight: Tensor | float,
    budget: Tensor | float,
    acts: Tensor | float | None = None,
) -> tuple[Terms, Tensor]:
    """Terms [B] and the objective of a batch; `weight` and `budget` as Objective.weigh.

    `acts`: 1 where a robust objective acts, 0 where it waits; None: this is no training.
    """
    with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16"):
        terms: Terms = model(x, target)
    loss = model.loss_settings
    if loss.robust.name != "none" and acts is not None:
        return robustly(loss, terms, weight, acts)
    objective = Objective(loss.beta, loss.capacity)
    return terms, objective.weigh(terms.recon, terms.divergence, weight, budget)


def robustly(
    loss: LossSettings, terms: Terms, weight: Tensor | float, acts: Tensor | float
) -> tuple[Terms, Tensor]:
    """The same by a robust objective, once it acts; the terms with what it weighs and to be logged.

    effective_share: (sum v)^2 / sum v^2 / B of the weights v; beta_weight: mean of exp(-b l).
    """
    robust, cost = loss.robust, terms.recon
    acts = torch.as_tensor(acts, dtype=cost.dtype, device=cost.device)
    if robust.name == "beta":
        assert robust.strength is not None
        assert terms.integral is not None
        new = bounded(robust.strength, cost, terms.integral.to(cost.dtype))
        share = (-robust.strength * cost.detach()).exp().mean()
        stats = {"beta_weight": share}
        cost = torch.where(acts > 0, new, cost)
    if loss.beta:  # else the divergence may be infinite
        cost = cost + torch.as_tensor(weight).to(cost) * terms.divergence
    if robust.name == "beta":
        return terms._replace(stats=terms.stats | stats), cost.mean()
    v = weights(robust, cost) * acts + (1 - acts)
    stats = {"effective_share": v.sum().square() / v.square().sum() / len(v)}
    total = (v * cost).sum() / v.sum()
    return terms._replace(stats=terms.stats | stats, weights=v), total


def joined(parts: Sequence[Terms]) -> Terms:
    """The terms of several batches as of one; nothing else of them is kept."""
    recon, divergence = (torch.cat([getattr(p, n) for p in parts]) for n in ("recon", "divergence"))
    known = [p.integral for p in parts if p.integral is not None]
    return Terms(recon, divergence, parts[0].out, {}, torch.cat(known) if known else None)


def _plain(kind: type[torch.optim.Adam]) -> Callable[..., Any]:
    """The optimiser without what has torch's compiler leave its methods alone.

    It imports that compiler, a second of each training's start, to compile nothing.
    """
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in GUARDED}
    return type(kind.__name__, (kind,), methods | {"step": torch.no_grad()(methods["step"])})


class Step:
    """A model with its optimiser: what a batch does to them, and the sums of the epoch."""

    def __init__(
        self,
        compute: Autoencoder | Parallel,
        settings: TrainSettings,
        run: RunSettings,
        source: Source,
    ) -> None:
        self.compute, self.settings, self.run, self.source = compute, settings, run, source
        self.model = model = compute.module if isinstance(compute, Parallel) else compute
        self.device, cuda = source.device, source.device.type == "cuda"
        self.clip = clip_norm(settings, model.loss_settings)
        self.precision = precision(settings.precision, self.device)
        self.parameters = list(model.parameters())
        self.optimizer = _plain(OPTIMIZERS[settings.optimizer])(
            self.parameters, settings.lr, weight_decay=settings.weight_decay, fused=True,
            capturable=cuda,
        )  # fmt: skip
        self.bad = torch.zeros((), device=self.device)  # 1 from a step on that is not finite
        self.optimizer.found_inf = self.bad  # 1: it changes nothing
        self.finite = torch.zeros((), device=self.device)  # steps since the host last looked
        self.lr = torch.zeros((), device=self.device)
        self.average = Average(model, settings.ema) if settings.ema else None
        kept = model.state_dict().keys()
        self.buffers = [b for name, b in model.named_buffers() if name in kept]
        self.before = [b.clone() for b in self.buffers]
        self.noise = torch.Generator(self.device)
        # What a robust objective gave each training image in the epoch under way
        weighed = len(source) if model.loss_settings.robust.weighs else 0
        self.weights = torch.ones(weighed, device=self.device)
        self.one = torch.ones((), dtype=wide(self.device), device=self.device)
        self.counts: dict[int, Tensor] = {}  # factors of what is added up, by size of the batch
        self.names: list[str] = []  # of the sums
        self.sums = torch.zeros(0, device=self.device)

    def rate(self, value: float) -> None:
        """Set the learning rate, on a GPU in the memory where a recorded step reads it."""
        self.lr.fill_(value)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr if self.device.type == "cuda" else value

    def seed(self, number: int) -> None:
        """Set all that step `number` draws from: it does not depend on what was drawn before."""
        self.source.draw(number)
        if self.settings.input_noise.name != "none":
            self.noise.manual_seed(seeding.seed(self.run.seed, "noise", number))
        reseed(self.device, seeding.seed(self.run.seed, "latent", number))

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and targets."""
        x, target = self.source.batch(index)
        return add_noise(x, self.settings.input_noise, self.noise), target

    def __call__(
        self, index: Tensor, numbers: Tensor, *, deferring: bool = True
    ) -> tuple[Terms, Tensor, Tensor]:
        """A step on the images of `index`, after `seed`: terms [B], total and norm of the gradient.

        `numbers`, float64: weight and budget as Objective.weigh, rate as Average.update, and acts
        as `losses`.
        `deferring`: what cannot be computed is only noticed; else it raises where it happens.
        """
        weight, budget, rate, acts = numbers.unbind()
        if self.buffers:
            torch._foreach_copy_(self.before, self.buffers)
        x, target = self.batch(index)
        noticing: AbstractContextManager[list[Tensor]] = nullcontext([])
        with divergences.deferred() if deferring else noticing as checks:
            terms, total = losses(
                self.compute, x, target, precision=self.precision, weight=weight, budget=budget,
                acts=acts,
            )  # fmt: skip
        self.optimizer.zero_grad()
        torch.autograd.backward(total)
        norm = get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        self._notice([total.detach(), norm, *checks])
        if self.clip is not None:
            clip_grads_with_norm_(self.parameters, self.clip, norm)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(rate * (1 - self.bad))
        with torch.no_grad():
            for now, old in zip(self.buffers, self.before, strict=True):
                torch.where(self.bad > 0, old, now, out=now)
            self._add_up(terms, total.detach(), norm, len(index))
            if terms.weights is not None:
                kept = torch.where(self.bad > 0, self.weights[index], terms.weights)
                self.weights.index_copy_(0, index, kept.to(self.weights.dtype))
        return terms, total.detach(), norm

    @torch.no_grad()
    def undo(self) -> None:
        """Set the buffers as they were before the last step."""
        for now, old in zip(self.buffers, self.before, strict=True):
            now.copy_(old)

    def reset(self) -> None:
        """Begin the sums of an epoch."""
        self.sums.zero_()

    def totals(self) -> dict[str, Tensor]:
        """The sums of the epoch, by name."""
        return dict(zip(self.names, self.sums.clone(), strict=True))

    def restore(self, totals: dict[str, Tensor]) -> None:
        """Go on with sums that `totals` gave."""
        self._name(list(totals))
        if totals:
            self.sums.copy_(torch.stack(list(totals.values())))

    def _notice(self, values: Sequence[Tensor]) -> None:
        probe = sum(v.to(self.bad.dtype) for v in values) * 0  # inf * 0 and nan * 0 are nan
        assert isinstance(probe, Tensor)
        torch.maximum(self.bad, probe.isnan().to(self.bad.dtype), out=self.bad)
        self.finite.add_(1 - self.bad)

    def _add_up(self, terms: Terms, total: Tensor, norm: Tensor, count: int) -> None:
        dtype = wide(self.device)
        values = {
            "images": self.one,
            "train_recon": terms.recon.sum(dtype=dtype),
            "train_divergence": terms.divergence.sum(dtype=dtype),
            "train_total": total.to(dtype),
            "grad_norm": norm.to(dtype),
            **{name: value.to(dtype) for name, value in terms.stats.items()},
        }
        if not self.names:
            self._name(list(values))
        if count not in self.counts:  # of images, where a value is not their sum
            once = ("train_recon", "train_divergence", LARGEST)
            factors = [1 if name in once else count for name in self.names]
            self.counts[count] = torch.tensor(factors, dtype=dtype, device=self.device)
        new = torch.stack(list(values.values())) * self.counts[count]
        new = torch.where(self.bad > 0, 0, new)
        if LARGEST in self.names:
            i = self.names.index(LARGEST)
            largest = torch.maximum(self.sums[i], new[i])
            self.sums.add_(new)
            self.sums[i] = largest
        else:
            self.sums.add_(new)

    def _name(self, names: list[str]) -> None:
        self.names = names
        self.sums = torch.zeros(len(names), dtype=wide(self.device), device=self.device)


class Recorded:
    """A step as a CUDA graph, for batches of one size."""

    def __init__(self, step: Step, size: int) -> None:
        self.index = torch.zeros(size, dtype=torch.int64, device=step.device)
        self.numbers = torch.zeros(4, dtype=torch.float64, device=step.device)
        step.bad.fill_(1)  # what follows leaves no trace
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM):
                step(self.index, self.numbers)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        if step.source.dynamic:
            self.graph.register_generator_state(step.source.rng)
        if step.settings.input_noise.name != "none":
            self.graph.register_generator_state(step.noise)
        with torch.cuda.graph(self.graph):
            _, self.total, _ = step(self.index, self.numbers)
        step.bad.zero_()

    def __call__(self, index: Tensor, numbers: Tensor) -> Tensor:
        """The step, after Step.seed; its total, until the next one."""
        self.index.copy_(index)
        self.numbers.copy_(numbers)
        self.graph.replay()
        return self.total
