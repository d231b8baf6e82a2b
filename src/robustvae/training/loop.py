"""The loop: steps, epochs, validation, and their checkpoint. Losses in nats per image."""

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from robustvae.errors import UserError
from robustvae.models.autoencoder import Autoencoder, Terms
from robustvae.models.divergences import Objective
from robustvae.params import RunSettings, TrainSettings
from robustvae.runtime import distributed, files, seeding
from robustvae.runtime.device import precision, reseed
from robustvae.training import resume
from robustvae.training.batches import Source, add_noise, batches
from robustvae.training.parallel import Parallel
from robustvae.training.schedule import Row, best_epoch, clip_norm, learning_rate

VALIDATION_BATCH = 500
SAVE_EVERY = 60.0  # seconds between checkpoints within an epoch
LARGEST = "alpha_saturation"  # of it the history has an epoch's largest value, else the mean


def losses(
    model: Autoencoder | Parallel,
    x: Tensor,
    target: Tensor,
    *,
    seed: int,
    precision: str,
    step: int,
    warmup: float = 1.0,
) -> tuple[Terms, Tensor]:
    """Terms [B] and the objective of a batch, with the latent noise of `seed`."""
    loss = model.loss_settings
    reseed(x.device, seed)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16"):
        terms = model(x, target)
    objective = Objective(loss.beta, loss.capacity)
    return terms, objective(terms.recon, terms.divergence, step, warmup)


class Average:
    """Exponential moving average of the weights; buffers (batch norm, codebooks) are the model's.

    Step t, from 1, has the decay min(decay, (1 + t) / (10 + t)), which soon forgets the start.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.parameters, self.decay = list(model.parameters()), decay
        self.values = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow the weights of optimiser step `step`, counted from 1."""
        rate = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.values, [p.detach() for p in self.parameters], rate)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model has the averaged weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for p, value in zip(self.parameters, self.values, strict=True):
            p.data, value.data = value.data, p.data


@dataclass
class Progress:
    """Where a training stands; with weights, optimiser and average all that a checkpoint holds."""

    epoch: int = 0  # finished
    position: int = 0  # batches done of the epoch under way
    step: int = 0  # optimiser steps
    rows: list[Row] = field(default_factory=list)
    sums: dict[str, Tensor] = field(default_factory=dict)  # over the images of the epoch under way
    best: dict[str, Tensor] = field(default_factory=dict)  # weights of the best epoch


