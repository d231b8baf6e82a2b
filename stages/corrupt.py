"""Make, or read from the official archive, every corrupted test set."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from robustvae import corruptions, params
from robustvae.corruptions import official
from robustvae.data import binarize, prepared
from robustvae.data.prepared import Prepared
from robustvae.params import CorruptionSettings
from robustvae.runtime import files, seeding
from robustvae.runtime.progress import track
from stages import CORRUPTED, PREPARED, RAW, run

ARCHIVE = RAW / "mnist_c.zip"
Sets = Sequence[tuple[str, int]]  # names and severities
BLOCK_VALUES = 2**24  # pixels that are binarised at once


def main() -> None:
    """Write NAME-SEVERITY.npy for each set, in the order of the parameters, and info.json."""
    settings = params.load()
    data = prepared.load(PREPARED)
    wanted = settings.corruptions
    severities = ["default"] if wanted.severities == "default" else wanted.severities
    sets = [(name, corruptions.resolve(name, s)) for name in wanted.names for s in severities]
    total = len(sets) * len(data.test)
    mode, threshold = settings.preprocess.binarize, settings.preprocess.threshold
    work = write_all(sets, wanted, data, mode, threshold)
    for _ in track(work, "corrupt", total=total, unit="image"):
        pass
    entries = [
        {
            "name": name,
            "severity": severity,
            "group": corruptions.CORRUPTIONS[name].group,
            "default": severity == corruptions.CORRUPTIONS[name].default,
            "parameters": corruptions.CORRUPTIONS[name].parameters[severity - 1],
            "file": f"{name}-{severity}.npy",
            "sha256": files.sha256(CORRUPTED / f"{name}-{severity}.npy"),
        }
        for name, severity in sets
    ]
    info = {"seed": wanted.seed, "source": wanted.source, "sets": entries}
    files.write_json(CORRUPTED / "info.json", info)


def write_all(
    sets: Sets, settings: CorruptionSettings, data: Prepared, mode: str, threshold: float
) -> Iterator[int]:
    """Write every set, binarised as the clean images on disk, yielding once per image."""
    clean = data.grey("test")
    if settings.source == "official":
        names = [name for name, _ in sets]
        order = official.verify(ARCHIVE, names, clean, data.labels["test"], "test")
    for name, severity in sets:
        with files.replace(CORRUPTED / f"{name}-{severity}.npy") as temporary:
            out = np.lib.format.open_memmap(temporary, "w+", np.uint8, clean.shape)
            if settings.source == "official":
                out[:] = official.read(ARCHIVE, name, "test")[order]
                yield from range(len(out))
            else:
                own = settings.own(name)
                for done in corruptions.stream(clean, out, name, severity, settings.seed, own=own):
                    yield from range(done)
            if mode in ("threshold", "static"):  # `dynamic` is drawn by the reader
                rng = seeding.generator(data.info["split_seed"], "binarize", "test")
                binarise(out, mode, threshold, rng)
            out.flush()


def binarise(out: np.ndarray, mode: str, threshold: float, rng: torch.Generator) -> None:
    """Black and white in place, by the draws that made the clean images so."""
    block = max(1, BLOCK_VALUES // out[0].size)
    for first in range(0, len(out), block):
        part = out[first : first + block]
        part[:] = binarize.apply(torch.from_numpy(part), mode, threshold, rng).numpy()


if __name__ == "__main__":
    run(main)
