"""Make, or read from the official archive, every corrupted test set."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from robustvae import binarize, corruptions, files, params, prepared, seeding
from robustvae.corruptions import official
from robustvae.params import CorruptionSettings
from robustvae.progress import track
from stages import CORRUPTED, PREPARED, RAW, run

ARCHIVE = RAW / "mnist_c.zip"
BLOCK_VALUES = 2**24  # pixels that are binarised at once


def main() -> None:
    """Write NAME-SEVERITY.npy for each set, and info.json."""
    settings = params.load()
    data = prepared.load(PREPARED)
    sets = wanted(settings.corruptions)
    total = len(sets) * len(data.test)
    mode, threshold = settings.preprocess.binarize, settings.preprocess.threshold
    shade = partial(binarise, mode=mode, threshold=threshold)
    for _ in track(
        write_all(sets, settings.corruptions, data, shade), "corrupt", total=total, unit="image"
    ):
        pass
    entries = [
        {
            "name": name,
            "severity": severity,
            "group": corruptions.CORRUPTIONS[name].group,
            "default": severity == corruptions.CORRUPTIONS[name].default,
            "parameters": corruptions.CORRUPTIONS[name].parameters[severity - 1],
            "file": target(name, severity).name,
            "sha256": files.sha256(target(name, severity)),
        }
        for name, severity in sets
    ]
    info = {
        "seed": settings.corruptions.seed,
        "source": settings.corruptions.source,
        "sets": entries,
    }
    files.write_json(CORRUPTED / "info.json", info)


def wanted(settings: CorruptionSettings) -> list[tuple[str, int]]:
    """Names with severities, in the order of the parameters."""
    severities = ["default"] if settings.severities == "default" else settings.severities
    return [(name, corruptions.resolve(name, s)) for name in settings.names for s in severities]


def target(name: str, severity: int) -> Path:
    """The file of a set."""
    return CORRUPTED / f"{name}-{severity}.npy"


def write_all(
    sets: list[tuple[str, int]],
    settings: CorruptionSettings,
    data: prepared.Prepared,
    shade: Callable[[np.ndarray, torch.Generator], None],
) -> Iterator[int]:
    """Write every set, binarised by `shade`, yielding once per image."""
    clean = data.grey("test")
    if settings.source == "official":
        names = [name for name, _ in sets]
        order = official.verify(ARCHIVE, names, clean, data.labels["test"], "test")
    for name, severity in sets:
        with files.replace(target(name, severity)) as temporary:
            out = np.lib.format.open_memmap(temporary, "w+", np.uint8, clean.shape)
            if settings.source == "official":
                out[:] = official.read(ARCHIVE, name, "test")[order]
                yield from range(len(out))
            else:
                for done in corruptions.stream(clean, out, name, severity, settings.seed):
                    yield from range(done)
            shade(out, seeding.generator(settings.seed, "binarize", name, severity))
            out.flush()


def binarise(out: np.ndarray, rng: torch.Generator, mode: str, threshold: float) -> None:
    """Black and white in place, as the clean images on disk; `dynamic` is drawn by the reader."""
    if mode not in ("threshold", "static"):
        return
    block = max(1, BLOCK_VALUES // out[0].size)
    for first in range(0, len(out), block):
        part = out[first : first + block]
        x = binarize.apply(torch.from_numpy(part), mode, threshold, rng)
        part[:] = x.numpy()


if __name__ == "__main__":
    run(main)
