"""The loop: steps, epochs, validation, and their checkpoint. Losses in nats per image."""

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from torch import Tensor

from robustvae.errors import UserError
from robustvae.models import divergences
from robustvae.models.autoencoder import Autoencoder, Terms
from robustvae.models.distributions import wide
from robustvae.models.objective import Objective
from robustvae.params import RunSettings, TrainSettings
from robustvae.runtime import distributed, seeding
from robustvae.runtime.device import reseed
from robustvae.training import failure, resume, strip
from robustvae.training.batches import Source, batches
from robustvae.training.parallel import Parallel
from robustvae.training.robust import LEAST
from robustvae.training.schedule import Row, best_epoch, learning_rate, stops_early
from robustvae.training.step import LARGEST, Recorded, Step, joined, losses, robustly

VALIDATION_BATCH = 500
SEEN = 1024  # training images from which batch norm learns of averaged weights
SAVE_EVERY = 60.0  # seconds between checkpoints within an epoch
LOOK_EVERY = {"cpu": 1, "mps": 200, "cuda": 200}  # steps between looks at whether all were finite


@dataclass
class Progress:
    """Where a training stands; with weights, optimiser and average all that a checkpoint holds."""

    epoch: int = 0  # finished
    position: int = 0  # batches done of the epoch under way
    step: int = 0  # optimiser steps
    rows: list[Row] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)  # weights of the best epoch
    weighed: list[Tensor] = field(default_factory=list)  # robust weights of the images, by epoch
    strip: dict[int, Tensor] = field(default_factory=dict)  # by epoch, what `strip` has of it


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
        self.settings, self.run, self.keep = settings, run, keep
        self.work = Step(model, settings, run, source)
        self.model, self.optimizer, self.average = (
            self.work.model, self.work.optimizer, self.work.average,
        )  # fmt: skip
        self.compute, self.precision = model, self.work.precision
        self.source, self.validation, self.device = source, validation, source.device
        self.compiled = settings.compile == "on"
        if self.compiled:
            # Of the compiler too, which knows nothing yet of what was set.
            torch.use_deterministic_algorithms(torch.are_deterministic_algorithms_enabled())
            self.model.encoder.compile(dynamic=False)
            self.model.decoder.compile(dynamic=False)
        loss = self.model.loss_settings
        self.objective = Objective(loss.beta, loss.capacity)
        self.at = Progress()
        self.steps = len(self.order(0))
        self.saved = time.monotonic()
        self.looked = 0  # at.step at the last look
        self.together = isinstance(model, Parallel)
        self.recording = self.device.type == "cuda" and not self.eager()
        self.recorded: dict[int, Recorded] = {}  # by size of the batch

    def eager(self) -> str:
        """Why steps on a GPU cannot be recorded; '' where they can."""
        if self.compiled:
            return "train.compile is on"
        if self.together:
            return "several processes"
        return "" if self.source.inside else "the images do not fit into the GPU's memory"

    def note(self) -> str:
        """What to say of the way in which steps are run; '' where nothing."""
        if self.device.type != "cuda":
            return ""
        return "" if self.recording else f"steps are not recorded as a CUDA graph: {self.eager()}"

    def order(self, epoch: int) -> list[Tensor]:
        """The batches of an epoch, as indices of images."""
        rng = seeding.generator(self.run.seed, "batches", epoch)
        order = torch.randperm(len(self.source), generator=rng).to(self.device)
        least = LEAST if self.model.loss_settings.robust.weighs else 2
        return batches(order, self.settings.batch_size, least)

    def left(self) -> int:
        """Images of the epoch under way that are still to come."""
        return sum(map(len, self.order(self.at.epoch)[self.at.position :]))

    def warmup(self, position: int) -> float:
        """Share of beta at a batch of the epoch under way: from 0 to 1 over beta_warmup epochs."""
        epochs = self.settings.beta_warmup
        return min(1.0, (self.at.epoch + position / self.steps) / epochs) if epochs else 1.0

    def numbers(self, position: int) -> tuple[float, float, float, float]:
        """What a batch of the epoch under way has besides its images, as Step takes it."""
        step = self.at.step + position - self.at.position
        rate = self.average.rate(step + 1) if self.average else 0.0
        weight = self.warmup(position) * self.objective.weight
        acts = float(step >= self.model.loss_settings.robust.after * self.steps)
        return weight, self.objective.capacity_at(step), rate, acts

    def epoch(self) -> Iterator[tuple[int, Tensor]]:
        """Train on what is left of the epoch under way, yielding each batch's size and loss."""
        self.model.train()
        self.work.rate(learning_rate(self.settings, self.at.epoch, self.at.rows))
        order, start = self.order(self.at.epoch), self.at.position
        table = [self.numbers(position) for position in range(start, len(order))]
        numbers = torch.tensor(table, dtype=torch.float64).to(self.device).unbind()
        for index, row in zip(order[start:], numbers, strict=True):
            total = self.step(index, row)
            if self.at.step - self.looked >= LOOK_EVERY[self.device.type]:
                self.look()
            if time.monotonic() - self.saved > SAVE_EVERY:
                self.save()
            yield len(index), total
        self.look()

    def step(self, index: Tensor, numbers: Tensor) -> Tensor:
        """One optimiser step on the images of `index`; the loss, detached."""
        size = len(index)
        if self.recording and size not in self.recorded:
            self.recorded[size] = Recorded(self.work, size)
        self.work.seed(self.at.step)
        if self.recording:
            total = self.recorded[size](index, numbers)
        else:
            try:
                with self.compiling(size):
                    _, total, _ = self.work(index, numbers, deferring=not self.together)
            except ArithmeticError as error:
                self.fail(failure.with_image(error, self.mine(index)), index, numbers)
        self.at.step += 1
        self.at.position += 1
        return total

    def look(self) -> None:
        """Read from the device whether all steps were finite; run one that was not once more.

        Neither it nor the steps after it have changed anything.
        """
        lost = self.at.step - self.looked - int(self.work.finite.item())
        self.looked = self.at.step = self.at.step - lost
        self.work.finite.zero_()
        if not lost:
            return
        self.at.position -= lost
        index = self.order(self.at.epoch)[self.at.position]
        numbers = torch.tensor(self.numbers(self.at.position), dtype=torch.float64)
        numbers = numbers.to(self.device)
        self.work.bad.zero_()
        self.work.seed(self.at.step)
        try:
            with self.compiling(len(index)):
                found = self.work(index, numbers, deferring=False)
        except ArithmeticError as error:
            self.fail(failure.with_image(error, self.mine(index)), index, numbers)
        self.fail(failure.culprit(*found), index, numbers)

    def mine(self, index: Tensor) -> Tensor:
        """What this process computes of a batch."""
        shared = self.together and len(index) >= distributed.size()
        return index[distributed.Share(len(index)).rows] if shared else index

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

    def finish(self) -> Row:
        """Validate, keep the weights where they are the best, and close the epoch with its row."""
        sums = dict(zip(self.work.names, self.work.sums.tolist(), strict=True))
        count = sums.pop("images")
        means = {n: v if n == LARGEST else v / count for n, v in sums.items()}
        trained = {name: means.pop(name) for name in list(means) if name.startswith("train_")}
        start = {
            "epoch": self.at.epoch + 1,
            "lr": learning_rate(self.settings, self.at.epoch, self.at.rows),
            "beta": self.model.loss_settings.beta * self.warmup(self.at.position),
        }
        with self.averaged():
            values = {**start, **trained, **self.validate(), **means}
            row: Row = {n: v if math.isfinite(v) else None for n, v in values.items()}
            self.at.rows.append(row)
            if best_epoch(self.at.rows) == self.at.epoch:
                self.at.best = {n: v.detach().clone() for n, v in self.model.state_dict().items()}
            self.picture()
        if len(self.work.weights):
            self.at.weighed.append(self.work.weights.to("cpu", torch.float16))
        self.at.epoch, self.at.position = self.at.epoch + 1, 0
        self.work.reset()
        return row

    def picture(self) -> None:
        """At some epochs, and the last, keep what the model makes of a few validation images."""
        rows = self.at.rows
        last = stops_early(rows, self.settings.early_stopping)
        if last or len(rows) in strip.stops(self.settings.epochs):
            self.validation.draw("strip")
            reseed(self.device, seeding.seed(self.run.seed, "strip"))
            x, _ = self.validation.batch(strip.places(len(self.validation)).to(self.device))
            with self.compiling():
                self.at.strip[len(rows)] = strip.take(self.model, x)

    def averaged(self) -> AbstractContextManager[None]:
        """Inside, the model is the one to validate: the average, where there is one."""
        if self.average is None:
            return nullcontext()
        self.model.eval()
        order, enough = self.order(self.at.epoch), -(-SEEN // self.settings.batch_size)
        return self.average.applied(enumerate(order[:enough]), self.see)

    def see(self, numbered: tuple[int, Tensor]) -> None:
        """Pass a batch of training images through the model."""
        number, index = numbered
        self.source.draw("average", number)
        reseed(self.device, seeding.seed(self.run.seed, "average", number))
        with (
            self.compiling(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"),
        ):
            self.model(*self.source.batch(index))

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Means over the validation images: always the same draws, the whole of beta.

        `val_total` is recon + beta * divergence; under capacity annealing, which has beta 1, that
        is the negative ELBO and not the objective, whose budget C moves from epoch to epoch. Once a
        robust objective acts it is that one, over all validation images as one batch: of these,
        too, some may be outliers.
        """
        self.model.eval()
        parts: list[Terms] = []
        with divergences.deferred() as checks:
            sums = self._validated(parts)
        if not torch.stack([sums.sum(), *checks]).isfinite().all():
            sums = self._validated([])  # says where
        loss, (recon, divergence) = self.model.loss_settings, sums.cpu() / len(self.validation)
        fixed = loss.capacity.model_copy(update={"weight": None})
        total = Objective(loss.beta, fixed)(recon, divergence, self.at.step)
        if loss.robust.name != "none" and self.at.step > loss.robust.after * self.steps:
            total = robustly(loss, joined(parts), loss.beta, 1.0)[1].cpu()
        if not total.isfinite():
            values = f"recon is {recon:g}, divergence {divergence:g} nats per image"
            self.stop(f"in validation, {values}")
        found = {"val_recon": recon, "val_divergence": divergence, "val_total": total}
        return {name: value.item() for name, value in found.items()}

    def _validated(self, parts: list[Terms]) -> Tensor:
        """Sums of recon and divergence over the validation images; the terms go to `parts`."""
        sums = torch.zeros(2, dtype=wide(self.device), device=self.device)
        indices = torch.arange(len(self.validation), device=self.device)
        for i, index in enumerate(torch.split(indices, VALIDATION_BATCH)):
            self.validation.draw("validation", i)
            reseed(self.device, seeding.seed(self.run.seed, "validation", i))
            try:
                with self.compiling():
                    terms, _ = losses(
                        self.compute, *self.validation.batch(index),
                        precision=self.precision, weight=0.0, budget=0.0,
                    )  # fmt: skip
            except ArithmeticError as error:
                self.stop(f"in validation, {error}")
            sums += torch.stack((terms.recon.sum(), terms.divergence.sum()))
            parts.append(terms._replace(out=terms.out[:0]))
        return sums

    def save(self) -> None:
        """Write the checkpoint."""
        self.look()
        if self.keep is not None and distributed.rank() == 0:
            parts: dict[str, Any] = {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            }
            average = self.average.values if self.average else []
            parts |= {"average": average, "sums": self.work.totals(), "weights": self.work.weights}
            self.keep.save({**parts, **vars(self.at)})
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
        self.work.restore(state.pop("sums"))
        self.work.weights.copy_(state.pop("weights"))
        state["best"] = {key: value.to(self.device) for key, value in state["best"].items()}
        self.at = Progress(**state)
        self.looked = self.at.step
        return f"{note} ({self.at.epoch} epochs and {self.at.position} of {self.steps} batches)"

    def stop(self, why: str) -> NoReturn:
        """End the training with a message."""
        place = f"step {self.at.step}, epoch {self.at.epoch + 1}"
        raise UserError(f"training stopped at {place}: {why}")

    def fail(self, why: str, index: Tensor, numbers: Tensor) -> NoReturn:
        """Write the file that re-creates the step, in whichever process that fails, and stop."""
        if self.keep is None:
            self.stop(why)
        self.work.undo()
        self.work.seed(self.at.step)
        seed = seeding.seed(self.run.seed, "latent", self.at.step)
        at = {"why": why, "step": self.at.step, "epoch": self.at.epoch + 1, "seed": seed}
        path = failure.keep(self.work, self.keep, at, index, numbers)
        again = f"from robustvae.training import replay; replay({str(path)!r})"
        self.stop(f'{why}; to re-create the step: python -c "{again}"')
