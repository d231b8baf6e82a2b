"""The loop: every setting acts, schedules follow hand-worked numbers, faults stop it in words."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import short
import stages.train
import torch
from conftest import ROOT, overlay
from pydantic import BaseModel
from short import TRAIN, VAL, content, fit
from sklearn.datasets import load_digits

from robustvae import params, training
from robustvae.data.prepared import Prepared
from robustvae.errors import UserError
from robustvae.models import divergences
from robustvae.models.autoencoder import Autoencoder
from robustvae.models.latents import Continuous
from robustvae.models.layers import BatchNorm2d
from robustvae.models.objective import Objective
from robustvae.params import LossSettings, TrainSettings
from robustvae.runtime import device
from robustvae.training import fitting, loop, resume, step
from robustvae.training.average import Average
from robustvae.training.batches import Source, add_noise, batches, mix
from robustvae.training.schedule import best_epoch, clip_norm, learning_rate, stops_early

CPU = torch.device("cpu")

# --- the no-op guard: for each key, settings to start from and a change that must be felt

SHOT = {"train.mixture.fraction": 0.5}
PLATEAU = {
    "train.scheduler": {"name": "plateau", "patience": 1, "monitor": "val_divergence"},
    "train.epochs": 5,
}
CAPACITY = {"loss.capacity": {"weight": 10.0, "start": 0.0, "max": 5.0, "steps": 5}}
ACTS: dict[str, tuple[dict[str, Any], Any]] = {
    "train.epochs": ({}, 2),
    "train.batch_size": ({}, 8),
    "train.lr": ({}, 0.02),
    "train.optimizer": ({"train.weight_decay": 0.1}, "adamw"),
    "train.weight_decay": ({}, 0.1),
    "train.scheduler.name": ({}, "cosine"),
    "train.scheduler.milestones": (
        {"train.scheduler": {"name": "step", "milestones": [1]}},
        [2],
    ),
    "train.scheduler.monitor": (PLATEAU, "val_total"),
    "train.scheduler.patience": (PLATEAU, 2),
    "train.scheduler.warmup": ({"train.scheduler.name": "cosine"}, 1),
    "train.early_stopping": ({"train.lr": 1.0, "train.epochs": 6}, 1),
    "train.grad_clip": ({}, 1.0),
    "train.beta_warmup": ({}, 2),
    "train.input_noise.name": (
        {"train.input_noise": {"name": "dropout", "amount": 0.2}},
        "gaussian",
    ),
    "train.input_noise.amount": ({"train.input_noise": {"name": "dropout", "amount": 0.2}}, 0.3),
    "train.mixture.fraction": ({}, 0.5),
    "train.mixture.corruption": (SHOT, "inverse"),
    "train.mixture.severity": (SHOT, 1),
    "train.mixture.target": (SHOT, "corrupted"),
    "train.ema": ({}, 0.5),
    "train.precision": ({}, "bf16"),
    "loss.divergence": ({"loss.alpha": 0.5}, "renyi"),
    "loss.alpha": ({}, 0.5),
    "loss.beta": ({}, 2.0),
    "loss.df": ({}, 3.0),
    "loss.robust.name": ({"loss.robust": {"name": "welsch", "strength": 1.0}}, "huber"),
    "loss.robust.strength": ({"loss.robust": {"name": "welsch", "strength": 1.0}}, 2.0),
    "loss.robust.after": ({"loss.robust": {"name": "welsch", "strength": 1.0}}, 0.5),
    "loss.capacity.weight": (CAPACITY, 20.0),
    "loss.capacity.start": (CAPACITY, 1.0),
    "loss.capacity.max": (CAPACITY, 0.2),
    "loss.capacity.steps": (CAPACITY, 50),
    "loss.prior.mu": ({}, 1.0),
    "loss.prior.logvar": ({}, 1.0),
}
ELSEWHERE = {  # of another stage's file, and of other machine code only
    "train.mixture.source",  # test_the_official_source_is_read
    "train.compile",  # test_compiled_layers_are_those_of_full_batches
}


def _keys(section: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, info in section.model_fields.items():
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _keys(inner, f"{prefix}.{name}")
        else:
            yield f"{prefix}.{name}"


def _acts(key: str) -> bool:
    """Does the change move the history, and for losses the weights themselves?"""
    base, value = ACTS[key]
    (rows, model), (other_rows, other) = fit(base), fit({**base, key: value})
    if key.startswith("loss."):
        return content(model) != content(other)
    return rows != other_rows


def test_every_key_of_train_and_loss_has_an_example() -> None:
    keys = {*_keys(TrainSettings, "train"), *_keys(LossSettings, "loss")}
    assert keys == {*ACTS, *ELSEWHERE}


@pytest.mark.parametrize("key", ACTS)
def test_setting_acts_on_training(key: str) -> None:
    assert _acts(key)


@pytest.mark.parametrize("key", ["loss.alpha", "loss.beta", "loss.divergence"])
def test_the_guard_notices_a_detached_divergence(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    attached = divergences.Divergence.__call__
    monkeypatch.setattr(
        divergences.Divergence, "__call__", lambda self, q, p: attached(self, q, p).detach()
    )
    assert not _acts(key)


def test_the_official_source_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Prepared(Path("absent"), {}, TRAIN, VAL, VAL, {"train": np.arange(len(TRAIN))})
    mixture = short.settings(SHOT).train.mixture
    official = mixture.model_copy(update={"source": "official"})
    monkeypatch.setattr(stages.train.official, "verify", lambda *a: np.arange(len(TRAIN))[::-1])
    monkeypatch.setattr(stages.train.official, "read", lambda *a: TRAIN[::-1])
    index = np.array([3, 5])
    assert (stages.train.corrupted(data, official, 0, index) == TRAIN[index]).all()
    assert (stages.train.corrupted(data, mixture, 0, index) != TRAIN[index]).any()


# --- streams


def test_same_seed_same_losses_to_the_last_bit() -> None:
    (rows, model), (again, other) = fit(), fit()
    assert rows == again
    assert content(model) == content(other)
    assert fit({"run.seed": 1})[0] != rows


@pytest.mark.parametrize("written", ["1e-5", "0.00001", "1.0e-05"])
def test_spellings_of_a_number_train_alike(written: str, tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text()
    line = next(line for line in text.splitlines() if line.startswith("  lr:"))
    path = tmp_path / "params.yaml"
    path.write_text(text.replace(line, f"  lr: {written}"))
    lr = params.load(path).train.lr
    assert fit({"train.lr": lr})[0] == fit({"train.lr": 1e-5})[0]


def test_validation_images_do_not_move_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [row["train_total"] for row in fit()[0]]
    monkeypatch.setattr(short, "VAL", short.images(33, 7))
    assert [row["train_total"] for row in fit()[0]] == wanted


def test_validation_repeats_itself() -> None:
    rows, _ = fit({"train.lr": 1e-30, "train.epochs": 2, "model.likelihood.name": "bernoulli"})
    assert rows[0]["val_total"] == rows[1]["val_total"]
    assert rows[0]["train_total"] != rows[1]["train_total"]


def test_dynamic_binarisation_draws_anew_per_batch_and_alike_in_validation() -> None:
    source = Source(TRAIN, TRAIN, True, 0, CPU)
    index = torch.arange(8)
    found = []
    for number in (0, 1, 1):
        source.draw(number)
        x, target = source.batch(index)
        assert x is target
        assert set(x.unique().tolist()) == {0, 1}
        found.append(x)
    assert (found[0] != found[1]).any()
    assert (found[1] == found[2]).all()


def test_an_unchanged_image_is_drawn_as_its_target() -> None:
    other = TRAIN.copy()
    other[0] = 255 - other[0]
    x, target = Source(other, TRAIN, True, 0, CPU).batch(torch.arange(8))
    assert (x[0] != target[0]).any()
    assert (x[1:] == target[1:]).all()


# --- batches, noise, mixture


@pytest.mark.parametrize(
    ("count", "size", "sizes"),
    [(43, 16, [16, 16, 11]), (33, 16, [16, 17]), (32, 16, [16, 16]), (1, 16, [1]), (3, 1, [1] * 3)],
)
def test_no_image_is_left_out_and_none_is_alone(count: int, size: int, sizes: list[int]) -> None:
    parts = batches(torch.arange(count), size)
    assert [len(p) for p in parts] == sizes
    assert torch.cat(parts).tolist() == list(range(count))


def test_batch_norm_trains_on_a_set_that_leaves_one_image_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(short, "TRAIN", TRAIN[:33])
    net = {"name": "conv", "channels": [4, 4], "depth": None}
    rows, _ = fit({"model.architecture": net, "train.epochs": 1})
    assert math.isfinite(rows[0]["val_total"] or math.nan)


def test_a_batch_of_one_with_batch_norm_is_refused() -> None:
    net = {"name": "conv", "channels": [4, 4]}
    with pytest.raises(UserError, match=r"train\.batch_size: batch norm needs at least 2"):
        fit({"model.architecture": net, "train.batch_size": 1})


def test_a_single_training_image_is_not_blamed_on_the_batch_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(short, "TRAIN", TRAIN[:1])
    with pytest.raises(UserError, match=r"^data\.limit: .* got 1; raise it, give more images"):
        fit({"model.architecture": {"name": "conv", "channels": [4, 4]}})


def test_dropout_noise_zeroes_whole_pixels_and_rescales_none() -> None:
    x = torch.rand(200, 3, 8, 8) + 0.1
    noise = short.settings({"train.input_noise": {"name": "dropout", "amount": 0.25}}).train
    y = add_noise(x, noise.input_noise, torch.Generator().manual_seed(0))
    gone = y == 0
    assert (gone.all(1) == gone.any(1)).all()
    assert (y[~gone] == x[~gone]).all()
    assert abs(gone.float().mean() - 0.25) < 0.02  # 12,800 pixels: five standard deviations


def test_gaussian_noise_has_the_given_deviation() -> None:
    noise = short.settings({"train.input_noise": {"name": "gaussian", "amount": 0.3}}).train
    y = add_noise(torch.zeros(100, 1, 16, 16), noise.input_noise, torch.Generator().manual_seed(0))
    assert abs(y.std() - 0.3) < 0.01
    assert abs(y.mean()) < 0.01


def test_noise_is_for_training_inputs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    plain = step.losses

    def watch(model: Autoencoder, x: torch.Tensor, target: torch.Tensor, **how: Any) -> Any:
        seen.append((model.training, (x != target).any().item(), (target > 0.99).any().item()))
        return plain(model, x, target, **how)

    monkeypatch.setattr(step, "losses", watch)
    monkeypatch.setattr(loop, "losses", watch)
    fit({"train.epochs": 1, "train.input_noise": {"name": "dropout", "amount": 0.5}})
    assert {(train, noisy) for train, noisy, _ in seen} == {(True, True), (False, False)}


@pytest.mark.parametrize("fraction", [0.0, 0.1, 1 / 3, 0.5, 1.0])
def test_mixture_replaces_an_exact_share(fraction: float) -> None:
    s = short.settings({"train.mixture": {"fraction": fraction, "corruption": "inverse"}})
    mixed, index = mix(TRAIN, short.corrupted(s), s.train.mixture, 0, "none", 0.5)
    changed = np.flatnonzero((mixed != TRAIN).any((1, 2, 3)))
    assert len(index) == math.floor(fraction * 43 + 0.5)
    assert changed.tolist() == index.tolist()


def test_mixture_is_binarised_as_the_images_were() -> None:
    s = short.settings(SHOT)
    black = (TRAIN > 127).astype(np.uint8) * 255
    mixed, index = mix(black, short.corrupted(s), s.train.mixture, 0, "threshold", 0.5)
    assert set(np.unique(mixed)) == {0, 255}
    assert (np.delete(mixed, index, 0) == np.delete(black, index, 0)).all()


@pytest.mark.parametrize(("target", "clean"), [("clean", True), ("corrupted", False)])
def test_mixture_target(target: str, clean: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = []
    plain = step.losses

    def watch(model: Autoencoder, x: torch.Tensor, y: torch.Tensor, **how: Any) -> Any:
        pairs.append((x, y))
        return plain(model, x, y, **how)

    monkeypatch.setattr(step, "losses", watch)
    fit({"train.mixture": {"fraction": 1.0, "target": target}, "train.epochs": 1})
    x, y = pairs[0]
    originals = {image.tobytes() for image in TRAIN}
    assert all(((i * 255).round().byte().numpy().tobytes() in originals) == clean for i in y)
    assert (x == y).all().item() is not clean


# --- schedules, against numbers worked by hand


def _rates(changes: dict[str, Any], rows: list[dict[str, Any]] | None = None) -> list[float]:
    train = short.settings({"train.lr": 0.1, **changes}).train
    return [learning_rate(train, e, (rows or [])[:e]) for e in range(train.epochs)]


def test_step_divides_by_ten_after_each_milestone() -> None:
    steps = {"train.scheduler": {"name": "step", "milestones": [2, 3]}, "train.epochs": 5}
    assert _rates(steps) == pytest.approx([0.1, 0.1, 0.01, 0.001, 0.001])


def test_cosine_with_warmup() -> None:
    cosine = {"train.scheduler": {"name": "cosine", "warmup": 1}, "train.epochs": 5}
    # half of lr, then lr * (1 + cos(pi k/4)) / 2 for k = 0 .. 3
    assert _rates(cosine) == pytest.approx([0.05, 0.1, 0.0853553391, 0.05, 0.0146446609])


def test_plateau_divides_by_ten_after_patience_epochs_without_a_minimum() -> None:
    plateau = {
        "train.scheduler": {"name": "plateau", "patience": 2, "monitor": "val_recon"},
        "train.epochs": 8,
    }
    values = [5, 4, 4, 6, 3, 3, None, 2]  # None: infinite
    rows = [{"val_recon": v, "val_total": -i} for i, v in enumerate(values)]
    assert _rates(plateau, rows) == pytest.approx([0.1] * 4 + [0.01] * 3 + [0.001])


def test_the_optimiser_gets_the_rate() -> None:
    steps = {"train.scheduler": {"name": "step", "milestones": [1]}, "train.lr": 0.1}
    assert [row["lr"] for row in fit(steps)[0]] == pytest.approx([0.1, 0.01, 0.01])


def test_beta_warms_up_linearly(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    plain = Objective.weigh

    def watch(self: Any, recon: Any, divergence: Any, weight: Any, budget: Any) -> Any:
        seen.append(float(weight))
        return plain(self, recon, divergence, weight, budget)

    monkeypatch.setattr(Objective, "weigh", watch)
    rows, _ = fit({"train.beta_warmup": 2, "loss.beta": 3.0})
    # three batches an epoch; validation weighs nothing in its one batch, and its means by beta
    checked = [0.0, 3.0]
    assert seen == pytest.approx([0, 0.5, 1, *checked, 1.5, 2, 2.5, *checked, 3, 3, 3, *checked])
    assert [row["beta"] for row in rows] == [1.5, 3.0, 3.0]


def test_capacity_counts_optimiser_steps_only(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, steps = Objective.capacity_at, []

    def watch(self: Objective, step: int) -> float:
        steps.append(step)
        return plain(self, step)

    monkeypatch.setattr(Objective, "capacity_at", watch)
    fit(CAPACITY)  # three epochs of three steps, each ended by a batch of validation
    assert steps == [0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 9]


def test_under_capacity_epochs_are_compared_by_the_negative_elbo() -> None:
    rows, _ = fit(CAPACITY | {"train.epochs": 4})
    elbos = [(row["val_recon"] or 0) + (row["val_divergence"] or 0) for row in rows]
    assert [row["val_total"] for row in rows] == pytest.approx(elbos)
    assert best_epoch(rows) == elbos.index(min(elbos))
    # what is minimised is another thing, the distance of the KL from a moving budget
    first = rows[0]
    assert first["train_total"] != pytest.approx(
        (first["train_recon"] or 0) + (first["train_divergence"] or 0)
    )


def test_early_stopping_and_best_epoch() -> None:
    rows = [{"val_total": v} for v in (3.0, 1.0, 2.0, 1.0)]
    assert best_epoch(rows) == 1
    assert [stops_early(rows[:n], 2) for n in range(5)] == [False, False, False, False, True]
    assert not stops_early(rows, None)


def test_training_stops_early_and_returns_the_best_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    totals = iter([5.0, 3.0, 4.0, 4.0, 1.0])
    weights = []

    def validate(self: loop.Trainer) -> Any:
        weights.append(content(self.model))
        return {"val_recon": 0.0, "val_divergence": 0.0, "val_total": next(totals)}

    monkeypatch.setattr(loop.Trainer, "validate", validate)
    rows, model = fit({"train.epochs": 5, "train.early_stopping": 2})
    assert [row["val_total"] for row in rows] == [5, 3, 4, 4]
    assert content(model) == weights[1] != weights[3]


# --- optimisation


def test_average_of_weights_against_a_hand_worked_one() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    average = Average(model, 0.2)
    for number, value in ((1, 2.0), (2, 4.0)):
        model.weight.data.fill_(value)
        average.update(torch.tensor(average.rate(number)))
    # (0.2 * 2 + 4) / (0.2 + 1): the start, 1, has no part in it
    assert average.values[0].item() == pytest.approx(4.4 / 1.2)
    with average.applied([], print):
        assert model.weight.item() == pytest.approx(4.4 / 1.2)
    assert model.weight.item() == 4


def test_averaged_weights_get_batch_norm_statistics_of_their_own() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), BatchNorm2d(2)).eval()
    average = Average(model, 0.5)
    kernel, batches = model[0].weight, torch.randn(3, 8, 1, 9, 9)
    kernel.data.mul_(3.0)
    average.update(torch.tensor(1.0))
    average.values[0].mul_(2.0)
    before = content(model)
    with average.applied(batches, model):
        seen = torch.stack([model[0](x) for x in batches])
        expected = seen.mean((0, 1, 3, 4)), torch.stack([x.var((0, 2, 3)) for x in seen]).mean(0)
        torch.testing.assert_close(model[1].running_mean, expected[0])
        torch.testing.assert_close(model[1].running_var, expected[1])
        assert not model[1].training
    assert content(model) == before
    assert model[1].momentum == 0.1


def test_validation_and_the_final_model_use_the_average(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    plain = loop.Trainer.validate

    def validate(self: loop.Trainer) -> Any:
        assert self.average is not None
        held = [v.clone() for v in self.average.values]  # inside, these are the raw weights
        seen.append((content(self.model), b"".join(v.numpy().tobytes() for v in held)))
        return plain(self)

    monkeypatch.setattr(loop.Trainer, "validate", validate)
    rows, model = fit({"train.ema": 0.9})
    averaged, raw = seen[best_epoch(rows)]
    assert content(model) == averaged != raw


def test_gradients_are_clipped_to_the_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    norms = []
    clip = step.clip_grads_with_norm_

    def watch(parameters: Any, largest: float, norm: torch.Tensor) -> None:
        clip(parameters, largest, norm)
        norms.append(torch.nn.utils.get_total_norm([p.grad for p in parameters]).item())

    monkeypatch.setattr(step, "clip_grads_with_norm_", watch)
    rows, _ = fit({"train.grad_clip": 2.0, "train.epochs": 1})
    assert norms == pytest.approx([2.0] * 3, rel=1e-3)
    assert (rows[0]["grad_norm"] or 0) > 2  # the history has the norm before clipping


@pytest.mark.parametrize(
    ("changes", "clips"),
    [
        ({}, False),
        ({"loss.df": 3.0}, True),
        ({"loss.df": 3.0, "train.grad_clip": None}, False),
        ({"train.grad_clip": 5.0}, True),
    ],
)
def test_automatic_clipping_is_for_gamma(changes: dict[str, Any], clips: bool) -> None:
    s = short.settings(changes)
    assert (clip_norm(s.train, s.loss) is not None) == clips


def test_device_and_precision() -> None:
    assert device.setup(**short.settings({"run.device": "auto"}).run.model_dump()).type in (
        "cpu",
        "cuda",
        "mps",
    )
    assert device.precision("auto", CPU) == "fp32"
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match=r"run\.device: cuda is not available"):
            device.setup(**short.settings({"run.device": "cuda"}).run.model_dump())


# --- what is written


def test_history_is_rewritten_after_each_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = []
    monkeypatch.setattr(
        fitting, "say", lambda text: lengths.append(len(path.read_text().splitlines()))
    )
    path = tmp_path / "history.csv"
    fit(history=path)
    assert lengths == [2, 3, 4]
    header = path.read_text().splitlines()[0]
    wanted = (
        "epoch,lr,beta,train_recon,train_divergence,train_total,val_recon,val_divergence,val_total"
    )
    assert header.startswith(wanted)


def test_an_infinite_divergence_at_beta_zero_is_an_empty_cell(tmp_path: Path) -> None:
    changes = {"loss.beta": 0.0, "loss.alpha": 50.0, "train.lr": 0.1}
    rows, _ = fit(changes, history=tmp_path / "h.csv")
    assert rows[-1]["train_divergence"] is None
    assert "inf" not in (tmp_path / "h.csv").read_text().partition("\n")[2]


@pytest.mark.parametrize(
    ("changes", "rows", "text"),
    [
        ({"loss.df": 2.05}, [{}], "loss.df 2.05: near 2"),
        ({"loss.alpha": 0.5}, [{"alpha_saturation": 1e-5}], "alpha_saturation stayed below 0.001"),
        ({}, [{"t3_effective_beta": 0.0582}], "nearly a Gaussian VAE with loss.beta 0.0582"),
    ],
)
def test_warnings(changes: dict[str, Any], rows: list[Any], text: str) -> None:
    (found,) = training.warnings(short.settings(changes).loss, rows)
    assert text in found
    assert training.warnings(short.settings().loss, [{}]) == []


# --- faults


def test_an_overflow_stops_at_its_step_and_can_be_replayed(tmp_path: Path) -> None:
    keep = resume.Checkpoint(tmp_path, "d" * 64)
    # lr 1e30 ruins the weights at step 0, which step 1 notices
    with pytest.raises(UserError, match=r"training stopped at step 1, epoch 1: ") as error, keep:
        fit({"train.lr": 1e30}, keep)
    text = str(error.value)
    (path,) = (tmp_path / "failures").iterdir()
    assert str(path) in text
    assert "\n" not in text
    reason = text.split("epoch 1: ")[1].split("; to re-create")[0]
    with pytest.raises(ArithmeticError) as again:
        training.replay(path)
    assert str(again.value) in reason


@pytest.mark.parametrize("term", ["recon", "divergence"])
def test_a_loss_that_is_not_finite_names_the_term(
    term: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, count = step.losses, iter(range(100))

    def overflow(model: Autoencoder, *args: Any, **how: Any) -> Any:
        terms, total = plain(model, *args, **how)
        if next(count) >= 2:
            terms = terms._replace(**{term: getattr(terms, term) * math.inf})
            total = total * math.inf
        return terms, total

    monkeypatch.setattr(step, "losses", overflow)
    with (
        resume.Checkpoint(tmp_path, "d" * 64) as keep,
        pytest.raises(UserError, match=rf"step 2, epoch 1: {term} is not finite \(recon .*total "),
    ):
        fit(keep=keep)


def test_a_replayed_step_is_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With moving codebooks and batch norm, whose buffers the failed step has changed."""
    plain, seen = step.losses, []

    def spoilt(model: Autoencoder, *args: Any, **how: Any) -> Any:
        terms, total = plain(model, *args, **how)
        seen.append((terms.recon.tolist(), total.item()))
        return terms, total if len(seen) < 3 else total * math.nan

    monkeypatch.setattr(step, "losses", spoilt)
    changes = {"model.latent.name": "vq", "model.architecture": {"name": "conv", "channels": [4]}}
    keep = resume.Checkpoint(tmp_path, "d" * 64)
    with pytest.raises(UserError, match="step 2"), keep:
        fit(changes, keep)
    _, terms, total = training.replay(next((tmp_path / "failures").iterdir()))
    assert (terms.recon.tolist(), total.item()) == seen[-1]


