"""The training loop against the conventional one, on the same nets, in turns.

Conventional: a torchvision-style data set of PIL images, ToTensor image by image, DataLoader,
Adam, `.item()` every step; it runs in a process of its own, with the memory allocator and OpenMP
as they come.
Images are generated.
"""

import contextlib
import functools
import io
import os
import re
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from robustvae import params, training
from robustvae.models.autoencoder import Autoencoder
from robustvae.models.layers import BatchNorm2d, Conv2d, ConvTranspose2d
from robustvae.models.nets import Maps, Vector
from robustvae.params import Params
from robustvae.runtime import torchvision_shim
from robustvae.runtime.device import setup
from robustvae.training.batches import Source
from robustvae.training.loop import Trainer

ROOT = Path(__file__).resolve().parent.parent
CONVENTIONAL = {"0 workers": 0, "2 workers": 2}
SPINS = "300000"  # of idle threads, GNU OpenMP's own default
KINDS = {  # of operations, by what is in their names
    r"convolution|aten::(add|b|)mm": "products",
    "batch_norm|_Norm|addcmul": "batch norm",
    "silu|clamp_min|threshold|tanh|sigmoid|softplus": "activations",
    "adam": "optimiser",
    "copy|contiguous|clone|fill|zero": "copies",
}


@dataclass(frozen=True)
class Net:
    """An architecture with the shape of its images and its batch size."""

    architecture: dict[str, Any]
    shape: tuple[int, int, int]
    batch: int
    batches: int  # per measured epoch


NETS = {
    "small": Net({"name": "small"}, (1, 28, 28), 64, 48),
    "wide": Net({"name": "wide"}, (1, 28, 28), 64, 24),
    "conv 64": Net({"name": "conv", "channels": [32, 64, 128]}, (3, 64, 64), 128, 8),
    "mlp": Net({"name": "mlp"}, (1, 28, 28), 64, 0),  # the cheapest: what is not its own shows
}


def settings(net: Net, precision: str = "auto") -> Params:
    """params.yaml with this net, one epoch and that precision."""
    content = params.read(ROOT / "params.yaml")
    content["model"]["architecture"] |= {"channels": None, **net.architecture}
    content["preprocess"]["image_size"] = net.shape[-1]
    content["train"] |= {"batch_size": net.batch, "epochs": 1, "precision": precision}
    return params.check(content)


def generated(count: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Images uint8 [N, C, H, W]: noise, which costs a net as much as any other image."""
    return np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)


def build(net: Net) -> Autoencoder:
    """A fresh model, the same each time."""
    chosen = settings(net)
    setup(**chosen.run.model_dump())
    return Autoencoder.build(chosen.model, chosen.loss, net.shape)


def of_torch(model: Autoencoder) -> Autoencoder:
    """The same net as a usual script has it: of torch's own layers."""
    for part in (model.encoder, model.decoder):
        for i, layer in enumerate(part):
            if isinstance(layer, Vector):
                part[i] = nn.Flatten()
            elif isinstance(layer, Maps):
                side, _, width = layer.shape
                part[i] = nn.Unflatten(1, (width, side, side))
            elif isinstance(layer, BatchNorm2d | Conv2d | ConvTranspose2d):
                layer.__class__ = type(layer).__base__
    return model


def project(net: Net, images: np.ndarray, precision: str, **run: int) -> float:
    """Seconds of an epoch of robustvae.training.fit; `run` changes settings of that section."""
    chosen, model = settings(net, precision), build(net)
    with contextlib.redirect_stdout(io.StringIO()):
        start = time.perf_counter()
        changed = chosen.run.model_copy(update=run)
        training.fit(model, images, images[:2], chosen.train, changed)
        return time.perf_counter() - start


class Kept:
    """Our loop, its model and optimiser kept from epoch to epoch, as the conventional one's are."""

    def __init__(self, net: Net, images: np.ndarray, precision: str, device: str = "cpu") -> None:
        chosen, model, where = settings(net, precision), build(net), torch.device(device)
        sources = [Source(x, x, False, 0, where) for x in (images, images[:2])]
        model = model.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.trainer = Trainer(model, chosen.train, chosen.run, *sources, None)

    def __call__(self) -> float:
        """Seconds of an epoch."""
        start = time.perf_counter()
        for _ in self.trainer.epoch():
            pass
        self.trainer.finish()
        return time.perf_counter() - start


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """As torchvision's MNIST: an array, a PIL image and a transform per item."""

    def __init__(
        self, images: np.ndarray, transform: Callable[[Image.Image], torch.Tensor]
    ) -> None:
        rows = images.transpose(0, 2, 3, 1)
        self.images, self.transform = rows[..., 0] if rows.shape[-1] == 1 else rows, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), 0


class Conventional:
    """The usual script, its worker processes kept from epoch to epoch."""

    def __init__(self, net: Net, images: np.ndarray, workers: int, device: str = "cpu") -> None:
        torchvision_shim.prepare()
        from torchvision import transforms

        chosen = settings(net)
        torch.set_num_threads(chosen.run.threads)
        torch.manual_seed(0)
        self.device = device
        self.model = of_torch(Autoencoder.build(chosen.model, chosen.loss, net.shape)).to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        pictures = Pictures(images, transforms.ToTensor())
        self.loader = DataLoader(
            pictures, net.batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0,
            multiprocessing_context="fork" if workers else None,  # Linux's default
        )  # fmt: skip

    def __call__(self) -> float:
        """Seconds of an epoch."""
        start, total = time.perf_counter(), 0.0
        self.model.train()
        for x, _ in self.loader:
            self.optimizer.zero_grad()
            terms = self.model(x.to(self.device))
            loss = terms.recon.mean() + terms.divergence.mean()
            loss.backward()
            self.optimizer.step()
            total += loss.item()
        return time.perf_counter() - start