class Trainer:
    """One training: `epoch`, then `finish`, until enough."""

    def __init__(
        self,
        model: Autoencoder | Parallel,
        settings: TrainSettings,
        run: RunSettings,
        source: Source,
        validation: Source,
        keep: resume.Checkpoint | None,
    ) -> None:
        self.compute, self.settings, self.run, self.keep = model, settings, run, keep
        self.model = model = model.module if isinstance(model, Parallel) else model
        self.source, self.validation, self.device = source, validation, source.device
        self.clip = clip_norm(settings, model.loss_settings)
        self.precision = precision(settings.precision, self.device)
        self.compiled = settings.compile == "on"
        if self.compiled:
            model.encoder.compile(dynamic=False)
            model.decoder.compile(dynamic=False)
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimizer]
        self.parameters = list(model.parameters())
        self.optimizer = kind(
            self.parameters, settings.lr, weight_decay=settings.weight_decay, fused=True
        )
        self.average = Average(model, settings.ema) if settings.ema else None
        self.buffers = list(model.buffers())
        self.before = [b.clone() for b in self.buffers]
        self.at = Progress()
        self.steps = len(self.order(0))
        self.saved = time.monotonic()

    def order(self, epoch: int) -> list[Tensor]:
        """The batches of an epoch, as indices of images."""
        rng = seeding.generator(self.run.seed, "batches", epoch)
        order = torch.randperm(len(self.source), generator=rng).to(self.device)
        return batches(order, self.settings.batch_size)

    def left(self) -> int:
        """Images of the epoch under way that are still to come."""
        return sum(map(len, self.order(self.at.epoch)[self.at.position :]))

    def warmup(self, position: int) -> float:
        """Share of beta at a batch of the epoch under way: from 0 to 1 over beta_warmup epochs."""
        epochs = self.settings.beta_warmup
        return min(1.0, (self.at.epoch + position / self.steps) / epochs) if epochs else 1.0

    def epoch(self) -> Iterator[tuple[int, Tensor]]:
        """Train on what is left of the epoch under way, yielding each batch's size and loss."""
        self.model.train()
        rate = learning_rate(self.settings, self.at.epoch, self.at.rows)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        order = self.order(self.at.epoch)
        for position in range(self.at.position, len(order)):
            total = self.step(order[position], self.warmup(position))
            self.at.position = position + 1
            if time.monotonic() - self.saved > SAVE_EVERY:
                self.save()
            yield len(order[position]), total

    def step(self, index: Tensor, warmup: float) -> Tensor:
        """One optimiser step on the images of `index`; the loss, detached."""
        number = self.at.step
        if self.buffers:
            torch._foreach_copy_(self.before, self.buffers)
        x, target = self.source.batch(index, number)
        x = add_noise(x, self.settings.input_noise, self.source.stream("noise", number))
        how: dict[str, Any] = {
            "seed": seeding.seed(self.run.seed, "latent", number),
            "precision": self.precision,
            "step": number,
            "warmup": warmup,
        }
        try:
            with self.compiling(len(index)):
                terms, total = losses(self.compute, x, target, **how)
        except ArithmeticError as error:
            shared = isinstance(self.compute, Parallel) and len(index) >= distributed.size()
            mine = index[distributed.Share(len(index)).rows] if shared else index
            self.fail(_with_image(error, mine), x, target, index, how)
        self.optimizer.zero_grad()
        torch.autograd.backward(total)
        norm = get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        # The one read a step: what is not finite must not reach the weights.
        if not (total.detach() + norm).isfinite().item():
            self.fail(_culprit(terms, total, norm), x, target, index, how)
        if self.clip is not None:
            clip_grads_with_norm_(self.parameters, self.clip, norm)
        self.optimizer.step()
        self.at.step += 1
        if self.average is not None:
            self.average.update(self.at.step)
        self.accumulate(terms, total.detach(), norm, len(x))
        return total.detach()

    @contextmanager
    def compiling(self, images: int = 0) -> Iterator[None]:
        """Inside, a compiled net is one on full batches only: each size would be compiled anew."""
        stance: AbstractContextManager[object] = nullcontext()
        if self.compiled and images != self.settings.batch_size:
            stance = torch.compiler.set_stance("force_eager")
        try:
            with stance:
                yield
        except RuntimeError as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            why = str(error).splitlines()[0]
            raise UserError(f"train.compile: torch cannot compile here ({why}); use off") from None

    @torch.no_grad()
    def accumulate(self, terms: Terms, total: Tensor, norm: Tensor, count: int) -> None:
        """Add a step to the sums of the epoch, on the device."""
        sums, dtype = self.at.sums, torch.float32 if self.device.type == "mps" else torch.float64
        values = {
            "images": torch.full((), count, dtype=dtype, device=self.device),
            "train_recon": terms.recon.sum(dtype=dtype),
            "train_divergence": terms.divergence.sum(dtype=dtype),
            "train_total": total.to(dtype) * count,
            "grad_norm": norm.to(dtype) * count,
            **{n: v.to(dtype) * (1 if n == LARGEST else count) for n, v in terms.stats.items()},
        }
        for name, value in values.items():
            old = sums.get(name, torch.zeros_like(value))
            sums[name] = torch.maximum(old, value) if name == LARGEST else old + value

    def finish(self) -> Row:
        """Validate, keep the weights where they are the best, and close the epoch with its row."""
        sums = {name: value.item() for name, value in self.at.sums.items()}
        count = sums.pop("images")
        means = {n: v if n == LARGEST else v / count for n, v in sums.items()}
        trained = {name: means.pop(name) for name in list(means) if name.startswith("train_")}
        start = {
            "epoch": self.at.epoch + 1,
            "lr": self.optimizer.param_groups[0]["lr"],
            "beta": self.model.loss_settings.beta * self.warmup(self.at.position),
        }
        with self.average.applied() if self.average else nullcontext():
            values = {**start, **trained, **self.validate(), **means}
            row: Row = {n: v if math.isfinite(v) else None for n, v in values.items()}
            self.at.rows.append(row)
            if best_epoch(self.at.rows) == self.at.epoch:
                self.at.best = {n: v.detach().clone() for n, v in self.model.state_dict().items()}
        self.at.epoch, self.at.position, self.at.sums = self.at.epoch + 1, 0, {}
        return row

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Means over the validation images: always the same draws, the whole of beta.

        `val_total` is recon + beta * divergence; under capacity annealing, which has beta 1, that
        is the negative ELBO and not the objective, whose budget C moves from epoch to epoch.
        """
        self.model.eval()
        count, sums = len(self.validation), torch.zeros(2, dtype=torch.float64)
        indices = torch.arange(count, device=self.device)
        for i, index in enumerate(torch.split(indices, VALIDATION_BATCH)):
            x, target = self.validation.batch(index, "validation", i)
            seed = seeding.seed(self.run.seed, "validation", i)
            try:
                with self.compiling():
                    terms, _ = losses(
                        self.compute,
                        x,
                        target,
                        seed=seed,
                        precision=self.precision,
                        step=self.at.step,
                    )
            except ArithmeticError as error:
                self.stop(f"in validation, {error}")
            sums += torch.stack((terms.recon.sum(), terms.divergence.sum())).cpu()
        loss, (recon, divergence) = self.model.loss_settings, sums / count
        fixed = loss.capacity.model_copy(update={"weight": None})
        total = Objective(loss.beta, fixed)(recon, divergence, self.at.step)
        if not total.isfinite():
            values = f"recon is {recon:g}, divergence {divergence:g} nats per image"
            self.stop(f"in validation, {values}")
        found = {"val_recon": recon, "val_divergence": divergence, "val_total": total}
        return {name: value.item() for name, value in found.items()}

    def save(self) -> None:
        """Write the checkpoint."""
        if self.keep is not None and distributed.rank() == 0:
            parts = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
            average = self.average.values if self.average else []
            self.keep.save({**parts, "average": average, **vars(self.at)})
        self.saved = time.monotonic()

    @torch.no_grad()
    def restore(self) -> str:
        """Take up the checkpoint, where there is a sound one; what to say about it."""
        state, note = distributed.first(self.keep.load) if self.keep is not None else (None, "")
        if state is None:
            return note
        self.model.load_state_dict(state.pop("model"))
        self.optimizer.load_state_dict(state.pop("optimizer"))
        saved = state.pop("average")
        if self.average is not None:
            torch._foreach_copy_(self.average.values, saved)
        for name in ("sums", "best"):
            state[name] = {key: value.to(self.device) for key, value in state[name].items()}
        self.at = Progress(**state)
        return f"{note} ({self.at.epoch} epochs and {self.at.position} of {self.steps} batches)"

    def stop(self, why: str) -> NoReturn:
        """End the training with a message."""
        place = f"step {self.at.step}, epoch {self.at.epoch + 1}"
        raise UserError(f"training stopped at {place}: {why}")

    def fail(
        self, why: str, x: Tensor, target: Tensor, index: Tensor, how: dict[str, Any]
    ) -> NoReturn:
        """Write the file that re-creates the step, in whichever process that fails, and stop."""
        if self.keep is None:
            self.stop(why)
        with torch.no_grad():
            torch._foreach_copy_(self.buffers, self.before)  # as they were before the step
        path = self.keep.failures / f"{self.keep.digest[:16]}-step-{self.at.step}.pt"
        state = {
            "why": why,
            "epoch": self.at.epoch + 1,
            "index": index,
            "x": x,
            "target": target,
            "how": how,
            "weights": self.model.state_dict(),
            "model": self.model.settings.model_dump_json(),
            "loss": self.model.loss_settings.model_dump_json(),
            "shape": list(self.model.shape),
            "device": self.device.type,
        }
        with files.replace(path) as temporary:
            temporary.write_bytes(resume.pack(state, self.keep.digest))
        again = f"from robustvae.training import replay; replay({str(path)!r})"
        self.stop(f'{why}; to re-create the step: python -c "{again}"')


def _with_image(error: ArithmeticError, index: Tensor) -> str:
    """The message, with the place of the first offending sample in the training images."""
    rows = getattr(error, "rows", None)
    return f"{error}" + (f" (sample {rows[0]} is training image {index[rows[0]]})" if rows else "")


def _culprit(terms: Terms, total: Tensor, norm: Tensor) -> str:
    """Which term is not finite, and the values of all."""
    values = {
        "recon": terms.recon.mean().item(),
        "divergence": terms.divergence.mean().item(),
        "total": total.item(),
        "gradient norm": norm.item(),
    }
    name = next((n for n, v in values.items() if not math.isfinite(v)), "total")
    every = ", ".join(f"{n} {v:g}" for n, v in values.items())
    cure = "" if name == "gradient norm" else " or set train.grad_clip"  # infinite: nothing to clip
    return f"{name} is not finite ({every}); lower train.lr{cure}"