def test_an_infinite_divergence_stops_with_step_sample_and_image(tmp_path: Path) -> None:
    changes = {"loss.alpha": 5.0, "train.lr": 0.3, "train.epochs": 20, "loss.beta": 1e-6}
    keep = resume.Checkpoint(tmp_path, "d" * 64)
    with (
        pytest.raises(
            UserError, match=r"step \d+, epoch \d+: divergence infinite .*training image"
        ),
        keep,
    ):
        fit(changes, keep)


def test_weights_are_untouched_by_the_failed_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = []
    fail = loop.Trainer.fail

    def watch(self: loop.Trainer, *args: Any) -> Any:
        held.append(all(p.isfinite().all() for p in self.model.parameters()))
        fail(self, *args)

    monkeypatch.setattr(loop.Trainer, "fail", watch)
    plain = step.losses
    monkeypatch.setattr(
        step, "losses", lambda *a, **k: (lambda t: (t[0], t[1] * math.inf))(plain(*a, **k))
    )
    with resume.Checkpoint(tmp_path, "d" * 64) as keep, pytest.raises(UserError):
        fit(keep=keep)
    assert held == [True]


@pytest.mark.parametrize("name", ["alpha", "renyi", "gamma", "t3"])
def test_a_few_epochs_lower_the_loss(name: str) -> None:
    changes: dict[str, Any] = {"loss.divergence": name, "train.epochs": 8}
    if name in ("gamma", "t3"):
        changes |= {"loss.df": 5.0, "model.likelihood": {"name": "gaussian", "variance": "fixed"}}
    rows, _ = fit(changes)
    assert rows[-1]["train_total"] < rows[0]["train_total"]