@functools.cache
def _usual(name: str, count: int, workers: int) -> Conventional:
    return Conventional(NETS[name], generated(count, NETS[name].shape), workers)


def usual(name: str, count: int, workers: int) -> float:
    """Seconds of an epoch, in the process that is to keep the loop."""
    return _usual(name, count, workers)()


def own_process() -> ProcessPoolExecutor:
    """A fresh process for one thing at a time."""
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


def operations(net: Net) -> float:
    """Operations of the products per image, forward and backward; a multiply-add is two."""
    model, x = of_torch(build(net)), torch.rand(net.batch, *net.shape)
    with FlopCounterMode(display=False) as counter:
        terms = model(x)
        (terms.recon.mean() + terms.divergence.mean()).backward()
    return counter.get_total_flops() / net.batch


def product_rate(dtype: torch.dtype, largest: int = 2048) -> float:
    """Operations per second of a large matrix product; of a smaller one where that takes long."""
    size, seconds = 128, 0.0
    while size < largest and seconds < 0.05:
        size *= 2
        a, b = torch.rand(2, size, size).to(dtype)
        start = time.perf_counter()
        torch.mm(a, b)
        seconds = time.perf_counter() - start
    return 2 * size**3 / seconds


def speed(name: str, rounds: int, share: float) -> dict[str, dict[str, float]]:
    """Median images per second of each loop, in turns; of ours the ratio to the better usual one.

    `share`: of the machine's matrix-product rate in the same precision, measured in the same turns.
    """
    net = NETS[name]
    images = generated(net.batch * max(2, int(net.batches * share)), net.shape)
    process = own_process()
    with mock.patch.dict(os.environ, {"GOMP_SPINCOUNT": SPINS}):
        process.submit(int).result()  # starts it
    loops: dict[str, Callable[[], float]] = {
        text: lambda workers=workers: process.submit(usual, name, len(images), workers).result()
        for text, workers in CONVENTIONAL.items()
    }
    for precision in ("fp32", "bf16"):
        loops[precision] = Kept(net, images, precision)
    for loop in loops.values():
        loop()
    rates: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    seconds: dict[str, list[float]] = {text: [] for text in loops}
    for _ in range(rounds):
        for text, loop in loops.items():
            seconds[text].append(loop())
        for dtype, found in rates.items():
            found.append(product_rate(dtype))
    process.shutdown()
    rate = {dtype: statistics.median(found) for dtype, found in rates.items()}
    work = operations(net)
    table = {}
    for text, found in seconds.items():
        each = len(images) / statistics.median(found)
        used = rate[torch.bfloat16 if text == "bf16" else torch.float32]
        table[text] = {"images_per_s": each, "of_product_rate": each * work / used}
    best = max(table[text]["images_per_s"] for text in CONVENTIONAL)
    for row in table.values():
        row["ratio"] = row["images_per_s"] / best
    return table


def spent(name: str, precision: str) -> dict[str, float]:
    """Where the time of training goes on one thread: shares by kind of operation."""
    net = NETS[name]
    images = generated(4 * net.batch, net.shape)
    project(net, images, precision, threads=1)  # the first to touch its memory
    with profile(activities=[ProfilerActivity.CPU]) as found:
        project(net, images, precision, threads=1)
    seconds = dict.fromkeys([*KINDS.values(), "all else"], 0.0)
    for event in found.key_averages():
        kind = next((kind for words, kind in KINDS.items() if re.search(words, event.key)), None)
        seconds[kind or "all else"] += event.self_cpu_time_total
    return {kind: value / sum(seconds.values()) for kind, value in seconds.items()}


def growth(rounds: int, counts: tuple[int, int]) -> dict[str, float]:
    """Seconds per image at two sizes of the data, and their ratio: 1 where time grows linearly."""
    net, images = NETS["mlp"], generated(counts[1], NETS["mlp"].shape)
    project(net, images[: counts[0]], "fp32")
    pairs = [[project(net, images[:n], "fp32") / n for n in counts] for _ in range(rounds)]
    few, many = (statistics.median(column) for column in zip(*pairs, strict=True))
    return {f"{counts[0]}": few, f"{counts[1]}": many, "ratio": many / few}


def peak(name: str, loop: str, count: int) -> float:
    """Peak memory, MB, of a process of its own that trains an epoch: all of it, imports too."""
    with own_process() as process:
        return process.submit(_peak, name, loop, count).result()


def _peak(name: str, loop: str, count: int) -> float:
    net = NETS[name]
    images = generated(count, net.shape)
    if loop == "conventional":
        Conventional(net, images, 0)()
    else:
        project(net, images, loop)
    return high_water()


def high_water() -> float:
    """Peak memory of this process, MB; on Linux ru_maxrss would begin with that of its parent."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
