"""The corruptions against those of the package imagecorruptions, in turns, where it is installed.

`pip install imagecorruptions`; severity 3, colour images, its one process against our threads.
"""

import importlib.util
import time
from typing import Any

import numpy as np

from benchmarks.corruptions import blobs, seconds
from robustvae import corruptions

SIZES = {64: 340, 224: 24}  # side -> images: some chunks for each thread
ENOUGH = 6  # images for the slower side
SEVERITY = 3


def theirs() -> Any:
    """The package, mended for libraries that have moved on since its last release."""
    import imagecorruptions
    from imagecorruptions import corruptions as module
    from skimage import filters

    def gaussian(image: Any, *rest: Any, multichannel: bool = False, **how: Any) -> Any:
        return filters.gaussian(image, *rest, channel_axis=-1 if multichannel else None, **how)

    setattr(np, "float_", np.float64)  # noqa: B010 (spelt out, ruff would put its new name)
    module.gaussian = gaussian
    return imagecorruptions


def measure(rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds per image of both and their ratio, best of `rounds`; empty without it."""
    if importlib.util.find_spec("imagecorruptions") is None:
        return {}
    package = theirs()
    shared = [n for n in package.get_corruption_names("all") if n in corruptions.CORRUPTIONS]
    table = {}
    for side, count in SIZES.items():
        images = np.ascontiguousarray(blobs(count, 3, side).transpose(0, 2, 3, 1))
        for name in shared:
            found: list[tuple[float, float]] = []
            package.corrupt(images[0], corruption_name=name, severity=SEVERITY)  # compiles
            ours(images, name)
            for _ in range(rounds):
                start = time.perf_counter()
                for image in images[:ENOUGH]:
                    package.corrupt(image, corruption_name=name, severity=SEVERITY)
                slow = (time.perf_counter() - start) / ENOUGH
                found.append((slow, seconds(ours, images, name) / count))
            slow, fast = (1000 * min(column) for column in zip(*found, strict=True))
            table[f"{name}, {side}"] = {"ms": fast, "peer_ms": slow, "ratio": slow / fast}
    return table


def ours(images: np.ndarray, name: str) -> np.ndarray:
    """Images [N, H, W, 3], corrupted."""
    return corruptions.corrupt_images(images, name, SEVERITY, layout="NHWC")


if __name__ == "__main__":
    for name, row in measure(5).items():
        print(f"{name:24} {row['ms']:8.3f} {row['peer_ms']:8.3f} {row['ratio']:6.1f}")