def test_overlay_of_the_tests_reads_dotted_keys() -> None:
    assert overlay({"a": {"b": 1}}, {"a.b": 2}) == {"a": {"b": 2}}


def digits(count: int) -> np.ndarray:
    """Digits of 8x8 enlarged to 24x24 with a black rim, uint8 [N, 1, 28, 28]."""
    grown = np.kron(load_digits().images[:count, None] * 15.9, np.ones((3, 3)))
    return np.pad(grown, ((0, 0), (0, 0), (2, 2), (2, 2))).astype(np.uint8)


@pytest.mark.parametrize("alpha", [2.0, -1.0])
def test_alpha_beyond_0_and_1_trains_since_the_head_is_scaled(alpha: float) -> None:
    wide = {"loss.alpha": alpha, "model.logvar_bound": "auto", "train.epochs": 4, "run.threads": 1,
            "model.architecture.max_filters": 128, "train.scheduler.name": "constant",
            "train.ema": None, "train.input_noise": {"name": "none", "amount": 0.0}}  # fmt: skip
    s = params.check(overlay(params.read(ROOT / "params.yaml"), wide))

    def totals(scale: float | None) -> list[float]:
        device.setup(**s.run.model_dump())
        model = Autoencoder.build(s.model, s.loss, (1, 28, 28))
        assert isinstance(model.latent, Continuous)
        assert model.latent.scale == pytest.approx(16 / math.sqrt(6272))
        model.latent.scale = scale or model.latent.scale
        rows = training.fit(model, digits(320), digits(64), s.train, s.run)
        return [row["train_total"] or math.nan for row in rows]

    with pytest.raises(UserError, match=r"step 1, .* lower train\.lr, or take"):
        totals(1.0)
    found = totals(None)
    assert found == sorted(found, reverse=True)


# --- compilation


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [{}, {"model.architecture": {"name": "conv", "channels": [8, 16]}}],
    ids=["mlp", "conv"],
)
def test_compiled_layers_are_those_of_full_batches(changes: dict[str, Any]) -> None:
    counters = torch._dynamo.utils.counters
    torch._dynamo.reset()
    counters.clear()
    rows, _ = fit(changes)
    assert not counters["stats"]
    (compiled, model), (again, other) = (fit({**changes, "train.compile": "on"}) for _ in range(2))
    assert counters["stats"]["unique_graphs"] == 2  # encoder and decoder, of either model
    assert not counters["graph_break"]
    assert compiled == again
    assert content(model) == content(other)
    for row, eager in zip(compiled, rows, strict=True):
        assert row == pytest.approx(eager, rel=1e-3)


@pytest.mark.slow
def test_without_a_compiler_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, "/absent/g++"))
    monkeypatch.setattr("torch._inductor.config.fx_graph_cache", False)
    torch._dynamo.reset()
    changes = {"train.compile": "on", "model.architecture.channels": [19]}
    with pytest.raises(
        UserError, match=r"^train.compile: torch cannot compile here \(.*; use off$"
    ):
        fit(changes)
