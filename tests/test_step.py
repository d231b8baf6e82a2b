"""A training step as a GPU takes it: nothing is read back, it can be recorded, faults wait.

What a CUDA graph does is emulated here: the operations of a step are noted once and run again on
the same memory. Tests marked `cuda` compare the real thing, where there is one.
"""

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import short
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from robustvae import training
from robustvae.errors import UserError
from robustvae.models.autoencoder import Autoencoder
from robustvae.runtime import device
from robustvae.training import loop, resume, step
from robustvae.training.batches import Source
from robustvae.training.loop import Trainer

CONV = {"name": "conv", "channels": [4, 4]}
KINDS: dict[str, dict[str, Any]] = {
    "mlp": {},
    "bernoulli, per image clipping": {
        "model.likelihood.name": "bernoulli", "train.grad_clip": 2.0, "train.optimizer": "adamw",
        "train.weight_decay": 0.1,
    },
    "conv, alpha 0.5, averaged": {
        "model.architecture": CONV, "loss.alpha": 0.5, "train.ema": 0.9,
        "train.scheduler.name": "cosine",
    },
    "variance per pixel, noise": {
        "model.architecture": CONV,
        "model.likelihood.variance": "per_pixel",
        "train.input_noise": {"name": "dropout", "amount": 0.2},
    },
    "wide, alpha 2": {
        "model.architecture": {"name": "wide", "channels": [4, 4], "hidden": 8},
        "loss.alpha": 2.0, "model.logvar_bound": "auto",
    },
    "beta 0, warm-up": {"loss.beta": 0.0, "train.beta_warmup": 2},
    "student-t": {"loss.df": 3.0, "train.input_noise": {"name": "gaussian", "amount": 0.1}},
    "t3": {"loss.df": 5.0, "loss.divergence": "t3", "model.likelihood.variance": "fixed"},
    "renyi, warm-up": {"loss.divergence": "renyi", "loss.alpha": 0.5, "train.beta_warmup": 2},
    "capacity": {"loss.capacity": {"weight": 10.0, "max": 5.0, "steps": 30}},
    "vq, moving": {"model.latent.name": "vq", "model.architecture": CONV},
    "vq, gradient": {
        "model.latent": {"name": "vq", "update": "gradient"},
        "model.architecture": {"name": "resnet", "channels": [4, 4]},
    },
    "trimmed": {"loss.robust": {"name": "trimmed", "strength": 0.25}},
    "rejected, conv": {
        "loss.robust": {"name": "rejected", "strength": 1.0}, "model.architecture": CONV,
    },
    "huber, student-t": {"loss.robust": {"name": "huber", "strength": 1.0}, "loss.df": 3.0},
    "welsch, laplace": {
        "loss.robust": {"name": "welsch", "strength": 1.0}, "model.likelihood.name": "laplace",
    },
    "beta-ELBO": {
        "loss.robust": {"name": "beta", "strength": 0.01}, "model.likelihood.name": "bernoulli",
    },
    "student-t pixels": {"model.likelihood": {"name": "student_t_pixel", "df": 3.0}},
    "mixture": {"train.mixture": {"fraction": 0.5, "target": "clean"}},
}  # fmt: skip
every_kind = pytest.mark.parametrize("kind", KINDS)
FORBIDDEN = ("_local_scalar_dense", "is_nonzero", "nonzero", "unique", "masked_select", "equal")


class Forbidding(TorchDispatchMode):
    """Refuses what a GPU would have to wait for, or whose memory depends on the data."""

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in FORBIDDEN, f"{name} has the host wait for the device"
        return func(*args, **(kwargs or {}))


