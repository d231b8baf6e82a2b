"""What trains a net faster on this machine, bf16 or compiled: measured once, kept in a cache."""

import copy
import hashlib
import json
import platform
import re
import statistics
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from filelock import FileLock
from torch.utils.flop_counter import FlopCounterMode

from robustvae.errors import UserError
from robustvae.models.autoencoder import Autoencoder
from robustvae.params import RunSettings, TrainSettings
from robustvae.runtime import device, distributed, files
from robustvae.runtime.progress import say
from robustvae.training.batches import Source
from robustvae.training.loop import Trainer

# Gaussian latents with these nets ended within 0.5 % of fp32's test ELBO, mean of three seeds.
CHECKED = ("conv", "small", "wide", "mlp")
WORTH = 2e12  # multiply-adds of all forward passes, a minute or two: shorter trainings try nothing
STEPS = 1000  # of which the trial's cost less than 2 %
MANY = 50_000  # steps, some minutes of the quickest: compilation takes 3 to 20 s
MARGIN = 1.15  # by which the other way must be faster
WARM, ROUNDS = 2, 5  # steps of each, first unmeasured, then measured in turns


def settle(
    model: Autoencoder,
    train: TrainSettings,
    run: RunSettings,
    images: int,
    where: torch.device,
) -> TrainSettings:
    """The settings of a training on so many images, with no `auto` left in precision and compile.

    The faster way, where the training is long enough to repay a trial. bf16 on a GPU needs none.
    """
    wanted = train
    settled = {"precision": device.precision(train.precision, where)}
    settled["compile"] = "off" if train.compile == "auto" else train.compile
    train = train.model_copy(update=settled)
    if wanted.precision == "auto" and where.type == "cpu" and _repays(model, train, images):
        train = _faster(model, train, run, where, "precision", "bf16")
    if wanted.compile == "auto" and train.epochs * images >= MANY * train.batch_size:
        train = _faster(model, train, run, where, "compile", "on")
    return train


def _faster(
    model: Autoencoder,
    train: TrainSettings,
    run: RunSettings,
    where: torch.device,
    key: str,
    other: str,
) -> TrainSettings:
    """The settings as they are, or with another value of `key` if that is faster by the margin."""
    values = (getattr(train, key), other)
    ways = {value: train.model_copy(update={key: value}) for value in values}
    facts = _facts(model, ways, run, where)
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    try:
        path = files.user_cache() / f"{key}-{digest[:16]}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):  # one measures, the others wait and agree
            rates = _kept(path, values)
            if rates is None:
                rates = measure(model, ways, run, where)
                files.write_json(path, {"images_per_s": rates, **facts})
    except (OSError, RuntimeError, UserError) as error:  # RuntimeError: there is no home
        say(f"{key}: {values[0]}, for want of a trial ({error})")
        return train
    chosen = other if rates[other] > MARGIN * rates[values[0]] else values[0]
    speeds = ", ".join(f"{value} {rates[value]:,.0f}" for value in values)
    say(f"{key}: {chosen} ({speeds} images/s in the trial kept in {path})")
    return ways[chosen]


def work(model: Autoencoder) -> int:
    """Multiply-adds of an image's way through encoder and decoder."""
    x = torch.zeros(1, *model.shape, dtype=torch.float64)  # in which layers are torch's own
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        copy.deepcopy(model).double().eval().reconstruct(x)
    return int(counter.get_total_flops()) // 2


def measure(
    model: Autoencoder, ways: Mapping[str, TrainSettings], run: RunSettings, where: torch.device
) -> dict[str, float]:
    """Images per second of training steps on noise in each way, medians in turns."""
    batch = next(iter(ways.values())).batch_size
    noise = np.random.default_rng(0).integers(0, 256, (batch, *model.shape), dtype=np.uint8)
    source = Source(noise, noise, False, run.seed, where)
    index, seconds = torch.arange(batch, device=where), dict[str, list[float]]()
    numbers = torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=torch.float64, device=where)
    with torch.random.fork_rng(devices=[]):
        trainers = {name: _trainer(model, way, run, source) for name, way in ways.items()}
        for _ in range(WARM + ROUNDS):
            for name, trainer in trainers.items():
                start = perf_counter()
                trainer.step(index, numbers)
                trainer.look()
                seconds.setdefault(name, []).append(perf_counter() - start)
    return {name: batch / statistics.median(s[WARM:]) for name, s in seconds.items()}


def _trainer(model: Autoencoder, train: TrainSettings, run: RunSettings, source: Source) -> Trainer:
    own = copy.deepcopy(model).to(source.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    return Trainer(own, train, run, source, source, None)


def _repays(model: Autoencoder, train: TrainSettings, images: int) -> bool:
    """A count, not a clock: the same everywhere."""
    if model.family != "gaussian" or model.geometry.name not in CHECKED or model.plugins():
        return False
    passes = train.epochs * images
    return passes >= STEPS * train.batch_size and passes * work(model) >= WORTH


def _facts(
    model: Autoencoder, ways: Mapping[str, TrainSettings], run: RunSettings, where: torch.device
) -> Mapping[str, object]:
    """What the speed depends on."""
    gpu = torch.cuda.get_device_name(where) if where.type == "cuda" else None
    return {
        "processor": _processor(),
        "gpu": gpu,
        "torch": torch.__version__,
        "threads": run.threads,
        "processes": distributed.size(),
        "model": model.settings.model_dump(mode="json"),
        "shape": list(model.shape),
        "ways": {name: (s.precision, s.compile, s.batch_size) for name, s in ways.items()},
    }


def _processor() -> str:
    """Its name, with the instructions that torch uses of it."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    name = re.search(r"model name\s*: (.*)", text)
    found = name[1] if name else platform.processor() or platform.machine()
    return f"{found}, {torch.backends.cpu.get_cpu_capability()}"


def _kept(path: Path, values: tuple[str, str]) -> dict[str, float] | None:
    """The rates of a trial before; None where there is none, or none that can be read."""
    if not path.exists():
        return None
    try:
        rates = files.read_json(path)["images_per_s"]
        return {name: float(rates[name]) for name in values}
    except (UserError, KeyError, TypeError, ValueError):
        say(f"{path}: damaged, the trial is made anew")
        return None
