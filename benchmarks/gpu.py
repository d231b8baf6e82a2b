"""Training on a GPU: ours against the usual DataLoader loop and a plain one in memory.

In turns, in one process, on the same nets; only ours is deterministic.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.training import NETS, Conventional, Kept, Net, generated, of_torch, operations
from benchmarks.training import build as fresh

BATCHES = (64, 512)
WORKERS = 4
LOADER = f"DataLoader, {WORKERS} workers"
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


class InMemory:
    """The plain loop: all images on the GPU, Adam, nothing read before the epoch's end."""

    def __init__(self, net: Net, images: np.ndarray, precision: str) -> None:
        self.net, self.bf16 = net, precision == "bf16"
        self.images = torch.from_numpy(images).cuda()
        self.model = of_torch(fresh(net)).cuda().train()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)

    def __call__(self) -> float:
        """Seconds of an epoch."""
        torch.cuda.synchronize()
        start = time.perf_counter()
        total = torch.zeros((), device="cuda")
        for index in torch.randperm(len(self.images), device="cuda").split(self.net.batch):
            x = self.images[index].float() / 255
            self.optimizer.zero_grad()
            with torch.autocast("cuda", torch.bfloat16, enabled=self.bf16):
                terms = self.model(x)
            loss = terms.recon.mean() + terms.divergence.mean()
            loss.backward()
            self.optimizer.step()
            total += loss.detach()
        total.item()
        return time.perf_counter() - start


def product_rate(dtype: torch.dtype, size: int = 8192) -> float:
    """Operations per second of a large matrix product; fp32 with what training uses for it."""
    a, b = torch.rand(2, size, size, device="cuda").to(dtype)
    for _ in range(2):
        torch.cuda.synchronize()
        start = time.perf_counter()
        torch.mm(a, b)
        torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    return 2 * size**3 / seconds


def speed(name: str, batch: int, rounds: int, steps: int) -> dict[str, dict[str, float]]:
    """Images per second of each loop, medians of epochs in turns, and ratios.

    `ratio`: to the loop in memory of the same precision; `of_product_rate`: as for the CPU.
    """
    net = replace(NETS[name], batch=batch)
    images = generated(batch * steps, net.shape)
    loops: dict[str, Callable[[], float]] = {LOADER: Conventional(net, images, WORKERS, "cuda")}
    for precision in PRECISIONS:
        loops[f"in memory, {precision}"] = InMemory(net, images, precision)
        loops[precision] = Kept(net, images, precision, "cuda")
    seconds: dict[str, list[float]] = {text: [] for text in loops}
    for _ in range(rounds + 1):
        for text, loop in loops.items():
            torch.use_deterministic_algorithms(text in PRECISIONS)
            seconds[text].append(loop())
    rate = {p: product_rate(dtype) for p, dtype in PRECISIONS.items()}
    work, table = operations(net), dict[str, dict[str, float]]()
    for text, found in seconds.items():
        each = len(images) / statistics.median(found[1:])  # the first: libraries choose, records
        precision = text[-4:] if text[-4:] in PRECISIONS else "fp32"
        table[text] = {"images_per_s": each, "of_product_rate": each * work / rate[precision]}
    for text, row in table.items():
        plain = f"in memory, {text[-4:]}" if text != LOADER else "in memory, fp32"
        row["ratio"] = row["images_per_s"] / table[plain]["images_per_s"]
    return table


def measure(quick: bool) -> dict[str, Any]:
    """Every net at each batch size; empty without a GPU."""
    if not torch.cuda.is_available():
        return {}
    rounds, steps = (1, 20) if quick else (3, 200)
    names = [(name, batch) for name in NETS for batch in BATCHES]
    return {f"{name}, batch {batch}": speed(name, batch, rounds, steps) for name, batch in names}
