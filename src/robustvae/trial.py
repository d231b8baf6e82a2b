"""Whether fp32 or bf16 trains a net faster on this processor: measured once, kept in a cache."""

import copy
import hashlib
import json
import os
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

from robustvae import device, distributed, files
from robustvae.errors import UserError
from robustvae.model import Autoencoder
from robustvae.params import RunSettings, TrainSettings
from robustvae.progress import say
from robustvae.training.loop import Trainer
from robustvae.training.source import Source

# Gaussian latents with these nets ended within 0.5 % of fp32's test ELBO, mean of three seeds.
CHECKED = ("conv", "small", "wide", "mlp")
WORTH = 2e12  # multiply-adds of all forward passes, a minute or two: shorter trainings try nothing
STEPS = 1000  # of which the trial's cost less than 2 %
MARGIN = 1.15  # by which bf16 must be faster
WARM, ROUNDS = 2, 5  # steps of each, first unmeasured, then measured in turns


def precision(
    model: Autoencoder,
    train: TrainSettings,
    run: RunSettings,
    images: int,
    where: torch.device,
) -> str:
    """fp32 or bf16 for a training on so many images; auto on a CPU: the faster one, if worth it."""
    settled = device.precision(train.precision, where)
    if train.precision != "auto" or where.type != "cpu" or not _repays(model, train, images):
        return settled
    facts = _facts(model, train, run)
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    try:
        path = folder() / f"precision-{digest[:16]}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):  # one measures, the others wait and agree
            rates = _kept(path)
            if rates is None:
                rates = measure(model, train, run)
                files.write_json(path, {"images_per_s": rates, **facts})
    except (OSError, RuntimeError, UserError) as error:  # RuntimeError: there is no home
        say(f"precision: {settled}, for want of a trial ({error})")
        return settled
    chosen = "bf16" if rates["bf16"] > MARGIN * rates["fp32"] else "fp32"
    speeds = ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items())
    say(f"precision: {chosen} ({speeds} images/s in the trial kept in {path})")
    return chosen


def folder() -> Path:
    """The user's, so that all copies of a project on a machine decide alike."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "robustvae"


def work(model: Autoencoder) -> int:
    """Multiply-adds of an image's way through encoder and decoder."""
    x = torch.zeros(1, *model.shape)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        copy.deepcopy(model).eval().reconstruct(x)
    return int(counter.get_total_flops()) // 2


def measure(model: Autoencoder, train: TrainSettings, run: RunSettings) -> dict[str, float]:
    """Images per second of training steps on noise in either precision, medians in turns."""
    shape = (train.batch_size, *model.shape)
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    source = Source(noise, noise, False, run.seed, torch.device("cpu"))
    index, seconds = torch.arange(train.batch_size), dict[str, list[float]]()
    with torch.random.fork_rng(devices=[]):
        trainers = {name: _trainer(model, train, run, source, name) for name in ("fp32", "bf16")}
        for _ in range(WARM + ROUNDS):
            for name, trainer in trainers.items():
                start = perf_counter()
                trainer.step(index, 1.0)
                seconds.setdefault(name, []).append(perf_counter() - start)
    return {n: train.batch_size / statistics.median(s[WARM:]) for n, s in seconds.items()}


def _trainer(
    model: Autoencoder, train: TrainSettings, run: RunSettings, source: Source, precision: str
) -> Trainer:
    own = copy.deepcopy(model).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    settings = train.model_copy(update={"precision": precision})
    return Trainer(own, settings, run, source, source, None)


def _repays(model: Autoencoder, train: TrainSettings, images: int) -> bool:
    """A count, not a clock: the same everywhere."""
    if model.family != "gaussian" or model.geometry.name not in CHECKED:
        return False
    passes = train.epochs * images
    return passes >= STEPS * train.batch_size and passes * work(model) >= WORTH


def _facts(model: Autoencoder, train: TrainSettings, run: RunSettings) -> Mapping[str, object]:
    """What the speed depends on."""
    return {
        "processor": _processor(),
        "torch": torch.__version__,
        "threads": run.threads,
        "processes": distributed.size(),
        "model": model.settings.model_dump(mode="json"),
        "shape": list(model.shape),
        "batch_size": train.batch_size,
    }


def _processor() -> str:
    """Its name, with the instructions that torch uses of it."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    name = re.search(r"model name\s*: (.*)", text)
    found = name[1] if name else platform.processor() or platform.machine()
    return f"{found}, {torch.backends.cpu.get_cpu_capability()}"


def _kept(path: Path) -> dict[str, float] | None:
    """The rates of a trial before; None where there is none, or none that can be read."""
    if not path.exists():
        return None
    try:
        rates = files.read_json(path)["images_per_s"]
        return {name: float(rates[name]) for name in ("fp32", "bf16")}
    except (UserError, KeyError, TypeError, ValueError):
        say(f"{path}: damaged, the trial is made anew")
        return None