class Noting(TorchDispatchMode):
    """Keeps the operations with the tensors that they had, as a graph keeps kernels and memory."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.noted.append((func, args, kwargs or {}, out))
        return out

    @torch.no_grad()
    def replay(self) -> None:
        """Again, each result into the memory that it had."""
        for func, args, kwargs, out in self.noted:
            given = {_memory(x) for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)}
            again = func(*args, **kwargs)
            for old, new in zip(tree_flatten(out)[0], tree_flatten(again)[0], strict=True):
                if isinstance(old, Tensor) and old.numel() and _memory(old) not in given:
                    old.copy_(new)


def _memory(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


def trainer(changes: dict[str, Any], where: str = "cpu", mode: str = "dynamic") -> Trainer:
    """As `fit` makes it."""
    s = short.settings({**changes, "run.device": where})
    found = device.setup(**s.run.model_dump())
    model = Autoencoder.build(s.model, s.loss, (1, 8, 8))
    model.to(found, memory_format=torch.channels_last)  # type: ignore[call-overload]
    inputs = short.TRAIN
    if s.train.mixture.fraction:
        inputs = 255 - inputs
    source, validation = (
        Source(a, b, mode == "dynamic", 0, found)
        for a, b in ((inputs, short.TRAIN), (short.VAL, short.VAL))
    )
    made = Trainer(model.train(), s.train, s.run, source, validation, None)
    made.work.rate(0.01)
    return made


def state(t: Trainer) -> list[Tensor]:
    """All that a step changes."""
    kept = [v for s in t.optimizer.state.values() for v in s.values()]
    average = t.average.values if t.average else []
    tensors = [*t.model.state_dict().values(), *kept, *average, t.work.sums]
    return [v.detach().clone().cpu() for v in tensors]


def rows(t: Trainer, count: int) -> list[tuple[Tensor, Tensor]]:
    """Indices and numbers of full batches."""
    index = [i for e in range(count) for i in t.order(e) if len(i) == 16][:count]
    rates = [t.average.rate(k + 1) if t.average else 0.0 for k in range(count)]
    table = [[t.objective.weight * k / count, t.objective.capacity_at(k), rates[k], float(k > 1)]
             for k in range(count)]  # fmt: skip
    numbers = torch.tensor(table, dtype=torch.float64, device=t.device).unbind()
    return list(zip(index, numbers, strict=True))


@every_kind
def test_a_step_reads_nothing_back(kind: str) -> None:
    t = trainer(KINDS[kind])
    for index, numbers in rows(t, 2):
        t.work.seed(t.at.step)
        with Forbidding():
            t.work(index, numbers)


@every_kind
def test_twenty_steps_replayed_are_those_run(kind: str) -> None:
    run, recorded = trainer(KINDS[kind]), trainer(KINDS[kind])
    feed = rows(run, 20)
    index, numbers = (v.clone() for v in feed[0])
    recorded.work.bad.fill_(1)
    for _ in range(2):
        recorded.work(index, numbers)
    with Noting() as graph:
        recorded.work(index, numbers)
    recorded.work.bad.zero_()
    for number, (one, row) in enumerate(feed):
        run.work.seed(number)
        run.work(one, row)
        index.copy_(one)
        numbers.copy_(row)
        recorded.work.seed(number)
        graph.replay()
        assert recorded.work.finite.item() == run.work.finite.item() == number + 1
        assert all(torch.equal(a, b) for a, b in zip(state(run), state(recorded), strict=True))


@every_kind
def test_a_step_that_is_not_finite_changes_nothing(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    t = trainer(KINDS[kind])
    feed = rows(t, 6)
    for number in range(2):
        t.work.seed(number)
        t.work(*feed[number])
    before, plain = state(t), step.losses
    spoilt = {2: math.nan, 3: math.inf}

    for number in range(2, 6):

        def losses(*args: Any, factor: float = spoilt.get(number, 1.0), **how: Any) -> Any:
            terms, total = plain(*args, **how)
            return terms._replace(recon=terms.recon * factor), total * factor

        monkeypatch.setattr(step, "losses", losses)
        t.work.seed(number)
        t.work(*feed[number])
    assert t.work.finite.item() == 2
    assert all(torch.equal(a, b) for a, b in zip(before, state(t), strict=True))


def stop(
    every: int, folder: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> tuple[str, bytes]:
    """The message of a training whose fifth step overflows, and what it left in the weights."""
    held: list[bytes] = []
    fail = Trainer.fail

    def watched(self: Trainer, *args: Any) -> Any:
        held.append(b"".join(v.numpy().tobytes() for v in state(self)))
        fail(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "LOOK_EVERY", {"cpu": every})
        patch.setattr(Trainer, "fail", watched)
        patch.setattr(Trainer, "numbers", _spoiling(Trainer.numbers))
        keep = resume.Checkpoint(folder, "d" * 64)
        with pytest.raises(UserError) as caught, keep:
            short.fit(changes, keep)
    return str(caught.value).replace(str(folder), ""), held[0]


def _spoiling(plain: Callable[..., Any]) -> Callable[..., Any]:
    def numbers(self: Trainer, position: int) -> tuple[float, ...]:
        weight, *others = plain(self, position)
        number = self.at.step + position - self.at.position
        return math.inf if number == 4 else weight, *others

    return numbers


@pytest.mark.parametrize("kind", ["mlp", "conv, alpha 0.5, averaged", "vq, moving"])
def test_a_fault_found_late_is_told_as_one_found_at_once(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon, late = (stop(n, tmp_path / str(n), monkeypatch, KINDS[kind]) for n in (1, 200))
    assert "step 4, epoch 2: total is not finite" in soon[0]
    assert late == soon


def test_an_infinite_divergence_found_late_names_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"loss.alpha": 5.0, "train.lr": 0.3, "train.epochs": 20, "loss.beta": 1e-6}
    found = []
    for every in (1, 200):
        monkeypatch.setattr(loop, "LOOK_EVERY", {"cpu": every})
        keep = resume.Checkpoint(tmp_path / str(every), "d" * 64)
        with (
            pytest.raises(UserError, match=r"divergence infinite .*training image") as caught,
            keep,
        ):
            short.fit(changes, keep)
        found.append(str(caught.value).partition("; to re-create")[0])
    assert found[0] == found[1]


def test_a_fault_that_does_not_come_again_is_called_one(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, calls = step.losses, []

    def once(*args: Any, **how: Any) -> Any:
        calls.append(0)
        terms, total = plain(*args, **how)
        return terms, total * (math.nan if len(calls) == 2 else 1)

    monkeypatch.setattr(step, "losses", once)
    with pytest.raises(UserError, match=r"step 1, epoch 1: not finite, but .* run\.deterministic"):
        short.fit()


def test_training_and_loading_leave_the_compiler_of_torch_alone() -> None:
    """It takes a second to import, which optimisers and some methods of tensors do unasked."""
    code = (
        "import sys, short, robustvae; short.fit({'train.grad_clip': 1.0, 'train.ema': 0.9}); "
        "robustvae.load('mnist'); print({'torch._dynamo', 'sympy'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "set()"


# --- with a GPU: pytest -m cuda


needs_cuda = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
cuda = [pytest.param(kind, marks=needs_cuda) for kind in KINDS]


@pytest.mark.parametrize("kind", cuda)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_recorded_steps_are_those_run_one_by_one(kind: str, precision: str) -> None:
    found = []
    for recording in (True, False):
        t = trainer({**KINDS[kind], "train.precision": precision}, "cuda")
        assert t.recording
        t.recording = recording
        for index, numbers in rows(t, 20):
            t.step(index, numbers)
        t.look()
        found.append(state(t))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("kind", cuda)
def test_a_training_on_a_gpu_goes_on_to_the_same_bits(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {**KINDS[kind], "run.device": "cuda"}
    whole = short.fit(changes, mode="dynamic")
    plain, count = Trainer.step, iter(range(100))

    def interrupted(self: Trainer, *args: Any) -> Any:
        if next(count) == 4:
            self.save()
            raise KeyboardInterrupt
        return plain(self, *args)

    keep = resume.Checkpoint(tmp_path, "d" * 64)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", interrupted)
        with pytest.raises(KeyboardInterrupt), keep:
            short.fit(changes, keep, mode="dynamic")
    with keep:
        again = short.fit(changes, keep, mode="dynamic")
    assert again[0] == whole[0]
    assert short.content(again[1]) == short.content(whole[1])


@pytest.mark.parametrize("kind", cuda[:3])
def test_a_fault_on_a_gpu_is_told_as_on_a_cpu(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "numbers", _spoiling(Trainer.numbers))
    for where in ("cuda", "cpu"):
        keep = resume.Checkpoint(tmp_path / where, "d" * 64)
        with pytest.raises(UserError, match="step 4, epoch 2: total is not finite"), keep:
            short.fit({**KINDS[kind], "run.device": where}, keep)
        training.replay(next((tmp_path / where / "failures").iterdir()))


@pytest.mark.parametrize("kind", cuda)
def test_a_gpu_reconstructs_as_the_cpu(kind: str) -> None:
    _, model = short.fit({**KINDS[kind], "run.device": "cuda"}, mode="none")
    x = torch.from_numpy(short.VAL) / 255
    with torch.no_grad():
        here, there = model.reconstruct(x), model.cuda().reconstruct(x.cuda()).cpu()
    assert (here - there).abs().mean() < 1e-3
