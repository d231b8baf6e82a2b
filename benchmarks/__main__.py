"""Measure everything, print one table, write reports/bench.json. --quick: small and few."""

import argparse
import os
import platform
from collections.abc import Iterator
from typing import Any

import torch

from benchmarks import corruptions, evaluation, gpu, peers, training
from benchmarks.training import ROOT
from robustvae.runtime import files
from robustvae.runtime.progress import say

MEASURED = ("small", "wide", "conv 64")


def measure(quick: bool) -> dict[str, Any]:
    """All results, nested."""
    rounds, share = (2, 0.25) if quick else (5, 1.0)
    found: dict[str, Any] = {
        "machine": {
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "processor": platform.processor() or platform.machine(),
            "torch": torch.__version__,
        }
    }
    say("corruptions")  # first: the training makes torch refuse what may vary from run to run
    found["corruptions"] = corruptions.measure(*((1, 5) if quick else (5, 50)))
    found["peers"] = peers.measure(1 if quick else 5)
    if not found["peers"]:
        say("imagecorruptions is not installed: it is left out")
    say("training")
    found["training"] = {name: training.speed(name, rounds, share) for name in MEASURED}
    found["spent"] = {
        f"{name}, {precision}": training.spent(name, precision)
        for name in MEASURED
        for precision in ("fp32", "bf16")
    }
    say("training on a GPU" if torch.cuda.is_available() else "no GPU here: it is left out")
    found["gpu"] = gpu.measure(quick)
    say("evaluation")
    count = 200 if quick else 2000
    found["evaluation"] = {name: evaluation.speed(name, count) for name in MEASURED}
    say("memory, start-up, growth")
    images = 2000 if quick else 20_000
    found["memory"] = {
        f"{name}, {loop}": training.peak(name, loop, images if name == "mlp" else 4 * 128)
        for name in ("mlp", "conv 64")
        for loop in ("conventional", "fp32", "bf16")
    }
    found["start"] = evaluation.starts(rounds)
    found["growth"] = training.growth(rounds, (1000, 5000) if quick else (5000, 60_000))
    return found


def lines(found: dict[str, Any]) -> Iterator[tuple[str, str, str, str, str]]:
    """Rows of the table: what, which, value, ratio to the usual way, share of the product rate."""
    for net, loops in found["training"].items():
        for loop, row in loops.items():
            ratio, share = f"{row['ratio']:.2f}", f"{row['of_product_rate']:.0%}"
            usual = f"conventional, {loop}" if loop in training.CONVENTIONAL else loop
            yield f"train {net}", usual, f"{row['images_per_s']:,.0f} images/s", ratio, share
    for net, loops in found["gpu"].items():
        for loop, row in loops.items():
            ratio, share = f"{row['ratio']:.2f}", f"{row['of_product_rate']:.1%}"
            yield f"GPU {net}", loop, f"{row['images_per_s']:,.0f} images/s", ratio, share
    for what, shares in found["spent"].items():
        for kind, share in shares.items():
            yield f"time, {what}", kind, "", "", f"{share:.0%}"
    for net, row in found["evaluation"].items():
        for name, value in row.items():
            what = name.removesuffix("_images_per_s")
            yield f"evaluate {net}", what, f"{value:,.0f} images/s", "", ""
    for name, row in found["corruptions"].items():
        yield "corrupt", name, f"{row['ms']:.4f} ms/image", f"{row['ratio']:.0f}", ""
    for name, row in found["peers"].items():
        yield "against peers", name, f"{row['ms']:.3f} ms/image", f"{row['ratio']:.1f}", ""
    for name, value in found["memory"].items():
        yield "peak memory", name, f"{value:,.0f} MB", "", ""
    for name, value in found["start"].items():
        yield "start", name, f"{value:.2f} s", "", ""
    few, many, ratio = found["growth"].items()
    for count, value in (few, many):
        yield "growth", f"{count} images", f"{1e6 * value:.1f} us/image", "", ""
    yield "growth", "many over few", "", f"{ratio[1]:.3f}", ""


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a short run, to see that it works")
    found = measure(parser.parse_args().quick)
    files.write_json(ROOT / "reports" / "bench.json", found)
    print(f"{'':17} {'':24} {'':>18} {'ratio':>7} {'share':>6}")
    for what, which, value, ratio, share in lines(found):
        print(f"{what:17} {which:24} {value:>18} {ratio:>7} {share:>6}")
    print(
        "ratio: to the better conventional loop, on a GPU to the plain loop in memory of the same"
    )
    print("precision, of corruptions to a loop over images; share: of the speed")
    print("of a large matrix product in that precision, or of the time of training on one thread.")
    print("Written to reports/bench.json")


if __name__ == "__main__":
    main()
