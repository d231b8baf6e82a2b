"""Images per second of the evaluation; seconds until Python, the package and a stage are ready."""

import contextlib
import io
import os
import statistics
import subprocess
import sys
import time
from functools import partial

import numpy as np

from benchmarks.training import NETS, ROOT, build, generated, settings
from robustvae.robustness import bounds, measure
from robustvae.robustness.bounds import Draws
from robustvae.robustness.subject import Own, features

SETS = 3  # corrupted sets beside the clean one
STARTS = {
    "python": "pass",
    "import robustvae": "import robustvae",
    "import torch": "import torch",
    "a stage without torch": "import stages.download",
    "the train stage": "import stages.train",
    "the evaluate stage": "import stages.evaluate",
}


def speed(name: str, count: int) -> dict[str, float]:
    """Images per second: of all metrics, where every set counts, and of the likelihood's bounds."""
    net, draws = NETS[name], Draws(0)
    chosen, model, images = settings(net).evaluate, build(net).eval(), generated(count, net.shape)
    labels = np.arange(count) % 10
    few = count // 20
    sets = {str(k): np.roll(images, k, axis=-1) for k in range(SETS + 1)}
    with contextlib.redirect_stderr(io.StringIO()):
        q = bounds.posteriors(model, images, chosen.batch_size)
        codes = partial(features, model, images, q, chosen.batch_size)
        probe = measure.fit_probe(codes, labels, labels, chosen)
        known = measure.Known(labels, images.mean(0) / np.float32(255), probe)
        start = time.perf_counter()
        measure.measure(Own(model, q, draws), sets, known, chosen)
        middle = time.perf_counter()
        part = None if q is None else bounds.select(q, slice(few))
        bounds.likelihood(model, images[:few], part, True, chosen, draws)
        end = time.perf_counter()
    return {
        "metrics_images_per_s": len(sets) * count / (middle - start),
        "likelihood_images_per_s": few / (end - middle),
    }


def starts(rounds: int) -> dict[str, float]:
    """Median seconds of `python -c ...`, in turns."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    found: dict[str, list[float]] = {name: [] for name in STARTS}
    for _ in range(rounds):
        for name, code in STARTS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)
            found[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in found.items()}
